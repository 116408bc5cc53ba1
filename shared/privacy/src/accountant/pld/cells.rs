//! One step's loss, cut into cells of a grid, and its mass moved to the grid points from above or from below.

use super::{Estimate, merge};

/// Covers the rounding of a product and a difference.
const SAFETY: f64 = 4.0 * f64::EPSILON;

/// Masses of the cells `(first + i) * step < L <= (first + i + 1) * step` under both distributions of the pair.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    pub(super) step: f64,
    pub(super) first: i64,
    /// Mass under P, the distribution that outcomes are drawn from.
    pub(super) p: Vec<f64>,
    /// Mass under Q.
    pub(super) q: Vec<f64>,
    /// Mass (P, Q) of losses above the last cell.
    pub(super) above: (f64, f64),
    /// Mass (P, Q) of losses below the first cell.
    pub(super) below: (f64, f64),
}

/// A merged outcome: its mass under P and under Q, and about its loss.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) p: f64,
    pub(super) q: f64,
    pub(super) loss: f64,
}

/// One step's law on grid points: mass at `(first + j) * step`.
#[derive(Debug, Clone)]
pub(super) struct Points {
    pub(super) first: i64,
    pub(super) mass: Vec<f64>,
    pub(super) infinite: f64,
}

impl Cells {
    /// The pair with P and Q exchanged: losses change their sign.
    pub(super) fn mirrored(&self) -> Self {
        let flip = |masses: &[f64]| masses.iter().rev().copied().collect();
        Self {
            step: self.step,
            first: -self.first - self.p.len() as i64,
            p: flip(&self.q),
            q: flip(&self.p),
            above: (self.below.1, self.below.0),
            below: (self.above.1, self.above.0),
        }
    }

    /// The loss at the lower end of cell i.
    pub(super) fn point(&self, i: usize) -> f64 {
        (self.first as f64 + i as f64) * self.step
    }

    pub(super) fn points(&self, estimate: Estimate) -> Points {
        match estimate {
            Estimate::Pessimistic => self.raised(),
            Estimate::Optimistic => self.lowered(),
        }
    }

    /// What of each cell's P mass goes to its upper point when P and Q mass are both kept. That is the least pair on
    /// this grid that dominates the true one: its delta is the true one at the points ("connect the dots").
    ///
    /// The difference loses digits; `safety` (a fraction of the mass) moves the result beyond that.
    fn upper_shares(&self, safety: f64) -> Vec<f64> {
        let lift = -(-self.step).exp_m1();
        let share = |(i, (&p, &q)): (usize, (&f64, &f64))| {
            // Beyond e^700 the Q mass has long vanished, and the product with it.
            ((p - q * self.point(i).min(700.0).exp() + safety * p) / lift).clamp(0.0, p)
        };
        self.p.iter().zip(&self.q).enumerate().map(share).collect()
    }

    fn raised(&self) -> Points {
        let mut mass = vec![0.0; self.p.len() + 1];
        for (i, (p, up)) in self.p.iter().zip(self.upper_shares(SAFETY)).enumerate() {
            mass[i] += p - up;
            mass[i + 1] += up;
        }
        mass[0] += self.below.0; // raised
        Points { first: self.first, mass, infinite: self.above.0 }
    }

    /// Merges parts of neighbouring cells so that each merged outcome has at least the loss of its grid point: a
    /// post-processing of the true pair, or less than one. See [`merge`].
    fn lowered(&self) -> Points {
        let up = self.upper_shares(-SAFETY);
        let down: Vec<f64> = self.p.iter().zip(&up).map(|(p, up)| p - up).collect();
        let left = merge::shares_to_the_left(&up, &down, self.step.exp());
        let mut mass = vec![0.0; self.p.len() + 1];
        for (i, (p, left)) in self.p.iter().zip(left).enumerate() {
            mass[i] += left * p;
            mass[i + 1] += (1.0 - left) * p;
        }
        mass[self.p.len()] += self.above.0; // lowered
        Points { first: self.first, mass, infinite: 0.0 }
    }
}

#[cfg(test)]
mod tests;
