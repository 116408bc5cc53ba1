//! The noise that an (epsilon, delta) asks for.

use serde::Serialize;

use super::{Account, AccountError, Composition};
use crate::{
    event::Event,
    units::{Delta, Epsilon, Rate, Sigma},
};

/// Less noise than this is refused: the epsilons it gives protect nobody.
pub const LEAST_SIGMA: f64 = 0.3;
/// The most noise that is tried.
const MOST_SIGMA: f64 = 1e6;
/// Relative precision of the noise found.
const PRECISION: f64 = 1e-6;

/// What DP-SGD is to be noised for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// The epsilon not to pass.
    pub epsilon: Epsilon,
    /// Its delta.
    pub delta: Delta,
    /// Sampling rate.
    pub rate: Rate,
    /// Steps.
    pub steps: u64,
    /// Privacy units in the data set, when a public bound is known: delta must be below 1 / records.
    pub records: Option<u64>,
}

/// The noise found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Calibrated {
    /// The noise multiplier.
    pub sigma: Sigma,
    /// What it achieves: `epsilon_pld` is at most what was asked.
    #[serde(flatten)]
    pub account: Account,
}

/// Refuses a delta that lets a mechanism publish one of `records` records outright.
pub fn check_delta(delta: Delta, records: u64) -> Result<(), AccountError> {
    if delta.get() * records as f64 >= 1.0 {
        return Err(AccountError::DeltaTooLarge { delta, records, limit: 0.1 / records as f64 });
    }
    Ok(())
}

impl Calibration {
    /// Finds the least noise whose spent epsilon (PLD, upper estimate, add/remove) is at most the one asked, to 1e-6 of
    /// its value. The epsilon achieved is computed for the very sigma returned, and never above the one asked.
    pub fn solve(&self) -> Result<Calibrated, AccountError> {
        let (rate, steps) = (self.rate, self.steps);
        let event = |sigma| Ok(Composition::from_iter([Event::PoissonGaussian { rate, sigma, steps }]));
        Noise { epsilon: self.epsilon, delta: self.delta, records: self.records, events: &event }.solve()
    }
}

/// What several events that share one noise multiplier are to be noised for, together.
pub struct Noise<'a> {
    /// The epsilon not to pass.
    pub epsilon: Epsilon,
    /// Its delta.
    pub delta: Delta,
    /// Privacy units in the data set, when a public bound is known: delta must be below 1 / records.
    pub records: Option<u64>,
    /// The events under a noise multiplier: more of it must not cost more.
    pub events: &'a dyn Fn(Sigma) -> Result<Composition, AccountError>,
}

impl Noise<'_> {
    /// As [`Calibration::solve`], of all events on one loss curve.
    pub fn solve(&self) -> Result<Calibrated, AccountError> {
        if let Some(records) = self.records {
            check_delta(self.delta, records)?;
        }
        let least = Sigma::new(LEAST_SIGMA)?;
        // Rényi epsilons are quick: they show where to look.
        let start = self.rdp_sigma()?.unwrap_or(least);
        let mut bracket = Bracket::around(start, |sigma| self.epsilon(sigma), self)?;
        while bracket.enough.0.get() / bracket.little.0.get() > 1.0 + PRECISION {
            bracket.narrow(self.epsilon.get(), |sigma| self.epsilon(sigma))?;
        }
        let sigma = bracket.enough.0;
        Ok(Calibrated { sigma, account: (self.events)(sigma)?.account(self.delta)? })
    }

    /// Spent epsilon, infinite where there is none.
    fn epsilon(&self, sigma: Sigma) -> f64 {
        (self.events)(sigma).and_then(|events| events.epsilon(self.delta)).map_or(f64::INFINITY, Epsilon::get)
    }

    /// The least noise by Rényi epsilon, to some per cent; none when even the most is not enough.
    fn rdp_sigma(&self) -> Result<Option<Sigma>, AccountError> {
        let enough = |sigma: f64| -> Result<bool, AccountError> {
            let epsilon = (self.events)(Sigma::new(sigma)?)?.rdp().epsilon(self.delta);
            Ok(epsilon.is_ok_and(|(epsilon, _)| epsilon <= self.epsilon))
        };
        let (mut little, mut much) = (LEAST_SIGMA, MOST_SIGMA);
        if !enough(much)? {
            return Ok(None);
        }
        while much / little > 1.02 {
            let middle = (little * much).sqrt();
            if enough(middle)? { much = middle } else { little = middle }
        }
        Ok(Some(Sigma::new(much)?))
    }
}

/// A noise that is too little and one that is enough, with their epsilons.
#[derive(Debug, Clone, Copy)]
struct Bracket {
    little: (Sigma, f64),
    enough: (Sigma, f64),
    /// Whether the last two narrowings moved the same end, which then holds interpolation back.
    stuck: bool,
}

impl Bracket {
    fn around(start: Sigma, epsilon: impl Fn(Sigma) -> f64, asked: &Noise<'_>) -> Result<Self, AccountError> {
        let at = |sigma: f64| Sigma::new(sigma).map(|sigma| (sigma, epsilon(sigma)));
        let holds = |point: &(Sigma, f64)| point.1 <= asked.epsilon.get();
        let mut enough = at(start.get().max(LEAST_SIGMA))?;
        while !holds(&enough) {
            if enough.0.get() >= MOST_SIGMA {
                return Err(AccountError::Unreachable {
                    epsilon: asked.epsilon,
                    delta: asked.delta,
                    tried: MOST_SIGMA,
                });
            }
            enough = at((enough.0.get() * 2.0).min(MOST_SIGMA))?;
        }
        let mut little = enough;
        while holds(&little) {
            if little.0.get() <= LEAST_SIGMA {
                let achieved = little.1;
                return Err(AccountError::NoiseTooSmall {
                    asked: asked.epsilon,
                    least: LEAST_SIGMA,
                    achieved,
                });
            }
            enough = little;
            little = at((little.0.get() * 0.8).max(LEAST_SIGMA))?;
        }
        Ok(Self { little, enough, stuck: false })
    }

    /// One step: where the line through both ends (in logarithms) meets the target, or the middle when that is stuck.
    fn narrow(&mut self, target: f64, epsilon: impl Fn(Sigma) -> f64) -> Result<(), AccountError> {
        let (low, high) = (self.little.0.get().ln(), self.enough.0.get().ln());
        let (above, below) = (self.little.1.ln(), self.enough.1.ln());
        let line = (above - target.ln()) / (above - below);
        let share = if self.stuck || !line.is_finite() { 0.5 } else { line };
        // A little beyond the crossing, on either side in turn, so that both ends close in.
        let margin = 0.25 * PRECISION / (high - low);
        let share = (share + if line < 0.5 { margin } else { -margin }).clamp(0.01, 0.99);
        let sigma = Sigma::new((low + share * (high - low)).exp())?;
        let point = (sigma, epsilon(sigma));
        let width = high - low;
        if point.1 <= target {
            self.enough = point;
        } else {
            self.little = point;
        }
        self.stuck = self.enough.0.get().ln() - self.little.0.get().ln() > 0.5 * width;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
