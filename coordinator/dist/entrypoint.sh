#!/bin/sh
# Makes the coordinator's home on the first start, then serves.
set -eu
export SHEAF_HOME="${SHEAF_HOME:-/var/lib/sheaf}"

if [ ! -e "$SHEAF_HOME/coordinator.toml" ]; then
    sheaf init --name "${SHEAF_NAME:-coordinator}" --listen "0.0.0.0:${SHEAF_PORT:-7443}"
fi
exec sheaf serve "$@"
