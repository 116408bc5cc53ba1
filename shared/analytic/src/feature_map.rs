use serde::{Deserialize, Serialize};

use crate::error::AnalyticError;
use crate::random_relu::RandomRelu;
use crate::sums::MAX_DIM;

/// Largest magnitude of an input when rows are not normalised. Standardised columns stay well inside; raw ones
/// that do not would swamp the others, and are refused instead.
pub const MAX_UNNORMALISED: f64 = 16.0;

/// Rows the random map handles at once: bounds memory, cannot change a result (the products are exact).
const MAP_BLOCK: usize = 256;

/// How a row of inputs becomes an integer feature row. Serialised into plans and published models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    /// Columns of an input row.
    pub input_dim: usize,
    /// The map from inputs to features.
    pub map: FeatureMap,
    /// Scaling of each row.
    pub normalize: Normalize,
    /// Fractional bits `s` of the grid, 4 to 20: a feature `x` is held as `round(x 2^s)`, ties to even.
    #[serde(default = "default_bits")]
    pub bits: u32,
    /// Whether a constant feature 1 (the integer `2^s`) is appended after normalisation.
    pub bias: bool,
}

fn default_bits() -> u32 {
    14
}

/// The map from inputs to features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum FeatureMap {
    /// The inputs themselves.
    Identity,
    /// The random buffer layer `ReLU(x V)` with a frozen random `V` (AEF-OCL, arXiv 2405.17779).
    RandomRelu {
        /// Features that come out.
        width: usize,
        /// Seed of `V`; part of the plan, so that every site draws the same matrix.
        seed: u64,
    },
}

/// Scaling of each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalize {
    /// Divide by the Euclidean norm; an all-zero row stays zero.
    L2,
    /// As `l2`, then shrink by `1 - sqrt(d) 2^-(s+1)`, so that the norm of the row's *integers* never exceeds
    /// `2^s`: rounding could otherwise lift it, and the sensitivity of a record would not be 1.
    L2Bounded,
    /// Leave the row; values beyond [`MAX_UNNORMALISED`] are refused.
    None,
}

impl FeatureSpec {
    /// Checks that every product of this map is exact in `f64` and every sum has room.
    pub fn validate(&self) -> Result<(), AnalyticError> {
        let refuse = |field, reason| Err(AnalyticError::Spec { field, reason });
        if !(4..=20).contains(&self.bits) {
            return refuse("bits", format!("{} is outside 4 to 20", self.bits));
        }
        if self.input_dim == 0 || self.input_dim > MAX_DIM {
            return refuse("input_dim", format!("{} is outside 1 to {MAX_DIM}", self.input_dim));
        }
        if let FeatureMap::RandomRelu { width, .. } = self.map {
            if width == 0 || width > MAX_DIM {
                return refuse("width", format!("{width} is outside 1 to {MAX_DIM}"));
            }
            RandomRelu::check_exact(self.input_dim, self.max_abs())?;
        }
        if self.output_dim() > MAX_DIM {
            return refuse("bias", format!("with the bias column there are more than {MAX_DIM} features"));
        }
        if self.normalize == Normalize::L2Bounded && self.shrink() < 0.5 {
            let reason = format!("{} is too coarse for l2-bounded at {} features", self.bits, self.width());
            return refuse("bits", reason);
        }
        Ok(())
    }

    /// Features of a quantised row, the bias column included.
    pub fn output_dim(&self) -> usize {
        self.width() + usize::from(self.bias)
    }

    /// Largest magnitude of a quantised feature.
    pub fn max_abs(&self) -> i64 {
        match self.normalize {
            Normalize::L2 | Normalize::L2Bounded => 1 << self.bits,
            Normalize::None => (MAX_UNNORMALISED as i64) << self.bits,
        }
    }

    /// Upper bound of the Euclidean norm of a quantised row in real units (`q / 2^s`, the bias column included):
    /// what one record can move, for privacy accounting.
    pub fn row_norm_bound(&self) -> f64 {
        let root = (self.width() as f64).sqrt();
        let features = match self.normalize {
            Normalize::L2 => 1.0 + root / f64::from(2_u32 << self.bits),
            Normalize::L2Bounded => 1.0,
            Normalize::None => MAX_UNNORMALISED * root,
        };
        if self.bias { (features * features + 1.0).sqrt() } else { features }
    }

    fn width(&self) -> usize {
        match self.map {
            FeatureMap::Identity => self.input_dim,
            FeatureMap::RandomRelu { width, .. } => width,
        }
    }

    /// The factor of `l2-bounded`; the last term covers the rounding of the norm itself.
    fn shrink(&self) -> f64 {
        1.0 - (self.width() as f64).sqrt() / f64::from(2_u32 << self.bits) - 2.0_f64.powi(-40)
    }
}

/// A feature map ready to use: the specification, checked, and the random matrix where it has one.
#[derive(Debug, Clone)]
pub struct Featurizer {
    spec: FeatureSpec,
    random: Option<RandomRelu>,
}

impl Featurizer {
    /// Checks `spec` and draws its random matrix.
    pub fn new(spec: &FeatureSpec) -> Result<Self, AnalyticError> {
        spec.validate()?;
        let random = match spec.map {
            FeatureMap::Identity => None,
            FeatureMap::RandomRelu { width, seed } => Some(RandomRelu::new(spec.input_dim, width, seed)),
        };
        Ok(Self { spec: spec.clone(), random })
    }

