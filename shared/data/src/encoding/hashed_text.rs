//! Signed feature hashing of words (Weinberger et al. 2009): no vocabulary has to be agreed on, so none leaves a site.
//!
//! Words are maximal runs of letters and digits, lower case. Every word and every pair of neighbours (joined by one
//! space) is hashed with FNV-1a (64 bit) and mixed by the finaliser of MurmurHash3, because FNV's low bits alone spread
//! short words badly. The mixed hash modulo `dim` is the input, its top bit the sign. The row is scaled to length 1,
//! so that long texts weigh no more than short ones; a text without words is all zeros.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Adds the text to `out`, which is zero.
pub(super) fn encode(text: &str, out: &mut [f64]) {
    let lower = text.to_lowercase();
    let mut previous: Option<u64> = None;
    for word in lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let alone = fnv(OFFSET, word.as_bytes());
        count(alone, out);
        if let Some(previous) = previous {
            count(fnv(fnv(previous, b" "), word.as_bytes()), out);
        }
        previous = Some(alone);
    }
    let length = out.iter().map(|v| v * v).sum::<f64>().sqrt();
    if length > 0.0 {
        for v in out {
            *v /= length;
        }
    }
}

fn fnv(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

fn count(hash: u64, out: &mut [f64]) {
    let mixed = mix(hash);
    let at = (mixed % out.len() as u64) as usize;
    out[at] += if mixed >> 63 == 0 { 1.0 } else { -1.0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_matches_its_published_vectors() {
        // http://www.isthe.com/chongo/tech/comp/fnv/ (test vectors of FNV-1a, 64 bit)
        assert_eq!(fnv(OFFSET, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(OFFSET, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(OFFSET, b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn case_and_punctuation_do_not_matter_order_does() {
        let of = |text: &str| {
            let mut out = vec![0.0; 4096];
            encode(text, &mut out);
            out
        };
        assert_eq!(of("My card, please!"), of("my CARD please"));
        assert_ne!(of("card my please"), of("my card please"));
        assert!((of("my card please").iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-12);
        // Three words and two pairs.
        assert_eq!(of("my card please").iter().filter(|&&v| v != 0.0).count(), 5);
        assert!(of(" ,;").iter().all(|&v| v == 0.0));
    }
}
