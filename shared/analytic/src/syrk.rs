//! `G += Q'Q` on integers held in `f64`.
//!
//! Every partial sum is an integer below 2^53, so it is exact: here the order of the products is free and they
//! may be fused.

use crate::kernel::{AddExact, NR, Tiles, for_each_chunk, padded, update_product};

/// Rows of `Q` in a panel: a strip (16 KiB) and a tile stay in the first cache.
const DEPTH: usize = 256;
/// Rows of `G` one task owns; their panel stays in the second cache.
const TASK_ROWS: usize = 64;
/// Strips that one task packs, so that a row of `Q` is read in long runs.
const PACK_STRIPS: usize = 16;

/// Adds `Q'Q` of the rows `q`, `[rows, dim]` row-major, to the upper triangle of `gram`, `[n, n]` row-major with
/// `n = padded(dim)`. What is below the diagonal is left undefined.
pub(crate) fn add_gram(gram: &mut [f64], q: &[f64], dim: usize) {
    let n = padded(dim);
    let mut buffer = vec![[0.0; NR]; n / NR * DEPTH.min(q.len() / dim)];
    for panel in q.chunks(DEPTH * dim) {
        let depth = panel.len() / dim;
        let strips = &mut buffer[..n / NR * depth];
        pack(panel, dim, strips);
        let strips = &*strips;
        for_each_chunk(gram, TASK_ROWS * n, n * n / 2 * depth, |task, rows| {
            let first = task * TASK_ROWS;
            let at = |i: usize, k: usize| strips[(first + i) / NR * depth + k][(first + i) % NR];
            let tiles = Tiles::pack(rows.len() / n, depth, at);
            let right = &strips[first / NR * depth..];
            update_product::<AddExact>(rows, n, first, &tiles, right, |rows, strip| {
                (strip + 1) * NR > rows.start
            });
        });
    }
}

fn pack(panel: &[f64], dim: usize, strips: &mut [[f64; NR]]) {
    let depth = panel.len() / dim;
    for_each_chunk(strips, PACK_STRIPS * depth, panel.len() * NR, |task, strips| {
        let first = task * PACK_STRIPS * NR;
        for (k, row) in panel.chunks_exact(dim).enumerate() {
            for (strip, values) in strips.chunks_exact_mut(depth).zip(row[first..].chunks(NR)) {
                match values.as_array() {
                    Some(values) => strip[k] = *values,
                    None => strip[k][..values.len()].copy_from_slice(values),
                }
            }
        }
    });
}
