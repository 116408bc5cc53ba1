use super::*;
use crate::accountant::pld::{Adjacency, curve::Curve, mixture::Mixture};

const STEP: f64 = 0.05;

fn cells() -> [Cells; 2] {
    [Adjacency::AddRemove, Adjacency::ReplaceOne]
        .map(|adjacency| Mixture { q: 0.2, sigma: 0.8, adjacency }.cells(STEP, 1e-13))
}

/// Hockey-stick divergence from the cells themselves, exact where epsilon is a grid point.
fn exact(cells: &Cells, point: i64) -> f64 {
    let from = ((point - cells.first).max(0) as usize).min(cells.p.len());
    let (p, q): (f64, f64) = (cells.p[from..].iter().sum(), cells.q[from..].iter().sum());
    p + cells.above.0 - (point as f64 * cells.step).exp() * (q + cells.above.1)
}

fn curve(cells: &Cells, estimate: Estimate) -> Curve {
    let points = cells.points(estimate);
    Curve::new(cells.step, points.first, &points.mass, points.infinite)
}

#[test]
fn raised_points_touch_the_truth_at_the_grid() {
    for cells in cells().iter().flat_map(|cells| [cells.clone(), cells.mirrored()]) {
        let curve = curve(&cells, Estimate::Pessimistic);
        for point in [-3, 0, 1, 7, 20] {
            let (got, expected) = (curve.delta(point as f64 * STEP), exact(&cells, point));
            assert!((got - expected).abs() < 1e-12, "{point}: {got} {expected}");
        }
    }
}

#[test]
fn lowered_points_stay_under_the_truth_and_close() {
    for cells in cells().iter().flat_map(|cells| [cells.clone(), cells.mirrored()]) {
        let curve = curve(&cells, Estimate::Optimistic);
        for point in [-3, 0, 1, 7, 20] {
            let (got, expected) = (curve.delta(point as f64 * STEP), exact(&cells, point));
            assert!(got <= expected + 1e-13, "{point}: {got} {expected}");
            assert!(expected - got < 5e-3, "{point}: {got} {expected}");
        }
    }
}

#[test]
fn raising_keeps_the_mass_of_both_distributions() {
    for cells in cells() {
        let Points { first, mass, .. } = cells.points(Estimate::Pessimistic);
        let p: f64 = mass.iter().sum();
        let q: f64 =
            mass.iter().enumerate().map(|(j, m)| m * (-(first + j as i64) as f64 * STEP).exp()).sum();
        assert!((p - 1.0).abs() < 1e-12 && (q - 1.0).abs() < 1e-12, "{p} {q}");
    }
}

#[test]
fn mirroring_twice_changes_nothing() {
    for cells in cells() {
        let twice = cells.mirrored().mirrored();
        assert_eq!((twice.first, &twice.p, &twice.q), (cells.first, &cells.p, &cells.q));
        assert_eq!((twice.above, twice.below), (cells.above, cells.below));
    }
}
