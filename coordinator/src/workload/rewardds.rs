//! RewardDS (EMNLP 2025, arXiv 2502.18517): sites tune a proxy that writes and one that rewards under differential privacy; the
//! coordinator samples from the one, filters and refines with the other, tunes its own language model, and sites measure it.
//!
//! ```text
//! start                     nobody is asked: first parameters are drawn
//! generator-1, -2, ...      sites: the generation proxy
//! reward-1, -2, ...         sites: the reward proxy, with the generation proxy at hand
//! sample                    nobody: queries, candidate responses, their scores
//! tune-unfiltered, ...      nobody: the target on what each arm keeps
//! refine-2, -3, ...         nobody: feedback, revisions, the target on what the reward accepts
//! evaluate                  sites: the target on their test records                        where the plan measures
//! deliver                   sites: they get the target
//! ```
//!
//! With secure aggregation every round of a proxy is five stages, of a secure sum. All that follows the proxies is
//! post-processing: no further phase but `evaluate` is told anything of records.

mod filter;
mod options;
mod proxies;
mod publish;
mod refine;
mod sample;

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use sheaf_proto::{
    BlobId,
    afl::RELEASE_METRICS,
    rewardds::{
        Arm, DeliverSpec, EvaluateSpec, Evaluation, Figures, Measured, RELEASE_PROXIES, Step, WORKLOAD,
    },
};
use sheaf_transport::identity::SiteName;

pub use options::RewarddsOptions;

use self::{filter::TunedArm, options::Proxies, refine::Refined, sample::Sampled};
use super::{
    Answers, Context, Publication, Workload,
    afl::{self, outcome},
    question,
    secure::{self, condensed},
};
use crate::{
    error::Error,
    models::Tools,
    privacy::{Privacy, Schedule},
    run::{
        event::{Next, PhaseOutput, PhaseSpec},
        plan::Plan,
    },
};

/// No sum over a site's test records is larger, noise included.
const MOST_FIGURE: f64 = 1e12;
/// Longest figures of a site, bytes.
const FIGURES_LIMIT: u64 = 1 << 20;

/// The workload.
pub struct Rewardds;

/// What the sites say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Said {
    sites: BTreeMap<SiteName, Evaluation>,
}

impl Workload for Rewardds {
    fn schedule(&self, plan: &Plan) -> Result<Schedule, Error> {
        Ok(RewarddsOptions::of(plan)?.schedule())
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), Error> {
        RewarddsOptions::of(plan)?;
        secure::check_plan(plan)
    }

