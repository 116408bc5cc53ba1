//! `sheaf run report`, `verify`, `evaluate`: the files a run leaves behind.

use sheaf_agent::say;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sheaf_coordinator::report::{
    AttachedEvaluation,
    bundle::{Manifest, ManifestBody},
};
use sheaf_proto::{
    BlobId,
    v1::{AttachEvaluationRequest, ReportRequest, RunRef},
};
use sheaf_transport::digest::sha256_hex;

use crate::{Cli, client::Operator, output, plan, predict::Model, reference};

pub(crate) async fn run(
    cli: &Cli,
    operator: &mut Operator,
    run: &str,
    out: Option<PathBuf>,
    version: Option<u32>,
) -> Result<()> {
    let id = full_id(operator, run).await?;
    let out = out.unwrap_or_else(|| Path::new("runs").join(&id));
    let files = fetch_report(operator, &id, version, &out).await?;
    if cli.json {
        return output::json(&json!({"run": id, "out": out, "files": files}));
    }
    say!("{}", out.join("report.html").display());
    say!("{} files in {}; check them: sheaf run verify {}", files.len(), out.display(), out.display());
    Ok(())
}

async fn full_id(operator: &mut Operator, run: &str) -> Result<String> {
    let detail = operator.rpc.show_run(RunRef { run_id: run.to_owned() }).await?.into_inner();
    Ok(detail.summary.unwrap_or_default().run_id)
}

/// Fetches every file of a report into a folder.
pub(crate) async fn fetch_report(
    operator: &mut Operator,
    run: &str,
    version: Option<u32>,
    out: &Path,
) -> Result<Vec<String>> {
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let request = ReportRequest { run_id: run.to_owned(), version: version.unwrap_or(0) };
    let files = operator.rpc.report(request).await?.into_inner().files;
    let mut names = Vec::new();
    for file in files {
        let strange = |part: &str| part.is_empty() || part.starts_with('.') || part.contains('\\');
        ensure!(!file.name.split('/').any(strange), "strange file name {}", file.name);
        let path = out.join(&file.name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        operator.blobs.download(BlobId::from_wire(file.blob.as_ref())?, &path).await?;
        names.push(file.name);
    }
    Ok(names)
}

/// Checks a fetched report against its manifest.
pub(crate) fn verify(cli: &Cli, report: &Path) -> Result<ExitCode> {
    let path = report.join("manifest.json");
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    let manifest: Manifest = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let fingerprint = manifest.signature.verify(manifest.signed.as_bytes())?;
    let body: ManifestBody = serde_json::from_str(&manifest.signed)?;
    for (name, expected) in &body.files {
        let file = report.join(name);
        let found = sha256_hex(&fs::read(&file).with_context(|| file.display().to_string())?);
        ensure!(found == *expected, "{name} was changed after it was signed: {found}, signed {expected}");
    }
    if cli.json {
        output::json(&json!({
            "ok": true, "run": body.run, "version": body.version, "files": body.files, "ca_fingerprint": fingerprint,
        }))?;
    } else {
        say!(
            "{} files of run {}, version {}, are as they were signed.",
            body.files.len(),
            body.run,
            body.version
        );
        say!("Signed under the authority (SHA-256) {fingerprint}; compare it with `sheaf info`.");
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures a run's model on a central test set and attaches the figures.
pub(crate) async fn evaluate(cli: &Cli, operator: &mut Operator, run: &str, plan_file: &Path) -> Result<()> {
    let id = full_id(operator, run).await?;
    let plan = plan::read(plan_file, &[])?;
    let source =
        plan.data.as_ref().with_context(|| format!("{} has no [data] section", plan_file.display()))?;
    let dataset = source.open(&plan.schema, &cli.assets())?;
    let folder = std::env::temp_dir().join(format!("sheaf-evaluate-{}-{id}", std::process::id()));
    fetch_report(operator, &id, None, &folder).await?;
    let model = Model::read(&folder);
    fs::remove_dir_all(&folder)?;
    let scores = reference::score(&model?, &dataset, "central")?;
    let scores = scores.with_context(|| format!("{} has no test rows", plan_file.display()))?;
    let attached = AttachedEvaluation { test: Some(scores.clone()), ..AttachedEvaluation::default() };
    let request = AttachEvaluationRequest { run_id: id, evaluation_json: serde_json::to_string(&attached)? };
    operator.rpc.attach_evaluation(request).await?;
    if cli.json {
        return output::json(&scores);
    }
    say!(
        "{} test rows: accuracy {}, balanced {}",
        scores.rows,
        output::percent(Some(scores.accuracy)),
        output::percent(Some(scores.balanced_accuracy))
    );
    Ok(())
}
