//! A federation on this machine: a coordinator, in this process or as the real one, and agents.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::Duration,
};

use sheaf_agent::{daemon, error::AgentError};
use sheaf_coordinator::{
    clock::Clock,
    home::{Config, Home},
    hub::Hub,
    models::NoModels,
    rpc::server::BoundServer,
};
use sheaf_data::{SiteRows, Source};
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, MutexGuard, Semaphore},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    data::{Study, no_assets},
    models,
    operator::Operator,
    process::{Process, Variable},
    site::{Rules, Site},
};

/// What a coordinator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tasks of the test's process, whose state a test can look into.
    Here,
    /// `sheaf serve`, which a test can kill.
    Process,
}

enum Coordinator {
    Here { hub: Arc<Hub>, served: JoinHandle<()> },
    Process(Box<Process>),
    Down,
}

struct Agent {
    stop: CancellationToken,
    ended: JoinHandle<Result<(), AgentError>>,
}

/// The federation. Everything ends and is deleted when it is dropped.
pub struct Cluster {
    /// The operator.
    pub operator: Operator,
    /// Sites by name.
    pub sites: BTreeMap<String, Site>,
    kind: Kind,
    home: Home,
    port: u16,
    coordinator: Coordinator,
    agents: BTreeMap<String, Agent>,
    turns: Arc<Semaphore>,
    /// Of every process.
    environment: Vec<Variable>,
    folder: TempDir,
    _turn: Option<Turn>,
    _watchdog: mpsc::Sender<()>,
}

/// Leave to run models. They take all cores, so that clusters with some stand one after the other.
type Turn = MutexGuard<'static, ()>;

static TURNS: Mutex<()> = Mutex::const_new(());

/// Longer than any test here takes.
const PATIENCE: Duration = Duration::from_secs(150);

/// Ends the process when a cluster lives too long. Timeouts of the runtime do not fire when its threads wait for
/// one another, and a test that hangs tells less than one that fails.
fn watch() -> mpsc::Sender<()> {
    let (alive, ended) = mpsc::channel();
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{test} hangs: its cluster still stands after {PATIENCE:?}");
            std::process::abort();
        }
    });
    alive
}

