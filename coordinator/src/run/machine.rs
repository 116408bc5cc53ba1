//! The run machine: `apply` folds an event into the state, `admit` and the `can_*` functions say which events
//! may happen. All of it is pure: no clock, no disk, no network.

mod transitions;

use std::collections::{BTreeMap, BTreeSet};

use sheaf_proto::BlobId;
use sheaf_transport::identity::SiteName;

use super::event::{Delivery, Entry, Event, PhaseOutput, PhaseSpec};
use crate::error::Error;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Working.
    Running,
    /// The model is published.
    Done,
    /// Stopped, with the reason; can be resumed.
    Failed(String),
    /// Stopped by the operator; can be resumed.
    Aborted,
}

/// What a running run does.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// The workload decides what comes next.
    Deciding,
    /// Waiting for answers.
    Collecting(PhaseSpec),
    /// Merging answers.
    Reducing(PhaseSpec),
    /// Writing the publication.
    Publishing,
}

/// A site's part in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// Takes part.
    In,
    /// Refused, in its own words.
    Declined(String),
    /// Did not answer in time.
    Dropped(String),
    /// Taken out by the operator.
    Withdrawn,
}

/// Time spent on a phase.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseSpan {
    /// The phase's name.
    pub name: String,
    /// The phase's key.
    pub key: String,
    /// Unix milliseconds.
    pub opened_at: i64,
    /// Unix milliseconds; none while it is open.
    pub closed_at: Option<i64>,
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// New and wanted.
    Accept,
    /// Counted already.
    Duplicate,
    /// Not wanted any more, with the reason.
    Late(String),
}

/// The state of a run: the fold of its journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// For people.
    pub name: String,
    /// Workload.
    pub workload: String,
    /// SHA-256 of the plan's text.
    pub plan_sha256: String,
    /// Smallest number of sites to go on with; none: all that were not withdrawn.
    pub quorum: Option<usize>,
    /// Where it stands.
    pub status: Status,
    /// What it does while it is running.
    pub stage: Stage,
    /// 1, then one more with every withdrawal or addition.
    pub version: u32,
    /// Everyone invited.
    pub members: BTreeMap<SiteName, Membership>,
    /// Finished phases of this version.
    pub outputs: Vec<PhaseOutput>,
    /// The last output under each key, of any version: what incremental merges start from.
    pub archive: BTreeMap<String, PhaseOutput>,
    /// Answers by task key and site.
    pub deliveries: BTreeMap<String, BTreeMap<SiteName, Delivery>>,
    /// Members of the open phase that have not answered.
    pub outstanding: usize,
    /// Members that will not answer the open phase, which does without them.
    pub excused: BTreeSet<SiteName>,
    /// Who missed which round, by its key, and why.
    pub missed: BTreeMap<String, BTreeMap<SiteName, String>>,
    /// Whom a round was asked of, by its key.
    pub asked: BTreeMap<String, BTreeSet<SiteName>>,
    /// Time by phase, of this version.
    pub spans: Vec<PhaseSpan>,
    /// Publication documents by version.
    pub publications: BTreeMap<u32, BlobId>,
    /// When this version began, Unix milliseconds.
    pub started_at: i64,
    /// When this version was published, Unix milliseconds.
    pub finished_at: Option<i64>,
    /// Number of events folded in: the next sequence number.
    pub events: i64,
    /// Grows whenever the stage or status changes: what effects are launched once per.
    pub stage_id: u64,
}

impl Run {
    /// Folds a journal.
    ///
    /// # Errors
    /// [`crate::error::Class::Corrupt`] when it does not begin with a submission or has a gap.
    pub fn replay(entries: &[Entry]) -> Result<Self, Error> {
        let mut entries = entries.iter();
        let first = entries.next().ok_or_else(|| Error::corrupt("the journal is empty"))?;
        let mut run = Self::submitted(first)?;
        for entry in entries {
            if entry.seq != run.events {
                return Err(Error::corrupt(format!(
                    "the journal has a gap: event {} follows {}",
                    entry.seq,
                    run.events - 1
                )));
            }
            run.apply(entry);
        }
        Ok(run)
    }

    fn submitted(entry: &Entry) -> Result<Self, Error> {
        let Event::Submitted { name, workload, plan_sha256, sites, quorum } = &entry.event else {
            return Err(Error::corrupt("the journal does not begin with the submission"));
        };
        Ok(Self {
            name: name.clone(),
            workload: workload.clone(),
            plan_sha256: plan_sha256.clone(),
            quorum: *quorum,
            status: Status::Running,
            stage: Stage::Deciding,
            version: 1,
            members: sites.iter().map(|site| (site.clone(), Membership::In)).collect(),
            outputs: Vec::new(),
            archive: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            outstanding: 0,
            excused: BTreeSet::new(),
            missed: BTreeMap::new(),
            asked: BTreeMap::new(),
            spans: Vec::new(),
            publications: BTreeMap::new(),
            started_at: entry.at,
            finished_at: None,
            events: 1,
            stage_id: 1,
        })
    }

    /// Folds one event in. Events that do not fit the state (a reduction of a phase that is over, say) change
    /// nothing but the count, so that a journal always replays.
    pub fn apply(&mut self, entry: &Entry) {
        self.events += 1;
        match &entry.event {
            Event::Submitted { .. } => {}
            Event::Decided { next } => self.decided(next, entry.at),
            Event::Delivered { site, key, delivery } => self.delivered(site, key, delivery, entry.at),
            Event::Declined { site, reason } => {
                self.leave(site, Membership::Declined(reason.clone()), entry.at);
            }
            Event::DeadlinePassed { key } => self.deadline(key, entry.at),
            Event::Reduced { key, output } => self.reduced(key, output, entry.at),
            Event::Published { publication } => self.published(publication, entry.at),
            Event::Failed { reason } => self.stop(Status::Failed(reason.clone())),
            Event::Aborted => self.stop(Status::Aborted),
            Event::Resumed => self.resume(entry.at),
            Event::Withdrawn { site } => {
                self.set_member(site, Membership::Withdrawn);
                for answers in self.deliveries.values_mut() {
                    answers.remove(site);
                }
                // Nothing of it may stay in a model: the rounds are gone through anew, too.
                self.outputs.clear();
                self.begin_version(entry.at);
            }
            Event::Added { site } => self.added(site, entry.at),
        }
    }

