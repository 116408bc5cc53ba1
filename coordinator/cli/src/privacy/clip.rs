//! `sheaf privacy clip`: how long gradients are when training begins, to choose `[privacy] clip` by.
//!
//! The noise of a step is sigma times the clip, however long gradients are: a clip that none of them comes near pays for nothing. How
//! long they are is a matter of the model and the adapter, and hardly of the texts, so that public ones will do. Private records are
//! not looked at: a clip that was chosen by them would tell of them.

mod lengths;
mod records;

use std::{
    cell::RefCell,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use serde_json::json;
use sheaf_agent::{
    cli::stop::on_signal,
    models, say,
    task::{Resources, rewardds::language},
};
use sheaf_coordinator::{error::Error, privacy::Privacy, run::plan::Plan};
use sheaf_models::{
    Adapter, DeviceChoice, LanguageModel, ModelError,
    train::{
        Encoded, Frozen,
        per_record::{at_once, clipped_sum_from},
    },
};
use sheaf_privacy::Sigma;
use sheaf_proto::fedavg::AdapterSpec;
use tokio_util::sync::CancellationToken;

use crate::{
    Cli,
    client::block_on,
    data,
    output::{self, Interrupted, Steps},
    plan,
};
use lengths::{Lengths, advice, short};
use records::{Texts, Tuned, Watch};

pub(super) const EXAMPLES: &str = "Examples:
  sheaf privacy clip study.toml
      on texts that the plan's language model writes
  sheaf privacy clip study.toml --texts public.txt --count 100 --json
  sheaf privacy clip study.toml --set privacy.clip=0.05
      for a plan that has no clip yet, or to try another one

Never give it private records: the clip stands in the plan, and would tell of them.";

/// What a length at the start says of later.
const GROWS: &str = "Gradients grow several times as the adapter moves away from its start (measured: from 0.06 to 0.6 in 24 steps). A \
                     clip near the median of the start is sound: every record then weighs about the same.";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plan, TOML, with a [privacy] section.
    plan: PathBuf,
    /// Override a key: section.key=value. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Public texts like the records', one a line (questions, where records are questions with answers: the model answers them).
    /// Without it the plan's language model writes texts itself, un-tuned.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Texts to measure on; of a file the first so many.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    count: u32,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode> {
    let plan = plan::read(&args.plan, &args.overrides)?;
    let tuned = Tuned::of(&plan)?;
    let privacy = super::noised(&plan, &args.plan)?;
    let clip =
        privacy.section.clip.ok_or_else(|| Error::bug("a plan that trains with noise has its clip"))?;
    let count = args.count as usize;
    let texts = match &args.texts {
        Some(file) => Texts::Public(read(file, count)?),
        None => Texts::Own(count),
    };
    data::pull(&cli.assets(), &tuned.model, cli.json)?;
    let steps = RefCell::new(Steps::new(cli.json));
    let tell = |what: &str, done, of| steps.borrow_mut().at(what, done, of, false);
    let stop = CancellationToken::new();
    let measured = block_on(async {
        // In a task of its own: measuring holds the thread of this one.
        tokio::spawn(on_signal(stop.clone()));
        let watch = Watch { tell: &tell, cancelled: &|| stop.is_cancelled() };
        tokio::task::block_in_place(|| measure(cli, &tuned, &texts, &watch))
    });
    steps.borrow_mut().done();
    let (lengths, numbers) = match measured {
        Err(_) if stop.is_cancelled() => {
            return Err(Interrupted("interrupted; nothing was measured".to_owned()).into());
        }
        measured => measured?,
    };
    let found = Found { plan: &plan, tuned: &tuned, privacy, clip, lengths, numbers };
    found.show(cli, args.texts.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// The first texts of a file, one a line.
fn read(path: &Path, count: usize) -> Result<Vec<String>, Error> {
    let unusable =
        |problem: &dyn std::fmt::Display| Error::invalid(format!("texts {}: {problem}", path.display()));
    let file = File::open(path).map_err(|e| unusable(&e))?;
    let mut texts = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|e| unusable(&e))?;
        let text = line.trim();
        if !text.is_empty() {
            texts.push(text.to_owned());
        }
        if texts.len() == count {
            break;
        }
    }
    if texts.is_empty() { Err(unusable(&"there is no text in it; write one a line")) } else { Ok(texts) }
}

/// The lengths of the texts' gradients at the start of training, and how many numbers a gradient has.
fn measure(cli: &Cli, tuned: &Tuned, texts: &Texts, watch: &Watch<'_>) -> Result<(Lengths, usize)> {
    let assets = cli.assets();
    (watch.tell)("loading the model", 0, 0);
    let resources = Resources::new(&assets, assets.cache(), None, DeviceChoice::Auto);
    let loaded = models::language(&tuned.model, &resources)?;
    let model: &LanguageModel = &loaded;
    let adapter = Adapter::new(model, &language::config(&tuned.adapter), tuned.seed)?;
    let records = tuned.records(model, texts, watch)?;
    let numbers: usize = adapter.tensors.values().map(|tensor| tensor.data.len()).sum();
    let lengths = Lengths::of(gradients(model, &adapter, &records, numbers, watch)?);
    let nothing = "no text gave a gradient to measure; give other ones with --texts";
    Ok((lengths.ok_or_else(|| Error::invalid(nothing))?, numbers))
}

