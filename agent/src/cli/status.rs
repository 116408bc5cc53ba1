//! `sheaf-agent status`

use crate::say;
use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use super::Cli;
use crate::{error::AgentError, identity::Identity, state::State};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exit with 0 only while the agent runs and is connected (for health checks).
    #[arg(long)]
    check: bool,
    /// How many of the latest releases to show.
    #[arg(long, default_value_t = 10)]
    releases: u32,
}

/// A daemon notes that it is alive every 10 s.
const ALIVE_FOR: i64 = 30_000;

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, AgentError> {
    let config = cli.read_config()?;
    let identity = Identity::load(&config)?;
    let state = State::open(&config.home, config.durable)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as i64;
    let running = state.status("alive")?.is_some_and(|(_, at)| now - at < ALIVE_FOR);
    let link = match state.status("link")? {
        Some((value, _)) if running => value,
        _ => "stopped".to_owned(),
    };
    let up = running && link == "up";
    let (pending, waiting, releases) =
        (state.pending()?, state.approval_requests()?, state.releases(args.releases)?);
    let signing = hex::encode(identity.credentials()?.fingerprint());
    if cli.json {
        Cli::print_json(&json!({
            "site": identity.profile.site, "url": identity.profile.url, "ca_fingerprint": identity.ca_fingerprint(),
            "signing_fingerprint": signing,
            "certificate_not_after": identity.certificate()?.not_after, "running": running, "link": link,
            "undelivered": pending.len(), "waiting_for_approval": waiting, "releases": releases,
        }))?;
    } else {
        say!("site           {}", identity.profile.site);
        say!("coordinator    {}", identity.profile.url);
        say!("authority      {}", identity.ca_fingerprint());
        say!("signing key    {signing}");
        say!("agent          {}", if running { "running" } else { "not running" });
        say!("link           {link}");
        say!("undelivered    {}", pending.len());
        for request in &waiting {
            say!(
                "waits for you  {} ({}, workload {}, data set {}): sheaf-agent approve {}",
                request.run_id,
                request.run_name,
                request.workload,
                request.dataset,
                request.run_id
            );
        }
        for release in &releases {
            say!(
                "left the site  {} of run {}: {} ({})",
                release.kind,
                release.run_id,
                release.blob,
                release.task
            );
        }
    }
    Ok(if args.check && !up { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
