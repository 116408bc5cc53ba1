//! The one inner kernel of the solve, of scoring and of the Gram matrix: `C` updated by `A B` on packed panels.
//!
//! Every element of `C` takes its products one after the other in the order of `k`. With [`Subtract`] that is a
//! multiplication and then a subtraction, never fused; vectors run over the other two indices only, so neither
//! the width of the registers nor the tiling, the blocking or the number of threads can change a bit.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Columns of a register tile.
pub(crate) const NR: usize = 8;
/// Depth of a packed panel: a strip of `B` (16 KiB) stays in the first cache.
pub(crate) const DEPTH: usize = 128;
/// Rows of `C` one task owns; with a panel of `A` they stay in the second cache.
pub(crate) const TASK_ROWS: usize = 32;

/// A panel of `A` for the rows of one task, `[tile][k][lane]` with 4 or 8 rows a tile.
///
/// Eight rows fill the 32 registers of AVX-512 and the latency of its adders, four those of everything else.
pub(crate) struct Tiles {
    depth: usize,
    lanes: Lanes,
}

enum Lanes {
    Four(Vec<[f64; 4]>),
    Eight(Vec<[f64; 8]>),
}

impl Tiles {
    /// Packs `at(row, k)` for `rows` rows, filled up with zeros to whole tiles.
    pub(crate) fn pack(rows: usize, depth: usize, at: impl Fn(usize, usize) -> f64) -> Self {
        let lanes = if wide_registers() && rows.is_multiple_of(8) {
            Lanes::Eight(pack(rows, depth, at))
        } else {
            Lanes::Four(pack(rows, depth, at))
        };
        Self { depth, lanes }
    }
}

fn pack<const MR: usize>(rows: usize, depth: usize, at: impl Fn(usize, usize) -> f64) -> Vec<[f64; MR]> {
    let mut tiles = vec![[0.0; MR]; rows.div_ceil(MR) * depth];
    for (t, tile) in tiles.chunks_exact_mut(depth).enumerate() {
        for lane in 0..MR.min(rows - t * MR) {
            tile.iter_mut().enumerate().for_each(|(k, a)| a[lane] = at(t * MR + lane, k));
        }
    }
    tiles
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn wide_registers() -> bool {
    matches!(pulp::Arch::new(), pulp::Arch::V4(_))
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
fn wide_registers() -> bool {
    false
}

/// `n` rounded up to whole strips.
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(NR)
}

/// How an element takes one product.
pub(crate) trait Step {
    /// `x` after the product `a b`.
    fn take<S: Simd>(simd: S, x: S::f64s, a: S::f64s, b: S::f64s) -> S::f64s;
}

/// `x - a b`, rounded twice: the same on every machine.
pub(crate) struct Subtract;

/// `x + a b` where every partial sum is exact, so that rounding once or twice is the same: fused where that is
/// faster.
pub(crate) struct AddExact;

impl Step for Subtract {
    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn take<S: Simd>(simd: S, x: S::f64s, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.sub_f64s(x, simd.mul_f64s(a, b))
    }
}

impl Step for AddExact {
    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn take<S: Simd>(simd: S, x: S::f64s, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.mul_add_e_f64s(a, b, x)
    }
}

/// Updates the rows of `c` (leading dimension `ldc`) and the columns of `strips`, `[strip][k][NR]`, from
/// `col0` on, tile by tile where `wanted(rows, strip)`.
pub(crate) fn update_product<T: Step>(
    c: &mut [f64],
    ldc: usize,
    col0: usize,
    tiles: &Tiles,
    strips: &[[f64; NR]],
    wanted: impl Fn(Range<usize>, usize) -> bool,
) {
    let (arch, depth, step) = (pulp::Arch::new(), tiles.depth, PhantomData::<T>);
    match &tiles.lanes {
        Lanes::Four(tiles) => arch.dispatch(Product { step, c, ldc, col0, tiles, strips, depth, wanted }),
        Lanes::Eight(tiles) => arch.dispatch(Product { step, c, ldc, col0, tiles, strips, depth, wanted }),
    }
}

/// The product for tiles of `MR` rows, compiled once for each width of vectors.
struct Product<'a, T, const MR: usize, W> {
    step: PhantomData<T>,
    c: &'a mut [f64],
    ldc: usize,
    col0: usize,
    tiles: &'a [[f64; MR]],
    strips: &'a [[f64; NR]],
    depth: usize,
    wanted: W,
}

