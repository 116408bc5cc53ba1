//! `sheaf`: the operator's command line, the coordinator's server and the simulator in one binary. It alone
//! knows both sides: a simulation starts this binary again as its coordinator and its agents.

mod client;
mod data;
mod import;
mod init;
mod lm;
mod models;
mod output;
mod plan;
mod predict;
mod privacy;
mod reference;
mod run;
mod serve;
mod simulate;
mod site;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};
use sheaf_data::AssetStore;

/// Federated learning for data that may not leave its site.
///
/// See it work, on four real hospitals' data, on this machine:
///   sheaf simulate scenarios/heart-disease.toml
///
/// Run a study:
///   sheaf init --home coordinator-home --name sheaf.example.org
///   sheaf serve
///   sheaf site invite cleveland       hand the token to the site's `sheaf-agent enroll`
///   sheaf run submit study.toml --watch
///   sheaf run report RUN --out report/
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 plan, configuration or data not usable,
/// 4 refused or not found, 5 the run failed or was aborted, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "sheaf", version, verbatim_doc_comment)]
struct Cli {
    /// The coordinator's home, with the operator's certificate in it.
    #[arg(long, global = true, default_value = "coordinator-home", env = "SHEAF_HOME")]
    home: PathBuf,
    /// Folder with data files that would otherwise be fetched.
    #[arg(long, global = true, env = "SHEAF_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON for machines.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a coordinator home: certificate authority, configuration, first operator.
    #[command(after_help = "Example:\n  sheaf init --home /var/lib/sheaf --name sheaf.example.org")]
    Init(init::Args),
    /// Run the coordinator until it is told to stop (Ctrl-C or SIGTERM).
    #[command(after_help = "Example:\n  sheaf serve --home /var/lib/sheaf")]
    Serve(serve::Args),
    /// Invite, list and revoke sites.
    #[command(subcommand)]
    Site(site::Command),
    /// Submit runs, follow them, fetch their reports.
    #[command(subcommand)]
    Run(run::Command),
    /// Run a whole federation on this machine: a real coordinator, real agents, real certificates.
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(simulate::Args),
    /// Public data sets: list, fetch, verify, describe.
    #[command(subcommand)]
    Data(data::Command),
    /// The language model on this machine: write text, tune an adapter.
    #[command(subcommand)]
    Lm(lm::Command),
    /// Plans: check one before anybody runs it.
    #[command(subcommand)]
    Plan(plan::Command),
    /// Differential privacy before a run: what noise costs, what noise an epsilon asks for, which clip to choose.
    #[command(subcommand)]
    Privacy(privacy::Command),
    /// Apply a published model to records.
    #[command(
        after_help = "Example:\n  sheaf predict --model runs/heart-disease-x --data new-patients.csv > predictions.csv"
    )]
    Predict(predict::Args),
    /// Make one model of the updates (W_k, C_k) that peers with the pairwise form of AFL send.
    #[command(after_help = import::EXAMPLE)]
    Import(import::Args),
    /// Show the coordinator's version, load and fingerprint; fails when it cannot be reached.
    Info,
    /// Print shell completions.
    #[command(after_help = "Example:\n  sheaf completions bash > /etc/bash_completion.d/sheaf")]
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// The agent, for the processes of a simulation.
    #[command(name = "__agent", hide = true, disable_help_flag = true)]
    Agent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

impl Cli {
    fn assets(&self) -> AssetStore {
        AssetStore::from_env(self.data_dir.clone())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Init(args) => init::run(&cli, args),
        Command::Serve(args) => serve::run(&cli, args),
        Command::Site(command) => site::run(&cli, command),
        Command::Run(command) => run::run(&cli, command),
        Command::Simulate(args) => simulate::run(&cli, args),
        Command::Data(command) => data::run(&cli, command),
        Command::Lm(command) => lm::run(&cli, command),
        Command::Plan(command) => plan::run(&cli, command),
        Command::Privacy(command) => privacy::run(&cli, command),
        Command::Predict(args) => predict::run(&cli, args),
        Command::Import(args) => import::run(&cli, args),
        Command::Info => client::info(&cli),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "sheaf", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Agent { args } => {
            let args = std::iter::once("sheaf-agent".to_owned()).chain(args.iter().cloned());
            return sheaf_agent::cli::Cli::parse_from(args).run();
        }
    };
    done.unwrap_or_else(|error| output::fail(&error))
}
