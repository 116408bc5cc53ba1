//! Filter and odometer: accounting when every event, its parameters included, may depend on earlier results.
//!
//! Both sum the Rényi divergence at a few orders fixed beforehand. At each order a the process
//! `exp((a-1)(loss - sum))` is a supermartingale, whatever the adversary picks next; with several orders the delta is
//! shared among them, since the order that holds in the end depends on the results too. (Taking the best of all orders
//! without sharing, as is often done, is not covered by the proofs for one order.)
//!
//! Sources: Feldman and Zrnic 2021 (arXiv 2008.11193), Lécuyer 2021 (arXiv 2103.01379), Whitehouse et al. 2023
//! (arXiv 2203.05481).

use super::{
    AccountError, Fits,
    rdp::{divergence, epsilon_at, orders},
};
use crate::{
    event::Event,
    units::{Delta, Epsilon},
};

/// A filter's orders as shares of the best order of the Gaussian mechanism; subsampled events prefer lower ones.
const SHARES: [f64; 3] = [1.0, 0.6, 0.4];
/// An odometer's orders: it has no cap to choose them by.
const ODOMETER: [f64; 15] =
    [1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 63.0, 128.0, 256.0, 1024.0];

/// Summed divergences at fixed orders.
#[derive(Debug, Clone, PartialEq)]
struct Sums(Vec<(f64, f64)>);

impl Sums {
    fn at(orders: &[f64]) -> Self {
        Self(orders.iter().map(|&order| (order, 0.0)).collect())
    }

    fn with(&self, event: &Event) -> Self {
        Self(self.0.iter().map(|&(order, sum)| (order, sum + divergence(event, order))).collect())
    }

    /// The least of a bound over the orders, each with its share of delta.
    fn least(&self, delta: Delta, bound: impl Fn(f64, f64, Delta) -> f64) -> f64 {
        let share = Delta::clamped(delta.get() / self.0.len() as f64);
        self.0.iter().map(|&(order, sum)| bound(order, sum, share)).fold(f64::INFINITY, f64::min)
    }
}

/// A budget that stops in time: all events it charged are together (cap, delta)-DP, add/remove.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    cap: Epsilon,
    delta: Delta,
    sums: Sums,
}

impl Filter {
    /// A filter with nothing charged. Its orders follow from cap and delta alone. Fails for a delta of 0.
    pub fn new(cap: Epsilon, delta: Delta) -> Result<Self, AccountError> {
        if delta.get() == 0.0 {
            return Err(AccountError::Unbounded { delta });
        }
        Ok(Self { cap, delta, sums: Sums::at(&filter_orders(cap, delta)) })
    }

    /// The cap.
    pub fn cap(&self) -> Epsilon {
        self.cap
    }

    /// Epsilon of what was charged; infinite when no order bounds it.
    pub fn spent(&self) -> f64 {
        self.epsilon(&self.sums)
    }

    /// Epsilon with the event on top, or [`AccountError::OverCap`] with what would fit.
    pub fn check(&self, event: &Event) -> Result<f64, AccountError> {
        let with = |event: &Event| self.epsilon(&self.sums.with(event));
        let (asked, cap) = (with(event), self.cap.get());
        if asked <= cap {
            return Ok(asked);
        }
        let fits = Fits::of(event, |event| with(event) <= cap);
        Err(AccountError::OverCap { asked, spent: self.spent(), cap: self.cap, delta: self.delta, fits })
    }

    /// Charges the event and returns the epsilon spent, or refuses and changes nothing.
    pub fn charge(&mut self, event: &Event) -> Result<f64, AccountError> {
        let spent = self.check(event)?;
        self.record(event);
        Ok(spent)
    }

    /// Adds what has happened already, a ledger's entries, without asking whether it fits. What is over the cap stays
    /// over it: the filter then refuses everything that costs.
    pub fn record(&mut self, event: &Event) {
        self.sums = self.sums.with(event);
    }

    fn epsilon(&self, sums: &Sums) -> f64 {
        if sums.0.iter().all(|&(_, sum)| sum == 0.0) {
            return 0.0; // nothing was released; the conversion alone would cost
        }
        sums.least(self.delta, epsilon_at)
    }
}

fn filter_orders(cap: Epsilon, delta: Delta) -> Vec<f64> {
    let share = Delta::clamped(delta.get() / SHARES.len() as f64);
    // Most budget for the divergence a / (2 sigma^2) of the Gaussian mechanism.
    let worth = |order: f64| (cap.get() - epsilon_at(order, 0.0, share)) / order;
    let best = orders().iter().copied().max_by(|&a, &b| worth(a).total_cmp(&worth(b))).unwrap_or(2.0);
    let nearest = |wanted: f64| {
        let distance = |order: f64| (order - wanted).abs();
        orders().iter().copied().min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap_or(wanted)
    };
    SHARES.iter().map(|share| nearest(best * share)).collect()
}

/// Reads the privacy loss as it grows: with probability `1 - delta` the loss is never above the reading, at no moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Odometer {
    delta: Delta,
    sums: Sums,
}

impl Odometer {
    /// An odometer at the start. Fails for a delta of 0.
    pub fn new(delta: Delta) -> Result<Self, AccountError> {
        if delta.get() == 0.0 {
            return Err(AccountError::Unbounded { delta });
        }
        Ok(Self { delta, sums: Sums::at(&ODOMETER) })
    }

    /// Counts an event.
    pub fn record(&mut self, event: &Event) {
        self.sums = self.sums.with(event);
    }

    /// Epsilon so far. Fails when no order bounds it.
    pub fn reading(&self) -> Result<Epsilon, AccountError> {
        if self.sums.0.iter().all(|&(_, sum)| sum == 0.0) {
            return Ok(Epsilon::new(0.0)?);
        }
        // Ville's inequality bounds the loss itself: the sharper conversion, of the curve of delta, does not apply.
        let bound = |order: f64, sum: f64, delta: Delta| sum - delta.get().ln() / (order - 1.0);
        let epsilon = self.sums.least(self.delta, bound);
        Epsilon::new(epsilon).map_err(|_| AccountError::Unbounded { delta: self.delta })
    }
}

#[cfg(test)]
mod tests;
