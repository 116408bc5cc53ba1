//! `sheaf-agent approve`

use crate::say;
use std::process::ExitCode;

use super::Cli;
use crate::{error::AgentError, state::State};

/// Arguments of `approve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run to say yes to; list what waits when absent.
    run: Option<String>,
    /// Say no instead.
    #[arg(long, requires = "run")]
    deny: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, AgentError> {
    let config = cli.read_config()?;
    let state = State::open(&config.home, config.durable)?;
    let waiting = state.approval_requests()?;
    let Some(run) = &args.run else {
        if cli.json {
            Cli::print_json(&waiting)?;
        } else if waiting.is_empty() {
            say!("No run waits for approval.");
        } else {
            for request in &waiting {
                say!("{}  {}", request.run_id, request.run_name);
                say!(
                    "    workload {}, data set {}, columns: {}",
                    request.workload,
                    request.dataset,
                    request.columns
                );
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !waiting.iter().any(|request| request.run_id == *run) && state.decision(run)?.is_none() {
        return Err(AgentError::Denied(format!(
            "no run `{run}` waits for approval here; see `sheaf-agent approve`"
        )));
    }
    state.decide(run, !args.deny)?;
    if args.deny {
        say!("Said no to {run}; a running agent declines it now.");
    } else {
        say!("Approved {run}; a running agent goes on with it now.");
    }
    Ok(ExitCode::SUCCESS)
}
