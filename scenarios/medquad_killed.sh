#!/usr/bin/env bash
# The plan of fedavg-medquad-lora.toml as a deployment: a coordinator and four institutes' agents, each a process with its own files,
# and the coordinator killed with SIGKILL in the middle of rounds 2 and 3.
#   scenarios/medquad_killed.sh scenarios/medquad-four.jsonl WORK_FOLDER
# Needs `sheaf` and `sheaf-agent` on the PATH (`export PATH=$PWD/target/release:$PATH`) and the model (`sheaf-agent model pull smollm2-135m`).
set -euo pipefail
records=$(realpath "$1") work=$2 port=${PORT:-7443}
here=$(realpath "$(dirname "$0")")
mkdir -p "$work" && cd "$work"

sheaf init --home coordinator --name localhost --listen "127.0.0.1:$port" >init.log
export SHEAF_HOME=$PWD/coordinator

serve() {
    sheaf serve 2>>coordinator.log &
    coordinator=$!
    until sheaf info >/dev/null 2>&1; do sleep 0.2; done
}
agents=()
trap 'kill -9 $coordinator 2>/dev/null; kill "${agents[@]}" 2>/dev/null || true' EXIT
serve

for site in $(python3 -c 'import json, sys; print(*sorted({json.loads(line)["site"] for line in open(sys.argv[1])}))' "$records"); do
    name=$(tr 'A-Z' 'a-z' <<<"$site")
    mkdir -p "$name"
    grep "\"site\": \"$site\"" "$records" >"$name/records.jsonl"
    cat >"$name/agent.toml" <<EOF
[agent]
home = "agent-home"

[data.medquad]
kind = "text"
path = "records.jsonl"

[policy]
workloads = ["fedavg"]
datasets = ["medquad"]
models = ["smollm2-135m"]
release = ["updates", "metrics"]
min_cohort = 3
min_rows = 5
approve = "auto"
EOF
    sheaf site invite "$name" >"$name/token"
    sheaf-agent --config "$name/agent.toml" enroll "@$name/token" >"$name/enroll.log"
    RAYON_NUM_THREADS=${AGENT_THREADS:-1} sheaf-agent --config "$name/agent.toml" start 2>"$name/agent.log" &
    agents+=($!)
done

# The scenario's plan without the parts that only a simulation has.
python3 - "$here/fedavg-medquad-lora.toml" >study.toml <<'EOF'
import re, sys
plan = open(sys.argv[1]).read()
for part in ("data", "partition", "simulate"):
    plan = re.sub(rf"(?ms)^\[{part}\]\n.*?(?=^\[|\Z)", "", plan)
print(plan.replace('workload = "fedavg"', 'workload = "fedavg"\ndataset = "medquad"', 1))
EOF
sheaf run submit study.toml --id medquad

phase() { sheaf run show medquad --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["run"]["phase"])'; }
for round in 2 3; do
    until [ "$(phase)" = "round-$round" ]; do sleep 0.5; done
    sleep "${INTO_ROUND:-15}" # some answers are in, some are not
    echo "$(date +%T) killing the coordinator in round $round"
    kill -9 $coordinator
    sleep 3
    serve
done
sheaf run watch medquad
sheaf run report medquad --out report
sheaf run verify report
