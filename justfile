# The one door: `just` lists what there is.

_default:
    @just --list --unsorted

# Format everything.
fmt:
    cargo fmt --all

# Lints as in CI: warnings are errors.
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests; no network is needed.
test *ARGS:
    cargo test --workspace {{ARGS}}

# What continuous integration runs.
ci:
    .ci/run

# Every accelerator of this machine against the CPU, then speeds. KIND: cuda, vulkan or wgpu.
gpu-check KIND="cuda":
    SHEAF_REQUIRE_DEVICE=1 cargo test --release -p sheaf-models --features {{KIND}} --lib --test gpu -- --nocapture --test-threads=1
    cargo run --release --bin sheaf-agent --features sheaf-agent/{{KIND}} -- devices

# Licences, banned crates, sources (needs cargo-deny).
deny:
    cargo deny check bans licenses sources

# Four hospitals, one model, on this machine.
heart *ARGS:
    cargo run --release --bin sheaf -- simulate scenarios/heart-disease.toml {{ARGS}}

# Every scenario, one after the other; reports go to runs/.
scenarios:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release --bin sheaf
    for plan in scenarios/*.toml; do
        echo "== $plan"
        ./target/release/sheaf simulate "$plan"
    done

# All images: coordinator, agent, and an agent with Python for programs that a model wrote.
images:
    docker build --target coordinator -t sheaf .
    docker build --target agent -t sheaf-agent .
    docker build --target agent-code -t sheaf-agent-code .
