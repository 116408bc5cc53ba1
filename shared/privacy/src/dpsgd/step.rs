use std::num::NonZeroU64;

use super::{Clip, DpError, NoiseStream};
use crate::{Event, ledger::StepToken};

/// What a step's noise and divisor are computed from, besides the token: constants of the plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepScale {
    clip: Clip,
    public_units: NonZeroU64,
}

impl StepScale {
    /// `public_units` is a declared constant about as large as the site's number of units, which itself is private.
    ///
    /// # Errors
    /// [`DpError::NoUnits`].
    pub fn new(clip: Clip, public_units: u64) -> Result<Self, DpError> {
        Ok(Self { clip, public_units: NonZeroU64::new(public_units).ok_or(DpError::NoUnits)? })
    }

    /// The clipping norm.
    pub fn clip(&self) -> Clip {
        self.clip
    }
}

/// What was done to a sum. All of it is public.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Privatised {
    /// Standard deviation of the noise on the mean gradient: sigma C / (rate public_units). Adam's second moment is too large
    /// by its square (Tang and Lécuyer 2023, arXiv 2304.11208), and may be corrected by it.
    pub noise_std: f64,
}

/// Turns the sum of a logical batch's clipped gradients into the noised mean gradient, in place. Called once a logical batch,
/// also for an empty one, after all its pieces were summed. Claim and reasons: [the module](super).
///
/// `sum` is the clipped sum by tensor, in any order. After an error it may not be used.
///
/// Without the ledger's token there is no noise:
///
/// ```compile_fail,E0061
/// # use sheaf_privacy::dpsgd::*;
/// fn unaccounted(sum: &mut [&mut [f32]], step: &StepScale, noise: &mut NoiseStream) {
///     privatise(sum, step, noise).unwrap();
/// }
/// ```
///
/// # Errors
/// [`DpError::OtherMechanism`] for a token that does not pay for DP-SGD, [`DpError::NotFinite`]. The step stays charged.
pub fn privatise(
    sum: &mut [&mut [f32]],
    step: &StepScale,
    token: StepToken,
    noise: &mut NoiseStream,
) -> Result<Privatised, DpError> {
    let Event::PoissonGaussian { rate, sigma, .. } = token.event() else {
        return Err(DpError::OtherMechanism(token.event()));
    };
    if sum.iter().flat_map(|tensor| tensor.iter()).any(|value| !value.is_finite()) {
        return Err(DpError::NotFinite);
    }
    let std = sigma.get() * step.clip.norm();
    let expected_batch = rate.get() * step.public_units.get() as f64;
    for tensor in sum {
        noise.add_gaussian(tensor, std);
        for value in tensor.iter_mut() {
            *value = (f64::from(*value) / expected_batch) as f32;
        }
    }
    Ok(Privatised { noise_std: std / expected_batch })
}
