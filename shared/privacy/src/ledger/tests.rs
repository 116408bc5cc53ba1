mod budget;
mod chain;
mod crash;
mod fault;
mod lifecycle;

use super::{Cap, Digest, Ledger, MemoryStore, PrivacyUnit, Request, RunId, StepToken};
use crate::{Delta, Epsilon, Event, Rate, Sigma};

/// A token for tests of other modules. Only here can it be made without a ledger.
pub(crate) fn token(event: Event) -> StepToken {
    StepToken::new(1, 1, event)
}

fn dataset() -> Digest {
    Digest::of(b"rows")
}

fn cap(epsilon: f64) -> Cap {
    Cap {
        dataset: dataset(),
        privacy_unit: PrivacyUnit::new("patient").unwrap(),
        epsilon: Epsilon::new(epsilon).unwrap(),
        delta: Delta::new(1e-5).unwrap(),
    }
}

fn run(name: &str) -> RunId {
    RunId::new(name).unwrap()
}

fn request(name: &str, event: Event) -> Request {
    Request {
        run: run(name),
        plan: Digest::of(name.as_bytes()),
        dataset: dataset(),
        privacy_unit: PrivacyUnit::new("patient").unwrap(),
        event,
        delta: Delta::new(1e-5).unwrap(),
    }
}

fn gaussian(sigma: f64, count: u64) -> Event {
    Event::Gaussian { sigma: Sigma::new(sigma).unwrap(), count }
}

fn training(sigma: f64, steps: u64) -> Event {
    Event::PoissonGaussian { rate: Rate::new(0.032).unwrap(), sigma: Sigma::new(sigma).unwrap(), steps }
}

fn open(store: &MemoryStore) -> Ledger {
    Ledger::open(store.clone(), || 1_700_000_000, None).unwrap()
}

/// An open ledger with a cap, and its store.
fn ledger(epsilon: f64) -> (Ledger, MemoryStore) {
    let store = MemoryStore::default();
    let ledger = open(&store);
    ledger.set_cap(cap(epsilon)).unwrap();
    (ledger, store)
}
