//! `sheaf-agent data`

use crate::say;
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use sheaf_data::Schema;

use super::Cli;
use crate::error::AgentError;

/// Commands about the data.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Read every configured data set and say what is in it. Nothing leaves this machine.
    #[command(
        after_help = "Examples:\n  sheaf-agent data check\n  sheaf-agent data check --plan study.toml   # read as that plan asks"
    )]
    Check {
        /// Only this data set.
        name: Option<String>,
        /// Read with the [schema] of this plan.
        #[arg(long)]
        plan: Option<PathBuf>,
    },
}

pub(super) fn run(cli: &Cli, command: &Command) -> Result<ExitCode, AgentError> {
    let Command::Check { name, plan } = command;
    let config = cli.read_config()?;
    let assets = cli.assets();
    let schema = plan.as_deref().map(schema_of).transpose()?.unwrap_or_default();
    let chosen: Vec<_> =
        config.data.iter().filter(|(known, _)| name.as_ref().is_none_or(|name| name == *known)).collect();
    if chosen.is_empty() {
        return Err(AgentError::Data(match name {
            Some(name) => format!("there is no [data.{name}] in {}", cli.config.display()),
            None => format!("{} names no data set; add a [data.NAME] section", cli.config.display()),
        }));
    }
    let mut described = BTreeMap::new();
    for (name, source) in chosen {
        let description = source.open(&schema, &assets)?.describe();
        if !cli.json {
            say!("[data.{name}]\n{description}");
        }
        described.insert(name, description);
    }
    if cli.json {
        Cli::print_json(&described)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn schema_of(plan: &std::path::Path) -> Result<Schema, AgentError> {
    let bad = |reason: String| AgentError::Config { path: plan.to_owned(), reason };
    let text = std::fs::read_to_string(plan).map_err(AgentError::file(plan))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| bad(e.to_string()))?;
    match table.get("schema") {
        Some(schema) => schema.clone().try_into().map_err(|e: toml::de::Error| bad(e.to_string())),
        None => Ok(Schema::default()),
    }
}