/// The length of each record's gradient.
fn gradients(
    model: &LanguageModel,
    adapter: &Adapter,
    records: &[Encoded],
    numbers: usize,
    watch: &Watch<'_>,
) -> Result<Vec<f64>, ModelError> {
    let what = "measuring gradients";
    (watch.tell)(what, 0, records.len() as u64);
    let frozen = Frozen::compute(model, &adapter.config, records, watch.cancelled)?;
    let mut lengths = Vec::with_capacity(records.len());
    for piece in frozen.pieces((0..records.len()).collect(), at_once(numbers)) {
        if (watch.cancelled)() {
            return Err(ModelError::Stopped);
        }
        // Lengths are taken before clipping, so that any clip gives the same.
        lengths.extend(clipped_sum_from(model, adapter, &frozen, &piece, 1.0)?.norms);
        (watch.tell)(what, lengths.len() as u64, records.len() as u64);
    }
    Ok(lengths)
}

/// What is said.
struct Found<'a> {
    plan: &'a Plan,
    tuned: &'a Tuned,
    privacy: &'a Privacy,
    clip: f64,
    lengths: Lengths,
    /// Of a gradient.
    numbers: usize,
}

impl Found<'_> {
    fn show(&self, cli: &Cli, file: Option<&Path>) -> Result<()> {
        let Self { plan, tuned, privacy, clip, lengths, numbers } = self;
        let [low, median, high] = [0.1, 0.5, 0.9].map(|share| lengths.quantile(share));
        let (texts, longer, section) = (lengths.count(), lengths.longer_than(*clip), &privacy.section);
        let sigma = privacy.model.sigma().map(Sigma::get);
        let noise = sigma.map(|sigma| sigma * clip);
        let advice = advice(*clip, median);
        if cli.json {
            return output::json(&json!({
                "plan": plan.run.name, "model": tuned.model, "adapter": tuned.adapter, "numbers": numbers,
                "texts": texts, "file": file.map(|file| file.display().to_string()),
                "length": { "p10": low, "median": median, "p90": high },
                "clip": clip, "longer_than_clip": longer, "clip_over_median": clip / median,
                "sigma": sigma, "noise": noise, "batch": tuned.batch, "unit": section.unit, "units": section.units,
                "advice": advice,
            }));
        }
        say!("{}: how long the gradients of public texts are when training begins", plan.run.name);
        say!("  model   {}, {}", tuned.model, adapter_words(&tuned.adapter));
        match file {
            Some(file) => say!("  texts   {texts} of {}", file.display()),
            None => say!("  texts   {texts} that the model wrote, un-tuned"),
        }
        say!("  length  median {}; 10 % {}, 90 % {}", short(median), short(low), short(high));
        say!("  clip    {clip}: {} of the texts are longer", output::percent(Some(longer)));
        if let (Some(sigma), Some(noise), Some(units)) = (sigma, noise, section.units) {
            say!(
                "  noise   {} (sigma {sigma:.4} times clip) in each of {numbers} numbers, on the sum of about {} of {units} units",
                short(noise),
                units.min(tuned.batch as u64)
            );
        }
        say!("{advice}");
        say!("{GROWS}");
        Ok(())
    }
}

fn adapter_words(adapter: &AdapterSpec) -> String {
    let AdapterSpec { rank, alpha, targets, layers, .. } = adapter;
    let layers = layers.map_or_else(|| "all layers".to_owned(), |layers| format!("the top {layers} layers"));
    format!("adapter of rank {rank}, alpha {alpha}, {} of {layers}", targets.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_said_in_words() {
        let targets = vec!["q_proj".to_owned(), "v_proj".to_owned()];
        let adapter = AdapterSpec { rank: 2, alpha: 4.0, dropout: 0.0, targets, layers: Some(4) };
        assert_eq!(
            adapter_words(&adapter),
            "adapter of rank 2, alpha 4, q_proj and v_proj of the top 4 layers"
        );
        assert!(adapter_words(&AdapterSpec { layers: None, ..adapter }).ends_with("of all layers"));
    }

    #[test]
    fn the_first_texts_of_a_file_are_read_and_empty_lines_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.txt");
        std::fs::write(&path, "\n one \n\ntwo\nthree\n").unwrap();
        assert_eq!(read(&path, 2).unwrap(), ["one", "two"]);
        assert_eq!(read(&path, 9).unwrap(), ["one", "two", "three"]);
        std::fs::write(&path, " \n").unwrap();
        assert!(read(&path, 9).unwrap_err().to_string().contains("no text"));
        assert!(read(&folder.path().join("absent"), 9).unwrap_err().to_string().contains("absent"));
    }
}
