//! What the entries add up to: a pure fold, used to open a ledger, to verify one and to keep the state of an open one.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use super::{
    chain::{Head, Record},
    entry::{Basis, Cap, Digest, Entry, Request},
};
use crate::Event;

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "count", rename_all = "snake_case")]
pub enum Standing {
    /// Not settled: charged whole.
    Open,
    /// Ended after this many steps or releases.
    Settled(u64),
    /// Ended before anything was drawn: costs nothing.
    Void,
}

/// A reservation and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Charge {
    /// The counter of its first entry: its name.
    pub reservation: u64,
    /// Unix seconds of its first entry.
    pub at: u64,
    /// What was asked.
    pub request: Request,
    /// The bound that let it in.
    pub basis: Basis,
    /// Draws on record, an upper bound on those made.
    pub drawn: u64,
    /// Where it stands.
    pub standing: Standing,
    /// Digests of what left the site.
    pub outputs: Vec<Digest>,
}

impl Charge {
    /// What was done, or may have been; nothing when void.
    pub fn event(&self) -> Option<Event> {
        match self.standing {
            Standing::Open => Some(self.request.event),
            Standing::Settled(0) | Standing::Void => None,
            Standing::Settled(count) => Some(self.request.event.with_count(count)),
        }
    }

    /// What later admissions count. A reservation that only its own loss distribution let in is counted whole: that
    /// bound says nothing of a run that stopped early and was followed by another one.
    pub(super) fn counted(&self) -> Option<Event> {
        match self.basis {
            Basis::Renyi => self.event(),
            Basis::LossDistribution => self.event().map(|_| self.request.event),
        }
    }
}

/// Why an entry may not follow the ones before it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rule {
    /// No cap, no spending.
    #[error("data set {dataset} has no cap: the site sets one with `sheaf-agent ledger cap`")]
    NoCap {
        /// The data set.
        dataset: Digest,
    },
    /// A bound for rows says little about patients.
    #[error(
        "the unit of data set {dataset} is '{unit}', not '{asked}'; it is fixed once anything is charged"
    )]
    OtherUnit {
        /// The data set.
        dataset: Digest,
        /// Its unit.
        unit: String,
        /// The unit asked.
        asked: String,
    },
    /// No mechanism with Gaussian noise fits under a delta of 0.
    #[error("the delta of a cap must be above 0")]
    NoDelta,
    /// Zero steps.
    #[error("a reservation must be for at least one step or release")]
    Nothing,
    /// Not there, or settled.
    #[error("reservation {0} is not open")]
    NotOpen(u64),
    /// More than was reserved, or less than is on record.
    #[error("reservation {reservation} has {drawn} of {reserved} draws on record; {asked} does not fit")]
    Count {
        /// The reservation.
        reservation: u64,
        /// Draws on record.
        drawn: u64,
        /// Draws reserved.
        reserved: u64,
        /// The count in the entry.
        asked: u64,
    },
    /// Noise may have been drawn, and with it something released.
    #[error("reservation {0} may have been drawn from: it can be settled, not voided")]
    Drawn(u64),
}

/// State of a ledger.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    hashes: Vec<Digest>,
    caps: BTreeMap<Digest, Cap>,
    charges: BTreeMap<u64, Charge>,
    released: BTreeMap<Digest, u64>,
}

impl Books {
    /// The newest entry.
    pub(super) fn head(&self) -> Head {
        self.hashes.last().map_or(Head::EMPTY, |hash| Head { counter: self.hashes.len() as u64, hash: *hash })
    }

    /// Whether the ledger once had this head: false for one that is older, or went another way.
    pub(super) fn has_passed(&self, head: Head) -> bool {
        match head.counter.checked_sub(1) {
            None => head == Head::EMPTY,
            Some(index) => usize::try_from(index).ok().and_then(|i| self.hashes.get(i)) == Some(&head.hash),
        }
    }

    /// Caps by data set.
    pub(super) fn caps(&self) -> impl Iterator<Item = &Cap> {
        self.caps.values()
    }

    /// The cap of a data set.
    pub(super) fn cap(&self, dataset: &Digest) -> Option<&Cap> {
        self.caps.get(dataset)
    }

    /// Reservations, oldest first.
    pub(super) fn charges(&self) -> impl Iterator<Item = &Charge> {
        self.charges.values()
    }

