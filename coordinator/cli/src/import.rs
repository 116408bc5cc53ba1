//! `sheaf import`: the updates of peers that speak the published, pairwise form of AFL.

use sheaf_agent::say;
use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::json;
use sheaf_analytic::{
    FeatureMap, FeatureSpec, Normalize, Sums, SumsShape,
    aa_law::{self, ClientUpdate},
    solve,
};
use sheaf_coordinator::report::bundle::MODEL_FILE;
use sheaf_data::{Encoding, Inputs, Schema};
use sheaf_proto::{
    afl::WORKLOAD,
    model::{ModelCard, write_model},
};

use crate::{Cli, output};

pub(crate) const EXAMPLE: &str = "Each update is a safetensors file with, for its K-th client,
  weight [D, C]  W_k = C_k^-1 X'Y      f64 or f32
  corr   [D, D]  C_k = X'X + gamma I   f64 or f32
  counts [C]     rows of each class    i64
(AFL, CVPR 2025, arXiv 2405.16240). X'Y = C_k W_k and X'X = C_k - gamma I are put back on the integer grid and
summed exactly, so the order of the files does not matter.

Example:
  sheaf import --gamma 1.0 --lambda 0.1 --out merged/ hospital-a.safetensors hospital-b.safetensors";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The updates, one file a client.
    #[arg(required = true)]
    updates: Vec<PathBuf>,
    /// The regularisation each client added to its C_k.
    #[arg(long, default_value_t = 1.0)]
    gamma: f64,
    /// The ridge parameter of the merged model.
    #[arg(long, default_value_t = 1.0)]
    lambda: f64,
    /// Rows were scaled to length 1 ("l2") or left as they were ("none").
    #[arg(long, default_value = "l2", value_parser = ["l2", "none"])]
    normalize: String,
    /// s of the integer grid 2^-s.
    #[arg(long, default_value_t = 14)]
    quantisation: u32,
    /// Where the merged model goes.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(cli: &Cli, args: &Args) -> Result<ExitCode> {
    ensure!(
        !args.out.join(MODEL_FILE).exists(),
        "{} holds a model already; choose another --out",
        args.out.display()
    );
    let mut merged: Option<(FeatureSpec, Sums)> = None;
    for path in &args.updates {
        add(args, path, &mut merged).with_context(|| path.display().to_string())?;
    }
    let Some((features, sums)) = merged else { bail!("no update was given") };
    let weights = solve(&sums, args.lambda)?;
    let classes: Vec<String> = (0..sums.classes()).map(|class| class.to_string()).collect();
    let card = ModelCard {
        schema: 1,
        workload: WORKLOAD.to_owned(),
        sha256: weights.sha256(),
        classes: classes.clone(),
        lambda: args.lambda,
        reading: Schema::default(),
        encoding: Encoding { classes, inputs: Inputs::Dense { dim: features.input_dim, standardize: None } },
        features: features.clone(),
        rows: Some(sums.rows()),
        sites: args.updates.iter().map(|path| path.display().to_string()).collect(),
    };
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    fs::write(args.out.join(MODEL_FILE), write_model(&weights, &features)?)?;
    fs::write(args.out.join("model.json"), serde_json::to_vec_pretty(&card)?)?;
    if cli.json {
        output::json(&json!({"out": args.out, "rows": sums.rows(), "sha256": card.sha256}))?;
    } else {
        say!("{} updates, {} rows: {}", args.updates.len(), sums.rows(), args.out.join(MODEL_FILE).display());
        say!("Model SHA-256: {}", card.sha256);
    }
    Ok(ExitCode::SUCCESS)
}

fn add(args: &Args, path: &PathBuf, merged: &mut Option<(FeatureSpec, Sums)>) -> Result<()> {
    let bytes = fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let (weight, corr) = (file.tensor("weight")?, file.tensor("corr")?);
    let &[dim, classes] = weight.shape() else { bail!("`weight` must have two dimensions [D, C]") };
    ensure!(corr.shape() == [dim, dim], "`corr` must be [{dim}, {dim}], it is {:?}", corr.shape());
    let counts = counts(&file.tensor("counts")?, classes)?;
    let update = ClientUpdate { dim, classes, weight: floats(&weight)?, corr: floats(&corr)? };
    let rows = counts.iter().sum();
    let sums = aa_law::import(&update, args.gamma, &counts, rows, args.quantisation)?;
    let normalize = if args.normalize == "l2" { Normalize::L2 } else { Normalize::None };
    let features = FeatureSpec {
        input_dim: dim,
        map: FeatureMap::Identity,
        normalize,
        bits: args.quantisation,
        bias: false,
    };
    features.validate()?;
    sums.validate(SumsShape::of(&features, classes).max_abs)?;
    match merged {
        None => *merged = Some((features, sums)),
        Some((_, total)) => total.add(&sums)?,
    }
    Ok(())
}

fn floats(tensor: &TensorView<'_>) -> Result<Vec<f64>> {
    Ok(match tensor.dtype() {
        Dtype::F64 => tensor.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::F32 => {
            tensor.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
        }
        other => bail!("tensors must be f64 or f32, this one is {other:?}"),
    })
}

fn counts(tensor: &TensorView<'_>, classes: usize) -> Result<Vec<u64>> {
    ensure!(tensor.dtype() == Dtype::I64 && tensor.shape() == [classes], "`counts` must be i64 [{classes}]");
    let words = tensor.data().as_chunks::<8>().0.iter();
    words.map(|b| u64::try_from(i64::from_le_bytes(*b)).context("a count is negative")).collect()
}
