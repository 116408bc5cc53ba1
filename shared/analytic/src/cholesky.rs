use crate::error::AnalyticError;
use crate::kernel::{DEPTH, NR, Subtract, TASK_ROWS, Tiles, for_each_chunk, padded, update_product};

/// Columns of a panel. Only speed depends on it.
const PANEL: usize = 64;

/// The lower factor `L` of `A = L L'`, `[n, n]` row-major, `n` padded to whole strips with ones on the diagonal.
///
/// Right-looking and blocked, yet each element is what the textbook loop gives, to the bit: `a_ij` minus
/// `l_ik l_jk` for `k = 0, 1, ..`, then divided by `l_jj` (or the square root).
pub(crate) struct Cholesky {
    n: usize,
    factor: Vec<f64>,
}

/// Index of the first pivot that is not clearly positive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadPivot(pub(crate) usize);

impl Cholesky {
    /// Factors the matrix whose lower triangle `fill(row, target)` writes into `target[..=row]`.
    pub(crate) fn factor(dim: usize, fill: impl Fn(usize, &mut [f64])) -> Result<Self, BadPivot> {
        let n = padded(dim);
        let mut a = vec![0.0; n * n];
        for (i, row) in a.chunks_exact_mut(n).enumerate() {
            if i < dim {
                fill(i, &mut row[..=i]);
            } else {
                row[i] = 1.0;
            }
        }
        let diagonal: Vec<f64> = a.iter().step_by(n + 1).copied().collect();
        let mut strips = vec![[0.0; NR]; n * PANEL / NR];
        for k0 in (0..n).step_by(PANEL) {
            let width = PANEL.min(n - k0);
            let block = factor_block(&mut a, n, k0, width, &diagonal)?;
            let below = n - k0 - width;
            let strips = &mut strips[..below / NR * width];
            solve_panel(&a, n, k0, width, &block, strips);
            let rest = &mut a[(k0 + width) * n..];
            for_each_chunk(rest, TASK_ROWS * n, below * below * width, |task, rows| {
                update_rows(rows, n, k0, width, task * TASK_ROWS, strips);
            });
        }
        Ok(Self { n, factor: a })
    }

    /// Padded order.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Solves `L L' X = B` in place; `b` is `[n, columns]` row-major with whole strips of columns.
    ///
    /// Forward, each element takes its products in the order `k = 0, 1, ..`; backward, `k = n - 1, n - 2, ..`.
    pub(crate) fn solve(&self, b: &mut [f64], columns: usize) {
        let n = self.n;
        for k0 in (0..n).step_by(DEPTH) {
            let width = DEPTH.min(n - k0);
            let mut strips = gather(&b[k0 * columns..], columns, width);
            self.solve_diagonal(&mut strips, k0, width, false);
            scatter(&strips, &mut b[k0 * columns..], columns, width);
            let rest = &mut b[(k0 + width) * columns..];
            let operations = rest.len() * width;
            for_each_chunk(rest, TASK_ROWS * columns, operations, |task, rows| {
                let first = k0 + width + task * TASK_ROWS;
                let tiles =
                    Tiles::pack(rows.len() / columns, width, |i, k| self.factor[(first + i) * n + k0 + k]);
                update_product::<Subtract>(rows, columns, 0, &tiles, &strips, |_, _| true);
            });
        }
        for k0 in (0..n).step_by(DEPTH).rev() {
            let width = DEPTH.min(n - k0);
            let (above, panel) = b.split_at_mut(k0 * columns);
            let mut strips = gather(panel, columns, width);
            self.solve_diagonal(&mut strips, k0, width, true);
            scatter(&strips, panel, columns, width);
            strips.chunks_exact_mut(width).for_each(<[_]>::reverse);
            let operations = above.len() * width;
            for_each_chunk(above, TASK_ROWS * columns, operations, |task, rows| {
                let first = task * TASK_ROWS;
                let last = k0 + width - 1;
                let tiles =
                    Tiles::pack(rows.len() / columns, width, |i, k| self.factor[(last - k) * n + first + i]);
                update_product::<Subtract>(rows, columns, 0, &tiles, &strips, |_, _| true);
            });
        }
    }

    /// The triangle of the solve at `k0`, on packed strips.
    fn solve_diagonal(&self, strips: &mut [[f64; NR]], k0: usize, width: usize, backward: bool) {
        let n = self.n;
        let at = |i: usize, k: usize| self.factor[(k0 + i) * n + k0 + k];
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for strip in strips.chunks_exact_mut(width) {
                    if backward {
                        for i in (0..width).rev() {
                            let mut x = strip[i];
                            for k in (i + 1..width).rev() {
                                subtract_scaled(&mut x, &strip[k], at(k, i));
                            }
                            strip[i] = x.map(|v| v / at(i, i));
                        }
                    } else {
                        for i in 0..width {
                            let mut x = strip[i];
                            for (k, known) in strip[..i].iter().enumerate() {
                                subtract_scaled(&mut x, known, at(i, k));
                            }
                            strip[i] = x.map(|v| v / at(i, i));
                        }
                    }
                }
            },
        );
    }
}

