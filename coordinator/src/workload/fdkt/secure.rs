//! Votes and what texts are worth as secure sums: the coordinator learns the totals over all sites alone. Of exact votes it keeps
//! the candidates that it would have kept of the single ones.

use serde::Serialize;
use sheaf_proto::{
    BlobId,
    afl::{RELEASE_METRICS, RELEASE_STATISTICS},
    fdkt::{TRANSFER, TransferSpec, VOTE, VOTE_UNIT, VoteSpec},
    secure::parse,
};
use sheaf_secagg::Stage;

use super::{
    Worth,
    evolution::{self, Population},
    options::FdktOptions,
};
use crate::{
    error::Error,
    run::{
        event::{Next, PhaseOutput},
        plan::Plan,
    },
    workload::{
        Answers, Context,
        afl::outcome,
        secure::{self, NOISED, SecureSum, StageOutcome},
    },
};

/// What the last stage gives: the sum's own outcome and the phase's in one document.
#[derive(Serialize)]
struct Opened<T> {
    #[serde(flatten)]
    stage: StageOutcome,
    #[serde(flatten)]
    outcome: T,
}

/// Whether a phase is a stage of a secure sum.
pub(super) fn is_stage(name: &str) -> bool {
    parse(name).is_some()
}

/// The largest magnitude of a number of votes at one of so many sites. A site refuses to send a larger one, so no total wraps.
fn largest(plan: &Plan, sites: usize) -> u64 {
    let bound = match &plan.privacy {
        // Whether a site has more records than the plan allows would show by its refusal, and is not paid for. One half is for the
        // votes, 2^33 records; the other for the noise: no plan asks for a sigma above 10^6, and 40 of these are a two-hundredth of it.
        Some(_) => NOISED,
        None => plan.run.max_site_rows.saturating_mul(VOTE_UNIT as u64),
    };
    bound.min(secure::room(sites))
}

/// Asks for the next stage of a vote for so many candidates; `outputs` are all finished phases.
pub(super) fn ask_vote(
    context: &Context<'_>,
    spec: &VoteSpec,
    (population, candidates): (&Population, usize),
    outputs: &[PhaseOutput],
) -> Result<Next, Error> {
    let round = population.round + 1;
    // The votes of a class add up to its records, whatever the candidates are: without noise a site that came or went between
    // two votes would show how many it has, and the sites refuse that.
    let same = spec.sums.privacy.is_none() && !population.voters.is_empty();
    let sites = same.then(|| population.voters.clone());
    let asked = sites.as_ref().map_or(context.members.len(), Vec::len);
    let needed = if same { asked.max(2) as u32 } else { secure::needed(context, asked) };
    let sum = SecureSum {
        base: &format!("{VOTE}{round}"),
        spec,
        release: RELEASE_STATISTICS,
        length: candidates as u64,
        max_abs: largest(context.plan, asked),
        min_cohort: needed,
        min_survivors: needed,
        round,
        inputs: &[population.candidates],
        sites,
    };
    sum.collect(context, outputs)
}

/// Asks for the next stage of the sum of what sets of texts, the inputs, are worth.
pub(super) fn ask_transfer(
    context: &Context<'_>,
    spec: &TransferSpec,
    inputs: &[BlobId],
    (options, outputs): (&FdktOptions, &[PhaseOutput]),
) -> Result<Next, Error> {
    let sites = context.members.len();
    let needed = secure::needed(context, sites);
    let sum = SecureSum {
        base: TRANSFER,
        spec,
        release: RELEASE_METRICS,
        length: spec.vector_len() as u64,
        // A handful of counts, of test records that no key of the plan bounds.
        max_abs: secure::room(sites).min(NOISED),
        min_cohort: needed,
        min_survivors: needed,
        round: options.evolution.rounds + 1,
        inputs,
        sites: None,
    };
    sum.collect(context, outputs)
}

pub(super) fn reduce(context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
    let stage = secure::reduce(context, answers)?;
    let Some(opened) = stage.opened(context)? else {
        return Ok(serde_json::to_vec(&stage)?);
    };
    if matches!(parse(&answers.phase.name), Some((TRANSFER, _))) {
        let spec: TransferSpec = context.blobs.document(&answers.phase.spec)?;
        let total = spec.from_vector(&opened.values).map_err(|e| secure::false_total("figures", e))?;
        let outcome = Worth { total: Some(total), ..Worth::default() };
        return Ok(serde_json::to_vec(&Opened { stage, outcome })?);
    }
    let spec: VoteSpec = context.blobs.document(&answers.phase.spec)?;
    if let Some(votes) = opened.values.iter().find(|votes| spec.sums.privacy.is_none() && **votes < 0) {
        return Err(secure::false_total("votes", format!("a candidate has {votes}")));
    }
    let outcome = evolution::grow(context, answers.outputs, &opened.values, opened.sites)?;
    Ok(serde_json::to_vec(&Opened { stage, outcome })?)
}

pub(super) fn merged_blobs(context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error> {
    let mut merged = secure::merged_blobs(context, output)?;
    if let Some((base, Stage::Unmask)) = parse(&output.name)
        && base.starts_with(VOTE)
    {
        merged.push(outcome::<Population>(context.blobs, output)?.candidates);
    }
    Ok(merged)
}
