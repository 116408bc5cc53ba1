//! Real vectors as integers, for sums that are not integers already.
//!
//! A grid of `2^-24` keeps the relative error of a solved `W` under 1e-6 for condition numbers up to 1e4; lone f32 values
//! on the wire do not. The sum of encoded vectors is exact: the only error is the rounding of each site's own value,
//! at most half a step a site.

use serde::{Deserialize, Serialize};

use crate::error::SecAggError;
use crate::ring::Ring;

/// A grid of `2^-fraction` and the largest magnitude a site may contribute.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedPoint {
    fraction: u32,
    max_abs: f64,
}

impl FixedPoint {
    /// The coarsest grid, `2^-24`.
    pub const COARSEST: u32 = 24;

    /// A grid of `2^-fraction`, 24 to 52, for values within `+-max_abs`.
    pub fn new(fraction: u32, max_abs: f64) -> Result<Self, SecAggError> {
        let refuse = |field, reason| Err(SecAggError::Terms { field, reason });
        if !(Self::COARSEST..=52).contains(&fraction) {
            return refuse("fraction", format!("{fraction} bits are outside 24 to 52"));
        }
        // Above 2^53 steps an f64 has no more bits than the grid asks for.
        if !(max_abs > 0.0 && max_abs * step_count(fraction) <= step_count(53)) {
            return refuse("max_abs", format!("{max_abs} is outside 0 to 2^{}", 53 - fraction));
        }
        Ok(Self { fraction, max_abs })
    }

    /// The narrowest ring in which the sum over `sites` cannot wrap.
    pub fn ring(&self, sites: usize) -> Result<Ring, SecAggError> {
        Ring::holding((self.max_abs * step_count(self.fraction)).round() as u64, sites)
    }

    /// Rounds each value to the nearest step. Nothing is clipped: a value out of range is an error.
    pub fn encode(&self, values: impl IntoIterator<Item = f64>) -> Result<Vec<i64>, SecAggError> {
        let scale = step_count(self.fraction);
        let bound = (self.max_abs * scale).round() as i64;
        let steps = |(index, value): (usize, f64)| {
            if !value.is_finite() {
                return Err(SecAggError::NotFinite { index });
            }
            if value.abs() > self.max_abs {
                return Err(SecAggError::OutOfRange { index, bound });
            }
            Ok((value * scale).round() as i64)
        };
        values.into_iter().enumerate().map(steps).collect()
    }

    /// The real values of summed steps.
    pub fn decode(&self, sums: &[i64]) -> Vec<f64> {
        let scale = step_count(self.fraction);
        sums.iter().map(|&sum| sum as f64 / scale).collect()
    }
}

fn step_count(fraction: u32) -> f64 {
    (1_u64 << fraction) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_grid_cannot_hold_is_refused() {
        assert!(FixedPoint::new(23, 1.0).is_err());
        assert!(FixedPoint::new(24, 0.0).is_err());
        assert!(FixedPoint::new(24, f64::NAN).is_err());
        assert!(FixedPoint::new(24, f64::INFINITY).is_err());
        assert!(FixedPoint::new(52, 3.0).is_err());
        let grid = FixedPoint::new(24, 2.0).unwrap();
        assert_eq!(grid.encode([0.0, f64::NAN]), Err(SecAggError::NotFinite { index: 1 }));
        assert_eq!(grid.encode([2.0001]), Err(SecAggError::OutOfRange { index: 0, bound: 1 << 25 }));
        assert_eq!(grid.encode([2.0, -2.0]).unwrap(), [1 << 25, -(1 << 25)]);
    }

    proptest! {
        #[test]
        fn the_sum_is_off_by_half_a_step_a_site(values in prop::collection::vec(-8.0_f32..8.0, 1..50)) {
            let grid = FixedPoint::new(30, 8.0).unwrap();
            let ring = grid.ring(values.len()).unwrap();
            let mut total = 0_u64;
            for &value in &values {
                let steps = grid.encode([f64::from(value)]).unwrap();
                total = total.wrapping_add(ring.encode(&steps, values.len()).unwrap()[0]);
            }
            let sum = grid.decode(&[ring.signed(ring.reduce(total))])[0];
            let exact: f64 = values.iter().map(|&v| f64::from(v)).sum();
            prop_assert!((sum - exact).abs() <= values.len() as f64 * 0.5 / step_count(30) + 1e-12);
        }
    }
}
