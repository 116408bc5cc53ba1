//! `sheaf-agent policy`

use crate::say;
use std::process::ExitCode;

use serde_json::json;

use super::Cli;
use crate::{config::Approve, error::AgentError};

/// Commands about the policy.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Say in plain words what the policy allows.
    #[command(after_help = "Example:\n  sheaf-agent policy check --config /etc/sheaf/agent.toml")]
    Check,
}

pub(super) fn run(cli: &Cli, command: &Command) -> Result<ExitCode, AgentError> {
    let Command::Check = command;
    let config = cli.read_config()?;
    let policy = &config.policy;
    let allowed: Vec<_> = config
        .data
        .keys()
        .filter(|name| policy.datasets.as_ref().is_none_or(|names| names.contains(*name)))
        .cloned()
        .collect();
    if cli.json {
        Cli::print_json(&json!({
            "workloads": policy.workloads, "datasets": allowed, "release": policy.release,
            "models": policy.models, "columns": policy.columns, "min_cohort": policy.min_cohort, "min_rows": policy.min_rows,
            "require_dp": policy.require_dp,
            "require_secure_aggregation": policy.require_secure_aggregation, "min_difference": policy.min_difference,
            "peers": policy.peers.iter().map(|(site, key)| (site.to_string(), hex::encode(key.0))).collect::<std::collections::BTreeMap<_, _>>(),
            "approve": if policy.approve == Approve::Ask { "ask" } else { "auto" },
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = |names: Vec<String>| {
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    say!("workloads that may run here    {}", list(policy.workloads.iter().cloned().collect()));
    say!("data sets they may use         {}", list(allowed));
    say!("output that may leave          {}", list(policy.release.iter().cloned().collect()));
    say!("models that may run on them    {}", list(policy.models.iter().cloned().collect()));
    for (dataset, columns) in &policy.columns {
        say!("columns read of {dataset:<13} {}", list(columns.iter().cloned().collect()));
    }
    say!("smallest number of sites       {}", policy.min_cohort);
    if policy.require_secure_aggregation {
        say!("sums and updates leave         masked, within secure sums alone");
    }
    say!("sites by which sums differ     {}, or not at all", policy.min_difference);
    let peers: Vec<_> = policy.peers.keys().map(ToString::to_string).collect();
    let peers =
        if peers.is_empty() { "any, each with the key it had first".to_owned() } else { peers.join(", ") };
    say!("sites in secure sums           {peers}");
    say!("smallest number of rows        {}", policy.min_rows);
    say!("only with noise paid for       {}", if policy.require_dp { "yes" } else { "no" });
    let yes = match policy.approve {
        Approve::Ask => "a person, for each run: sheaf-agent approve RUN",
        Approve::Auto => "this policy alone",
    };
    say!("who says yes                   {yes}");
    if policy.release.contains("sums") && !policy.require_dp {
        say!(
            "note: sums are exact. A site with fewer rows than features gives away the space its rows span;\n      \
             `min_rows` above the number of features keeps a site out of that case (docs/privacy.md)."
        );
    }
    if policy.release.contains("updates") && !policy.require_dp {
        say!(
            "note: updates are parameters trained on this site's records, sent in every round of a run. They can give\n      \
             records away (docs/privacy.md); many sites and a large `min_rows` make that harder, not impossible."
        );
    }
    Ok(ExitCode::SUCCESS)
}
