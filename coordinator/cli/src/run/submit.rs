//! `sheaf run submit`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use sheaf_proto::v1::SubmitRunRequest;

use super::{said, watch};
use crate::{Cli, client::Operator, plan};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plan, TOML.
    plan: PathBuf,
    /// Override a key: section.key=value. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// The run's id; made from the plan's name and the time when absent.
    #[arg(long)]
    id: Option<String>,
    /// Follow the run until it ends.
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn run(cli: &Cli, operator: &mut Operator, args: &Args) -> Result<ExitCode> {
    let plan = plan::read(&args.plan, &args.overrides)?;
    let request = SubmitRunRequest { plan_toml: plan.text, run_id: args.id.clone().unwrap_or_default() };
    let summary = operator.rpc.submit_run(request).await?.into_inner();
    if args.watch {
        watch::run(cli, operator, &summary.run_id).await?;
    } else {
        said(cli, "submitted", &summary)?;
    }
    Ok(ExitCode::SUCCESS)
}
