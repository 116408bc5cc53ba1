//! `sheaf site`

use sheaf_agent::say;
use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use serde_json::json;
use sheaf_proto::v1::{InviteSiteRequest, ListSitesRequest, RevokeSiteRequest};

use crate::{
    Cli,
    client::{Operator, block_on},
    output,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print a single-use token with which a site enrols.
    ///
    /// Hand it over by a way you trust: whoever has it can enrol as this site, once.
    #[command(after_help = "Example:\n  sheaf site invite cleveland --valid 2d")]
    Invite {
        /// The site's name: a-z, 0-9, '-', '_', '.'.
        name: String,
        /// How long the token is good for.
        #[arg(long, default_value = "7d", value_parser = humantime::parse_duration)]
        valid: Duration,
    },
    /// List sites: who is enrolled, who is connected, whose certificate ends when.
    #[command(after_help = "Example:\n  sheaf site list --json")]
    List,
    /// Revoke a site: its certificates stop working with the next call, its session ends now.
    #[command(after_help = "Example:\n  sheaf site revoke cleveland")]
    Revoke {
        /// The site's name.
        name: String,
    },
}

pub(crate) fn run(cli: &Cli, command: &Command) -> Result<ExitCode> {
    block_on(async {
        let mut operator = Operator::connect(&cli.home).await?;
        match command {
            Command::Invite { name, valid } => invite(cli, &mut operator, name, *valid).await?,
            Command::List => list(cli, &mut operator).await?,
            Command::Revoke { name } => {
                operator.rpc.revoke_site(RevokeSiteRequest { name: name.clone() }).await?;
                if cli.json {
                    output::json(&json!({"revoked": name}))?;
                } else {
                    say!("Revoked {name}.");
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn invite(cli: &Cli, operator: &mut Operator, name: &str, valid: Duration) -> Result<()> {
    let request = InviteSiteRequest { name: name.to_owned(), valid_seconds: valid.as_secs().max(1) };
    let invitation = operator.rpc.invite_site(request).await?.into_inner();
    if cli.json {
        return output::json(&json!({
            "site": name, "token": invitation.token, "expires_at": invitation.expires_at,
            "ca_fingerprint": invitation.ca_fingerprint,
        }));
    }
    eprintln!(
        "Token for {name}, good once until {}. At the site: sheaf-agent enroll TOKEN",
        invitation.expires_at
    );
    eprintln!("The site should see this authority (SHA-256): {}", invitation.ca_fingerprint);
    // The token alone on standard output, so that it can be piped to where it belongs.
    say!("{}", invitation.token);
    Ok(())
}

async fn list(cli: &Cli, operator: &mut Operator) -> Result<()> {
    let sites = operator.rpc.list_sites(ListSitesRequest {}).await?.into_inner().sites;
    if cli.json {
        let rows: Vec<_> = sites
            .iter()
            .map(|s| {
                json!({
                    "name": s.name, "status": s.status, "connected": s.connected, "enrolled_at": s.enrolled_at,
                    "last_seen": s.last_seen, "certificate_expires_at": s.certificate_expires_at,
                    "agent_version": s.agent_version, "device": s.device,
                })
            })
            .collect();
        return output::json(&rows);
    }
    if sites.is_empty() {
        say!("No sites yet; invite one: sheaf site invite NAME");
        return Ok(());
    }
    let mut table = output::table(
        &["site", "status", "connected", "last seen", "certificate ends", "agent", "device"],
        &[],
    );
    for site in sites {
        let connected = if site.connected { "yes" } else { "no" };
        table.add_row(vec![
            site.name,
            site.status,
            connected.to_owned(),
            site.last_seen,
            site.certificate_expires_at,
            site.agent_version,
            site.device,
        ]);
    }
    say!("{table}");
    Ok(())
}
