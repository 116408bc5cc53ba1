//! `sheaf run watch`

use sheaf_agent::say;
use std::time::Duration;

use anyhow::Result;
use sheaf_proto::v1::{Member, RunDetail, RunRef};
use sheaf_transport::retry::is_transient;

use super::detail_json;
use crate::{
    Cli,
    client::Operator,
    output::{self, Interrupted, RunEnded, Steps},
};

pub(crate) async fn run(cli: &Cli, operator: &mut Operator, run: &str) -> Result<()> {
    let mut steps = Steps::new(cli.json);
    let followed = tokio::select! {
        followed = follow(operator, run, &mut steps) => followed,
        _ = tokio::signal::ctrl_c() => {
            steps.done();
            return Err(Interrupted(format!("not watching any more; the run goes on: sheaf run watch {run}")).into());
        }
    };
    steps.done();
    let detail = followed?;
    let summary = detail.summary.clone().unwrap_or_default();
    if cli.json {
        output::json(&detail_json(&detail))?;
    }
    match summary.status.as_str() {
        "done" => {
            if !cli.json {
                say!("{} is done. Model SHA-256: {}", summary.run_id, summary.model_sha256);
                for member in detail.members.iter().filter(|member| !member.reason.is_empty()) {
                    say!("{} did not answer at last: {}", member.site, member.reason);
                }
                say!("Fetch the report: sheaf run report {}", summary.run_id);
            }
            Ok(())
        }
        other => Err(RunEnded(ended(other, &summary.reason)).into()),
    }
}

/// How a run ended that made no model.
pub(crate) fn ended(status: &str, reason: &str) -> String {
    match (status, reason) {
        ("aborted", _) => "the run was aborted; start it again with `sheaf run resume`".to_owned(),
        (status, reason) => format!("the run {status}: {reason}"),
    }
}

/// Follows a run to its end, through restarts of the coordinator, and gives back its last state.
pub(crate) async fn follow(operator: &mut Operator, run: &str, steps: &mut Steps) -> Result<RunDetail> {
    loop {
        let stream = operator.rpc.watch_run(RunRef { run_id: run.to_owned() }).await;
        let mut stream = match stream {
            Ok(stream) => stream.into_inner(),
            Err(status) if is_transient(&status) => {
                steps.at("waiting for the coordinator", 0, 0, false);
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            Err(status) => return Err(status.into()),
        };
        loop {
            match stream.message().await {
                Ok(Some(detail)) => {
                    show(&detail, steps);
                    if detail.summary.as_ref().is_some_and(|s| s.status != "running") {
                        return Ok(detail);
                    }
                }
                // The stream of a stopping or killed coordinator ends; the run does not.
                Ok(None) => break,
                Err(status) if is_transient(&status) => break,
                Err(status) => return Err(status.into()),
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn show(detail: &RunDetail, steps: &mut Steps) {
    let Some(summary) = &detail.summary else { return };
    if let Some(activity) = &detail.activity {
        return steps.at(&activity.what, activity.done, activity.all, false);
    }
    match detail.phases.last() {
        Some(phase) if phase.state == "collecting" => {
            let waiting = detail.members.iter().filter(|m| m.task == "awaiting approval").count();
            let note = if waiting > 0 {
                format!(" ({waiting} sites wait for approval)")
            } else {
                let said = |m: &&Member| m.task == "running" && !m.reason.is_empty();
                let said = detail.members.iter().find(said);
                said.map(|m| format!(" ({}: {})", m.site, m.reason)).unwrap_or_default()
            };
            steps.at(
                &format!("{}{note}", phase.name),
                u64::from(phase.delivered),
                u64::from(phase.expected),
                false,
            );
        }
        _ if summary.phase.is_empty() => {}
        _ => steps.at(&summary.phase, 0, 0, false),
    }
}
