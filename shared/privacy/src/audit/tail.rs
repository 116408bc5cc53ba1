//! Tails of the two distributions that the audits test against.

use libm::lgamma;

/// Natural logarithm of the binomial probability of `k` in `n` with success probability `p` strictly between 0 and 1.
pub(super) fn binomial_log_pmf(k: u64, n: u64, p: f64) -> f64 {
    let (k, n) = (k as f64, n as f64);
    lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0) + k * p.ln() + (n - k) * (-p).ln_1p()
}

/// Probability of `k` or more successes in `n` tries, with success probability `p` strictly between 0 and 1.
pub fn binomial_upper_tail(k: u64, n: u64, p: f64) -> f64 {
    // From the small end, so that small terms are not lost.
    (k..=n).rev().map(|i| binomial_log_pmf(i, n, p).exp()).sum::<f64>().min(1.0)
}

/// Probabilities that a chi-square variable with `dof` degrees of freedom is at most, and at least, `statistic`.
pub fn chi_square_tails(statistic: f64, dof: u64) -> (f64, f64) {
    let (a, x) = (dof as f64 / 2.0, statistic / 2.0);
    if x <= 0.0 {
        return (0.0, 1.0);
    }
    if x.is_infinite() {
        return (1.0, 0.0);
    }
    let scale = (a * x.ln() - x - lgamma(a)).exp();
    if x < a + 1.0 {
        let lower = (scale * lower_series(a, x)).min(1.0);
        (lower, 1.0 - lower)
    } else {
        let upper = (scale * upper_fraction(a, x)).min(1.0);
        (1.0 - upper, upper)
    }
}

/// Below this a further term changes nothing.
const ENOUGH: f64 = 1e-16;
/// Both expansions need about 10 sqrt(a) terms near x = a: this is for 1e10 degrees of freedom.
const MOST_TERMS: u32 = 1_000_000;

/// The lower incomplete gamma function over x^a e^-x: sum of x^n / (a (a + 1) ... (a + n)).
fn lower_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
    for _ in 0..MOST_TERMS {
        n += 1.0;
        term *= x / n;
        sum += term;
        if term < sum * ENOUGH {
            break;
        }
    }
    sum
}

/// The upper incomplete gamma function over x^a e^-x, by its continued fraction (Legendre), evaluated forwards (Lentz 1976).
fn upper_fraction(a: f64, x: f64) -> f64 {
    let mut b = x + 1.0 - a;
    let mut d = 1.0 / b;
    let (mut c, mut value) = (f64::MAX, d);
    for n in 1..=MOST_TERMS {
        let n = f64::from(n);
        let an = n * (a - n);
        b += 2.0;
        d = 1.0 / (an * d + b);
        c = b + an / c;
        let factor = c * d;
        value *= factor;
        if (factor - 1.0).abs() < ENOUGH {
            break;
        }
    }
    value
}
