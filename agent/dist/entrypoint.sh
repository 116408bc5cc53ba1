#!/bin/sh
# Enrols this site once with the token in a file, then runs the agent.
set -eu
config=${SHEAF_AGENT_CONFIG:-/etc/sheaf/agent.toml}
home=${SHEAF_AGENT_HOME:-/var/lib/sheaf-agent}
token=${SHEAF_TOKEN_FILE:-/etc/sheaf/token}

if [ ! -e "$home/identity.pem" ]; then
    until [ -s "$token" ]; do
        echo "not enrolled yet: waiting for a token in $token" >&2
        sleep 5
    done
    sheaf-agent --config "$config" enroll "@$token"
fi
exec sheaf-agent --config "$config" start "$@"
