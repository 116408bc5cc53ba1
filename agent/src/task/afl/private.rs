//! AFL under differential privacy: noise on the sums (SSP: Vu and Slavkovic 2009; Wang 2018, arXiv 1803.02596) and on the
//! counts of an evaluation.
//!
//! **Claim.** What [`sums`] gives is private as the ledger's `Event::Gaussian` says, what [`evaluate`] gives as its
//! `Event::Laplace` says, add/remove of one privacy unit with all its rows.
//!
//! **Why it holds.** The integers of a row have at most norm `R 2^s` (`l2-bounded`, checked when they are made), so a row moves
//! `G` by at most `R^2 2^2s` and `B 2^s` by at most `R 2^2s`: together `sqrt(R^4 + R^2) 2^2s` in L2. A unit of m rows counts as
//! their mean, rounded towards zero, which no entry grows by; so it moves no more than one row. What must be known of the rows
//! beforehand (classes, ranges) is declared in the plan and not taken from them. Test rows: a unit of m rows adds 1 / m to the
//! count of each, rounded down: at most 1 in L1 for every count that a row may be in.
//!
//! **Source.** docs/privacy.md; Dwork et al. 2014 ("Analyze Gauss") for noise on a Gram matrix.
//!
//! **Test.** `private/tests.rs`, and `fdkt/transfer/tests.rs` for counts: neighbours differ by at most the bound, for rows and for
//! units.

use sheaf_analytic::{Featurizer, GramAccumulator, Normalize, SumsShape, metrics::Confusion};
use sheaf_data::{Dataset, Split};
use sheaf_privacy::mechanism::{self, MechanismError, Sensitivity};
use sheaf_proto::{
    afl::{EvaluateSpec, Evaluation, NoisedSums, SumsSpec},
    privacy::PrivacySpec,
};

use super::{BLOCK, measure_with, rows_of, weights_of};
use crate::{budget::Purse, egress::Made, error::AgentError, features::Opened};

/// A count of 1 on the grid of the noised counts.
const COUNT: i64 = 1 << 14;

fn noise(error: MechanismError) -> AgentError {
    AgentError::Task(error.to_string())
}

/// The units that are one row, and those of several.
fn by_size(dataset: &Dataset, unit: &str, split: Split) -> Result<(Vec<usize>, Vec<Vec<usize>>), AgentError> {
    let (single, several): (Vec<_>, Vec<_>) =
        dataset.units(unit, split)?.into_iter().partition(|rows| rows.len() == 1);
    Ok((single.concat(), several))
}

/// Integer sums on one grid: packed `G`, then `B 2^s`, both in units of `2^-2s`.
struct UnitSums {
    shape: SumsShape,
    values: Vec<i64>,
}

impl UnitSums {
    fn new(shape: SumsShape) -> Self {
        Self { shape, values: vec![0; gram_len(shape.dim) + shape.dim * shape.classes] }
    }

    fn add(&mut self, gram: &[i64], cross: &[i64]) {
        let scale = 1 << self.shape.bits;
        let (into_gram, into_cross) = self.values.split_at_mut(gram.len());
        into_gram.iter_mut().zip(gram).for_each(|(sum, value)| *sum += value);
        into_cross.iter_mut().zip(cross).for_each(|(sum, value)| *sum += value * scale);
    }

    /// The mean over a unit's rows, every entry rounded towards zero.
    fn add_mean(&mut self, rows: &[(Vec<i64>, u32)]) {
        let SumsShape { dim, classes, bits, .. } = self.shape;
        let count = rows.len() as i64;
        let (gram, cross) = self.values.split_at_mut(gram_len(dim));
        let pairs = (0..dim).flat_map(|i| (i..dim).map(move |j| (i, j)));
        for (sum, (i, j)) in gram.iter_mut().zip(pairs) {
            *sum += rows.iter().map(|(q, _)| q[i] * q[j]).sum::<i64>() / count;
        }
        for (i, sums) in cross.chunks_exact_mut(classes).enumerate() {
            for (class, sum) in sums.iter_mut().enumerate() {
                let of_class = rows.iter().filter(|(_, label)| *label as usize == class);
                *sum += (of_class.map(|(q, _)| q[i]).sum::<i64>() << bits) / count;
            }
        }
    }
}

const fn gram_len(dim: usize) -> usize {
    dim * (dim + 1) / 2
}

/// What one unit may move of [`exact`], in L2.
fn sensitivity(spec: &SumsSpec) -> f64 {
    let bound = spec.features.row_norm_bound();
    (bound.powi(4) + bound * bound).sqrt() * 4.0_f64.powi(spec.features.bits as i32)
}

