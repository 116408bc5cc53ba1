//! The agent at a data-holding site. It dials out to the coordinator, decides by the site's own policy what
//! it takes part in, computes on the site's records, and lets out only what passed the egress gate.
//!
//! ```text
//! link (dial, session, outbox) ─► policy (gate, approval) ─► worker ─► task (data, arithmetic) ─► egress ─► outbox ─► link
//!                                                                └► budget (ledger) ─► noise ──┘
//! ```

pub mod budget;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod device;
pub mod egress;
pub mod error;
pub mod features;
pub mod identity;
pub mod link;
pub mod models;
pub mod policy;
pub mod secure;
pub mod state;
pub mod task;
pub mod worker;

/// Version of this build, as it is reported to the coordinator.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
