//! Rounds as secure sums: the coordinator learns the sum of the sites' parameters, each times its rows, and no site's. Under
//! `[privacy]` every site weighs the same, since its number of records is private.

use serde::Serialize;
use sheaf_proto::{
    BlobId,
    fedavg::{Parameters, ParametersFile as _, RELEASE_UPDATES, RoundSpec, Step, Tensor, summed},
    secure::parse,
};
use sheaf_secagg::FixedPoint;
use sheaf_transport::identity::SiteName;

use super::round::{RoundOutcome, SiteShare, defect};
use crate::{
    error::Error,
    run::{
        event::{Next, PhaseOutput},
        plan::Plan,
    },
    workload::{
        Answers, Context,
        secure::{self, SecureSum, StageOutcome},
    },
};

/// What the last stage of a round gives: the sum's own outcome and the round's in one document.
#[derive(Serialize)]
struct Opened {
    #[serde(flatten)]
    stage: StageOutcome,
    #[serde(flatten)]
    round: RoundOutcome,
}

/// Refuses a plan whose sums would not fit.
pub(super) fn check_plan(plan: &Plan) -> Result<(), Error> {
    if !plan.run.secure_aggregation {
        return Ok(());
    }
    secure::check_plan(plan)?;
    grid(plan).map(drop)
}

/// The grid that sums are on.
fn grid(plan: &Plan) -> Result<FixedPoint, Error> {
    summed::grid(plan.run.max_site_rows).map_err(|e| Error::invalid(format!("[run] max_site_rows: {e}")))
}

/// Whether a phase is a stage of a round's sum.
pub(super) fn is_stage(name: &str) -> bool {
    matches!(parse(name), Some((base, _)) if matches!(Step::parse(base), Some(Step::Round(_))))
}

/// Asks for the next stage of a round; `outputs` are all finished phases.
pub(super) fn ask(
    context: &Context<'_>,
    spec: &RoundSpec,
    start: BlobId,
    sites: Option<Vec<SiteName>>,
    outputs: &[PhaseOutput],
) -> Result<Next, Error> {
    let needed = secure::needed(context, sites.as_ref().map_or(context.members.len(), Vec::len));
    let parameters = Parameters::decode(&context.blobs.get(&start)?).map_err(defect)?;
    let sum = SecureSum {
        base: &Step::Round(spec.round).to_string(),
        spec,
        release: RELEASE_UPDATES,
        length: summed::length(&parameters),
        max_abs: summed::bound(context.plan.run.max_site_rows),
        min_cohort: needed,
        min_survivors: needed,
        round: spec.round,
        inputs: &[start],
        sites,
    };
    sum.collect(context, outputs)
}

pub(super) fn reduce(context: &Context<'_>, answers: &Answers<'_>, start: BlobId) -> Result<Vec<u8>, Error> {
    let stage = secure::reduce(context, answers)?;
    let Some(opened) = stage.opened(context)? else {
        return Ok(serde_json::to_vec(&stage)?);
    };
    let spec: RoundSpec = context.blobs.document(&answers.phase.spec)?;
    let shapes = Parameters::decode(&context.blobs.get(&start)?).map_err(defect)?;
    let untrue = |e| secure::false_total("updates", e);
    let (mean, weight) = summed::mean(&shapes, &opened.values, &grid(context.plan)?).map_err(untrue)?;
    let unseen = SiteShare { rows: None, loss: None };
    let round = RoundOutcome {
        round: spec.round,
        parameters: context.blobs.put(&mean.encode().map_err(defect)?)?,
        sites: opened.sites.into_iter().map(|site| (site, unseen.clone())).collect(),
        total: spec.privacy.is_none().then_some(weight),
    };
    Ok(serde_json::to_vec(&Opened { stage, round })?)
}

/// The parameters that all sites begin with, as each of them draws them from the plan's seed. They hold nothing of records,
/// and must be equal to the bit.
pub(super) fn agreed(answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
    let mut blobs = answers.contributions.iter();
    let (_, first) = blobs.next().ok_or_else(|| Error::bug("a phase closed without an answer"))?;
    if let Some((site, _)) = blobs.find(|(_, blob)| blob != first) {
        return Err(Error::invalid(format!(
            "site {site} draws another first adapter than the others; do all run the same version?"
        )));
    }
    let (round, sites, total) = (0, std::collections::BTreeMap::new(), None);
    Ok(serde_json::to_vec(&RoundOutcome { round, parameters: *first, sites, total })?)
}

/// Refuses first parameters that are no parameters of the plan's adapter.
pub(super) fn check_start(answer: &[u8]) -> Result<(), Error> {
    let parameters = Parameters::decode(answer).map_err(|e| Error::invalid(e.to_string()))?;
    let is_part = |(name, tensor): (&String, &Tensor)| tensor.shape.len() == 2 && name.contains("lora_");
    if parameters.is_empty() || !parameters.iter().all(is_part) {
        return Err(Error::invalid("the first parameters are not those of an adapter"));
    }
    Ok(())
}
