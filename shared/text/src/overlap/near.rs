use std::collections::{HashMap, HashSet};
use std::hash::{Hash as _, Hasher};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::ngram::jaccard;
use crate::error::TextError;
use crate::vectors::{UnitVectors, cosine};

/// Least threshold that the bands of [`near_duplicates_by_minhash`] find reliably.
pub const MIN_JACCARD: f64 = 0.7;
const BANDS: usize = 32;
const ROWS: usize = 4;

/// For each text the first earlier one, itself kept, that it is a near-duplicate of: one whose n-grams have a Jaccard
/// similarity of at least `threshold`.
///
/// Candidates come from MinHash in 32 bands of 4 (Broder, 1997) and are then compared exactly: no text is called a
/// duplicate wrongly, and one of similarity `s` is missed with probability `(1 - s^4)^32`, 1.5e-4 at 0.7, 5e-8 at 0.8.
/// A text without words is a duplicate of none. Errors: `n` is 0, a threshold outside [`MIN_JACCARD`] to 1.
pub fn near_duplicates_by_minhash(
    texts: &[Vec<String>],
    n: usize,
    threshold: f64,
    seed: u64,
) -> Result<Vec<Option<usize>>, TextError> {
    if n == 0 {
        return Err(TextError::setting("n", "an n-gram has at least one word"));
    }
    if !(MIN_JACCARD..=1.0).contains(&threshold) {
        return Err(TextError::setting("threshold", format!("{threshold} is outside {MIN_JACCARD} to 1")));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let keys: Vec<u64> = (0..BANDS * ROWS).map(|_| rng.next_u64()).collect();
    let mut buckets: HashMap<(usize, [u64; ROWS]), Vec<usize>> = HashMap::new();
    let mut found = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let Some(signature) = signature(text, n, &keys) else {
            found.push(None);
            continue;
        };
        let bands: Vec<_> = signature.as_chunks::<ROWS>().0.iter().copied().enumerate().collect();
        let mut candidates: Vec<_> =
            bands.iter().filter_map(|band| buckets.get(band)).flatten().copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let original = candidates.into_iter().find(|&other| jaccard(text, &texts[other], n) >= threshold);
        if original.is_none() {
            bands.into_iter().for_each(|band| buckets.entry(band).or_default().push(index));
        }
        found.push(original);
    }
    Ok(found)
}

/// For each text whether one of `others` nearly equals it: their n-grams have a Jaccard similarity of at least `threshold`. Exact, by
/// the n-grams of `others`; a text of fewer than `n` words is its own only n-gram. Errors: `n` is 0, a threshold outside above 0 to 1.
pub fn near_any_of(
    texts: &[Vec<String>],
    others: &[Vec<String>],
    n: usize,
    threshold: f64,
) -> Result<Vec<bool>, TextError> {
    if n == 0 {
        return Err(TextError::setting("n", "an n-gram has at least one word"));
    }
    if !(threshold > 0.0 && threshold <= 1.0) {
        return Err(TextError::setting("threshold", format!("{threshold} is not above 0, at most 1")));
    }
    let grams = |text: &[String]| text.len().min(n).max(1);
    let mut having: HashMap<&[String], Vec<usize>> = HashMap::new();
    let mut sizes = Vec::with_capacity(others.len());
    for (number, other) in others.iter().enumerate() {
        let different: HashSet<&[String]> = other.windows(grams(other)).collect();
        sizes.push(different.len());
        different.into_iter().for_each(|gram| having.entry(gram).or_default().push(number));
    }
    let near = |text: &Vec<String>| {
        let different: HashSet<&[String]> = text.windows(grams(text)).collect();
        let mut shared: HashMap<usize, usize> = HashMap::new();
        for number in different.iter().filter_map(|gram| having.get(gram)).flatten() {
            *shared.entry(*number).or_default() += 1;
        }
        let all = |number: usize, shared: usize| (different.len() + sizes[number] - shared) as f64;
        shared.into_iter().any(|(number, shared)| shared as f64 >= threshold * all(number, shared))
    };
    Ok(texts.iter().map(near).collect())
}

/// Least hash of the n-grams under each key; of the whole text where it is shorter than `n`.
fn signature(words: &[String], n: usize, keys: &[u64]) -> Option<Vec<u64>> {
    let n = n.min(words.len());
    if n == 0 {
        return None;
    }
    let grams: HashSet<u64> = words.windows(n).map(hash).collect();
    // Xor with a key and a mix: independent enough orders of the same hashes, without hashing words again.
    let least = |key: &u64| grams.iter().map(|gram| mix(gram ^ key)).min().unwrap_or(u64::MAX);
    Some(keys.iter().map(least).collect())
}

fn hash(gram: &[String]) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    gram.iter().for_each(|word| word.hash(&mut hasher));
    hasher.finish()
}

