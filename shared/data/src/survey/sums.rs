//! Exact sums of numbers: fixed point on a grid of 2^-20, added as integers, so that no order of addition matters.

use crate::DataError;
use serde::{Deserialize, Serialize};

/// Steps of the grid in one unit, 2^20: numbers are rounded to about 1e-6.
const STEPS: f64 = (1_u64 << 20) as f64;
/// Largest magnitude taken, 2^31: squares of steps then stay below 2^102, and 2^24 rows fit into 127 bits.
const LARGEST: f64 = (1_u64 << 31) as f64;

/// Sum and sum of squares of `round(v * 2^20)`, ties to even.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// Sum, in steps.
    #[serde(with = "decimal")]
    pub sum: i128,
    /// Sum of squares, in squared steps.
    #[serde(with = "decimal")]
    pub squares: i128,
}

impl Sums {
    /// Adds one number.
    pub(crate) fn add(&mut self, value: f64) -> Result<(), DataError> {
        if value.is_nan() || value.abs() > LARGEST {
            return Err(DataError::Survey(format!(
                "a number is beyond {LARGEST}, the range of exact sums; rescale the column or leave it out"
            )));
        }
        let steps = i128::from((value * STEPS).round_ties_even() as i64);
        self.merge(&Self { sum: steps, squares: steps * steps })
    }

    /// Adds other sums.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<(), DataError> {
        let overflow = || {
            DataError::Survey("the sums overflow 127 bits; fewer rows or smaller numbers are needed".into())
        };
        self.sum = self.sum.checked_add(other.sum).ok_or_else(overflow)?;
        self.squares = self.squares.checked_add(other.squares).ok_or_else(overflow)?;
        Ok(())
    }

    /// Mean and population standard deviation of `count` numbers, in their unit.
    ///
    /// Deterministic: with `m = floor(sum / count)` the centred sum `S = squares - 2 m sum + count m^2` is exact in
    /// integers, and `var = S / count - ((sum - m count) / count)^2` takes a fixed order of IEEE operations, so equal
    /// sums give equal bits on every machine. No numbers at all have mean 0 and deviation 0.
    pub(crate) fn moments(&self, count: u64) -> Result<(f64, f64), DataError> {
        if count == 0 {
            return Ok((0.0, 0.0));
        }
        let rows = i128::from(count);
        let centre = self.sum.div_euclid(rows);
        let rest = self.sum - centre * rows;
        let centred = centre
            .checked_mul(self.sum)
            .and_then(|cross| cross.checked_mul(2))
            .and_then(|cross| self.squares.checked_sub(cross))
            .and_then(|partial| centre.checked_mul(centre)?.checked_mul(rows)?.checked_add(partial))
            .ok_or_else(|| {
                DataError::Survey("the sums are too large to be centred exactly; rescale the column".into())
            })?;
        let offset = rest as f64 / count as f64;
        let variance = (centred as f64 / count as f64 - offset * offset).max(0.0);
        Ok(((centre as f64 + offset) / STEPS, variance.sqrt() / STEPS))
    }

    /// True where sums of `count` numbers in range can be these; the slack covers rounding in the comparison only.
    pub(super) fn possible(&self, count: u64) -> bool {
        let (sum, squares, count) = (self.sum as f64, self.squares as f64, count as f64);
        let largest = LARGEST * STEPS;
        self.squares >= 0
            && sum.abs() <= count * largest
            && squares <= count * largest * largest
            && sum * sum <= count * squares * (1.0 + 1e-9)
    }
}

/// 128-bit integers as decimal strings: JSON readers elsewhere would round them.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &i128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value: i128 = text.parse().map_err(D::Error::custom)?;
        // One spelling only (no "+5", no "007"), so that equal surveys are equal bytes.
        if value.to_string() == text {
            Ok(value)
        } else {
            Err(D::Error::custom("not the canonical decimal form"))
        }
    }
}
