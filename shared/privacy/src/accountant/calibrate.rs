use super::{Account, AccountError};
use crate::units::{Delta, Epsilon, Rate, Sigma};
use serde::Serialize;

/// What noise is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// The epsilon not to pass.
    pub epsilon: Epsilon,
    /// Its delta.
    pub delta: Delta,
    /// Sampling rate.
    pub rate: Rate,
    /// Steps.
    pub steps: u64,
    /// Privacy units in the data set, when a public bound is known: delta must be below 1 / records.
    pub records: Option<u64>,
}

/// The noise found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Calibrated {
    /// The noise multiplier.
    pub sigma: Sigma,
    /// What it achieves: `epsilon_pld` is at most what was asked.
    #[serde(flatten)]
    pub account: Account,
}

impl Calibration {
    /// Finds the least noise.
    pub fn solve(&self) -> Result<Calibrated, AccountError> {
        unimplemented!()
    }
}
