//! The promises of Sheaf, one file a promise. `cargo test -p sheaf-tests` runs all of them;
//! `cargo test -p sheaf-tests identity` those of one file.
//!
//! Some need the real binaries, which `cargo test --workspace` builds; alone: `cargo build -p sheaf -p sheaf-agent`.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed; clippy allows it in the tests but not in their helpers"
)]

mod answers;
mod api;
mod blobs;
mod clip;
mod cut_network;
mod dropouts;
mod fdkt;
mod fedavg;
mod hostile_results;
mod identity;
mod killed_agent;
mod killed_coordinator;
mod one_hash;
mod privacy;
mod privacy_wire;
mod rewardds;
mod samples;
mod secure;
mod structure;
mod versions;
mod withdraw_and_add;
