use faer::{Accum, MatMut, MatRef, Par};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::AnalyticError;

/// Entries of `V` are integers in `[-2^11, 2^11]`: the grid of `U(-1, 1)`.
const ENTRY_BITS: u32 = 11;
/// Second half of the generator's key: separates this use of a seed from any other.
const DOMAIN: &[u8; 24] = b"sheaf.random-relu.v1....";

/// `ReLU(x V)` with `V ~ U(-1/sqrt(d), 1/sqrt(d))` on an integer grid (AEF-OCL, arXiv 2405.17779).
///
/// Integer inputs times integer entries are summed exactly in `f64`, so the product has the same bits on any
/// hardware, in any batch, with any matrix multiplication.
#[derive(Debug, Clone)]
pub(crate) struct RandomRelu {
    dim: usize,
    width: usize,
    /// `[dim, width]` row-major.
    entries: Vec<f64>,
}

impl RandomRelu {
    /// Refuses shapes whose products could leave the 53 bits that `f64` holds exactly.
    pub(crate) fn check_exact(dim: usize, max_abs: i64) -> Result<(), AnalyticError> {
        let largest = ((dim as u128) * (max_abs as u128)) << ENTRY_BITS;
        if largest >= 1 << 53 {
            let reason = format!("{dim} inputs at this grid reach {largest}, past 2^53; lower bits");
            return Err(AnalyticError::Spec { field: "input_dim", reason });
        }
        Ok(())
    }

    /// Draws `V` row by row from ChaCha8 keyed by the little-endian seed and a domain tag. Each 32-bit word gives
    /// its top 13 bits; those up to 4096 are kept and 2048 is taken off, the rest are drawn again.
    pub(crate) fn new(dim: usize, width: usize, seed: u64) -> Self {
        let mut key = [0_u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..].copy_from_slice(DOMAIN);
        let mut rng = ChaCha8Rng::from_seed(key);
        let half = 1_u32 << ENTRY_BITS;
        let mut draw = || {
            loop {
                let word = rng.next_u32() >> (32 - (ENTRY_BITS + 2));
                if word <= 2 * half {
                    return f64::from(word) - f64::from(half);
                }
            }
        };
        let entries = (0..dim * width).map(|_| draw()).collect();
        Self { dim, width, entries }
    }

    /// Maps quantised rows `[rows, dim]` to `ReLU(x V)` in real units, `[rows, width]` row-major.
    pub(crate) fn apply(&self, q: &[f64], bits: u32) -> Vec<f64> {
        let rows = q.len() / self.dim;
        let mut out = vec![0.0; rows * self.width];
        let parallel = rows * self.dim * self.width > 1 << 20;
        faer::linalg::matmul::matmul(
            MatMut::from_row_major_slice_mut(&mut out, rows, self.width),
            Accum::Replace,
            MatRef::from_row_major_slice(q, rows, self.dim),
            MatRef::from_row_major_slice(&self.entries, self.dim, self.width),
            1.0,
            if parallel { Par::rayon(0) } else { Par::Seq },
        );
        let unit = f64::from(1_u32 << ENTRY_BITS) * f64::from(1_u32 << bits) * (self.dim as f64).sqrt();
        for h in &mut out {
            *h = h.max(0.0) / unit;
        }
        out
    }
}
