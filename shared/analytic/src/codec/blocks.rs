//! Frame-of-reference bit packing: blocks of up to 1024 integers, each with its smallest value and the width of
//! the largest difference from it.
//!
//! A block is `width: u8 | smallest: i64 | (value - smallest) in width bits each, low bits first`, padded to a byte.

/// Integers of a full block.
pub(super) const BLOCK: usize = 1024;

/// Appends `values` as one block; there are at most [`BLOCK`].
pub(super) fn write(values: &[i64], out: &mut Vec<u8>) {
    let (smallest, largest) = values.iter().fold((i64::MAX, i64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
    let width = u64::BITS - (largest.wrapping_sub(smallest) as u64).leading_zeros();
    out.push(width as u8);
    out.extend_from_slice(&smallest.to_le_bytes());
    if width == 0 {
        return;
    }
    let end = out.len() + (values.len() * width as usize).div_ceil(8);
    let (mut word, mut filled) = (0_u64, 0);
    for &value in values {
        let difference = value.wrapping_sub(smallest) as u64;
        word |= difference << filled;
        filled += width;
        if filled >= u64::BITS {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= u64::BITS;
            // The high part that did not fit; a shift by the full width is none at all.
            word = difference.checked_shr(width - filled).unwrap_or(0);
        }
    }
    out.extend_from_slice(&word.to_le_bytes());
    out.truncate(end);
}

/// Why a block cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadBlock {
    Truncated,
    Width(u8),
}

/// Reads one block of `into.len()` integers (at most [`BLOCK`]) off the front of `bytes`.
pub(super) fn read(bytes: &mut &[u8], into: &mut [i64]) -> Result<(), BadBlock> {
    let (&[width], rest) = bytes.split_first_chunk().ok_or(BadBlock::Truncated)?;
    let (smallest, rest) = rest.split_first_chunk().ok_or(BadBlock::Truncated)?;
    let smallest = i64::from_le_bytes(*smallest);
    if u32::from(width) > u64::BITS {
        return Err(BadBlock::Width(width));
    }
    let length = (into.len() * usize::from(width)).div_ceil(8);
    let (payload, rest) = rest.split_at_checked(length).ok_or(BadBlock::Truncated)?;
    *bytes = rest;
    // One word more than a block of full width: the last value may look one past its own.
    let mut words = [0_u64; BLOCK + 1];
    for (word, part) in words.iter_mut().zip(payload.chunks(8)) {
        let mut full = [0; 8];
        full[..part.len()].copy_from_slice(part);
        *word = u64::from_le_bytes(full);
    }
    let mask = u64::MAX.checked_shr(u64::BITS - u32::from(width)).unwrap_or(0);
    for (i, value) in into.iter_mut().enumerate() {
        let bit = i * usize::from(width);
        let (at, shift) = (bit / 64, bit % 64);
        // Two shifts, as one by 64 is not defined.
        let high = (words[at + 1] << 1) << (63 - shift);
        let difference = ((words[at] >> shift) | high) & mask;
        *value = smallest.wrapping_add(difference as i64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[i64]) {
        let mut bytes = Vec::new();
        write(values, &mut bytes);
        let mut back = vec![0; values.len()];
        let mut rest = bytes.as_slice();
        assert_eq!(read(&mut rest, &mut back), Ok(()));
        assert_eq!((rest.len(), back.as_slice()), (0, values));
    }

    #[test]
    fn every_width_survives() {
        for width in 0..64 {
            let top = (1_i64 << width).wrapping_sub(1);
            round_trip(
                &(0..1000)
                    .map(|i: i64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) & top)
                    .collect::<Vec<_>>(),
            );
        }
        round_trip(&[i64::MIN, i64::MAX, 0, -1, 1]);
        round_trip(&[7]);
        round_trip(&[i64::MIN; BLOCK]);
    }

    #[test]
    fn a_constant_block_costs_nine_bytes() {
        let mut bytes = Vec::new();
        write(&[-5; BLOCK], &mut bytes);
        assert_eq!(bytes.len(), 9);
    }

    proptest! {
        #[test]
        fn any_block_survives(values in prop::collection::vec(any::<i64>(), 1..=BLOCK)) {
            round_trip(&values);
        }
    }
}
