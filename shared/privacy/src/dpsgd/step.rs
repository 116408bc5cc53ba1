use std::num::NonZeroU64;

use super::{ClippedSum, DpError, NoiseStream};
use crate::{Event, ledger::StepToken};

/// A constant of the plan, about as large as a site's number of units, which itself is private: what sums are divided by,
/// times the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicUnits(NonZeroU64);

impl PublicUnits {
    /// Takes a number of 1 or more.
    ///
    /// # Errors
    /// [`DpError::NoUnits`].
    pub fn new(units: u64) -> Result<Self, DpError> {
        NonZeroU64::new(units).map(Self).ok_or(DpError::NoUnits)
    }
}

/// A step's noised mean gradient. All of it may be seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Privatised {
    /// By tensor, in the order of the sum.
    pub mean: Vec<Vec<f32>>,
    /// What the noised sum was divided by: rate times public units.
    pub expected_batch: f64,
    /// Standard deviation of the noise on the mean: sigma C / expected batch. Adam's second moment is too large by its square
    /// (Tang and Lécuyer 2023, arXiv 2304.11208), and may be corrected by it.
    pub noise_std: f64,
}

impl ClippedSum {
    /// Noises the sum of a logical batch and divides it by the expected batch. Called once a logical batch, also for an empty
    /// one, after all its pieces were added. Claim and reasons: [the module](super). The clipping norm is the sum's own, rate
    /// and sigma are the token's.
    ///
    /// Without the ledger's token there is no noise:
    ///
    /// ```compile_fail,E0061
    /// # use sheaf_privacy::dpsgd::*;
    /// fn unaccounted(sum: ClippedSum, units: PublicUnits, noise: &mut NoiseStream) {
    ///     sum.privatise(units, noise).unwrap();
    /// }
    /// ```
    ///
    /// # Errors
    /// [`DpError::OtherMechanism`] for a token that does not pay for DP-SGD. The step stays charged.
    pub fn privatise(
        self,
        units: PublicUnits,
        token: StepToken,
        noise: &mut NoiseStream,
    ) -> Result<Privatised, DpError> {
        let Event::PoissonGaussian { rate, sigma, .. } = token.event() else {
            return Err(DpError::OtherMechanism(token.event()));
        };
        let std = sigma.get() * self.clip().norm();
        let expected_batch = rate.get() * units.0.get() as f64;
        let mut sum = self.into_exact();
        let mean = sum.iter_mut().map(|tensor| {
            noise.add_gaussian(tensor, std);
            tensor.iter().map(|value| (value / expected_batch) as f32).collect()
        });
        Ok(Privatised { mean: mean.collect(), expected_batch, noise_std: std / expected_batch })
    }
}
