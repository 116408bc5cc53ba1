use thiserror::Error;

use super::Fits;
use crate::units::{Delta, Epsilon, UnitError};

/// Why an accountant gives no number, or a filter no leave. Nothing is charged where an error is returned.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum AccountError {
    /// A parameter is outside its range.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// No finite epsilon holds with this delta.
    #[error("no finite epsilon holds at delta {delta}; take a larger delta or more noise")]
    Unbounded {
        /// The delta asked.
        delta: Delta,
    },
    /// The event would pass the cap.
    #[error(
        "epsilon would be {asked:.4} with this release; {spent:.4} of {cap:.4} is spent (delta {delta}); {fits}"
    )]
    OverCap {
        /// Epsilon of all that was charged and the refused event; infinite when no order bounds it.
        asked: f64,
        /// Epsilon charged so far.
        spent: f64,
        /// The cap.
        cap: Epsilon,
        /// The delta of the cap.
        delta: Delta,
        /// What would fit.
        fits: Fits,
    },
    /// Delta lets a mechanism publish one record outright.
    #[error(
        "delta {delta} is not below 1/{records}: it allows one record to be published; take {limit:e} or less"
    )]
    DeltaTooLarge {
        /// The delta asked.
        delta: Delta,
        /// Privacy units in the data set (a public bound).
        records: u64,
        /// A tenth of 1 / records.
        limit: f64,
    },
    /// The epsilon would be met with so little noise that the guarantee is one on paper.
    #[error(
        "epsilon {asked} asks for a sigma below {least}, which is refused; with {least} epsilon is {achieved:.4}: ask for that or less"
    )]
    NoiseTooSmall {
        /// The epsilon asked.
        asked: Epsilon,
        /// The least noise multiplier that is accepted.
        least: f64,
        /// Epsilon with that.
        achieved: f64,
    },
    /// No noise multiplier reaches the epsilon.
    #[error("epsilon {epsilon} at delta {delta} is not reached even with sigma {tried}")]
    Unreachable {
        /// The epsilon asked.
        epsilon: Epsilon,
        /// The delta asked.
        delta: Delta,
        /// The largest sigma that was tried.
        tried: f64,
    },
}