/// The sums without noise.
fn exact(
    spec: &SumsSpec,
    unit: &str,
    dataset: &Dataset,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<i64>, AgentError> {
    let featurizer = Featurizer::new(&spec.features)?;
    let shape = SumsShape::of(&spec.features, spec.encoding.classes.len());
    let (single, several) = by_size(dataset, unit, Split::Train)?;
    let mut singles = GramAccumulator::new(shape.dim, shape.classes, shape.bits, shape.max_abs)?;
    for block in single.chunks(BLOCK) {
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
        let (q, labels) = rows_of(spec, &featurizer, dataset, block)?;
        singles.push(&q, &labels)?;
    }
    let singles = singles.finish();
    let mut sums = UnitSums::new(shape);
    sums.add(singles.gram(), singles.cross());
    for rows in several {
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
        let (q, labels) = rows_of(spec, &featurizer, dataset, &rows)?;
        let integers = q.chunks_exact(shape.dim).map(|row| row.iter().map(|q| *q as i64).collect());
        let rows: Vec<_> = integers.zip(labels).collect();
        if !rows.is_empty() {
            sums.add_mean(&rows);
        }
    }
    Ok(sums.values)
}

/// Numbers to be noised and what they are noised for.
fn priced(
    spec: &SumsSpec,
    privacy: &PrivacySpec,
    dataset: &Dataset,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Vec<i64>, Sensitivity), AgentError> {
    if spec.features.normalize != Normalize::L2Bounded {
        return Err(AgentError::Task("noised sums need rows that are l2-bounded".to_owned()));
    }
    let values = exact(spec, &privacy.unit, dataset, cancelled)?;
    Ok((values, Sensitivity::new(sensitivity(spec)).map_err(noise)?))
}

/// The sums of a data set's training rows, with noise that the ledger is charged for first.
pub(super) fn sums(
    spec: &SumsSpec,
    privacy: &PrivacySpec,
    dataset: &Dataset,
    purse: Purse,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Vec<u8>, Made), AgentError> {
    let shape = SumsShape::of(&spec.features, spec.encoding.classes.len());
    let (values, bound) = priced(spec, privacy, dataset, cancelled)?;
    let (noised, made) = purse.draw(privacy.event.count(), |token| {
        mechanism::discrete_gaussian(&values, bound, token).map_err(noise)
    })?;
    let sums = NoisedSums::from_vector(&shape, noised).and_then(|sums| sums.encode());
    Ok((sums.map_err(|e| AgentError::Task(e.to_string()))?, made))
}

/// This site's vector for a secure sum of at least `least` sites, with its share of the noise that the sum then has. Alone it
/// has too little: it must not be seen unmasked. Charged as if the site had added all of it.
pub(super) fn share(
    spec: &SumsSpec,
    privacy: &PrivacySpec,
    dataset: &Dataset,
    (purse, least): (Purse, u32),
    cancelled: &dyn Fn() -> bool,
) -> Result<(Vec<i64>, Made), AgentError> {
    let (values, bound) = priced(spec, privacy, dataset, cancelled)?;
    purse.draw(privacy.event.count(), |token| {
        mechanism::discrete_gaussian_share(&values, bound, least, token).map_err(noise)
    })
}

/// Counts of rows of these numbers.
type CountsOf<'a> = dyn Fn(&[usize]) -> Result<Vec<u64>, AgentError> + 'a;

/// What is counted of some rows, each row at most once in each of `most` counts.
pub(in crate::task) struct Counting<'a> {
    pub(in crate::task) of: &'a CountsOf<'a>,
    pub(in crate::task) most: usize,
}

impl Counting<'_> {
    /// What one unit may move of [`Self::exact`], in L1.
    pub(in crate::task) const fn sensitivity(&self) -> i64 {
        COUNT * self.most as i64
    }

    /// The counts of a data set's test rows without noise, on the grid that the noise is drawn on.
    pub(in crate::task) fn exact(&self, unit: &str, dataset: &Dataset) -> Result<Vec<i64>, AgentError> {
        let (single, several) = by_size(dataset, unit, Split::Test)?;
        let mut counts: Vec<i64> =
            (self.of)(&single)?.into_iter().map(|count| count as i64 * COUNT).collect();
        for rows in &several {
            // A unit weighs as one row, whatever it has.
            let share = COUNT / rows.len() as i64;
            counts.iter_mut().zip((self.of)(rows)?).for_each(|(sum, count)| *sum += count as i64 * share);
        }
        Ok(counts)
    }
}

/// Counts of how models do on a data set's test rows, with noise on each. The noise grows with the number of counts that a row
/// may be in.
pub(in crate::task) fn noised_counts(
    privacy: &PrivacySpec,
    counting: &Counting<'_>,
    dataset: &Dataset,
    purse: Purse,
) -> Result<(Vec<u64>, Made), AgentError> {
    let counts = counting.exact(&privacy.unit, dataset)?;
    let bound = Sensitivity::new(counting.sensitivity() as f64).map_err(noise)?;
    let (noised, made) = purse.draw(privacy.event.count(), |token| {
        mechanism::discrete_laplace(&counts, bound, token).map_err(noise)
    })?;
    let whole = |count: i64| (count + COUNT / 2).div_euclid(COUNT).max(0) as u64;
    Ok((noised.into_iter().map(whole).collect(), made))
}

/// The figures of a model on a data set's test rows, with noise on every count.
pub(super) fn evaluate(
    spec: &EvaluateSpec,
    privacy: &PrivacySpec,
    model: &[u8],
    opened: &Opened,
    purse: Purse,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Evaluation, Made), AgentError> {
    let weights = weights_of(&spec.sums, model)?;
    let matrix = |rows: &[usize]| {
        let (matrix, ..) = measure_with(&spec.sums, &weights, (&opened.dataset, rows), |_| {}, cancelled)?;
        Ok(matrix.counts().to_vec())
    };
    // A row is in one cell of the matrix.
    let counting = Counting { of: &matrix, most: 1 };
    let (counts, made) = noised_counts(privacy, &counting, &opened.dataset, purse)?;
    let confusion = Confusion::from_counts(spec.sums.encoding.classes.len(), counts)?;
    let evaluation = Evaluation {
        train_rows: 0,
        test_rows: confusion.rows(),
        unknown_class_rows: 0,
        federated: Some(confusion),
        scores: None,
        local: None,
        backend: opened.backend.clone(),
    };
    Ok((evaluation, made))
}

#[cfg(test)]
mod tests;
