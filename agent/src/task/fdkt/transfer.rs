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

use sheaf_analytic::{Normalize, Sums, Weights, solve};
use sheaf_data::{Dataset, Source, Split};
use sheaf_proto::{
    afl::SumsSpec,
    fdkt::{Arm, ClassifierSpec, TaskModel, Texts, Transfer, TransferSpec},
};
use sheaf_text::from_lines;

use super::{
    super::{Assignment, Resources, afl, parse, to_json},
    classifier::{self, Given},
};
use crate::{egress::Made, error::AgentError, features, models};

/// What the site's own task models are worth, in its folder of the run: exact, of every arm. As [`Transfer`].
const WORTH: &str = "worth.json";

/// The most texts that a record weighs.
const MOST_WEIGHT: u32 = 1000;
/// The most passes that a classifier is trained for.
const MOST_EPOCHS: usize = 1000;

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
    // How long a classifier takes tells how many records it has learnt from.
    let quiet = spec.sums.privacy.is_some();
    let tell = |what: &str| {
        if !quiet {
            resources.tell(what);
        }
    };
    worth(&spec, (&assignment.inputs, assignment.min_rows), source, (resources, &tell), cancelled)
}

/// What sets of texts, the inputs, are worth on the site's test records; nothing is measured on fewer than `min_rows`. `tell` hears
/// how far it is.
pub(super) fn worth(
    spec: &TransferSpec,
    (inputs, min_rows): (&[Vec<u8>], u64),
    source: &Source,
    (resources, tell): (&Resources<'_>, &dyn Fn(&str)),
    cancelled: &dyn Fn() -> bool,
) -> Result<(Transfer, Made), AgentError> {
    let classifier = check(spec, inputs.len())?;
    let (schema, privacy) = (&spec.sums.schema, spec.sums.privacy.as_ref());
    let purse = privacy.map(|_| resources.purse()).transpose()?;
    if let (Some(purse), Some(privacy)) = (&purse, privacy) {
        purse.check(privacy.event.count())?;
    }
    let records = source.open(schema, resources.assets)?;
    let test = records.rows(Split::Test);
    let made = Made::OfRows(records.rows(Split::Train).len() as u64);
    let known = spec.sums.encoding.labels(&records, &test)?.iter().flatten().count() as u64;
    if privacy.is_none() && known < min_rows.max(1) {
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
        let sums = sums_of(spec, &sets, cancelled)?;
        let mut heads = heads_of_texts(spec, &sums)?;
        match heads_with_records(spec, &features, &sums, cancelled) {
            Ok(more) => heads.extend(more),
            // That it fails would say something of the records.
            Err(error) if privacy.is_some() && !matches!(error, AgentError::Cancelled) => {
                tracing::warn!("no head of this site's own records: {error}");
            }
            Err(error) => return Err(error),
        }
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
        let keep = |name: &str| resources.kept(name);
        let job = classifier::Job { spec, how, model: &language, texts: &texts, tell, keep: &keep };
        let given = classifier::given(&job, &records, cancelled)?;
        let model = |(arm, given)| Model { task: TaskModel::LanguageModel, arm, says: Says::Given(given) };
        models.extend(given.into_iter().map(model));
    }
    let exact = answer(&models, &counts(&spec.sums, &models, &records, &test, cancelled)?);
    resources.keep(WORTH, &to_json(&exact)?)?;
    let (Some(privacy), Some(purse)) = (privacy, purse) else {
        return Ok((exact, made));
    };
    models.retain(|model| !model.arm.reads_records());
    let counts = |rows: &[usize]| counts(&spec.sums, &models, &records, rows, cancelled);
    let counting = afl::private::Counting { of: &counts, most: models.len() + 1 };
    let (counts, made) = afl::private::noised_counts(privacy, &counting, &records, purse)?;
    Ok((answer(&models, &counts), made))
}

/// The classifier, where one is asked for; refuses a task that does not go together, whose work has no bound, or that under
/// privacy could fail for what stands in a record.
fn check(spec: &TransferSpec, inputs: usize) -> Result<Option<&ClassifierSpec>, AgentError> {
    let refused = |problem: String| Err(AgentError::Task(problem));
    if spec.texts.len() != inputs {
        return refused(format!("the task names {} sets of texts and comes with {inputs}", spec.texts.len()));
    }
    if !(1..=MOST_WEIGHT).contains(&spec.weight) {
        return refused(format!("a record is to weigh {} texts, it must be 1 to {MOST_WEIGHT}", spec.weight));
    }
    if spec.sums.privacy.is_some() {
        let declared = spec.sums.schema.declared.as_ref().map(|declared| &declared.classes);
        if declared != Some(&spec.sums.encoding.classes) {
            return refused("figures with noise need the classes that the schema declares".to_owned());
        }
        if !(spec.lambda > 0.0 && spec.lambda.is_finite()) {
            return refused("figures with noise need lambda above 0".to_owned());
        }
        if spec.sums.features.normalize == Normalize::None {
            return refused("figures with noise need rows of bounded length".to_owned());
        }
    }
    if !spec.task.contains(&TaskModel::LanguageModel) {
        return Ok(None);
    }
    let Some(classifier) = &spec.classifier else {
        return refused("a language model is asked for, but not how it is tuned".to_owned());
    };
    if classifier.tuning.epochs > MOST_EPOCHS {
        return refused(format!(
            "{} epochs of a classifier; {MOST_EPOCHS} at most",
            classifier.tuning.epochs
        ));
    }
    Ok(Some(classifier))
}

/// Exact sums of each set of texts.
fn sums_of(
    spec: &TransferSpec,
    sets: &[Dataset],
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Texts, Sums)>, AgentError> {
    let sums = |(texts, set): (&Texts, &Dataset)| Ok((*texts, afl::sums(&spec.sums, set, cancelled)?));
    spec.texts.iter().zip(sets).map(sums).collect()
}

/// The heads of each set of texts without a record.
fn heads_of_texts(spec: &TransferSpec, sets: &[(Texts, Sums)]) -> Result<Vec<(Arm, Weights)>, AgentError> {
    sets.iter().map(|(texts, sums)| Ok((texts.alone(), solve(sums, spec.lambda)?))).collect()
}

/// The heads of the site's own training records, and of these with each set of texts.
fn heads_with_records(
    spec: &TransferSpec,
    own: &Dataset,
    sets: &[(Texts, Sums)],
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Arm, Weights)>, AgentError> {
    let own = afl::sums(&spec.sums, own, cancelled)?;
    let mut heads = vec![(Arm::Local, solve(&own, spec.lambda)?)];
    for (texts, written) in sets {
        let mut both = written.clone();
        for _ in 0..spec.weight {
            both.add(&own)?;
        }
        heads.push((texts.arm(), solve(&both, spec.lambda)?));
    }
    Ok(heads)
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
    let sums = sums_of(spec, sets, cancelled)?;
    let mut heads = heads_with_records(spec, own, &sums, cancelled)?;
    heads.extend(heads_of_texts(spec, &sums)?);
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