/// A free port below those the system gives to dialling sockets: a coordinator that is away for a moment must find
/// its port free when it comes back.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 9_000) as u16;
    for _ in 0..9_000 {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 9_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Shows what coordinator and agents log, where `RUST_LOG` asks for it.
fn log() {
    if let Ok(filter) = EnvFilter::try_from_default_env() {
        let log = tracing_subscriber::fmt().with_env_filter(filter);
        // A second test of the same process finds it set up.
        drop(log.with_test_writer().try_init());
    }
}

impl Cluster {
    /// A coordinator without sites.
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, |_| {}).await
    }

    /// The same with a changed configuration.
    pub async fn start_with(kind: Kind, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in((tempfile::tempdir().unwrap(), kind), Vec::new(), None, change).await
    }

    /// A coordinator process without sites, which knows the small models, as its agents' processes will, and writes with
    /// the small language model.
    pub async fn with_models() -> Self {
        let turn = TURNS.lock().await;
        let folder = tempfile::tempdir().unwrap();
        let environment = models::lend(&folder.path().join("models"), models::POSITIONS);
        let change = |config: &mut Config| config.llm.model = Some(models::LANGUAGE.to_owned());
        Self::start_in((folder, Kind::Process), environment, Some(turn), change).await
    }

    async fn start_in(
        (folder, kind): (TempDir, Kind),
        environment: Vec<Variable>,
        turn: Option<Turn>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        log();
        let watchdog = watch();
        let home = Home::at(folder.path().join("coordinator"));
        let port = free_port();
        let mut config = Config {
            listen: ([127, 0, 0, 1], port).into(),
            url: format!("https://127.0.0.1:{port}"),
            ..Config::default()
        };
        change(&mut config);
        home.init(&config).unwrap();
        let coordinator = raise(kind, &home, folder.path(), &environment).await;
        let operator = Operator::connect_soon(&home).await;
        Self {
            operator,
            sites: BTreeMap::new(),
            kind,
            home,
            port,
            coordinator,
            agents: BTreeMap::new(),
            turns: Arc::new(Semaphore::new(2)),
            environment,
            folder,
            _turn: turn,
            _watchdog: watchdog,
        }
    }

    /// A coordinator with the study's rows at sites whose agents run in this process.
    pub async fn with_sites(kind: Kind, study: &Study, sites: &[SiteRows]) -> Self {
        let mut cluster = Self::start(kind).await;
        for site in sites {
            cluster.join(study, site, &Rules::default()).await;
        }
        cluster
    }

    /// Enrols a site and starts its agent in this process.
    pub async fn join(&mut self, study: &Study, rows: &SiteRows, rules: &Rules) {
        self.enrol(study, rows, rules).await;
        self.start_agent(&rows.name);
    }

    /// Writes a site's folder and enrols it; its agent is not started.
    pub async fn enrol(&mut self, study: &Study, rows: &SiteRows, rules: &Rules) -> Site {
        let source = study.write(&rows.rows, &self.site_folder(&rows.name).join("data"));
        self.enrol_at(&rows.name, &source, rules).await
    }

    /// The same for records that lie somewhere already.
    pub async fn enrol_at(&mut self, name: &str, source: &Source, rules: &Rules) -> Site {
        let site = Site::create(name, &self.site_folder(name), source, rules);
        site.enrol(&self.operator.invite(name).await).await;
        self.sites.insert(name.to_owned(), site.clone());
        site
    }

    /// Starts a site's agent in this process.
    pub fn start_agent(&mut self, name: &str) {
        let config = self.sites[name].config();
        let stop = CancellationToken::new();
        let ended = tokio::spawn(daemon::run(config, no_assets(), Arc::clone(&self.turns), stop.clone()));
        self.agents.insert(name.to_owned(), Agent { stop, ended });
    }

    /// Stops a site's agent and waits for its end.
    pub async fn stop_agent(&mut self, name: &str) {
        let agent = self.agents.remove(name).expect("the agent runs");
        agent.stop.cancel();
        agent.ended.await.unwrap().unwrap();
    }

    /// Starts a site's agent as a process.
    pub fn start_agent_process(&self, name: &str) -> Process {
        self.start_agent_process_in(name, &self.environment)
    }

    /// The same with another environment than the coordinator's.
    pub fn start_agent_process_in(&self, name: &str, environment: &[Variable]) -> Process {
        let site = &self.sites[name];
        let config = site.config_file();
        Process::start(
            "sheaf-agent",
            &["start", "--config", &config.to_string_lossy()],
            &site.folder.join("agent.log"),
            environment,
        )
    }

    /// Ends the coordinator as hard as its kind can be: a process is killed.
    pub async fn down(&mut self) {
        match std::mem::replace(&mut self.coordinator, Coordinator::Down) {
            Coordinator::Here { hub, served } => {
                hub.shutdown.cancel();
                served.await.unwrap();
            }
            Coordinator::Process(mut process) => process.kill().await,
            Coordinator::Down => {}
        }
    }

    /// Starts the coordinator again on the same home and port.
    pub async fn up(&mut self) {
        self.coordinator = raise(self.kind, &self.home, self.folder.path(), &self.environment).await;
        self.operator = Operator::connect_soon(&self.home).await;
    }

    /// The coordinator's state, of a coordinator in this process.
    pub fn hub(&self) -> &Arc<Hub> {
        match &self.coordinator {
            Coordinator::Here { hub, .. } => hub,
            _ => panic!("the coordinator is not in this process"),
        }
    }

    /// The coordinator's home.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The coordinator's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The coordinator's address.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn site_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join("sites").join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for agent in self.agents.values() {
            agent.stop.cancel();
        }
        if let Coordinator::Here { hub, .. } = &self.coordinator {
            hub.shutdown.cancel();
        }
    }
}

async fn raise(kind: Kind, home: &Home, folder: &Path, environment: &[Variable]) -> Coordinator {
    match kind {
        Kind::Here => {
            let hub =
                Hub::open(home, Clock::default(), CancellationToken::new(), Arc::new(NoModels)).unwrap();
            let server = BoundServer::bind(Arc::clone(&hub)).await.unwrap();
            let served = tokio::spawn(async move { server.serve().await.unwrap() });
            Coordinator::Here { hub, served }
        }
        Kind::Process => Coordinator::Process(Box::new(Process::start(
            "sheaf",
            &["serve", "--home", &home.path().to_string_lossy()],
            &folder.join("coordinator.log"),
            environment,
        ))),
    }
}
