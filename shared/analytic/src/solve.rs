use crate::cholesky::Cholesky;
use crate::error::AnalyticError;
use crate::kernel::{DEPTH, NR, Subtract, Tiles, for_each_chunk, padded, update_product};
use crate::sums::{Sums, packed_index};
use crate::weights::Weights;

/// Rows scored by one task.
const SCORE_ROWS: usize = 64;

/// Solves `(G / 2^2s + lambda I) W = B / 2^s` by Cholesky: the ridge solution that AFL (arXiv 2405.16240)
/// reaches after its RI process, on features in real units.
///
/// The same sums and `lambda` give the same bits on every machine and thread count. Errors: a `lambda` that is
/// negative or not finite, a system that is not positive definite.
pub fn solve(sums: &Sums, lambda: f64) -> Result<Weights, AnalyticError> {
    if !lambda.is_finite() || lambda < 0.0 {
        return Err(AnalyticError::Ridge { name: "lambda", value: lambda.to_string() });
    }
    let (dim, classes) = (sums.dim(), sums.classes());
    // Powers of two: scaling by them is exact.
    let unit = 1.0 / f64::from(1_u32 << sums.bits());
    let gram = sums.gram();
    let factor = Cholesky::factor(dim, |i, row| {
        for (j, x) in row.iter_mut().enumerate() {
            *x = gram[packed_index(dim, j, i)] as f64 * (unit * unit);
        }
        row[i] += lambda;
    });
    let factor = factor.map_err(|pivot| {
        let trace: f64 = (0..dim).map(|i| gram[packed_index(dim, i, i)] as f64 * (unit * unit)).sum();
        pivot.into_error(lambda, trace / dim as f64)
    })?;
    let columns = padded(classes);
    let mut b = vec![0.0; factor.n() * columns];
    for (row, sums) in b.chunks_exact_mut(columns).zip(sums.cross().chunks_exact(classes)) {
        row.iter_mut().zip(sums).for_each(|(x, &v)| *x = v as f64 * unit);
    }
    factor.solve(&mut b, columns);
    let data = b.chunks_exact(columns).take(dim).flat_map(|row| &row[..classes]).copied().collect();
    Weights::new(dim, classes, data)
}

/// Scores `q / 2^s W` of quantised rows, `[rows, C]` row-major. A row's scores have the same bits in any batch.
pub fn scores(q: &[f64], rows: usize, weights: &Weights, bits: u32) -> Result<Vec<f64>, AnalyticError> {
    let (dim, classes) = (weights.dim, weights.classes);
    if rows.checked_mul(dim) != Some(q.len()) {
        let expected = rows.saturating_mul(dim);
        return Err(AnalyticError::Length { what: "the quantised rows", expected, got: q.len() });
    }
    if bits > 20 {
        return Err(AnalyticError::Spec { field: "bits", reason: format!("{bits} is above 20") });
    }
    let columns = padded(classes);
    let panels = pack_weights(weights, columns);
    // The kernel subtracts, so the rows go in negated: `0 - (-a) b` is `0 + a b` to the bit.
    let unit = -1.0 / f64::from(1_u32 << bits);
    let mut out = vec![0.0; rows * classes];
    for_each_chunk(&mut out, SCORE_ROWS * classes, q.len() * classes, |task, out| {
        let count = out.len() / classes;
        let rows = &q[task * SCORE_ROWS * dim..][..count * dim];
        let mut c = vec![0.0; padded(count) * columns];
        for (panel, k0) in panels.iter().zip((0..dim).step_by(DEPTH)) {
            let width = DEPTH.min(dim - k0);
            let tiles = Tiles::pack(count, width, |i, k| rows[i * dim + k0 + k] * unit);
            update_product::<Subtract>(&mut c, columns, 0, &tiles, panel, |_, _| true);
        }
        for (out, c) in out.chunks_exact_mut(classes).zip(c.chunks_exact(columns)) {
            out.copy_from_slice(&c[..classes]);
        }
    });
    Ok(out)
}

/// The weights in panels of `DEPTH` features, each in strips.
fn pack_weights(weights: &Weights, columns: usize) -> Vec<Vec<[f64; NR]>> {
    let classes = weights.classes;
    let panels = weights.as_slice().chunks(DEPTH * classes);
    let pack = |panel: &[f64]| {
        let width = panel.len() / classes;
        let mut strips = vec![[0.0; NR]; columns / NR * width];
        for (k, row) in panel.chunks_exact(classes).enumerate() {
            for (s, part) in row.chunks(NR).enumerate() {
                strips[s * width + k][..part.len()].copy_from_slice(part);
            }
        }
        strips
    };
    panels.map(pack).collect()
}

#[cfg(test)]
mod tests;
