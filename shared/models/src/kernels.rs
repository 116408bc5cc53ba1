//! Fused loops over host memory, for what a tensor library does in many passes: norms, rotary positions, softmax,
//! gates, cross-entropy. Rows are shared out over threads; within a row the loops vectorise (AVX2 or AVX-512 where the
//! machine has it). Each element is computed in one order whatever the thread count, so results repeat to the bit.

use pulp::Arch;
use rayon::prelude::*;

/// Elements that one task should have at least, so that handing it out pays.
const GRAIN: usize = 1 << 14;

/// Rows a task takes when each has `width` elements.
fn rows_per_task(width: usize) -> usize {
    (GRAIN / width.max(1)).max(1)
}

/// `e^x` with a relative error below 2e-7 (Cephes' polynomial); vectorises, unlike the library's.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the sum.
    const SHIFT: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let whole = shifted - SHIFT;
    let r = x - whole * 0.693_359_4 - whole * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.000_000_1e-1;
    let y = p * r * r + r + 1.0;
    let exponent = (shifted.to_bits().wrapping_sub(SHIFT.to_bits()) << 23).wrapping_add(127 << 23);
    y * f32::from_bits(exponent)
}

/// Sum in sixteen lanes and then across: one fixed order that vectorises.
#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let chunks = values.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] += chunk[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The largest value; minus infinity of none. NaN is passed over.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    lanes.iter().copied().fold(rest, f32::max)
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (left, right) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in left.zip(right) {
        for i in 0..16 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// RMSNorm of each row of `x` `[n, d]`, in place; `weight` `[d]`.
pub(crate) fn rms_norm(x: &mut [f32], weight: &[f32], eps: f32) {
    let d = weight.len();
    let arch = Arch::new();
    x.par_chunks_mut(d * rows_per_task(d)).for_each(|rows| {
        arch.dispatch(|| {
            for row in rows.chunks_exact_mut(d) {
                let scale = inverse_rms(row, eps);
                for (value, weight) in row.iter_mut().zip(weight) {
                    *value *= scale * weight;
                }
            }
        });
    });
}

#[inline(always)]
fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + eps).sqrt()
}

/// Gradient of [`rms_norm`]: `dy` `[n, d]` becomes the gradient of `x`, plus `residual` where there is one.
pub(crate) fn rms_norm_backward(dy: &mut [f32], x: &[f32], weight: &[f32], eps: f32, residual: &[f32]) {
    let d = weight.len();
    let arch = Arch::new();
    let step = d * rows_per_task(d);
    dy.par_chunks_mut(step).zip(x.par_chunks(step)).zip(residual.par_chunks(step)).for_each(
        |((dy, x), residual)| {
            arch.dispatch(|| {
                let rows = dy.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(residual.chunks_exact(d));
                for ((dy, x), residual) in rows {
                    let scale = inverse_rms(x, eps);
                    for (dy, weight) in dy.iter_mut().zip(weight) {
                        *dy *= weight;
                    }
                    let along = dot(dy, x) * scale * scale * scale / d as f32;
                    for ((dy, x), residual) in dy.iter_mut().zip(x).zip(residual) {
                        *dy = *dy * scale - x * along + residual;
                    }
                }
            });
        },
    );
}

/// Cosines and sines of the rotary embedding, `[positions, head_dim / 2]` each (Su et al. 2021, arXiv 2104.09864;
/// halves are rotated against each other, as in the Llama code).
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    pub(crate) half: usize,
}

impl Rotary {
    pub(crate) fn new(positions: std::ops::Range<usize>, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let angles = positions.flat_map(|position| {
            (0..half).map(move |i| position as f64 * theta.powf(-(i as f64) / half as f64))
        });
        let (cos, sin) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        Self { cos, sin, half }
    }

    #[inline(always)]
    fn turn(&self, from: &[f32], to: &mut [f32], position: usize, direction: f32) {
        let half = self.half;
        let (cos, sin) = (&self.cos[position * half..][..half], &self.sin[position * half..][..half]);
        let (low, high) = from.split_at(half);
        let (out_low, out_high) = to.split_at_mut(half);
        for i in 0..half {
            let sin = direction * sin[i];
            out_low[i] = low[i] * cos[i] - high[i] * sin;
            out_high[i] = high[i] * cos[i] + low[i] * sin;
        }
    }
}

