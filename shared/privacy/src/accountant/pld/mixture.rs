//! The Gaussian mechanism under Poisson sampling.

use super::{Adjacency, Cells, cells::Outcome};
use crate::accountant::normal::{Cut, log_add, quantile};

/// Outcomes of an outline.
const OUTLINE: usize = 400;

/// With one unit removed P = (1-q) N(0, s^2) + q N(1, s^2) and Q = N(0, s^2); with one exchanged Q =
/// (1-q) N(0, s^2) + q N(-1, s^2). The loss rises with the outcome x. With q = 1 the plain Gaussian mechanism.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mixture {
    pub(super) q: f64,
    pub(super) sigma: f64,
    pub(super) adjacency: Adjacency,
}

/// A point of the line as seen by the normals with means 0, 1 and -1.
type Cuts = [Cut; 3];

impl Mixture {
    pub(super) fn range(self, tail: f64) -> (f64, f64) {
        let (low, high) = self.outcomes(tail);
        (self.loss(low), self.loss(high))
    }

    /// Outcomes merged in even steps.
    pub(super) fn outline(self, tail: f64) -> Vec<Outcome> {
        let (low, high) = self.outcomes(tail);
        let width = (high - low) / OUTLINE as f64;
        let outcome = |i: usize| {
            let from = low + i as f64 * width;
            let (p, q) = self.masses(self.cut(from), self.cut(from + width));
            Outcome { p, q, loss: self.loss(from + 0.5 * width) }
        };
        (0..OUTLINE).map(outcome).collect()
    }

    pub(super) fn cells(self, step: f64, tail: f64) -> Cells {
        let (low, high) = self.range(tail);
        let first = (low / step).floor() as i64;
        let last = ((high / step).ceil() as i64).max(first + 1);
        let at = |point: i64| self.cut(self.outcome(point as f64 * step));
        let bottom = at(first);
        let mut before = bottom;
        let mut between = |point: i64| {
            let next = at(point);
            let masses = self.masses(before, next);
            before = next;
            masses
        };
        let (p, q) = (first + 1..=last).map(&mut between).unzip();
        let above = self.masses(before, self.cut(f64::INFINITY));
        let below = self.masses(self.cut(f64::NEG_INFINITY), bottom);
        Cells { step, first, p, q, above, below }
    }

    /// The outcomes outside of which lies at most `tail` of P above and of Q below.
    fn outcomes(self, tail: f64) -> (f64, f64) {
        let far = quantile(tail) * self.sigma;
        match self.adjacency {
            Adjacency::AddRemove => (-far, 1.0 + far),
            Adjacency::ReplaceOne => (-1.0 - far, 1.0 + far),
        }
    }

    fn loss(self, x: f64) -> f64 {
        let log = |x: f64| {
            let one = (2.0 * x - 1.0) / (2.0 * self.sigma * self.sigma) + self.q.ln();
            log_add((-self.q).ln_1p(), one)
        };
        match self.adjacency {
            Adjacency::AddRemove => log(x),
            Adjacency::ReplaceOne => log(x) - log(-x),
        }
    }

    /// The outcome with this loss; infinite where every loss is larger.
    fn outcome(self, loss: f64) -> f64 {
        let (q, variance) = (self.q, self.sigma * self.sigma);
        match self.adjacency {
            // e^((2x-1)/(2 s^2)) = (e^loss - 1 + q) / q
            Adjacency::AddRemove => {
                let log = if loss > 1.0 {
                    loss - q.ln() + (-(1.0 - q) * (-loss).exp()).ln_1p()
                } else if loss > -0.5 {
                    (loss.exp_m1() / q).max(-1.0).ln_1p()
                } else {
                    (loss.exp() - (1.0 - q)).max(0.0).ln() - q.ln()
                };
                variance * log + 0.5
            }
            // u = e^(x/s^2) solves a u^2 + (1-q)(1-y) u = y a, with y = e^loss and a = q e^(-1/(2 s^2)); odd in loss.
            Adjacency::ReplaceOne => {
                let size = loss.abs();
                let log_a = q.ln() - 0.5 / variance;
                let linear = (-q).ln_1p() + size + (-(-size).exp_m1()).ln();
                let root = 0.5 * log_add(2.0 * linear, 4.0_f64.ln() + 2.0 * log_a + size);
                let x = variance * (log_add(linear, root) - 2.0_f64.ln() - log_a);
                x.copysign(loss)
            }
        }
    }

    fn cut(self, x: f64) -> Cuts {
        let zero = Cut::at(x / self.sigma);
        let minus = match self.adjacency {
            Adjacency::AddRemove => zero, // not used
            Adjacency::ReplaceOne => Cut::at((x + 1.0) / self.sigma),
        };
        [zero, Cut::at((x - 1.0) / self.sigma), minus]
    }

    /// Masses (P, Q) between two cuts.
    fn masses(self, from: Cuts, to: Cuts) -> (f64, f64) {
        let [zero, plus, minus] = [0, 1, 2].map(|mean: usize| from[mean].until(to[mean]));
        let sampled = |shifted: f64| (1.0 - self.q) * zero + self.q * shifted;
        match self.adjacency {
            Adjacency::AddRemove => (sampled(plus), zero),
            Adjacency::ReplaceOne => (sampled(plus), sampled(minus)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_and_loss_are_inverse() {
        for adjacency in [Adjacency::AddRemove, Adjacency::ReplaceOne] {
            for (q, sigma) in [(1e-6, 0.8), (0.01, 0.4), (0.3, 1.0), (0.99, 3.0), (1.0, 0.1), (0.5, 40.0)] {
                let mixture = Mixture { q, sigma, adjacency };
                for z in [-4.0, -1.0, 0.0, 0.3, 2.0, 7.0] {
                    let x = z * sigma + 0.2;
                    let loss = mixture.loss(x);
                    let back = mixture.loss(mixture.outcome(loss));
                    assert!(
                        (back - loss).abs() <= 1e-12 * loss.abs().max(1.0),
                        "{mixture:?} {x} {loss} {back}"
                    );
                }
            }
        }
    }

    #[test]
    fn cells_hold_all_the_mass_of_both() {
        for adjacency in [Adjacency::AddRemove, Adjacency::ReplaceOne] {
            let cells = Mixture { q: 0.1, sigma: 0.7, adjacency }.cells(1e-3, 1e-12);
            let p: f64 = cells.p.iter().sum();
            let q: f64 = cells.q.iter().sum();
            assert!((p + cells.above.0 + cells.below.0 - 1.0).abs() < 1e-13);
            assert!((q + cells.above.1 + cells.below.1 - 1.0).abs() < 1e-13);
            assert!(cells.above.0 <= 1e-12 && cells.below.1 <= 1e-12);
        }
    }
}
