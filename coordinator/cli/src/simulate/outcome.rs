//! The end of a simulation: what is measured here, the report, the table.

use sheaf_agent::say;
use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use sheaf_coordinator::{
    report::{AttachedEvaluation, Report},
    run::plan::Plan,
};
use sheaf_proto::v1::AttachEvaluationRequest;

use super::{Federation, Prepared, Workspace};
use crate::{
    Cli,
    output::{self, Steps, percent},
    predict::Model,
    reference,
    run::fetch_report,
};

/// Sites shown in the table; the rest is in the report.
const SITES_SHOWN: usize = 20;

/// A finished simulation.
pub(crate) struct Finished {
    report: Report,
    /// The pooled model's accuracy at each site, in the partition's order.
    pooled_at_sites: Vec<Option<f64>>,
    coordinator_peak: u64,
}

/// Trains the pooled reference, measures it and what else needs all rows, attaches that and fetches the report.
pub(super) async fn finish(
    workspace: &Workspace,
    plan: &Plan,
    prepared: &Prepared,
    federation: &mut Federation,
    run_id: &str,
    steps: &mut Steps,
) -> Result<Finished> {
    let out = workspace.out();
    steps.at("training the pooled model to compare with", 0, 0, false);
    let operator = &mut federation.operator;
    let coordinator_peak = operator.info().await?.peak_resident_bytes;
    fetch_report(operator, run_id, None, out).await?;
    let federated = Model::read(out)?;
    let (attached, pooled_at_sites) =
        tokio::task::block_in_place(|| compare(plan, prepared, &federated, steps))?;
    let request = AttachEvaluationRequest {
        run_id: run_id.to_owned(),
        evaluation_json: serde_json::to_string(&attached)?,
    };
    operator.rpc.attach_evaluation(request).await?;
    steps.at("writing the report", 0, 0, false);
    fetch_report(operator, run_id, None, out).await?;
    let path = out.join("report.json");
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(Finished { report: serde_json::from_slice(&text)?, pooled_at_sites, coordinator_peak })
}

fn compare(
    plan: &Plan,
    prepared: &Prepared,
    federated: &Model,
    steps: &mut Steps,
) -> Result<(AttachedEvaluation, Vec<Option<f64>>)> {
    let pooled = prepared.pooled(plan)?;
    let measured_on = if prepared.central_test { "central" } else { "sites" };
    let mut attached = AttachedEvaluation {
        pooled: reference::score(&pooled, &prepared.dataset, measured_on)?,
        pooled_sha256: Some(pooled.card.sha256.clone()),
        ..AttachedEvaluation::default()
    };
    let mut at_sites = Vec::new();
    if prepared.central_test {
        attached.test = reference::score(federated, &prepared.dataset, measured_on)?;
        attached.local =
            reference::locals(federated, plan, &prepared.dataset, &prepared.sites, &mut |done, of| {
                steps.at("training single sites' models to compare with", done as u64, of as u64, false);
            })?;
    } else if prepared.sites.len() <= SITES_SHOWN {
        for site in &prepared.sites {
            let scores = reference::score(&pooled, &prepared.site_data(site), measured_on)?;
            at_sites.push(scores.map(|scores| scores.accuracy));
        }
    }
    Ok((attached, at_sites))
}

/// Prints what a person wants to see first.
pub(super) fn print(
    cli: &Cli,
    prepared: &Prepared,
    workspace: &Workspace,
    finished: &Finished,
    took: Duration,
) -> Result<()> {
    let report = &finished.report;
    if cli.json {
        output::json(report)?;
    } else {
        print_sites(prepared, finished);
        print_model(report);
        say!(
            "Took {:.1} s, of which the run {:.1} s; the coordinator's memory peaked at {}.",
            took.as_secs_f64(),
            report.timing.total_s,
            output::bytes(finished.coordinator_peak)
        );
        say!("Report: {}", workspace.out().join("report.html").display());
    }
    match report.model.equal_to_pooled {
        Some(false) => bail!(
            "the federated model {} is not the pooled model {}; please report this as a defect",
            report.model.sha256,
            report.model.pooled_sha256.as_deref().unwrap_or("-")
        ),
        _ => Ok(()),
    }
}

fn print_sites(prepared: &Prepared, finished: &Finished) {
    let report = &finished.report;
    let mut table = output::table(
        &["site", "rows", "test rows", "local only", "federated", "pooled", "sent"],
        &[1, 2, 3, 4, 5, 6],
    );
    for (index, site) in prepared.sites.iter().take(SITES_SHOWN).enumerate() {
        let Some(site) = report.sites.iter().find(|s| s.name == site.name) else {
            continue;
        };
        table.add_row(vec![
            site.name.clone(),
            site.rows.to_string(),
            site.metrics.test_rows.to_string(),
            percent(site.metrics.local_accuracy),
            percent(site.metrics.accuracy),
            percent(finished.pooled_at_sites.get(index).copied().flatten()),
            output::bytes(site.bytes_up),
        ]);
    }
    let metrics = &report.metrics;
    table.add_row(vec![
        if report.sites.len() > SITES_SHOWN {
            format!("all {} sites", report.sites.len())
        } else {
            "all".to_owned()
        },
        report.sites.iter().map(|s| s.rows).sum::<u64>().to_string(),
        metrics.test.as_ref().map_or_else(|| "0".to_owned(), |t| t.rows.to_string()),
        percent(metrics.local.as_ref().map(|l| l.mean_accuracy)),
        percent(metrics.test.as_ref().map(|t| t.accuracy)),
        percent(metrics.pooled.as_ref().map(|p| p.accuracy)),
        output::bytes(report.sites.iter().map(|s| s.bytes_up).sum()),
    ]);
    say!("{table}");
    if report.sites.len() > SITES_SHOWN {
        say!("{} more sites are in report.json.", report.sites.len() - SITES_SHOWN);
    }
    if let Some(local) = metrics.local.as_ref().filter(|l| l.sites_measured < report.sites.len()) {
        say!("Local-only accuracy: mean over {} sites' models.", local.sites_measured);
    }
}

fn print_model(report: &Report) {
    if let Some(test) = &report.metrics.test {
        let auc = test.auc.map(|auc| format!(", AUC {auc:.3}")).unwrap_or_default();
        say!(
            "Federated accuracy {} (balanced {}{auc}) on {} test rows.",
            percent(Some(test.accuracy)),
            percent(Some(test.balanced_accuracy)),
            test.rows
        );
    }
    say!("Federated model SHA-256: {}", report.model.sha256);
    if let Some(pooled) = &report.model.pooled_sha256 {
        say!("Pooled model SHA-256:    {pooled}");
        if report.model.equal_to_pooled == Some(true) {
            say!(
                "The federated and the pooled hashes are equal: the model is the model of all rows in one place, bit for bit."
            );
        } else {
            say!("THE FEDERATED AND THE POOLED HASHES DIFFER.");
        }
    }
}
