use std::collections::BTreeMap;

use rand::Rng as _;

use super::{DpError, NoiseStream};
use crate::{Event, ledger::StepToken};

/// Rows of a data set by privacy unit. A patient with five rows is one unit, present or absent with all five.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Units(Vec<Vec<usize>>);

impl Units {
    /// Every row is a unit.
    pub fn each_row(rows: usize) -> Self {
        Self((0..rows).map(|row| vec![row]).collect())
    }

    /// Rows with equal labels are one unit; `labels` has one for every row.
    pub fn by_label<L: Ord>(labels: &[L]) -> Self {
        let mut units = BTreeMap::<&L, Vec<usize>>::new();
        for (row, label) in labels.iter().enumerate() {
            units.entry(label).or_default().push(row);
        }
        Self(units.into_values().collect())
    }

    /// Number of units. Private under add/remove: it may not leave, and no public size is derived from it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No units: steps go on all the same, with noise alone.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows of a unit.
    pub fn rows(&self, unit: usize) -> &[usize] {
        &self.0[unit]
    }
}

/// Draws the units of a step: each one independently, with the probability that the ledger charged. Batches differ in size
/// and may be empty; that, and no other way to make batches, is what the accountants know.
pub struct PoissonSampler(NoiseStream);

impl PoissonSampler {
    /// A sampler with a seed from the operating system.
    ///
    /// # Errors
    /// [`DpError::Entropy`].
    pub fn new() -> Result<Self, DpError> {
        Ok(Self(NoiseStream::new()?))
    }

    /// A sampler that repeats itself: for simulations and tests. What it draws protects nobody.
    #[cfg(any(test, feature = "simulation"))]
    pub fn simulated(seed: u64) -> Self {
        Self(NoiseStream::simulated(seed))
    }

    /// The units in this step. Which ones, and how many, is private.
    ///
    /// # Errors
    /// [`DpError::OtherMechanism`] for a token that does not pay for DP-SGD.
    pub fn draw(&mut self, units: &Units, token: &StepToken) -> Result<Vec<usize>, DpError> {
        let Event::PoissonGaussian { rate, .. } = token.event() else {
            return Err(DpError::OtherMechanism(token.event()));
        };
        if rate.get() >= 1.0 {
            return Ok((0..units.len()).collect());
        }
        // Rounded down: a unit is never in with more than the charged probability.
        let threshold = (rate.get() * 2.0_f64.powi(64)) as u64;
        Ok((0..units.len()).filter(|_| self.0.rng().next_u64() < threshold).collect())
    }
}
