//! AFL (CVPR 2025, arXiv 2405.16240) with exact integer sums: survey, sums, one solve, evaluation at the sites. Where the
//! plan declares what the survey would find there is no survey; under `[privacy]` the sums carry noise ([`private`]).

mod options;
mod private;
mod publish;
mod secure;

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use sheaf_analytic::{
    FeatureSpec, Sums, SumsShape, Weights, codec,
    metrics::{Confusion, ScoreHistogram},
    solve,
};
use sheaf_data::{Encoding, Survey};
use sheaf_proto::{
    BlobId,
    afl::{
        EVALUATE, EvaluateSpec, Evaluation, NoisedSums, RELEASE_METRICS, RELEASE_STATISTICS, RELEASE_SUMS,
        SUMS, SURVEY, SumsSpec, SurveySpec,
    },
    model::write_model,
};
use sheaf_transport::identity::SiteName;

pub use self::options::AflOptions;
pub(super) use self::publish::{accuracy, backends, site_metrics};
use super::{Answers, Context, Publication, Workload, question};
use crate::{
    error::Error,
    privacy::{Privacy, Schedule},
    run::{
        event::{Next, PhaseOutput, PhaseSpec},
        plan::Plan,
    },
    store::blobs::BlobStore,
};

/// Bytes of JSON around the numbers of an answer.
const SLACK: u64 = 1 << 20;
/// A survey lists categories and, for wide features, two 128-bit sums a column.
const SURVEY_LIMIT: u64 = 64 << 20;
/// Longest name of a backend, bytes: it goes into the report.
const BACKEND_LENGTH: usize = 100;
/// Feature dimensions beyond this do not fit a coordinator's memory as a matrix.
const MAX_DIM: usize = 16_384;

/// The workload.
pub struct Afl;

/// What the survey phase gives: all that is needed to ask for sums.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SurveyOutcome {
    pub(super) encoding: Encoding,
    pub(super) features: FeatureSpec,
}

/// What the sums phase gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SumsOutcome {
    model: BlobId,
    weight_sha256: String,
    /// The merged sums: what a withdrawal subtracts from.
    merged: BlobId,
    /// Whose sums are in it.
    contributions: Vec<(SiteName, BlobId)>,
    /// None where they are private.
    rows: Option<u64>,
    /// The ridge parameter it was solved with.
    lambda: f64,
    /// Whose sums are in it where they came as one secure sum; there are no contributions then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    summed: Vec<SiteName>,
}

impl SumsOutcome {
    /// Whose sums are in it.
    fn sites(&self) -> impl Iterator<Item = &SiteName> {
        self.contributions.iter().map(|(site, _)| site).chain(&self.summed)
    }
}

/// What the evaluation phase gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EvaluationOutcome {
    pub(super) federated: Option<Confusion>,
    pub(super) scores: Option<ScoreHistogram>,
    pub(super) sites: BTreeMap<SiteName, Evaluation>,
}

impl Workload for Afl {
    fn schedule(&self, _: &Plan) -> Result<Schedule, Error> {
        Ok(Schedule::Sums { times: 1 })
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), Error> {
        super::secure::check_plan(plan)?;
        AflOptions::of(plan).map(|_| ())
    }

