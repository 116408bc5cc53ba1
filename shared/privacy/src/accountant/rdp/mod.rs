//! Rényi accountant: the divergence of each event at fixed orders; composition adds.
//!
//! | event | divergence of order a | source |
//! |---|---|---|
//! | Gaussian | `a / (2 sigma^2)` | Mironov 2017 (arXiv 1702.07476), prop. 7 |
//! | Poisson-subsampled Gaussian | series in `subsampled.rs` | Mironov, Talwar, Zhang 2019 (arXiv 1908.10530), sec. 3.3 |
//! | Laplace | `log(a/(2a-1) e^((a-1)/b) + (a-1)/(2a-1) e^(-a/b)) / (a-1)` | Mironov 2017, prop. 6 |
//! | pure epsilon | that of randomised response, which every epsilon-DP mechanism is a post-processing of | Kairouz, Oh, Viswanath 2015 (arXiv 1311.0776) |
//!
//! Conversion: Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), prop. 12.

mod subsampled;

use std::sync::LazyLock;

use super::{AccountError, normal::log_add};
use crate::{
    event::Event,
    units::{Delta, Epsilon},
};

/// The orders: 1.1 to 10.9 by 0.1, 12 to 63 by 1, 128, 256, 512, 1024.
pub fn orders() -> &'static [f64] {
    static ORDERS: LazyLock<Vec<f64>> = LazyLock::new(|| {
        let fine = (11..=109).map(|tenths| f64::from(tenths) / 10.0);
        fine.chain((12..=63).map(f64::from)).chain([128.0, 256.0, 512.0, 1024.0]).collect()
    });
    &ORDERS
}

/// Rényi divergence at every one of [`orders`], add/remove; infinite at an order that gives no bound.
#[derive(Debug, Clone, PartialEq)]
pub struct RdpCurve(Vec<f64>);

impl RdpCurve {
    /// No loss.
    pub fn zero() -> Self {
        Self(vec![0.0; orders().len()])
    }

    /// The loss of one event with all its steps.
    pub fn of(event: &Event) -> Self {
        Self(orders().iter().map(|&order| divergence(event, order)).collect())
    }

    /// Adds the loss of another release on the same data. Valid also when its parameters were fixed beforehand but its
    /// question depends on earlier answers; when the parameters depend on them, use [`super::filter`].
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, x)| *sum += x);
    }

    /// The values, one for each of [`orders`].
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// The least epsilon over the orders, and the order that gives it. Fails when no order gives a finite one.
    pub fn epsilon(&self, delta: Delta) -> Result<(Epsilon, f64), AccountError> {
        let bounds =
            orders().iter().zip(&self.0).map(|(&order, &rdp)| (epsilon_at(order, rdp, delta), order));
        let (epsilon, order) =
            bounds.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, f64::INFINITY));
        let epsilon = Epsilon::new(epsilon).map_err(|_| AccountError::Unbounded { delta })?;
        Ok((epsilon, order))
    }

    /// The least delta over the orders.
    pub fn delta(&self, epsilon: Epsilon) -> Delta {
        let bounds = orders().iter().zip(&self.0).map(|(&order, &rdp)| delta_at(order, rdp, epsilon));
        Delta::clamped(bounds.fold(1.0, f64::min))
    }
}

/// `rdp + log((a-1)/a) - (log delta + log a)/(a-1)`, 0 at least.
pub(super) fn epsilon_at(order: f64, rdp: f64, delta: Delta) -> f64 {
    (rdp + (-1.0 / order).ln_1p() - (delta.get().ln() + order.ln()) / (order - 1.0)).max(0.0)
}

/// The same solved for delta, 1 at most.
fn delta_at(order: f64, rdp: f64, epsilon: Epsilon) -> f64 {
    let log = (order - 1.0) * (rdp + (-1.0 / order).ln_1p() - epsilon.get()) - order.ln();
    if log.is_nan() { 1.0 } else { log.exp().min(1.0) }
}

/// The divergence of an event at one order above 1.
pub(super) fn divergence(event: &Event, order: f64) -> f64 {
    let count = event.count() as f64;
    if count == 0.0 {
        return 0.0; // 0 times infinity is 0 here: nothing was released
    }
    let once = match *event {
        Event::PoissonGaussian { rate, sigma, .. } => subsampled::divergence(rate.get(), sigma.get(), order),
        Event::Gaussian { sigma, .. } => order / (2.0 * sigma.get().powi(2)),
        Event::Laplace { scale, .. } => laplace(1.0 / scale.get(), order),
        Event::Pure { epsilon } => randomised_response(epsilon.get(), order),
    };
    count * once
}

fn laplace(epsilon: f64, a: f64) -> f64 {
    let up = (a / (2.0 * a - 1.0)).ln() + (a - 1.0) * epsilon;
    let down = ((a - 1.0) / (2.0 * a - 1.0)).ln() - a * epsilon;
    (log_add(up, down) / (a - 1.0)).max(0.0)
}

fn randomised_response(epsilon: f64, a: f64) -> f64 {
    let numerator = log_add(a * epsilon, (1.0 - a) * epsilon);
    ((numerator - log_add(0.0, epsilon)) / (a - 1.0)).max(0.0)
}

#[cfg(test)]
mod tests;