/// FNV-1a: the standard library's hasher may change with the compiler, and signatures should not.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The finaliser of SplitMix64.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// For each vector the first earlier one, itself kept, at a cosine of at least `threshold`. Quadratic in the vectors.
/// Errors: a threshold outside -1 to 1.
pub fn near_duplicates_by_cosine(
    vectors: &UnitVectors,
    threshold: f64,
) -> Result<Vec<Option<usize>>, TextError> {
    if !(-1.0..=1.0).contains(&threshold) {
        return Err(TextError::setting("threshold", format!("{threshold} is outside -1 to 1")));
    }
    let mut kept = Vec::new();
    let mut found = Vec::with_capacity(vectors.len());
    for index in 0..vectors.len() {
        let near = |&&other: &&usize| cosine(vectors.row(index), vectors.row(other)) >= threshold;
        let original = kept.iter().find(near).copied();
        if original.is_none() {
            kept.push(index);
        }
        found.push(original);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::words;
    use proptest::prelude::*;

    #[test]
    fn near_duplicates_point_at_the_first() {
        let long: Vec<String> = (0..60).map(|i| format!("w{i}")).collect();
        let mut edited = long.clone();
        edited[30] = "other".to_owned();
        let texts = [
            long.clone(),
            words("a text of its own"),
            edited,
            words("a text of its own"),
            words(""),
            words(""),
        ];
        let found = near_duplicates_by_minhash(&texts, 3, 0.8, 7).unwrap();
        assert_eq!(found, [None, None, Some(0), Some(1), None, None]);
        // One changed word breaks 3 of 58 trigrams: 55 shared of 61.
        let found = near_duplicates_by_minhash(&texts, 3, 0.95, 7).unwrap();
        assert_eq!(found[2], None);
    }

    #[test]
    fn a_text_is_near_any_of_others_whatever_these_are_to_each_other() {
        let first: Vec<String> = (0..60).map(|i| format!("w{i}")).collect();
        let edited = |places: &[usize]| {
            let mut text = first.clone();
            places.iter().for_each(|&at| text[at] = format!("other{at}"));
            text
        };
        // 0.81 to the second, itself a near-duplicate of the first, and 0.73 to the first.
        let others = [edited(&[10, 30, 50]), edited(&[10, 30]), words("it works")];
        let texts = [first.clone(), words("It works!"), words("it broke"), words(""), edited(&[1, 20, 40])];
        assert_eq!(near_any_of(&texts, &others, 3, 0.8).unwrap(), [true, true, false, false, false]);
        assert_eq!(near_any_of(&texts, &others[..1], 3, 0.8).unwrap(), [false; 5]);
        assert!(
            near_any_of(&texts, &others, 0, 0.8).is_err() && near_any_of(&texts, &others, 3, 0.0).is_err()
        );
    }

    #[test]
    fn of_several_originals_the_first_is_named() {
        let first: Vec<String> = (0..60).map(|i| format!("w{i}")).collect();
        let edited = |places: &[usize]| {
            let mut text = first.clone();
            places.iter().for_each(|&at| text[at] = format!("other{at}"));
            text
        };
        // Each changed word breaks 3 of 58 trigrams: 0.73 between the first two, 0.81 and 0.90 to the third.
        let texts = [first.clone(), edited(&[10, 30, 50]), edited(&[10, 30])];
        for seed in 0..50 {
            assert_eq!(near_duplicates_by_minhash(&texts, 3, 0.8, seed).unwrap(), [None, None, Some(0)]);
        }
    }

    #[test]
    fn short_texts_are_compared_whole() {
        let texts = [words("it works"), words("It works!"), words("it broke")];
        assert_eq!(near_duplicates_by_minhash(&texts, 5, 0.7, 7).unwrap(), [None, Some(0), None]);
    }

    #[test]
    fn thresholds_that_bands_would_miss_are_refused() {
        assert!(near_duplicates_by_minhash(&[], 3, 0.5, 7).is_err());
        assert!(near_duplicates_by_minhash(&[], 3, f64::NAN, 7).is_err());
        assert!(near_duplicates_by_minhash(&[], 0, 0.8, 7).is_err());
        assert!(near_duplicates_by_cosine(&UnitVectors::new(&[], 2).unwrap(), 1.5).is_err());
    }

    #[test]
    fn vectors_of_small_angle_are_near() {
        let vectors = UnitVectors::new(&[1.0, 0.0, 0.0, 1.0, 2.0, 0.1, 1.0, 1.0], 2).unwrap();
        assert_eq!(near_duplicates_by_cosine(&vectors, 0.9).unwrap(), [None, None, Some(0), None]);
        assert_eq!(near_duplicates_by_cosine(&vectors, 0.7).unwrap(), [None, None, Some(0), Some(0)]);
    }

    proptest! {
        #[test]
        fn minhash_finds_what_comparing_all_pairs_finds(
            base in prop::collection::vec("[a-z]{2}", 20..40),
            edits in prop::collection::vec((0..40_usize, "[a-z]{3}"), 0..12),
        ) {
            // Texts that differ from the one before by one word.
            let mut texts = vec![base];
            for (at, word) in edits {
                let mut next = texts[texts.len() - 1].clone();
                let len = next.len();
                next[at % len] = word;
                texts.push(next);
            }
            let mut wanted: Vec<Option<usize>> = Vec::new();
            for (index, text) in texts.iter().enumerate() {
                let near = |&other: &usize| wanted[other].is_none() && jaccard(text, &texts[other], 2) >= 0.8;
                wanted.push((0..index).find(near));
            }
            prop_assert_eq!(near_duplicates_by_minhash(&texts, 2, 0.8, 1).unwrap(), wanted);
        }
    }
}
