//! `sheaf privacy`: what noised training costs, what noise an epsilon asks for, and which clip goes with a model, before anybody runs
//! anything.

mod clip;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use serde_json::json;
use sheaf_agent::say;
use sheaf_coordinator::{error::Error, privacy::Privacy, run::plan::Plan};
use sheaf_privacy::{
    Delta, Epsilon, Event, Rate, Sigma,
    accountant::{Account, AccountError, Calibration, Composition, calibrate::check_delta},
};

use crate::{Cli, output, plan};

const EPSILON_EXAMPLES: &str = "Examples:
  sheaf privacy epsilon --q 0.064 --sigma 1.0 --steps 78 --delta 2e-4
      500 records, batches of 32 on average, 5 epochs
  sheaf privacy epsilon --q 1 --sigma 20 --steps 10 --delta 1e-5 --json
      ten noised sums over all records";

const SIGMA_EXAMPLES: &str = "Examples:
  sheaf privacy sigma --epsilon 4 --delta 2e-4 --q 0.064 --steps 78
  sheaf privacy sigma --epsilon 1 --delta 1e-6 --q 0.01 --steps 1000 --records 50000 --json
      refuses a delta of 1/50000 or more";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Epsilon of training with noise (DP-SGD), by every accountant.
    #[command(after_help = EPSILON_EXAMPLES)]
    Epsilon(EpsilonArgs),
    /// The least noise that keeps an epsilon.
    #[command(after_help = SIGMA_EXAMPLES)]
    Sigma(SigmaArgs),
    /// What a run would cost each site, before anybody runs it, and the cap that a site would need.
    #[command(
        after_help = "Examples:\n  sheaf privacy plan study.toml\n  sheaf privacy plan study.toml --set privacy.epsilon=1 --json"
    )]
    Plan {
        /// The plan, TOML, with a [privacy] section.
        plan: PathBuf,
        /// Override a key: section.key=value. May be given several times.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
    /// How long the gradients of public texts are under a plan, and which clip that asks for.
    ///
    /// For plans that tune a language model's adapter with noise: `rewardds`, `fdkt` with its generator `dp-lora`, `fedavg` with
    /// head = "lora". The noise of a step is sigma times [privacy] clip, however short gradients are.
    #[command(after_help = clip::EXAMPLES)]
    Clip(clip::Args),
}

/// How the noised steps go.
#[derive(Debug, clap::Args)]
pub(crate) struct Sampling {
    /// Probability with which each record is in a step's batch: expected batch / records. 1 for sums over all records.
    #[arg(long, value_name = "RATE")]
    q: Rate,
    /// Noised steps (epochs / q), or releases.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Probability with which epsilon may fail; a tenth of 1 / records or less.
    #[arg(long)]
    delta: Delta,
    /// Records (patients, customers) in the data set, a public bound: refuses a delta of 1 / records or more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EpsilonArgs {
    #[command(flatten)]
    sampling: Sampling,
    /// Noise multiplier: standard deviation of the noise / clipping norm.
    #[arg(long)]
    sigma: Sigma,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SigmaArgs {
    #[command(flatten)]
    sampling: Sampling,
    /// The epsilon not to pass (PLD, one record added or removed).
    #[arg(long)]
    epsilon: Epsilon,
}

pub(crate) fn run(cli: &Cli, command: &Command) -> Result<ExitCode> {
    match command {
        Command::Epsilon(args) => epsilon(cli, args),
        Command::Sigma(args) => sigma(cli, args),
        Command::Plan { plan, overrides } => of_plan(cli, plan, overrides),
        Command::Clip(args) => clip::run(cli, args),
    }
}

fn epsilon(cli: &Cli, args: &EpsilonArgs) -> Result<ExitCode> {
    let Sampling { q, steps, delta, records } = args.sampling;
    if let Some(records) = records {
        check_delta(delta, records).map_err(unusable)?;
    }
    let event = Event::PoissonGaussian { rate: q, sigma: args.sigma, steps };
    let account = Composition::from_iter([event]).account(delta).map_err(unusable)?;
    show(cli, &args.sampling, args.sigma, &account)
}

fn sigma(cli: &Cli, args: &SigmaArgs) -> Result<ExitCode> {
    let Sampling { q, steps, delta, records } = args.sampling;
    let asked = Calibration { epsilon: args.epsilon, delta, rate: q, steps, records };
    let found = asked.solve().map_err(unusable)?;
    show(cli, &args.sampling, found.sigma, &found.account)
}

/// The noise that a plan asks for.
fn noised<'a>(plan: &'a Plan, path: &Path) -> Result<&'a Privacy, Error> {
    plan.privacy.as_ref().ok_or_else(|| {
        Error::invalid(format!(
            "{} has no [privacy] section: its answers are exact, and no epsilon bounds what they tell",
            path.display()
        ))
    })
}

