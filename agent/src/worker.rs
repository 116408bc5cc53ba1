//! Takes tasks, asks the policy, computes, releases, posts. A task lives on while the link comes and goes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sheaf_data::{AssetStore, Source};
use sheaf_privacy::ledger::{Digest, Head};
use sheaf_proto::{
    BlobId,
    privacy::PrivacySpec,
    v1::{LedgerHead, Task, task_update::State as TaskState},
};
use sheaf_transport::transfer::BlobMover;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    budget::{Budget, Purse, dataset_name},
    config::Config,
    device,
    egress::{self, Answer},
    error::AgentError,
    identity::Identity,
    link::Link,
    policy::{self, Permit},
    secure::SecureRounds,
    state::State,
    task::{self, Assignment, Resources},
};

/// How often to look whether a person has said yes.
const APPROVAL_POLL: Duration = Duration::from_millis(500);
/// After a failed fetch of a task's inputs.
const FETCH_RETRY: Duration = Duration::from_secs(1);

type TaskId = (String, String);

/// The agent's hands.
#[derive(Clone)]
pub struct Worker {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    state: State,
    budget: Arc<Budget>,
    link: Link,
    assets: AssetStore,
    /// Tasks that may compute at the same time; shared by the agents of a simulation.
    turns: Arc<Semaphore>,
    /// Signs in secure sums; none where the site is not enrolled, as in tests.
    identity: Option<Arc<Identity>>,
    /// Secure sums change what the site remembers one after the other.
    secure_turn: Mutex<()>,
    active: Mutex<HashMap<TaskId, CancellationToken>>,
    closing: AtomicBool,
}