#[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
#[inline(always)]
fn subtract_scaled(x: &mut [f64; NR], known: &[f64; NR], factor: f64) {
    for (x, known) in x.iter_mut().zip(known) {
        *x -= known * factor;
    }
}

/// Factors the diagonal block at `k0` in place and returns it, `[width, width]` row-major.
fn factor_block(
    a: &mut [f64],
    n: usize,
    k0: usize,
    width: usize,
    diagonal: &[f64],
) -> Result<Vec<f64>, BadPivot> {
    // Transposed, so that the vectors run down the columns of L.
    let mut columns = vec![0.0; width * width];
    for i in 0..width {
        for k in 0..=i {
            columns[k * width + i] = a[(k0 + i) * n + k0 + k];
        }
    }
    for j in 0..width {
        let (known, rest) = columns.split_at_mut(j * width);
        let column = &mut rest[j..width];
        for earlier in known.chunks_exact(width) {
            let factor = earlier[j];
            column.iter_mut().zip(&earlier[j..]).for_each(|(x, l)| *x -= l * factor);
        }
        let pivot = column[0];
        // Rounding leaves this much of the diagonal in a direction that the data do not have.
        let noise = n as f64 * f64::EPSILON * diagonal[k0 + j];
        if pivot <= noise || !pivot.is_finite() {
            return Err(BadPivot(k0 + j));
        }
        let root = pivot.sqrt();
        column[0] = root;
        column[1..].iter_mut().for_each(|x| *x /= root);
    }
    let mut block = vec![0.0; width * width];
    for i in 0..width {
        for k in 0..=i {
            block[i * width + k] = columns[k * width + i];
        }
        a[(k0 + i) * n + k0..][..=i].copy_from_slice(&block[i * width..][..=i]);
    }
    Ok(block)
}

/// Solves the rows below the diagonal block against it, into `strips`, `[strip][k][row]`.
fn solve_panel(a: &[f64], n: usize, k0: usize, width: usize, block: &[f64], strips: &mut [[f64; NR]]) {
    let operations = strips.len() * NR * width;
    for_each_chunk(strips, width, operations, |s, strip| {
        let first = k0 + width + s * NR;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for lane in 0..NR {
                    let row = &a[(first + lane) * n + k0..][..width];
                    strip.iter_mut().zip(row).for_each(|(x, v)| x[lane] = *v);
                }
                for (j, l) in block.chunks_exact(width).enumerate() {
                    let mut x = strip[j];
                    for (known, &factor) in strip[..j].iter().zip(l) {
                        subtract_scaled(&mut x, known, factor);
                    }
                    strip[j] = x.map(|v| v / l[j]);
                }
            },
        );
    });
}

/// Writes the solved panel into the rows of one task and updates what lies to the right of it. `offset` counts
/// from the first row below the diagonal block.
fn update_rows(rows: &mut [f64], n: usize, k0: usize, width: usize, offset: usize, strips: &[[f64; NR]]) {
    let at = |i: usize, k: usize| strips[(offset + i) / NR * width + k][(offset + i) % NR];
    let count = rows.len() / n;
    for (i, row) in rows.chunks_exact_mut(n).enumerate() {
        row[k0..k0 + width].iter_mut().enumerate().for_each(|(k, x)| *x = at(i, k));
    }
    let tiles = Tiles::pack(count, width, at);
    let needed = &strips[..(offset + count) / NR * width];
    update_product::<Subtract>(rows, n, k0 + width, &tiles, needed, |rows, strip| {
        strip * NR < offset + rows.end
    });
}

fn gather(rows: &[f64], columns: usize, depth: usize) -> Vec<[f64; NR]> {
    let mut strips = vec![[0.0; NR]; columns / NR * depth];
    for (s, strip) in strips.chunks_exact_mut(depth).enumerate() {
        for (x, row) in strip.iter_mut().zip(rows.chunks_exact(columns)) {
            x.copy_from_slice(&row[s * NR..(s + 1) * NR]);
        }
    }
    strips
}

fn scatter(strips: &[[f64; NR]], rows: &mut [f64], columns: usize, depth: usize) {
    for (s, strip) in strips.chunks_exact(depth).enumerate() {
        for (x, row) in strip.iter().zip(rows.chunks_exact_mut(columns)) {
            row[s * NR..(s + 1) * NR].copy_from_slice(x);
        }
    }
}

impl BadPivot {
    /// The error for the caller, with a ridge parameter large enough against the mean of the diagonal.
    pub(crate) fn into_error(self, lambda: f64, mean_diagonal: f64) -> AnalyticError {
        let suggested = (lambda * 10.0).max(mean_diagonal * 1e-6).max(1e-9);
        AnalyticError::NotPositiveDefinite { pivot: self.0, lambda, suggested }
    }
}

#[cfg(test)]
mod tests;
