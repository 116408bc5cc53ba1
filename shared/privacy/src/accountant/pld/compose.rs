//! Convolution of one-step laws on a circle of grid points.

use super::{Estimate, cells::Points, curve::Curve, pair::Pair, spectrum::Spectrum, window::Window};

/// What may be cut off at either end: of all steps together, and by the window.
const TAIL: f64 = 1e-15;
/// The grid's usual step.
const STEP: f64 = 1e-4;
/// Points the window has at least: narrow windows get a finer grid.
const LEAST_POINTS: f64 = 32_768.0;
/// Grid steps in the standard deviation of one release, where the number of points allows: moving mass to grid points
/// adds some `step^2 / 6` to the variance of each release.
const PER_DEVIATION: f64 = 20.0;
/// Points of a window at most, and of all parts' windows together.
const MOST_POINTS: f64 = 1_048_576.0;
const ALL_POINTS: f64 = 4_194_304.0;
/// Relative error of a spectrum's values, as a bound on what rounding adds to delta in each step. Random and mostly
/// far smaller.
const ROUNDING: f64 = 1.0 / (1_u64 << 50) as f64;

/// Which of the two distributions of the pairs the outcomes are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From P.
    Along,
    /// From Q.
    Mirrored,
}

/// The law of the summed loss of every pair used as often as its count says.
pub(super) fn compose(parts: &[(Pair, u64)], direction: Direction, estimate: Estimate) -> Curve {
    let steps: f64 = parts.iter().map(|&(_, count)| count as f64).sum();
    if parts.is_empty() {
        return Curve::new(STEP, 0, &[1.0], 0.0);
    }
    let tail = TAIL / steps;
    let law = |pair: Pair, step: f64| {
        let cells = pair.cells(step, tail);
        match direction {
            Direction::Along => cells.points(estimate),
            Direction::Mirrored => cells.mirrored().points(estimate),
        }
    };
    let window = Window::around(parts, direction, tail, TAIL);
    let step = grid_step(parts, &window, tail);
    if let [(pair, 1)] = *parts {
        let Points { first, mass, infinite } = law(pair, step);
        return Curve::new(step, first, &mass, infinite);
    }
    let circle = window.on_grid(step);
    let mut spectrum = Spectrum::new(circle.points);
    let mut wrapped = circle.wrapped();
    let mut log_finite = 0.0;
    for &(pair, count) in parts {
        let points = law(pair, step);
        wrapped.add(&points, step, count);
        log_finite += count as f64 * (-points.infinite).ln_1p();
        spectrum.multiply(&points, count);
    }
    let mass = spectrum.into_masses(circle.first);
    let rounding = ROUNDING * (steps + (circle.points as f64).sqrt());
    let infinite = match estimate {
        Estimate::Pessimistic => rounding + wrapped.above() - f64::exp_m1(log_finite),
        Estimate::Optimistic => -(rounding + wrapped.below()),
    };
    Curve::new(step, circle.first, &mass, infinite)
}

/// The step of the grid for this window.
fn grid_step(parts: &[(Pair, u64)], window: &Window, tail: f64) -> f64 {
    let points = (ALL_POINTS / parts.len() as f64).min(MOST_POINTS);
    let span = |(low, high): (f64, f64)| high - low;
    let widest = parts.iter().map(|&(pair, _)| span(pair.range(tail))).fold(0.0, f64::max);
    let fine = STEP.min(window.width() / LEAST_POINTS).min(window.deviation() / PER_DEVIATION);
    let step = fine.max(window.width() / points).max(widest / points);
    if step > 0.0 { step } else { STEP }
}
