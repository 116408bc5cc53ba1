//! The gRPC services: decode, authorise, call the hub, encode. Nothing is decided here.

pub mod authz;
mod enrolment;
mod fleet;
pub(crate) mod operator;
pub mod server;
mod transfer;
