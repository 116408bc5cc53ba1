//! `sheaf run`

mod files;
mod submit;
mod watch;

use sheaf_agent::say;
use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use serde_json::{Value, json};
use sheaf_proto::v1::{ListRunsRequest, RunDetail, RunRef, RunSite, RunSummary};

use crate::{
    Cli,
    client::{Operator, block_on},
    output,
};

pub(crate) use files::fetch_report;
pub(crate) use watch::{ended, follow};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Submit a plan; the connected agents begin at once.
    #[command(after_help = "Example:\n  sheaf run submit study.toml --set afl.lambda=0.1 --watch")]
    Submit(submit::Args),
    /// List runs, newest first.
    List,
    /// Show a run: its phases, and each site's part in it.
    Show {
        /// The run's id, or the beginning of it.
        run: String,
    },
    /// Follow a run until it ends; exit code 5 when it fails.
    Watch {
        /// The run's id, or the beginning of it.
        run: String,
    },
    /// Stop a run; `resume` starts it again where it was.
    Abort {
        /// The run's id, or the beginning of it.
        run: String,
    },
    /// Start a failed or aborted run again; answers already delivered are used again.
    Resume {
        /// The run's id, or the beginning of it.
        run: String,
    },
    /// Fetch a run's report: report.json, report.html, the model, the journal, a signed manifest.
    #[command(after_help = "Example:\n  sheaf run report heart --out report/")]
    Report {
        /// The run's id, or the beginning of it.
        run: String,
        /// Where to; runs/ID when absent.
        #[arg(long)]
        out: Option<PathBuf>,
        /// An earlier version of the model.
        #[arg(long)]
        version: Option<u32>,
    },
    /// Check a fetched report: every file against the manifest, the manifest against its signature.
    #[command(after_help = "Example:\n  sheaf run verify report/")]
    Verify {
        /// The report's folder.
        report: PathBuf,
    },
    /// Measure a run's model on a central test set and put the figures into its report.
    #[command(
        after_help = "Example:\n  sheaf run evaluate my-study --plan study.toml   # its [data] names the test files"
    )]
    Evaluate {
        /// The run's id, or the beginning of it.
        run: String,
        /// A plan whose [data] has test files.
        #[arg(long)]
        plan: PathBuf,
    },
    /// Take a site's contribution out and publish a new version, as if it had never taken part.
    #[command(after_help = "Example:\n  sheaf run withdraw heart cleveland")]
    Withdraw {
        /// The run's id, or the beginning of it.
        run: String,
        /// The site.
        site: String,
    },
    /// Take a late site in and publish a new version.
    #[command(after_help = "Example:\n  sheaf run add heart va-long-beach")]
    Add {
        /// The run's id, or the beginning of it.
        run: String,
        /// The site.
        site: String,
    },
}

