use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::error::{TextError, all_finite};

/// What the proxies say of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The reward proxy's score. Higher is better.
    pub score: f64,
    /// Perplexity under the generation proxy. Lower is better.
    pub perplexity: f64,
}

/// What reward guided filtering makes of the candidates of one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Place of the candidate with the highest R.
    pub chosen: usize,
    /// Place of the candidate with the lowest R; the same for a lone candidate.
    pub rejected: usize,
    /// R of each candidate, 1 to `n`, `[n]`.
    pub ranks: Vec<f64>,
}

/// Ranks the candidates of one query by `R = alpha * rank_up(score) + (1 - alpha) * rank_down(perplexity)`. None for no
/// candidate. Quadratic in the candidates.
///
/// `rank_up` is 1 for the lowest score and `n` for the highest, `rank_down` is `n` for the lowest perplexity; equal values
/// share the mean of their ranks. Of equal R, the chosen one has the higher score, then the lower perplexity, then comes
/// first; the rejected one has the lower score, then the higher perplexity, then comes last.
///
/// Errors: `alpha` is outside 0 to 1, a score or a perplexity is not finite.
pub fn choose(candidates: &[Scored], alpha: f64) -> Result<Option<Choice>, TextError> {
    if !(0.0..=1.0).contains(&alpha) {
        return Err(TextError::setting("alpha", format!("{alpha} is outside 0 to 1")));
    }
    let scores: Vec<_> = candidates.iter().map(|candidate| candidate.score).collect();
    // Negated, so that higher is better for both.
    let fluency: Vec<_> = candidates.iter().map(|candidate| -candidate.perplexity).collect();
    all_finite("score", &scores)?;
    all_finite("perplexity", &fluency)?;
    let weighted = |(up, down): (f64, f64)| alpha * up + (1.0 - alpha) * down;
    let ranks: Vec<_> = mean_ranks(&scores).zip(mean_ranks(&fluency)).map(weighted).collect();
    // A strict order: its two ends are the chosen and the rejected one, and the rules for equals mirror each other.
    let order = |&a: &usize, &b: &usize| {
        rising(ranks[a], ranks[b])
            .then(rising(scores[a], scores[b]))
            .then(rising(fluency[a], fluency[b]))
            .then(b.cmp(&a))
    };
    let ends = (0..ranks.len()).max_by(order).zip((0..ranks.len()).min_by(order));
    Ok(ends.map(|(chosen, rejected)| Choice { chosen, rejected, ranks }))
}

/// The places of the best `ceil(n / fold)` of `n` values, the highest first; of equals the earlier one.
///
/// Errors: `fold` is 0, a value is not finite.
pub fn best(values: &[f64], fold: usize) -> Result<Vec<usize>, TextError> {
    if fold == 0 {
        return Err(TextError::setting("fold", "one in 0 cannot be kept; 1 keeps all"));
    }
    all_finite("value", values)?;
    let mut places: Vec<usize> = (0..values.len()).collect();
    // Stable: equals stay in their order.
    places.sort_by(|&a, &b| rising(values[b], values[a]));
    places.truncate(values.len().div_ceil(fold));
    Ok(places)
}

/// Rank of each value, 1 for the lowest; equal values share the mean of theirs.
fn mean_ranks(values: &[f64]) -> impl Iterator<Item = f64> + '_ {
    values.iter().map(|value| {
        let lower = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        // The mean of lower + 1 to lower + equal.
        (2 * lower + equal + 1) as f64 / 2.0
    })
}

