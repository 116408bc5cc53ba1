//! The site's own record of what its data have paid: append-only, hash-chained, written before anything is drawn.
//!
//! ```text
//! cap ──► reserve ──► token ─► token ─► ... ──► settle     what was really done
//!            │          │  (a Draw entry every 16)
//!            │          └─ crash: resume goes on after the draws on record, or recover settles the whole
//!            └─ void    only while no draw is on record
//! ```
//!
//! **Claim.** At every moment the ledger's record of a data set is at least what was drawn from it.
//!
//! **Why it holds.** A [`StepToken`] exists only after a `Reserve` and a `Draw` entry that cover it are durable; noise
//! needs a token; an open reservation counts whole. Where an append may or may not have reached the disk, the ledger does
//! nothing more until it is opened, and read, again.
//!
//! **Source.** Write-ahead logging; the rule of admission is in `budget.rs`.
//!
//! **Test.** `ledger/tests/crash.rs`: 500 crashes at random points with stores that lose or keep the last row;
//! `ledger/sqlite/tests.rs`: processes killed with SIGKILL.
//!
//! What it cannot see by itself is that it was put back to an older copy. The coordinator remembers the [`Head`] of the last
//! statement, and [`Ledger::open`] and [`Ledger::compare`] take it.

mod book;
mod books;
mod budget;
mod chain;
mod entry;
mod error;
mod reservation;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;
mod store;
mod token;

pub use book::{Ledger, Released};
pub use books::{Charge, Rule, Standing};
pub use chain::{Broken, Head, Record, Row, verify};
pub use entry::{Basis, Cap, Digest, Entry, PrivacyUnit, Request, RunId};
pub use error::LedgerError;
pub use reservation::Reservation;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
pub use statement::{DatasetSpend, Spent, Statement};
pub use store::{MemoryStore, Store, StoreError};
pub use token::StepToken;

#[cfg(test)]
pub(crate) mod tests;
