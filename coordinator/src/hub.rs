//! Sites and runs as the services see them: what the RPC layer calls and the drivers answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use sheaf_proto::BlobId;
use sheaf_transport::identity::SiteName;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    error::Error,
    fleet::Fleet,
    home::{Config, Home},
    identity::{Admitted, authority::Authority, enrolment::EnrolmentDesk, signer::Signer},
    models::{LocalModels, Models},
    run::{
        driver::{self, DriverParts},
        event::{Entry, Event},
        handle::RunHandle,
        machine::{Run, Status},
        plan::Plan,
    },
    store::{Database, blobs::BlobStore, journal::RunRecord},
};

/// Answers that are checked at the same time: each is in memory as a whole.
const CHECKS: usize = 3;

/// Everything the coordinator is, behind one handle.
pub struct Hub {
    /// Configuration.
    pub config: Config,
    /// Small facts and journals.
    pub database: Database,
    /// Large things.
    pub blobs: BlobStore,
    /// Who is connected.
    pub fleet: Arc<Fleet>,
    /// Certificates.
    pub desk: EnrolmentDesk,
    /// Signs manifests.
    pub signer: Signer,
    /// The time.
    pub clock: Clock,
    /// Ends everything.
    pub shutdown: CancellationToken,
    runs: RwLock<BTreeMap<Arc<str>, RunHandle>>,
    checks: Arc<Semaphore>,
    drivers: TaskTracker,
    models: Arc<Models>,
}

impl Hub {
    /// Opens a home and goes on with every run where its journal ends. `local` are the models of this process.
    pub fn open(
        home: &Home,
        clock: Clock,
        shutdown: CancellationToken,
        local: Arc<dyn LocalModels>,
    ) -> Result<Arc<Self>, Error> {
        let config = home.config()?;
        let database = Database::open(&home.database())?;
        let admitted = Arc::new(Admitted::new(database.admitted_serials()?));
        let desk = EnrolmentDesk {
            authority: Arc::new(Authority::open(&home.ca())?),
            database: database.clone(),
            admitted,
            certificate_life: config.certificate_life,
            turn: Arc::default(),
        };
        let hub = Arc::new(Self {
            signer: Signer::open(&home.ca())?,
            blobs: BlobStore::open(&home.store())?,
            fleet: Arc::default(),
            runs: RwLock::default(),
            checks: Arc::new(Semaphore::new(CHECKS)),
            drivers: TaskTracker::new(),
            models: Arc::new(Models::new(home, config.llm.clone(), local)),
            config,
            database,
            desk,
            clock,
            shutdown,
        });
        hub.recover()?;
        Ok(hub)
    }

    fn recover(&self) -> Result<(), Error> {
        for record in self.database.runs()? {
            let journal = self.database.journal(&record.id)?;
            // A run that cannot be read must not keep the others from going on.
            match Plan::parse(&record.plan_toml).and_then(|plan| Ok((plan, Run::replay(&journal)?))) {
                Ok((plan, run)) => {
                    if run.status == Status::Running {
                        tracing::info!(run = %record.id, events = run.events, "going on with the run");
                    }
                    self.start(&record.id, plan, run)?;
                }
                Err(error) => {
                    tracing::error!(run = %record.id, "the run cannot be read, left alone: {error}");
                }
            }
        }
        Ok(())
    }

    fn start(&self, id: &str, plan: Plan, run: Run) -> Result<RunHandle, Error> {
        let parts = DriverParts {
            database: self.database.clone(),
            blobs: self.blobs.clone(),
            fleet: Arc::clone(&self.fleet),
            clock: self.clock.clone(),
            checks: Arc::clone(&self.checks),
            authority: Arc::from(&self.desk.authority.certificate()[..]),
            models: Arc::clone(&self.models),
            shutdown: self.shutdown.clone(),
            drivers: self.drivers.clone(),
        };
        let handle = driver::start(parts, id, Arc::new(plan), run)?;
        self.runs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(Arc::clone(&handle.id), handle.clone());
        Ok(handle)
    }

    /// Waits until no driver writes any more, after the shutdown: then the home may be opened again.
    pub async fn ended(&self) {
        self.drivers.close();
        self.drivers.wait().await;
    }