pub(crate) fn run(cli: &Cli, command: &Command) -> Result<ExitCode> {
    if let Command::Verify { report } = command {
        return files::verify(cli, report);
    }
    block_on(async {
        let mut operator = Operator::connect(&cli.home).await?;
        let reference = |run: &str| RunRef { run_id: run.to_owned() };
        let of_site = |run: &str, site: &str| RunSite { run_id: run.to_owned(), site: site.to_owned() };
        match command {
            Command::Submit(args) => return submit::run(cli, &mut operator, args).await,
            Command::List => list(cli, &mut operator).await?,
            Command::Show { run } => show(cli, &operator.rpc.show_run(reference(run)).await?.into_inner())?,
            Command::Watch { run } => watch::run(cli, &mut operator, run).await?,
            Command::Abort { run } => {
                said(cli, "aborted", &operator.rpc.abort_run(reference(run)).await?.into_inner())?;
            }
            Command::Resume { run } => {
                said(cli, "resumed", &operator.rpc.resume_run(reference(run)).await?.into_inner())?;
            }
            Command::Report { run, out, version } => {
                files::run(cli, &mut operator, run, out.clone(), *version).await?;
            }
            Command::Evaluate { run, plan } => files::evaluate(cli, &mut operator, run, plan).await?,
            Command::Withdraw { run, site } => {
                said(cli, "withdrawn", &operator.rpc.withdraw_site(of_site(run, site)).await?.into_inner())?;
            }
            Command::Add { run, site } => {
                said(cli, "added", &operator.rpc.add_site(of_site(run, site)).await?.into_inner())?;
            }
            Command::Verify { .. } => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn summary_json(summary: &RunSummary) -> Value {
    json!({
        "id": summary.run_id, "name": summary.name, "workload": summary.workload, "status": summary.status,
        "phase": summary.phase, "version": summary.version, "reason": summary.reason,
        "created_at": summary.created_at, "model_sha256": summary.model_sha256,
    })
}

/// A run and its members as `--json` gives them.
pub(crate) fn detail_json(detail: &RunDetail) -> Value {
    let members: Vec<_> = detail
        .members
        .iter()
        .map(|m| {
            json!({
                "site": m.site, "status": m.status, "reason": m.reason, "task": m.task, "connected": m.connected,
                "bytes_up": m.bytes_up, "bytes_down": m.bytes_down,
            })
        })
        .collect();
    let phases: Vec<_> = detail
        .phases
        .iter()
        .map(|p| {
            json!({"name": p.name, "delivered": p.delivered, "expected": p.expected, "state": p.state, "seconds": p.seconds})
        })
        .collect();
    let summary = detail.summary.clone().unwrap_or_default();
    let activity = detail.activity.as_ref().map(|a| json!({"what": a.what, "done": a.done, "all": a.all}));
    json!({"run": summary_json(&summary), "members": members, "phases": phases, "activity": activity})
}

fn said(cli: &Cli, what: &str, summary: &RunSummary) -> Result<()> {
    if cli.json {
        return output::json(&summary_json(summary));
    }
    say!("{}: {what}; now {} (version {}).", summary.run_id, summary.status, summary.version);
    if summary.status == "running" {
        say!("Follow it: sheaf run watch {}", summary.run_id);
    }
    Ok(())
}

async fn list(cli: &Cli, operator: &mut Operator) -> Result<()> {
    let runs = operator.rpc.list_runs(ListRunsRequest {}).await?.into_inner().runs;
    if cli.json {
        return output::json(&runs.iter().map(summary_json).collect::<Vec<_>>());
    }
    if runs.is_empty() {
        say!("No runs yet; submit one: sheaf run submit PLAN");
        return Ok(());
    }
    let mut table = output::table(&["run", "status", "phase", "version", "since", "model"], &[]);
    for run in runs {
        let hash: String = run.model_sha256.chars().take(12).collect();
        table.add_row(vec![run.run_id, run.status, run.phase, run.version.to_string(), run.created_at, hash]);
    }
    say!("{table}");
    Ok(())
}

fn show(cli: &Cli, detail: &RunDetail) -> Result<()> {
    if cli.json {
        return output::json(&detail_json(detail));
    }
    let summary = detail.summary.clone().unwrap_or_default();
    say!(
        "{} ({}), version {}: {} {}",
        summary.run_id,
        summary.name,
        summary.version,
        summary.status,
        summary.phase
    );
    if !summary.reason.is_empty() {
        say!("{}", summary.reason);
    }
    for phase in &detail.phases {
        say!(
            "  {:<10} {:<10} {}/{} in {:.1} s",
            phase.name,
            phase.state,
            phase.delivered,
            phase.expected,
            phase.seconds
        );
    }
    let mut table = output::table(&["site", "status", "task", "connected", "up", "down", "reason"], &[4, 5]);
    for m in &detail.members {
        table.add_row(vec![
            m.site.clone(),
            m.status.clone(),
            m.task.clone(),
            if m.connected { "yes" } else { "no" }.to_owned(),
            output::bytes(m.bytes_up),
            output::bytes(m.bytes_down),
            m.reason.clone(),
        ]);
    }
    say!("{table}");
    if !summary.model_sha256.is_empty() {
        say!("model SHA-256 {}", summary.model_sha256);
    }
    Ok(())
}
