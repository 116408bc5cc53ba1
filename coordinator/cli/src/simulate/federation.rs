//! The processes (or tasks) of a simulation: started, enrolled, watched, stopped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use sheaf_agent::{
    budget::{Budget, dataset_name},
    config::Config as AgentConfig,
    daemon, identity,
};
use sheaf_coordinator::{
    home::{Config, Home},
    privacy::{Privacy, PrivacySection},
    run::plan::{AgentKind, Plan},
};
use sheaf_data::{AssetStore, SiteRows, Source};
use sheaf_privacy::{
    Epsilon,
    ledger::{Cap, PrivacyUnit},
};
use sheaf_proto::v1::{InviteSiteRequest, RunRef, SubmitRunRequest};
use sheaf_transport::token::EnrolmentToken;
use tokio::{
    process::{Child, ChildStdin, Command},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{DEVICE, Prepared, Workspace, absolute, workspace};
use crate::{
    Cli,
    client::Operator,
    output::{RunEnded, Steps},
    run,
};

const START_TIME: Duration = Duration::from_secs(20);
/// A process that was asked to stop gets this long.
const STOP_TIME: Duration = Duration::from_secs(10);
/// Enrolments and inline tasks under way at a time: the machine's cores.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// A running federation.
pub(super) struct Federation {
    pub(super) operator: Operator,
    coordinator: Process,
    agents: Vec<Process>,
    inline: JoinSet<()>,
    stop_inline: CancellationToken,
    sites: Vec<String>,
}

impl Federation {
    /// Starts the coordinator, enrols every site and starts its agent. What an interrupted simulation has
    /// done already is not done again.
    pub(super) async fn start(
        cli: &Cli,
        workspace: &Workspace,
        plan: &Plan,
        prepared: &Prepared,
        kind: AgentKind,
        steps: &mut Steps,
    ) -> Result<Self> {
        let home = Home::at(workspace.home());
        if !home.exists() {
            home.init(&Config {
                listen: ([127, 0, 0, 1], workspace.port()).into(),
                url: format!("https://127.0.0.1:{}", workspace.port()),
                llm: plan.simulate.llm.clone(),
                ..Config::default()
            })?;
        }
        steps.at("starting the coordinator", 0, 0, false);
        let mut coordinator = spawn(
            &["serve", "--until-stdin-ends", "--home"],
            home.path(),
            &workspace.work().join("coordinator.log"),
            cli.data_dir.as_deref(),
        )?;
        let operator = tokio::select! {
            connected = Operator::connect_within(home.path(), START_TIME) => connected?,
            ended = coordinator.child.wait() => bail!(
                "the coordinator ended at once ({}); its log is {}",
                ended?, workspace.work().join("coordinator.log").display()
            ),
        };
        let mut federation = Self {
            operator,
            coordinator,
            agents: Vec::new(),
            inline: JoinSet::new(),
            stop_inline: CancellationToken::new(),
            sites: prepared.sites.iter().map(|site| site.name.clone()).collect(),
        };
        federation.enrol_all(cli, workspace, plan, prepared, kind, steps).await?;
        federation.start_agents(cli, workspace, kind)?;
        Ok(federation)
    }

    async fn enrol_all(
        &self,
        cli: &Cli,
        workspace: &Workspace,
        plan: &Plan,
        prepared: &Prepared,
        kind: AgentKind,
        steps: &mut Steps,
    ) -> Result<()> {
        let all = prepared.sites.len() as u64;
        let cap = plan.privacy.as_ref().map(Privacy::cost).transpose()?.map(|cost| cost.cap);
        let turns = Arc::new(Semaphore::new(cores()));
        let mut enrolments: JoinSet<Result<()>> = JoinSet::new();
        let cache = absolute(&workspace::cache(&cli.assets()))?;
        for (index, site) in prepared.sites.iter().enumerate() {
            steps.at("enrolling the sites", index as u64, all, false);
            let folder = workspace.site(&site.name);
            if folder.join("home").join("identity.pem").exists() {
                continue;
            }
            write_site(&folder, plan, prepared, site, kind, &cache)?;
            let turn = Arc::clone(&turns).acquire_owned().await?;
            let mut operator = self.operator.clone();
            let (name, assets) = (site.name.clone(), cli.assets());
            let privacy = plan.privacy.as_ref().map(|privacy| privacy.section.clone()).zip(cap);
            enrolments.spawn(async move {
                let _turn = turn;
                let request = InviteSiteRequest { name, valid_seconds: 3600 };
                let token = operator.rpc.invite_site(request).await?.into_inner().token;
                enrol(&folder, &token, kind).await?;
                match privacy {
                    Some((section, cap)) => set_cap(&folder, &assets, &section, cap),
                    None => Ok(()),
                }
            });
            while let Some(done) = enrolments.try_join_next() {
                done??;
            }
        }
        while let Some(done) = enrolments.join_next().await {
            done??;
        }
        Ok(())
    }

    fn start_agents(&mut self, cli: &Cli, workspace: &Workspace, kind: AgentKind) -> Result<()> {
        let turns = Arc::new(Semaphore::new(cores()));
        for name in &self.sites {
            let folder = workspace.site(name);
            match kind {
                AgentKind::Process => {
                    let config = folder.join("agent.toml");
                    let agent = spawn(
                        &["__agent", "start", "--until-stdin-ends", "--config"],
                        &config,
                        &folder.join("agent.log"),
                        cli.data_dir.as_deref(),
                    )?;
                    self.agents.push(agent);
                }
                AgentKind::Inline => {
                    let config = AgentConfig::read(&folder.join("agent.toml"))?;
                    let (assets, turns, stop) = (cli.assets(), Arc::clone(&turns), self.stop_inline.clone());
                    let name = name.clone();
                    self.inline.spawn(async move {
                        if let Err(error) = daemon::run(config, assets, turns, stop).await {
                            tracing::error!(site = name, "the agent ended: {error}");
                            eprintln!("agent {name}: {error}");
                        }
                    });
                }
            }
        }
        Ok(())
    }

    /// Submits the plan (or finds it submitted) and follows it to its end.
    pub(super) async fn run_plan(
        &mut self,
        plan: &Plan,
        workspace: &Workspace,
        steps: &mut Steps,
    ) -> Result<String> {
        if !workspace.resumed() {
            let request =
                SubmitRunRequest { plan_toml: plan.text.clone(), run_id: workspace.run_id().to_owned() };
            self.operator.rpc.submit_run(request).await?;
            workspace.mark()?;
        }
        let mut operator = self.operator.clone();
        if workspace.resumed() {
            // What made it fail may be gone by now; nobody else can ask it to go on.
            let run = RunRef { run_id: workspace.run_id().to_owned() };
            let found = operator.rpc.show_run(run.clone()).await?.into_inner();
            if found.summary.is_some_and(|summary| summary.status == "failed") {
                operator.rpc.resume_run(run).await?;
            }
        }
        let detail = tokio::select! {
            detail = run::follow(&mut operator, workspace.run_id(), steps) => detail?,
            ended = self.coordinator.child.wait() => bail!("the coordinator ended during the run ({})", ended?),
        };
        let summary = detail.summary.unwrap_or_default();
        if summary.status != "done" {
            return Err(RunEnded(run::ended(&summary.status, &summary.reason)).into());
        }
        Ok(summary.run_id)
    }

    /// Stops everything in order; what does not stop is killed.
    pub(super) async fn stop(mut self) {
        self.stop_inline.cancel();
        for agent in &mut self.agents {
            agent.ask_to_end();
        }
        for agent in &mut self.agents {
            agent.end().await;
        }
        let inline = async { while self.inline.join_next().await.is_some() {} };
        drop(tokio::time::timeout(STOP_TIME, inline).await);
        self.coordinator.end().await;
    }
}

/// A child that stops when its standard input ends: when asked to, or when this process is gone.
struct Process {
    child: Child,
    /// Held here, since waiting for a child closes the one it holds.
    stdin: Option<ChildStdin>,
}

impl Process {
    fn ask_to_end(&mut self) {
        drop(self.stdin.take());
    }

    /// Asks, waits, and kills what does not stop.
    async fn end(&mut self) {
        self.ask_to_end();
        if tokio::time::timeout(STOP_TIME, self.child.wait()).await.is_err() {
            drop(self.child.kill().await);
        }
    }
}

/// This binary again, logging into a file, ending when this process does; it looks for data files where this one does.
fn spawn(args: &[&str], last: &Path, log: &Path, data_dir: Option<&Path>) -> Result<Process> {
    let log_file =
        File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(args)
        .arg(last)
        .envs(data_dir.map(|folder| ("SHEAF_DATA_DIR", folder)))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log_file)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start this program again as an agent or coordinator")?;
    Ok(Process { stdin: child.stdin.take(), child })
}