    /// Takes a new plan. `id` is the caller's choice or made from the plan's name and the time.
    ///
    /// # Errors
    /// The plan is wrong, invites nobody, or the id is taken.
    pub async fn submit(&self, plan_toml: &str, id: Option<String>) -> Result<RunHandle, Error> {
        let text = plan_toml.to_owned();
        let parsed = tokio::task::spawn_blocking(move || Plan::parse(&text)).await;
        let plan = parsed.map_err(|e| Error::bug(e.to_string()))??;
        let now = self.clock.now_ms();
        let id = match id {
            Some(id) => id.parse::<SiteName>().map_err(|_| {
                Error::invalid(format!("`{id}` cannot name a run: use 1 to 63 of a-z, 0-9, '-', '_', '.'"))
            })?,
            None => make_id(&plan.run.name, now)?,
        };
        let sites = self.invited(&plan).await?;
        if let Some(quorum) = plan.run.quorum
            && quorum > sites.len()
        {
            return Err(Error::invalid(format!(
                "[run] quorum is {quorum}, but only {} sites are enrolled; see `sheaf site list`",
                sites.len()
            )));
        }
        let submitted = Event::Submitted {
            name: plan.run.name.clone(),
            workload: plan.run.workload.clone(),
            plan_sha256: plan.sha256(),
            quorum: plan.run.quorum,
            sites,
        };
        let record = RunRecord { id: id.to_string(), plan_toml: plan_toml.to_owned(), created_at: now };
        let run = Run::replay(&[Entry { seq: 0, at: now, event: submitted.clone() }])?;
        self.database.run(move |database| database.create_run(&record, &submitted)).await?;
        self.start(id.as_str(), plan, run)
    }

    async fn invited(&self, plan: &Plan) -> Result<Vec<SiteName>, Error> {
        let sites = self.database.run(Database::sites).await?;
        let enrolled: Vec<SiteName> = sites
            .into_iter()
            .filter(|site| site.status == "enrolled")
            .map(|site| site.name.parse())
            .collect::<Result<_, _>>()?;
        if let Some(chosen) = &plan.run.sites {
            if let Some(stranger) = chosen.iter().find(|site| !enrolled.contains(site)) {
                return Err(Error::invalid(format!(
                    "[run] sites names `{stranger}`, which is not enrolled; see `sheaf site list`"
                )));
            }
            return Ok(chosen.clone());
        }
        if enrolled.is_empty() {
            return Err(Error::conflict("no site is enrolled yet; invite one: sheaf site invite NAME"));
        }
        Ok(enrolled)
    }

    /// A run by id, or by an unambiguous beginning of it.
    pub fn run(&self, id: &str) -> Result<RunHandle, Error> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = runs.get(id) {
            return Ok(run.clone());
        }
        let mut matching = runs.iter().filter(|(full, _)| !id.is_empty() && full.starts_with(id));
        match (matching.next(), matching.next()) {
            (Some((_, run)), None) => Ok(run.clone()),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("several runs begin with `{id}`; give more of the id")))
            }
            _ => Err(Error::not_found(format!("there is no run `{id}`; see `sheaf run list`"))),
        }
    }

    /// Every run.
    pub fn runs(&self) -> Vec<RunHandle> {
        self.runs.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether a site is asked to do a task that needs this blob.
    pub fn may_fetch(&self, site: &SiteName, blob: &BlobId) -> bool {
        self.runs().iter().any(|run| {
            let run = run.run();
            run.task_for(site)
                .is_some_and(|phase| phase.spec == *blob || phase.inputs_of(site).any(|input| input == blob))
        })
    }

    /// Takes a late site into a finished or running run.
    pub async fn add_site(&self, run: &RunHandle, site: SiteName) -> Result<(), Error> {
        let sites = self.database.run(Database::sites).await?;
        if !sites.iter().any(|known| known.name == site.as_str() && known.status == "enrolled") {
            return Err(Error::not_found(format!("site `{site}` is not enrolled; see `sheaf site list`")));
        }
        run.happen(Event::Added { site }).await
    }

    /// Revokes a site: its certificates stop working now, its session ends, and runs that wait for it go on
    /// without it.
    pub async fn revoke(&self, site: &SiteName) -> Result<(), Error> {
        let (desk, now, name) = (self.desk.clone(), self.clock.now_ms(), site.clone());
        self.database.run(move |_| desk.revoke(&name, now)).await?;
        self.fleet.expel(site);
        for run in self.runs() {
            if run.run().task_for(site).is_some() {
                run.happen(Event::Declined {
                    site: site.clone(),
                    reason: "revoked by the operator".to_owned(),
                })
                .await?;
            }
        }
        Ok(())
    }
}

/// `heart-disease-20261123-200702-417`: sorts by time, is a safe file name, is unlikely to be taken.
fn make_id(name: &str, now_ms: i64) -> Result<SiteName, Error> {
    let slug: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect::<String>()
        .split('-')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    let slug: String = if slug.is_empty() { "run".to_owned() } else { slug.chars().take(40).collect() };
    let stamp: String = crate::clock::rfc3339(now_ms).chars().filter(char::is_ascii_digit).collect();
    let (date, time) = stamp.split_at_checked(8).unwrap_or((&stamp, ""));
    Ok(format!("{}-{date}-{time}-{:03}", slug.trim_end_matches('-'), now_ms.rem_euclid(1000)).parse()?)
}
