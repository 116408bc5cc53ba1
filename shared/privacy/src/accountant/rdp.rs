use super::AccountError;
use crate::{
    event::Event,
    units::{Delta, Epsilon},
};

/// Rényi divergence at every order.
#[derive(Debug, Clone, PartialEq)]
pub struct RdpCurve(Vec<f64>);

impl RdpCurve {
    /// No loss.
    pub fn zero() -> Self {
        unimplemented!()
    }
    /// The curve of one event.
    pub fn of(_event: &Event) -> Self {
        unimplemented!()
    }
    /// Adds the loss of `other`.
    pub fn add(&mut self, _other: &Self) {
        unimplemented!()
    }
    /// The least epsilon over the orders, and the order that gives it.
    pub fn epsilon(&self, _delta: Delta) -> Result<(Epsilon, f64), AccountError> {
        unimplemented!()
    }
    /// The least delta over the orders.
    pub fn delta(&self, _epsilon: Epsilon) -> Delta {
        unimplemented!()
    }
}
