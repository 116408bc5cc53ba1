use serde::{Deserialize, Serialize};

use crate::error::AnalyticError;

/// Counts of (true class, predicted class).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire")]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

/// What arrives, before its length is checked.
#[derive(Deserialize)]
struct Wire {
    classes: usize,
    counts: Vec<u64>,
}

impl TryFrom<Wire> for Confusion {
    type Error = AnalyticError;

    fn try_from(wire: Wire) -> Result<Self, AnalyticError> {
        Self::from_counts(wire.classes, wire.counts)
    }
}

/// Metrics of one class. `None` where the denominator is zero.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMetrics {
    /// Rows that truly are of the class.
    pub support: u64,
    /// Right predictions over the class's rows.
    pub recall: Option<f64>,
    /// Right predictions over all predictions of the class.
    pub precision: Option<f64>,
}

impl Confusion {
    /// No rows yet.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts received from a site, `[true, predicted]` row-major.
    pub fn from_counts(classes: usize, counts: Vec<u64>) -> Result<Self, AnalyticError> {
        let expected = classes.saturating_mul(classes);
        if counts.len() != expected {
            return Err(AnalyticError::Length { what: "the confusion matrix", expected, got: counts.len() });
        }
        Ok(Self { classes, counts })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// All counts, `[true, predicted]` row-major.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Rows counted.
    pub fn rows(&self) -> u64 {
        self.counts.iter().fold(0, |n, c| n.saturating_add(*c))
    }

    /// Counts one row. `row` of an error is 0.
    pub fn record(&mut self, truth: u32, predicted: u32) -> Result<(), AnalyticError> {
        for label in [truth, predicted] {
            if label as usize >= self.classes {
                return Err(AnalyticError::Label { row: 0, label, classes: self.classes });
            }
        }
        self.counts[truth as usize * self.classes + predicted as usize] += 1;
        Ok(())
    }

    /// Counts rows by their scores, `[labels.len(), C]` row-major: the largest score wins, the lowest class on a
    /// tie. On an error nothing is counted.
    pub fn record_scores(&mut self, scores: &[f64], labels: &[u32]) -> Result<(), AnalyticError> {
        let (expected, classes) = (labels.len() * self.classes, self.classes);
        if scores.len() != expected {
            return Err(AnalyticError::Length { what: "the scores", expected, got: scores.len() });
        }
        if let Some(row) = labels.iter().position(|&l| l as usize >= classes) {
            return Err(AnalyticError::Label { row, label: labels[row], classes });
        }
        if let Some(at) = scores.iter().position(|s| s.is_nan()) {
            let (row, column) = (at / classes, at % classes);
            return Err(AnalyticError::NotFinite { row, column, value: scores[at].to_string() });
        }
        for (row, &truth) in scores.chunks_exact(classes).zip(labels) {
            let best = (1..classes).fold(0, |best, c| if row[c] > row[best] { c } else { best });
            self.counts[truth as usize * classes + best] += 1;
        }
        Ok(())
    }

    /// Adds another site's counts; unchanged on an error.
    pub fn add(&mut self, other: &Self) -> Result<(), AnalyticError> {
        if self.classes != other.classes {
            let (expected, got) = (self.classes as u64, other.classes as u64);
            return Err(AnalyticError::Shape { what: "classes", expected, got });
        }
        let sums = self.counts.iter().zip(&other.counts).map(|(a, b)| a.checked_add(*b)).collect();
        let sums: Option<Vec<u64>> = sums;
        self.counts = sums.ok_or(AnalyticError::Overflow { what: "a confusion count" })?;
        Ok(())
    }

    /// Right predictions over all rows; `None` without rows.
    pub fn accuracy(&self) -> Option<f64> {
        let right = (0..self.classes).fold(0_u64, |n, c| n.saturating_add(self.counts[c * self.classes + c]));
        ratio(right, self.rows())
    }

    /// Mean recall over the classes that occur; `None` without rows.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        let recalls: Vec<f64> = self.per_class().iter().filter_map(|m| m.recall).collect();
        if recalls.is_empty() { None } else { Some(recalls.iter().sum::<f64>() / recalls.len() as f64) }
    }

    /// Metrics of each class.
    pub fn per_class(&self) -> Vec<ClassMetrics> {
        let total = |counts: &mut dyn Iterator<Item = u64>| counts.fold(0, u64::saturating_add);
        (0..self.classes)
            .map(|c| {
                let right = self.counts[c * self.classes + c];
                let support = total(&mut self.counts[c * self.classes..][..self.classes].iter().copied());
                let predicted = total(&mut self.counts.iter().skip(c).step_by(self.classes).copied());
                ClassMetrics { support, recall: ratio(right, support), precision: ratio(right, predicted) }
            })
            .collect()
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    if whole == 0 { None } else { Some(part as f64 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: truth 0: 3 right, 1 as class 1; truth 1: 1 as class 0, 1 right; class 2 never occurs.
    fn example() -> Confusion {
        Confusion::from_counts(3, vec![3, 1, 0, 1, 1, 0, 0, 0, 0]).unwrap()
    }

    #[test]
    fn figures_worked_out_by_hand() {
        let c = example();
        assert_eq!(c.accuracy(), Some(4.0 / 6.0));
        assert_eq!(c.balanced_accuracy(), Some(f64::midpoint(0.75, 0.5)));
        let class = &c.per_class()[0];
        assert_eq!((class.support, class.recall, class.precision), (4, Some(0.75), Some(0.75)));
        assert_eq!(c.per_class()[2], ClassMetrics { support: 0, recall: None, precision: None });
    }

    #[test]
    fn scores_count_like_labels_and_ties_go_to_the_lowest_class() {
        let mut c = Confusion::new(2);
        c.record_scores(&[0.5, 0.5, 0.1, 0.2], &[0, 0]).unwrap();
        assert_eq!(c.counts(), [1, 1, 0, 0]);
        assert!(matches!(
            c.record_scores(&[f64::NAN, 0.0], &[0]),
            Err(AnalyticError::NotFinite { row: 0, .. })
        ));
        assert!(matches!(c.record_scores(&[1.0, 0.0], &[2]), Err(AnalyticError::Label { label: 2, .. })));
        assert_eq!(c.rows(), 2);
    }

    #[test]
    fn sites_add_up_and_misfits_are_refused() {
        let mut c = example();
        c.add(&example()).unwrap();
        assert_eq!((c.rows(), c.accuracy()), (12, example().accuracy()));
        assert!(c.add(&Confusion::new(2)).is_err());
        assert!(c.record(3, 0).is_err());
        assert!(Confusion::from_counts(2, vec![0; 3]).is_err());
        assert_eq!(Confusion::new(2).accuracy(), None);
        assert_eq!(Confusion::new(2).balanced_accuracy(), None);
    }
}
