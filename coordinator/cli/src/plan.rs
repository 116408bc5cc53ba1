//! `sheaf plan`

use sheaf_agent::say;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use serde_json::json;
use sheaf_coordinator::{error::Error, run::plan::Plan};

use crate::{Cli, output};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Read a plan and say what it would do, or what is wrong with it and where.
    #[command(after_help = "Example:\n  sheaf plan check study.toml --set afl.lambda=0.1")]
    Check {
        /// The plan, TOML.
        plan: PathBuf,
        /// Override a key: section.key=value. May be given several times.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
}

/// Reads a plan with overrides; relative paths in it are made relative to its folder.
pub(crate) fn read(path: &Path, overrides: &[String]) -> Result<Plan> {
    let text =
        fs::read_to_string(path).map_err(|e| Error::invalid(format!("plan {}: {e}", path.display())))?;
    let text = Plan::with_overrides(&text, overrides)?;
    let mut plan = Plan::parse(&text)?;
    plan.resolve_paths(path.parent().unwrap_or(Path::new(".")));
    Ok(plan)
}

pub(crate) fn run(cli: &Cli, command: &Command) -> Result<ExitCode> {
    let Command::Check { plan: path, overrides } = command;
    let plan = read(path, overrides)?;
    let sites = match &plan.run.sites {
        Some(sites) => sites.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        None => "all enrolled sites".to_owned(),
    };
    if cli.json {
        output::json(&json!({
            "ok": true, "name": plan.run.name, "workload": plan.run.workload, "dataset": plan.run.dataset,
            "sites": plan.run.sites, "quorum": plan.run.quorum, "deadline_s": plan.run.deadline.as_secs(),
            "plan_sha256": plan.sha256(),
        }))?;
    } else {
        say!("{} is a sound plan.", path.display());
        say!("  run        {} (workload {})", plan.run.name, plan.run.workload);
        say!("  data set   \"{}\" in each agent's configuration", plan.run.dataset);
        say!("  sites      {sites}");
        let quorum = plan.run.quorum.map_or_else(|| "all invited".to_owned(), |q| format!("at least {q}"));
        say!("  quorum     {quorum}, {} a phase", humantime::format_duration(plan.run.deadline));
        if plan.data.is_some() {
            say!("  simulation sheaf simulate {}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
