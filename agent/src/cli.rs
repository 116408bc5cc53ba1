//! The command line of a site.

mod approve;
mod data;
mod devices;
mod enroll;
mod ledger;
mod model;
mod policy;
mod start;
mod status;
pub mod stdout;
pub mod stop;

use crate::say;
use std::{io, path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};
use sheaf_data::AssetStore;

use crate::{config::Config, error::AgentError};

/// The agent of a data-holding site: takes part in federated runs under the site's own policy.
///
/// It only ever dials out, computes on the site's records where they are, and sends what the policy allows.
///
/// First steps:
///   sheaf-agent enroll TOKEN          with the token from the study's operator
///   edit agent.toml                   name your data and what may leave
///   sheaf-agent policy check          what would be allowed
///   sheaf-agent data check            what would be read
///   sheaf-agent start
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 configuration or data not usable, 4 not enrolled or refused.
#[derive(Debug, Parser)]
#[command(name = "sheaf-agent", version, verbatim_doc_comment)]
pub struct Cli {
    /// The site's configuration.
    #[arg(long, short, global = true, default_value = "agent.toml", env = "SHEAF_AGENT_CONFIG")]
    pub config: PathBuf,
    /// Folder with data files that would otherwise be fetched.
    #[arg(long, global = true, env = "SHEAF_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON for machines.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands of the agent.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enrol this site with the token that `sheaf site invite` printed.
    ///
    /// Makes the site's key here, where it stays, and gets a certificate for it. Compare the authority's
    /// fingerprint it prints with the one the operator reads to you.
    #[command(
        alias = "enrol",
        after_help = "Example:\n  sheaf-agent enroll sheaf1-AbC... --config /etc/sheaf/agent.toml"
    )]
    Enroll(enroll::Args),
    /// Run the agent until it is told to stop (Ctrl-C or SIGTERM).
    #[command(after_help = "Example:\n  sheaf-agent start --config /etc/sheaf/agent.toml")]
    Start(start::Args),
    /// Show enrolment, link, what waits for approval and what left this site.
    #[command(
        after_help = "Examples:\n  sheaf-agent status\n  sheaf-agent status --check   # exit code 0 only while connected"
    )]
    Status(status::Args),
    /// Look at the policy.
    #[command(subcommand)]
    Policy(policy::Command),
    /// The privacy budget: what was spent, what is left, and the cap.
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// Look at the data.
    #[command(subcommand)]
    Data(data::Command),
    /// List what this machine can compute on, how fast it is, and why not on the rest; say whether programs that a
    /// model wrote can be isolated here.
    #[command(after_help = "Examples:\n  sheaf-agent devices\n  sheaf-agent devices --no-speed --json")]
    Devices(devices::Args),
    /// Fetch and check models.
    #[command(subcommand)]
    Model(model::Command),
    /// Say yes to a run that waits for a person; without RUN, list what waits.
    #[command(after_help = "Example:\n  sheaf-agent approve heart-disease-20261123-200702-417")]
    Approve(approve::Args),
    /// Print the configuration as it is understood, or say what is wrong with it.
    CheckConfig,
    /// Print shell completions.
    #[command(after_help = "Example:\n  sheaf-agent completions bash > /etc/bash_completion.d/sheaf-agent")]
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// Runs the command and says how it went.
    pub fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(code) => code,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(exit_code(&error))
            }
        }
    }

    fn dispatch(&self) -> Result<ExitCode, AgentError> {
        match &self.command {
            Command::Enroll(args) => enroll::run(self, args),
            Command::Start(args) => start::run(self, args),
            Command::Status(args) => status::run(self, args),
            Command::Policy(command) => policy::run(self, command),
            Command::Ledger(command) => ledger::run(self, command),
            Command::Data(command) => data::run(self, command),
            Command::Devices(args) => devices::run(self, args),
            Command::Model(command) => model::run(self, command),
            Command::Approve(args) => approve::run(self, args),
            Command::CheckConfig => {
                say!("{:#?}", self.read_config()?);
                Ok(ExitCode::SUCCESS)
            }
            Command::Completions { shell } => {
                clap_complete::generate(*shell, &mut Self::command(), "sheaf-agent", &mut io::stdout());
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    fn read_config(&self) -> Result<Config, AgentError> {
        Config::read(&self.config)
    }

    fn assets(&self) -> AssetStore {
        AssetStore::from_env(self.data_dir.clone())
    }

    fn print_json(value: &impl serde::Serialize) -> Result<(), AgentError> {
        let text = serde_json::to_string_pretty(value).map_err(|e| AgentError::Task(e.to_string()))?;
        say!("{text}");
        Ok(())
    }
}

const fn exit_code(error: &AgentError) -> u8 {
    match error {
        AgentError::Config { .. } | AgentError::Data(_) | AgentError::Device(_) => 3,
        AgentError::Identity(_) | AgentError::Denied(_) | AgentError::Ledger(_) => 4,
        _ => 1,
    }
}

/// A runtime for the commands that need one; the others start faster without.
fn runtime() -> Result<tokio::runtime::Runtime, AgentError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| AgentError::Task(e.to_string()))
}
