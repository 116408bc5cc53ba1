//! Ring elements as a dense stream of bits, least significant first: what a masked vector is on the wire.

use crate::error::SecAggError;
use crate::ring::Ring;

/// Writes the low bits of every element.
pub(crate) fn pack(ring: Ring, elements: &[u64]) -> Vec<u8> {
    let bits = ring.bits();
    let mut out = Vec::with_capacity(ring.packed_len(elements.len() as u64) as usize);
    if bits == 64 {
        elements.iter().for_each(|element| out.extend_from_slice(&element.to_le_bytes()));
        return out;
    }
    let (mut held, mut word) = (0, 0_u64);
    for &element in elements {
        let element = ring.reduce(element);
        word |= element << held;
        held += bits;
        if held >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            held -= 64;
            // What did not fit: the upper `held` of the element's `bits`.
            word = if held == 0 { 0 } else { element >> (bits - held) };
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..held.div_ceil(8) as usize]);
    out
}

/// Adds packed elements to `into`, mod `2^64`. The byte length must be exact and the padding zero.
pub(crate) fn unpack_add(ring: Ring, packed: &[u8], into: &mut [u64]) -> Result<(), SecAggError> {
    let expected = ring.packed_len(into.len() as u64);
    if packed.len() as u64 != expected {
        return Err(SecAggError::Length { expected, got: packed.len() as u64 });
    }
    let bits = ring.bits();
    let padding = (expected * 8 - into.len() as u64 * u64::from(bits)) as u32;
    if packed.last().is_some_and(|last| padding > 0 && last >> (8 - padding) != 0) {
        return Err(SecAggError::Length { expected, got: packed.len() as u64 + 1 });
    }
    let mut words = packed.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let (mut held, mut word) = (0, 0_u64);
    for element in into {
        let mut value = word;
        if held < bits {
            let next = words.next().unwrap_or(0);
            value |= if held == 0 { next } else { next << held };
            let taken = bits - held;
            (word, held) = (next.checked_shr(taken).unwrap_or(0), 64 - taken);
        } else {
            (word, held) = (word >> bits, held - bits);
        }
        *element = element.wrapping_add(ring.reduce(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_and_padding_are_exact() {
        let ring = Ring::new(5).unwrap();
        let packed = pack(ring, &[1, 2, 3]);
        assert_eq!(packed, [0b0100_0001, 0b0000_1100]);
        let mut into = [0; 3];
        assert!(unpack_add(ring, &packed[..1], &mut into).is_err());
        assert!(unpack_add(ring, &[packed[0], packed[1] | 0x80], &mut into).is_err());
        assert!(unpack_add(ring, &[packed[0], packed[1], 0], &mut into).is_err());
        assert_eq!(into, [0; 3]);
        unpack_add(ring, &packed, &mut into).unwrap();
        assert_eq!(into, [1, 2, 3]);
    }

    proptest! {
        #[test]
        fn any_width_round_trips(bits in 2_u32..=64, elements in prop::collection::vec(any::<u64>(), 0..70)) {
            let ring = Ring::new(bits).unwrap();
            let packed = pack(ring, &elements);
            prop_assert_eq!(packed.len() as u64, ring.packed_len(elements.len() as u64));
            let mut into = vec![7; elements.len()];
            unpack_add(ring, &packed, &mut into).unwrap();
            let expected: Vec<u64> = elements.iter().map(|&e| ring.reduce(e).wrapping_add(7)).collect();
            prop_assert_eq!(into, expected);
        }
    }
}
