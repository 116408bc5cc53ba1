//! What texts are worth at a site: task models of its own records, of texts, of both, on its test records.
//!
//! **Claim.** Under `[privacy]` the counts are as private as the ledger's `Event::Laplace` says, add/remove of one privacy unit
//! with all its *test* records.
//!
//! **Why it holds.** What is counted under `[privacy]` has learnt from exchanged texts alone, which are public by then: no
//! record of the site is in such a model. A test record is at most once in the number of records, and at most once in what each
//! model gets right; a unit of several weighs as one. So it moves all counts together by at most one for each of them, which is
//! what the noise is measured against ([`afl::private::Counting`]). A model that has learnt from the site's records is never
//! counted: one training record may turn any number of its answers. What such models do is written into the site's own folder of
//! the run and nowhere else.
//!
//! **Test.** `transfer/tests.rs`.

use std::io::Write as _;

use sheaf_analytic::{Sums, Weights, solve};
use sheaf_data::{Dataset, Source, Split};
use sheaf_proto::{
    afl::SumsSpec,
    fdkt::{Arm, ClassifierSpec, TaskModel, Transfer, TransferSpec},
};
use sheaf_text::from_lines;

use super::{
    super::{Assignment, Resources, afl, parse, to_json},
    classifier::{self, Given},
};
use crate::{egress::Made, error::AgentError, features, models};

/// What the site's own task models are worth, in its folder of the run: exact, of every arm. As [`Transfer`].
const WORTH: &str = "worth.json";

/// A trained task model, as far as a data set's test records go.
struct Model<'a> {
    task: TaskModel,
    arm: Arm,
    says: Says<'a>,
}

/// How a model's classes are known.
enum Says<'a> {
    /// By its head, on the records' feature rows.
    Head(Weights, &'a Dataset),
    /// They are given already.
    Given(Given),
}

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

/// What sets of texts, the inputs, are worth on the site's test records; nothing is measured on fewer than `min_rows`.
pub(super) fn worth(
    spec: &TransferSpec,
    (inputs, min_rows): (&[Vec<u8>], u64),
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Transfer, Made), AgentError> {
    let classifier = check(spec, inputs.len())?;
    let (schema, privacy) = (&spec.sums.schema, spec.sums.privacy.as_ref());
    if classifier.is_some() {
        resources.tell("training task models");
    }
    let records = source.open(schema, resources.assets)?;
    let made = Made::OfRows(records.rows(Split::Train).len() as u64);
    if privacy.is_none() && (records.rows(Split::Test).len() as u64) < min_rows.max(1) {
        return Ok((Transfer::default(), made));
    }
    let features: Dataset;
    let mut models = Vec::new();
    if spec.task.contains(&TaskModel::Analytic) {
        features = features::apply(records.clone(), schema, resources, &mut |_, _| {
            if cancelled() { Err(AgentError::Cancelled) } else { Ok(()) }
        })?
        .dataset;
        let mut sets = Vec::new();
        for input in inputs {
            sets.push(read(input, &spec.sums, resources, cancelled)?);
        }
        let heads = heads(spec, &features, &sets, cancelled)?;
        let model =
            |(arm, weights)| Model { task: TaskModel::Analytic, arm, says: Says::Head(weights, &features) };
        models.extend(heads.into_iter().map(model));
    }
    if let Some(how) = classifier {
        models::check_hash(&how.model, Some(&how.model_sha256))?;
        let language = models::language(&how.model, resources)?;
        let bad = |e| AgentError::Task(format!("the texts cannot be read: {e}"));
        let texts = inputs.iter().map(|input| from_lines(input).map_err(bad));
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        // How long a classifier takes tells how many records it has learnt from.
        let tell = |what: &str| {
            if privacy.is_none() {
                resources.tell(what);
            }
        };
        let given = classifier::given(
            (spec, how),
            &language,
            &records,
            &texts,
            (&tell, &|name| resources.kept(name)),
            cancelled,
        )?;
        let model = |(arm, given)| Model { task: TaskModel::LanguageModel, arm, says: Says::Given(given) };
        models.extend(given.into_iter().map(model));
    }
    let exact =
        answer(&models, &counts(&spec.sums, &models, &records, &records.rows(Split::Test), cancelled)?);
    resources.keep(WORTH, &to_json(&exact)?)?;
    let Some(privacy) = privacy else {
        return Ok((exact, made));
    };
    models.retain(|model| !model.arm.reads_records());
    let counts = |rows: &[usize]| counts(&spec.sums, &models, &records, rows, cancelled);
    let counting = afl::private::Counting { of: &counts, most: models.len() + 1 };
    let (counts, made) = afl::private::noised_counts(privacy, &counting, &records, resources.purse()?)?;
    Ok((answer(&models, &counts), made))
}

