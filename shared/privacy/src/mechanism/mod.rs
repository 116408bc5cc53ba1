//! Noise for numbers that leave a site: vectors of integers with discrete Gaussian or Laplace noise.
//!
//! Samplers are opendp's, exact on the integers and fed by OpenSSL's generator (its feature `use-openssl`). Each call uses
//! up a [`StepToken`](crate::ledger::StepToken), and takes the amount of noise from it. About 20 µs a number and core: for
//! sums, counts and adapters, not for the noise of every training step; for that see [`crate::dpsgd`].
//!
//! Values are on a grid that the caller chooses: counts of 1 may be multiplied by 2^8 first. It must be fine enough
//! ([`LEAST_SCALE`]), since the accountants take the curves of the continuous mechanisms.

mod error;
mod gaussian;
mod laplace;

pub use error::MechanismError;
pub use gaussian::{convolution_excess, discrete_gaussian, discrete_gaussian_share};
pub use laplace::discrete_laplace;

use rayon::prelude::*;

/// The least noise scale in steps of the grid; values on a coarser one are multiplied first. The accountants take the curves
/// of the continuous mechanisms. From here on delta of the discrete ones is at most 3e-5 (Gaussian) and 4e-4 (Laplace) of
/// itself larger, where it is above 1e-10 and the multiplier 0.5 or more: computed in `mechanism/tests.rs`. That is far below
/// 1e-3 in epsilon, and not added to it.
pub const LEAST_SCALE: f64 = 256.0;

/// How far one privacy unit can move a vector of integers: in L2 for Gaussian noise, in L1 for Laplace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sensitivity(f64);

impl Sensitivity {
    /// Takes a finite number above 0, in steps of the grid.
    ///
    /// # Errors
    /// [`MechanismError::Sensitivity`].
    pub fn new(steps: f64) -> Result<Self, MechanismError> {
        if steps.is_finite() && steps > 0.0 {
            Ok(Self(steps))
        } else {
            Err(MechanismError::Sensitivity(steps))
        }
    }

    /// Steps of the grid.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Bits of a noise scale. The sampler computes with the scale as a fraction, ten times slower with all 53.
const SCALE_BITS: i32 = 20;

/// Noise scale for values of this sensitivity, rounded up by at most 2e-6 of itself; refuses a grid that is too coarse.
fn scale(multiplier: f64, sensitivity: Sensitivity) -> Result<f64, MechanismError> {
    let scale = (multiplier * sensitivity.get()).next_up();
    if scale < LEAST_SCALE {
        return Err(MechanismError::CoarseGrid { scale });
    }
    let unit = 2.0_f64.powi(scale.log2() as i32 + 1 - SCALE_BITS);
    Ok((scale / unit).ceil() * unit)
}

/// Numbers that one thread noises at a time: some 10 ms of work.
const PIECE: usize = 1024;

/// Noises a long vector on all cores. opendp's mechanisms stay on the thread that made them.
fn in_pieces(
    values: &[i64],
    noise: impl Fn(&Vec<i64>) -> Result<Vec<i64>, MechanismError> + Sync,
) -> Result<Vec<i64>, MechanismError> {
    let pieces: Result<Vec<_>, _> = values.par_chunks(PIECE).map(|piece| noise(&piece.to_vec())).collect();
    Ok(pieces?.concat())
}

#[cfg(test)]
mod tests;
