use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{TextError, all_finite, same_length};
use crate::funnel::Step;
use crate::vectors::{UnitVectors, cosine, mean_direction};

/// What a sample is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Log-likelihood of the sample's label under a language model, in nats. Higher is better.
    LabelLikelihood,
    /// `1 - cosine` to the mean direction of the samples of its label that are left, itself included. Lower is better.
    CentroidDistance,
    /// Cosine to the most similar earlier sample that is left. Lower is better.
    NearDuplicate,
}

impl Measure {
    /// The measure as a report shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LabelLikelihood => "label likelihood",
            Self::CentroidDistance => "centroid distance",
            Self::NearDuplicate => "near-duplicate",
        }
    }

    fn higher_is_better(self) -> bool {
        matches!(self, Self::LabelLikelihood)
    }
}

/// How bad is too bad.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Dropped beyond this value: below it where higher is better, above it otherwise. The value itself is kept.
    Threshold(f64),
    /// The worst share of those that are left is dropped, rounded down, 0 to 1; of equals the later ones.
    Quantile(f64),
}

/// A measure with its bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// What is measured.
    pub measure: Measure,
    /// What is dropped.
    pub bound: Bound,
}

/// What is known of a pool of `N` samples.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Label of each sample, by its index, `[N]`.
    pub labels: &'a [usize],
    /// Log-likelihood of each sample's label in nats, `[N]`.
    pub log_likelihood: Option<&'a [f64]>,
    /// Embeddings, `[N, D]`.
    pub embeddings: Option<&'a UnitVectors>,
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It passed every criterion.
    Kept,
    /// It failed one.
    Dropped {
        /// Which, by its place in the scorer.
        criterion: usize,
        /// What was measured.
        value: f64,
        /// The threshold, or the best value that the quantile dropped.
        bound: f64,
    },
}

impl Decision {
    /// Whether the sample goes on.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Kept)
    }
}

/// The decisions on a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// One a sample, `[N]`.
    pub decisions: Vec<Decision>,
    /// One a criterion, with what it was given and what it dropped.
    pub steps: Vec<Step>,
}

/// Criteria, each applied to what the ones before it left.
#[derive(Debug, Clone, PartialEq)]
pub struct Scorer {
    criteria: Vec<Criterion>,
}

impl Scorer {
    /// A scorer. Errors: no criterion (it would keep all and call it filtered), a bound that is not finite, a quantile
    /// outside 0 to 1.
    pub fn new(criteria: Vec<Criterion>) -> Result<Self, TextError> {
        if criteria.is_empty() {
            return Err(TextError::setting("criteria", "there are none; name at least one"));
        }
        for Criterion { measure, bound } in &criteria {
            let reason = match bound {
                Bound::Threshold(value) if !value.is_finite() => {
                    format!("{}: {value} is not finite", measure.name())
                }
                Bound::Quantile(share) if !(0.0..=1.0).contains(share) => {
                    format!("{}: the quantile {share} is outside 0 to 1", measure.name())
                }
                _ => continue,
            };
            return Err(TextError::setting("bound", reason));
        }
        Ok(Self { criteria })
    }

    /// The criteria, in order.
    pub fn criteria(&self) -> &[Criterion] {
        &self.criteria
    }

    /// Decides on every sample. Errors: evidence that a criterion needs and that is absent, of another length or not
    /// finite.
    pub fn score(&self, evidence: &Evidence<'_>) -> Result<Scored, TextError> {
        let n = evidence.labels.len();
        if let Some(values) = evidence.log_likelihood {
            same_length("log-likelihoods", n, values.len())?;
            all_finite("log-likelihood", values)?;
        }
        if let Some(vectors) = evidence.embeddings {
            same_length("embeddings", n, vectors.len())?;
        }
        let mut scored = Scored { decisions: vec![Decision::Kept; n], steps: Vec::new() };
        let mut left: Vec<usize> = (0..n).collect();
        for (criterion, Criterion { measure, bound }) in self.criteria.iter().enumerate() {
            let mut step = Step::new(measure.name(), left.len());
            for (sample, value, bound) in failing(*measure, *bound, &left, evidence)? {
                scored.decisions[sample] = Decision::Dropped { criterion, value, bound };
                step.drop_one(measure.name());
            }
            left.retain(|&sample| scored.decisions[sample].is_kept());
            scored.steps.push(step);
        }
        Ok(scored)
    }
}

/// Samples of `left` that fail, with their value and the bound.
fn failing(
    measure: Measure,
    bound: Bound,
    left: &[usize],
    evidence: &Evidence<'_>,
) -> Result<Vec<(usize, f64, f64)>, TextError> {
    let absent = |needs| TextError::Evidence { criterion: measure.name(), needs };
    // A threshold on copies drops one after the other: what was dropped as a copy makes no copies of others.
    let stop = if let Bound::Threshold(threshold) = bound { threshold } else { f64::INFINITY };
    let values = match measure {
        Measure::LabelLikelihood => {
            let values = evidence.log_likelihood.ok_or_else(|| absent("log-likelihoods"))?;
            left.iter().map(|&sample| values[sample]).collect()
        }
        Measure::CentroidDistance => centroid_distances(
            left,
            evidence.labels,
            evidence.embeddings.ok_or_else(|| absent("embeddings"))?,
        ),
        Measure::NearDuplicate => {
            nearest_earlier(left, evidence.embeddings.ok_or_else(|| absent("embeddings"))?, stop)
        }
    };
    // Now higher is better for all.
    let sign = if measure.higher_is_better() { 1.0 } else { -1.0 };
    let places: Vec<usize> = match bound {
        Bound::Threshold(threshold) => {
            (0..left.len()).filter(|&place| sign * values[place] < sign * threshold).collect()
        }
        Bound::Quantile(share) => {
            let mut places: Vec<usize> = (0..left.len()).collect();
            places.sort_by(|&a, &b| (sign * values[a]).total_cmp(&(sign * values[b])).then(b.cmp(&a)));
            places.truncate((share * left.len() as f64) as usize);
            places
        }
    };
    let cut = match bound {
        Bound::Threshold(threshold) => threshold,
        Bound::Quantile(_) => places.last().map_or(f64::NAN, |&place| values[place]),
    };
    Ok(places.into_iter().map(|place| (left[place], values[place], cut)).collect())
}

fn centroid_distances(left: &[usize], labels: &[usize], vectors: &UnitVectors) -> Vec<f64> {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &sample in left {
        members.entry(labels[sample]).or_default().push(sample);
    }
    let of_label =
        |(label, members): (usize, Vec<usize>)| (label, mean_direction(vectors, members.into_iter()));
    let centroids: BTreeMap<usize, _> = members.into_iter().map(of_label).collect();
    let distance = |&sample: &usize| match &centroids[&labels[sample]] {
        Some(centroid) => 1.0 - cosine(vectors.row(sample), centroid),
        // Samples that cancel out have no middle: each is at a right angle to it.
        None => 1.0,
    };
    left.iter().map(distance).collect()
}

/// Cosine of each sample of `left` to the most similar earlier one that is itself at most at `stop`; -1 for the first.
fn nearest_earlier(left: &[usize], vectors: &UnitVectors, stop: f64) -> Vec<f64> {
    let mut earlier: Vec<usize> = Vec::new();
    let mut values = Vec::with_capacity(left.len());
    for &sample in left {
        let nearest =
            earlier.iter().map(|&other| cosine(vectors.row(sample), vectors.row(other))).fold(-1.0, f64::max);
        if nearest <= stop {
            earlier.push(sample);
        }
        values.push(nearest);
    }
    values
}

#[cfg(test)]
mod tests;
