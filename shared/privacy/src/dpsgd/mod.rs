//! DP-SGD and DP-Adam, apart from any model: who is in a step, how much each may move the sum, and the noise.
//!
//! ```text
//! token ──► PoissonSampler::draw ──► gradients ──► ClippedSum::add ──► privatise(token) ──► any optimiser
//! ```
//!
//! **Claim.** What [`ClippedSum::privatise`] returns for all steps of a reservation is (epsilon, delta)-DP as the ledger's
//! `Event::PoissonGaussian { rate, sigma, steps }` says, add/remove of one privacy unit. What an optimiser makes of it
//! (momentum, Adam's moments, learning rates) is post-processing.
//!
//! **Why it holds.** Every unit is in the step independently with probability at most `rate`; it moves the sum by at most the
//! clipping norm C in L2; Gaussian noise of standard deviation at least sigma C is added once; the divisor is public. `rate`
//! and `sigma` come from the token, so they are the charged ones.
//!
//! **Source.** Abadi et al. 2016 (arXiv 1607.00133), algorithm 1; Mironov, Talwar, Zhang 2019 (arXiv 1908.10530) for the
//! accounting; Ponomareva et al. 2023 (arXiv 2303.00654) for the traps.
//!
//! **Test.** `dpsgd/tests.rs`, and the audits in `audit/tests`.
//!
//! **Floating point.** Noise is drawn and added in f64 and rounded once to f32. The set of reachable numbers is finite and
//! depends on the sum in its last bits (Mironov 2012), which an exact proof would have to rule out. Step noise stays inside the
//! site and only what was trained with it leaves, rounded; what leaves as a vector goes through the exact samplers of
//! [`crate::mechanism`]. The seed comes from the operating system, is not kept and cannot be set.

mod clip;
mod error;
mod noise;
mod sampler;
mod step;

pub use clip::{Clip, ClippedSum, MOST_UNITS_IN_F32};
pub use error::DpError;
pub use noise::NoiseStream;
pub use sampler::{PoissonSampler, Units};
pub use step::{Privatised, PublicUnits};

#[cfg(test)]
mod tests;
