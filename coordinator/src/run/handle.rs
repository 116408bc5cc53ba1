//! What the rest of the coordinator holds of a run: ask it, tell it, watch it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use sheaf_proto::{
    BlobId,
    privacy::Priced,
    secure,
    v1::{Verdict, task_update},
};
use sheaf_secagg::Stage;
use sheaf_transport::identity::SiteName;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    event::{Delivery, Event, PhaseSpec},
    machine::{Admission, Run},
    plan::Plan,
};
use crate::{
    error::Error,
    privacy::SignedStatement,
    store::blobs::BlobStore,
    workload::{self, Context},
};

/// What the rest of the coordinator holds of a run.
#[derive(Clone)]
pub struct RunHandle {
    /// Unique id.
    pub id: Arc<str>,
    /// The checked plan.
    pub plan: Arc<Plan>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) run: Arc<RwLock<Run>>,
    pub(super) progress: Arc<RwLock<BTreeMap<SiteName, TaskProgress>>>,
    pub(super) activity: Arc<RwLock<Activity>>,
    pub(super) changes: watch::Receiver<u64>,
    pub(super) blobs: BlobStore,
    pub(super) checks: Arc<Semaphore>,
    pub(super) authority: Arc<[u8]>,
}

/// What a site last said about its task; not journalled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskProgress {
    /// offered, accepted, running, awaiting approval, handed back.
    pub state: &'static str,
    /// The site's words.
    pub reason: String,
}

/// What the coordinator itself is doing for a run, while no site is waited for; not journalled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Activity {
    /// In words; empty for nothing long.
    pub what: String,
    /// How much of it is done.
    pub done: u64,
    /// Of how much; 0 where that is not known.
    pub all: u64,
}

/// What the driver is told.
pub(super) enum Command {
    Happen {
        event: Event,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Deliver {
        site: SiteName,
        key: String,
        delivery: Delivery,
        reply: oneshot::Sender<Result<Admission, Error>>,
    },
    Reduced {
        stage_id: u64,
        outcome: Result<Event, Error>,
    },
    Deadline {
        stage_id: u64,
        key: String,
    },
    Connected {
        site: SiteName,
    },
    Update {
        site: SiteName,
        key: String,
        state: task_update::State,
        reason: String,
    },
}

impl RunHandle {
    /// The state now.
    pub fn run(&self) -> RwLockReadGuard<'_, Run> {
        self.run.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What sites last said about their tasks.
    pub fn progress(&self) -> BTreeMap<SiteName, TaskProgress> {
        self.progress.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the coordinator is doing for the run.
    pub fn activity(&self) -> Activity {
        self.activity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Wakes whenever the run or its progress changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Lets an operator's event happen, if the state allows it.
    pub async fn happen(&self, event: Event) -> Result<(), Error> {
        self.ask(|reply| Command::Happen { event, reply }).await?
    }

    /// Takes a site's answer: checks it, journals it, counts it once.
    pub async fn deliver(
        &self,
        site: SiteName,
        key: String,
        blob: BlobId,
        seconds: f64,
        overhead: u64,
        spend: Option<SignedStatement>,
    ) -> Result<(Verdict, String), Error> {
        // Only an answer that is wanted is checked. For another not a word is said before the journal has what it
        // says: the driver answers, below.
        let phase = {
            let run = self.run();
            let wanted = run.admit(&site, &key) == Admission::Accept;
            run.task_for(&site).filter(|_| wanted).cloned()
        };
        let Some(phase) = phase else {
            let delivery = Delivery { blob, bytes_up: 0, bytes_down: 0, seconds: 0.0, spend: None };
            return Ok(verdict(self.ask(|reply| Command::Deliver { site, key, delivery, reply }).await??));
        };
        if let Err(refusal) = self.check(&phase, &site, blob, spend.is_some()).await {
            return match refusal.class {
                crate::error::Class::Invalid => Ok((Verdict::Refused, refusal.message)),
                _ => Err(refusal),
            };
        }
        let fetched: u64 = phase.inputs_of(&site).map(BlobId::size).sum();
        let delivery = Delivery {
            blob,
            bytes_up: blob.size() + overhead,
            bytes_down: phase.spec.size() + fetched + overhead,
            seconds: if seconds.is_finite() { seconds.max(0.0) } else { 0.0 },
            spend,
        };
        let admission = self.ask(|reply| Command::Deliver { site, key, delivery, reply }).await??;
        Ok(verdict(admission))
    }

    async fn check(&self, phase: &PhaseSpec, site: &SiteName, blob: BlobId, paid: bool) -> Result<(), Error> {
        if !self.blobs.contains(&blob) {
            return Err(Error::conflict("the answer is not here yet; upload it first"));
        }
        let turn =
            self.checks.acquire().await.map_err(|_| Error::transient("the coordinator is stopping"))?;
        let (handle, phase, site) = (self.clone(), phase.clone(), site.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let (plan, blobs, version) = (&handle.plan, &handle.blobs, handle.run().version);
            let (run_id, authority) = (&handle.id, &handle.authority);
            let context = Context { plan, blobs, members: &[], run_id, version, authority, tools: None };
            let Priced { privacy } = blobs.document(&phase.spec)?;
            // Of a secure sum's stages, the one with the noised vector is paid for.
            let pays = secure::parse(&phase.name).is_none_or(|(_, stage)| stage == Stage::MaskedInput);
            if privacy.is_some() && pays && !paid {
                return Err(Error::invalid(
                    "the answer must come with the site's statement of what it has spent",
                ));
            }
            workload::named(&plan.run.workload)?.check_result(&context, &phase, &site, &blobs.path(&blob))
        })
        .await
        .map_err(|e| Error::bug(e.to_string()))?;
        drop(turn);
        checked
    }

    /// A site has connected: it is told what it is asked.
    pub async fn connected(&self, site: SiteName) {
        self.tell(Command::Connected { site }).await;
    }

    /// A site says how it is getting on with a task.
    pub async fn update(&self, site: SiteName, key: String, state: task_update::State, reason: String) {
        self.tell(Command::Update { site, key, state, reason }).await;
    }

    async fn tell(&self, command: Command) {
        // A driver that has ended (shutdown) has nobody to tell; the agent says it again when it reconnects.
        let _ = self.commands.send(command).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let stopping = || Error::transient("the coordinator is stopping; try again");
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }
}

fn verdict(admission: Admission) -> (Verdict, String) {
    match admission {
        Admission::Accept => (Verdict::Accepted, String::new()),
        Admission::Duplicate => (Verdict::Duplicate, String::new()),
        Admission::Late(reason) => (Verdict::Late, reason),
    }
}

/// What a peer says, fit for a terminal and a journal: printable and not too long.
pub(crate) fn printable(text: &str) -> String {
    const LONGEST: usize = 500;
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}
