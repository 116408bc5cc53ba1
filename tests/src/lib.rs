//! The harness of the end-to-end tests: a federation on this machine ([`cluster`]), records to run it on
//! ([`data`], [`texts`]), small models for them ([`models`]), a site made by hand that says what a real agent never
//! would ([`raw`]), and a network that breaks ([`proxy`]).
//!
//! A harness panics: a test that cannot be set up has failed.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that cannot be set up has failed")]

pub mod cluster;
pub mod data;
pub mod journal;
pub mod models;
pub mod operator;
pub mod process;
pub mod proxy;
pub mod random;
pub mod raw;
pub mod recorder;
pub mod site;
pub mod texts;