/// How heads lie in a batch: `rows` of `[batch * length, kv * group * dim]` are split into
/// `[batch * kv, group * length, dim]`, so that the queries which share a key head are one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    pub(crate) batch: usize,
    pub(crate) length: usize,
    pub(crate) kv: usize,
    pub(crate) group: usize,
    pub(crate) dim: usize,
}

impl Heads {
    pub(crate) const fn width(&self) -> usize {
        self.kv * self.group * self.dim
    }

    pub(crate) const fn elements(&self) -> usize {
        self.batch * self.length * self.width()
    }
}

/// Splits heads, rotated by their positions where `rotary` is given.
pub(crate) fn split_heads(rows: &[f32], heads: Heads, rotary: Option<&Rotary>) -> Vec<f32> {
    let Heads { length, kv, group, dim, .. } = heads;
    let mut out = vec![0.0; heads.elements()];
    out.par_chunks_mut(group * length * dim).enumerate().for_each(|(index, out)| {
        let (record, head) = (index / kv, index % kv);
        for (at, out) in out.chunks_exact_mut(dim).enumerate() {
            let (member, position) = (at / length, at % length);
            let from = (record * length + position) * heads.width() + (head * group + member) * dim;
            let from = &rows[from..from + dim];
            match rotary {
                Some(rotary) => rotary.turn(from, out, position, 1.0),
                None => out.copy_from_slice(from),
            }
        }
    });
    out
}

/// The reverse of [`split_heads`]; a rotation is turned back, which is also its gradient.
pub(crate) fn merge_heads(split: &[f32], heads: Heads, rotary: Option<&Rotary>) -> Vec<f32> {
    let Heads { length, kv, group, dim, .. } = heads;
    let mut out = vec![0.0; heads.elements()];
    out.par_chunks_mut(heads.width()).enumerate().for_each(|(row, out)| {
        let (record, position) = (row / length, row % length);
        for (at, out) in out.chunks_exact_mut(dim).enumerate() {
            let (head, member) = (at / group, at % group);
            let from = (((record * kv + head) * group + member) * length + position) * dim;
            let from = &split[from..from + dim];
            match rotary {
                Some(rotary) => rotary.turn(from, out, position, -1.0),
                None => out.copy_from_slice(from),
            }
        }
    });
    out
}

/// Causal softmax in place of `scores` `[any, group * length, length]`: row `t` of each group sees columns `0..=t`;
/// later ones become 0.
pub(crate) fn causal_softmax(scores: &mut [f32], length: usize, scale: f32) {
    let arch = Arch::new();
    let rows = rows_per_task(length);
    scores.par_chunks_mut(length * rows).enumerate().for_each(|(task, chunk)| {
        arch.dispatch(|| {
            for (row, scores) in chunk.chunks_exact_mut(length).enumerate() {
                let seen = (task * rows + row) % length + 1;
                let (seen, hidden) = scores.split_at_mut(seen);
                softmax(seen, scale);
                hidden.fill(0.0);
            }
        });
    });
}

/// Softmax of `scale * row`, in place.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32], scale: f32) {
    let most = largest(row) * scale;
    for value in row.iter_mut() {
        *value = exp(*value * scale - most);
    }
    let inverse = 1.0 / sum(row);
    for value in row.iter_mut() {
        *value *= inverse;
    }
}

/// Gradient of [`causal_softmax`]: `dp` becomes the gradient of the scores before scaling.
pub(crate) fn softmax_backward(dp: &mut [f32], p: &[f32], length: usize, scale: f32) {
    let arch = Arch::new();
    let step = length * rows_per_task(length);
    dp.par_chunks_mut(step).zip(p.par_chunks(step)).for_each(|(dp, p)| {
        arch.dispatch(|| {
            for (dp, p) in dp.chunks_exact_mut(length).zip(p.chunks_exact(length)) {
                let mean = dot(dp, p);
                for (dp, p) in dp.iter_mut().zip(p) {
                    *dp = p * (*dp - mean) * scale;
                }
            }
        });
    });
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// SwiGLU (Shazeer 2020, arXiv 2002.05202): `gate` becomes `silu(gate) * up`.
pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
    let arch = Arch::new();
    gate.par_chunks_mut(GRAIN).zip(up.par_chunks(GRAIN)).for_each(|(gate, up)| {
        arch.dispatch(|| {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate *= sigmoid(*gate) * up;
            }
        });
    });
}