    fn next(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Next, Error> {
        let condensed = secure::condensed(outputs);
        let Some((survey, done)) = surveyed(context, &condensed)? else {
            return ask_survey(context, &AflOptions::of(context.plan)?);
        };
        match done {
            [] => ask_sums(context, &survey, outputs),
            [sums] if measures(context.plan) => {
                ask_evaluation(context, survey, &outcome(context.blobs, sums)?, outputs)
            }
            _ => Ok(Next::Publish),
        }
    }

    fn check_result(
        &self,
        context: &Context<'_>,
        phase: &PhaseSpec,
        site: &SiteName,
        answer: &Path,
    ) -> Result<(), Error> {
        if secure::is_stage(&phase.name) {
            return super::secure::check_result(context, phase, site, &fs::read(answer)?);
        }
        let bytes = fs::read(answer)?;
        let refused = |e: &dyn std::fmt::Display| Error::invalid(format!("phase {}: {e}", phase.name));
        match phase.name.as_str() {
            SURVEY => check_survey(&bytes).map_err(|e| refused(&e)),
            SUMS => {
                let spec: SumsSpec = context.blobs.document(&phase.spec)?;
                match &spec.privacy {
                    Some(_) => NoisedSums::decode(&bytes, &shape(&spec)).map(drop).map_err(|e| refused(&e)),
                    None => codec::check(&bytes, &shape(&spec)).map(drop).map_err(|e| refused(&e)),
                }
            }
            EVALUATE => {
                let spec: EvaluateSpec = context.blobs.document(&phase.spec)?;
                let evaluation: Evaluation = serde_json::from_slice(&bytes).map_err(|e| refused(&e))?;
                check_evaluation(&evaluation, spec.sums.encoding.classes.len()).map_err(|e| refused(&e))
            }
            other => Err(Error::bug(format!("AFL has no phase `{other}`"))),
        }
    }

    fn reduce(&self, context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
        if secure::is_stage(&answers.phase.name) {
            return secure::reduce(context, answers);
        }
        match answers.phase.name.as_str() {
            SURVEY => {
                Ok(serde_json::to_vec(&reduce_survey(context, answers, &AflOptions::of(context.plan)?)?)?)
            }
            SUMS => reduce_sums(context, answers),
            EVALUATE => reduce_evaluation(context, answers),
            other => Err(Error::bug(format!("AFL has no phase `{other}`"))),
        }
    }

    fn merged_blobs(&self, context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error> {
        if secure::is_stage(&output.name) {
            return secure::merged_blobs(context, output);
        }
        if output.name == SUMS && context.blobs.contains(&output.output) {
            return Ok(vec![outcome::<SumsOutcome>(context.blobs, output)?.merged]);
        }
        Ok(Vec::new())
    }

    fn publish(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Publication, Error> {
        let condensed = secure::condensed(outputs);
        let Some((survey, [sums, evaluation @ ..])) = surveyed(context, &condensed)? else {
            return Err(Error::bug("AFL publishes after the sums"));
        };
        let evaluation = match evaluation.first() {
            Some(evaluation) => outcome(context.blobs, evaluation)?,
            None => EvaluationOutcome::default(),
        };
        publish::publish(context, &survey, &outcome(context.blobs, sums)?, &evaluation)
    }
}

/// How records become rows, and the phases after that is known: from the survey's answers, or from what the plan declares.
fn surveyed<'a>(
    context: &Context<'_>,
    outputs: &'a [PhaseOutput],
) -> Result<Option<(SurveyOutcome, &'a [PhaseOutput])>, Error> {
    if let Some(encoding) = Encoding::declared(&context.plan.schema)? {
        let options = AflOptions::of(context.plan)?;
        return Ok(Some((SurveyOutcome::of(encoding, &options)?, outputs)));
    }
    match outputs.split_first() {
        Some((survey, outputs)) => Ok(Some((outcome(context.blobs, survey)?, outputs))),
        None => Ok(None),
    }
}

/// Whether the sites measure the model: always, but where noise on the figures would have to be paid for and is not.
pub(super) fn measures(plan: &Plan) -> bool {
    plan.privacy.as_ref().is_none_or(|privacy| privacy.metrics.is_some())
}

impl SurveyOutcome {
    fn of(encoding: Encoding, options: &AflOptions) -> Result<Self, Error> {
        let features = options.features(encoding.input_dim());
        features.validate().map_err(|e| Error::invalid(e.to_string()))?;
        if features.output_dim() > MAX_DIM {
            return Err(Error::invalid(format!(
                "the features have {} columns; the analytic workload takes at most {MAX_DIM}",
                features.output_dim()
            )));
        }
        Ok(Self { encoding, features })
    }
}

pub(super) fn outcome<T: serde::de::DeserializeOwned>(
    blobs: &BlobStore,
    phase: &PhaseOutput,
) -> Result<T, Error> {
    blobs.document(&phase.output)
}

fn shape(spec: &SumsSpec) -> SumsShape {
    SumsShape::of(&spec.features, spec.encoding.classes.len())
}

fn ask(
    context: &Context<'_>,
    name: &str,
    spec: &impl Serialize,
    inputs: Vec<BlobId>,
    release: &str,
    max_result_bytes: u64,
) -> Result<Next, Error> {
    let asked = question(context, name, spec, inputs, release, max_result_bytes)?;
    Ok(Next::Collect(PhaseSpec { defines_model: name != EVALUATE, ..asked }))
}

pub(super) fn ask_survey(context: &Context<'_>, options: &AflOptions) -> Result<Next, Error> {
    let moments = options.standardizes(context.plan);
    let spec = SurveySpec { schema: context.plan.schema.clone(), moments };
    ask(context, SURVEY, &spec, Vec::new(), RELEASE_STATISTICS, SURVEY_LIMIT)
}

fn ask_sums(context: &Context<'_>, survey: &SurveyOutcome, outputs: &[PhaseOutput]) -> Result<Next, Error> {
    let spec = SumsSpec {
        schema: context.plan.schema.clone(),
        encoding: survey.encoding.clone(),
        features: survey.features.clone(),
        privacy: context.plan.privacy.as_ref().map(Privacy::model_spec),
    };
    if context.plan.run.secure_aggregation {
        return secure::ask(context, &spec, outputs);
    }
    let (dim, classes) = (survey.features.output_dim() as u64, survey.encoding.classes.len() as u64);
    // 9 bytes a number is above the worst case of the bit-packed form
    let limit = 9 * (dim * (dim + 1) / 2 + dim * classes + classes) + SLACK;
    ask(context, SUMS, &spec, Vec::new(), RELEASE_SUMS, limit)
}

fn ask_evaluation(
    context: &Context<'_>,
    survey: SurveyOutcome,
    sums: &SumsOutcome,
    outputs: &[PhaseOutput],
) -> Result<Next, Error> {
    let classes = survey.encoding.classes.len() as u64;
    let spec = EvaluateSpec {
        sums: SumsSpec {
            schema: context.plan.schema.clone(),
            encoding: survey.encoding,
            features: survey.features,
            privacy: context.plan.privacy.as_ref().and_then(Privacy::metrics_spec),
        },
        lambda: sums.lambda,
        // A second model of the site's own would have to be paid for, too; its figures are a single site's.
        local_baseline: context.plan.evaluate.local_baseline
            && context.plan.privacy.is_none()
            && !context.plan.run.secure_aggregation,
    };
    if context.plan.run.secure_aggregation {
        return secure::ask_evaluation(context, &spec, sums.model, outputs);
    }
    ask(context, EVALUATE, &spec, vec![sums.model], RELEASE_METRICS, 44 * classes * classes + 4 * SLACK)
}

pub(super) fn check_survey(bytes: &[u8]) -> Result<(), Error> {
    let survey: Survey = serde_json::from_slice(bytes).map_err(|e| Error::invalid(e.to_string()))?;
    survey.check().map_err(|e| Error::invalid(e.to_string()))
}

/// Merges the sites' surveys and decides how records become feature rows.
pub(super) fn reduce_survey(
    context: &Context<'_>,
    answers: &Answers<'_>,
    options: &AflOptions,
) -> Result<SurveyOutcome, Error> {
    let mut merged: Option<Survey> = None;
    for (site, blob) in answers.contributions {
        let survey: Survey = context.blobs.document(blob)?;
        match &mut merged {
            None => merged = Some(survey),
            Some(merged) => merged.merge(&survey).map_err(|e| {
                Error::invalid(format!("the records of site {site} do not go with the others': {e}"))
            })?,
        }
    }
    let merged = merged.ok_or_else(|| Error::bug("a phase closed without an answer"))?;
    let encoding = Encoding::decide(&merged, &context.plan.schema, options.standardizes(context.plan))
        .map_err(|e| Error::invalid(e.to_string()))?;
    SurveyOutcome::of(encoding, options)
}

fn reduce_sums(context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
    let spec: SumsSpec = context.blobs.document(&answers.phase.spec)?;
    let shape = shape(&spec);
    let options = AflOptions::of(context.plan)?;
    let Solved { weights, lambda, merged, rows } = if let Some(privacy) = &spec.privacy {
        private::merge(context, answers, &spec, privacy, &options)?
    } else {
        let sums = merge(context, answers, &shape)?;
        let weights = solve(&sums, options.lambda).map_err(|e| Error::invalid(e.to_string()))?;
        Solved { weights, lambda: options.lambda, merged: codec::encode(&sums), rows: Some(sums.rows()) }
    };
    let model = write_model(&weights, &spec.features).map_err(|e| Error::bug(e.to_string()))?;
    let outcome = SumsOutcome {
        model: context.blobs.put(&model)?,
        weight_sha256: weights.sha256(),
        merged: context.blobs.put(&merged)?,
        contributions: answers.contributions.to_vec(),
        rows,
        lambda,
        summed: Vec::new(),
    };
    Ok(serde_json::to_vec(&outcome)?)
}

/// What the sums give.
struct Solved {
    weights: Weights,
    lambda: f64,
    /// The merged sums as they are kept.
    merged: Vec<u8>,
    rows: Option<u64>,
}

/// The exact sum of all contributions, one in memory at a time. Where the same question was answered before by
/// nearly the same sites, the difference is added and subtracted: integers, so the bits are the same.
fn merge(context: &Context<'_>, answers: &Answers<'_>, shape: &SumsShape) -> Result<Sums, Error> {
    let invalid =
        |site: &SiteName, e: &dyn std::fmt::Display| Error::invalid(format!("sums of site {site}: {e}"));
    let previous: Option<SumsOutcome> = answers
        .previous
        .filter(|previous| context.blobs.contains(&previous.output))
        .map(|previous| outcome(context.blobs, previous))
        .transpose()?;
    let held = previous.as_ref().map_or(&[][..], |p| &p.contributions);
    let added: Vec<_> = answers.contributions.iter().filter(|c| !held.contains(c)).collect();
    let removed: Vec<_> = held.iter().filter(|c| !answers.contributions.contains(c)).collect();
    let mut sums = Sums::zero(shape.dim, shape.classes, shape.bits);
    if let Some(previous) = &previous
        && added.len() + removed.len() < answers.contributions.len()
        && context.blobs.contains(&previous.merged)
        && removed.iter().all(|(_, blob)| context.blobs.contains(blob))
    {
        sums = codec::decode(&context.blobs.get(&previous.merged)?, shape)
            .map_err(|e| Error::corrupt(e.to_string()))?;
        for (site, blob) in removed {
            codec::decode_subtract(&context.blobs.get(blob)?, &mut sums, shape.max_abs)
                .map_err(|e| invalid(site, &e))?;
        }
        for (site, blob) in added {
            codec::decode_add(&context.blobs.get(blob)?, &mut sums, shape.max_abs)
                .map_err(|e| invalid(site, &e))?;
        }
        return Ok(sums);
    }
    for (site, blob) in answers.contributions {
        codec::decode_add(&context.blobs.get(blob)?, &mut sums, shape.max_abs)
            .map_err(|e| invalid(site, &e))?;
    }
    Ok(sums)
}

pub(super) fn check_evaluation(evaluation: &Evaluation, classes: usize) -> Result<(), Error> {
    let confusions = [&evaluation.federated, &evaluation.local];
    for confusion in confusions.into_iter().flatten() {
        if confusion.classes() != classes || confusion.rows() != evaluation.test_rows {
            return Err(Error::invalid(format!(
                "a confusion matrix must be {classes} by {classes} and count {} test rows",
                evaluation.test_rows
            )));
        }
    }
    if evaluation
        .backend
        .as_ref()
        .is_some_and(|name| name.len() > BACKEND_LENGTH || name.chars().any(char::is_control))
    {
        return Err(Error::invalid(format!(
            "the backend's name must have at most {BACKEND_LENGTH} printable bytes"
        )));
    }
    if let Some(scores) = &evaluation.scores
        && scores.rows() != evaluation.test_rows
    {
        return Err(Error::invalid("the score histogram does not count the test rows".to_owned()));
    }
    Ok(())
}

pub(super) fn reduce_evaluation(context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
    let mut sites = BTreeMap::new();
    let (mut federated, mut scores): (Option<Confusion>, Option<ScoreHistogram>) = (None, None);
    for (site, blob) in answers.contributions {
        let evaluation: Evaluation = context.blobs.document(blob)?;
        let invalid = |e: &dyn std::fmt::Display| Error::invalid(format!("figures of site {site}: {e}"));
        if let Some(confusion) = &evaluation.federated {
            match &mut federated {
                None => federated = Some(confusion.clone()),
                Some(sum) => sum.add(confusion).map_err(|e| invalid(&e))?,
            }
        }
        if let Some(histogram) = &evaluation.scores {
            match &mut scores {
                None => scores = Some(histogram.clone()),
                Some(sum) => sum.add(histogram).map_err(|e| invalid(&e))?,
            }
        }
        // The histogram is in the sum; by site only the counts are kept.
        sites.insert(site.clone(), Evaluation { scores: None, ..evaluation });
    }
    Ok(serde_json::to_vec(&EvaluationOutcome { federated, scores, sites })?)
}
