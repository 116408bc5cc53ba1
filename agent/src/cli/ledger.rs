//! `sheaf-agent ledger`

use crate::say;
use std::{collections::BTreeMap, process::ExitCode};

use serde_json::json;
use sheaf_data::ROW_UNIT;
use sheaf_privacy::{
    Delta, Epsilon, Event,
    ledger::{Cap, Charge, DatasetSpend, Digest, PrivacyUnit, Standing},
};

use super::Cli;
use crate::{
    budget::{self, Budget},
    config::Config,
    error::AgentError,
};

/// Commands about the privacy ledger.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show what was spent on each data set, by which run, and what is left.
    #[command(after_help = "Examples:\n  sheaf-agent ledger show\n  sheaf-agent ledger show heart --json")]
    Show {
        /// Only this data set.
        name: Option<String>,
    },
    /// Walk the whole chain of entries and check every hash; prints the newest entry.
    ///
    /// Compare the printed entry with the one in the last report of the coordinator: a ledger that does not have it was
    /// put back to an older copy.
    #[command(after_help = "Example:\n  sheaf-agent ledger verify")]
    Verify,
    /// Set the most that all runs together may spend on a data set. Nobody but this site can.
    ///
    /// The data set is known by its content: renaming it, or reading other columns, does not make it new. One whose file
    /// was changed is another data set, and needs a cap of its own. A running agent goes by it from its next task on.
    #[command(
        after_help = "Examples:\n  sheaf-agent ledger cap heart --epsilon 8 --delta 1e-5\n  sheaf-agent ledger cap visits --epsilon 3 --delta 1e-6 --unit patient_id   # all rows of a patient are one unit"
    )]
    Cap {
        /// The data set, as agent.toml names it.
        name: String,
        /// Bound on the privacy loss of all runs together.
        #[arg(long)]
        epsilon: Epsilon,
        /// Probability with which the bound may fail: well below 1 / number of units.
        #[arg(long)]
        delta: Delta,
        /// Whose presence is protected: "row", or the column whose equal values are one unit (a patient, a customer). It
        /// cannot be changed once anything is spent.
        #[arg(long, default_value = ROW_UNIT)]
        unit: String,
    },
}

pub(super) fn run(cli: &Cli, command: &Command) -> Result<ExitCode, AgentError> {
    let config = cli.read_config()?;
    match command {
        Command::Show { name } => show(cli, &config, name.as_deref()),
        Command::Verify => verify(cli, &config),
        Command::Cap { name, epsilon, delta, unit } => cap(cli, &config, name, *epsilon, *delta, unit),
    }
}

fn cap(
    cli: &Cli,
    config: &Config,
    name: &str,
    epsilon: Epsilon,
    delta: Delta,
    unit: &str,
) -> Result<ExitCode, AgentError> {
    let source = config
        .data
        .get(name)
        .ok_or_else(|| AgentError::Data(format!("there is no [data.{name}] in {}", cli.config.display())))?;
    let dataset = budget::dataset_name(&config.home, &source.digest(&cli.assets())?)?;
    let privacy_unit = PrivacyUnit::new(unit).map_err(AgentError::Ledger)?;
    Budget::open(&config.home)?.set_cap(Cap { dataset, privacy_unit, epsilon, delta })?;
    if cli.json {
        Cli::print_json(&json!({
            "name": name, "dataset": dataset, "privacy_unit": unit, "epsilon": epsilon, "delta": delta,
        }))?;
    } else {
        say!(
            "data set {name} (in statements {}): at most epsilon {epsilon} at delta {delta} for each {unit}",
            short(&dataset)
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(cli: &Cli, config: &Config) -> Result<ExitCode, AgentError> {
    let head = budget::read(&config.home)?.map(|book| book.head);
    if cli.json {
        Cli::print_json(&json!({ "entries": head.map_or(0, |h| h.counter), "hash": head.map(|h| h.hash) }))?;
    } else if let Some(head) = head {
        say!("the chain holds: {} entries, the newest is {}", head.counter, head.hash);
    } else {
        say!("there is no ledger yet; `sheaf-agent ledger cap` begins one");
    }
    Ok(ExitCode::SUCCESS)
}

fn show(cli: &Cli, config: &Config, only: Option<&str>) -> Result<ExitCode, AgentError> {
    let pages = budget::read(&config.home)?.map(|book| book.pages).unwrap_or_default();
    let assets = cli.assets();
    let mut named: BTreeMap<Digest, &str> = BTreeMap::new();
    for (name, source) in &config.data {
        match source.digest(&assets) {
            Ok(content) => drop(named.insert(budget::dataset_name(&config.home, &content)?, name)),
            Err(error) => eprintln!("[data.{name}] cannot be read: {error}"),
        }
    }
    let name_of = |page: &DatasetSpend| named.get(&page.cap.dataset).copied();
    let shown: Vec<&DatasetSpend> =
        pages.iter().filter(|page| only.is_none_or(|only| name_of(page) == Some(only))).collect();
    if cli.json {
        let with_name = |page: &&DatasetSpend| json!({ "name": name_of(page), "page": page });
        Cli::print_json(&shown.iter().map(with_name).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if shown.is_empty() {
        say!("no data set has a cap, so nothing can be spent; `sheaf-agent ledger cap NAME` sets one");
    }
    for page in shown {
        print_page(name_of(page).unwrap_or("(no file of agent.toml has this content any more)"), page);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_page(name: &str, page: &DatasetSpend) {
    let Cap { dataset, privacy_unit, epsilon, delta } = &page.cap;
    say!("{name}  (in statements {})", short(dataset));
    say!("  cap    epsilon {epsilon} at delta {delta}, one {privacy_unit} more or fewer");
    if page.charges.iter().all(|charge| charge.event().is_none()) {
        say!("  spent  nothing yet");
        return;
    }
    match &page.spent.account {
        Some(account) => say!(
            "  spent  epsilon {:.4} (PLD), {:.4} (RDP); with one {privacy_unit} exchanged {:.4}",
            account.epsilon_pld,
            account.epsilon_rdp,
            account.epsilon_replace_one
        ),
        None => say!("  spent  no finite epsilon holds at this delta"),
    }
    say!("  left   epsilon {:.4} at least, for runs chosen from now on", page.spent.left);
    for charge in &page.charges {
        say!(
            "  #{:<5} {}  {}  {}",
            charge.reservation,
            charge.request.run,
            event(&charge.request.event),
            standing(charge)
        );
    }
}

fn event(event: &Event) -> String {
    match event {
        Event::PoissonGaussian { rate, sigma, steps } => {
            format!("DP-SGD, rate {:.5}, sigma {:.4}, {steps} steps", rate.get(), sigma.get())
        }
        Event::Gaussian { sigma, count } => {
            format!("Gaussian noise, sigma {:.4}, {count} times", sigma.get())
        }
        Event::Laplace { scale, count } => format!("Laplace noise, scale {:.4}, {count} times", scale.get()),
        Event::Pure { epsilon } => format!("epsilon {epsilon}"),
    }
}

fn standing(charge: &Charge) -> String {
    match charge.standing {
        Standing::Open => format!("open, charged whole ({} drawn)", charge.drawn),
        Standing::Settled(count) => format!("done, {count} charged, {} outputs", charge.outputs.len()),
        Standing::Void => "void, nothing was drawn".to_owned(),
    }
}

fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(12).collect()
}