impl Worker {
    /// A worker with nothing to do.
    pub fn new(
        config: Config,
        state: State,
        budget: Arc<Budget>,
        link: Link,
        assets: AssetStore,
        turns: Arc<Semaphore>,
        identity: Option<Arc<Identity>>,
    ) -> Self {
        let shared = Shared {
            config,
            state,
            budget,
            link,
            assets,
            turns,
            identity,
            secure_turn: Mutex::default(),
            active: Mutex::default(),
            closing: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    fn active(&self) -> MutexGuard<'_, HashMap<TaskId, CancellationToken>> {
        self.shared.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a task on, unless it is being done already: offers are repeated after every reconnection.
    pub fn take(&self, task: Task) {
        if self.shared.closing.load(Ordering::Relaxed) {
            return;
        }
        let id = (task.run_id.clone(), task.key.clone());
        let cancel = CancellationToken::new();
        {
            let mut active = self.active();
            // One that was cancelled a moment ago may be asked again before it has ended.
            if active.get(&id).is_some_and(|open| !open.is_cancelled()) {
                return;
            }
            active.insert(id.clone(), cancel.clone());
        }
        let worker = self.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                () = cancel.cancelled() => Err(AgentError::Cancelled),
                outcome = worker.perform(&task, &cancel) => outcome,
            };
            {
                let mut active = worker.active();
                if active.get(&id).is_some_and(|open| open.is_cancelled() == cancel.is_cancelled()) {
                    active.remove(&id);
                }
            }
            worker.conclude(&task, outcome).await;
        });
    }

    /// Takes nothing on from now.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
    }

    /// Drops a task, because the coordinator no longer wants it.
    pub fn cancel(&self, run_id: &str, key: &str, reason: &str) {
        if let Some(cancel) = self.active().get(&(run_id.to_owned(), key.to_owned())) {
            tracing::info!(run = run_id, task = key, "cancelled: {reason}");
            cancel.cancel();
            if let Err(error) = self.shared.state.forget_requests(Some(run_id)) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Holds the ledger against what the coordinator remembers of it.
    pub fn compare_ledger(&self, head: Option<LedgerHead>) {
        let Some(LedgerHead { counter, hash }) = head else {
            return;
        };
        let Ok(hash) = <[u8; 32]>::try_from(hash.as_ref()) else {
            tracing::warn!("the coordinator remembers a ledger head that is none");
            return;
        };
        let head = Head { counter, hash: Digest::from_bytes(hash) };
        if let Err(error) = self.shared.budget.compare(head) {
            tracing::error!("{error}");
        }
    }

    /// What this agent computes on, for the coordinator's list of sites.
    pub fn device(&self) -> String {
        device::name(self.shared.config.device)
    }

    /// How many tasks are being done.
    pub fn busy(&self) -> usize {
        self.active().len()
    }

    /// Gives every open task back to the coordinator, which will offer it again.
    pub async fn hand_back(&self) {
        let open: Vec<_> = self.active().iter().map(|(id, cancel)| (id.clone(), cancel.clone())).collect();
        for ((run_id, key), cancel) in open {
            cancel.cancel();
            self.shared.link.say(&run_id, &key, TaskState::HandedBack, "the agent is stopping").await;
        }
    }

    async fn conclude(&self, task: &Task, outcome: Result<(), AgentError>) {
        let link = &self.shared.link;
        match outcome {
            Ok(()) => link.posted(),
            Err(AgentError::Cancelled) => {}
            Err(AgentError::Denied(reason)) => {
                tracing::warn!(run = task.run_id, task = task.key, "declined: {reason}");
                link.say(&task.run_id, &task.key, TaskState::Declined, &reason).await;
            }
            Err(error) => {
                // The details may speak of records (a value, a row): they stay in this site's log.
                tracing::error!(run = task.run_id, task = task.key, "failed: {error}");
                link.say(&task.run_id, &task.key, TaskState::Failed, public_reason(&error)).await;
            }
        }
    }

    async fn perform(&self, task: &Task, cancel: &CancellationToken) -> Result<(), AgentError> {
        let shared = &self.shared;
        if shared.state.answer(&task.run_id, &task.key)?.is_some() {
            return Ok(()); // computed before; the courier has it
        }
        let permit = policy::check(&shared.config, task)?;
        let mut assignment = self.fetch(task).await?;
        assignment.min_rows = permit.min_rows();
        let workload = task::named(&task.workload)?;
        let columns = workload.columns(&assignment)?;
        policy::check_columns(&shared.config, &task.dataset, &columns)?;
        policy::check_models(&shared.config, &workload.models(&assignment)?)?;
        let privacy = workload.privacy(&assignment)?;
        if workload.reads_records(&assignment) {
            policy::check_privacy(&shared.config, privacy.as_ref())?;
        }
        if permit.needs_approval() {
            self.await_approval(task, &columns).await?;
        }
        self.say(task, TaskState::Accepted).await;
        let _turn = Arc::clone(&shared.turns).acquire_owned().await.map_err(|_| AgentError::Cancelled)?;
        self.say(task, TaskState::Running).await;
        tracing::info!(run = task.run_id, task = task.key, "computing");
        let answer = self.compute(task, assignment, privacy, cancel).await?;
        self.release(task, answer, permit).await
    }

    async fn say(&self, task: &Task, state: TaskState) {
        self.shared.link.say(&task.run_id, &task.key, state, "").await;
    }

    async fn await_approval(&self, task: &Task, columns: &[String]) -> Result<(), AgentError> {
        let state = &self.shared.state;
        let mut asked = false;
        loop {
            match state.decision(&task.run_id)? {
                Some(true) => return Ok(()),
                Some(false) => {
                    return Err(AgentError::Denied("a person at this site said no to this run".to_owned()));
                }
                None if asked => tokio::time::sleep(APPROVAL_POLL).await,
                None => {
                    asked = true;
                    state.request_approval(task, columns)?;
                    let run = &task.run_id;
                    tracing::info!(run, name = task.run_name, "waits for `sheaf-agent approve {run}`");
                    self.say(task, TaskState::AwaitingApproval).await;
                }
            }
        }
    }

    /// Fetches the specification and inputs, over as many links as it takes.
    async fn fetch(&self, task: &Task) -> Result<Assignment, AgentError> {
        let spec = self.fetch_blob(BlobId::from_wire(task.spec.as_ref()).map_err(task_error)?).await?;
        let mut inputs = Vec::new();
        for input in &task.inputs {
            inputs.push(self.fetch_blob(BlobId::from_wire(Some(input)).map_err(task_error)?).await?);
        }
        Ok(Assignment { phase: task.phase.clone(), spec, inputs, min_rows: 0 })
    }

    async fn fetch_blob(&self, blob: BlobId) -> Result<Vec<u8>, AgentError> {
        // Inputs are small against records: they need no place on the disk.
        let mut bytes = Vec::new();
        loop {
            let channel = self.shared.link.channel().await?;
            match BlobMover::new(channel).fetch(blob, &mut bytes).await {
                Ok(()) => return Ok(bytes),
                Err(error) if error.is_transient() => tokio::time::sleep(FETCH_RETRY).await,
                Err(error) => return Err(AgentError::Task(error.to_string())),
            }
        }
    }

    async fn compute(
        &self,
        task: &Task,
        assignment: Assignment,
        privacy: Option<PrivacySpec>,
        cancel: &CancellationToken,
    ) -> Result<Answer, AgentError> {
        let workload = task::named(&task.workload)?;
        let source =
            self.shared.config.data.get(&task.dataset).cloned().ok_or_else(|| {
                AgentError::Denied(format!("this site has no data set \"{}\"", task.dataset))
            })?;
        let (shared, task, cancel) = (Arc::clone(&self.shared), task.clone(), cancel.child_token());
        // Who does not wait for the answer any more, as a process that ends, must not have to wait for the computation.
        let _ends_with_this = cancel.clone().drop_guard();
        let link_tasks = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let config = &shared.config;
            let owner = (!config.cache_shared).then_some(task.dataset.as_str());
            let purse = privacy.map(|privacy| purse(&shared, &task, &source, &privacy)).transpose()?;
            let secure = shared.identity.as_ref().map(|identity| SecureRounds {
                state: &shared.state,
                identity,
                policy: &config.policy,
                turn: &shared.secure_turn,
                run_id: &task.run_id,
                plan_sha256: &task.plan_sha256,
            });
            let tell = |what: &str| {
                let (shared, task, what) = (Arc::clone(&shared), task.clone(), what.to_owned());
                link_tasks.spawn(async move {
                    shared.link.say(&task.run_id, &task.key, TaskState::Running, &what).await;
                });
            };
            let resources = Resources::new(&shared.assets, &config.cache, owner, config.device)
                .with_purse(purse)
                .with_secure(secure)
                .with_kept(kept(&config.home, &task.run_id))
                .with_told(Some(&tell));
            workload.perform(&assignment, &source, &resources, &|| cancel.is_cancelled())
        })
        .await
        .map_err(|_| AgentError::Task("the computation ended abnormally; see this site's log".to_owned()))?
    }

    async fn release(&self, task: &Task, answer: Answer, permit: Permit) -> Result<(), AgentError> {
        let (shared, run_id, key) = (Arc::clone(&self.shared), task.run_id.clone(), task.key.clone());
        tokio::task::spawn_blocking(move || {
            let state = &shared.state;
            let released = egress::release(answer, &permit, state)?;
            let spend = match released.paid() {
                Some(paid) => shared.budget.statement(&paid.run, &paid.dataset)?,
                None => None,
            };
            let spend = spend.map(|statement| statement.to_bytes()).transpose();
            let spend = spend.map_err(|e| AgentError::Ledger(e.to_string()))?;
            state.post(&run_id, &key, &released, spend.as_deref())
        })
        .await
        .map_err(|e| AgentError::State(e.to_string()))?
    }
}

