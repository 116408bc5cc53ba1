use super::AccountError;
use crate::{
    event::Event,
    units::{Delta, Epsilon},
};

/// Stops before a cap.
#[derive(Debug, Clone)]
pub struct Filter(());

impl Filter {
    /// A filter with a cap.
    pub fn new(_cap: Epsilon, _delta: Delta) -> Result<Self, AccountError> {
        unimplemented!()
    }
    /// Would the event fit?
    pub fn check(&self, _event: &Event) -> Result<(), AccountError> {
        unimplemented!()
    }
    /// Charges the event, or refuses and changes nothing.
    pub fn charge(&mut self, _event: &Event) -> Result<(), AccountError> {
        unimplemented!()
    }
    /// Charges what has already happened (settled ledger entries), even over the cap.
    pub fn record(&mut self, _event: &Event) {
        unimplemented!()
    }
    /// Epsilon charged so far.
    pub fn spent(&self) -> f64 {
        unimplemented!()
    }
}

/// Reads what was spent, valid at every moment at once.
#[derive(Debug, Clone)]
pub struct Odometer(());

impl Odometer {
    /// An odometer whose readings all hold together with probability 1 - delta.
    pub fn new(_delta: Delta) -> Result<Self, AccountError> {
        unimplemented!()
    }
    /// Counts an event.
    pub fn record(&mut self, _event: &Event) {
        unimplemented!()
    }
    /// Epsilon so far.
    pub fn reading(&self) -> Result<Epsilon, AccountError> {
        unimplemented!()
    }
}
