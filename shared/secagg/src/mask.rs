//! Masks: ChaCha20 streams read as integers mod `2^64`.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _, StreamCipherSeek as _};
use rayon::prelude::*;
use zeroize::Zeroizing;

/// Elements expanded at a time: 16 KiB stay in the first-level cache.
const CHUNK: usize = 2048;
/// Elements that one thread takes through all masks: 128 KiB stay in the second-level cache.
const BLOCK: usize = 8 * CHUNK;

/// Which way a mask goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Added.
    Plus,
    /// Subtracted.
    Minus,
}

impl Sign {
    /// The sign with which the lower and the higher of a pair put in their common mask, so that it cancels.
    pub fn of(me: crate::Member, peer: crate::Member) -> Self {
        if me < peer { Self::Plus } else { Self::Minus }
    }

    /// The other sign, to take a mask out again.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Plus => Self::Minus,
            Self::Minus => Self::Plus,
        }
    }
}

/// The key of a mask and which way it goes in. A key must serve one vector only.
pub type Mask = (Zeroizing<[u8; 32]>, Sign);

/// Adds or subtracts masks. Each is the ChaCha20 stream of its key (RFC 8439, nonce and counter zero), eight
/// little-endian bytes an element. On all threads of the current rayon pool.
pub fn apply(masks: &[Mask], into: &mut [u64]) {
    into.par_chunks_mut(BLOCK).enumerate().for_each(|(number, block)| {
        let mut bytes = Zeroizing::new(vec![0_u8; 8 * CHUNK.min(block.len())]);
        for (key, sign) in masks {
            let mut stream = ChaCha20::new((&**key).into(), &[0; 12].into());
            stream.seek(8 * (number * BLOCK) as u64);
            for elements in block.chunks_mut(CHUNK) {
                let bytes = &mut bytes[..8 * elements.len()];
                stream.write_keystream(bytes);
                let (words, _) = bytes.as_chunks::<8>();
                let words = words.iter().map(|word| u64::from_le_bytes(*word));
                match sign {
                    Sign::Plus => elements.iter_mut().zip(words).for_each(|(e, w)| *e = e.wrapping_add(w)),
                    Sign::Minus => elements.iter_mut().zip(words).for_each(|(e, w)| *e = e.wrapping_sub(w)),
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439, appendix A.1, test vectors 1 and 2: key, nonce zero, blocks 0 and 1.
    #[test]
    fn the_stream_is_that_of_the_standard() {
        let mut mask = [0; 16];
        apply(&[(Zeroizing::new([0; 32]), Sign::Plus)], &mut mask);
        let bytes: Vec<u8> = mask.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bytes[..8], [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
        assert_eq!(bytes[56..64], [0xc3, 0x87, 0xb6, 0x69, 0xb2, 0xee, 0x65, 0x86]);
        assert_eq!(bytes[64..72], [0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a]);
    }

    /// A second mask made in one piece: what the blocks and chunks must come to.
    fn whole(key: u8, length: usize) -> Vec<u64> {
        let mut bytes = vec![0; 8 * length];
        ChaCha20::new(&[key; 32].into(), &[0; 12].into()).apply_keystream(&mut bytes);
        bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }

    #[test]
    fn blocks_join_to_one_stream() {
        for length in [0, 1, CHUNK - 1, CHUNK, BLOCK, BLOCK + 1, 3 * BLOCK + 7] {
            let mut vector: Vec<u64> = (0..length as u64).collect();
            let mask = |key, sign| (Zeroizing::new([key; 32]), sign);
            apply(&[mask(9, Sign::Plus), mask(8, Sign::Minus)], &mut vector);
            let (added, taken) = (whole(9, length), whole(8, length));
            let expected = (0..length).map(|at| (at as u64).wrapping_add(added[at]).wrapping_sub(taken[at]));
            assert!(vector.iter().copied().eq(expected), "{length}");
            apply(&[mask(8, Sign::Minus.opposite()), mask(9, Sign::Plus.opposite())], &mut vector);
            assert!(vector.iter().enumerate().all(|(at, value)| *value == at as u64));
        }
    }
}
