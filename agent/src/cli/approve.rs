//! `sheaf-agent approve`

use std::process::ExitCode;

use super::Cli;
use crate::{error::AgentError, state::State};

/// Arguments of `approve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run to say yes to; list what waits when absent.
    run: Option<String>,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, AgentError> {
    let config = cli.read_config()?;
    let state = State::open(&config.home, config.durable)?;
    let waiting = state.approval_requests()?;
    let Some(run) = &args.run else {
        if cli.json {
            Cli::print_json(&waiting)?;
        } else if waiting.is_empty() {
            println!("No run waits for approval.");
        } else {
            for request in &waiting {
                println!(
                    "{}  {} (workload {}, data set {})",
                    request.run_id, request.run_name, request.workload, request.dataset
                );
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !waiting.iter().any(|request| request.run_id == *run) && !state.approved(run)? {
        return Err(AgentError::Denied(format!(
            "no run `{run}` waits for approval here; see `sheaf-agent approve`"
        )));
    }
    state.approve(run)?;
    println!("Approved {run}; a running agent goes on with it now.");
    Ok(ExitCode::SUCCESS)
}