async fn enrol(folder: &Path, token: &str, kind: AgentKind) -> Result<()> {
    let config = folder.join("agent.toml");
    match kind {
        AgentKind::Inline => {
            let token: EnrolmentToken = token.parse()?;
            identity::enrol(&token, &AgentConfig::read(&config)?).await?;
        }
        AgentKind::Process => {
            let done = Command::new(std::env::current_exe()?)
                .args(["__agent", "enroll", token, "--config"])
                .arg(&config)
                .stdin(Stdio::null())
                .output()
                .await?;
            let status: ExitStatus = done.status;
            if !status.success() {
                bail!(
                    "{}: enrolment failed: {}",
                    folder.display(),
                    String::from_utf8_lossy(&done.stderr).trim()
                );
            }
        }
    }
    Ok(())
}

/// What a site's officer does with `sheaf-agent ledger cap`: here just enough for the plan.
fn set_cap(folder: &Path, assets: &AssetStore, section: &PrivacySection, cap: f64) -> Result<()> {
    let config = AgentConfig::read(&folder.join("agent.toml"))?;
    let budget = Budget::open(&config.home)?;
    for source in config.data.values() {
        budget.set_cap(Cap {
            dataset: dataset_name(&config.home, &source.digest(assets)?)?,
            privacy_unit: PrivacyUnit::new(section.unit.as_str()).map_err(anyhow::Error::msg)?,
            epsilon: Epsilon::new(cap)?,
            delta: section.delta,
        })?;
    }
    Ok(())
}

