//! How to move the mass of cells to grid points from below, losing as little as can be.
//!
//! Cell i holds the mass `down[i]` that belongs to its lower point and `up[i]` that belongs to its upper one (see
//! `Cells::upper_shares`). A share `left[i]` of the whole cell is merged into the lower point, the rest into the upper
//! one. What the part from the cell above has in excess must pay for what the part from below lacks:
//!
//! ```text
//! left[i] up[i] >= e^step (1 - left[i-1]) down[i-1]
//! ```
//!
//! Where this holds with equality nothing is lost but the second order; slack is loss given away. Either end of the
//! cells fixes a solution by recursion. It forgets where it started while masses grow in its direction, and amplifies
//! errors while they fall; so one runs from each end, and they are joined where the slack in total is least.

/// The shares of the cells that go to their lower point.
pub(super) fn shares_to_the_left(up: &[f64], down: &[f64], growth: f64) -> Vec<f64> {
    let rising = Rising::run(up, down, growth);
    let falling = Falling::run(up, down, growth);
    let junction = |m: usize| {
        if m == 0 {
            (0.0, falling.slack[0])
        } else {
            let (share, slack) = join(up, down, growth, m, rising.share[m - 1], falling.share[m]);
            (share, slack + rising.slack[m - 1] + falling.slack[m])
        }
    };
    let best = |best: (usize, f64), m: usize| {
        let slack = junction(m).1;
        if slack < best.1 { (m, slack) } else { best }
    };
    let (m, _) = (0..up.len()).fold((0, f64::INFINITY), best);
    let mut left = falling.share.clone();
    if m > 0 {
        left[..m - 1].copy_from_slice(&rising.settled[..m - 1]);
        left[m - 1] = junction(m).0;
    }
    left
}

/// The share of cell `m - 1`, raised if the cell above cannot lift what it sends there, and the slack at both points.
fn join(up: &[f64], down: &[f64], growth: f64, m: usize, below: f64, above: f64) -> (f64, f64) {
    let lift = above * up[m];
    let load = growth * (1.0 - below) * down[m - 1];
    if load <= lift {
        return (below, lift - load);
    }
    let raised = 1.0 - ratio(lift, growth * down[m - 1]).min(1.0);
    (raised, (raised - below) * up[m - 1])
}

/// From the bottom up.
struct Rising {
    /// Each cell's share while nothing above it is known.
    share: Vec<f64>,
    /// The same once the next cell has said what it can lift.
    settled: Vec<f64>,
    /// Slack at the points up to this cell's lower one.
    slack: Vec<f64>,
}

impl Rising {
    fn run(up: &[f64], down: &[f64], growth: f64) -> Self {
        let (mut share, mut settled, mut slack) =
            (vec![0.0; up.len()], vec![0.0; up.len()], vec![0.0; up.len()]);
        for i in 1..up.len() {
            let needed = ratio(growth * (1.0 - share[i - 1]) * down[i - 1], up[i]);
            share[i] = needed.min(1.0);
            let (below, lost) = join(up, down, growth, i, share[i - 1], share[i]);
            settled[i - 1] = below;
            slack[i] = slack[i - 1] + lost;
        }
        Self { share, settled, slack }
    }
}

/// From the top down.
struct Falling {
    share: Vec<f64>,
    /// Slack at the points above this cell's lower one.
    slack: Vec<f64>,
}

impl Falling {
    fn run(up: &[f64], down: &[f64], growth: f64) -> Self {
        // Nothing lifts what the last cell would send up.
        let (mut share, mut slack) = (vec![1.0; up.len()], vec![0.0; up.len()]);
        for i in (0..up.len().saturating_sub(1)).rev() {
            let lift = share[i + 1] * up[i + 1];
            let sent = ratio(lift, growth * down[i]).min(1.0);
            share[i] = 1.0 - sent;
            slack[i] = slack[i + 1] + (lift - growth * sent * down[i]).max(0.0);
        }
        Self { share, slack }
    }
}

/// A quotient of masses, where nothing divided by anything asks for nothing.
fn ratio(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a / b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(up: &[f64], down: &[f64], growth: f64) -> f64 {
        let left = shares_to_the_left(up, down, growth);
        assert!(left.iter().all(|share| (0.0..=1.0).contains(share)));
        assert_eq!(left.last(), Some(&1.0), "nothing above the last cell could lift it");
        let slack = |i: usize| left[i] * up[i] - growth * (1.0 - left[i - 1]) * down[i - 1];
        let slacks: Vec<f64> = (1..up.len()).map(slack).collect();
        assert!(slacks.iter().all(|&slack| slack > -1e-15), "{slacks:?}");
        slacks.iter().sum::<f64>() + left[0] * up[0]
    }

    #[test]
    fn a_smooth_law_loses_next_to_nothing() {
        let bell: Vec<f64> = (-800..=800).map(|i| (-f64::from(i * i) / 2e4).exp() / 501.0).collect();
        let lost = check(&bell, &bell, 1.0 + 1e-4);
        assert!(lost < 1e-9, "{lost}");
    }

    #[test]
    fn a_law_cut_off_at_its_highest_loses_next_to_nothing() {
        let wall: Vec<f64> = (0..800).map(|i| (-f64::from(i) / 60.0).exp() / 120.0).collect();
        assert!(check(&wall, &wall, 1.0 + 1e-4) < 1e-2);
        let mirrored: Vec<f64> = wall.iter().rev().copied().collect();
        assert!(check(&mirrored, &mirrored, 1.0 + 1e-4) < 1e-2);
    }

    #[test]
    fn lone_atoms_go_down() {
        let (up, down) = ([0.0, 0.1, 0.0, 0.3, 0.0], [0.0, 0.2, 0.0, 0.1, 0.0]);
        let left = shares_to_the_left(&up, &down, 1.1);
        assert_eq!((left[1], left[3]), (1.0, 1.0));
        assert_eq!(shares_to_the_left(&[0.4], &[0.6], 1.1), [1.0]);
    }
}
