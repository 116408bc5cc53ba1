//! Where the summed loss lies, by Chernoff bounds: `P(L > h) <= E[e^(s L)] e^(-s h)` for every s > 0.

use super::{
    cells::{Outcome, Points},
    compose::Direction,
    pair::Pair,
};

/// An interval of losses, with the exponents whose Chernoff bounds chose its ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    low: f64,
    high: f64,
    falling: f64,
    rising: f64,
    deviation: f64,
}

/// A window as a circle of grid points.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circle {
    pub(super) first: i64,
    pub(super) points: usize,
    step: f64,
    falling: f64,
    rising: f64,
}

/// One step's merged outcomes: log mass and loss, and how often the step is done.
struct Outline {
    outcomes: Vec<(f64, f64)>,
    count: f64,
}

impl Window {
    /// The window outside of which lies about `outside` at either end, for the pairs used as often as they are counted.
    /// About, since merged outcomes stand for the pairs: what lies outside is bounded afterwards by [`Wrapped`].
    pub(super) fn around(parts: &[(Pair, u64)], direction: Direction, tail: f64, outside: f64) -> Self {
        let outline = |&(pair, count): &(Pair, u64)| {
            let outcomes = pair.outline(tail).into_iter().map(|Outcome { p, q, loss }| match direction {
                Direction::Along => (p, loss),
                Direction::Mirrored => (q, -loss),
            });
            let held = outcomes.filter(|&(mass, _)| mass > 0.0);
            Outline { outcomes: held.map(|(mass, loss)| (mass.ln(), loss)).collect(), count: count as f64 }
        };
        let outlines: Vec<Outline> = parts.iter().map(outline).collect();
        let end = |sign: f64| {
            let bound = |s: f64| {
                let log = outlines.iter().map(|outline| outline.count * outline.log_moment(sign * s));
                (log.sum::<f64>() - outside.ln()) / s
            };
            let s = least(bound);
            (s, bound(s))
        };
        let (rising, high) = end(1.0);
        let (falling, low) = end(-1.0);
        let deviation = Outline::deviation(&outlines);
        Self { low: (-low).min(high), high, falling, rising, deviation }
    }

    pub(super) fn width(&self) -> f64 {
        self.high - self.low
    }

    /// Standard deviation of the loss of one release, over all of them.
    pub(super) fn deviation(&self) -> f64 {
        self.deviation
    }

    /// The points of the window, filled up at both ends to a power of two.
    pub(super) fn on_grid(&self, step: f64) -> Circle {
        let first = (self.low / step).floor() as i64;
        let last = (self.high / step).ceil() as i64;
        let needed = (last - first + 2).max(2) as usize;
        let points = needed.next_power_of_two();
        let first = first - (points - needed) as i64 / 2;
        Circle { first, points, step, falling: self.falling, rising: self.rising }
    }
}

impl Outline {
    /// `log E[e^(s L)]`.
    fn log_moment(&self, s: f64) -> f64 {
        let exponents = || self.outcomes.iter().map(|&(log, loss)| log + s * loss);
        let largest = exponents().fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            return largest;
        }
        largest + exponents().map(|x| (x - largest).exp()).sum::<f64>().ln()
    }

    fn deviation(outlines: &[Self]) -> f64 {
        let variance = |outline: &Self| {
            let moment =
                |power| outline.outcomes.iter().map(|&(log, loss)| log.exp() * loss.powi(power)).sum::<f64>();
            outline.count * (moment(2) - moment(1).powi(2))
        };
        let count: f64 = outlines.iter().map(|outline| outline.count).sum();
        (outlines.iter().map(variance).sum::<f64>() / count).max(0.0).sqrt()
    }
}

impl Circle {
    pub(super) fn wrapped(&self) -> Wrapped {
        Wrapped { circle: *self, log_above: 0.0, log_below: 0.0 }
    }
}

/// Bounds on the mass beyond either end of the circle, which the convolution wraps around to the other.
#[derive(Debug)]
pub(super) struct Wrapped {
    circle: Circle,
    log_above: f64,
    log_below: f64,
}

impl Wrapped {
    /// Counts a law that is used `count` times.
    pub(super) fn add(&mut self, points: &Points, step: f64, count: u64) {
        let horner = |s: f64, masses: &mut dyn Iterator<Item = &f64>| {
            let shrink = (-s * step).exp();
            masses.fold(0.0, |sum, &mass| sum * shrink + mass).ln()
        };
        let last = points.first + points.mass.len() as i64 - 1;
        // E[e^(s L)] with L counted from the law's own end, so that no power is above 1.
        let rising =
            horner(self.circle.rising, &mut points.mass.iter()) + self.circle.rising * last as f64 * step;
        let falling = horner(self.circle.falling, &mut points.mass.iter().rev())
            - self.circle.falling * points.first as f64 * step;
        self.log_above += count as f64 * rising;
        self.log_below += count as f64 * falling;
    }

    /// Mass above the last point.
    pub(super) fn above(&self) -> f64 {
        let end = (self.circle.first + self.circle.points as i64) as f64 * self.circle.step;
        (self.log_above - self.circle.rising * end).exp().min(1.0)
    }

    /// Mass below the first point.
    pub(super) fn below(&self) -> f64 {
        let end = (self.circle.first - 1) as f64 * self.circle.step;
        (self.log_below + self.circle.falling * end).exp().min(1.0)
    }
}

/// Where a function of s > 0 that falls and then rises is least: a coarse look over many scales, then a fine one.
fn least(f: impl Fn(f64) -> f64) -> f64 {
    let value = |log: f64| {
        let value = f(log.exp());
        if value.is_nan() { f64::INFINITY } else { value }
    };
    let best = |from: f64, by: f64, count: u32| {
        let at = (0..=count).map(|i| from + by * f64::from(i)).map(|log| (log, value(log)));
        at.fold((from, f64::INFINITY), |best, next| if next.1 < best.1 { next } else { best }).0
    };
    let coarse = best(-14.0, 1.0, 34);
    let fine = best(coarse - 1.0, 0.125, 16);
    fine.exp()
}