    /// How many sites must answer for the run to go on.
    pub fn needed(&self) -> usize {
        let not_withdrawn = || self.members.values().filter(|m| **m != Membership::Withdrawn).count();
        self.quorum.unwrap_or_else(not_withdrawn)
    }

    /// How many sites must answer an open round for the run to go on: all that were asked when it opened, or the
    /// quorum, scaled down where only some were asked.
    pub fn needed_for(&self, phase: &PhaseSpec) -> usize {
        let all = self.members_in().count();
        let asked = self.asked.get(&phase.key).map_or(0, BTreeSet::len);
        match (&phase.sites, self.quorum) {
            (_, None) => asked,
            (None, Some(quorum)) => quorum,
            (Some(_), Some(quorum)) => (quorum.min(all) * asked).div_ceil(all.max(1)).max(1),
        }
    }

    /// Whether a round of many is over: from then on sites come and go by the round.
    pub fn in_rounds(&self) -> bool {
        self.outputs.iter().any(|output| output.round)
    }

    /// Sites that take part.
    pub fn members_in(&self) -> impl Iterator<Item = &SiteName> {
        self.members.iter().filter(|(_, m)| **m == Membership::In).map(|(site, _)| site)
    }

    /// Members that still owe an answer to the open phase.
    pub fn awaited(&self) -> Vec<SiteName> {
        match (&self.status, &self.stage) {
            (Status::Running, Stage::Collecting(phase)) => {
                let answered = self.deliveries.get(&phase.key);
                self.members_in()
                    .filter(|site| phase.asks(site))
                    .filter(|site| !answered.is_some_and(|a| a.contains_key(*site)))
                    .filter(|site| !self.excused.contains(*site))
                    .cloned()
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// The task a site is asked to do now, if any.
    pub fn task_for(&self, site: &SiteName) -> Option<&PhaseSpec> {
        match (&self.status, &self.stage, self.members.get(site)) {
            (Status::Running, Stage::Collecting(phase), Some(Membership::In)) => {
                let answered = self.deliveries.get(&phase.key).is_some_and(|a| a.contains_key(site));
                (!answered && phase.asks(site) && !self.excused.contains(site)).then_some(phase)
            }
            _ => None,
        }
    }

    /// Answers of members to a task, in order of site name.
    pub fn contributions(&self, key: &str) -> Vec<(SiteName, BlobId)> {
        let answers = self.deliveries.get(key);
        self.members_in().filter_map(|site| Some((site.clone(), answers?.get(site)?.blob))).collect()
    }

    /// What to do with an answer.
    pub fn admit(&self, site: &SiteName, key: &str) -> Admission {
        let late = |reason: &str| Admission::Late(reason.to_owned());
        if self.deliveries.get(key).is_some_and(|answers| answers.contains_key(site)) {
            return Admission::Duplicate;
        }
        match (&self.status, self.members.get(site)) {
            (_, None) => return late("this site is not part of the run"),
            (_, Some(Membership::Declined(_) | Membership::Dropped(_))) => {
                return late(
                    "the run went on without this site; the operator can take it in with `sheaf run add`",
                );
            }
            (_, Some(Membership::Withdrawn)) => return late("this site was withdrawn from the run"),
            (Status::Running, Some(Membership::In)) => {}
            _ => return late("the run is over"),
        }
        match &self.stage {
            Stage::Collecting(phase) if phase.key == key && self.excused.contains(site) => {
                late("this site had said that it would not answer")
            }
            Stage::Collecting(phase) if phase.key == key && !phase.asks(site) => {
                late("this site was not drawn for this round")
            }
            Stage::Collecting(phase) if phase.key == key => Admission::Accept,
            _ => late("this phase is closed"),
        }
    }

    /// Whether the operator may take a site out now.
    pub fn can_withdraw(&self, site: &SiteName) -> Result<(), Error> {
        match self.members.get(site) {
            None => Err(Error::not_found(format!("site `{site}` is not part of this run"))),
            Some(Membership::Withdrawn) => {
                Err(Error::conflict(format!("site `{site}` is withdrawn already")))
            }
            Some(_) if self.quorum.is_some_and(|quorum| self.others_in(site) < quorum) => {
                Err(Error::conflict(format!(
                    "{} sites would be left, and the plan asks for at least {}",
                    self.others_in(site),
                    self.needed()
                )))
            }
            Some(_) if self.others_in(site) == 0 => {
                Err(Error::conflict("no site would be left; to give the run up, abort it"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether the operator may take a site in now.
    pub fn can_add(&self, site: &SiteName) -> Result<(), Error> {
        match self.members.get(site) {
            Some(Membership::In) => Err(Error::conflict(format!("site `{site}` takes part already"))),
            _ if self.status == Status::Done && self.in_rounds() => Err(Error::conflict(format!(
                "all rounds of this run are over, so site `{site}` could no longer train in it; submit a new run"
            ))),
            _ => Ok(()),
        }
    }

    fn others_in(&self, site: &SiteName) -> usize {
        self.members_in().filter(|other| *other != site).count()
    }
}
