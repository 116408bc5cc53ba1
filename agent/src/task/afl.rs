//! AFL at the site: survey, exact sums, evaluation (spec: `sheaf_proto::afl`).

pub(in crate::task) mod private;
pub(in crate::task) mod secure;

use std::time::Instant;

use serde::Deserialize;
use sheaf_analytic::{
    Featurizer, GramAccumulator, Sums, SumsShape, Weights, codec,
    metrics::{Confusion, ScoreHistogram},
    scores, solve,
};
use sheaf_data::{Dataset, ROW_UNIT, Schema, Source, Split, survey};
use sheaf_proto::{
    afl::{
        EVALUATE, EvaluateSpec, Evaluation, RELEASE_METRICS, RELEASE_STATISTICS, RELEASE_SUMS, SUMS, SURVEY,
        SumsSpec, SurveySpec,
    },
    model::read_model,
};

use super::{Assignment, Resources, Workload, parse, to_json};
use crate::{
    egress::{Answer, Made, Private},
    error::AgentError,
    features::{self, Opened},
};

/// Rows encoded at a time: what bounds memory beside the records themselves.
const BLOCK: usize = 1024;

/// The workload.
pub struct Afl;

impl Workload for Afl {
    fn columns(&self, assignment: &Assignment) -> Result<Vec<String>, AgentError> {
        // Every specification of this workload carries the schema under this name.
        #[derive(Deserialize)]
        struct Reading {
            schema: Schema,
        }
        let Reading { schema } = parse(&assignment.spec)?;
        let unit = self.privacy(assignment)?.map(|privacy| privacy.unit).filter(|unit| unit != ROW_UNIT);
        // Texts have their id in any case.
        let unit = unit.filter(|unit| !schema.columns().contains(unit) && schema.target.is_some());
        Ok(schema.columns().into_iter().chain(unit).collect())
    }

