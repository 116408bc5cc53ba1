//! FDKT (arXiv 2405.14212): sites write texts under differential privacy, the coordinator filters them and lets its language
//! model write more after their example, sites learn from all of it and say what that is worth.
//!
//! ```text
//! synthesise   sites: texts of every class                                        unless no arm needs them
//!              or seed, vote-1, vote-2, ...: candidates that the sites' records vote for (Private Evolution)
//! refine       nobody is asked: filter, augment, the head of the texts alone
//! transfer     sites: how many test records models of records and texts get right  where the plan measures
//! ```
//!
//! With secure aggregation every vote and the last phase are five stages, each of a secure sum ([`secure`]).

mod augment;
mod evolution;
mod filter;
mod meaning;
mod options;
mod publish;
mod refine;
mod secure;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::{Deserialize, Serialize};
use sheaf_data::Encoding;
use sheaf_proto::{
    BlobId,
    afl::{RELEASE_METRICS, SumsSpec},
    fdkt::{
        Labelled, REFINE, RELEASE_SYNTHETIC, SEED, SYNTHESISE, SynthesiseSpec, TRANSFER, Texts, Transfer,
        TransferSpec, Tuning, VOTE, WORKLOAD,
    },
};
use sheaf_text::from_lines;
use sheaf_transport::identity::SiteName;

pub use self::{
    filter::JudgeUse,
    options::{ClassifierOptions, FdktOptions},
};
use self::{
    options::{Generator, Synthesiser, classes},
    refine::{Contributions, Refined, declared, refine},
};
use super::{
    Answers, Context, Publication, Workload,
    afl::{measures, outcome},
    question,
    secure::condensed,
};
use crate::{
    error::Error,
    privacy::{Privacy, Rounds, Schedule},
    run::{
        event::{Next, PhaseOutput, PhaseSpec},
        plan::Plan,
    },
};

/// Longest answer of a site, bytes.
const ANSWER_LIMIT: u64 = 64 << 20;
/// Longest text, bytes.
const LONGEST_TEXT: usize = 16 << 10;

/// The workload.
pub struct Fdkt;

/// The sites' texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Pool {
    /// What every site wrote.
    Sites(Contributions),
    /// What their records have voted for.
    Voted(BlobId),
}

/// What the last phase gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Worth {
    sites: BTreeMap<SiteName, Transfer>,
    /// Of all sites, where only that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<Transfer>,
}

impl Workload for Fdkt {
    fn schedule(&self, plan: &Plan) -> Result<Schedule, Error> {
        let options = FdktOptions::of(plan)?;
        if options.synthesiser == Synthesiser::PrivateEvolution {
            return Ok(Schedule::Sums { times: u64::from(options.evolution.rounds) });
        }
        let Tuning { epochs, batch, .. } = *options.generator()?.tuning;
        Ok(Schedule::Training(Rounds { batch: batch as u64, epochs: epochs as u64, rounds: 1 }))
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), Error> {
        FdktOptions::of(plan)?;
        super::secure::check_plan(plan)?;
        Encoding::declared(&plan.schema).map(drop).map_err(|e| Error::invalid(e.to_string()))
    }

