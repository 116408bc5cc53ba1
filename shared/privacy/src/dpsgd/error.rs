use thiserror::Error;

use crate::Event;

/// Why a step was not taken. Where a token was handed over it is used up, and the step stays charged.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum DpError {
    /// Not a finite number above 0.
    #[error("the clipping norm is {0}; it must be a finite number above 0")]
    Clip(f64),
    /// Zero units.
    #[error("the public number of units must be at least 1")]
    NoUnits,
    /// The token pays for something else.
    #[error("the step was charged as {0:?}, which is not DP-SGD")]
    OtherMechanism(Event),
    /// Gradients of another shape.
    #[error("tensor {tensor} has {found} numbers in place of {expected}")]
    Shape {
        /// Its place.
        tensor: usize,
        /// Numbers expected.
        expected: usize,
        /// Numbers found.
        found: usize,
    },
    /// Another number of tensors.
    #[error("{found} tensors in place of {expected}")]
    Tensors {
        /// Tensors expected.
        expected: usize,
        /// Tensors found.
        found: usize,
    },
    /// More units than f32 sums allow.
    #[error(
        "a sum in f32 may hold at most {most} units, not {found}: its rounding would pass the margin of the clip"
    )]
    TooManyUnits {
        /// The most.
        most: usize,
        /// Units in it.
        found: usize,
    },
    /// A sum that was not clipped, or overflowed.
    #[error(
        "a sum of clipped gradients is not finite: leave out units whose gradient is not, before summing"
    )]
    NotFinite,
    /// No entropy.
    #[error("the operating system gives no random numbers: {0}")]
    Entropy(String),
}