/// Gradient of [`swiglu`] under `dh`: `gate` becomes its gradient, `up` becomes its.
pub(crate) fn swiglu_backward(dh: &[f32], gate: &mut [f32], up: &mut [f32]) {
    let arch = Arch::new();
    gate.par_chunks_mut(GRAIN).zip(up.par_chunks_mut(GRAIN)).zip(dh.par_chunks(GRAIN)).for_each(
        |((gate, up), dh)| {
            arch.dispatch(|| {
                for ((gate, up), dh) in gate.iter_mut().zip(up.iter_mut()).zip(dh) {
                    let (g, u, s) = (*gate, *up, sigmoid(*gate));
                    *up = dh * g * s;
                    *gate = dh * u * s * (1.0 + g * (1.0 - s));
                }
            });
        },
    );
}

/// Cross-entropy over a vocabulary: `logits` `[n, vocab]` become `weight * (softmax - onehot)`, the gradient of
/// `-weight * log p(target)`; the log-probabilities of the targets are returned.
pub(crate) fn cross_entropy(logits: &mut [f32], targets: &[u32], weights: &[f32]) -> Vec<f32> {
    let vocab = logits.len() / targets.len().max(1);
    let arch = Arch::new();
    logits
        .par_chunks_mut(vocab)
        .zip(targets)
        .zip(weights)
        .map(|((row, target), weight)| {
            arch.dispatch(|| {
                let target = *target as usize;
                let most = largest(row);
                let at_target = row[target] - most;
                for value in row.iter_mut() {
                    *value = exp(*value - most);
                }
                let total = sum(row);
                let factor = weight / total;
                for value in row.iter_mut() {
                    *value *= factor;
                }
                row[target] -= weight;
                at_target - total.ln()
            })
        })
        .collect()
}

/// One new position of attention: for each query head the softmax of its products with the keys so far, applied to
/// the values. `q` `[heads * dim]` of one sequence; `keys` and `values` `[length, kv * dim]`; writes `out` like `q`.
pub(crate) fn attend(q: &[f32], keys: &[f32], values: &[f32], kv: usize, dim: usize, out: &mut [f32]) {
    let (heads, width) = (q.len() / dim, kv * dim);
    let group = heads / kv;
    let scale = 1.0 / (dim as f32).sqrt();
    let mut scores = vec![0.0; keys.len() / width];
    Arch::new().dispatch(|| {
        for (head, (q, out)) in q.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).enumerate() {
            let at = head / group * dim;
            for (score, key) in scores.iter_mut().zip(keys.chunks_exact(width)) {
                *score = dot(q, &key[at..at + dim]);
            }
            softmax(&mut scores, scale);
            out.fill(0.0);
            for (p, value) in scores.iter().zip(values.chunks_exact(width)) {
                for (out, value) in out.iter_mut().zip(&value[at..at + dim]) {
                    *out += p * value;
                }
            }
        }
    });
}

/// Rotates every head of one position's row `[heads * dim]` in place.
pub(crate) fn rotate_row(row: &mut [f32], rotary: &Rotary, position: usize) {
    let mut turned = vec![0.0; 2 * rotary.half];
    for head in row.chunks_exact_mut(2 * rotary.half) {
        rotary.turn(head, &mut turned, position, 1.0);
        head.copy_from_slice(&turned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_accurate() {
        let mut x = -86.9_f32;
        while x < 87.9 {
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / exact - 1.0).abs() < 2e-7, "exp({x}) = {ours}, not {exact}");
            x += 0.013;
        }
    }

    #[test]
    fn heads_split_and_merge_back() {
        let heads = Heads { batch: 2, length: 3, kv: 2, group: 3, dim: 4 };
        let rows: Vec<f32> = (0..heads.elements()).map(|i| i as f32).collect();
        let rotary = Rotary::new(0..3, 4, 10_000.0);
        for rotary in [None, Some(&rotary)] {
            let back = merge_heads(&split_heads(&rows, heads, rotary), heads, rotary);
            for (a, b) in rows.iter().zip(&back) {
                assert!((a - b).abs() < 1e-4);
            }
        }
    }
}
