//! `sheaf lm tune`

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use sheaf_models::{
    Adapter, LoraConfig, ModelError,
    train::{Example, Nll, Step, TuneConfig, evaluate, supervised::Tuner},
};

use super::{ModelArgs, examples};
use crate::{
    Cli,
    output::{self, Interrupted},
};

pub(super) const EXAMPLES: &str = "Examples:
  sheaf lm tune --data questions.jsonl --lora-rank 8 --out adapter/
  sheaf lm generate --prompt \"What is a fever?\" --adapter adapter/

A line of the data is an object with `prompt` and `response`, or `text` and `answer`, or `text` alone. An interrupted
tuning goes on with the same command. The adapter's folder is one that the peft package of Python loads.";

const CHECKPOINT: &str = "checkpoint.safetensors";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Examples: .jsonl or .jsonl.gz.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The adapter's folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Rank of the adapter.
    #[arg(long, default_value_t = 8)]
    lora_rank: usize,
    /// Scale of the adapter is this by the rank.
    #[arg(long, default_value_t = 16.0)]
    lora_alpha: f64,
    /// Share of the adapter's inputs dropped in training.
    #[arg(long, default_value_t = 0.0)]
    lora_dropout: f64,
    /// Target modules.
    #[arg(long, value_delimiter = ',', default_value = "q_proj,v_proj")]
    targets: Vec<String>,
    /// Adapt so many of the topmost layers alone: faster, and a smaller adapter.
    #[arg(long)]
    layers: Option<usize>,
    /// Passes over the examples; may be a fraction.
    #[arg(long, default_value_t = 1.0)]
    epochs: f64,
    /// Examples a forward pass.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Forward passes a step of the optimiser.
    #[arg(long, default_value_t = 1)]
    accumulation: usize,
    /// Longer examples are cut.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Learning rate at its peak.
    #[arg(long, default_value_t = 2e-4)]
    learning_rate: f64,
    /// Of the order of examples and the adapter's first values.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Every so manyth example is held out, to measure on.
    #[arg(long, default_value_t = 10, value_name = "N")]
    hold_out: usize,
    /// Run blocks twice to need less memory.
    #[arg(long)]
    recompute: bool,
}

/// What is said of a tuning, and written beside the adapter.
#[derive(Debug, Serialize)]
struct Report {
    steps: Vec<Step>,
    examples: usize,
    held_out: usize,
    perplexity_before: Option<f64>,
    perplexity_after: Option<f64>,
}

impl Args {
    fn config(&self) -> TuneConfig {
        TuneConfig {
            epochs: self.epochs,
            batch: self.batch,
            accumulation: self.accumulation,
            max_tokens: self.max_tokens,
            learning_rate: self.learning_rate,
            seed: self.seed,
            recompute: self.recompute,
            ..TuneConfig::default()
        }
    }

    fn lora(&self) -> LoraConfig {
        LoraConfig {
            rank: self.lora_rank,
            alpha: self.lora_alpha,
            dropout: self.lora_dropout,
            targets: self.targets.clone(),
            layers: self.layers,
        }
    }
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode> {
    let config = args.config();
    config.check()?;
    args.lora().modules()?;
    anyhow::ensure!(args.hold_out != 1, "--hold-out 1 would leave nothing to learn from");
    let (train, held_out) = split(examples::read(&args.data)?, args.hold_out);
    let model = args.model.load(cli)?;
    let adapter = Adapter::new(&model, &args.lora(), args.seed)?;
    let encoded = sheaf_models::train::supervised::encode(&model, &train, config.max_tokens)?;
    let measure = |adapter: Option<&Adapter>| -> Result<Option<f64>> {
        let nll = (!held_out.is_empty()).then(|| evaluate(&model, adapter, &held_out, config.max_tokens));
        Ok(nll.transpose()?.as_ref().map(Nll::perplexity))
    };
    let mut tuner = Tuner::new(&model, &adapter, &encoded, &config)?;
    fs::create_dir_all(&args.out).with_context(|| format!("{}", args.out.display()))?;
    let checkpoint = args.out.join(CHECKPOINT);
    if checkpoint.exists() {
        tuner.restore(&checkpoint)?;
        eprintln!("going on after step {} of {}", tuner.done(), tuner.steps());
    }
    let before = measure(None)?;
    let stop = interrupted()?;
    tuner.freeze(&|| stop.load(Ordering::Relaxed)).map_err(|error| match error {
        ModelError::Stopped => {
            Interrupted("stopped before a step; the same command goes on".to_owned()).into()
        }
        other => anyhow::Error::from(other),
    })?;
    let mut steps = Vec::new();
    let mut bar = output::Steps::new(cli.json);
    while let Some(step) = tuner.step()? {
        bar.at(&format!("loss {:.3}", step.loss), step.step as u64, step.steps as u64, false);
        if step.step.is_multiple_of(10) || step.step == step.steps {
            tuner.save(&checkpoint)?;
        }
        steps.push(step);
        if stop.load(Ordering::Relaxed) {
            tuner.save(&checkpoint)?;
            bar.done();
            let message =
                format!("stopped after step {} of {}; the same command goes on", tuner.done(), tuner.steps());
            return Err(Interrupted(message).into());
        }
    }
    bar.done();
    tuner.adapter().save(&args.out, &args.model.model)?;
    let after = measure(Some(tuner.adapter()))?;
    fs::remove_file(&checkpoint).ok();
    let report = Report {
        steps,
        examples: train.len(),
        held_out: held_out.len(),
        perplexity_before: before,
        perplexity_after: after,
    };
    fs::write(args.out.join("tuning.json"), serde_json::to_vec_pretty(&report)?)?;
    if cli.json {
        output::json(&report)?;
    } else {
        tell(args, &report);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(args: &Args, report: &Report) {
    if let (Some(first), Some(last)) = (report.steps.first(), report.steps.last()) {
        let seconds: f64 = report.steps.iter().map(|step| step.seconds).sum();
        let steps = report.steps.len();
        sheaf_agent::say!(
            "{} examples, {steps} steps in {seconds:.0} s: loss {:.3} at step {}, {:.3} at step {}.",
            report.examples,
            first.loss,
            first.step,
            last.loss,
            last.step
        );
    }
    if let (Some(before), Some(after)) = (report.perplexity_before, report.perplexity_after) {
        sheaf_agent::say!(
            "Perplexity of {} held-out examples: {before:.2} before, {after:.2} after.",
            report.held_out
        );
    }
    sheaf_agent::say!("The adapter is in {}.", args.out.display());
}

/// Every `n`th example is held out; none for 0.
fn split(examples: Vec<Example>, n: usize) -> (Vec<Example>, Vec<Example>) {
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for (index, example) in examples.into_iter().enumerate() {
        let held = n > 0 && index % n == n - 1;
        if held { held_out.push(example) } else { train.push(example) }
    }
    (train, held_out)
}

/// A flag that Ctrl-C raises; the second Ctrl-C ends the process at once.
fn interrupted() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if raised.swap(true, Ordering::Relaxed) {
                    // The first was heard and is being obeyed at the end of a step; the second means now. The last
                    // checkpoint stands.
                    std::process::abort();
                }
                eprintln!("stopping after this step; once more to stop now");
            }
        });
    });
    Ok(flag)
}
