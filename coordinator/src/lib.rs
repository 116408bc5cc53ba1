//! The coordinator of Sheaf: serves agents and operators over gRPC with mutual TLS, runs plans through a
//! journalled state machine, keeps what must be kept, and reports.
//!
//! Layers, dependencies pointing down:
//!
//! ```text
//! rpc       decode, authorise, call, encode
//! hub       sites and runs as the services see them
//! run       machine (pure), driver (journal, effects)     workload   what to ask, how to merge
//! fleet     who is connected                              report     what a run leaves behind
//! store     database, journal, blobs                      identity   authority, enrolment, signatures
//! llm       language models: servers, cache
//! ```

pub mod clock;
pub mod error;
pub mod fleet;
pub mod home;
pub mod hub;
pub mod identity;
pub mod llm;
pub mod models;
pub mod privacy;
pub mod report;
pub mod rpc;
pub mod run;
pub mod store;
pub mod workload;

/// Version of this build, as it is reported on the wire and in reports.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