    fn next(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Next, Error> {
        let options = RewarddsOptions::of(context.plan)?;
        let (all, outputs) = (outputs, condensed(outputs));
        let last = outputs.last().map(|output| step(&output.name)).transpose()?;
        let from = (outputs.as_slice(), all);
        match last {
            None => ask_nobody(context, Step::Start, &options.generator()?, &[]),
            Some(Step::Start) => proxies::ask_generator(context, &options, 1, from),
            Some(Step::Generator(round)) if round < options.generator.rounds => {
                proxies::ask_generator(context, &options, round + 1, from)
            }
            Some(Step::Generator(_)) => proxies::ask_reward(context, &options, 1, from),
            Some(Step::Reward(round)) if round < options.reward.rounds => {
                proxies::ask_reward(context, &options, round + 1, from)
            }
            Some(Step::Deliver) => Ok(Next::Publish),
            Some(Step::Evaluate) => ask_delivery(context, &options, &outputs),
            Some(done) => match after(&options, done) {
                Some(next) => {
                    let spec = serde_json::json!({
                        "queries": options.queries, "filter": options.filter, "refine": options.refine,
                        "target": options.target()?, "learning_rate": options.target.learning_rate,
                    });
                    ask_nobody(context, next, &spec, &outputs)
                }
                None if options.target.kind == options::Kind::Hosted => Ok(Next::Publish),
                None if measures(context.plan) => ask_evaluation(context, &options, &outputs),
                None => ask_delivery(context, &options, &outputs),
            },
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
        if sheaf_proto::secure::parse(&phase.name).is_some() {
            return secure::check_result(context, phase, site, &bytes);
        }
        let refused = |e: &dyn std::fmt::Display| Error::invalid(format!("phase {}: {e}", phase.name));
        match step(&phase.name)? {
            Step::Generator(_) | Step::Reward(_) => {
                proxies::check(context, phase, &bytes).map_err(|e| refused(&e))
            }
            Step::Evaluate => check_evaluation(context, phase, &bytes).map_err(|e| refused(&e)),
            Step::Deliver if bytes == b"{}" => Ok(()),
            Step::Deliver => Err(refused(&"nothing was asked for")),
            other => Err(Error::bug(format!("phase {other} asks no site"))),
        }
    }

    fn reduce(&self, context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
        let outputs = condensed(answers.outputs);
        if let Some((base, _)) = sheaf_proto::secure::parse(&answers.phase.name) {
            let (Step::Generator(round) | Step::Reward(round)) = step(base)? else {
                return Err(Error::bug(format!("phase {base} is not summed")));
            };
            let answers = Answers { outputs: &outputs, ..*answers };
            return proxies::reduce_stage(context, &answers, round);
        }
        if let Some(again) = self.made_before(context, answers)? {
            return Ok(again);
        }
        let document = match step(&answers.phase.name)? {
            Step::Start => serde_json::to_vec(&proxies::start(context)?),
            Step::Generator(round) | Step::Reward(round) => {
                serde_json::to_vec(&proxies::reduce(context, answers, round)?)
            }
            Step::Sample => serde_json::to_vec(&sample::sample(context, &outputs)?),
            Step::Tune(arm) => serde_json::to_vec(&filter::tune_arm(context, &outputs, arm)?),
            Step::Refine(round) => serde_json::to_vec(&refine::refine(context, &outputs, round)?),
            Step::Evaluate => {
                let mut sites = BTreeMap::new();
                for (site, blob) in answers.contributions {
                    sites.insert(site.clone(), context.blobs.document(blob)?);
                }
                serde_json::to_vec(&Said { sites })
            }
            Step::Deliver => serde_json::to_vec(&serde_json::json!({})),
        };
        Ok(document?)
    }

    fn merged_blobs(&self, context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error> {
        if !context.blobs.contains(&output.output) {
            return Ok(Vec::new());
        }
        let of_sum = secure::merged_blobs(context, output)?;
        let condensed = condensed(std::slice::from_ref(output));
        let Some(whole) = condensed.first() else { return Ok(of_sum) };
        let of = |tuned: TunedArm| {
            let pool = tuned.pool.into_iter().flat_map(|pool| [pool.state, pool.lines]);
            tuned.adapter.into_iter().chain(pool).collect::<Vec<_>>()
        };
        let merged = match step(&whole.name)? {
            Step::Generator(_) | Step::Reward(_) => proxies::merged(context, whole)?,
            Step::Sample => vec![outcome::<Sampled>(context.blobs, whole)?.queries],
            Step::Tune(_) => of(outcome(context.blobs, whole)?),
            Step::Refine(_) => of(outcome::<Refined>(context.blobs, whole)?.tuned),
            Step::Start | Step::Evaluate | Step::Deliver => Vec::new(),
        };
        Ok(of_sum.into_iter().chain(merged).collect())
    }

    fn publish(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Publication, Error> {
        publish::publish(context, &condensed(outputs))
    }
}

impl Rewardds {
    /// What the coordinator has made of the same question before, where all of it is still there: a run that goes on after it was
    /// stopped does none of its hours again.
    fn made_before(&self, context: &Context<'_>, answers: &Answers<'_>) -> Result<Option<Vec<u8>>, Error> {
        let Some(before) = answers.previous.filter(|_| answers.phase.asks_nobody()) else { return Ok(None) };
        if !context.blobs.contains(&before.output) {
            return Ok(None);
        }
        let parts = self.merged_blobs(context, before)?;
        if parts.iter().all(|part| context.blobs.contains(part)) {
            return context.blobs.get(&before.output).map(Some);
        }
        Ok(None)
    }
}

/// The phase of the coordinator alone that follows, if there is one left.
fn after(options: &RewarddsOptions, done: Step) -> Option<Step> {
    let filters = options.filters();
    let refine =
        |round: u32| (options.refines() && round <= options.refine.rounds).then_some(Step::Refine(round));
    match done {
        Step::Reward(_) => Some(Step::Sample),
        Step::Sample => filters.first().map(|arm| Step::Tune(*arm)).or_else(|| refine(2)),
        Step::Tune(arm) => {
            let next = filters.iter().skip_while(|other| **other != arm).nth(1);
            next.map(|arm| Step::Tune(*arm)).or_else(|| refine(2))
        }
        Step::Refine(round) => refine(round + 1),
        Step::Start | Step::Generator(_) | Step::Evaluate | Step::Deliver => None,
    }
}

/// Whether sites measure the target: exact figures of a site, or paid-for ones.
fn measures(plan: &Plan) -> bool {
    afl::measures(plan) && !plan.run.secure_aggregation
}

fn step(name: &str) -> Result<Step, Error> {
    Step::parse(name).ok_or_else(|| Error::bug(format!("{WORKLOAD} has no phase `{name}`")))
}

/// Models and the like; a phase of the coordinator alone has them.
fn tools<'a>(context: &Context<'a>) -> Result<&'a Tools<'a>, Error> {
    context.tools.ok_or_else(|| Error::bug("the coordinator's own phase has no models"))
}

/// A phase whose output the coordinator alone makes, of what is before it.
fn ask_nobody(
    context: &Context<'_>,
    step: Step,
    spec: &impl Serialize,
    outputs: &[PhaseOutput],
) -> Result<Next, Error> {
    // Of what it makes it: another answer of a site before it is another phase.
    let inputs = outputs.last().map(|output| output.output).into_iter().collect();
    let asked = question(context, &step.to_string(), spec, inputs, RELEASE_PROXIES, FIGURES_LIMIT)?;
    Ok(Next::Collect(PhaseSpec { sites: Some(Vec::new()), ..asked }))
}

/// The adapter of each arm that the target was tuned as; none for [`Arm::Untuned`].
fn adapters(
    context: &Context<'_>,
    options: &RewarddsOptions,
    outputs: &[PhaseOutput],
) -> Result<Vec<(Arm, Option<BlobId>)>, Error> {
    let mut tuned: BTreeMap<Arm, BlobId> = BTreeMap::new();
    for output in outputs {
        let arm: TunedArm = match step(&output.name)? {
            Step::Tune(_) => outcome(context.blobs, output)?,
            Step::Refine(_) => outcome::<Refined>(context.blobs, output)?.tuned,
            _ => continue,
        };
        tuned.extend(arm.adapter.map(|adapter| (arm.arm, adapter)));
    }
    let of = |arm: &Arm| match arm {
        Arm::Untuned => Some((*arm, None)),
        arm => tuned.get(arm).map(|adapter| (*arm, Some(*adapter))),
    };
    Ok(Arm::ALL.iter().filter(|arm| options.arms.contains(arm)).filter_map(of).collect())
}

/// Brings the sites the target of the arm that the run is about.
fn ask_delivery(
    context: &Context<'_>,
    options: &RewarddsOptions,
    outputs: &[PhaseOutput],
) -> Result<Next, Error> {
    let target = options.target()?.ok_or_else(|| Error::bug("a hosted target is brought"))?;
    let last = adapters(context, options, outputs)?.into_iter().rev().find_map(|(arm, a)| Some((arm, a?)));
    let Some((arm, adapter)) = last else { return Ok(Next::Publish) };
    let name = Step::Deliver.to_string();
    let spec = DeliverSpec { target, arm };
    let asked = question(context, &name, &spec, vec![adapter], RELEASE_PROXIES, FIGURES_LIMIT)?;
    Ok(Next::Collect(PhaseSpec { defines_model: false, ..asked }))
}

fn ask_evaluation(
    context: &Context<'_>,
    options: &RewarddsOptions,
    outputs: &[PhaseOutput],
) -> Result<Next, Error> {
    let target = options.target()?.ok_or_else(|| Error::bug("a hosted target is measured"))?;
    let adapters = adapters(context, options, outputs)?;
    let measured = Measured { reward: options.reward()?, generator: options.generator()? };
    let spec = EvaluateSpec {
        schema: context.plan.schema.clone(),
        target,
        arms: adapters.iter().map(|(arm, _)| *arm).collect(),
        reward: Some(measured),
        records: options.measured_records,
        privacy: context.plan.privacy.as_ref().and_then(Privacy::metrics_spec),
    };
    let (shared, site_inputs) = proxies::as_inputs(&proxies::finished(context, outputs)?);
    let inputs = adapters.into_iter().filter_map(|(_, adapter)| adapter).chain(shared).collect();
    let sites = match options.proxies {
        Proxies::PerSite => {
            let with = context.members.iter().filter(|site| site_inputs.contains_key(*site));
            Some(with.cloned().collect())
        }
        Proxies::Shared => None,
    };
    let name = Step::Evaluate.to_string();
    let asked = question(context, &name, &spec, inputs, RELEASE_METRICS, FIGURES_LIMIT)?;
    Ok(Next::Collect(PhaseSpec { defines_model: false, sites, site_inputs, ..asked }))
}

/// Refuses figures that cannot be.
fn check_evaluation(context: &Context<'_>, phase: &PhaseSpec, bytes: &[u8]) -> Result<(), Error> {
    let spec: EvaluateSpec = context.blobs.document(&phase.spec)?;
    let said: Evaluation = serde_json::from_slice(bytes).map_err(|e| Error::invalid(e.to_string()))?;
    let counts = |figures: &Figures| {
        let more = [figures.rouge_1, figures.rouge_2, figures.words, figures.passed];
        [figures.nll, figures.rouge_l].into_iter().chain(more.into_iter().flatten()).collect::<Vec<_>>()
    };
    let all = said.arms.values().flat_map(counts).chain([said.rows]);
    let pairs = said.pairs.iter().flat_map(|pairs| [pairs.rows, pairs.right]);
    if all.chain(pairs).any(|value| !(0.0..=MOST_FIGURE).contains(&value)) {
        return Err(Error::invalid(format!("a figure is no number of at least 0 and at most {MOST_FIGURE}")));
    }
    let shares = said.pairs.iter().filter_map(|pairs| pairs.by_pair).flatten();
    if shares.into_iter().any(|share| share.right > share.of || share.of as f64 > said.rows) {
        return Err(Error::invalid("more pairs are right, or judged, than there are records"));
    }
    if spec.privacy.is_none() {
        let more = |figures: &Figures| {
            let shares = [Some(figures.rouge_l), figures.rouge_1, figures.rouge_2, figures.passed];
            let most = said.rows * (1.0 + 1e-9);
            shares.into_iter().flatten().any(|sum| sum > most) || figures.nll > 1e3 * most
        };
        if said.arms.values().any(more) {
            return Err(Error::invalid("a figure is more than so many records can have"));
        }
    }
    if let Some(arm) = said.arms.keys().find(|arm| !spec.arms.contains(arm)) {
        return Err(Error::invalid(format!("figures of {} were not asked for", arm.name())));
    }
    if said.rows > 0.0 && said.arms.len() != spec.arms.len() {
        return Err(Error::invalid("figures of some arms are missing"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
