//! `sheaf predict`

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use sheaf_agent::{features, task::Resources};
use sheaf_analytic::{Featurizer, Weights, scores};
use sheaf_coordinator::report::bundle::MODEL_FILE;
use sheaf_data::{
    Dataset, Source,
    catalogue::{Catalogue, Role},
};
use sheaf_models::DeviceChoice;
use sheaf_proto::model::{ModelCard, read_model};

use crate::{Cli, data, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A report's folder, with model.safetensors and model.json.
    #[arg(long)]
    model: PathBuf,
    /// Records: .csv, .csv.gz, .parquet, .safetensors, .npy or .jsonl; for a model with a backbone a .csv is an index of
    /// images (`path`) or a list of texts (`text`).
    #[arg(long)]
    data: PathBuf,
}

/// Rows scored at a time.
const BLOCK: usize = 4096;

/// A published model, loaded.
pub(crate) struct Model {
    pub(crate) card: ModelCard,
    pub(crate) weights: Weights,
}

impl Model {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| path.display().to_string())
        };
        let card: ModelCard = serde_json::from_slice(&read("model.json")?).context("model.json")?;
        card.encoding.check()?;
        let weights = read_model(&read(MODEL_FILE)?, &card.features, card.classes.len())?;
        if weights.sha256() != card.sha256 {
            bail!("{MODEL_FILE} is not the model that model.json describes; fetch the report again");
        }
        Ok(Self { card, weights })
    }

    /// Scores of rows, [rows, classes].
    pub(crate) fn scores(&self, dataset: &Dataset, rows: &[usize]) -> Result<Vec<f64>> {
        let featurizer = Featurizer::new(&self.card.features)?;
        let inputs = self.card.encoding.inputs(dataset, rows)?;
        Ok(scores(
            &featurizer.quantise(&inputs, rows.len())?,
            rows.len(),
            &self.weights,
            self.card.features.bits,
        )?)
    }
}

#[expect(clippy::case_sensitive_file_extension_comparisons, reason = "the name is in lower case already")]
fn source_of(path: &Path) -> Result<Source> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let some = || Some(path.to_owned());
    let none = || None;
    Ok(if [".csv", ".csv.gz", ".parquet"].iter().any(|end| name.ends_with(end)) {
        Source::Table { path: some(), asset: None }
    } else if name.ends_with(".safetensors") {
        Source::Features {
            train: some(),
            test: none(),
            train_x: none(),
            train_y: none(),
            test_x: none(),
            test_y: none(),
            asset: None,
        }
    } else if name.ends_with(".npy") {
        Source::Features {
            train: none(),
            test: none(),
            train_x: some(),
            train_y: none(),
            test_x: none(),
            test_y: none(),
            asset: None,
        }
    } else if name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") {
        Source::Text { path: some(), asset: None }
    } else {
        bail!(
            "{}: unknown kind of file; use .csv, .csv.gz, .parquet, .safetensors, .npy or .jsonl",
            path.display()
        )
    })
}

/// The class with the highest score; ties go to the lower class, as in every evaluation.
fn best(scores: &[f64]) -> usize {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if scores.get(best).is_none_or(|b| score > b) {
            best = class;
        }
    }
    best
}

/// The records, or what the model's backbone makes of them. Nothing of them is kept.
fn records(cli: &Cli, model: &Model, path: &Path) -> Result<Dataset> {
    let (assets, reading) = (cli.assets(), &model.card.reading);
    let Some(backbone) = &reading.backbone else {
        return Ok(source_of(path)?.open(reading, &assets)?);
    };
    let encodes_text = Catalogue::known()?.model(&backbone.model)?.has_role(Role::Tokenizer);
    let source = match source_of(path)? {
        // For a backbone a table lists images, or texts.
        Source::Table { path, .. } if encodes_text => Source::Text { path, asset: None },
        Source::Table { path, .. } => Source::Images { index: path, pack: None, size: None, asset: None },
        other => other,
    };
    data::pull(&assets, &backbone.model, cli.json)?;
    let scratch = tempfile::tempdir()?;
    let resources = Resources::new(&assets, scratch.path(), None, DeviceChoice::Auto);
    Ok(features::open(&source, reading, &resources, &|| false)?.dataset)
}

pub(crate) fn run(cli: &Cli, args: &Args) -> Result<ExitCode> {
    let model = Model::read(&args.model)?;
    let dataset = records(cli, &model, &args.data)?;
    let rows: Vec<usize> = (0..dataset.len()).collect();
    let classes = &model.card.classes;
    let mut out = csv::Writer::from_writer(io::stdout().lock());
    let mut head = vec!["row".to_owned(), "predicted".to_owned()];
    head.extend(classes.iter().map(|class| format!("score_{class}")));
    if !cli.json {
        out.write_record(&head)?;
    }
    let (mut right, mut labelled) = (0_u64, 0_u64);
    let mut records = Vec::new();
    for block in rows.chunks(BLOCK) {
        for (row, scores) in block.iter().zip(model.scores(&dataset, block)?.chunks_exact(classes.len())) {
            let predicted = classes.get(best(scores)).cloned().unwrap_or_default();
            if let Some(label) = dataset.labels().get(*row) {
                labelled += 1;
                right += u64::from(label == predicted);
            }
            if cli.json {
                records.push(json!({"row": row, "predicted": predicted, "scores": scores}));
            } else {
                let mut record = vec![row.to_string(), predicted];
                record.extend(scores.iter().map(ToString::to_string));
                out.write_record(&record)?;
            }
        }
    }
    out.flush()?;
    drop(out);
    let accuracy = (labelled > 0).then(|| right as f64 / labelled as f64);
    if cli.json {
        output::json(&json!({"classes": classes, "accuracy": accuracy, "rows": records}))?;
    } else if let Some(accuracy) = accuracy {
        eprintln!(
            "{labelled} of {} rows have a label; accuracy {}",
            rows.len(),
            output::percent(Some(accuracy))
        );
    }
    Ok(ExitCode::SUCCESS)
}
