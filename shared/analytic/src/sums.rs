use std::fmt;

use crate::error::AnalyticError;
use crate::feature_map::FeatureSpec;
use crate::plausibility::Plausibility;

/// Most features a row may have, the bias column included: a Gram matrix of 17 GB packed.
pub const MAX_DIM: usize = 1 << 16;
/// Most classes.
pub const MAX_CLASSES: usize = 1 << 16;
/// Most rows sums may claim: far above any data set, far below what arithmetic on claims could overflow on.
pub const MAX_ROWS: u64 = 1 << 40;

/// What a run plan says about the sums of its sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SumsShape {
    /// Features `D`, the bias column included.
    pub dim: usize,
    /// Classes `C`.
    pub classes: usize,
    /// Fractional bits of the grid.
    pub bits: u32,
    /// Largest magnitude of a quantised feature.
    pub max_abs: i64,
}

impl SumsShape {
    /// The shape that rows of `spec` with labels of `classes` classes give.
    pub fn of(spec: &FeatureSpec, classes: usize) -> Self {
        Self { dim: spec.output_dim(), classes, bits: spec.bits, max_abs: spec.max_abs() }
    }

    /// Checks that the shape is one that sums can have.
    pub fn validate(&self) -> Result<(), AnalyticError> {
        let refuse = |field, reason| Err(AnalyticError::Spec { field, reason });
        if self.dim == 0 || self.dim > MAX_DIM {
            return refuse("dim", format!("{} is outside 1 to {MAX_DIM}", self.dim));
        }
        if self.classes == 0 || self.classes > MAX_CLASSES {
            return refuse("classes", format!("{} is outside 1 to {MAX_CLASSES}", self.classes));
        }
        if self.bits > 20 {
            return refuse("bits", format!("{} is above 20", self.bits));
        }
        if self.max_abs < 1 || self.max_abs > 1 << 26 {
            return refuse("max_abs", format!("{} is outside 1 to 2^26", self.max_abs));
        }
        Ok(())
    }

    /// Rows up to which every sum stays below 2^62.
    pub fn max_rows(&self) -> u64 {
        rows_within(62, self.max_abs).min(MAX_ROWS)
    }
}

/// Rows up to which sums of products of values within `max_abs` stay below `2^bits`.
pub(crate) fn rows_within(bits: u32, max_abs: i64) -> u64 {
    let square = u128::from(max_abs.unsigned_abs()).pow(2).max(1);
    (((1_u128 << bits) - 1) / square) as u64
}

/// The exact sums of one site or of many: `G = Q'Q`, `B = Q'Y`, rows a class, rows (AFL, arXiv 2405.16240,
/// on the integer grid).
///
/// Addition is associative and commutative to the bit, and [`Sums::subtract`] undoes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Sums {
    pub(crate) dim: usize,
    pub(crate) classes: usize,
    pub(crate) bits: u32,
    pub(crate) rows: u64,
    pub(crate) counts: Vec<u64>,
    pub(crate) gram: Vec<i64>,
    pub(crate) cross: Vec<i64>,
}

impl Sums {
    /// The sums of no rows.
    pub fn zero(dim: usize, classes: usize, bits: u32) -> Self {
        let (counts, gram, cross) = (vec![0; classes], vec![0; packed_len(dim)], vec![0; dim * classes]);
        Self { dim, classes, bits, rows: 0, counts, gram, cross }
    }

    /// Sums from their parts, as secure aggregation unmasks them. Lengths are checked here, contents by
    /// [`Sums::validate`].
    pub fn from_parts(
        shape: &SumsShape,
        rows: u64,
        counts: Vec<u64>,
        gram: Vec<i64>,
        cross: Vec<i64>,
    ) -> Result<Self, AnalyticError> {
        shape.validate()?;
        let &SumsShape { dim, classes, bits, .. } = shape;
        let lengths = [
            ("the class counts", classes, counts.len()),
            ("the packed Gram matrix", packed_len(dim), gram.len()),
            ("the cross matrix", dim * classes, cross.len()),
        ];
        for (what, expected, got) in lengths {
            if expected != got {
                return Err(AnalyticError::Length { what, expected, got });
            }
        }
        Ok(Self { dim, classes, bits, rows, counts, gram, cross })
    }

    /// Features `D`.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Classes `C`.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Fractional bits of the grid.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Rows summed.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows of each class, `[C]`.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Upper triangle of `G` in units of `2^-2s`, row by row: `[D (D + 1) / 2]`.
    pub fn gram(&self) -> &[i64] {
        &self.gram
    }

    /// `B` in units of `2^-s`, `[D, C]` row-major.
    pub fn cross(&self) -> &[i64] {
        &self.cross
    }

    /// Adds `other`. On an error (another shape, an overflow) `self` is unchanged.
    pub fn add(&mut self, other: &Self) -> Result<(), AnalyticError> {
        self.same_shape(other)?;
        let (rows, counts) = self.grown(other.rows, &other.counts)?;
        for (what, a, b) in [("gram", &self.gram, &other.gram), ("cross", &self.cross, &other.cross)] {
            if add_overflows(a, b) {
                return Err(AnalyticError::Overflow { what });
            }
        }
        (self.rows, self.counts) = (rows, counts);
        self.gram.iter_mut().zip(&other.gram).for_each(|(a, b)| *a += b);
        self.cross.iter_mut().zip(&other.cross).for_each(|(a, b)| *a += b);
        Ok(())
    }