impl<T: Step, const MR: usize, W: Fn(Range<usize>, usize) -> bool> WithSimd for Product<'_, T, MR, W> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F64_LANES {
            8 => self.run::<S, 1>(simd),
            4 => self.run::<S, 2>(simd),
            2 => self.run::<S, 4>(simd),
            _ => self.run::<S, 8>(simd),
        }
    }
}

impl<T: Step, const MR: usize, W: Fn(Range<usize>, usize) -> bool> Product<'_, T, MR, W> {
    /// `V` vectors make up the `NR` columns of a strip. Where one does, two strips are taken at a time, so that loading
    /// `A` does not hold the multipliers up.
    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        let Self { c, ldc, col0, tiles, strips, depth, wanted, .. } = self;
        let pairs = if V == 1 { strips.len() / (2 * depth) } else { 0 };
        let (paired, single) = strips.split_at(pairs * 2 * depth);
        for (pair, both) in paired.chunks_exact(2 * depth).enumerate() {
            let (left, right) = both.split_at(depth);
            for (t, tile) in tiles.chunks_exact(depth).enumerate() {
                let rows = t * MR..(t + 1) * MR;
                if wanted(rows.clone(), 2 * pair) || wanted(rows, 2 * pair + 1) {
                    let corner = &mut c[t * MR * ldc + col0 + 2 * pair * NR..];
                    update_tile::<S, T, MR, V, 2>(simd, corner, ldc, tile, [left, right]);
                }
            }
        }
        for (s, strip) in single.chunks_exact(depth).enumerate() {
            let s = 2 * pairs + s;
            for (t, tile) in tiles.chunks_exact(depth).enumerate() {
                if wanted(t * MR..(t + 1) * MR, s) {
                    let corner = &mut c[t * MR * ldc + col0 + s * NR..];
                    update_tile::<S, T, MR, V, 1>(simd, corner, ldc, tile, [strip]);
                }
            }
        }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
#[inline(always)]
fn update_tile<S: Simd, T: Step, const MR: usize, const V: usize, const P: usize>(
    simd: S,
    c: &mut [f64],
    ldc: usize,
    tile: &[[f64; MR]],
    strips: [&[[f64; NR]]; P],
) {
    let strips = strips.map(|strip| &strip[..tile.len()]);
    let mut acc = [[[simd.splat_f64s(0.0); V]; P]; MR];
    for (i, row) in acc.iter_mut().enumerate() {
        for (p, part) in row.iter_mut().enumerate() {
            let at = i * ldc + p * NR;
            part.copy_from_slice(&S::as_simd_f64s(&c[at..at + NR]).0[..V]);
        }
    }
    for (k, a) in tile.iter().enumerate() {
        let b = strips.map(|strip| &S::as_simd_f64s(&strip[k]).0[..V]);
        for (row, &a) in acc.iter_mut().zip(a) {
            let a = simd.splat_f64s(a);
            for (part, b) in row.iter_mut().zip(b) {
                for (x, &b) in part.iter_mut().zip(b) {
                    *x = T::take(simd, *x, a, b);
                }
            }
        }
    }
    for (i, row) in acc.iter().enumerate() {
        for (p, part) in row.iter().enumerate() {
            let at = i * ldc + p * NR;
            S::as_mut_simd_f64s(&mut c[at..at + NR]).0[..V].copy_from_slice(part);
        }
    }
}

/// Runs `task(index, chunk)` over chunks of `size`, on the thread pool where there is enough work to share.
pub(crate) fn for_each_chunk<T: Send>(
    data: &mut [T],
    size: usize,
    operations: usize,
    task: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    if operations > 1 << 20 {
        data.par_chunks_mut(size).enumerate().for_each(|(i, chunk)| task(i, chunk));
    } else {
        data.chunks_mut(size).enumerate().for_each(|(i, chunk)| task(i, chunk));
    }
}

#[cfg(test)]
mod tests;