/// What the task may ask of the ledger, for the very records it will read.
/// The folder of what a run leaves at the site, for the site alone. None for a name that would lead elsewhere.
fn kept(home: &Path, run_id: &str) -> Option<PathBuf> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let named = !run_id.is_empty() && run_id.len() <= 100 && run_id.bytes().all(plain);
    named.then(|| home.join("runs").join(run_id))
}

fn purse(shared: &Shared, task: &Task, source: &Source, privacy: &PrivacySpec) -> Result<Purse, AgentError> {
    let dataset = dataset_name(&shared.config.home, &source.digest(&shared.assets)?)?;
    shared.budget.purse(&task.run_id, &task.plan_sha256, dataset, privacy)
}

fn task_error(error: sheaf_proto::BlobIdError) -> AgentError {
    AgentError::Task(error.to_string())
}

/// What the coordinator is told of a failure: its kind, never its details.
const fn public_reason(error: &AgentError) -> &'static str {
    match error {
        AgentError::Data(_) => {
            "the records at this site cannot be read as the plan asks; the site's log says why"
        }
        AgentError::Task(_) => "the task cannot be carried out by this agent; the site's log says why",
        AgentError::Ledger(_) => "the site's privacy ledger cannot be used; the site's log says why",
        AgentError::File { .. } | AgentError::State(_) => {
            "the site has trouble with its disk; its log says more"
        }
        _ => "the task failed at the site; its log says why",
    }
}
