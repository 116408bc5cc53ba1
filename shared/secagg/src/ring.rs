//! Integers mod `2^bits`.
//!
//! Masks are drawn mod `2^64` and added with wrap-around. Since `2^bits` divides `2^64`, dropping the upper bits of the
//! sum is the same as having computed mod `2^bits` throughout: a narrower ring costs fewer bytes on the wire and
//! hides as well, since the low bits of a uniform value are uniform.

use serde::{Deserialize, Serialize};

use crate::error::SecAggError;

/// The ring that a round sums in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    bits: u32,
}

impl Ring {
    /// Integers mod `2^64`.
    pub const FULL: Self = Self { bits: 64 };

    /// Integers mod `2^bits`, 2 to 64.
    pub fn new(bits: u32) -> Result<Self, SecAggError> {
        if (2..=64).contains(&bits) {
            Ok(Self { bits })
        } else {
            Err(SecAggError::Terms { field: "ring", reason: format!("{bits} bits are outside 2 to 64") })
        }
    }

    /// The narrowest ring in which the sum of `sites` values within `+-bound` each cannot wrap.
    pub fn holding(bound: u64, sites: usize) -> Result<Self, SecAggError> {
        let largest = u64::try_from(sites).ok().and_then(|sites| bound.checked_mul(sites));
        match largest {
            Some(sum) if sum < 1 << 63 => Self::new((65 - sum.leading_zeros()).max(2)),
            _ => Err(SecAggError::Terms {
                field: "ring",
                reason: format!("{sites} values within +-{bound} do not fit in 64 bits"),
            }),
        }
    }

    /// Bits of an element on the wire.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// Bytes of a packed vector of `length` elements.
    pub const fn packed_len(self, length: u64) -> u64 {
        (length * self.bits as u64).div_ceil(8)
    }

    /// Largest magnitude a site may contribute, so that a sum over `sites` of them cannot wrap.
    pub const fn bound(self, sites: usize) -> i64 {
        let half = (1_u64 << (self.bits - 1)) - 1;
        (half / if sites == 0 { 1 } else { sites as u64 }) as i64
    }

    /// Refuses values that could make a sum over `sites` wrap, and takes the others into the ring.
    pub fn encode(self, values: &[i64], sites: usize) -> Result<Vec<u64>, SecAggError> {
        let bound = self.bound(sites);
        let outside = |value: &i64| value.unsigned_abs() > bound.unsigned_abs();
        match values.iter().position(outside) {
            Some(index) => Err(SecAggError::OutOfRange { index, bound }),
            None => Ok(values.iter().map(|&value| self.reduce(value as u64)).collect()),
        }
    }

    /// The signed integer of least magnitude that an element stands for.
    pub const fn signed(self, element: u64) -> i64 {
        let shift = 64 - self.bits;
        ((element << shift) as i64) >> shift
    }

    /// Keeps the low bits.
    pub const fn reduce(self, element: u64) -> u64 {
        element & (u64::MAX >> (64 - self.bits))
    }
}

/// Adds element by element, mod `2^64`.
pub fn add(into: &mut [u64], other: &[u64]) {
    into.iter_mut().zip(other).for_each(|(a, b)| *a = a.wrapping_add(*b));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_narrowest_ring_holds_the_largest_sum() {
        for (bound, sites, bits) in
            [(1, 1, 2), (1, 3, 3), (1, 4, 4), (127, 1, 8), (128, 1, 9), (1 << 53, 1000, 64)]
        {
            let ring = Ring::holding(bound, sites).unwrap();
            assert_eq!(ring.bits(), bits, "{bound} x {sites}");
            assert!(ring.bound(sites) as u64 >= bound);
        }
        assert!(Ring::holding(1 << 62, 2).is_err());
        assert!(Ring::holding(u64::MAX, 2).is_err());
        assert!(Ring::new(1).is_err() && Ring::new(65).is_err());
    }

    #[test]
    fn a_value_that_could_wrap_is_refused() {
        let ring = Ring::new(8).unwrap();
        assert_eq!(ring.bound(3), 42);
        assert_eq!(ring.encode(&[1, -43], 3), Err(SecAggError::OutOfRange { index: 1, bound: 42 }));
        assert_eq!(ring.encode(&[i64::MIN], 1), Err(SecAggError::OutOfRange { index: 0, bound: 127 }));
        assert!(Ring::FULL.encode(&[i64::MIN], 1).is_err());
        assert!(Ring::FULL.encode(&[i64::MAX], 1).is_ok());
    }

    proptest! {
        #[test]
        fn sums_in_the_ring_are_sums_of_integers(
            bits in 8_u32..=64,
            raw in prop::collection::vec(any::<i64>(), 1..40),
        ) {
            let ring = Ring::new(bits).unwrap();
            let bound = i128::from(ring.bound(raw.len()));
            let values: Vec<i64> = raw.iter().map(|&v| (i128::from(v) % (bound + 1)) as i64).collect();
            let elements = ring.encode(&values, values.len()).unwrap();
            let total = elements.iter().fold(0_u64, |a, b| a.wrapping_add(*b));
            prop_assert_eq!(ring.signed(ring.reduce(total)), values.iter().sum::<i64>());
        }
    }
}