fn of_plan(cli: &Cli, path: &Path, overrides: &[String]) -> Result<ExitCode> {
    let plan = plan::read(path, overrides)?;
    let privacy = noised(&plan, path)?;
    let cost = privacy.cost()?;
    let shared = plan.run.secure_aggregation && matches!(privacy.model, Event::Gaussian { .. });
    // The fewest sites that may be in a sum, as far as the plan alone says it.
    let fewest = plan.run.quorum.or_else(|| plan.run.sites.as_ref().map(Vec::len));
    if cli.json {
        output::json(&json!({
            "plan": plan.run.name, "unit": privacy.section.unit, "sigma": privacy.model.sigma(), "events": cost.events,
            "delta": cost.account.delta, "epsilon_rdp": cost.account.epsilon_rdp, "epsilon_pld": cost.account.epsilon_pld,
            "epsilon_pld_lower": cost.account.epsilon_pld_lower,
            "epsilon_replace_one": cost.account.epsilon_replace_one, "cap": cost.cap,
            "noise_shared": shared, "noise_shared_by": fewest.filter(|_| shared),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("{}: each site that takes part pays, once, for every {}", plan.run.name, privacy.section.unit);
    for event in &cost.events {
        say!("  {}", event_words(event));
    }
    if shared {
        say!("  {}", shared_words(fewest));
    }
    accounts(&cost.account);
    say!(
        "A site where nothing was spent yet lets the run in with: sheaf-agent ledger cap {} \\",
        plan.run.dataset
    );
    say!("  --epsilon {:.4} --delta {} --unit {}", ceil4(cost.cap), cost.account.delta, privacy.section.unit);
    Ok(ExitCode::SUCCESS)
}

/// How the noise of a secure sum is spread.
fn shared_words(fewest: Option<usize>) -> String {
    let share = match fewest {
        Some(sites) => format!("1/{sites} of the Gaussian variance, {sites} being"),
        None => "1/K of the Gaussian variance, K being all invited sites,".to_owned(),
    };
    format!("each site adds {share} the fewest in a secure sum: the sum has it whole, no site's part does")
}

/// Up to four places, so that the printed cap is enough.
fn ceil4(cap: f64) -> f64 {
    (cap * 1e4).ceil() / 1e4
}

fn event_words(event: &Event) -> String {
    match event {
        Event::PoissonGaussian { rate, sigma, steps } => {
            format!(
                "{steps} steps of training, each on {:.2} % of the records, noise {:.4} times the clip",
                rate.get() * 100.0,
                sigma.get()
            )
        }
        Event::Gaussian { sigma, count } => format!(
            "{count} sum{} over all records, Gaussian noise {:.4} times what one unit weighs",
            if *count == 1 { "" } else { "s" },
            sigma.get()
        ),
        Event::Laplace { scale, count } => {
            format!("{count} set of counts of test records, Laplace noise of scale {:.4}", scale.get())
        }
        Event::Pure { epsilon } => format!("epsilon {epsilon}"),
    }
}

fn show(cli: &Cli, sampling: &Sampling, sigma: Sigma, account: &Account) -> Result<ExitCode> {
    if cli.json {
        output::json(&json!({
            "q": sampling.q, "sigma": sigma, "steps": sampling.steps, "delta": account.delta,
            "epsilon_rdp": account.epsilon_rdp, "epsilon_pld": account.epsilon_pld,
            "epsilon_pld_lower": account.epsilon_pld_lower, "epsilon_replace_one": account.epsilon_replace_one,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("q {}, sigma {sigma}, {} steps, delta {}", sampling.q, sampling.steps, account.delta);
    accounts(account);
    say!("\"One record\" is the unit that is clipped: a row, or all rows of one person.");
    Ok(ExitCode::SUCCESS)
}

fn accounts(account: &Account) {
    let mut table = output::table(&["epsilon", "neighbours differ by", "accountant"], &[0]);
    for (epsilon, neighbours, accountant) in [
        (account.epsilon_pld, "one record more or fewer", "PLD, from above: what is spent"),
        (account.epsilon_pld_lower, "one record more or fewer", "PLD, from below"),
        (account.epsilon_rdp, "one record more or fewer", "RDP"),
        (account.epsilon_replace_one, "one record exchanged", "PLD, from above"),
    ] {
        table.add_row([format!("{epsilon:.4}"), neighbours.to_owned(), accountant.to_owned()]);
    }
    say!("{table}");
}

/// What the accountant refuses is what was asked for: exit code 3.
fn unusable(error: AccountError) -> Error {
    Error::invalid(error.to_string())
}