    fn perform(
        &self,
        assignment: &Assignment,
        source: &Source,
        resources: &Resources<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Answer, AgentError> {
        if let Some(stage) = secure::stage(&assignment.phase) {
            return secure::perform(assignment, stage, source, resources, cancelled);
        }
        let began = Instant::now();
        let (kind, bytes, made) = match assignment.phase.as_str() {
            SURVEY => {
                let spec: SurveySpec = parse(&assignment.spec)?;
                let opened = features::open(source, &spec.schema, resources, cancelled)?;
                let survey = survey(&opened.dataset, &spec.schema, spec.moments)?;
                (RELEASE_STATISTICS, to_json(&survey)?, Made::OfRows(survey.rows_train))
            }
            SUMS => {
                let spec: SumsSpec = parse(&assignment.spec)?;
                let opened = features::open(source, &spec.schema, resources, cancelled)?;
                let (bytes, made) = if let Some(privacy) = &spec.privacy {
                    private::sums(&spec, privacy, &opened.dataset, resources.purse()?, cancelled)?
                } else {
                    let sums = sums(&spec, &opened.dataset, cancelled)?;
                    (codec::encode(&sums), Made::OfRows(sums.rows()))
                };
                (RELEASE_SUMS, bytes, made)
            }
            EVALUATE => {
                let spec: EvaluateSpec = parse(&assignment.spec)?;
                let model = assignment
                    .inputs
                    .first()
                    .ok_or_else(|| AgentError::Task("the evaluation came without a model".to_owned()))?;
                let opened = features::open(source, &spec.sums.schema, resources, cancelled)?;
                let (evaluation, made) = if let Some(privacy) = &spec.sums.privacy {
                    private::evaluate(&spec, privacy, model, &opened, resources.purse()?, cancelled)?
                } else {
                    let figures = evaluate(&spec, model, &opened, assignment.min_rows, cancelled)?;
                    let rows = Made::OfRows(figures.train_rows);
                    (figures, rows)
                };
                (RELEASE_METRICS, to_json(&evaluation)?, made)
            }
            other => {
                return Err(AgentError::Task(format!("AFL has no phase \"{other}\"; a newer version may")));
            }
        };
        Ok(Answer { kind, bytes: Private::new(bytes), seconds: made.seconds(began), made })
    }
}

/// The exact sums of a data set's training rows.
pub fn sums(spec: &SumsSpec, dataset: &Dataset, cancelled: &dyn Fn() -> bool) -> Result<Sums, AgentError> {
    let featurizer = Featurizer::new(&spec.features)?;
    let shape = SumsShape::of(&spec.features, spec.encoding.classes.len());
    let mut accumulator = GramAccumulator::new(shape.dim, shape.classes, shape.bits, shape.max_abs)?;
    let rows = dataset.rows(Split::Train);
    for block in rows.chunks(BLOCK) {
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
        let (q, labels) = rows_of(spec, &featurizer, dataset, block)?;
        if labels.len() < block.len() && spec.schema.declared.is_none() {
            return Err(AgentError::Data(
                "a training row has a class that the survey did not count; did the data change during the run?"
                    .to_owned(),
            ));
        }
        accumulator.push(&q, &labels)?;
    }
    Ok(accumulator.finish())
}

/// Quantised rows with their classes; rows of a class that the encoding does not know are left out.
fn rows_of(
    spec: &SumsSpec,
    featurizer: &Featurizer,
    dataset: &Dataset,
    rows: &[usize],
) -> Result<(Vec<f64>, Vec<u32>), AgentError> {
    let labels = spec.encoding.labels(dataset, rows)?;
    let (known, labels): (Vec<usize>, Vec<u32>) =
        rows.iter().zip(labels).filter_map(|(row, label)| Some((*row, label?))).unzip();
    let inputs = spec.encoding.inputs(dataset, &known)?;
    Ok((featurizer.quantise(&inputs, known.len())?, labels))
}

/// Measures weights on a data set's test rows: confusion matrix, score histogram (two classes), rows left out.
pub fn measure(
    spec: &SumsSpec,
    weights: &Weights,
    dataset: &Dataset,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Confusion, Option<ScoreHistogram>, u64), AgentError> {
    measure_with(spec, weights, (dataset, &dataset.rows(Split::Test)), |_| {}, cancelled)
}

/// The same of these rows, with a change to each row's scores that keeps their order.
pub(super) fn measure_with(
    spec: &SumsSpec,
    weights: &Weights,
    (dataset, rows): (&Dataset, &[usize]),
    change: impl Fn(&mut [f64]),
    cancelled: &dyn Fn() -> bool,
) -> Result<(Confusion, Option<ScoreHistogram>, u64), AgentError> {
    let featurizer = Featurizer::new(&spec.features)?;
    let classes = spec.encoding.classes.len();
    let mut confusion = Confusion::new(classes);
    let mut histogram = (classes == 2).then(ScoreHistogram::new);
    let mut unknown = 0;
    for block in rows.chunks(BLOCK) {
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
        let inputs = spec.encoding.inputs(dataset, block)?;
        let mut scores =
            scores(&featurizer.quantise(&inputs, block.len())?, block.len(), weights, spec.features.bits)?;
        scores.chunks_exact_mut(classes).for_each(&change);
        for (row, label) in scores.chunks_exact(classes).zip(spec.encoding.labels(dataset, block)?) {
            let Some(label) = label else {
                unknown += 1;
                continue;
            };
            confusion.record_scores(row, &[label])?;
            if let (Some(histogram), [zero, one]) = (&mut histogram, row) {
                histogram.record(label, [*zero, *one])?;
            }
        }
    }
    Ok((confusion, histogram, unknown))
}

/// Measures the federated weights on the test rows and beside them the site's own, where it has any. Figures of a handful of
/// test rows would be figures of persons: below the site's limit there are none.
pub(super) fn compare(
    dataset: &Dataset,
    min_rows: u64,
    federated: &Weights,
    own: impl FnOnce() -> Result<Option<Weights>, AgentError>,
    measure: impl Fn(&Weights) -> Result<(Confusion, Option<ScoreHistogram>, u64), AgentError>,
) -> Result<Evaluation, AgentError> {
    let nothing = Evaluation {
        train_rows: dataset.rows(Split::Train).len() as u64,
        test_rows: 0,
        unknown_class_rows: 0,
        federated: None,
        scores: None,
        local: None,
        backend: None,
    };
    if (dataset.rows(Split::Test).len() as u64) < min_rows.max(1) {
        return Ok(nothing);
    }
    let (federated, scores, unknown_class_rows) = measure(federated)?;
    let local = own()?.map(|own| measure(&own)).transpose()?.map(|(confusion, _, _)| confusion);
    let test_rows = federated.rows();
    Ok(Evaluation { test_rows, unknown_class_rows, federated: Some(federated), scores, local, ..nothing })
}

fn weights_of(spec: &SumsSpec, model: &[u8]) -> Result<Weights, AgentError> {
    read_model(model, &spec.features, spec.encoding.classes.len())
        .map_err(|e| AgentError::Task(e.to_string()))
}

fn evaluate(
    spec: &EvaluateSpec,
    model: &[u8],
    opened: &Opened,
    min_rows: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Evaluation, AgentError> {
    let (dataset, sums_spec) = (&opened.dataset, &spec.sums);
    let weights = weights_of(sums_spec, model)?;
    let own = || {
        let own = || Ok(solve(&sums(sums_spec, dataset, cancelled)?, spec.lambda)?);
        spec.local_baseline.then(own).transpose()
    };
    let measured = |weights: &Weights| measure(sums_spec, weights, dataset, cancelled);
    let figures = compare(dataset, min_rows, &weights, own, measured)?;
    Ok(Evaluation { backend: opened.backend.clone(), ..figures })
}
