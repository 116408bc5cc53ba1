//! Whole rounds between honest sites and an honest coordinator, then with either of them dishonest.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed; clippy allows it in the tests but not in their helpers"
)]

mod analytic;
mod dropouts;
mod federation;
mod hostile_coordinator;
mod hostile_site;
mod memory;
mod restart;
mod uniform;
mod wire;