    /// The specification this map follows.
    pub fn spec(&self) -> &FeatureSpec {
        &self.spec
    }

    /// Quantises `x`, `rows * input_dim` row-major, into `rows * output_dim` row-major integers held exactly in
    /// `f64`. The integers of a row depend on that row alone. Errors name the row: a wrong length, NaN, an
    /// infinity, a value over the bound.
    pub fn quantise(&self, x: &[f64], rows: usize) -> Result<Vec<f64>, AnalyticError> {
        let d = self.spec.input_dim;
        if rows.checked_mul(d) != Some(x.len()) {
            let expected = rows.saturating_mul(d);
            return Err(AnalyticError::Length { what: "the input matrix", expected, got: x.len() });
        }
        let (width, out_dim) = (self.spec.width(), self.spec.output_dim());
        let mut out = vec![0.0; rows * out_dim];
        let grid = Grid::output(&self.spec);
        match &self.random {
            None => {
                for (row, (src, dst)) in x.chunks_exact(d).zip(out.chunks_exact_mut(out_dim)).enumerate() {
                    grid.quantise(row, src, &mut dst[..width])?;
                }
            }
            Some(random) => {
                let blocks = x.chunks(MAP_BLOCK * d).zip(out.chunks_mut(MAP_BLOCK * out_dim));
                for (block, (src, dst)) in blocks.enumerate() {
                    let first = block * MAP_BLOCK;
                    let hidden = self.hidden(random, src, first)?;
                    let pairs = hidden.chunks_exact(width).zip(dst.chunks_exact_mut(out_dim));
                    for (i, (src, dst)) in pairs.enumerate() {
                        grid.quantise(first + i, src, &mut dst[..width])?;
                    }
                }
            }
        }
        if self.spec.bias {
            let one = f64::from(1_u32 << self.spec.bits);
            out.iter_mut().skip(width).step_by(out_dim).for_each(|q| *q = one);
        }
        Ok(out)
    }

    fn hidden(&self, random: &RandomRelu, x: &[f64], first: usize) -> Result<Vec<f64>, AnalyticError> {
        let d = self.spec.input_dim;
        let grid = Grid::input(&self.spec);
        let mut q = vec![0.0; x.len()];
        for (i, (src, dst)) in x.chunks_exact(d).zip(q.chunks_exact_mut(d)).enumerate() {
            grid.quantise(first + i, src, dst)?;
        }
        Ok(random.apply(&q, self.spec.bits))
    }
}

/// Rounding of one row to the grid.
struct Grid {
    normalize: Normalize,
    bits: u32,
    shrink: f64,
}

impl Grid {
    fn output(spec: &FeatureSpec) -> Self {
        Self { normalize: spec.normalize, bits: spec.bits, shrink: spec.shrink() }
    }

    /// The grid in front of the random map: its rows leave no site, so the plain unit norm is enough.
    fn input(spec: &FeatureSpec) -> Self {
        let normalize = if spec.normalize == Normalize::None { Normalize::None } else { Normalize::L2 };
        Self { normalize, bits: spec.bits, shrink: 1.0 }
    }

    fn quantise(&self, row: usize, src: &[f64], dst: &mut [f64]) -> Result<(), AnalyticError> {
        if let Some(column) = src.iter().position(|v| !v.is_finite()) {
            return Err(AnalyticError::NotFinite { row, column, value: src[column].to_string() });
        }
        let one = f64::from(1_u32 << self.bits);
        let (scale, norm, factor) = match self.normalize {
            Normalize::None => {
                if let Some(column) = src.iter().position(|v| v.abs() > MAX_UNNORMALISED) {
                    let (value, bound) = (src[column], MAX_UNNORMALISED);
                    return Err(AnalyticError::OutOfBound { row, column, value, bound });
                }
                (1.0, 1.0, one)
            }
            Normalize::L2 => (range_scale(src), euclidean_norm(src), one),
            Normalize::L2Bounded => (range_scale(src), euclidean_norm(src), self.shrink * one),
        };
        if norm == 0.0 {
            dst.fill(0.0);
            return Ok(());
        }
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for (q, &v) in dst.iter_mut().zip(src) {
                    // Adding zero turns -0 into 0, so that equal integers have equal bits.
                    *q = (v / scale / norm * factor).round_ties_even() + 0.0;
                }
            },
        );
        let bounded = self.normalize == Normalize::L2Bounded;
        if bounded && dst.iter().map(|q| q * q).sum::<f64>() > one * one {
            return Err(AnalyticError::RowNorm { row, bits: self.bits });
        }
        Ok(())
    }
}

/// A divisor that keeps the squares of extreme rows inside the range of `f64`; 1 for every ordinary row.
fn range_scale(row: &[f64]) -> f64 {
    let largest = row.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    if largest == 0.0 || (1e-100..=1e100).contains(&largest) { 1.0 } else { largest }
}

/// Euclidean norm in one fixed order, front to back: no hardware sums it differently.
fn euclidean_norm(row: &[f64]) -> f64 {
    let scale = range_scale(row);
    let mut sum = 0.0;
    for v in row {
        let v = v / scale;
        sum += v * v;
    }
    sum.sqrt()
}

#[cfg(test)]
mod tests;
