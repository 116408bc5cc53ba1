//! Drives one run: takes what happens one at a time, journals it, and only then lets anything follow from it.
//!
//! Everything the driver starts (offers, merges, deadlines) is derived from the state, never from the
//! event, so a coordinator that was killed re-derives it from the replayed journal and goes on.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use sheaf_proto::v1::{CancelTask, Task, task_update};
use sheaf_transport::identity::SiteName;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    event::{Entry, Event, PhaseSpec},
    forget,
    handle::{Activity, Command, RunHandle, TaskProgress, printable},
    machine::{Admission, Membership, Run, Stage, Status},
    plan::Plan,
};
use crate::{
    clock::Clock,
    error::Error,
    fleet::Fleet,
    models::{Models, Tools},
    store::{Database, blobs::BlobStore},
    workload::{self, Answers, Context, Workload},
};

/// Commands waiting for the driver.
const QUEUE: usize = 256;

/// What the driver works with.
#[derive(Clone)]
pub struct DriverParts {
    /// Journals.
    pub database: Database,
    /// Answers and models.
    pub blobs: BlobStore,
    /// Connected sites.
    pub fleet: Arc<Fleet>,
    /// The time.
    pub clock: Clock,
    /// Bounds the answers that are checked at the same time, over all runs.
    pub checks: Arc<Semaphore>,
    /// The authority's certificate, DER.
    pub authority: Arc<[u8]>,
    /// The coordinator's own models.
    pub models: Arc<Models>,
    /// Ends every driver.
    pub shutdown: CancellationToken,
    /// Every driver that has not ended: a journal may be opened again when there is none.
    pub drivers: TaskTracker,
}

/// Starts the driver of a run whose state was just made or replayed.
pub fn start(parts: DriverParts, id: &str, plan: Arc<Plan>, run: Run) -> Result<RunHandle, Error> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (changed, changes) = watch::channel(0);
    let handle = RunHandle {
        id: id.into(),
        plan: Arc::clone(&plan),
        commands: sender.clone(),
        run: Arc::new(RwLock::new(run)),
        progress: Arc::default(),
        activity: Arc::default(),
        changes,
        blobs: parts.blobs.clone(),
        checks: Arc::clone(&parts.checks),
        authority: Arc::clone(&parts.authority),
    };
    let driver = Driver {
        workload: workload::named(&plan.run.workload)?,
        handle: handle.clone(),
        parts,
        commands: sender,
        changed,
        launched: 0,
    };
    let drivers = driver.parts.drivers.clone();
    drivers.spawn(driver.drive(receiver));
    Ok(handle)
}

struct Driver {
    workload: &'static dyn Workload,
    handle: RunHandle,
    parts: DriverParts,
    commands: mpsc::Sender<Command>,
    changed: watch::Sender<u64>,
    /// The stage whose effects have been started.
    launched: u64,
}

/// A reply to give once the events it hangs on are on the disk.
type Reply = Box<dyn FnOnce(Result<(), Error>) + Send>;

