//! Mechanisms whose loss lies between -epsilon and epsilon, with atoms at both ends.

use super::{Cells, cells::Outcome};

/// Outcomes of an outline, besides the ends.
const OUTLINE: usize = 200;

/// Laplace noise of scale `1 / epsilon` on a sum that moves by 1.
pub(super) fn laplace(epsilon: f64, step: f64) -> Cells {
    let mut cells = empty(epsilon, step);
    for i in 0..cells.p.len() {
        (cells.p[i], cells.q[i]) = laplace_between(epsilon, cells.point(i), cells.point(i + 1));
    }
    let [_, top] = laplace_ends(epsilon);
    add_ends(&mut cells, top);
    cells
}

pub(super) fn laplace_outline(epsilon: f64) -> Vec<Outcome> {
    let width = 2.0 * epsilon / OUTLINE as f64;
    let between = |i: usize| {
        let low = -epsilon + i as f64 * width;
        let (p, q) = laplace_between(epsilon, low, low + width);
        Outcome { p, q, loss: low + 0.5 * width }
    };
    (0..OUTLINE).map(between).chain(laplace_ends(epsilon)).collect()
}

/// Masses (P, Q) of losses between the ends, where both have a density.
fn laplace_between(epsilon: f64, low: f64, high: f64) -> (f64, f64) {
    let (low, high) = (low.max(-epsilon), high.min(epsilon));
    let share = -(0.5 * (low - high).min(0.0)).exp_m1();
    (0.5 * (0.5 * (high - epsilon)).exp() * share, 0.5 * (-0.5 * (low + epsilon)).exp() * share)
}

/// The outcomes beyond both centres, where the loss is constant.
fn laplace_ends(epsilon: f64) -> [Outcome; 2] {
    mirror_images(Outcome { p: 0.5, q: 0.5 * (-epsilon).exp(), loss: epsilon })
}

/// Randomised response: the truth with odds `e^epsilon`.
pub(super) fn response(epsilon: f64, step: f64) -> Cells {
    let mut cells = empty(epsilon, step);
    let [_, top] = response_outline(epsilon);
    add_ends(&mut cells, top);
    cells
}

pub(super) fn response_outline(epsilon: f64) -> [Outcome; 2] {
    let lie = (-epsilon).exp() / (1.0 + (-epsilon).exp());
    mirror_images(Outcome { p: 1.0 - lie, q: lie, loss: epsilon })
}

fn mirror_images(top: Outcome) -> [Outcome; 2] {
    [Outcome { p: top.q, q: top.p, loss: -top.loss }, top]
}

fn empty(epsilon: f64, step: f64) -> Cells {
    let first = (-epsilon / step).floor() as i64;
    let count = (-2 * first).max(1) as usize;
    Cells { step, first, p: vec![0.0; count], q: vec![0.0; count], above: (0.0, 0.0), below: (0.0, 0.0) }
}

/// Adds the atom at the upper end, and its mirror image at the lower one.
fn add_ends(cells: &mut Cells, top: Outcome) {
    let last = cells.p.len() - 1;
    cells.p[last] += top.p;
    cells.q[last] += top.q;
    cells.p[0] += top.q;
    cells.q[0] += top.p;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_distributions_are_whole() {
        for epsilon in [0.0, 1e-6, 0.3, 1.0, 20.0] {
            for step in [1e-4, 0.1, 0.3] {
                for cells in [laplace(epsilon, step), response(epsilon, step)] {
                    let (p, q): (f64, f64) = (cells.p.iter().sum(), cells.q.iter().sum());
                    assert!((p - 1.0).abs() < 1e-11 && (q - 1.0).abs() < 1e-11, "{epsilon} {step} {p} {q}");
                }
            }
        }
    }
}
