//! Privacy loss distributions (PLD): the law of `L = log P(o)/Q(o)` with `o ~ P`, for the pair (P, Q) of output
//! distributions on neighbouring data sets that dominates all others. Losses of independent releases add, so their laws
//! are convolved; `delta(epsilon) = E[(1 - e^(epsilon - L))+]`.
//!
//! | step | file | source |
//! |---|---|---|
//! | dominating pairs, cut into cells of the loss | `pair.rs`, `mixture.rs`, `bounded.rs` | Zhu, Dong, Wang 2022 (arXiv 2106.08567); replace-one: Lebeda et al. 2024 (arXiv 2405.20769) |
//! | cells to grid points, from above and from below | `cells.rs`, `merge.rs` | Doroshenko et al. 2022 (arXiv 2207.04380) |
//! | convolution on a circle, with what wraps around bounded | `compose.rs` | Koskela, Jälkö, Honkela 2020 (arXiv 1906.03049) |
//! | delta and epsilon of the result | `curve.rs` | |
//!
//! The upper estimate counts as failed (infinite loss) all that was cut off: the far tail of each step, what a Chernoff
//! bound says may lie beyond the window, and an allowance for the rounding of the FFT. The lower one drops them.

mod bounded;
mod cells;
mod compose;
mod curve;
mod merge;
mod mixture;
mod pair;
mod spectrum;
mod window;

use serde::{Deserialize, Serialize};

use super::AccountError;
use crate::{
    event::Event,
    units::{Delta, Epsilon},
};
use cells::Cells;
use compose::Direction;
use curve::Curve;

/// Which data sets count as neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adjacency {
    /// One privacy unit more or fewer.
    AddRemove,
    /// One privacy unit exchanged for another.
    ReplaceOne,
}

/// Which side of the truth an estimate lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimate {
    /// Never below the truth: what is spent.
    Pessimistic,
    /// Never above the truth: shows how loose the other is.
    Optimistic,
}

/// The composed privacy loss of a list of events, in every direction of its adjacency.
#[derive(Debug, Clone)]
pub struct Pld {
    curves: Vec<Curve>,
}

impl Pld {
    /// Composes the events; takes some tenths of a second for one DP-SGD run.
    ///
    /// The grid has steps of 1e-4, finer where the whole loss is small, coarser where it is large or made of many
    /// different events.
    pub fn of(events: &[Event], adjacency: Adjacency, estimate: Estimate) -> Self {
        let parts = pair::parts(events, adjacency);
        let curves = match adjacency {
            // Add and remove are each other's mirror image; neither dominates the other after composition.
            Adjacency::AddRemove => {
                let (remove, add) = rayon::join(
                    || compose::compose(&parts, Direction::Along, estimate),
                    || compose::compose(&parts, Direction::Mirrored, estimate),
                );
                vec![remove, add]
            }
            // The pairs of replace-one are their own mirror image.
            Adjacency::ReplaceOne => vec![compose::compose(&parts, Direction::Along, estimate)],
        };
        Self { curves }
    }

    /// The least epsilon that holds with `delta`. Fails when `delta` is below the mass of what was cut off (1e-15 at
    /// most for each tail) or 0 where only a larger delta has a finite epsilon.
    pub fn epsilon(&self, delta: Delta) -> Result<Epsilon, AccountError> {
        let epsilon = self.curves.iter().map(|curve| curve.epsilon(delta.get())).fold(0.0, f64::max);
        Epsilon::new(epsilon).map_err(|_| AccountError::Unbounded { delta })
    }

    /// The delta that holds with `epsilon`.
    pub fn delta(&self, epsilon: Epsilon) -> Delta {
        let delta = self.curves.iter().map(|curve| curve.delta(epsilon.get())).fold(0.0, f64::max);
        Delta::clamped(delta)
    }
}

#[cfg(test)]
mod tests;
