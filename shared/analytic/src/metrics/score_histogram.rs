use serde::{Deserialize, Serialize};

use crate::error::AnalyticError;

/// Histogram of margins `score_1 - score_0` by true class, for two-class problems: sites' ranking quality adds up
/// without any row's score leaving its site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<(u32, u64)>", try_from = "Vec<(u32, u64)>")]
pub struct ScoreHistogram {
    /// `[true class, bin]`.
    counts: Vec<u64>,
}

/// Bins that hold something: a site's few hundred test rows fill few of the thousands of bins.
impl From<ScoreHistogram> for Vec<(u32, u64)> {
    fn from(histogram: ScoreHistogram) -> Self {
        (0..).zip(histogram.counts).filter(|(_, count)| *count > 0).collect()
    }
}

impl TryFrom<Vec<(u32, u64)>> for ScoreHistogram {
    type Error = AnalyticError;

    fn try_from(filled: Vec<(u32, u64)>) -> Result<Self, AnalyticError> {
        let mut histogram = Self::new();
        let expected = histogram.counts.len();
        for (bin, count) in filled {
            let slot = histogram.counts.get_mut(bin as usize).ok_or(AnalyticError::Length {
                what: "the score histogram",
                expected,
                got: bin as usize,
            })?;
            *slot = slot.saturating_add(count);
        }
        Ok(histogram)
    }
}

impl ScoreHistogram {
    /// Rows counted.
    pub fn rows(&self) -> u64 {
        self.counts.iter().fold(0, |n, c| n.saturating_add(*c))
    }

    /// Bins over the margins.
    pub const BINS: usize = 4096;
    /// Margins are clamped to `-LIMIT` to `LIMIT`: ridge scores of one-hot targets lie near 0 and 1.
    pub const LIMIT: f64 = 2.0;

    /// No rows yet.
    pub fn new() -> Self {
        Self { counts: vec![0; 2 * Self::BINS] }
    }

    /// Counts received from a site, `[2, BINS]` row-major.
    pub fn from_counts(counts: Vec<u64>) -> Result<Self, AnalyticError> {
        if counts.len() != 2 * Self::BINS {
            let (expected, got) = (2 * Self::BINS, counts.len());
            return Err(AnalyticError::Length { what: "the score histogram", expected, got });
        }
        Ok(Self { counts })
    }

    /// All counts, `[2, BINS]` row-major.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Counts one row by its two scores. `row` of an error is 0.
    pub fn record(&mut self, truth: u32, scores: [f64; 2]) -> Result<(), AnalyticError> {
        if truth > 1 {
            return Err(AnalyticError::Label { row: 0, label: truth, classes: 2 });
        }
        let margin = scores[1] - scores[0];
        if margin.is_nan() {
            return Err(AnalyticError::NotFinite { row: 0, column: 0, value: margin.to_string() });
        }
        let place = (margin.clamp(-Self::LIMIT, Self::LIMIT) + Self::LIMIT) / (2.0 * Self::LIMIT);
        let bin = ((place * Self::BINS as f64) as usize).min(Self::BINS - 1);
        self.counts[truth as usize * Self::BINS + bin] += 1;
        Ok(())
    }

    /// Adds another site's counts; unchanged on an error.
    pub fn add(&mut self, other: &Self) -> Result<(), AnalyticError> {
        let sums: Option<Vec<u64>> =
            self.counts.iter().zip(&other.counts).map(|(a, b)| a.checked_add(*b)).collect();
        self.counts = sums.ok_or(AnalyticError::Overflow { what: "a histogram count" })?;
        Ok(())
    }

    /// Area under the receiver operating characteristic: the chance that a row of class 1 ranks above one of class
    /// 0, rows of one bin counted half (Mann-Whitney). `None` unless both classes occur.
    pub fn auc(&self) -> Option<f64> {
        let (negatives, positives) = self.counts.split_at(Self::BINS);
        // Twice the statistic, so that halves stay integers; f64 only for counts beyond any data set.
        let (mut below, mut twice, mut total) = (0_u128, 0.0, 0_u128);
        for (&n, &p) in negatives.iter().zip(positives) {
            let (n, p) = (u128::from(n), u128::from(p));
            twice += (p as f64) * (2 * below + n) as f64;
            below += n;
            total += p;
        }
        if below == 0 || total == 0 { None } else { Some(twice / (2.0 * below as f64 * total as f64)) }
    }
}

impl Default for ScoreHistogram {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(rows: &[(u32, f64)]) -> ScoreHistogram {
        let mut h = ScoreHistogram::new();
        for &(truth, margin) in rows {
            h.record(truth, [0.0, margin]).unwrap();
        }
        h
    }

    #[test]
    fn areas_worked_out_by_hand() {
        assert_eq!(histogram(&[(0, -1.0), (1, 1.0)]).auc(), Some(1.0));
        assert_eq!(histogram(&[(1, -1.0), (0, 1.0)]).auc(), Some(0.0));
        assert_eq!(histogram(&[(0, 0.5), (1, 0.5)]).auc(), Some(0.5));
        // Pairs: (.5 > 0) 1, (.5 = .5) 1/2, (1 > 0) 1, (1 > .5) 1.
        assert_eq!(histogram(&[(0, 0.0), (0, 0.5), (1, 0.5), (1, 1.0)]).auc(), Some(0.875));
    }

    #[test]
    fn one_class_has_no_area() {
        assert_eq!(histogram(&[(0, 0.0)]).auc(), None);
        assert_eq!(ScoreHistogram::default().auc(), None);
    }

    #[test]
    fn far_margins_are_clamped_and_nan_refused() {
        let mut h = histogram(&[(0, -1e9), (1, f64::INFINITY), (1, 2.0)]);
        assert_eq!((h.counts()[0], h.counts()[2 * ScoreHistogram::BINS - 1]), (1, 2));
        assert!(h.record(0, [f64::NAN, 0.0]).is_err());
        assert!(h.record(2, [0.0, 0.0]).is_err());
        assert!(ScoreHistogram::from_counts(vec![0; 3]).is_err());
    }

    #[test]
    fn sites_add_up_to_the_pooled_area() {
        let rows = [(0, 0.1), (1, 0.4), (0, 0.3), (1, 0.2), (1, 0.3)];
        let mut parts = histogram(&rows[..2]);
        parts.add(&histogram(&rows[2..])).unwrap();
        assert_eq!(parts, histogram(&rows));
    }
}
