//! Does the noise that was promised protect? Two checks that a site runs on its own training.
//!
//! | check | needs | sees |
//! |---|---|---|
//! | [`NoiseCheck`] | the exact clipped sums beside the released ones | wrong or repeated noise, wrong clipping: 0.5 % of sigma with 1e6 numbers |
//! | [`OneRun`] | canaries in the training, scores after | whatever lets canaries be told apart, through all of the training; weak |
//!
//! Both read what is private and stay at the site; of an audit only its bound is reported, and canaries are made up.

mod noise_check;
mod one_run;
mod tail;

pub use noise_check::{NoiseCheck, StepResiduals};
pub use one_run::{AuditError, Canaries, OneRun, OneRunResult, epsilon_lower_bound, p_value};
pub use tail::{binomial_upper_tail, chi_square_tails};

#[cfg(test)]
mod tests;
