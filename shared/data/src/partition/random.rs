//! Seeded draws that stay the same across versions of the generator's crate: the key is ours, and so are the steps from
//! 64-bit words to indices and gammas.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest, Sha256};

/// ChaCha8 keyed by SHA-256 of purpose and seed.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(purpose: &str, seed: u64) -> Self {
        let key = Sha256::new()
            .chain_update(b"sheaf partition 1 ")
            .chain_update(purpose.as_bytes())
            .chain_update(seed.to_le_bytes())
            .finalize();
        Self(ChaCha8Rng::from_seed(key.into()))
    }

    /// Uniform in (0, 1), never an end.
    pub(super) fn open_unit(&mut self) -> f64 {
        ((self.0.next_u64() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// Uniform below `bound`, by rejection (Lemire 2019).
    fn below(&mut self, bound: u64) -> u64 {
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.0.next_u64()) * u128::from(bound);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Fisher and Yates.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.open_unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.open_unit()).cos()
    }

    /// Natural logarithm of a Gamma(`shape`, 1) draw (Marsaglia and Tsang 2000, with their boost for shapes below 1).
    /// The logarithm matters: at shape 0.005 the draw itself is mostly below the smallest double.
    pub(super) fn ln_gamma(&mut self, shape: f64) -> f64 {
        let boost = self.open_unit().ln() / shape;
        let d = shape + 1.0 - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.open_unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d.ln() + v.ln() + boost;
            }
        }
    }
}
