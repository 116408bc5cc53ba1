//! A list of releases on one data set, and what it amounts to.

use serde::Serialize;

use super::{AccountError, Adjacency, Estimate, Fits, Pld, RdpCurve};
use crate::{
    event::Event,
    units::{Delta, Epsilon},
};

/// What a list of events amounts to at one delta: every estimate side by side.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Account {
    /// The delta of all the epsilons.
    pub delta: Delta,
    /// Rényi accountant, add/remove.
    pub epsilon_rdp: Epsilon,
    /// PLD upper estimate, add/remove: this is the spent epsilon.
    pub epsilon_pld: Epsilon,
    /// PLD lower estimate, add/remove: the true epsilon of the dominating pairs lies between the two.
    pub epsilon_pld_lower: Epsilon,
    /// PLD upper estimate, replace-one.
    pub epsilon_replace_one: Epsilon,
}

/// The events on one data set, composed on their whole loss curves, never by adding epsilons.
///
/// Covers events whose parameters were fixed without looking at earlier results; their questions may depend on them
/// (as every step of DP-SGD does). Where the parameters may depend on results too, use [`super::Filter`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Composition(Vec<Event>);

impl Composition {
    /// Nothing released yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event.
    pub fn push(&mut self, event: Event) {
        self.0.push(event);
    }

    /// The events.
    pub fn events(&self) -> &[Event] {
        &self.0
    }

    /// The sum of the Rényi curves.
    pub fn rdp(&self) -> RdpCurve {
        let mut sum = RdpCurve::zero();
        for event in &self.0 {
            sum.add(&RdpCurve::of(event));
        }
        sum
    }

    /// The PLD of one adjacency and estimate.
    pub fn pld(&self, adjacency: Adjacency, estimate: Estimate) -> Pld {
        Pld::of(&self.0, adjacency, estimate)
    }

    /// The spent epsilon at `delta`: PLD upper estimate, add/remove.
    pub fn epsilon(&self, delta: Delta) -> Result<Epsilon, AccountError> {
        self.pld(Adjacency::AddRemove, Estimate::Pessimistic).epsilon(delta)
    }

    /// All epsilons at `delta`. Fails when one of them is not finite.
    pub fn account(&self, delta: Delta) -> Result<Account, AccountError> {
        use Adjacency::{AddRemove, ReplaceOne};
        use Estimate::{Optimistic, Pessimistic};
        let (epsilon_rdp, _) = self.rdp().epsilon(delta)?;
        Ok(Account {
            delta,
            epsilon_rdp,
            epsilon_pld: self.epsilon(delta)?,
            epsilon_pld_lower: self.pld(AddRemove, Optimistic).epsilon(delta)?,
            epsilon_replace_one: self.pld(ReplaceOne, Pessimistic).epsilon(delta)?,
        })
    }

    /// Whether `event` may come on top of these under the cap: the spent epsilon it would bring, or
    /// [`AccountError::OverCap`] with what would fit. A refusal takes some seconds, since it looks for that.
    pub fn fits(&self, event: &Event, cap: Epsilon, delta: Delta) -> Result<Epsilon, AccountError> {
        let with = |event: &Event| {
            let mut all = self.clone();
            all.push(*event);
            all.epsilon(delta)
        };
        let asked = with(event);
        match asked {
            Ok(epsilon) if epsilon <= cap => Ok(epsilon),
            _ => Err(AccountError::OverCap {
                asked: asked.map_or(f64::INFINITY, Epsilon::get),
                spent: self.epsilon(delta).map_or(f64::INFINITY, Epsilon::get),
                cap,
                delta,
                fits: Fits::of(event, |event| with(event).is_ok_and(|epsilon| epsilon <= cap)),
            }),
        }
    }
}

impl FromIterator<Event> for Composition {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        Self(events.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
