//! `sheaf init`

use sheaf_agent::say;
use std::{net::SocketAddr, process::ExitCode};

use anyhow::Result;
use serde_json::json;
use sheaf_coordinator::home::{Config, Home};

use crate::{Cli, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The DNS name or address by which agents and operators reach the coordinator.
    #[arg(long, default_value = "localhost")]
    name: String,
    /// Where to listen.
    #[arg(long, default_value = "0.0.0.0:7443")]
    listen: SocketAddr,
    /// More names for the server's certificate; may be given several times.
    #[arg(long = "also-known-as", value_name = "NAME")]
    also_known_as: Vec<String>,
}

pub(crate) fn run(cli: &Cli, args: &Args) -> Result<ExitCode> {
    let mut config = Config::default();
    for name in std::iter::once(&args.name).chain(&args.also_known_as) {
        if !config.names.contains(name) {
            config.names.push(name.clone());
        }
    }
    let host = if args.name.contains(':') { format!("[{}]", args.name) } else { args.name.clone() };
    config.url = format!("https://{host}:{}", args.listen.port());
    config.listen = args.listen;
    let home = Home::at(&cli.home);
    let fingerprint = home.init(&config)?;
    if cli.json {
        output::json(&json!({"home": home.path(), "url": config.url, "ca_fingerprint": fingerprint}))?;
    } else {
        say!("Made a coordinator home in {}.", home.path().display());
        say!("Agents will dial {} (change url, names and listen in coordinator.toml).", config.url);
        say!("Authority (SHA-256): {fingerprint}");
        say!("Keep {} safe and backed up: every site's trust hangs on it.", home.ca().display());
        say!("Next: sheaf serve --home {}", home.path().display());
    }
    Ok(ExitCode::SUCCESS)
}
