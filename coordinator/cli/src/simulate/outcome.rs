//! The end of a simulation: what is measured here, the report, the table.

use sheaf_agent::say;
use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use sheaf_coordinator::{
    report::{Canaries, Judged, Report, RewardReport, RoundReport, TransferReport},
    run::plan::Plan,
};
use sheaf_proto::{
    fdkt::{Arm, TaskModel},
    rewardds,
    v1::AttachEvaluationRequest,
};
use tokio_util::sync::CancellationToken;

use super::{
    Federation, Prepared, Workspace,
    compare::{self, Compared},
};
use crate::{
    Cli,
    output::{self, Steps, percent},
    run::fetch_report,
};

/// Sites shown in the table; the rest is in the report.
pub(super) const SITES_SHOWN: usize = 20;
/// Rounds shown; the rest is in the report.
const ROUNDS_SHOWN: usize = 20;

/// A finished simulation.
pub(crate) struct Finished {
    report: Report,
    /// The pooled model's accuracy at each site, in the partition's order.
    pooled_at_sites: Vec<Option<f64>>,
    coordinator_peak: u64,
}

/// Trains the pooled reference, measures it and what else needs all rows, attaches that and fetches the report. Stopped before it is
/// attached, what was measured is measured again by the simulation that goes on.
pub(super) async fn finish(
    cli: &Cli,
    workspace: &Workspace,
    plan: &Plan,
    prepared: &Prepared,
    (federation, run_id): (&mut Federation, &str),
    steps: &mut Steps,
    stop: &CancellationToken,
) -> Result<Finished> {
    let out = workspace.out();
    let operator = &mut federation.operator;
    let coordinator_peak = operator.info().await?.peak_resident_bytes;
    fetch_report(operator, run_id, None, out).await?;
    let Compared { attached, pooled_at_sites } =
        compare::compare(cli, plan, prepared, operator, out, steps, stop).await?;
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
        print_rounds(&report.rounds);
        print_transfer(report);
        if let Some(reward) = &report.reward {
            print_reward(reward);
        }
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
            site.rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string()),
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
        report
            .sites
            .iter()
            .map(|s| s.rows)
            .sum::<Option<u64>>()
            .map_or_else(|| "-".to_owned(), |n| n.to_string()),
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

/// Arms as people call them.
const fn arm_words(arm: Arm) -> &'static str {
    match arm {
        Arm::Local => "own records",
        Arm::Synthetic => "own records + the sites' texts",
        Arm::Llm => "own records + the language model's texts, from labels alone",
        Arm::Fdkt => "own records + FDKT's texts",
        Arm::SyntheticAlone => "the sites' texts alone",
        Arm::LlmAlone => "the language model's texts alone",
        Arm::FdktAlone => "FDKT's texts alone",
    }
}

/// The arms of one task model.
fn print_arms(transfer: &TransferReport, task: TaskModel) {
    let mut table = output::table(&["learnt from", "texts", "measured", "exact"], &[1, 2, 3]);
    for arm in Arm::ALL {
        let (measured, exact) = (transfer.said(task, arm), transfer.exact(task, arm));
        if measured.is_none() && exact.is_none() {
            continue;
        }
        let texts = arm.texts().and_then(|texts| transfer.counts.get(&texts)).map(ToString::to_string);
        table.add_row(vec![
            arm_words(arm).to_owned(),
            texts.unwrap_or_default(),
            percent(measured),
            percent(exact),
        ]);
    }
    if let Some(pooled) = transfer.judged.as_ref().and_then(|judged| judged.pooled(task)) {
        table.add_row(vec![
            "all sites' records in one place".to_owned(),
            String::new(),
            String::new(),
            percent(Some(pooled)),
        ]);
    }
    say!("Task model: {}.", transfer.name(task));
    say!("{table}");
}

fn print_transfer(report: &Report) {
    let Some(transfer) = &report.transfer else { return };
    for task in transfer.tasks() {
        print_arms(transfer, task);
    }
    if let Some(Judged { near_copies: near, rows, canaries, .. }) = &transfer.judged {
        say!(
            "\"measured\" is what the sites say, with noise where it is paid for; \"exact\" is known here alone, on {rows} test \
             records."
        );
        if near.texts > 0 {
            say!(
                "Of {} released texts {} share {} or more words in a row with a private record; the longest such run has {}.",
                near.texts,
                near.found,
                near.words,
                near.longest_run
            );
        }
        if let Some(Canaries { planted, words, found, longest_run }) = canaries {
            say!(
                "Of {planted} planted secrets of {words} words {found} stand in a released text; the most that one has of a secret \
                 is {longest_run} in a row."
            );
        }
    }
}