/// The site's own configuration, as its owner would write it.
#[derive(Serialize)]
struct SiteConfig {
    agent: SiteAgent,
    data: std::collections::BTreeMap<String, Source>,
    policy: SitePolicy,
}

#[derive(Serialize)]
struct SiteAgent {
    home: PathBuf,
    device: String,
    cache: PathBuf,
    cache_shared: bool,
    durable: bool,
    stop_grace: &'static str,
}

#[derive(Serialize)]
struct SitePolicy {
    workloads: Vec<String>,
    models: Vec<String>,
    release: [&'static str; 6],
    min_cohort: u32,
    min_rows: u64,
    approve: &'static str,
    require_dp: bool,
}

fn write_site(
    folder: &Path,
    plan: &Plan,
    prepared: &Prepared,
    site: &SiteRows,
    kind: AgentKind,
    cache: &Path,
) -> Result<()> {
    let data = folder.join("data");
    fs::create_dir_all(&data).with_context(|| data.display().to_string())?;
    let source = prepared.site_data(site).write(&data)?;
    let config = SiteConfig {
        // Processes can be killed and must keep what they have; tasks of this process end with it.
        agent: SiteAgent {
            home: folder.join("home"),
            device: DEVICE.to_string(),
            cache: cache.to_owned(),
            cache_shared: true,
            durable: kind == AgentKind::Process,
            stop_grace: "2s",
        },
        data: std::iter::once((plan.run.dataset.clone(), source)).collect(),
        policy: SitePolicy {
            workloads: vec![plan.run.workload.clone()],
            models: super::models(plan),
            release: ["statistics", "sums", "updates", "synthetic", "proxies", "metrics"],
            min_cohort: 1,
            min_rows: 1,
            approve: "auto",
            require_dp: plan.privacy.is_some(),
        },
    };
    let file = folder.join("agent.toml");
    fs::write(&file, toml::to_string(&config)?).with_context(|| file.display().to_string())
}
