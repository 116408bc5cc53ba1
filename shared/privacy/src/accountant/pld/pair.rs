//! The pair of distributions that dominates each event.

use super::{Adjacency, Cells, bounded, cells::Outcome, mixture::Mixture};
use crate::event::Event;

/// A dominating pair (P, Q).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pair {
    /// Gaussian noise, subsampled or not.
    Mixture(Mixture),
    /// Laplace noise that is epsilon-DP.
    Laplace { epsilon: f64 },
    /// Randomised response, which dominates every epsilon-DP mechanism.
    Response { epsilon: f64 },
}

impl Pair {
    /// The losses outside of which lies at most `tail` of P above and of Q below.
    pub(super) fn range(self, tail: f64) -> (f64, f64) {
        match self {
            Self::Mixture(mixture) => mixture.range(tail),
            Self::Laplace { epsilon } | Self::Response { epsilon } => (-epsilon, epsilon),
        }
    }

    /// A coarse form of the pair for choosing a window.
    pub(super) fn outline(self, tail: f64) -> Vec<Outcome> {
        match self {
            Self::Mixture(mixture) => mixture.outline(tail),
            Self::Laplace { epsilon } => bounded::laplace_outline(epsilon),
            Self::Response { epsilon } => bounded::response_outline(epsilon).to_vec(),
        }
    }

    pub(super) fn cells(self, step: f64, tail: f64) -> Cells {
        match self {
            Self::Mixture(mixture) => mixture.cells(step, tail),
            Self::Laplace { epsilon } => bounded::laplace(epsilon, step),
            Self::Response { epsilon } => bounded::response(epsilon, step),
        }
    }
}

/// The pairs of the events with how often each is used. Plain Gaussians compose to one; equal pairs are counted
/// together; what was never used is left out.
pub(super) fn parts(events: &[Event], adjacency: Adjacency) -> Vec<(Pair, u64)> {
    // One unit exchanged moves a sum by twice what one unit more does.
    let reach = match adjacency {
        Adjacency::AddRemove => 1.0,
        Adjacency::ReplaceOne => 2.0,
    };
    let mut parts: Vec<(Pair, u64)> = Vec::new();
    let mut gaussian = 0.0; // sum of (reach / sigma)^2
    for event in events.iter().filter(|event| event.count() > 0) {
        let pair = match *event {
            Event::Gaussian { sigma, count } => {
                gaussian += count as f64 * (reach / sigma.get()).powi(2);
                continue;
            }
            Event::PoissonGaussian { rate, sigma, steps } if rate.get() == 1.0 => {
                gaussian += steps as f64 * (reach / sigma.get()).powi(2);
                continue;
            }
            Event::PoissonGaussian { rate, sigma, .. } => {
                Pair::Mixture(Mixture { q: rate.get(), sigma: sigma.get(), adjacency })
            }
            Event::Laplace { scale, .. } => Pair::Laplace { epsilon: reach / scale.get() },
            Event::Pure { epsilon } => Pair::Response { epsilon: reach * epsilon.get() },
        };
        match parts.iter_mut().find(|(known, _)| *known == pair) {
            Some((_, count)) => *count = count.saturating_add(event.count()),
            None => parts.push((pair, event.count())),
        }
    }
    if gaussian > 0.0 {
        let sigma = gaussian.sqrt().recip();
        parts.push((Pair::Mixture(Mixture { q: 1.0, sigma, adjacency: Adjacency::AddRemove }), 1));
    }
    parts
}