    /// One reservation.
    pub(super) fn charge(&self, reservation: u64) -> Option<&Charge> {
        self.charges.get(&reservation)
    }

    /// The entry under which these bytes left first.
    pub(super) fn released(&self, output: &Digest) -> Option<u64> {
        self.released.get(output).copied()
    }

    /// Whether an entry may come next.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), Rule> {
        match entry {
            Entry::Cap { cap } => self.check_cap(cap),
            Entry::Reserve { request, .. } => self.check_request(request),
            Entry::Draw { reservation, upto } => {
                let charge = self.open(*reservation)?;
                if *upto <= charge.drawn {
                    return Err(count(charge, *upto));
                }
                at_most(charge, *upto)
            }
            Entry::Release { reservation, .. } => match self.charges.get(reservation) {
                Some(charge) if charge.drawn > 0 => Ok(()),
                _ => Err(Rule::NotOpen(*reservation)),
            },
            Entry::Settle { reservation, count } => at_most(self.open(*reservation)?, *count),
            Entry::Void { reservation } => match self.open(*reservation)?.drawn {
                0 => Ok(()),
                _ => Err(Rule::Drawn(*reservation)),
            },
        }
    }

    fn check_cap(&self, cap: &Cap) -> Result<(), Rule> {
        if cap.delta.get() == 0.0 {
            return Err(Rule::NoDelta);
        }
        let charged = self.charges().any(|c| c.request.dataset == cap.dataset && c.event().is_some());
        match self.caps.get(&cap.dataset) {
            Some(old) if charged && old.privacy_unit != cap.privacy_unit => Err(Rule::OtherUnit {
                dataset: cap.dataset,
                unit: old.privacy_unit.to_string(),
                asked: cap.privacy_unit.to_string(),
            }),
            _ => Ok(()),
        }
    }

    fn check_request(&self, request: &Request) -> Result<(), Rule> {
        let dataset = request.dataset;
        let cap = self.caps.get(&dataset).ok_or(Rule::NoCap { dataset })?;
        if cap.privacy_unit != request.privacy_unit {
            return Err(Rule::OtherUnit {
                dataset,
                unit: cap.privacy_unit.to_string(),
                asked: request.privacy_unit.to_string(),
            });
        }
        if request.event.count() == 0 { Err(Rule::Nothing) } else { Ok(()) }
    }

    fn open(&self, reservation: u64) -> Result<&Charge, Rule> {
        self.charges
            .get(&reservation)
            .filter(|charge| charge.standing == Standing::Open)
            .ok_or(Rule::NotOpen(reservation))
    }

    /// Adds an entry, or says why it may not come next and changes nothing.
    pub(super) fn apply(&mut self, record: &Record, hash: Digest) -> Result<(), Rule> {
        self.check(&record.entry)?;
        let reservation = record.counter;
        match &record.entry {
            Entry::Cap { cap } => drop(self.caps.insert(cap.dataset, cap.clone())),
            Entry::Reserve { basis, request } => {
                let (at, request, basis) = (record.at, request.clone(), *basis);
                let (drawn, standing, outputs) = (0, Standing::Open, Vec::new());
                let charge = Charge { reservation, at, request, basis, drawn, standing, outputs };
                self.charges.insert(reservation, charge);
            }
            Entry::Draw { reservation, upto } => self.change(*reservation, |charge| charge.drawn = *upto),
            Entry::Release { reservation, output } => {
                self.change(*reservation, |charge| charge.outputs.push(*output));
                self.released.entry(*output).or_insert(record.counter);
            }
            Entry::Settle { reservation, count } => {
                self.change(*reservation, |charge| charge.standing = Standing::Settled(*count));
            }
            Entry::Void { reservation } => {
                self.change(*reservation, |charge| charge.standing = Standing::Void);
            }
        }
        self.hashes.push(hash);
        Ok(())
    }

    fn change(&mut self, reservation: u64, change: impl FnOnce(&mut Charge)) {
        if let Some(charge) = self.charges.get_mut(&reservation) {
            change(charge);
        }
    }
}

fn at_most(charge: &Charge, asked: u64) -> Result<(), Rule> {
    if asked > charge.request.event.count() { Err(count(charge, asked)) } else { Ok(()) }
}

fn count(charge: &Charge, asked: u64) -> Rule {
    Rule::Count {
        reservation: charge.reservation,
        drawn: charge.drawn,
        reserved: charge.request.event.count(),
        asked,
    }
}
