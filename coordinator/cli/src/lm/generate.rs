//! `sheaf lm generate`

use std::{
    io::{Write as _, stdout},
    ops::ControlFlow,
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use sheaf_models::{
    Adapter, LanguageModel,
    slm::{
        chat::Message,
        generate::{Generation, Sampling},
    },
};

use super::ModelArgs;
use crate::{Cli, output};

pub(super) const EXAMPLES: &str = "Examples:
  sheaf lm generate --prompt \"What is a fever?\"
  sheaf lm generate --prompt \"What is a fever?\" --adapter adapter/ --temperature 0
  sheaf lm generate --raw --prompt \"Once upon a time\" --count 8 --seed 7 --json";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to go on from.
    #[arg(long)]
    prompt: String,
    /// What the model is told to be, in models with a chat template.
    #[arg(long)]
    system: Option<String>,
    /// Take the prompt as it is, without the model's chat template.
    #[arg(long)]
    raw: bool,
    /// An adapter's folder, as `sheaf lm tune` or peft write it.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// How many texts; several are written at once, much faster than one after the other.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Tokens to write at most.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// 0 takes the likeliest token always.
    #[arg(long, default_value_t = 0.7)]
    temperature: f64,
    /// Draw among so many likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 50)]
    top_k: usize,
    /// Draw among the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 0.95)]
    top_p: f64,
    /// Above 1 makes tokens that were seen before less likely.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f64,
    /// A text that ends the answer; may be given more than once.
    #[arg(long)]
    stop: Vec<String>,
    /// The same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode> {
    let sampling = Sampling {
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        repetition_penalty: args.repetition_penalty,
        stop: args.stop.clone(),
        seed: args.seed,
    };
    sampling.check()?;
    anyhow::ensure!((1..=1024).contains(&args.count), "--count must be between 1 and 1024");
    let model = args.model.load(cli)?;
    let adapter = args
        .adapter
        .as_deref()
        .map(|folder| Adapter::load(folder).with_context(|| format!("adapter {}", folder.display())))
        .transpose()?;
    let lora = adapter.map(|adapter| adapter.to_device(model.config(), model.device())).transpose()?;
    let prompt = prompt(&model, args)?;
    let began = Instant::now();
    let texts = if args.count == 1 && !cli.json {
        let mut out = stdout().lock();
        let text = model.generate(lora.as_ref(), &prompt, &sampling, &mut |piece| {
            if out.write_all(piece.as_bytes()).and_then(|()| out.flush()).is_err() {
                return ControlFlow::Break(()); // the reader has seen enough
            }
            ControlFlow::Continue(())
        })?;
        let _ = writeln!(out);
        vec![text]
    } else {
        model.generate_batch(lora.as_ref(), &[prompt], args.count, &sampling)?
    };
    report(cli, args, &texts, began.elapsed().as_secs_f64())?;
    Ok(ExitCode::SUCCESS)
}

fn prompt(model: &LanguageModel, args: &Args) -> Result<Vec<u32>> {
    let Some(chat) = model.chat().filter(|_| !args.raw) else {
        return Ok(model.vocabulary().encode(&args.prompt)?);
    };
    let system = args.system.iter().map(|s| Message { role: "system".to_owned(), content: s.clone() });
    let messages: Vec<_> = system.chain([Message::user(&args.prompt)]).collect();
    Ok(chat.encode(&messages, model.vocabulary())?)
}

fn report(cli: &Cli, args: &Args, texts: &[Generation], seconds: f64) -> Result<()> {
    let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
    let rate = tokens as f64 / seconds.max(1e-9);
    if cli.json {
        return output::json(&json!({
            "texts": texts, "seconds": seconds, "tokens": tokens, "tokens_per_second": rate,
        }));
    }
    if args.count > 1 {
        for (index, text) in texts.iter().enumerate() {
            sheaf_agent::say!("[{}] {}\n", index + 1, text.text);
        }
    }
    eprintln!("{tokens} tokens in {seconds:.1} s, {rate:.1} tokens/s, prompt included");
    Ok(())
}
