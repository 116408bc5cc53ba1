//! The sums phase as a secure sum: the coordinator learns the total of all sites' sums alone, and from it makes the
//! model that it would have made of the single ones, to the bit.

use std::path::Path;

use serde::Serialize;
use sheaf_analytic::{Sums, SumsShape, codec, solve};
use sheaf_proto::{
    BlobId,
    afl::{RELEASE_SUMS, SUMS, SumsSpec},
    model::write_model,
    secure::parse,
};
use sheaf_secagg::Stage;
use sheaf_transport::identity::SiteName;

use super::{AflOptions, SumsOutcome, shape};
use crate::{
    error::Error,
    run::{
        event::{Next, PhaseOutput, PhaseSpec},
        plan::Plan,
    },
    workload::{
        Answers, Context, SitePublication,
        secure::{self, Progress, SecureSum, StageOutcome},
    },
};

/// A sum over all sites goes no further.
const LARGEST_SUM: u64 = 1 << 62;

/// What the last stage gives: the sum's own outcome and the model in one document.
#[derive(Serialize)]
struct Opened {
    #[serde(flatten)]
    stage: StageOutcome,
    #[serde(flatten)]
    sums: SumsOutcome,
}

/// Refuses a plan under which a sum would be one site's.
pub(super) fn check_plan(plan: &Plan) -> Result<(), Error> {
    let run = &plan.run;
    if !run.secure_aggregation {
        return Ok(());
    }
    if run.quorum.is_some_and(|quorum| quorum < 2) || run.sites.as_ref().is_some_and(|sites| sites.len() < 2)
    {
        return Err(Error::invalid(
            "[run] secure_aggregation needs at least 2 sites, in sites and in quorum: the sum of one site is its sums",
        ));
    }
    if run.max_site_rows == 0 {
        return Err(Error::invalid("[run] max_site_rows must be at least 1"));
    }
    Ok(())
}

/// Whether a phase is a stage of the secure sum.
pub(super) fn is_stage(name: &str) -> bool {
    matches!(parse(name), Some((SUMS, _)))
}

/// The finished phases with a secure sum as one of them: its last stage, whose outcome reads as that of the sums.
pub(super) fn condensed(outputs: &[PhaseOutput]) -> Vec<PhaseOutput> {
    let is_done =
        |output: &&PhaseOutput| !matches!(parse(&output.name), Some((_, stage)) if stage < Stage::Unmask);
    outputs.iter().filter(is_done).cloned().collect()
}

/// Asks for the next stage; `outputs` are all finished phases.
pub(super) fn ask(context: &Context<'_>, spec: &SumsSpec, outputs: &[PhaseOutput]) -> Result<Next, Error> {
    let shape = shape(spec);
    let sites = context.members.len();
    // Who must be in the sum: what the plan says of a phase, never a single site.
    let needed = context.plan.run.quorum.unwrap_or(sites).max(2) as u32;
    let sum = SecureSum {
        base: SUMS,
        spec,
        release: RELEASE_SUMS,
        length: shape.vector_len(),
        max_abs: largest(&shape, context.plan.run.max_site_rows, sites),
        min_cohort: needed,
        min_survivors: needed,
        round: 1,
    };
    match sum.next(context, outputs)? {
        Progress::Ask(phase) => Ok(Next::Collect(phase)),
        Progress::Done(_) => Err(Error::bug("the sums are open and are asked for again")),
    }
}

/// The largest element of a site's vector. Where the plan's rows would not fit, fewer do: a site whose numbers are
/// larger refuses to send them.
fn largest(shape: &SumsShape, max_rows: u64, sites: usize) -> u64 {
    let room = LARGEST_SUM / sites.max(1) as u64;
    shape.vector_bound(max_rows).map_or(room, |bound| bound.min(room))
}

pub(super) fn check_result(
    context: &Context<'_>,
    phase: &PhaseSpec,
    site: &SiteName,
    answer: &Path,
) -> Result<(), Error> {
    secure::check_result(context, phase, site, &std::fs::read(answer)?)
}

pub(super) fn reduce(context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
    let stage = secure::reduce(context, answers)?;
    match stage.opened(context)? {
        None => Ok(serde_json::to_vec(&stage)?),
        Some(opened) => {
            // The stage beside it is not looked at.
            let spec: SumsSpec = serde_json::from_slice(&context.blobs.get(&answers.phase.spec)?)?;
            let sums = model(context, &spec, opened)?;
            Ok(serde_json::to_vec(&Opened { stage, sums })?)
        }
    }
}

fn model(context: &Context<'_>, spec: &SumsSpec, opened: secure::Opened) -> Result<SumsOutcome, Error> {
    let shape = shape(spec);
    let untrue = |e: &dyn std::fmt::Display| {
        Error::invalid(format!(
            "the total of the sites' sums cannot be: {e}. One of the sites sent a false vector, and secure aggregation \
             hides which; find out with a run without it, or withdraw sites"
        ))
    };
    let sums = Sums::from_vector(&shape, opened.values).map_err(|e| untrue(&e))?;
    sums.validate(shape.max_abs).map_err(|e| untrue(&e))?;
    let lambda = AflOptions::of(context.plan)?.lambda;
    let weights = solve(&sums, lambda).map_err(|e| Error::invalid(e.to_string()))?;
    let model = write_model(&weights, &spec.features).map_err(|e| Error::bug(e.to_string()))?;
    Ok(SumsOutcome {
        model: context.blobs.put(&model)?,
        weight_sha256: weights.sha256(),
        merged: context.blobs.put(&codec::encode(&sums))?,
        contributions: Vec::new(),
        rows: sums.rows(),
        summed: opened.sites,
    })
}

pub(super) fn merged_blobs(context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error> {
    secure::merged_blobs(context, output)
}

/// What is published of a site whose sums nobody has seen.
pub(super) fn unseen(metrics: crate::report::SiteMetrics) -> SitePublication {
    SitePublication { rows: 0, class_counts: Vec::new(), metrics }
}
