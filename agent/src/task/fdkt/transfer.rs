//! What texts are worth at a site: task models of its own records, of texts, of both, on its test records.

use std::{collections::BTreeMap, io::Write as _};

use sheaf_analytic::{Sums, Weights, metrics::Confusion, solve};
use sheaf_data::{Dataset, Source, Split};
use sheaf_proto::{
    afl::SumsSpec,
    fdkt::{Arm, Transfer, TransferSpec},
};

use super::super::{Assignment, Resources, afl, parse};
use crate::{egress::Made, error::AgentError, features};

/// Answers the phase.
pub(super) fn transfer(
    assignment: &Assignment,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Transfer, Made), AgentError> {
    let spec: TransferSpec = parse(&assignment.spec)?;
    worth(&spec, (&assignment.inputs, assignment.min_rows), source, resources, cancelled)
}

/// What sets of texts are worth on the site's test records; nothing is measured on fewer than `min_rows`.
pub(super) fn worth(
    spec: &TransferSpec,
    (inputs, min_rows): (&[Vec<u8>], u64),
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Transfer, Made), AgentError> {
    if spec.texts.len() != inputs.len() {
        return Err(AgentError::Task(format!(
            "the task names {} sets of texts and comes with {}",
            spec.texts.len(),
            inputs.len()
        )));
    }
    let opened = features::open(source, &spec.sums.schema, resources, cancelled)?;
    let mut sets = Vec::new();
    for input in inputs {
        sets.push(read(input, &spec.sums, resources, cancelled)?);
    }
    // Every count that a record is in asks for more noise on all: of private ones, what the site would use and no more.
    let alone = spec.sums.privacy.is_none();
    let models = models(spec, &opened.dataset, &sets, alone, cancelled)?;
    let (arms, weights): (Vec<Arm>, Vec<Weights>) = models.into_iter().unzip();
    if let Some(privacy) = &spec.sums.privacy {
        let counting = afl::private::Counting { of: &counts, most: weights.len() + 1 };
        let (counts, made) = afl::private::noised_counts(
            &spec.sums,
            privacy,
            (&weights, &counting),
            &opened.dataset,
            resources.purse()?,
            cancelled,
        )?;
        return Ok((answer(&arms, &counts), made));
    }
    let made = Made::OfRows(opened.dataset.rows(Split::Train).len() as u64);
    if (opened.dataset.rows(Split::Test).len() as u64) < min_rows.max(1) {
        return Ok((Transfer::default(), made));
    }
    Ok((measured(&spec.sums, &arms, &weights, &opened.dataset, cancelled)?, made))
}

/// The task models of all arms: of the site's own training records, and with each set of texts (feature rows) beside them; with
/// `alone` also of each set without a record. For the site itself, and for a simulation's judge.
///
/// # Errors
/// [`AgentError::Task`] for sums that cannot be solved, [`AgentError::Cancelled`].
pub fn models(
    spec: &TransferSpec,
    own: &Dataset,
    sets: &[Dataset],
    alone: bool,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Arm, Weights)>, AgentError> {
    let solved = |sums: &Sums| -> Result<Weights, AgentError> { Ok(solve(sums, spec.lambda)?) };
    let own = afl::sums(&spec.sums, own, cancelled)?;
    let mut models = vec![(Arm::Local, solved(&own)?)];
    for (texts, set) in spec.texts.iter().zip(sets) {
        let written = afl::sums(&spec.sums, set, cancelled)?;
        let mut both = written.clone();
        for _ in 0..spec.weight {
            both.add(&own)?;
        }
        models.push((texts.arm(), solved(&both)?));
        if alone {
            models.push((texts.alone(), solved(&written)?));
        }
    }
    Ok(models)
}

/// How models do on a data set's test records, without noise.
///
/// # Errors
/// [`AgentError::Cancelled`], and what is wrong with the records.
pub fn measured(
    spec: &SumsSpec,
    arms: &[Arm],
    weights: &[Weights],
    dataset: &Dataset,
    cancelled: &dyn Fn() -> bool,
) -> Result<Transfer, AgentError> {
    let matrix = |model: &Weights| afl::measure(spec, model, dataset, cancelled).map(|(matrix, ..)| matrix);
    let matrices = weights.iter().map(matrix).collect::<Result<Vec<_>, _>>()?;
    Ok(answer(arms, &counts(&matrices)))
}

/// Test records, then how many of them each model gets right: a record is in each of these at most once.
fn counts(matrices: &[Confusion]) -> Vec<u64> {
    let right = |matrix: &Confusion| {
        let classes = matrix.classes();
        matrix.counts().iter().step_by(classes + 1).sum()
    };
    matrices.first().map(Confusion::rows).into_iter().chain(matrices.iter().map(right)).collect()
}

fn answer(arms: &[Arm], counts: &[u64]) -> Transfer {
    let rows = counts.first().copied().unwrap_or(0);
    let correct: BTreeMap<Arm, u64> = arms.iter().copied().zip(counts.iter().skip(1).copied()).collect();
    Transfer { rows, correct }
}

/// Texts as feature rows, all of them to learn from.
///
/// # Errors
/// [`AgentError::Task`] where they cannot be kept for reading, and as [`features::open`].
pub fn read(
    texts: &[u8],
    spec: &SumsSpec,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Dataset, AgentError> {
    let file = |e: std::io::Error| AgentError::Task(format!("texts cannot be kept for reading: {e}"));
    let mut kept = tempfile::Builder::new().suffix(".jsonl").tempfile().map_err(file)?;
    kept.write_all(texts).map_err(file)?;
    let source = Source::Text { path: Some(kept.path().to_owned()), asset: None };
    Ok(features::open(&source, &spec.schema, resources, cancelled)?.dataset)
}
