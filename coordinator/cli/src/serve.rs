//! `sheaf serve`

use std::{io::IsTerminal as _, process::ExitCode, sync::Arc};

use anyhow::Result;
use sheaf_agent::cli::stop;
use sheaf_coordinator::{clock::Clock, home::Home, hub::Hub, rpc::server::BoundServer};
use sheaf_data::catalogue::Catalogue;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{Cli, client::block_on, models::BuiltIn};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Log as JSON lines.
    #[arg(long)]
    log_json: bool,
    /// Stop when standard input ends: so a simulation's coordinator ends with it.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

pub(crate) fn run(cli: &Cli, args: &Args) -> Result<ExitCode> {
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
    // A list of one's own models that cannot be read is told now, not by the first plan.
    Catalogue::known()?;
    let home = Home::at(&cli.home);
    block_on(async {
        let stop = CancellationToken::new();
        let local = Arc::new(BuiltIn::new(cli.assets()));
        tokio::spawn(stop::on_signal(stop.clone()));
        if args.until_stdin_ends {
            stop::on_end_of_stdin(stop.clone());
        }
        let hub = Hub::open(&home, Clock::default(), stop, local)?;
        let server = BoundServer::bind(hub).await?;
        tracing::info!(address = %server.address()?, home = %home.path().display(), "serving");
        server.serve().await?;
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    })
}
