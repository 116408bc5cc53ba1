use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::overlap::rouge_l;
use crate::random::unit;
use crate::vectors::{UnitVectors, cosine};

/// Mean ROUGE-L F1 of each candidate, given as its words, with the others of its query, `[n]`: the answer that the others
/// agree with has the highest. 0 for a lone candidate. Quadratic in the candidates and in their words.
pub fn rouge_consensus(candidates: &[Vec<String>]) -> Vec<f64> {
    let mut means = vec![0.0; candidates.len()];
    for (at, candidate) in candidates.iter().enumerate() {
        for (other, reference) in candidates.iter().enumerate().skip(at + 1) {
            // F1 is the same from either side.
            let f1 = rouge_l(candidate, reference).f1;
            means[at] += f1;
            means[other] += f1;
        }
    }
    let others = candidates.len().saturating_sub(1).max(1) as f64;
    means.iter_mut().for_each(|mean| *mean /= others);
    means
}

/// Cosine of the query's unit vector, `[D]`, with that of each response, `[n, D]`: the answer that says the most like the
/// question has the highest.
pub fn relevance(query: &[f32], responses: &UnitVectors) -> Vec<f64> {
    debug_assert_eq!(query.len(), responses.dim());
    (0..responses.len()).map(|index| cosine(query, responses.row(index))).collect()
}

/// A number in `[0, 1)` for each of `n` candidates, from the seed alone: the same on every machine, and the same for the
/// first ones however many there are.
pub fn at_random(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| unit(&mut rng)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::words;
    use proptest::prelude::*;

    #[test]
    fn the_answer_that_others_agree_with_leads() {
        // Longest common words 3 of 4 and 4, 2 of 4 and 2, 1 of 4 and 2: F1 of 3/4, 2/3, 1/3.
        let texts = ["take one a day", "take two a day", "one day"].map(words);
        let wanted = [17.0 / 24.0, 13.0 / 24.0, 0.5];
        for (got, wanted) in rouge_consensus(&texts).into_iter().zip(wanted) {
            assert!((got - wanted).abs() < 1e-12, "{got} for {wanted}");
        }
    }

    #[test]
    fn a_lone_answer_agrees_with_none() {
        assert_eq!(rouge_consensus(&[words("take one a day")]), [0.0]);
        assert!(rouge_consensus(&[]).is_empty());
    }

    #[test]
    fn relevance_is_the_cosine() {
        let responses = UnitVectors::new(&[2.0, 0.0, 0.0, 5.0, -1.0, 0.0, 3.0, 4.0], 2).unwrap();
        let relevance = relevance(&[1.0, 0.0], &responses);
        assert_eq!(relevance[..3], [1.0, 0.0, -1.0]);
        assert!((relevance[3] - 0.6).abs() < 1e-6);
    }

    #[test]
    fn draws_are_the_same_everywhere() {
        assert_eq!(
            at_random(4, 7),
            [0.15779609702061936, 0.1679893627721013, 0.7042761280364565, 0.726741296713265]
        );
        assert_ne!(at_random(4, 7), at_random(4, 8));
    }

    proptest! {
        #[test]
        fn consensus_is_a_share_and_knows_no_order(texts in prop::collection::vec("[ab ]{0,9}", 0..6)) {
            let mut texts: Vec<_> = texts.iter().map(|text| words(text)).collect();
            let mut before = rouge_consensus(&texts);
            prop_assert!(before.iter().all(|mean| (0.0..=1.0).contains(mean)));
            texts.reverse();
            before.reverse();
            for (a, b) in rouge_consensus(&texts).iter().zip(&before) {
                prop_assert!((a - b).abs() < 1e-12);
            }
        }

        #[test]
        fn draws_are_in_range_and_begin_alike(n in 0..50_usize, seed in any::<u64>()) {
            let draws = at_random(n, seed);
            prop_assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
            prop_assert_eq!(&at_random(50, seed)[..n], &draws[..]);
        }
    }
}