    /// Takes `other` out again, for a site that withdraws. On an error (another shape, an overflow, rows or a
    /// diagonal that the total does not hold) `self` is unchanged.
    pub fn subtract(&mut self, other: &Self) -> Result<(), AnalyticError> {
        self.same_shape(other)?;
        let (rows, counts) = self.shrunk(other.rows, &other.counts)?;
        for (what, a, b) in [("gram", &self.gram, &other.gram), ("cross", &self.cross, &other.cross)] {
            if subtract_overflows(a, b) {
                return Err(AnalyticError::Overflow { what });
            }
        }
        if (0..self.dim).map(|i| packed_index(self.dim, i, i)).any(|k| self.gram[k] < other.gram[k]) {
            return Err(AnalyticError::NotContained { what: "the diagonal of gram" });
        }
        (self.rows, self.counts) = (rows, counts);
        self.gram.iter_mut().zip(&other.gram).for_each(|(a, b)| *a -= b);
        self.cross.iter_mut().zip(&other.cross).for_each(|(a, b)| *a -= b);
        Ok(())
    }

    /// Checks that rows with features within `max_abs` could have given these sums: counts add up to the rows,
    /// `0 <= g_ii <= n max_abs^2`, `g_ij^2 <= g_ii g_jj`, `|b_dc| <= n_c max_abs`. Necessary, not sufficient: a
    /// liar within these bounds is bounded by the rows it claims.
    pub fn validate(&self, max_abs: i64) -> Result<(), AnalyticError> {
        let shape = SumsShape { dim: self.dim, classes: self.classes, bits: self.bits, max_abs };
        let mut check = Plausibility::new(&shape, self.rows, &self.counts)?;
        let diagonal: Vec<i64> = (0..self.dim).map(|i| self.gram[packed_index(self.dim, i, i)]).collect();
        check.diagonal(&diagonal)?;
        for row in 0..self.dim {
            let start = packed_index(self.dim, row, row);
            check.off_diagonal(row, row + 1, &self.gram[start + 1..start + self.dim - row])?;
        }
        check.cross(0, &self.cross)
    }

    pub(crate) fn grown(&self, rows: u64, counts: &[u64]) -> Result<(u64, Vec<u64>), AnalyticError> {
        let overflow = |what| move || AnalyticError::Overflow { what };
        let total = self.rows.checked_add(rows).ok_or_else(overflow("the row count"))?;
        let pairs = self.counts.iter().zip(counts);
        let sums: Option<Vec<u64>> = pairs.map(|(a, b)| a.checked_add(*b)).collect();
        Ok((total, sums.ok_or_else(overflow("a class count"))?))
    }

    pub(crate) fn shrunk(&self, rows: u64, counts: &[u64]) -> Result<(u64, Vec<u64>), AnalyticError> {
        let lacking = |what| move || AnalyticError::NotContained { what };
        let total = self.rows.checked_sub(rows).ok_or_else(lacking("the row count"))?;
        let pairs = self.counts.iter().zip(counts);
        let rest: Option<Vec<u64>> = pairs.map(|(a, b)| a.checked_sub(*b)).collect();
        Ok((total, rest.ok_or_else(lacking("a class count"))?))
    }

    fn same_shape(&self, other: &Self) -> Result<(), AnalyticError> {
        same_shape(
            (self.dim, self.classes, self.bits),
            (other.dim as u64, other.classes as u64, u64::from(other.bits)),
        )
    }
}

impl fmt::Debug for Sums {
    /// Shape and rows only: the contents are a site's and run to megabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dim, classes, bits, rows, .. } = self;
        write!(f, "Sums {{ dim: {dim}, classes: {classes}, bits: {bits}, rows: {rows}, .. }}")
    }
}

pub(crate) fn same_shape(
    (dim, classes, bits): (usize, usize, u32),
    got: (u64, u64, u64),
) -> Result<(), AnalyticError> {
    let quantities =
        [("dim", dim as u64, got.0), ("classes", classes as u64, got.1), ("bits", u64::from(bits), got.2)];
    for (what, expected, got) in quantities {
        if expected != got {
            return Err(AnalyticError::Shape { what, expected, got });
        }
    }
    Ok(())
}

/// Elements of the packed upper triangle.
pub(crate) fn packed_len(dim: usize) -> usize {
    dim * (dim + 1) / 2
}

/// Place of element `(i, j)`, `i <= j`, in the packed upper triangle.
pub(crate) fn packed_index(dim: usize, i: usize, j: usize) -> usize {
    i * (2 * dim + 1 - i) / 2 + (j - i)
}

/// Whether any element of `a + b` leaves 64 bits. Without branches, so that it runs at memory speed.
pub(crate) fn add_overflows(a: &[i64], b: &[i64]) -> bool {
    let sign = a.iter().zip(b).fold(0, |acc, (&a, &b)| {
        let sum = a.wrapping_add(b);
        acc | ((a ^ sum) & (b ^ sum))
    });
    sign < 0
}

/// Whether any element of `a - b` leaves 64 bits.
pub(crate) fn subtract_overflows(a: &[i64], b: &[i64]) -> bool {
    let sign = a.iter().zip(b).fold(0, |acc, (&a, &b)| acc | ((a ^ b) & (a ^ a.wrapping_sub(b))));
    sign < 0
}

mod vector;

#[cfg(test)]
mod tests;
