//! The site's privacy budget: the ledger in its home, and what a task holds of it while it draws noise.
//!
//! ```text
//! sheaf-agent ledger cap ──► ledger.sqlite ◄── Purse::reserve ──► tokens ──► noise
//!                                 ▲                                │
//!                                 └──── egress: Charge::release ◄──┘ (what leaves, by its digest; then settled)
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use rand::{TryRng as _, rngs::SysRng};
use sheaf_privacy::Event;
use sheaf_privacy::ledger::{
    Cap, DatasetSpend, Digest, Head, Ledger, PrivacyUnit, Request, Reservation, RunId, SqliteStore,
    Statement, StepToken, Store as _, verify,
};
use sheaf_proto::privacy::PrivacySpec;
use sheaf_transport::keys::{create_private_folder, write_private};

use crate::{egress::Made, error::AgentError};

/// An open ledger with the reservations of runs that go on.
pub struct Budget {
    ledger: Ledger,
    /// Between the rounds of a run its reservation lies here.
    kept: Mutex<BTreeMap<(RunId, Digest), Reservation>>,
}

/// Keeps the names of data sets apart from every other use of SHA-256.
const DATASET: &[u8] = b"sheaf-dataset-1\n";

fn ledger_error(error: impl std::fmt::Display) -> AgentError {
    AgentError::Ledger(error.to_string())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Where a home keeps its ledger.
pub fn ledger_file(home: &Path) -> PathBuf {
    home.join("ledger.sqlite")
}

/// What a data set with this content is called in the ledger of a home. The name goes into statements, which leave the site,
/// and a bare digest of the content would let others test what they guess of it: so a secret of the home, `ledger.salt`, is
/// hashed with it. Without that file every data set is a new one, and has no cap.
///
/// # Errors
/// [`AgentError::Ledger`]: the secret cannot be read or made.
pub fn dataset_name(home: &Path, content: &[u8; 32]) -> Result<Digest, AgentError> {
    let file = home.join("ledger.salt");
    let salt = if file.exists() {
        std::fs::read(&file).map_err(AgentError::file(&file))?
    } else {
        let mut salt = [0; 32];
        SysRng.try_fill_bytes(&mut salt).map_err(ledger_error)?;
        create_private_folder(home).and_then(|()| write_private(&file, &salt)).map_err(ledger_error)?;
        salt.to_vec()
    };
    if salt.len() != 32 {
        return Err(AgentError::Ledger(format!(
            "{} must have 32 bytes; put the right copy back",
            file.display()
        )));
    }
    Ok(Digest::of(&[DATASET, salt.as_slice(), content].concat()))
}

impl Budget {
    /// Opens or creates the ledger of a home, reads and verifies all of it. Reservations that a crash left without a draw
    /// cost nothing and are voided; the others stay charged whole until their run goes on.
    ///
    /// # Errors
    /// [`AgentError::Ledger`]: the file cannot be used, or its chain is broken.
    pub fn open(home: &Path) -> Result<Arc<Self>, AgentError> {
        std::fs::create_dir_all(home).map_err(AgentError::file(home))?;
        let store = SqliteStore::open(&ledger_file(home)).map_err(ledger_error)?;
        let ledger = Ledger::open(store, now, None).map_err(ledger_error)?;
        let drawn: Vec<RunId> = ledger
            .open_reservations()
            .into_iter()
            .filter(|charge| charge.drawn > 0)
            .map(|charge| charge.request.run)
            .collect();
        ledger.recover(&drawn).map_err(ledger_error)?;
        Ok(Arc::new(Self { ledger, kept: Mutex::default() }))
    }

    /// Holds the ledger against what the coordinator remembers of it. One that was put back to an older copy spends nothing.
    ///
    /// # Errors
    /// [`AgentError::Ledger`].
    pub fn compare(&self, remembered: Head) -> Result<(), AgentError> {
        self.ledger.compare(remembered).map_err(ledger_error)
    }

    /// Sets the cap of a data set: the site's decision, on its own machine.
    ///
    /// # Errors
    /// [`AgentError::Ledger`].
    pub fn set_cap(&self, cap: Cap) -> Result<(), AgentError> {
        self.ledger.set_cap(cap).map(drop).map_err(ledger_error)
    }

    /// What a run may ask of a data set, under the cap as it is now.
    ///
    /// # Errors
    /// [`AgentError::Task`] for names that cannot be, [`AgentError::Ledger`].
    pub fn purse(
        self: &Arc<Self>,
        run_id: &str,
        plan_sha256: &str,
        dataset: Digest,
        spec: &PrivacySpec,
    ) -> Result<Purse, AgentError> {
        self.ledger.refresh().map_err(ledger_error)?;
        let task = |e: String| AgentError::Task(format!("the task's privacy cannot be used: {e}"));
        let request = Request {
            run: RunId::new(run_id).map_err(task)?,
            plan: Digest::try_from(plan_sha256.to_owned()).map_err(task)?,
            dataset,
            privacy_unit: PrivacyUnit::new(spec.unit.as_str()).map_err(task)?,
            event: spec.event,
            delta: spec.delta,
        };
        Ok(Purse { budget: Arc::clone(self), request, later: spec.later.clone() })
    }

    /// What a run has cost a data set, for the site to sign; none where it has cost nothing.
    ///
    /// # Errors
    /// [`AgentError::Ledger`].
    pub fn statement(&self, run: &RunId, dataset: &Digest) -> Result<Option<Statement>, AgentError> {
        self.ledger.statement(run, dataset).map_err(ledger_error)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<(RunId, Digest), Reservation>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Budget {
    /// What lies between two rounds stays open on the disk: the run goes on with it after a restart. Settling it would charge a
    /// second reservation for the rest.
    fn drop(&mut self) {
        for (_, reservation) in std::mem::take(&mut *self.kept()) {
            std::mem::forget(reservation);
        }
    }
}

/// Later parts of a run beyond this are a mistake.
const MOST_LATER: usize = 8;

/// Leave to ask the ledger on behalf of one task.
pub struct Purse {
    budget: Arc<Budget>,
    request: Request,
    /// What the run will ask for afterwards.
    later: Vec<Event>,
}

impl Purse {
    /// The right to at least `needed` draws: what the run has reserved already, or a new reservation of all `rest` draws it
    /// may still want. Where a crash has used up draws without a result, they are reserved anew, and so charged again.
    ///
    /// # Errors
    /// [`AgentError::Denied`] with the numbers where it does not fit under the cap, or there is none.
    pub fn reserve(&self, needed: u64, rest: u64) -> Result<Reservation, AgentError> {
        let denied = |e: sheaf_privacy::ledger::LedgerError| AgentError::Denied(e.to_string());
        let ledger = &self.budget.ledger;
        let kept = self.budget.kept().remove(&(self.request.run.clone(), self.request.dataset));
        let of_run = |other: &Request| other.run == self.request.run && other.dataset == self.request.dataset;
        if kept.is_none() {
            // What a restart has left of another part of the run: its draws are over.
            for charge in ledger.open_reservations() {
                if of_run(&charge.request) && !self.is_of(&charge.request) {
                    ledger.resume(charge.reservation).map_err(denied)?.settle().map_err(denied)?;
                }
            }
        }
        let open = || ledger.open_reservations().into_iter().find(|charge| self.is_of(&charge.request));
        let found = match kept {
            Some(kept) => Some(kept),
            None => open().map(|charge| ledger.resume(charge.reservation).map_err(denied)).transpose()?,
        };
        if let Some(found) = found {
            let usable = found.event().with_count(1) == self.request.event.with_count(1);
            if usable && found.remaining() >= needed {
                return Ok(found.one_by_one());
            }
            found.settle().map_err(denied)?;
        }
        let event = self.request.event.with_count(rest);
        // A step takes much longer than a flush, and a run that goes on after a restart must not have lost any.
        let reserved =
            ledger.reserve(Request { event, ..self.request.clone() }).map_err(denied)?.one_by_one();
        // Half of a run is of no use to anybody, and would have been paid for: nothing is drawn yet. What is held here is given back.
        let mut held = Vec::new();
        if self.later.len() > MOST_LATER {
            return Err(AgentError::Task("the run has more parts than any plan".to_owned()));
        }
        for event in &self.later {
            held.push(ledger.reserve(Request { event: *event, ..self.request.clone() }).map_err(|e| {
                AgentError::Denied(format!("a later part of the run could not be paid for: {e}"))
            })?);
        }
        for later in held {
            later.settle().map_err(denied)?;
        }
        Ok(reserved)
    }

    /// Whether a reservation is this run's, for the same mechanism, however many draws it was for.
    fn is_of(&self, other: &Request) -> bool {
        let event = self.request.event.with_count(other.event.count());
        Request { event, ..self.request.clone() } == *other
    }

    /// Refuses at once what [`Self::draw`] would refuse in the end: for tasks of one draw after long work.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub fn check(&self, rest: u64) -> Result<(), AgentError> {
        // Nothing is drawn under it, so that nothing is charged.
        self.reserve(1, rest.max(1))?.settle().map(drop).map_err(ledger_error)
    }

    /// One draw: reserve, draw, and hand the charge over with the answer. `rest` are the draws that the run still wants, this one
    /// included.
    ///
    /// # Errors
    /// As [`Self::reserve`]; what `noise` says.
    pub fn draw<T>(
        self,
        rest: u64,
        noise: impl FnOnce(StepToken) -> Result<T, AgentError>,
    ) -> Result<(T, Made), AgentError> {
        let mut reservation = self.reserve(1, rest.max(1))?;
        let drawn = noise(reservation.token().map_err(ledger_error)?)?;
        Ok((drawn, Made::WithNoise(self.charge(reservation))))
    }

    /// Hands the reservation over with the answer that was computed under it.
    pub fn charge(self, reservation: Reservation) -> Charge {
        Charge { purse: self, reservation }
    }
}

/// What an answer was paid for with. The egress gate asks for it.
pub struct Charge {
    purse: Purse,
    reservation: Reservation,
}

/// Whose books an answer is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paid {
    /// The run.
    pub run: RunId,
    /// The data set.
    pub dataset: Digest,
}

impl Charge {
    /// Writes down what leaves, then ends the reservation, or keeps it for the run's next round.
    ///
    /// # Errors
    /// [`AgentError::Ledger`]: then nothing may leave.
    pub fn release(self, bytes: &[u8]) -> Result<Paid, AgentError> {
        self.reservation.release(Digest::of(bytes)).map_err(ledger_error)?;
        let paid = Paid { run: self.purse.request.run.clone(), dataset: self.purse.request.dataset };
        if self.reservation.remaining() == 0 {
            self.reservation.settle().map_err(ledger_error)?;
        } else {
            self.purse.budget.kept().insert((paid.run.clone(), paid.dataset), self.reservation);
        }
        Ok(paid)
    }
}

/// What a ledger says, read beside a running agent.
pub struct Book {
    /// Every data set that has a cap.
    pub pages: Vec<DatasetSpend>,
    /// The newest entry.
    pub head: Head,
}

/// Reads and verifies the ledger of a home without a right to write; none where there is no ledger yet.
///
/// # Errors
/// [`AgentError::Ledger`] with the first entry that is not good.
pub fn read(home: &Path) -> Result<Option<Book>, AgentError> {
    let file = ledger_file(home);
    if !file.exists() {
        return Ok(None);
    }
    let store = SqliteStore::open_to_read(&file).map_err(ledger_error)?;
    let rows = store.rows().map_err(ledger_error)?;
    let head = verify(&rows).map_err(ledger_error)?;
    Ok(Some(Book { pages: DatasetSpend::read(&rows).map_err(ledger_error)?, head }))
}

#[cfg(test)]
mod tests;
