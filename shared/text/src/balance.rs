//! How many samples of each label: the same for all.
//!
//! The labels come from the plan. How often a label comes in private records is never read, since those counts are a
//! statistic of the records that no noise covers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::error::TextError;
use crate::labels::Labels;
use crate::random::shuffle;
use crate::record::Labelled;

/// Labels to ask for, `per_label` times each: rounds of every label, each in an order drawn from the seed. However early
/// generation stops, the labels' counts are at most one apart.
pub fn schedule(labels: &Labels, per_label: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut round: Vec<usize> = (0..labels.count()).collect();
    let mut schedule = Vec::with_capacity(labels.count() * per_label);
    for _ in 0..per_label {
        shuffle(&mut round, &mut rng);
        schedule.extend_from_slice(&round);
    }
    schedule
}

/// Prompts of each label that give at least `total` samples over all labels together.
pub fn per_label(labels: &Labels, total: usize) -> usize {
    total.div_ceil(labels.count())
}

/// How many samples of each label a pool of synthetic samples still lacks to have `per_label` of each, `[labels]`. Not for
/// private records.
///
/// Errors: a sample with a label that is not one of `labels`.
pub fn missing(labels: &Labels, samples: &[Labelled], per_label: usize) -> Result<Vec<usize>, TextError> {
    let mut missing = vec![per_label; labels.count()];
    for (index, sample) in samples.iter().enumerate() {
        let left = &mut missing[labels.index_of(index, sample)?];
        *left = left.saturating_sub(1);
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_missing_is_counted() {
        let labels = Labels::new(["a", "b", "c"]).unwrap();
        let samples = ["a", "a", "a", "b"].map(|label| Labelled::new("text", label));
        assert_eq!(missing(&labels, &samples, 2).unwrap(), [0, 1, 2]);
        assert!(missing(&labels, &[Labelled::new("text", "d")], 2).is_err());
        assert_eq!([0, 1, 3, 4].map(|total| per_label(&labels, total)), [0, 1, 1, 2]);
    }

    proptest! {
        #[test]
        fn every_beginning_is_balanced(count in 1..6_usize, per_label in 0..6_usize, seed in any::<u64>()) {
            let labels = Labels::new((0..count).map(|label| label.to_string())).unwrap();
            let schedule = schedule(&labels, per_label, seed);
            prop_assert_eq!(schedule.len(), count * per_label);
            let mut counts = vec![0_usize; count];
            for label in schedule {
                counts[label] += 1;
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            }
            prop_assert!(counts.iter().all(|count| *count == per_label));
        }
    }
}
