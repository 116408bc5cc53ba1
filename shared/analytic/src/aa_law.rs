//! AFL's pairwise absolute aggregation (AA) law and the regularisation intermediary (RI) (He et al.,
//! CVPR 2025, arXiv 2405.16240).
//!
//! The product does not merge this way (it adds [`Sums`] and solves once, which is the same thing without the
//! inverses); this is the oracle that the tests hold it against, and the way in for peers that send `(W_k, C_k)`.

use faer::Mat;
use faer::linalg::solvers::{PartialPivLu, Solve};

use crate::error::AnalyticError;
use crate::sums::{Sums, SumsShape, packed_index};

/// What an AFL client sends, in real units: `C_k = X'X + gamma I` and `W_k = C_k^-1 X'Y`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientUpdate {
    /// Features `D`.
    pub dim: usize,
    /// Classes `C`.
    pub classes: usize,
    /// `W_k`, `[D, C]` row-major.
    pub weight: Vec<f64>,
    /// `C_k`, `[D, D]` row-major.
    pub corr: Vec<f64>,
}

impl ClientUpdate {
    fn check(&self) -> Result<(), AnalyticError> {
        let (dim, classes) = (self.dim, self.classes);
        let shape = SumsShape { dim, classes, bits: 0, max_abs: 1 };
        shape.validate()?;
        let buffers = [("weight", classes, &self.weight), ("corr", dim, &self.corr)];
        for (what, columns, values) in buffers {
            if values.len() != dim * columns {
                return Err(AnalyticError::Length { what, expected: dim * columns, got: values.len() });
            }
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let (row, column, value) = (at / columns, at % columns, values[at].to_string());
                return Err(AnalyticError::NotFinite { row, column, value });
            }
        }
        Ok(())
    }

    fn weight(&self) -> Mat<f64> {
        Mat::from_fn(self.dim, self.classes, |i, j| self.weight[i * self.classes + j])
    }

    fn corr(&self) -> Mat<f64> {
        Mat::from_fn(self.dim, self.dim, |i, j| self.corr[i * self.dim + j])
    }
}

/// Merges clients one after the other by the AA law, without taking their regularisation out
/// ([`remove_regularisation`] does):
/// `W = Wu W_u + Wv W_v` with `Wu = I - R_u C_v + R_u C_v (C_u + C_v)^-1 C_v` and `R_u = C_u^-1`.
pub fn fold(updates: &[ClientUpdate]) -> Result<ClientUpdate, AnalyticError> {
    let (first, others) = updates.split_first().ok_or(AnalyticError::NoUpdates)?;
    first.check()?;
    let (dim, classes) = (first.dim, first.classes);
    let (mut weight, mut corr) = (first.weight(), first.corr());
    for other in others {
        other.check()?;
        for (what, expected, got) in [("dim", dim, other.dim), ("classes", classes, other.classes)] {
            if expected != got {
                return Err(AnalyticError::Shape { what, expected: expected as u64, got: got as u64 });
            }
        }
        let (theirs, their_corr) = (other.weight(), other.corr());
        let sum = &corr + &their_corr;
        let sum_lu = sum.partial_piv_lu();
        let ours = share(&corr, &their_corr, &sum_lu, &weight);
        let theirs = share(&their_corr, &corr, &sum_lu, &theirs);
        weight = ours + theirs;
        corr = sum;
    }
    Ok(ClientUpdate {
        dim,
        classes,
        weight: finite(&weight, "C_u + C_v")?,
        corr: finite(&corr, "C_u + C_v")?,
    })
}

/// `(I - R C' + R C' S^-1 C') W` with `R = C^-1`: one client's share of the merged weights.
fn share(own: &Mat<f64>, other: &Mat<f64>, sum: &PartialPivLu<f64>, weight: &Mat<f64>) -> Mat<f64> {
    let seen = other * weight;
    let kept = other * sum.solve(&seen);
    weight + own.partial_piv_lu().solve(kept - seen)
}

/// The RI process: takes the regularisation of all contributors out of a folded update and puts the run's own in,
/// `W = (C - (K gamma - lambda) I)^-1 C W_agg`, `[D, C]` row-major. `contributors` is how many clients really are
/// in the fold, never how many were invited.
pub fn remove_regularisation(
    update: &ClientUpdate,
    contributors: usize,
    gamma: f64,
    lambda: f64,
) -> Result<Vec<f64>, AnalyticError> {
    update.check()?;
    check_ridge("gamma", gamma)?;
    check_ridge("lambda", lambda)?;
    if contributors == 0 {
        return Err(AnalyticError::NoUpdates);
    }
    let corr = update.corr();
    let target = &corr * update.weight();
    let excess = contributors as f64 * gamma - lambda;
    let system =
        Mat::from_fn(update.dim, update.dim, |i, j| corr[(i, j)] - if i == j { excess } else { 0.0 });
    finite(&system.partial_piv_lu().solve(target), "C - (K gamma - lambda) I")
}

