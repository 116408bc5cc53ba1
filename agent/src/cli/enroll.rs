//! `sheaf-agent enroll`

use crate::say;
use std::{fs, process::ExitCode};

use serde_json::json;
use sheaf_transport::token::EnrolmentToken;

use super::{Cli, runtime};
use crate::{
    config::{Config, TEMPLATE},
    error::AgentError,
    identity,
};

/// Arguments of `enroll`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The token, or @FILE to read it from a file.
    token: String,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, AgentError> {
    let text = match args.token.strip_prefix('@') {
        Some(file) => fs::read_to_string(file).map_err(AgentError::file(file.as_ref()))?,
        None => args.token.clone(),
    };
    let token: EnrolmentToken =
        text.parse().map_err(|e: sheaf_transport::token::TokenError| AgentError::Identity(e.to_string()))?;
    let wrote_template = !cli.config.exists();
    if wrote_template {
        fs::write(&cli.config, TEMPLATE).map_err(AgentError::file(&cli.config))?;
    }
    let config = Config::read(&cli.config)?;
    let enrolled = runtime()?.block_on(identity::enrol(&token, &config))?;
    let profile = &enrolled.profile;
    if cli.json {
        Cli::print_json(&json!({
            "site": profile.site, "url": profile.url, "ca_fingerprint": enrolled.ca_fingerprint,
            "home": config.home, "config": cli.config, "wrote_config": wrote_template,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("Enrolled as `{}` with the coordinator at {}.", profile.site, profile.url);
    say!("The key was made here and stays in {}.", config.home.display());
    say!("Authority (SHA-256), the same as at the operator's: {}", enrolled.ca_fingerprint);
    if wrote_template {
        say!(
            "Wrote a first {}: it allows nothing yet. Name your data and what may leave, then: sheaf-agent start",
            cli.config.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}