/// The order of finite values, in which both zeros are equal.
fn rising(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(pairs: &[(f64, f64)]) -> Vec<Scored> {
        pairs.iter().map(|&(score, perplexity)| Scored { score, perplexity }).collect()
    }

    fn ends(pairs: &[(f64, f64)], alpha: f64) -> (usize, usize) {
        let choice = choose(&candidates(pairs), alpha).unwrap().unwrap();
        (choice.chosen, choice.rejected)
    }

    #[test]
    fn reference_values() {
        // Ranks of the scores 3.5 2 3.5 1, of the perplexities 2 3.5 3.5 1.
        let four = candidates(&[(2.0, 5.0), (1.0, 3.0), (2.0, 3.0), (-1.0, 9.0)]);
        let choice = |alpha| choose(&four, alpha).unwrap().unwrap();
        assert_eq!(choice(0.5), Choice { chosen: 2, rejected: 3, ranks: vec![2.75, 2.75, 3.5, 1.0] });
        assert_eq!(choice(0.25).ranks, [2.375, 3.125, 3.5, 1.0]);
    }

    #[test]
    fn of_equal_rank_the_score_decides_then_perplexity_then_place() {
        assert_eq!(ends(&[(1.0, 3.0), (2.0, 5.0)], 0.5), (1, 0));
        assert_eq!(ends(&[(1.0, 5.0), (1.0, 3.0), (1.0, 4.0)], 1.0), (1, 0));
        assert_eq!(ends(&[(1.0, 3.0); 3], 0.5), (0, 2));
        assert_eq!(ends(&[(0.0, 3.0), (-0.0, 3.0)], 0.5), (0, 1));
    }

    #[test]
    fn few_candidates_leave_little_choice() {
        assert_eq!(choose(&[], 0.5).unwrap(), None);
        assert_eq!(ends(&[(-7.0, 30.0)], 0.3), (0, 0));
        assert!(best(&[], 8).unwrap().is_empty());
    }

    #[test]
    fn what_has_no_rank_is_refused() {
        let one = candidates(&[(1.0, 2.0)]);
        for alpha in [-0.1, 1.1, f64::NAN] {
            assert!(choose(&one, alpha).is_err() && choose(&[], alpha).is_err());
        }
        for (pair, what) in [((f64::NAN, 2.0), "score"), ((1.0, f64::INFINITY), "perplexity")] {
            let refused = choose(&candidates(&[(1.0, 2.0), pair]), 0.5).unwrap_err();
            assert_eq!(refused, TextError::NotFinite { what, index: 1 });
        }
        assert!(best(&[1.0], 0).is_err() && best(&[f64::NAN], 1).is_err());
    }

    #[test]
    fn the_best_come_highest_first() {
        let values = [1.0, 3.0, 2.0, 3.0, -0.0, 0.0];
        assert_eq!(best(&values, 1).unwrap(), [1, 3, 2, 0, 4, 5]);
        assert_eq!(best(&values, 4).unwrap(), [1, 3]);
        assert_eq!(best(&values, 100).unwrap(), [1]);
    }

    /// Few distinct values, so that equals are common.
    fn pools() -> impl Strategy<Value = Vec<Scored>> {
        let scored = (-3..4_i32, 1..6_i32)
            .prop_map(|(score, perplexity)| Scored { score: score.into(), perplexity: perplexity.into() });
        prop::collection::vec(scored, 1..9)
    }

    proptest! {
        #[test]
        fn the_ends_have_the_highest_and_the_lowest_rank(pool in pools(), alpha in 0.0..=1.0_f64) {
            let Choice { chosen, rejected, ranks } = choose(&pool, alpha).unwrap().unwrap();
            prop_assert!(ranks.iter().all(|rank| *rank <= ranks[chosen] && *rank >= ranks[rejected]));
            let n = pool.len() as f64;
            prop_assert!((ranks.iter().sum::<f64>() - n * (n + 1.0) / 2.0).abs() < 1e-9);
            prop_assert_eq!(chosen == rejected, pool.len() == 1);
        }

        #[test]
        fn scale_and_origin_of_the_scores_do_not_matter(
            pool in pools(), alpha in 0.0..=1.0_f64, scale in 0.01..100.0_f64, shift in -1e3..1e3_f64,
        ) {
            let moved = |value: &Scored| Scored { score: value.score * scale + shift, ..*value };
            let moved: Vec<_> = pool.iter().map(moved).collect();
            prop_assert_eq!(choose(&moved, alpha).unwrap(), choose(&pool, alpha).unwrap());
        }

        #[test]
        fn at_its_ends_alpha_heeds_one_proxy(pool in pools()) {
            let by_score = choose(&pool, 1.0).unwrap().unwrap().chosen;
            prop_assert!(pool.iter().all(|other| other.score <= pool[by_score].score));
            let by_perplexity = choose(&pool, 0.0).unwrap().unwrap().chosen;
            prop_assert!(pool.iter().all(|other| other.perplexity >= pool[by_perplexity].perplexity));
        }

        #[test]
        fn the_order_of_the_candidates_does_not_matter(
            (pool, places) in pools().prop_flat_map(|pool| {
                let places: Vec<usize> = (0..pool.len()).collect();
                (Just(pool), Just(places).prop_shuffle())
            }),
            alpha in 0.0..=1.0_f64,
        ) {
            let other: Vec<_> = places.iter().map(|&place| pool[place]).collect();
            let before = choose(&pool, alpha).unwrap().unwrap();
            let after = choose(&other, alpha).unwrap().unwrap();
            let ranks: Vec<_> = places.iter().map(|&place| before.ranks[place]).collect();
            prop_assert_eq!(&after.ranks, &ranks);
            prop_assert_eq!(other[after.chosen], pool[before.chosen]);
            prop_assert_eq!(other[after.rejected], pool[before.rejected]);
        }

        #[test]
        fn none_that_is_dropped_is_better(values in prop::collection::vec(-5..5_i32, 0..40), fold in 1..12_usize) {
            let values: Vec<_> = values.into_iter().map(f64::from).collect();
            let kept = best(&values, fold).unwrap();
            prop_assert_eq!(kept.len(), values.len().div_ceil(fold));
            // Highest first; of equals the earlier one.
            prop_assert!(kept.array_windows().all(|&[a, b]| (values[a], b) > (values[b], a)));
            for dropped in (0..values.len()).filter(|place| !kept.contains(place)) {
                prop_assert!(kept.iter().all(|&place| (values[place], dropped) > (values[dropped], place)));
            }
        }
    }
}