/// What the target was tuned on, as people call it.
const fn reward_words(arm: rewardds::Arm) -> &'static str {
    use rewardds::Arm;
    match arm {
        Arm::Untuned => "nothing",
        Arm::Unfiltered => "all queries, one response each",
        Arm::Random => "a draw of queries and responses",
        Arm::Rouge => "filtered by ROUGE-L with the other candidates",
        Arm::Embedding => "filtered by cosine with the query",
        Arm::Perplexity => "filtered by the generation proxy's perplexity",
        Arm::Rgf => "reward guided filtering",
        Arm::RgfSor => "reward guided filtering and refinement",
        Arm::NonPrivate => "the private records themselves (bound)",
    }
}

fn print_reward(reward: &RewardReport) {
    let code =
        rewardds::Arm::ALL.into_iter().any(|arm| reward.figures(arm).is_some_and(|f| f.pass_at_1.is_some()));
    let mut heads = vec!["tuned on", "examples", "NLL", "ROUGE-1", "ROUGE-2", "ROUGE-L", "words"];
    if code {
        heads.push("pass@1");
    }
    let right: Vec<usize> = (1..heads.len()).collect();
    let mut table = output::table(&heads, &right);
    for arm in rewardds::Arm::ALL {
        let Some(figures) = reward.figures(arm) else { continue };
        let examples = reward.arms.iter().find(|report| report.arm == arm).and_then(|report| report.examples);
        let number = |value: Option<f64>, places: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.places$}"))
        };
        let mut row = vec![
            reward_words(arm).to_owned(),
            examples.map(|examples| examples.to_string()).unwrap_or_default(),
            number(Some(figures.nll), 4),
            number(figures.rouge_1, 4),
            number(figures.rouge_2, 4),
            number(Some(figures.rouge_l), 4),
            number(figures.words, 1),
        ];
        if code {
            row.push(percent(figures.pass_at_1));
        }
        table.add_row(row);
    }
    say!("Target: {}. Means over test records; NLL in nats a token.", reward.target);
    say!("{table}");
    if let Some(accuracy) = reward.accuracy() {
        say!(
            "The reward proxies put {} of the pairs of test records in the right order.",
            percent(Some(accuracy))
        );
    }
    if let Some((tuned, untuned)) = reward.generator() {
        say!(
            "The generation proxy on test records: {tuned:.2} nats a token (untuned {untuned:.2}), of query and response."
        );
    }
    for round in &reward.rounds {
        say!(
            "Round {}: {} of {} responses taken, the pool has {}; {:.1} words a response, distinct-2 {:.3}.",
            round.round,
            round.accepted,
            round.queries,
            round.pool,
            round.variety.pool.mean_words,
            round.variety.pool.distinct_2
        );
    }
}

fn print_rounds(rounds: &[RoundReport]) {
    if rounds.is_empty() {
        return;
    }
    let text = rounds.iter().any(|round| round.test_loss.is_some());
    let figure = if text { "test loss" } else { "accuracy" };
    let mut table =
        output::table(&["round", "sites", "missed", "training loss", figure, "sent"], &[0, 1, 2, 3, 4, 5]);
    let step = rounds.len().div_ceil(ROUNDS_SHOWN).max(1);
    for (index, round) in rounds.iter().enumerate() {
        if !(index + 1).is_multiple_of(step) && index + 1 != rounds.len() {
            continue;
        }
        let loss = |loss: Option<f64>| loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}"));
        table.add_row(vec![
            round.round.to_string(),
            round.sites.len().to_string(),
            round.missed.len().to_string(),
            loss(round.loss),
            if text { loss(round.test_loss) } else { percent(round.accuracy) },
            output::bytes(round.bytes_up),
        ]);
    }
    say!("{table}");
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
    if let Some(other) = &report.comparison {
        say!(
            "{}: accuracy {} on the same rows for {} from all sites; the rounds took {}.",
            other.name,
            percent(Some(other.accuracy)),
            output::bytes(other.bytes_up),
            output::bytes(report.rounds.iter().map(|round| round.bytes_up).sum())
        );
    }
    if report.transfer.is_some() || report.reward.is_some() {
        return;
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
