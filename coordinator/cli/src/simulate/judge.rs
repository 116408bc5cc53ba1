//! What a simulation alone can say of exchanged texts, since it has all private records: exact figures of every arm, the model of
//! all records in one place, and what the released texts repeat of private ones. Nothing of it is a part of a deployment.

mod classifiers;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use sheaf_agent::task::{Resources, afl, fdkt::transfer};
use sheaf_analytic::{Sums, SumsShape, solve};
use sheaf_coordinator::{
    report::{ArmReport, Judged, NearCopies},
    run::plan::Plan,
    workload::fdkt::FdktOptions,
};
use sheaf_data::{AssetStore, Dataset, Encoding, Split};
use sheaf_proto::{
    afl::SumsSpec,
    fdkt::{Arm, TaskModel, Texts, Transfer, TransferSpec},
};
use sheaf_text::{from_lines, overlap::RunIndex};

use super::{DEVICE, Prepared, canaries, workspace};

/// From so many words in a row on, a text repeats a record.
const NEAR_COPY: usize = 20;
/// Shorter runs are anybody's.
const SHORTEST_RUN: usize = 5;

/// Judges the texts in the report's folder. `said` is what the sites have said; `tell` hears what is done now, and how much of how
/// much is. Fails when cancelled.
pub(super) fn judge(
    assets: &AssetStore,
    plan: &Plan,
    prepared: &Prepared,
    (out, said): (&Path, &[ArmReport]),
    tell: &mut dyn FnMut(&str, u64, u64),
    cancelled: &dyn Fn() -> bool,
) -> Result<Judged> {
    tell("measuring with all records what the texts are worth", 0, 0);
    let options = FdktOptions::of(plan)?;
    let encoding = Encoding::declared(&plan.schema)?.context("the plan declares no classes")?;
    let features = options.afl().features(encoding.input_dim());
    let sums = SumsSpec { schema: plan.schema.clone(), encoding, features, privacy: None };
    let cache = workspace::cache(assets);
    let resources = Resources::new(assets, &cache, None, DEVICE);
    let mut spec = TransferSpec {
        sums,
        lambda: options.lambda,
        weight: options.private_weight,
        texts: Vec::new(),
        task: options.task.clone(),
        classifier: options.classifier()?,
    };
    let (mut sets, mut written) = (Vec::new(), Vec::new());
    for texts in Texts::ALL {
        let path = out.join(format!("texts-{}.jsonl", texts.name()));
        if path.exists() {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            if !bytes.is_empty() {
                sets.push(transfer::read(&bytes, &spec.sums, &resources, cancelled)?);
                written.push(from_lines(&bytes).with_context(|| path.display().to_string())?);
                spec.texts.push(texts);
            }
        }
    }
    let (arms, rows) = arms(&spec, prepared, &sets, cancelled)?;
    let pooled = pooled(&spec, prepared, cancelled)?;
    let language_model = match &spec.classifier {
        Some(how) => {
            let known = classifiers::exact(said, plan.privacy.is_some(), rows);
            Some(classifiers::judge((&spec, how), prepared, &written, known, &resources, tell, cancelled)?)
        }
        None => None,
    };
    let released = released(prepared, out)?;
    let each = plan.simulate.canaries;
    let canaries =
        (each > 0).then(|| canaries::searched(&prepared.sites, each, released.iter().map(String::as_str)));
    let near_copies = near_copies(prepared, &released)?;
    Ok(Judged { rows, arms, pooled, language_model, near_copies, canaries })
}

/// Every site's analytic heads on its own test records, all sites together.
fn arms(
    spec: &TransferSpec,
    prepared: &Prepared,
    sets: &[Dataset],
    cancelled: &dyn Fn() -> bool,
) -> Result<(BTreeMap<Arm, f64>, u64)> {
    let mut total = Transfer::default();
    for site in &prepared.sites {
        let own = prepared.inputs().subset(&site.rows);
        let heads = transfer::heads(spec, &own, sets, cancelled)?;
        total.add(&transfer::measured(&spec.sums, heads, &own, cancelled)?);
    }
    Ok((shares(&total, TaskModel::Analytic), total.rows))
}

/// The accuracies of a task model's arms.
fn shares(total: &Transfer, task: TaskModel) -> BTreeMap<Arm, f64> {
    Arm::ALL.into_iter().filter_map(|arm| Some((arm, total.accuracy(task, arm)?))).collect()
}

/// One analytic head of all sites' training records, on the same test records.
fn pooled(spec: &TransferSpec, prepared: &Prepared, cancelled: &dyn Fn() -> bool) -> Result<f64> {
    let shape = SumsShape::of(&spec.sums.features, spec.sums.encoding.classes.len());
    let mut sums = Sums::zero(shape.dim, shape.classes, shape.bits);
    let sites: Vec<Dataset> =
        prepared.sites.iter().map(|site| prepared.inputs().subset(&site.rows)).collect();
    for site in &sites {
        sums.add(&afl::sums(&spec.sums, site, cancelled)?)?;
    }
    let weights = solve(&sums, spec.lambda)?;
    let mut total = Transfer::default();
    for site in &sites {
        total.add(&transfer::measured(&spec.sums, vec![(Arm::Local, weights.clone())], site, cancelled)?);
    }
    Ok(total.accuracy(TaskModel::Analytic, Arm::Local).unwrap_or(0.0))
}

/// The texts that left the sites.
fn released(prepared: &Prepared, out: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for site in &prepared.sites {
        let path = out.join("synthetic").join(format!("{}.jsonl", site.name));
        // A site that left the run has none.
        let lines = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            lines => lines.with_context(|| path.display().to_string())?,
        };
        let lines = from_lines(&lines).with_context(|| path.display().to_string())?;
        texts.extend(lines.into_iter().map(|line| line.text));
    }
    Ok(texts)
}

/// Words in a row that texts which left a site share with any site's training records.
fn near_copies(prepared: &Prepared, released: &[String]) -> Result<NearCopies> {
    let mut records = Vec::new();
    for site in &prepared.sites {
        let own = prepared.site_data(site);
        records.extend(own.rows(Split::Train).into_iter().filter_map(|row| own.text(row).map(str::to_owned)));
    }
    let index = RunIndex::new(&records, SHORTEST_RUN)?;
    let mut near = NearCopies { texts: released.len(), longest_run: 0, words: NEAR_COPY, found: 0 };
    for text in released {
        let longest = index.longest(text).map_or(0, |(_, run)| run.len);
        near.longest_run = near.longest_run.max(longest);
        near.found += usize::from(longest >= NEAR_COPY);
    }
    Ok(near)
}
