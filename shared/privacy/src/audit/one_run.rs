//! Auditing with one run (Steinke, Nasr, Jagielski 2023, arXiv 2305.08846): canaries, each in the training or not by a coin;
//! guesses which were in; the number of right guesses against what (epsilon, delta)-DP allows.

use thiserror::Error;

use super::tail::{binomial_log_pmf, binomial_upper_tail};
use crate::{Delta, Epsilon, dpsgd::NoiseStream};

/// Doublings before the bound is given up as endless.
const MOST_DOUBLINGS: u32 = 12;
/// Halvings of an interval of at most 2^11: to f64's own resolution.
const HALVINGS: u32 = 60;

/// An audit that cannot be held.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// Guesses are about canaries.
    #[error(
        "{guesses} guesses about {canaries} canaries: it must be an even number, 2 or more and not above the canaries"
    )]
    Guesses {
        /// Canaries.
        canaries: u64,
        /// Guesses.
        guesses: u64,
    },
    /// One score a canary.
    #[error("{scores} scores for {canaries} canaries")]
    Scores {
        /// Canaries.
        canaries: u64,
        /// Scores.
        scores: u64,
    },
    /// A score that cannot be compared.
    #[error("the score of canary {0} is not a number")]
    NotANumber(usize),
}

/// The probability of `correct` or more right among `guesses`, at most, for any (epsilon, delta)-DP training (theorem 5.2).
/// A small value speaks against the training being (epsilon, delta)-DP.
pub fn p_value(canaries: u64, guesses: u64, correct: u64, epsilon: f64, delta: f64) -> f64 {
    let p = 1.0 / (1.0 + (-epsilon).exp());
    let beta = binomial_upper_tail(correct, guesses, p);
    // alpha = max over i of P(correct - i <= X < correct) / i
    let (mut alpha, mut below) = (0.0_f64, 0.0);
    for i in 1..=correct {
        below += binomial_log_pmf(correct - i, guesses, p).exp();
        alpha = alpha.max(below / i as f64);
    }
    (beta + alpha * delta * 2.0 * canaries as f64).min(1.0)
}

/// The largest epsilon that so many right guesses speak against with p-value `significance`: with probability
/// 1 - `significance` the training's true epsilon is not below it. 0 when they speak against none.
pub fn epsilon_lower_bound(canaries: u64, guesses: u64, correct: u64, delta: f64, significance: f64) -> f64 {
    let refuted = |epsilon: f64| p_value(canaries, guesses, correct, epsilon, delta) < significance;
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..MOST_DOUBLINGS {
        if !refuted(high) {
            break;
        }
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if refuted(middle) { low = middle } else { high = middle }
    }
    low
}

/// An audit as fixed before the training: choosing the number of guesses by the scores would void the bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OneRun {
    canaries: u64,
    guesses: u64,
    delta: Delta,
    significance: f64,
}

impl OneRun {
    /// Half of the guesses are 'in', half 'out'. Below 400 guesses even training without noise stays under an epsilon of 3.
    /// The bound is at 95 %.
    ///
    /// # Errors
    /// [`AuditError::Guesses`].
    pub fn new(canaries: u64, guesses: u64, delta: Delta) -> Result<Self, AuditError> {
        if guesses < 2 || !guesses.is_multiple_of(2) || guesses > canaries {
            return Err(AuditError::Guesses { canaries, guesses });
        }
        Ok(Self { canaries, guesses, delta, significance: 0.05 })
    }

    /// Flips a coin for every canary.
    pub fn flip(self, coins: &mut NoiseStream) -> Canaries {
        Canaries { audit: self, included: (0..self.canaries).map(|_| coins.coin()).collect() }
    }
}

/// Canaries and their coins. The training sees [`Self::included`], who scores does not.
#[derive(Clone, PartialEq)]
pub struct Canaries {
    audit: OneRun,
    included: Vec<bool>,
}

/// What an audit found.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct OneRunResult {
    /// Canaries.
    pub canaries: u64,
    /// Guesses.
    pub guesses: u64,
    /// Right ones.
    pub correct: u64,
    /// The training's epsilon is not below this, at 95 %.
    pub epsilon_lower: f64,
}

impl OneRunResult {
    /// Whether the accounted epsilon is refuted: the training protects less than was said.
    pub fn refutes(&self, accounted: Epsilon) -> bool {
        self.epsilon_lower > accounted.get()
    }
}

impl Canaries {
    /// Which canaries are records of the training.
    pub fn included(&self) -> &[bool] {
        &self.included
    }

    /// Guesses 'in' for the highest scores and 'out' for the lowest, and counts. A score is high where the trained model, or
    /// the released gradients, look like they saw the canary.
    ///
    /// # Errors
    /// [`AuditError::Scores`], [`AuditError::NotANumber`].
    pub fn judge(&self, scores: &[f64]) -> Result<OneRunResult, AuditError> {
        let OneRun { canaries, guesses, delta, significance } = self.audit;
        if scores.len() != self.included.len() {
            return Err(AuditError::Scores { canaries, scores: scores.len() as u64 });
        }
        if let Some(canary) = scores.iter().position(|score| score.is_nan()) {
            return Err(AuditError::NotANumber(canary));
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        let half = guesses as usize / 2;
        let out = order[..half].iter().filter(|canary| !self.included[**canary]).count();
        let included = order[order.len() - half..].iter().filter(|canary| self.included[**canary]).count();
        let correct = (out + included) as u64;
        let epsilon_lower = epsilon_lower_bound(canaries, guesses, correct, delta.get(), significance);
        Ok(OneRunResult { canaries, guesses, correct, epsilon_lower })
    }
}
