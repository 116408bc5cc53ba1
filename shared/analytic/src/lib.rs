//! Analytic federated learning on exact integer sums.
//!
//! A site turns each row of features into integers ([`FeatureSpec`], [`Featurizer`]), adds up `G = X'X` and
//! `B = X'Y` ([`GramAccumulator`]) and sends the [`Sums`] ([`codec`]). The coordinator adds integers, so the total
//! depends on neither the order, the grouping nor the number of sites, and solves `(G + lambda I) W = B` once
//! ([`solve`]) with kernels whose every element is computed in one fixed order. The same rows therefore give the
//! same [`Weights::sha256`] whatever the partition, and a site that is withdrawn leaves no trace in the bits.
//!
//! [`aa_law`] holds the pairwise aggregation of AFL (He et al., CVPR 2025, arXiv 2405.16240): the oracle of the
//! tests, and the way in for peers that send `(W_k, C_k)`. [`metrics`] counts in integers, so that evaluation sums
//! exactly over sites too.
//!
//! The crate is pure: no input or output, no clock, no entropy.

pub mod aa_law;
mod cholesky;
pub mod codec;
mod error;
mod feature_map;
mod gram;
mod kernel;
pub mod metrics;
mod plausibility;
mod random_relu;
#[cfg(test)]
mod sample;
mod solve;
mod sums;
mod syrk;
mod weights;

pub use error::AnalyticError;
pub use feature_map::{FeatureMap, FeatureSpec, Featurizer, MAX_UNNORMALISED, Normalize};
pub use gram::GramAccumulator;
pub use solve::{scores, solve};
pub use sums::{MAX_CLASSES, MAX_DIM, MAX_ROWS, Sums, SumsShape};
pub use weights::Weights;
