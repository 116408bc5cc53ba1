//! The proxies: drawn, tuned at the sites in rounds, each site's own or one of all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_proto::{
    BlobId,
    fedavg::{Parameters, ParametersFile as _, Tensor, summed},
    privacy::PrivacySpec,
    rewardds::{GeneratorSpec, RELEASE_PROXIES, RewardSpec, Round, Step},
};
use sheaf_secagg::FixedPoint;
use sheaf_transport::identity::SiteName;

use super::{
    options::{Proxies, RewarddsOptions},
    tools,
};
use crate::{
    error::Error,
    privacy::Privacy,
    run::{
        event::{Next, PhaseOutput, PhaseSpec},
        plan::Plan,
    },
    workload::{
        Answers, Context,
        afl::outcome,
        fedavg::average::{Average, check_shapes},
        question,
        secure::{self, SecureSum, StageOutcome},
    },
};

/// Bytes of an answer around its numbers.
const SLACK: u64 = 1 << 20;
/// Parameters beyond this have diverged, as in secure sums.
const LARGEST: f32 = 64.0;
/// What a shared proxy's owner is called.
pub(super) const SHARED: &str = "shared";

/// First parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) generator: BlobId,
    pub(super) reward: BlobId,
}

/// What a round gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tuned {
    /// From 1.
    round: u32,
    /// The mean of all sites' parameters, where there is one proxy of all.
    shared: Option<BlobId>,
    /// Each site's own, and whose are in the mean.
    sites: BTreeMap<SiteName, Option<BlobId>>,
}

/// Both proxies of one owner.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    pub(super) owner: String,
    pub(super) generator: Parameters,
    pub(super) reward: Parameters,
    pub(super) blobs: Start,
}

/// The last stage of a secure round: the sum's own outcome and the round's in one document.
#[derive(Serialize)]
struct Opened {
    #[serde(flatten)]
    stage: StageOutcome,
    #[serde(flatten)]
    tuned: Tuned,
}

/// Draws the first parameters: they hold nothing of records.
pub(super) fn start(context: &Context<'_>) -> Result<Start, Error> {
    let options = RewarddsOptions::of(context.plan)?;
    let models = tools(context)?.models.adapted()?;
    let generator = options.generator()?;
    let drawn = models.first_adapter(&generator.model, &generator.adapter, options.generator.tuning.seed)?;
    let reward = models.first_reward(&generator, &options.reward()?, options.reward.tuning.seed)?;
    Ok(Start { generator: put(context, &drawn)?, reward: put(context, &reward)? })
}

pub(super) fn put(context: &Context<'_>, parameters: &Parameters) -> Result<BlobId, Error> {
    context.blobs.put(&parameters.encode().map_err(|e| Error::bug(e.to_string()))?)
}

pub(super) fn get(context: &Context<'_>, blob: &BlobId) -> Result<Parameters, Error> {
    Parameters::decode(&context.blobs.get(blob)?).map_err(|e| Error::corrupt(e.to_string()))
}

/// The newest round of a proxy; secure sums are condensed.
fn newest(
    context: &Context<'_>,
    outputs: &[PhaseOutput],
    of: fn(u32) -> Step,
) -> Result<Option<Tuned>, Error> {
    let is = |output: &&PhaseOutput| match Step::parse(&output.name) {
        Some(Step::Generator(round)) => of(round) == Step::Generator(round),
        Some(Step::Reward(round)) => of(round) == Step::Reward(round),
        _ => false,
    };
    outputs.iter().rfind(is).map(|output| outcome(context.blobs, output)).transpose()
}

