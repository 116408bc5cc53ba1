//! Rows for the tests: reproducible, on the integer grid.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{GramAccumulator, Sums};

pub(crate) const BITS: u32 = 14;
pub(crate) const ONE: i64 = 1 << BITS;

/// Quantised rows `[rows, dim]` within +-2^14 and their labels.
pub(crate) fn rows(seed: u64, rows: usize, dim: usize, classes: usize) -> (Vec<f64>, Vec<u32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let span = 2 * ONE as u64 + 1;
    let q = (0..rows * dim).map(|_| (rng.next_u64() % span) as f64 - ONE as f64).collect();
    let labels = (0..rows).map(|_| (rng.next_u64() % classes as u64) as u32).collect();
    (q, labels)
}

/// The sums of such rows.
pub(crate) fn sums(seed: u64, n: usize, dim: usize, classes: usize) -> Sums {
    let (q, labels) = rows(seed, n, dim, classes);
    let mut accumulator = GramAccumulator::new(dim, classes, BITS, ONE).unwrap();
    accumulator.push(&q, &labels).unwrap();
    accumulator.finish()
}

/// Uniform in [-1, 1).
pub(crate) fn uniform(seed: u64, n: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| (rng.next_u64() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0).collect()
}
