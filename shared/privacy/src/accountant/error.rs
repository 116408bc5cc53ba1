use std::fmt;

use serde::Serialize;
use thiserror::Error;

use crate::units::{Delta, Epsilon, Sigma, UnitError};

/// What of a refused event would fit under the cap.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Fits {
    /// The most steps (or releases) with the noise that was asked; absent when not even one fits.
    pub steps: Option<u64>,
    /// The least Gaussian noise with the steps that were asked; absent when the event has none or no noise is enough.
    pub sigma: Option<Sigma>,
}

impl fmt::Display for Fits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.steps, self.sigma) {
            (Some(steps), Some(sigma)) => write!(f, "{steps} steps, or sigma {sigma:.4}, would fit"),
            (Some(steps), None) => write!(f, "{steps} steps would fit"),
            (None, Some(sigma)) => write!(f, "sigma {sigma:.4} would fit"),
            (None, None) => write!(f, "nothing of this kind fits any more"),
        }
    }
}

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
    /// So little noise that the guarantee is one on paper.
    #[error("sigma {sigma:.4} is below {least}: epsilon would have no meaning; ask for a smaller epsilon")]
    NoiseTooSmall {
        /// The noise multiplier.
        sigma: f64,
        /// The least that is accepted.
        least: f64,
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
