use rand::{Rng as _, SeedableRng as _, rngs::SysRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::{Distribution as _, StandardNormal};

use super::DpError;

/// A stream of secret random numbers: ChaCha20, seeded by the operating system. It cannot be copied, saved or printed, so no
/// noise is drawn twice.
///
/// ```compile_fail,E0599
/// # use sheaf_privacy::dpsgd::NoiseStream;
/// let again = NoiseStream::new().unwrap().clone();
/// ```
pub struct NoiseStream(ChaCha20Rng);

impl NoiseStream {
    /// A stream with a seed from the operating system. There is no other seed outside simulations.
    ///
    /// # Errors
    /// [`DpError::Entropy`].
    pub fn new() -> Result<Self, DpError> {
        let rng = ChaCha20Rng::try_from_rng(&mut SysRng).map_err(|e| DpError::Entropy(e.to_string()))?;
        Ok(Self(rng))
    }

    /// A stream that repeats itself: for simulations and tests. What it draws protects nobody.
    #[cfg(any(test, feature = "simulation"))]
    pub fn simulated(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    /// A fair coin.
    pub(crate) fn coin(&mut self) -> bool {
        self.0.next_u32() & 1 == 1
    }

    pub(super) fn rng(&mut self) -> &mut ChaCha20Rng {
        &mut self.0
    }

    /// Adds Gaussian noise of this standard deviation to every number.
    ///
    /// **Claim.** Independent N(0, std^2) to the resolution of f64 (52 random bits a number).
    /// **Why it holds.** The ziggurat is a rejection method whose boxes and tail are exact up to rounding.
    /// **Source.** Marsaglia and Tsang 2000; Doornik 2005; crate rand_distr.
    /// **Test.** Chi-square on 64 equally likely cells, tails and variance: `dpsgd/tests.rs`.
    pub(super) fn add_gaussian(&mut self, values: &mut [f64], std: f64) {
        for value in values {
            let z: f64 = StandardNormal.sample(&mut self.0);
            *value += std * z;
        }
    }
}
