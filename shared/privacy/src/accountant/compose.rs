use super::{AccountError, RdpCurve};
use crate::{
    event::Event,
    units::{Delta, Epsilon},
};
use serde::Serialize;

/// What a list of events amounts to at one delta.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Account {
    /// The delta.
    pub delta: Delta,
    /// Rényi accountant, add/remove.
    pub epsilon_rdp: Epsilon,
    /// PLD upper estimate, add/remove: what is spent.
    pub epsilon_pld: Epsilon,
    /// PLD lower estimate, add/remove.
    pub epsilon_pld_lower: Epsilon,
    /// PLD upper estimate, replace-one.
    pub epsilon_replace_one: Epsilon,
}

/// Events on one data set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Composition(Vec<Event>);

impl Composition {
    /// Nothing released yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds an event.
    pub fn push(&mut self, event: Event) {
        self.0.push(event)
    }
    /// The events.
    pub fn events(&self) -> &[Event] {
        &self.0
    }
    /// The Rényi curve.
    pub fn rdp(&self) -> RdpCurve {
        unimplemented!()
    }
    /// All epsilons at delta.
    pub fn account(&self, _delta: Delta) -> Result<Account, AccountError> {
        unimplemented!()
    }
}

impl FromIterator<Event> for Composition {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        Self(events.into_iter().collect())
    }
}