    fn next(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Next, Error> {
        let options = FdktOptions::of(context.plan)?;
        let (all, outputs) = (outputs, condensed(outputs));
        match outputs.as_slice() {
            [] if options.evolves() => evolution::ask_seed(context, &options),
            [.., last] if evolution::is_of(last) => {
                match evolution::ask_vote(context, &options, last, all)? {
                    Some(vote) => Ok(vote),
                    None => ask_refinement(context, &options, Some(last)),
                }
            }
            [] if options.synthesises() => ask_texts(context, &options),
            [] => ask_refinement(context, &options, None),
            [pool] if pool.name == SYNTHESISE => ask_refinement(context, &options, Some(pool)),
            [.., refined] if refined.name == REFINE && measures(context.plan) => {
                ask_transfer(context, &options, &outcome(context.blobs, refined)?, all)
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
        let bytes = fs::read(answer)?;
        if secure::is_stage(&phase.name) {
            return super::secure::check_result(context, phase, site, &bytes);
        }
        let refused = |e: &dyn std::fmt::Display| Error::invalid(format!("phase {}: {e}", phase.name));
        match phase.name.as_str() {
            SYNTHESISE => site_texts(context.plan, &bytes).map(drop).map_err(|e| refused(&e)),
            TRANSFER => serde_json::from_slice::<Transfer>(&bytes).map(drop).map_err(|e| refused(&e)),
            vote if vote.starts_with(VOTE) => {
                evolution::check(context, phase, &bytes).map_err(|e| refused(&e))
            }
            other => Err(Error::bug(format!("{WORKLOAD} has no phase `{other}`"))),
        }
    }

    fn reduce(&self, context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
        if secure::is_stage(&answers.phase.name) {
            return secure::reduce(context, answers);
        }
        match answers.phase.name.as_str() {
            SYNTHESISE => {
                Ok(serde_json::to_vec(&Pool::Sites(answers.contributions.iter().cloned().collect()))?)
            }
            SEED => Ok(serde_json::to_vec(&evolution::seed(context)?)?),
            vote if vote.starts_with(VOTE) => Ok(serde_json::to_vec(&evolution::evolve(context, answers)?)?),
            REFINE => {
                let pool = pool_of(context, answers.outputs)?;
                Ok(serde_json::to_vec(&refine(context, pool.as_ref())?)?)
            }
            TRANSFER => {
                let mut sites = BTreeMap::new();
                for (site, blob) in answers.contributions {
                    sites.insert(site.clone(), context.blobs.document(blob)?);
                }
                Ok(serde_json::to_vec(&Worth { sites, total: None })?)
            }
            other => Err(Error::bug(format!("{WORKLOAD} has no phase `{other}`"))),
        }
    }

    fn merged_blobs(&self, context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error> {
        if !context.blobs.contains(&output.output) {
            return Ok(Vec::new());
        }
        if secure::is_stage(&output.name) {
            return secure::merged_blobs(context, output);
        }
        if evolution::is_of(output) {
            let population: evolution::Population = outcome(context.blobs, output)?;
            return Ok(vec![population.candidates]);
        }
        if output.name != REFINE {
            return Ok(Vec::new());
        }
        let refined: Refined = outcome(context.blobs, output)?;
        let head = refined.head.map(|head| head.model);
        Ok(refined.sets.into_values().chain([refined.augmented]).chain(head).collect())
    }

    fn publish(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Publication, Error> {
        let outputs = condensed(outputs);
        let of = |name| outputs.iter().find(|output| output.name == name);
        let refined =
            of(REFINE).ok_or_else(|| Error::bug(format!("{WORKLOAD} publishes what was refined")))?;
        let pool = pool_of(context, &outputs)?;
        let worth = of(TRANSFER).map(|worth| outcome(context.blobs, worth)).transpose()?;
        let sites = match pool {
            Some(Pool::Sites(sites)) => sites,
            _ => Contributions::new(),
        };
        publish::publication(context, sites, &outcome(context.blobs, refined)?, &worth.unwrap_or_default())
    }
}

/// The sites' texts, where they were asked for any.
fn pool_of(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Option<Pool>, Error> {
    if let Some(last) = condensed(outputs).iter().rfind(|output| evolution::is_of(output)) {
        let population: evolution::Population = outcome(context.blobs, last)?;
        return Ok(Some(Pool::Voted(population.candidates)));
    }
    let written = outputs.iter().find(|output| output.name == SYNTHESISE);
    written.map(|pool| outcome(context.blobs, pool)).transpose()
}

fn ask_texts(context: &Context<'_>, options: &FdktOptions) -> Result<Next, Error> {
    let Generator { lora, control, tuning } = options.generator()?;
    let spec = SynthesiseSpec {
        schema: context.plan.schema.clone(),
        model: options.model.clone(),
        model_sha256: options.model_sha256()?,
        adapter: lora.clone(),
        control: control.to_owned(),
        max_tokens: options.max_tokens,
        tuning: tuning.clone(),
        sampling: options.sampling.clone(),
        privacy: context.plan.privacy.as_ref().map(|privacy| privacy.round_spec(1)),
    };
    Ok(Next::Collect(question(context, SYNTHESISE, &spec, Vec::new(), RELEASE_SYNTHETIC, ANSWER_LIMIT)?))
}

/// The specification says what is made, so that another one is another phase.
fn ask_refinement(
    context: &Context<'_>,
    options: &FdktOptions,
    pool: Option<&PhaseOutput>,
) -> Result<Next, Error> {
    let spec = serde_json::json!({
        "arms": options.arms, "about": options.about, "ask": options.ask, "filter": options.filter,
        "augment": options.augment,
    });
    let inputs = pool.map(|pool| pool.output).into_iter().collect();
    ask_nobody(context, REFINE, &spec, inputs)
}

/// A phase whose output the coordinator alone makes.
fn ask_nobody(
    context: &Context<'_>,
    name: &str,
    spec: &impl Serialize,
    inputs: Vec<BlobId>,
) -> Result<Next, Error> {
    let asked = question(context, name, spec, inputs, RELEASE_SYNTHETIC, ANSWER_LIMIT)?;
    Ok(Next::Collect(PhaseSpec { sites: Some(Vec::new()), ..asked }))
}

/// `all` are the finished phases with the stages of secure sums.
fn ask_transfer(
    context: &Context<'_>,
    options: &FdktOptions,
    refined: &Refined,
    all: &[PhaseOutput],
) -> Result<Next, Error> {
    let encoding = declared(context)?;
    let features = options.afl().features(encoding.input_dim());
    let privacy = context.plan.privacy.as_ref().and_then(Privacy::metrics_spec);
    // There is nothing to learn from a set of which nothing is left.
    let some = |texts: &Texts| refined.counts.get(texts).is_some_and(|count| *count > 0);
    let sets: Vec<(Texts, BlobId)> =
        refined.sets.iter().filter(|(texts, _)| some(texts)).map(|(texts, blob)| (*texts, *blob)).collect();
    let spec = TransferSpec {
        sums: SumsSpec { schema: context.plan.schema.clone(), encoding, features, privacy },
        lambda: options.lambda,
        weight: options.private_weight,
        texts: sets.iter().map(|(texts, _)| *texts).collect(),
        task: options.task.clone(),
        classifier: options.classifier()?,
    };
    if spec.models().is_empty() {
        return Ok(Next::Publish);
    }
    let inputs: Vec<BlobId> = sets.into_iter().map(|(_, blob)| blob).collect();
    if context.plan.run.secure_aggregation {
        return secure::ask_transfer(context, &spec, &inputs, (options, all));
    }
    let asked = question(context, TRANSFER, &spec, inputs, RELEASE_METRICS, ANSWER_LIMIT)?;
    Ok(Next::Collect(PhaseSpec { defines_model: false, ..asked }))
}

/// A site's texts; refuses what is none, too long, or of a class that was not asked for.
fn site_texts(plan: &Plan, bytes: &[u8]) -> Result<Vec<Labelled>, Error> {
    let known: BTreeSet<&String> = classes(plan).iter().collect();
    let texts = from_lines(bytes)?;
    for (index, Labelled { text, label }) in texts.iter().enumerate() {
        let bad = |problem: &str| Err(Error::invalid(format!("text {}: {problem}", index + 1)));
        if !known.contains(label) {
            return bad("its class is not one of the plan's");
        }
        if text.is_empty() || text.len() > LONGEST_TEXT {
            return bad(&format!("it must have 1 to {LONGEST_TEXT} bytes"));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests;
