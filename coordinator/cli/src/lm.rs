//! `sheaf lm`: the language model on one machine, by the same code that the agents use.

mod examples;
mod generate;
mod tune;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use sheaf_data::catalogue::Role;
use sheaf_models::{DeviceChoice, LanguageModel};

use crate::{Cli, data};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Write text after a prompt.
    #[command(after_help = generate::EXAMPLES)]
    Generate(generate::Args),
    /// Tune a low-rank adapter on examples, and say what it did to text that was held out.
    #[command(after_help = tune::EXAMPLES)]
    Tune(tune::Args),
}

/// Which model, on what.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// A model of the catalogue (see `sheaf-agent model list`), a .gguf file, or a folder with config.json, tokenizer.json
    /// and *.safetensors, of the Llama architecture.
    #[arg(long, default_value = "smollm2-135m", value_name = "MODEL")]
    model: String,
    /// auto, cpu, cuda:0, vulkan:0 or wgpu:0; what this build can use is listed by `sheaf-agent devices`.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: DeviceChoice,
}

impl ModelArgs {
    fn load(&self, cli: &Cli) -> Result<LanguageModel> {
        let opened = self.device.open()?;
        if let Some(note) = opened.note {
            eprintln!("{note}");
        }
        let path = self.path(cli)?;
        LanguageModel::load(&path, &opened.compute).with_context(|| format!("model {}", self.model))
    }

    fn path(&self, cli: &Cli) -> Result<PathBuf> {
        let named = Path::new(&self.model);
        if named.exists() {
            return Ok(named.to_owned());
        }
        let assets = cli.assets();
        data::pull(&assets, &self.model, cli.json)?;
        let files = assets.ensure(&self.model, &mut |_| {})?;
        files.paths(Role::Weights).into_iter().next().with_context(|| {
            format!("the asset {} is no language model; give one, or a path that exists", self.model)
        })
    }
}

pub(crate) fn run(cli: &Cli, command: &Command) -> Result<ExitCode> {
    match command {
        Command::Generate(args) => generate::run(cli, args),
        Command::Tune(args) => tune::run(cli, args),
    }
}
