//! `sheaf-agent start`

use std::{io::IsTerminal as _, process::ExitCode, sync::Arc};

use sheaf_models::DeviceChoice;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{Cli, runtime, stop};
use crate::{daemon, error::AgentError};

/// Arguments of `start`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tasks that may compute at the same time.
    #[arg(long, default_value_t = 1)]
    tasks: usize,
    /// What to compute on instead of what the configuration says: auto, cpu, cuda:0, vulkan:0, wgpu:0.
    #[arg(long)]
    device: Option<DeviceChoice>,
    /// Log as JSON lines.
    #[arg(long)]
    log_json: bool,
    /// Stop when standard input ends: so a simulation's agents end with it.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, AgentError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if args.log_json {
        log.json().init();
    } else {
        log.init();
    }
    let (mut config, assets) = (cli.read_config()?, cli.assets());
    config.device = args.device.unwrap_or(config.device);
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(stop::on_signal(stop.clone()));
        if args.until_stdin_ends {
            stop::on_end_of_stdin(stop.clone());
        }
        daemon::run(config, assets, Arc::new(Semaphore::new(args.tasks.max(1))), stop).await
    })?;
    Ok(ExitCode::SUCCESS)
}