/// Turns a peer's update into [`Sums`] on the integer grid: `B = C W`, `G = C - gamma I`.
///
/// `gamma` is the regularisation that `corr` really holds (`K gamma` for a fold of `K`). Values within 2^-6 of an
/// integer are rounded to it; otherwise the diagonal is rounded up and the rest of `G` toward zero, so that
/// rounding cannot break `g_ij^2 <= g_ii g_jj`. A peer whose features are not on the grid loses at most one unit of
/// `2^-2s` an element. Refused: NaN, infinities, an asymmetric or impossible matrix, counts that do not add up.
pub fn import(
    update: &ClientUpdate,
    gamma: f64,
    counts: &[u64],
    rows: u64,
    bits: u32,
) -> Result<Sums, AnalyticError> {
    update.check()?;
    check_ridge("gamma", gamma)?;
    let (dim, classes) = (update.dim, update.classes);
    let shape = SumsShape { dim, classes, bits, max_abs: 1 };
    let counted: u128 = counts.iter().map(|&n| u128::from(n)).sum();
    if counted != u128::from(rows) {
        return Err(AnalyticError::Counts { counted, rows });
    }
    check_symmetric(update)?;
    let square = 4.0_f64.powi(bits as i32);
    let mut sums = Sums::from_parts(
        &shape,
        rows,
        counts.to_vec(),
        vec![0; dim * (dim + 1) / 2],
        vec![0; dim * classes],
    )?;
    let diagonal: Result<Vec<i64>, AnalyticError> = (0..dim)
        .map(|i| {
            let value = to_grid((update.corr[i * dim + i] - gamma) * square, f64::ceil, "gram")?;
            let limit = 1 << 62;
            if value < 0 { Err(AnalyticError::Diagonal { index: i, value, limit }) } else { Ok(value) }
        })
        .collect();
    let diagonal = diagonal?;
    for i in 0..dim {
        sums.gram[packed_index(dim, i, i)] = diagonal[i];
        for j in i + 1..dim {
            let value = to_grid(update.corr[i * dim + j] * square, f64::trunc, "gram")?;
            // Both are below 2^62, so their product and its root fit.
            let limit = (diagonal[i] as u128 * diagonal[j] as u128).isqrt() as i64;
            if value.abs() > limit + 1 {
                return Err(AnalyticError::OffDiagonal { row: i, column: j, value });
            }
            sums.gram[packed_index(dim, i, j)] = value.clamp(-limit, limit);
        }
    }
    let cross = update.corr() * update.weight();
    for (k, sum) in sums.cross.iter_mut().enumerate() {
        let value = cross[(k / classes, k % classes)] * f64::from(1_u32 << bits);
        *sum = to_grid(value, f64::round_ties_even, "cross")?;
    }
    Ok(sums)
}

fn check_symmetric(update: &ClientUpdate) -> Result<(), AnalyticError> {
    let (dim, corr) = (update.dim, &update.corr);
    let largest = (0..dim).fold(0.0_f64, |m, i| m.max(corr[i * dim + i].abs()));
    for row in 0..dim {
        for column in row + 1..dim {
            let (a, b) = (corr[row * dim + column], corr[column * dim + row]);
            if (a - b).abs() > 1e-12 * largest {
                return Err(AnalyticError::NotSymmetric { row, column });
            }
        }
    }
    Ok(())
}

fn to_grid(value: f64, toward: impl Fn(f64) -> f64, what: &'static str) -> Result<i64, AnalyticError> {
    let nearest = value.round_ties_even();
    let near = (value - nearest).abs() <= 1.0 / 64.0;
    let value = if near { nearest } else { toward(value) };
    if value.abs() < (1_u64 << 62) as f64 { Ok(value as i64) } else { Err(AnalyticError::Overflow { what }) }
}

fn check_ridge(name: &'static str, value: f64) -> Result<(), AnalyticError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(AnalyticError::Ridge { name, value: value.to_string() })
}

fn finite(matrix: &Mat<f64>, what: &'static str) -> Result<Vec<f64>, AnalyticError> {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    let values: Vec<f64> = (0..rows * columns).map(|k| matrix[(k / columns, k % columns)]).collect();
    if values.iter().all(|v| v.is_finite()) { Ok(values) } else { Err(AnalyticError::Singular { what }) }
}

#[cfg(test)]
mod tests;
