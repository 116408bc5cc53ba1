//! What was released, as a ledger stores it: enough to compute the privacy loss again at any time.

use serde::{Deserialize, Serialize};

use crate::units::{Epsilon, Rate, Scale, Sigma};

/// One release from a data set, under add/remove-one adjacency of its privacy unit.
///
/// The JSON form is durable: names and meaning do not change. Zero steps or releases cost nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// DP-SGD: in each step every unit is drawn with probability `rate`, and Gaussian noise is added to the sum.
    PoissonGaussian {
        /// Sampling probability.
        rate: Rate,
        /// Noise standard deviation / L2 sensitivity.
        sigma: Sigma,
        /// Noised steps, empty batches included.
        steps: u64,
    },
    /// Gaussian noise on statistics of the whole data set.
    Gaussian {
        /// Noise standard deviation / L2 sensitivity.
        sigma: Sigma,
        /// Releases with this sigma.
        count: u64,
    },
    /// Laplace noise on statistics of the whole data set.
    Laplace {
        /// Noise scale / L1 sensitivity.
        scale: Scale,
        /// Releases with this scale.
        count: u64,
    },
    /// Anything known to be pure epsilon-DP: randomised response, the exponential mechanism.
    Pure {
        /// The bound.
        epsilon: Epsilon,
    },
}

impl Event {
    /// Steps or releases.
    pub fn count(&self) -> u64 {
        match *self {
            Self::PoissonGaussian { steps: count, .. }
            | Self::Gaussian { count, .. }
            | Self::Laplace { count, .. } => count,
            Self::Pure { .. } => 1,
        }
    }

    /// The noise multiplier of Gaussian noise; the others have none.
    pub fn sigma(&self) -> Option<Sigma> {
        match *self {
            Self::PoissonGaussian { sigma, .. } | Self::Gaussian { sigma, .. } => Some(sigma),
            Self::Laplace { .. } | Self::Pure { .. } => None,
        }
    }

    /// The same release with another number of steps or releases; [`Self::Pure`] has only one and stays as it is.
    #[must_use]
    pub fn with_count(self, count: u64) -> Self {
        match self {
            Self::PoissonGaussian { rate, sigma, .. } => Self::PoissonGaussian { rate, sigma, steps: count },
            Self::Gaussian { sigma, .. } => Self::Gaussian { sigma, count },
            Self::Laplace { scale, .. } => Self::Laplace { scale, count },
            Self::Pure { .. } => self,
        }
    }

    /// The same release with other Gaussian noise; the others have none and stay as they are.
    #[must_use]
    pub fn with_sigma(self, sigma: Sigma) -> Self {
        match self {
            Self::PoissonGaussian { rate, steps, .. } => Self::PoissonGaussian { rate, sigma, steps },
            Self::Gaussian { count, .. } => Self::Gaussian { sigma, count },
            Self::Laplace { .. } | Self::Pure { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests;
