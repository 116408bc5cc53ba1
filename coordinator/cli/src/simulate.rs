//! `sheaf simulate`: a whole federation on this machine. The coordinator is a process of its own; agents are
//! processes up to [`MAX_PROCESSES`] sites and tasks of this process beyond, over the same gRPC services with the
//! same certificates either way.

mod canaries;
mod compare;
mod federation;
mod judge;
mod outcome;
mod reward;
mod samples;
#[cfg(test)]
mod tests;
mod workspace;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use sheaf_agent::{features, task::Resources};
use sheaf_coordinator::{
    llm::config::Kind,
    run::plan::{AgentKind, Plan},
    workload::{
        fdkt::FdktOptions,
        fedavg::{FedavgOptions, HeadKind},
        rewardds::RewarddsOptions,
    },
};
use sheaf_data::{AssetStore, Dataset, Partition, Schema, SiteRows, Split, partition};
use sheaf_models::DeviceChoice;
use sheaf_proto::rewardds::Arm;
use sheaf_text::{overlap::near_any_of, words::words};
use sheaf_transport::digest::sha256_hex;
use tokio_util::sync::CancellationToken;

use crate::{
    Cli,
    client::block_on,
    data,
    output::{Interrupted, Steps},
    plan,
};
use federation::Federation;
use workspace::Workspace;

/// What a simulation's agents, and the reference they are compared with, compute features on.
const DEVICE: DeviceChoice = DeviceChoice::Cpu;

/// Above this many sites agents are tasks of the simulator instead of processes.
const MAX_PROCESSES: usize = 16;

pub(crate) const EXAMPLES: &str = "Examples:
  sheaf simulate scenarios/heart-disease.toml
  sheaf simulate plan.toml --set partition.sites=1000 --set partition.kind=iid --out runs/iid
  sheaf simulate scenarios/mnist.toml --agents inline --json > report.json";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plan, TOML, with a [data] section and, but for data with sites of their own, a [partition] section.
    plan: PathBuf,
    /// Override a key: section.key=value. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Where the report goes; runs/ID when absent. An interrupted simulation goes on with the same --out.
    #[arg(long)]
    out: Option<PathBuf>,
    /// "process" or "inline"; by the number of sites when absent.
    #[arg(long, value_enum)]
    agents: Option<Agents>,
    /// Keep the work folder (the coordinator's home, the sites' data and logs).
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Agents {
    Process,
    Inline,
}

impl From<Agents> for AgentKind {
    fn from(agents: Agents) -> Self {
        match agents {
            Agents::Process => Self::Process,
            Agents::Inline => Self::Inline,
        }
    }
}

