//! Tails of the standard normal distribution, accurate where they are tiny.

use std::f64::consts::{LN_2, PI, SQRT_2};

/// Above it `erfc` nears the smallest numbers, and the logarithm comes from the continued fraction.
const FAR: f64 = 30.0;

/// `P(X > x)`, with relative accuracy out to x = 37, where it underflows.
pub(super) fn upper(x: f64) -> f64 {
    0.5 * libm::erfc(x / SQRT_2)
}

/// `log P(X > x)`, with relative accuracy for every x.
pub(super) fn log_upper(x: f64) -> f64 {
    if x < 0.0 {
        return (-upper(-x)).ln_1p();
    }
    if x < FAR {
        return libm::erfc(x / SQRT_2).ln() - LN_2;
    }
    // Mills' ratio as Laplace's continued fraction, 1/(x + 1/(x + 2/(x + ...))): at x >= 30 a few terms are exact.
    let mills = (1..=12).rev().fold(x, |tail, k| x + f64::from(k) / tail);
    -0.5 * x * x - 0.5 * (2.0 * PI).ln() - mills.ln()
}

/// The x above which lies `tail`, at most one half, rounded up.
pub(super) fn quantile(tail: f64) -> f64 {
    let log = tail.ln();
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if log_upper(middle) > log { low = middle } else { high = middle }
    }
    high
}

/// `log(e^a + e^b)`.
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// A point of the line with both of its tails, so that intervals are differences of small numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    above_zero: bool,
    /// The smaller tail.
    tail: f64,
}

impl Cut {
    pub(super) fn at(x: f64) -> Self {
        Self { above_zero: x > 0.0, tail: upper(x.abs()) }
    }

    /// `P(self < X <= other)`; the other point must not lie below.
    pub(super) fn until(self, other: Self) -> f64 {
        let mass = match (self.above_zero, other.above_zero) {
            (true, _) => self.tail - other.tail,
            (false, false) => other.tail - self.tail,
            (false, true) => 1.0 - self.tail - other.tail,
        };
        mass.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logarithms of the upper tail, computed with 40 digits.
    const LOG_UPPER: [(f64, f64); 14] = [
        (-9.0, -1.1285884059538406478e-19),
        (-1.0, -0.17275377902344988953),
        (-1e-6, -0.6931463826757028164),
        (0.0, -std::f64::consts::LN_2),
        (0.5, -1.1759117615936186089),
        (2.0, -3.7831843336820319488),
        (7.5, -31.075890902890001243),
        (20.0, -203.91715537109726394),
        (29.9, -451.32291245852867701),
        (30.1, -457.32956441638221506),
        (37.0, -689.0305855768905936),
        (100.0, -5005.5242086942050886),
        (5000.0, -12500009.436131764621),
        (1e6, -500000000014.73444909),
    ];

    #[test]
    fn log_tails_match_forty_digits() {
        for (x, expected) in LOG_UPPER {
            let got = log_upper(x);
            assert!((got - expected).abs() <= 1e-14 * expected.abs(), "{x}: {got} {expected}");
        }
    }

    #[test]
    fn quantiles_come_back() {
        for tail in [0.5, 0.1, 1e-15, 1e-40, 1e-300] {
            assert!((log_upper(quantile(tail)) - f64::ln(tail)).abs() < 1e-9, "{tail}");
        }
    }

    #[test]
    fn intervals_add_up() {
        let points = [f64::NEG_INFINITY, -20.0, -3.0, -1e-9, 0.0, 0.4, 6.0, 30.0, f64::INFINITY];
        let total: f64 = points.windows(2).map(|w| Cut::at(w[0]).until(Cut::at(w[1]))).sum();
        assert!((total - 1.0).abs() < 1e-15);
        assert!((Cut::at(8.0).until(Cut::at(9.0)) / upper(8.0) - 1.0).abs() < 1e-2);
        assert_eq!(Cut::at(1.0).until(Cut::at(1.0)), 0.0);
    }
}
