use serde::Serialize;

use super::tail::chi_square_tails;
use crate::{Sigma, dpsgd::Clip};

/// How rarely honest noise may fail the check.
const FALSE_ALARM: f64 = 1e-6;

/// Whether numbers are standard normal, by the sum of their squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NoiseCheck {
    /// Sum of squares.
    pub statistic: f64,
    /// Numbers.
    pub numbers: u64,
    /// Root mean square: 1 for honest noise, 0 for none.
    pub ratio: f64,
    /// Two-sided p-value.
    pub p_value: f64,
}

impl NoiseCheck {
    fn of(statistic: f64, numbers: u64) -> Self {
        let (lower, upper) = chi_square_tails(statistic, numbers);
        let ratio = if numbers == 0 { 1.0 } else { (statistic / numbers as f64).sqrt() };
        let p_value = if numbers == 0 { 1.0 } else { (2.0 * lower.min(upper)).min(1.0) };
        Self { statistic, numbers, ratio, p_value }
    }

    /// Whether it looks like honest noise: one check in a million of honest noise does not.
    pub fn passes(&self) -> bool {
        self.p_value >= FALSE_ALARM
    }
}

/// What was added in the steps of a training: (released sum - exact clipped sum) / (sigma C), number by number.
///
/// Two checks: of all residuals, which sees noise of another size and another clipping than per unit; and of each number's
/// total over the steps, over sqrt(steps), which sees noise that repeats.
#[derive(Debug, Clone)]
pub struct StepResiduals {
    std: f64,
    steps: u64,
    squares: f64,
    totals: Vec<f64>,
}

impl StepResiduals {
    /// For sums of `numbers` numbers.
    pub fn new(numbers: usize, sigma: Sigma, clip: Clip) -> Self {
        Self { std: sigma.get() * clip.norm(), steps: 0, squares: 0.0, totals: vec![0.0; numbers] }
    }

    /// Adds a step: the sum as released (before division by the expected batch) and the exact sum of gradients clipped one by
    /// one. Both have the length given at the start; a number that is missing in one counts as infinitely wrong.
    pub fn add(&mut self, released: &[f64], exact: &[f64]) {
        self.steps += 1;
        if released.len() != self.totals.len() || exact.len() != self.totals.len() {
            self.squares = f64::INFINITY;
            return;
        }
        for ((total, released), exact) in self.totals.iter_mut().zip(released).zip(exact) {
            let residual = (released - exact) / self.std;
            *total += residual;
            self.squares += residual * residual;
        }
    }

    /// Size: over all numbers of all steps.
    pub fn size(&self) -> NoiseCheck {
        NoiseCheck::of(self.squares, self.steps * self.totals.len() as u64)
    }

    /// Independence between steps: over each number's total.
    pub fn freshness(&self) -> NoiseCheck {
        if self.steps == 0 {
            return NoiseCheck::of(0.0, 0);
        }
        let squares = self.totals.iter().map(|total| total * total).sum::<f64>() / self.steps as f64;
        NoiseCheck::of(squares, self.totals.len() as u64)
    }
}
