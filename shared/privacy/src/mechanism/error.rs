use thiserror::Error;

use super::LEAST_SCALE;
use crate::Event;

/// Why no noise was added. The token is used up all the same; nothing may leave.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum MechanismError {
    /// Not a finite number above 0.
    #[error("the sensitivity is {0}; it must be a finite number above 0")]
    Sensitivity(f64),
    /// The token pays for something else.
    #[error("the step was charged as {charged:?}, which is not {mechanism}")]
    OtherMechanism {
        /// What the ledger charged.
        charged: Event,
        /// What was called.
        mechanism: &'static str,
    },
    /// The discrete mechanism would differ from the accounted one.
    #[error(
        "the noise has a scale of {scale:.2} steps of the grid; multiply the values so that it is {LEAST_SCALE} or more"
    )]
    CoarseGrid {
        /// Noise scale in steps.
        scale: f64,
    },
    /// No site, no share.
    #[error("at least one site must add noise")]
    NoSites,
    /// The sampler's own bound is not the charged one.
    #[error("the sampler's own privacy bound {bound} is above the charged {charged}")]
    Undercharged {
        /// Bound by opendp.
        bound: f64,
        /// What the ledger charged.
        charged: f64,
    },
    /// No entropy, or a defect.
    #[error("the sampler failed: {0}")]
    Sampler(String),
}

impl From<opendp::error::Error> for MechanismError {
    fn from(error: opendp::error::Error) -> Self {
        Self::Sampler(format!("{:?}: {}", error.variant, error.message.unwrap_or_default()))
    }
}
