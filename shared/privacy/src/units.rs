//! The quantities of differential privacy as types: each is checked once, where it is made.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A number that is not what its name says.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{name} is {value}; it must be {allowed}")]
pub struct UnitError {
    /// The quantity.
    pub name: &'static str,
    /// The value as text, so that NaN compares equal.
    pub value: String,
    /// The values that are allowed.
    pub allowed: &'static str,
}

macro_rules! unit {
    ($(#[$doc:meta])* $type:ident, $name:literal, $allowed:literal, $holds:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $type(f64);

        impl $type {
            #[doc = concat!("Takes a value that is ", $allowed, "; anything else, NaN included, is an error.")]
            pub fn new(value: f64) -> Result<Self, UnitError> {
                let holds: fn(f64) -> bool = $holds;
                if value.is_finite() && holds(value) {
                    return Ok(Self(value));
                }
                Err(UnitError { name: $name, value: value.to_string(), allowed: $allowed })
            }

            /// The plain number.
            pub fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $type {
            type Error = UnitError;

            fn try_from(value: f64) -> Result<Self, UnitError> {
                Self::new(value)
            }
        }

        impl From<$type> for f64 {
            fn from(unit: $type) -> Self {
                unit.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $type {
            type Err = UnitError;

            fn from_str(text: &str) -> Result<Self, UnitError> {
                Self::new(text.trim().parse().unwrap_or(f64::NAN))
                    .map_err(|error| UnitError { value: text.to_owned(), ..error })
            }
        }
    };
}

unit! {
    /// A bound on the privacy loss, in nats.
    Epsilon, "epsilon", "a finite number, 0 or more", |x| x >= 0.0
}
unit! {
    /// The probability with which the bound epsilon may fail.
    Delta, "delta", "between 0 and 1", |x| (0.0..=1.0).contains(&x)
}
unit! {
    /// Noise multiplier: standard deviation of the Gaussian noise divided by the L2 sensitivity (the clipping norm).
    Sigma, "sigma", "a finite number above 0", |x| x > 0.0
}
unit! {
    /// Probability with which each record, independently, is in a step's batch.
    Rate, "the sampling rate", "above 0 and at most 1", |x| x > 0.0 && x <= 1.0
}
unit! {
    /// Scale of Laplace noise divided by the L1 sensitivity; one release is `1 / scale` pure DP.
    Scale, "the Laplace scale", "a finite number above 0", |x| x > 0.0
}

impl Delta {
    /// The nearest probability to a computed bound; what is not a number bounds nothing and becomes 1.
    pub(crate) fn clamped(bound: f64) -> Self {
        Self(if bound.is_nan() { 1.0 } else { bound.clamp(0.0, 1.0) })
    }
}

#[cfg(test)]
mod tests;