fn begun(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Start, Error> {
    let start = outputs.iter().find(|output| Step::parse(&output.name) == Some(Step::Start));
    outcome(context.blobs, start.ok_or_else(|| Error::bug("a proxy is tuned before it is drawn"))?)
}

/// The price of a round.
fn round(plan: &Plan, number: u32, privacy: impl Fn(&Privacy) -> Option<PrivacySpec>) -> Round {
    let max_rows = u64::from(plan.run.secure_aggregation);
    Round { round: number, max_rows, privacy: plan.privacy.as_ref().and_then(privacy) }
}

/// Asks for a round of the generation proxy. `all` are the finished phases with the stages of secure sums.
pub(super) fn ask_generator(
    context: &Context<'_>,
    options: &RewarddsOptions,
    number: u32,
    (outputs, all): (&[PhaseOutput], &[PhaseOutput]),
) -> Result<Next, Error> {
    let spec = GeneratorSpec {
        schema: context.plan.schema.clone(),
        generator: options.generator()?,
        tuning: options.generator.tuning.clone(),
        round: round(context.plan, number, |privacy| Some(privacy.round_spec(number))),
    };
    let newest = newest(context, outputs, Step::Generator)?.and_then(|tuned| tuned.shared);
    let from = match newest {
        Some(shared) => shared,
        None => begun(context, outputs)?.generator,
    };
    ask(context, (options, all), Step::Generator(number), &spec, &[from], None)
}

/// Asks for a round of the reward proxy.
pub(super) fn ask_reward(
    context: &Context<'_>,
    options: &RewarddsOptions,
    number: u32,
    (outputs, all): (&[PhaseOutput], &[PhaseOutput]),
) -> Result<Next, Error> {
    let spec = RewardSpec {
        schema: context.plan.schema.clone(),
        generator: options.generator()?,
        reward: options.reward()?,
        tuning: options.reward.tuning.clone(),
        // Without noise a record's rounding is the least of what is told.
        alone: options.reward.alone && context.plan.privacy.is_some(),
        round: round(context.plan, number, |privacy| privacy.reward_spec(number)),
    };
    let from = match newest(context, outputs, Step::Reward)?.and_then(|tuned| tuned.shared) {
        Some(shared) => shared,
        None => begun(context, outputs)?.reward,
    };
    let generator = newest(context, outputs, Step::Generator)?
        .ok_or_else(|| Error::bug("a reward is tuned before a generator"))?;
    match generator.shared {
        Some(shared) => ask(context, (options, all), Step::Reward(number), &spec, &[from, shared], None),
        None => ask(context, (options, all), Step::Reward(number), &spec, &[from], Some(generator.sites)),
    }
}

/// `own` are further inputs of single sites, of whom alone it is asked then.
fn ask<S: Serialize>(
    context: &Context<'_>,
    (options, all): (&RewarddsOptions, &[PhaseOutput]),
    step: Step,
    spec: &S,
    inputs: &[BlobId],
    own: Option<BTreeMap<SiteName, Option<BlobId>>>,
) -> Result<Next, Error> {
    let name = step.to_string();
    let first = *inputs.first().ok_or_else(|| Error::bug("a proxy is tuned from nothing"))?;
    if context.plan.run.secure_aggregation {
        let needed = secure::needed(context, context.members.len());
        let number = match step {
            Step::Reward(round) => options.generator.rounds + round,
            Step::Generator(round) => round,
            _ => return Err(Error::bug("only proxies are summed")),
        };
        let sum = SecureSum {
            base: &name,
            spec,
            release: RELEASE_PROXIES,
            length: summed::length(&get(context, &first)?),
            max_abs: summed::bound(1),
            min_cohort: needed,
            min_survivors: needed,
            round: number,
            inputs,
            sites: None,
        };
        return sum.collect(context, all);
    }
    let asked = question(context, &name, spec, inputs.to_vec(), RELEASE_PROXIES, first.size() + SLACK)?;
    let site_inputs: BTreeMap<SiteName, Vec<BlobId>> = own
        .into_iter()
        .flatten()
        .filter(|(site, _)| context.members.contains(site))
        .map(|(site, blob)| (site, blob.into_iter().collect()))
        .collect();
    let sites = (!site_inputs.is_empty()).then(|| site_inputs.keys().cloned().collect());
    let may_miss = options.proxies == Proxies::Shared;
    Ok(Next::Collect(PhaseSpec { may_miss, sites, site_inputs, ..asked }))
}

/// Refuses a proxy of other tensors than those that it was tuned from.
pub(super) fn check(context: &Context<'_>, phase: &PhaseSpec, answer: &[u8]) -> Result<(), Error> {
    let parameters = Parameters::decode(answer).map_err(|e| Error::invalid(e.to_string()))?;
    let start = phase.inputs.first().ok_or_else(|| Error::bug("a proxy is tuned from nothing"))?;
    let start = get(context, start)?;
    let beyond = |tensor: &Tensor| tensor.data.iter().any(|value| value.abs() > LARGEST);
    if let Some((name, _)) = parameters.iter().find(|(_, tensor)| beyond(tensor)) {
        return Err(Error::invalid(format!(
            "tensor {name} has values beyond {LARGEST}: its training has diverged"
        )));
    }
    check_shapes(&parameters, start.iter().map(|(name, tensor)| (name, tensor.shape.as_slice())))
}

/// What a round gives.
pub(super) fn reduce(context: &Context<'_>, answers: &Answers<'_>, number: u32) -> Result<Tuned, Error> {
    let options = RewarddsOptions::of(context.plan)?;
    if options.proxies == Proxies::PerSite {
        let sites = answers.contributions.iter().map(|(site, blob)| (site.clone(), Some(*blob)));
        return Ok(Tuned { round: number, shared: None, sites: sites.collect() });
    }
    let mut average = Average::default();
    for (site, blob) in answers.contributions {
        let of_site =
            |e: Error| Error::invalid(format!("the proxy of site {site} does not go with the others': {e}"));
        average.add(&get(context, blob)?, 1).map_err(of_site)?;
    }
    let mean = average.finish().ok_or_else(|| Error::bug("a round closed without a proxy"))?;
    let sites = answers.contributions.iter().map(|(site, _)| (site.clone(), None)).collect();
    Ok(Tuned { round: number, shared: Some(put(context, &mean)?), sites })
}

/// What a stage of a secure round gives, as a document.
pub(super) fn reduce_stage(
    context: &Context<'_>,
    answers: &Answers<'_>,
    number: u32,
) -> Result<Vec<u8>, Error> {
    let stage = secure::reduce(context, answers)?;
    let Some(opened) = stage.opened(context)? else {
        return Ok(serde_json::to_vec(&stage)?);
    };
    let first =
        match Step::parse(sheaf_proto::secure::parse(&answers.phase.name).map_or("", |(base, _)| base)) {
            Some(Step::Generator(_)) => begun(context, answers.outputs)?.generator,
            _ => begun(context, answers.outputs)?.reward,
        };
    let grid: FixedPoint = summed::grid(1).map_err(|e| Error::bug(e.to_string()))?;
    let untrue = |e| secure::false_total("proxies", e);
    let (mean, _) = summed::mean(&get(context, &first)?, &opened.values, &grid).map_err(untrue)?;
    let sites = opened.sites.into_iter().map(|site| (site, None)).collect();
    let tuned = Tuned { round: number, shared: Some(put(context, &mean)?), sites };
    Ok(serde_json::to_vec(&Opened { stage, tuned })?)
}

/// Blobs in which members' proxies are.
pub(super) fn merged(context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error> {
    let tuned: Tuned = outcome(context.blobs, output)?;
    Ok(tuned.shared.into_iter().collect())
}

/// The finished proxies, by owner.
pub(super) fn finished(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Vec<Pair>, Error> {
    let missing = || Error::bug("there are no proxies to sample from yet");
    let generators = newest(context, outputs, Step::Generator)?.ok_or_else(missing)?;
    let rewards = newest(context, outputs, Step::Reward)?.ok_or_else(missing)?;
    let mut owners: Vec<(String, BlobId, BlobId)> = Vec::new();
    if let (Some(generator), Some(reward)) = (generators.shared, rewards.shared) {
        owners.push((SHARED.to_owned(), generator, reward));
    }
    for (site, reward) in &rewards.sites {
        let generator = generators.sites.get(site).copied().flatten();
        if let (Some(generator), Some(reward)) = (generator, reward) {
            owners.push((site.to_string(), generator, *reward));
        }
    }
    if owners.is_empty() {
        return Err(Error::invalid("no site has sent both of its proxies"));
    }
    let pair = |(owner, generator, reward): (String, BlobId, BlobId)| {
        Ok(Pair {
            owner,
            generator: get(context, &generator)?,
            reward: get(context, &reward)?,
            blobs: Start { generator, reward },
        })
    };
    owners.into_iter().map(pair).collect()
}

/// Each member's proxies as inputs of its own, `[reward, generator]`; one of all as inputs of everybody.
pub(super) fn as_inputs(pairs: &[Pair]) -> (Vec<BlobId>, BTreeMap<SiteName, Vec<BlobId>>) {
    let of = |pair: &Pair| vec![pair.blobs.reward, pair.blobs.generator];
    match pairs {
        [shared] if shared.owner == SHARED => (of(shared), BTreeMap::new()),
        _ => {
            let own = pairs.iter().filter_map(|pair| Some((pair.owner.parse().ok()?, of(pair))));
            (Vec::new(), own.collect())
        }
    }
}
