//! Rényi divergence of the Poisson-subsampled Gaussian: `A(a) = E_{z ~ N(0, s^2)}[(1 - q + q e^{(2z-1)/(2s^2)})^a]`,
//! divergence `log A(a) / (a - 1)`. The mixture against the plain Gaussian is the larger of the two directions
//! (Mironov, Talwar, Zhang 2019, theorem 5).

use crate::accountant::normal::{log_add, log_upper};

/// Terms after which a fractional order is given up.
const MOST_TERMS: u32 = 100_000;
/// Relative size of the last term.
const CONVERGED: f64 = 1e-13;

/// The divergence of one step; infinite when the series of a fractional order does not converge.
pub(super) fn divergence(q: f64, sigma: f64, order: f64) -> f64 {
    let log_a = if q == 1.0 {
        return order / (2.0 * sigma * sigma);
    } else if order.fract() == 0.0 {
        whole(q, sigma, order)
    } else {
        fractional(q, sigma, order)
    };
    if log_a.is_nan() { f64::INFINITY } else { (log_a / (order - 1.0)).max(0.0) }
}

/// `log sum_k C(a,k) (1-q)^(a-k) q^k exp(k(k-1)/(2 sigma^2))`.
fn whole(q: f64, sigma: f64, order: f64) -> f64 {
    let mut log_binomial = 0.0;
    let mut sum = f64::NEG_INFINITY;
    for k in 0..=order as u32 {
        let k = f64::from(k);
        let term =
            log_binomial + (order - k) * (-q).ln_1p() + k * q.ln() + k * (k - 1.0) / (2.0 * sigma * sigma);
        sum = log_add(sum, term);
        log_binomial += (order - k).ln() - (k + 1.0).ln();
    }
    sum
}

/// The two binomial series that meet at `z0`, where both parts of the mixture are equally likely: left of it the powers
/// of `q e^(..)` are expanded, right of it those of `1 - q`. Terms alternate and fall once k passes the order, so a sum that
/// ends with a positive one is not below the limit, and off by less than the next.
fn fractional(q: f64, sigma: f64, order: f64) -> f64 {
    let spread = 2.0 * sigma * sigma;
    let z0 = sigma * sigma * ((-q).ln_1p() - q.ln()) + 0.5;
    // One side's term with i powers of the shifted Gaussian: `reach` is the distance of its mean from the cut.
    let term = |stay: f64, i: f64, reach: f64| {
        stay * (-q).ln_1p() + i * q.ln() + i * (i - 1.0) / spread + log_upper(reach / sigma)
    };
    let mut log_binomial = 0.0_f64;
    let mut positive = true;
    let mut sum = SignedSum::default();
    for k in 0..MOST_TERMS {
        let k = f64::from(k);
        let rest = order - k;
        let left = term(rest, k, k - z0);
        let right = term(k, rest, z0 - rest);
        let log = log_binomial + log_add(left, right);
        sum.add(log, positive);
        if k > order && positive && sum.ends_with(log) {
            return sum.log();
        }
        log_binomial += rest.abs().ln() - (k + 1.0).ln();
        positive ^= rest < 0.0;
    }
    f64::INFINITY
}

/// A sum of terms given by logarithm and sign, scaled by the largest so far.
#[derive(Debug)]
struct SignedSum {
    scale: f64,
    sum: f64,
}

impl Default for SignedSum {
    fn default() -> Self {
        Self { scale: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl SignedSum {
    fn add(&mut self, log: f64, positive: bool) {
        if log > self.scale {
            self.sum *= (self.scale - log).exp();
            self.scale = log;
        }
        let term = (log - self.scale).exp();
        self.sum += if positive { term } else { -term };
    }

    /// Whether a term of this size no longer matters.
    fn ends_with(&self, log: f64) -> bool {
        (log - self.scale).exp() <= CONVERGED * self.sum
    }

    fn log(&self) -> f64 {
        self.scale + self.sum.ln()
    }
}
