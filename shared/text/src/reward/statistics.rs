use serde::{Deserialize, Serialize};

use crate::overlap::distinct;
use crate::words::words;

/// Length and variety of responses: what to watch for reward hacking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Variety {
    /// Responses.
    pub texts: usize,
    /// Mean words of a response.
    pub mean_words: f64,
    /// Distinct words over all words.
    pub distinct_1: f64,
    /// Distinct pairs of neighbouring words over all such pairs.
    pub distinct_2: f64,
}

impl Variety {
    /// Counts over `texts`; all 0 where there is none. The distinct shares fall with the amount of text, so compare pools
    /// of equal size ([`distinct`]).
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let texts: Vec<_> = texts.into_iter().map(words).collect();
        let total: usize = texts.iter().map(Vec::len).sum();
        Self {
            texts: texts.len(),
            mean_words: total as f64 / texts.len().max(1) as f64,
            distinct_1: distinct(&texts, 1),
            distinct_2: distinct(&texts, 2),
        }
    }
}

/// A histogram of bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Where the first bin begins.
    pub low: f64,
    /// Where the last bin ends.
    pub high: f64,
    /// Values in each bin, rising. A bin has its lower end, not its upper.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Counts `values` in `bins` bins, at least one, from `low` to a `high` above it. Values outside fall in the end bins;
    /// those that are not finite are left out.
    pub fn of(values: &[f64], low: f64, high: f64, bins: usize) -> Self {
        let mut counts = vec![0; bins.max(1)];
        let last = counts.len() - 1;
        for value in values.iter().filter(|value| value.is_finite()) {
            // Casts saturate: what is below the range is in bin 0.
            let bin = ((value - low) / (high - low) * counts.len() as f64) as usize;
            counts[bin.min(last)] += 1;
        }
        Self { low, high, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_and_pairs_are_counted() {
        // Words a b a b and a c; pairs ab ba ab and ac.
        let variety = Variety::of(["A b, a b.", "a c", ""]);
        assert_eq!(variety, Variety { texts: 3, mean_words: 2.0, distinct_1: 0.5, distinct_2: 0.75 });
        assert_eq!(Variety::of([]), Variety::default());
    }

    #[test]
    fn values_fall_in_their_bins() {
        let values = [-9.0, 0.0, 0.24, 0.25, 0.5, 0.99, 1.0, 7.0, f64::NAN, f64::INFINITY];
        let histogram = Histogram::of(&values, 0.0, 1.0, 4);
        assert_eq!(histogram, Histogram { low: 0.0, high: 1.0, counts: vec![3, 1, 1, 3] });
        assert_eq!(Histogram::of(&values, 0.0, 1.0, 0).counts, [8]);
        assert_eq!(Histogram::of(&[], 0.0, 1.0, 2).counts, [0, 0]);
    }

    proptest! {
        #[test]
        fn each_finite_value_counts_once(
            values in prop::collection::vec(any::<f64>(), 0..20), low in -5.0..5.0_f64, width in 0.1..9.0_f64, bins in 0..9_usize,
        ) {
            let histogram = Histogram::of(&values, low, low + width, bins);
            let finite = values.iter().filter(|value| value.is_finite()).count();
            prop_assert_eq!(histogram.counts.iter().sum::<u64>(), finite as u64);
            prop_assert_eq!(histogram.counts.len(), bins.max(1));
        }
    }
}