/// The classifier, where one is asked for; refuses a task that does not go together.
fn check(spec: &TransferSpec, inputs: usize) -> Result<Option<&ClassifierSpec>, AgentError> {
    if spec.texts.len() != inputs {
        return Err(AgentError::Task(format!(
            "the task names {} sets of texts and comes with {inputs}",
            spec.texts.len()
        )));
    }
    if !spec.task.contains(&TaskModel::LanguageModel) {
        return Ok(None);
    }
    let missing = || AgentError::Task("a language model is asked for, but not how it is tuned".to_owned());
    spec.classifier.as_ref().ok_or_else(missing).map(Some)
}

/// The analytic heads of all arms: of the site's own training records, of these with each set of texts (feature rows), and of each
/// set without a record. For the site itself, and for a simulation's judge.
///
/// # Errors
/// [`AgentError::Task`] for sums that cannot be solved, [`AgentError::Cancelled`].
pub fn heads(
    spec: &TransferSpec,
    own: &Dataset,
    sets: &[Dataset],
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Arm, Weights)>, AgentError> {
    let solved = |sums: &Sums| -> Result<Weights, AgentError> { Ok(solve(sums, spec.lambda)?) };
    let own = afl::sums(&spec.sums, own, cancelled)?;
    let mut heads = vec![(Arm::Local, solved(&own)?)];
    for (texts, set) in spec.texts.iter().zip(sets) {
        let written = afl::sums(&spec.sums, set, cancelled)?;
        let mut both = written.clone();
        for _ in 0..spec.weight {
            both.add(&own)?;
        }
        heads.push((texts.arm(), solved(&both)?));
        heads.push((texts.alone(), solved(&written)?));
    }
    Ok(heads)
}

/// How analytic heads do on the test records of a data set of feature rows, without noise.
///
/// # Errors
/// [`AgentError::Cancelled`], and what is wrong with the records.
pub fn measured(
    spec: &SumsSpec,
    heads: Vec<(Arm, Weights)>,
    features: &Dataset,
    cancelled: &dyn Fn() -> bool,
) -> Result<Transfer, AgentError> {
    let model =
        |(arm, weights)| Model { task: TaskModel::Analytic, arm, says: Says::Head(weights, features) };
    let models: Vec<Model<'_>> = heads.into_iter().map(model).collect();
    Ok(answer(&models, &counts(spec, &models, features, &features.rows(Split::Test), cancelled)?))
}

/// How classes that have been given do on test records, without noise.
///
/// # Errors
/// What is wrong with the records.
pub fn measured_given(
    spec: &SumsSpec,
    given: Vec<(Arm, Given)>,
    records: &Dataset,
) -> Result<Transfer, AgentError> {
    let model = |(arm, given)| Model { task: TaskModel::LanguageModel, arm, says: Says::Given(given) };
    let models: Vec<Model<'_>> = given.into_iter().map(model).collect();
    Ok(answer(&models, &counts(spec, &models, records, &records.rows(Split::Test), &|| false)?))
}

/// Of these rows those of a known class, then how many of them each model gets right: a row is in each of these at most once.
fn counts(
    spec: &SumsSpec,
    models: &[Model<'_>],
    records: &Dataset,
    rows: &[usize],
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u64>, AgentError> {
    let labels = spec.encoding.labels(records, rows)?;
    let right = |model: &Model<'_>| match &model.says {
        Says::Head(weights, features) => {
            let (matrix, ..) = afl::measure_with(spec, weights, (features, rows), |_| {}, cancelled)?;
            Ok(matrix.counts().iter().step_by(matrix.classes() + 1).sum())
        }
        Says::Given(given) => {
            let right = |(row, label): &(&usize, &Option<u32>)| {
                label.is_some_and(|label| given.get(*row) == Some(&(label as usize)))
            };
            Ok(rows.iter().zip(&labels).filter(right).count() as u64)
        }
    };
    let known = labels.iter().flatten().count() as u64;
    [Ok(known)].into_iter().chain(models.iter().map(right)).collect()
}

fn answer(models: &[Model<'_>], counts: &[u64]) -> Transfer {
    let right = models.iter().map(|model| (model.task, model.arm)).zip(counts.iter().skip(1).copied());
    Transfer::of(counts.first().copied().unwrap_or(0), right)
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

#[cfg(test)]
mod tests;
