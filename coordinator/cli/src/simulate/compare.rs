//! What a simulation can measure since it has all rows: the model of all rows in one place, single sites' models on a
//! central test set, and what a workload of many rounds is compared with.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use sheaf_agent::error::AgentError;
use sheaf_coordinator::{
    report::{AttachedEvaluation, Report, bundle::MODEL_FILE},
    run::plan::Plan,
    workload::fedavg::FedavgOptions,
};
use sheaf_proto::{
    BlobId, fdkt::WORKLOAD as FDKT, fedavg::WORKLOAD as FEDAVG, rewardds::WORKLOAD as REWARDDS,
};
use tokio_util::sync::CancellationToken;

use super::{Prepared, judge, outcome::SITES_SHOWN, reward, samples};
use crate::{Cli, client::Operator, output::Steps, predict::Model, reference};

/// What was measured here.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) attached: AttachedEvaluation,
    /// The pooled model's accuracy at each site, in the partition's order.
    pub(super) pooled_at_sites: Vec<Option<f64>>,
}

/// Trains and measures what the report in `out` is compared with. Of an adapter it is shown what the model writes. All of it holds
/// the thread, so that it asks `stop` by itself, if only between its steps, and fails where that is cancelled.
pub(super) async fn compare(
    cli: &Cli,
    plan: &Plan,
    prepared: &Prepared,
    operator: &mut Operator,
    out: &Path,
    steps: &mut Steps,
    stop: &CancellationToken,
) -> Result<Compared> {
    let cancelled = || stop.is_cancelled();
    if plan.run.workload == FDKT {
        let said = read_report(out)?.transfer.map(|transfer| transfer.arms).unwrap_or_default();
        let judged = tokio::task::block_in_place(|| {
            let mut tell = |what: &str, done, of| steps.at(what, done, of, false);
            judge::judge(&cli.assets(), plan, prepared, (out, &said), &mut tell, &cancelled)
        })?;
        let attached = AttachedEvaluation { judged: Some(judged), ..AttachedEvaluation::default() };
        return Ok(Compared { attached, ..Compared::default() });
    }
    if plan.run.workload == REWARDDS {
        let said = read_report(out)?.reward;
        let judged = tokio::task::block_in_place(|| {
            let steps = Mutex::new(&mut *steps);
            let tell = |what: &str, done, of| {
                steps.lock().unwrap_or_else(PoisonError::into_inner).at(what, done, of, false);
            };
            reward::judge(&cli.assets(), plan, prepared, (out, said.as_ref()), &tell, stop)
        })?;
        let attached = AttachedEvaluation { reward: Some(judged), ..AttachedEvaluation::default() };
        return Ok(Compared { attached, ..Compared::default() });
    }
    if !out.join(MODEL_FILE).exists() {
        steps.at("writing with and without the adapter", 0, 0, false);
        let samples = tokio::task::block_in_place(|| {
            samples::write(&cli.assets(), plan, &prepared.dataset, out, &cancelled)
        })?;
        let attached = AttachedEvaluation { samples, ..AttachedEvaluation::default() };
        return Ok(Compared { attached, ..Compared::default() });
    }
    let federated = Model::read(out)?;
    let rounds = if prepared.central_test { measured_rounds(plan, operator, out).await? } else { Vec::new() };
    tokio::task::block_in_place(|| {
        steps.at("training the pooled model to compare with", 0, 0, false);
        let mut compared = classifier(plan, prepared, &federated, steps, stop)?;
        for (round, parameters) in rounds {
            unless(stop)?;
            let accuracy = reference::round_accuracy(&federated, &parameters, prepared.inputs())?;
            compared.attached.rounds.extend(accuracy.map(|accuracy| (round, accuracy)));
        }
        Ok(compared)
    })
}

/// Fails where `stop` is cancelled.
pub(super) fn unless(stop: &CancellationToken) -> Result<()> {
    if stop.is_cancelled() { Err(AgentError::Cancelled.into()) } else { Ok(()) }
}

/// The report as it was fetched.
fn read_report(out: &Path) -> Result<Report> {
    let path = out.join("report.json");
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_slice(&text)?)
}

/// The parameters of the rounds that the plan wants measured.
async fn measured_rounds(plan: &Plan, operator: &mut Operator, out: &Path) -> Result<Vec<(u32, Vec<u8>)>> {
    if plan.run.workload != FEDAVG {
        return Ok(Vec::new());
    }
    let options = FedavgOptions::of(plan)?;
    let report = read_report(out)?;
    let file = out.join("round.safetensors");
    let mut rounds = Vec::new();
    for round in report.rounds.iter().filter(|round| options.is_measured(round.round)) {
        let blob: BlobId = round.parameters.parse()?;
        operator.blobs.download(blob, &file).await?;
        rounds.push((round.round, fs::read(&file).with_context(|| file.display().to_string())?));
        fs::remove_file(&file).with_context(|| file.display().to_string())?;
    }
    Ok(rounds)
}

fn classifier(
    plan: &Plan,
    prepared: &Prepared,
    federated: &Model,
    steps: &mut Steps,
    stop: &CancellationToken,
) -> Result<Compared> {
    let rounds = plan.run.workload == FEDAVG;
    let (dataset, sites) = (prepared.inputs(), &prepared.sites);
    let pooled = if rounds {
        reference::pooled_head(plan, federated, dataset)?
    } else {
        reference::pooled(plan, dataset)?
    };
    unless(stop)?;
    let measured_on = if prepared.central_test { "central" } else { "sites" };
    let mut attached = AttachedEvaluation {
        pooled: reference::score(&pooled, dataset, measured_on)?,
        // Rounds of averaging do not give the bits of training in one place; AFL does.
        // Nor does anything with noise.
        pooled_sha256: (!rounds && plan.privacy.is_none()).then(|| pooled.card.sha256.clone()),
        comparison: if rounds {
            reference::afl_on_the_same_rows(plan, federated, dataset, sites)?
        } else {
            None
        },
        ..AttachedEvaluation::default()
    };
    unless(stop)?;
    let mut pooled_at_sites = Vec::new();
    if prepared.central_test {
        attached.test = reference::score(federated, dataset, measured_on)?;
        attached.local = reference::locals(federated, plan, dataset, sites, &mut |done, of| {
            steps.at("training single sites' models to compare with", done as u64, of as u64, false);
        })?;
    } else if sites.len() <= SITES_SHOWN {
        for site in sites {
            let scores = reference::score(&pooled, &dataset.subset(&site.rows), measured_on)?;
            pooled_at_sites.push(scores.map(|scores| scores.accuracy));
        }
    }
    Ok(Compared { attached, pooled_at_sites })
}