pub(crate) fn run(cli: &Cli, args: &Args) -> Result<ExitCode> {
    let began = Instant::now();
    let plan = plan::read(&args.plan, &args.overrides)?;
    let mut steps = Steps::new(cli.json);
    let prepared = prepare(cli, &plan, &mut steps)?;
    let asked = args.agents.map(AgentKind::from).or(plan.simulate.agents);
    let kind = asked.unwrap_or(if prepared.sites.len() <= MAX_PROCESSES {
        AgentKind::Process
    } else {
        AgentKind::Inline
    });
    let workspace = Workspace::open(&plan, args.out.as_deref())?;
    let stop = CancellationToken::new();
    let done = block_on(async {
        // In a task of its own: judging a finished run holds the thread of this one.
        tokio::spawn(sheaf_agent::cli::stop::on_signal(stop.clone()));
        let work = Box::pin(federate(cli, &workspace, &plan, &prepared, kind, &mut steps, &stop));
        until_stopped(work, &stop, workspace.out()).await
    });
    steps.done();
    let detail = done.with_context(|| format!("logs are in {}", workspace.work().display()));
    let report = match detail {
        Ok(report) => report,
        Err(error) => return Err(unwrap_interrupt(error)),
    };
    outcome::print(cli, &prepared, &workspace, &report, began.elapsed())?;
    if !args.keep {
        workspace.clean()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Does a simulation's work until it is done, or `stop` is cancelled: then what is under way is dropped, its processes with it. Work
/// that holds its thread is not dropped before it has heard of `stop` by itself; what it fails with then is the interruption.
async fn until_stopped<T>(
    work: impl Future<Output = Result<T>>,
    stop: &CancellationToken,
    out: &Path,
) -> Result<T> {
    let done = tokio::select! {
        biased;
        done = work => Some(done),
        () = stop.cancelled() => None,
    };
    if let Some(done) = done
        && (done.is_ok() || !stop.is_cancelled())
    {
        return done;
    }
    let message = format!("interrupted; go on with the same command and --out {}", out.display());
    Err(Interrupted(message).into())
}

/// An interruption needs no pointer to logs.
fn unwrap_interrupt(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Interrupted>() {
        Ok(interrupted) => interrupted.into(),
        Err(error) => error,
    }
}

/// The data of a simulation, read and cut into sites.
pub(crate) struct Prepared {
    /// What the sites get.
    dataset: Dataset,
    /// The features that stand for it, where the plan has a backbone.
    features: Option<Dataset>,
    sites: Vec<SiteRows>,
    central_test: bool,
    /// Training rows that were left out since a test row nearly equals them.
    duplicates: usize,
}

fn prepare(cli: &Cli, plan: &Plan, steps: &mut Steps) -> Result<Prepared> {
    let assets = cli.assets();
    let Some(source) = &plan.data else {
        bail!("a simulation needs a [data] section in the plan: where the records are");
    };
    if let Some(id) = source.asset() {
        data::pull(&assets, id, cli.json)?;
    }
    steps.at("reading the records", 0, 0, false);
    let dataset = source.open(&plan.schema, &assets)?;
    let central_test = plan.evaluate.central.unwrap_or_else(|| source.has_test());
    let by_column = Partition::Column { column: None };
    let how = plan.partition.as_ref().unwrap_or(&by_column);
    let mut sites = partition(&dataset, &plan.schema, how, central_test)?;
    if let Some(named) = &plan.run.sites {
        sites.retain(|site| named.iter().any(|name| name.as_str() == site.name));
    }
    let duplicates = if plan.simulate.deduplicate { deduplicate(&dataset, &mut sites)? } else { 0 };
    if let Some(most) = plan.simulate.rows_per_site {
        sites.iter_mut().for_each(|site| fewer(&dataset, &plan.schema, site, most));
    }
    if plan.simulate.canaries > 0 && !sites_write(plan) {
        bail!(
            "[simulate] canaries are searched for in texts that sites write: that takes workload = \"fdkt\" with synthesiser = \
             \"dp-lora\", and `synthetic` or `fdkt` among its arms"
        );
    }
    let mut dataset = held_only(dataset, &mut sites, central_test);
    canaries::plant(&mut dataset, &sites, &plan.schema, plan.simulate.canaries)?;
    let rows =
        |site: &SiteRows, split| site.rows.iter().filter(|row| dataset.split()[**row] == split).count();
    let held = |split| sites.iter().map(|site| rows(site, split)).sum::<usize>();
    steps.note(&format!(
        "{} training rows and {} test rows at {} sites{}",
        held(Split::Train),
        if central_test { dataset.rows(Split::Test).len() } else { held(Split::Test) },
        sites.len(),
        if central_test { ", the test rows held centrally" } else { "" },
    ));
    if plan.simulate.deduplicate {
        steps.note(&format!("{duplicates} training rows left out: a test row says the same, or nearly"));
    }
    for model in language_models(plan).into_iter().chain(writer(plan)) {
        data::pull(&assets, &model, cli.json)?;
    }
    let features = features(cli, plan, &assets, &dataset, steps)?;
    Ok(Prepared { dataset, features, sites, central_test, duplicates })
}

/// Words of an n-gram, and the Jaccard similarity from which on two texts say nearly the same.
const NEAR: (usize, f64) = (3, 0.8);

/// Takes training rows out of the sites whose text stands among the test rows, or nearly; how many.
fn deduplicate(dataset: &Dataset, sites: &mut [SiteRows]) -> Result<usize> {
    let held = |split| {
        let mut rows: Vec<usize> = dataset.rows(split);
        rows.retain(|row| dataset.text(*row).is_some());
        rows
    };
    let (test, train) = (held(Split::Test), held(Split::Train));
    let said = |rows: &[usize]| -> Vec<Vec<String>> {
        rows.iter().map(|row| words(dataset.text(*row).unwrap_or_default())).collect()
    };
    let (ngram, threshold) = NEAR;
    let near = near_any_of(&said(&train), &said(&test), ngram, threshold)?;
    let out: BTreeSet<usize> =
        train.iter().zip(near).filter(|(_, near)| *near).map(|(row, _)| *row).collect();
    let mut dropped = 0;
    for site in sites {
        let before = site.rows.len();
        site.rows.retain(|row| !out.contains(row));
        dropped += before - site.rows.len();
    }
    Ok(dropped)
}

/// Whether a row is of a class that the plan is about; every row where it declares none.
fn is_about(dataset: &Dataset, schema: &Schema, row: usize) -> bool {
    let Some(declared) = &schema.declared else { return true };
    dataset.labels().get(row).is_some_and(|label| declared.classes.iter().any(|class| class == label))
}

/// Leaves a site `most` of its training rows of the classes that the plan is about: a draw by the rows' numbers and the site's
/// name, the same on every machine.
fn fewer(dataset: &Dataset, schema: &Schema, site: &mut SiteRows, most: usize) {
    let trains = |row: usize| dataset.split()[row] == Split::Train;
    let mut training: Vec<usize> =
        site.rows.iter().copied().filter(|row| trains(*row) && is_about(dataset, schema, *row)).collect();
    training.sort_by_cached_key(|row| sha256_hex(format!("{} {row}", site.name).as_bytes()));
    let keep: BTreeSet<usize> = training.into_iter().take(most).collect();
    site.rows.retain(|row| !trains(*row) || keep.contains(row));
}

/// The rows that a site has, or that are held centrally to test on: the others are nobody's, and nothing is computed of them.
fn held_only(dataset: Dataset, sites: &mut [SiteRows], central_test: bool) -> Dataset {
    let mut held: BTreeSet<usize> = sites.iter().flat_map(|site| site.rows.iter().copied()).collect();
    if central_test {
        held.extend(dataset.rows(Split::Test));
    }
    if held.len() == dataset.len() {
        return dataset;
    }
    let held: Vec<usize> = held.into_iter().collect();
    for row in sites.iter_mut().flat_map(|site| &mut site.rows) {
        // Every row of a site is held.
        *row = held.partition_point(|other| other < row);
    }
    dataset.subset(&held)
}

/// What the backbone makes of all records. The sites' agents find the same features in the shared cache, whatever the
/// partition, and a second simulation finds them all.
fn features(
    cli: &Cli,
    plan: &Plan,
    assets: &AssetStore,
    dataset: &Dataset,
    steps: &mut Steps,
) -> Result<Option<Dataset>> {
    let Some(backbone) = &plan.schema.backbone else {
        return Ok(None);
    };
    data::pull(assets, &backbone.model, cli.json)?;
    let cache = workspace::cache(assets);
    let resources = Resources::new(assets, &cache, None, DEVICE);
    let what = format!("computing features with {}", backbone.model);
    let opened = features::apply(dataset.clone(), &plan.schema, &resources, &mut |done, all| {
        steps.at(&what, done as u64, all as u64, false);
        Ok(())
    })?;
    let backend = opened.backend.unwrap_or_default();
    steps.note(&format!("features of {} rows by {} on {backend}", opened.dataset.len(), backbone.model));
    Ok(Some(opened.dataset))
}

/// Starts the federation, runs the plan, measures what can only be measured here, and fetches the report. `stop` is heard where that
/// holds the thread.
async fn federate(
    cli: &Cli,
    workspace: &Workspace,
    plan: &Plan,
    prepared: &Prepared,
    kind: AgentKind,
    steps: &mut Steps,
    stop: &CancellationToken,
) -> Result<outcome::Finished> {
    let mut federation = Federation::start(cli, workspace, plan, prepared, kind, steps).await?;
    let ran = federation.run_plan(plan, workspace, steps).await;
    let finished = match ran {
        Ok(run_id) => {
            let of = (&mut federation, run_id.as_str());
            outcome::finish(cli, workspace, plan, prepared, of, steps, stop).await
        }
        Err(error) => Err(error),
    };
    steps.at("stopping the agents and the coordinator", 0, 0, false);
    federation.stop().await;
    finished
}

/// Pre-trained models that the sites run: what their policies allow.
fn models(plan: &Plan) -> Vec<String> {
    let backbone = plan.schema.backbone.iter().map(|backbone| backbone.model.clone());
    backbone.chain(language_models(plan)).collect()
}

/// Whether texts that sites have written leave them.
fn sites_write(plan: &Plan) -> bool {
    plan.run.workload == sheaf_proto::fdkt::WORKLOAD
        && FdktOptions::of(plan).is_ok_and(|options| options.sites_write())
}

/// The language model whose adapter the plan trains.
fn language_model(plan: &Plan) -> Option<String> {
    if plan.run.workload == sheaf_proto::fdkt::WORKLOAD {
        return FdktOptions::of(plan).ok().map(|options| options.model);
    }
    if plan.run.workload != sheaf_proto::fedavg::WORKLOAD {
        return None;
    }
    FedavgOptions::of(plan)
        .ok()
        .filter(|options| options.head == HeadKind::Lora)
        .map(|o| o.model().to_owned())
}

/// All models that sites run beside the schema's backbone.
fn language_models(plan: &Plan) -> Vec<String> {
    if plan.run.workload != sheaf_proto::rewardds::WORKLOAD {
        return language_model(plan).into_iter().collect();
    }
    let Ok(options) = RewarddsOptions::of(plan) else { return Vec::new() };
    // The encoder is the reward's, and that of an arm.
    let mut named = vec![options.model.clone(), options.target.model.clone()];
    let embeds = options.arms.contains(&Arm::Embedding) || options.reward.lora.is_none();
    named.extend(embeds.then(|| options.encoder.clone()));
    named.sort();
    named.dedup();
    named
}

/// The language model that the coordinator runs in its own process, where the plan lets it write.
fn writer(plan: &Plan) -> Option<String> {
    let llm = &plan.simulate.llm;
    let writes = plan.run.workload == sheaf_proto::fdkt::WORKLOAD
        && FdktOptions::of(plan).is_ok_and(|options| options.augments());
    (writes && llm.kind == Kind::Embedded)
        .then(|| llm.model.clone().unwrap_or_else(|| crate::models::DEFAULT.to_owned()))
}

impl Prepared {
    /// All rows as a workload sees them: what a central test is measured on, and the pooled model trained.
    fn inputs(&self) -> &Dataset {
        self.features.as_ref().unwrap_or(&self.dataset)
    }

    fn site_data(&self, site: &SiteRows) -> Dataset {
        self.dataset.subset(&site.rows)
    }
}

/// A path a child process understands whatever its folder.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}