impl Driver {
    async fn drive(mut self, mut receiver: mpsc::Receiver<Command>) {
        self.launch();
        let mut batch = Vec::with_capacity(QUEUE);
        let shutdown = self.parts.shutdown.clone();
        loop {
            let received = tokio::select! {
                () = shutdown.cancelled() => return,
                received = receiver.recv_many(&mut batch, QUEUE) => received,
            };
            if received == 0 {
                return;
            }
            self.process(&mut batch).await;
            self.launch();
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Decides a batch against the live state one command at a time, journals it in one transaction, and
    /// answers after that. If the journal cannot be written the coordinator stops, since memory is then ahead
    /// of the disk.
    async fn process(&mut self, batch: &mut Vec<Command>) {
        let mut entries = Vec::new();
        let mut replies: Vec<Reply> = Vec::new();
        for command in batch.drain(..) {
            self.decide(command, &mut entries, &mut replies);
        }
        let written = if entries.is_empty() {
            Ok(())
        } else {
            let id = Arc::clone(&self.handle.id);
            self.parts.database.run(move |database| database.append(&id, &entries)).await
        };
        if let Err(error) = &written {
            tracing::error!(run = %self.handle.id, "the journal cannot be written, stopping: {error}");
            self.parts.shutdown.cancel();
        }
        for reply in replies {
            reply(match &written {
                Ok(()) => Ok(()),
                Err(e) => Err(Error { class: e.class, message: e.message.clone() }),
            });
        }
    }

    fn decide(&mut self, command: Command, entries: &mut Vec<Entry>, replies: &mut Vec<Reply>) {
        match command {
            Command::Happen { event, reply } => match self.allowed(&event) {
                Ok(()) => {
                    self.record(event, entries);
                    replies.push(Box::new(move |written| drop(reply.send(written))));
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Deliver { site, key, delivery, reply } => {
                let admission = self.handle.run().admit(&site, &key);
                if admission == Admission::Accept {
                    self.note(&site, "delivered", String::new());
                    self.record(Event::Delivered { site, key, delivery }, entries);
                }
                replies.push(Box::new(move |written| {
                    drop(reply.send(written.map(|()| admission)));
                }));
            }
            Command::Reduced { stage_id, outcome } => {
                if self.handle.run().stage_id == stage_id {
                    let event = outcome.unwrap_or_else(|e| Event::Failed { reason: e.message });
                    self.record(event, entries);
                }
            }
            Command::Deadline { stage_id, key } => {
                if self.handle.run().stage_id == stage_id {
                    self.record(Event::DeadlinePassed { key }, entries);
                }
            }
            Command::Connected { site } => self.offer(&site),
            Command::Update { site, key, state, reason } => self.hear(site, &key, state, reason, entries),
        }
    }

    fn hear(
        &mut self,
        site: SiteName,
        key: &str,
        state: task_update::State,
        reason: String,
        entries: &mut Vec<Entry>,
    ) {
        use task_update::State;
        if self.handle.run().task_for(&site).is_none_or(|phase| phase.key != key) {
            return;
        }
        let reason = printable(&reason);
        match state {
            State::Unspecified => {}
            State::Accepted => self.note(&site, "accepted", reason),
            State::AwaitingApproval => self.note(&site, "awaiting approval", reason),
            State::Running => self.note(&site, "running", reason),
            State::HandedBack => self.note(&site, "handed back", reason),
            State::Declined | State::Failed => {
                self.note(&site, "declined", reason.clone());
                self.record(Event::Declined { site, reason }, entries);
            }
        }
    }

    fn allowed(&self, event: &Event) -> Result<(), Error> {
        let run = self.handle.run();
        match event {
            Event::Aborted if run.status != Status::Running => {
                Err(Error::conflict("the run is not running; there is nothing to abort"))
            }
            Event::Resumed => match run.status {
                Status::Failed(_) | Status::Aborted => Ok(()),
                Status::Running => Err(Error::conflict("the run is running already")),
                Status::Done => Err(Error::conflict("the run is done; see `sheaf run report`")),
            },
            Event::Withdrawn { site } => run.can_withdraw(site),
            Event::Added { site } => run.can_add(site),
            _ => Ok(()),
        }
    }

    fn record(&mut self, event: Event, entries: &mut Vec<Entry>) {
        let mut run = self.handle.run.write().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry { seq: run.events, at: self.parts.clock.now_ms(), event };
        tracing::debug!(run = %self.handle.id, seq = entry.seq, event = ?entry.event);
        let open = run.awaited();
        let key = match &run.stage {
            Stage::Collecting(phase) => phase.key.clone(),
            _ => String::new(),
        };
        run.apply(&entry);
        // Whoever was asked and is not asked any more is told to stop.
        let gone: Vec<_> = if matches!(entry.event, Event::Delivered { .. }) {
            Vec::new()
        } else {
            open.into_iter().filter(|site| run.task_for(site).is_none_or(|phase| phase.key != key)).collect()
        };
        let reason = match &run.status {
            Status::Aborted => "the operator aborted the run".to_owned(),
            Status::Failed(reason) => reason.clone(),
            _ => "the run went on".to_owned(),
        };
        drop(run);
        for site in gone {
            let cancel =
                CancelTask { run_id: self.handle.id.to_string(), key: key.clone(), reason: reason.clone() };
            self.parts.fleet.cancel(&site, cancel);
        }
        entries.push(entry);
    }

    fn note(&self, site: &SiteName, state: &'static str, reason: String) {
        let mut progress = self.handle.progress.write().unwrap_or_else(PoisonError::into_inner);
        progress.insert(site.clone(), TaskProgress { state, reason });
    }

    /// Starts what the present stage calls for, once a stage.
    fn launch(&mut self) {
        let (stage, status, stage_id) = {
            let run = self.handle.run();
            (run.stage.clone(), run.status.clone(), run.stage_id)
        };
        if stage_id == self.launched {
            return;
        }
        self.launched = stage_id;
        match status {
            Status::Running => {}
            Status::Done => return self.forget_withdrawn(),
            _ => return,
        }
        match stage {
            Stage::Deciding => self.work(stage_id, Job::Decide),
            Stage::Reducing(phase) => self.work(stage_id, Job::Reduce(phase)),
            Stage::Publishing => self.work(stage_id, Job::Publish),
            Stage::Collecting(phase) => {
                self.handle.progress.write().unwrap_or_else(PoisonError::into_inner).clear();
                let awaited = self.handle.run().awaited();
                for site in awaited {
                    self.offer(&site);
                }
                self.dismiss_revoked(phase.key.clone());
                self.arm(stage_id, phase.key);
            }
        }
    }

    /// Sites that were revoked while nothing was asked of them are not waited for.
    fn dismiss_revoked(&self, key: String) {
        let (database, commands) = (self.parts.database.clone(), self.commands.clone());
        let awaited = self.handle.run().awaited();
        tokio::spawn(async move {
            let Ok(sites) = database.run(Database::sites).await else {
                return;
            };
            for site in awaited {
                if sites.iter().any(|known| known.name == site.as_str() && known.status == "revoked") {
                    let reason = "revoked by the operator".to_owned();
                    let state = task_update::State::Declined;
                    drop(commands.send(Command::Update { site, key: key.clone(), state, reason }).await);
                }
            }
        });
    }

    /// Begins a phase's time. A restarted coordinator begins it anew: its own absence is not the sites' fault.
    fn arm(&self, stage_id: u64, key: String) {
        let (commands, deadline): (_, Duration) = (self.commands.clone(), self.handle.plan.run.deadline);
        let shutdown = self.parts.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(deadline) => drop(commands.send(Command::Deadline { stage_id, key }).await),
            }
        });
    }

    fn offer(&self, site: &SiteName) {
        let task = {
            let run = self.handle.run();
            let Some(phase) = run.task_for(site) else { return };
            Task {
                run_id: self.handle.id.to_string(),
                run_name: run.name.clone(),
                key: phase.key.clone(),
                workload: run.workload.clone(),
                phase: phase.name.clone(),
                dataset: self.handle.plan.run.dataset.clone(),
                // An answer is merged with those of the sites that are asked, not of all that are invited.
                cohort: run.members_in().filter(|member| phase.asks(member)).count() as u32,
                spec: Some(phase.spec.to_wire()),
                inputs: phase.inputs_of(site).map(|input| input.to_wire()).collect(),
                releases: phase.releases.clone(),
                max_result_bytes: phase.max_result_bytes,
                version: run.version,
                plan_sha256: run.plan_sha256.clone(),
            }
        };
        if self.parts.fleet.offer(site, task) {
            self.note(site, "offered", String::new());
        }
    }

    fn work(&self, stage_id: u64, job: Job) {
        let (workload, handle, commands) = (self.workload, self.handle.clone(), self.commands.clone());
        let (models, stop) = (Arc::clone(&self.parts.models), self.parts.shutdown.clone());
        let changed = self.changed.clone();
        tokio::spawn(async move {
            let stopped = stop.clone();
            let work = move || {
                let tell = |what: &str, done, all| {
                    let activity = Activity { what: what.to_owned(), done, all };
                    *handle.activity.write().unwrap_or_else(PoisonError::into_inner) = activity;
                    changed.send_modify(|n| *n += 1);
                };
                let worked = job.run(workload, &handle, &Tools { models: &models, stop: &stop, tell: &tell });
                tell("", 0, 0);
                worked
            };
            let worked = tokio::task::spawn_blocking(work).await;
            if stopped.is_cancelled() {
                // Given up, not failed: the next coordinator does it again.
                return;
            }
            // A panic in a job is a defect, but the run must say so rather than hang.
            let outcome = worked.unwrap_or_else(|e| Err(Error::bug(format!("the coordinator failed: {e}"))));
            // Fails only when the driver has ended; the journal makes the next one do it again.
            drop(commands.send(Command::Reduced { stage_id, outcome }).await);
        });
    }

    /// After a version without them is out, what withdrawn sites contributed is deleted.
    fn forget_withdrawn(&self) {
        if !self.handle.run().members.values().any(|m| *m == Membership::Withdrawn) {
            return;
        }
        let (parts, handle, workload) = (self.parts.clone(), self.handle.clone(), self.workload);
        tokio::spawn(async move {
            let found = tokio::task::spawn_blocking(move || {
                let doomed =
                    forget::doomed(&parts.database, &parts.blobs, workload, &handle.id, &handle.plan)?;
                Ok::<_, Error>((doomed, parts.blobs))
            });
            match found.await {
                Ok(Ok((doomed, blobs))) => {
                    for blob in doomed {
                        if let Err(error) = blobs.delete(&blob).await {
                            tracing::error!("a withdrawn contribution is still on the disk: {error}");
                        }
                    }
                }
                Ok(Err(error)) => tracing::error!("withdrawn contributions are still on the disk: {error}"),
                Err(error) => tracing::error!("withdrawn contributions are still on the disk: {error}"),
            }
        });
    }
}

/// Work of a workload, on a blocking thread.
enum Job {
    Decide,
    Reduce(PhaseSpec),
    Publish,
}

impl Job {
    fn run(self, workload: &dyn Workload, handle: &RunHandle, tools: &Tools<'_>) -> Result<Event, Error> {
        let (members, version) = {
            let run = handle.run();
            (run.members_in().cloned().collect::<Vec<_>>(), run.version)
        };
        let (plan, blobs, run_id) = (&handle.plan, &handle.blobs, &handle.id);
        let authority = &handle.authority;
        let tools = Some(tools);
        let context = Context { plan, blobs, members: &members, run_id, version, authority, tools };
        let outputs = handle.run().outputs.clone();
        match self {
            Self::Decide => Ok(Event::Decided { next: workload.next(&context, &outputs)? }),
            Self::Reduce(phase) => {
                let (contributions, previous) = {
                    let run = handle.run();
                    (run.contributions(&phase.key), run.archive.get(&phase.key).cloned())
                };
                let answers = Answers {
                    phase: &phase,
                    contributions: &contributions,
                    outputs: &outputs,
                    previous: previous.as_ref(),
                };
                let document = workload.reduce(&context, &answers)?;
                Ok(Event::Reduced { key: phase.key.clone(), output: handle.blobs.put(&document)? })
            }
            Self::Publish => {
                let publication = workload.publish(&context, &outputs)?;
                Ok(Event::Published { publication: handle.blobs.put(&serde_json::to_vec(&publication)?)? })
            }
        }
    }
}
