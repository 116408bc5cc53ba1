//! A run: a plan executed as phases. [`machine`] is a pure function of [`event`]s, [`driver`] journals each
//! event before anything follows from it.
//!
//! ```text
//!            Submitted                Decided(Collect)             every member in, or
//!   plan ──────────────► Deciding ───────────────────► Collecting ─ deadline + quorum ─► Reducing
//!                          ▲  │                            │  ▲                             │
//!                          │  │ Decided(Publish)           │  └── a member dropped out of   │ Reduced
//!                          │  ▼                            │      a model phase: back to    │
//!                          │ Publishing ── Published ► Done│      Deciding with the rest    │
//!                          └───────────────────────────────┴────────────────────────────────┘
//!   any ── Failed / Aborted ► stopped ── Resumed ► Deciding        Done ── Withdrawn / Added ► Deciding
//! ```
//!
//! Tasks are named by what they ask (a hash of their specification and inputs), so going back to
//! Deciding costs nothing for what is already delivered: answers that still fit are used again.

pub mod driver;
pub mod event;
mod forget;
pub mod handle;
pub mod machine;
pub mod plan;

#[cfg(test)]
mod machine_tests;
