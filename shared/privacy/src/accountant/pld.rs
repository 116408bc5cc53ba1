use super::AccountError;
use crate::{
    event::Event,
    units::{Delta, Epsilon},
};
use serde::{Deserialize, Serialize};

/// Which data sets count as neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adjacency {
    /// One unit more or fewer.
    AddRemove,
    /// One unit exchanged for another.
    ReplaceOne,
}

/// Which side of the truth an estimate lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimate {
    /// Never below the truth: what is spent.
    Pessimistic,
    /// Never above the truth: how loose the other is.
    Optimistic,
}

/// A composed privacy loss distribution.
#[derive(Debug, Clone)]
pub struct Pld(());

impl Pld {
    /// Composes the events.
    pub fn of(_events: &[Event], _adjacency: Adjacency, _estimate: Estimate) -> Self {
        unimplemented!()
    }
    /// The least epsilon at delta.
    pub fn epsilon(&self, _delta: Delta) -> Result<Epsilon, AccountError> {
        unimplemented!()
    }
    /// Delta at epsilon.
    pub fn delta(&self, _epsilon: Epsilon) -> Delta {
        unimplemented!()
    }
}
