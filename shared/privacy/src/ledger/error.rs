use thiserror::Error;

use super::{Broken, Head, Rule, StoreError};
use crate::accountant::AccountError;

/// Why the ledger refused. Nothing is charged where an error is returned, but for a failing store: then it may be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Over the cap, with the numbers and what would fit; or parameters without a meaning.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The entry may not follow those before it.
    #[error(transparent)]
    Rule(#[from] Rule),
    /// The store did not do it. After a failed append the ledger must be opened again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An earlier append failed, so what is on the disk is not known.
    #[error("an earlier write to the ledger failed; open it again")]
    Uncertain,
    /// The chain is broken.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// An older copy, or another history, than the coordinator has seen.
    #[error(
        "the ledger has {} entries and not the head that was remembered at entry {}: it is an older copy or was \
         rewritten, and spends nothing; put the newest copy back",
        ours.counter, remembered.counter
    )]
    Stale {
        /// Our head.
        ours: Head,
        /// The head that another party remembers.
        remembered: Head,
    },
    /// All steps are done.
    #[error("reservation {reservation} is used up: all {reserved} steps were drawn")]
    UsedUp {
        /// The reservation.
        reservation: u64,
        /// Its steps.
        reserved: u64,
    },
    /// In use by this process.
    #[error("reservation {0} is in use")]
    InUse(u64),
    /// An entry could not be written as JSON.
    #[error("an entry has no JSON form: {0}")]
    Json(#[from] serde_json::Error),
}
