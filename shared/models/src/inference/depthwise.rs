//! Depthwise convolution: each channel with a square filter of its own.

use pulp::{Simd, WithSimd};

use super::product::NR;

/// Pixels computed together, so that a weight is loaded once for all of them.
const PIXELS: usize = 4;

/// Filters of `side` by `side` for `channels` channels, a bias, and a clamp to [0, 6] behind it.
#[derive(Clone, Debug)]
pub(crate) struct Depthwise {
    side: usize,
    stride: usize,
    channels: usize,
    /// `[side * side, channels]`
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Depthwise {
    /// Packs a weight `[channels, side, side]` and a bias `[channels]`; `channels` is a multiple of 16.
    pub(crate) fn new(weight: &[f32], bias: &[f32], side: usize, stride: usize) -> Self {
        let channels = bias.len();
        debug_assert!(channels.is_multiple_of(NR) && weight.len() == channels * side * side);
        let taps = side * side;
        let weight = (0..taps * channels).map(|i| weight[i % channels * taps + i / channels]).collect();
        Self { side, stride, channels, weight, bias: bias.to_vec() }
    }

    pub(crate) fn side(&self) -> usize {
        self.side
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// One row of output `[width_out, channels]` from `side` rows of input `[width, channels]`, the image's left edge
    /// padded by `left` pixels of zeros and its right edge by as many as it takes.
    pub(crate) fn row(&self, rows: &[&[f32]], left: usize, out: &mut [f32]) {
        pulp::Arch::new().dispatch(Row { filter: self, rows, left, out });
    }
}

struct Row<'a> {
    filter: &'a Depthwise,
    rows: &'a [&'a [f32]],
    left: usize,
    out: &'a mut [f32],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.filter.side, self.filter.stride) {
            (3, 1) => self.run::<S, 3>(simd, 1),
            (3, 2) => self.run::<S, 3>(simd, 2),
            (5, 1) => self.run::<S, 5>(simd, 1),
            (5, 2) => self.run::<S, 5>(simd, 2),
            (_, stride) => self.edges::<S>(simd, stride),
        }
    }
}

impl Row<'_> {
    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn run<S: Simd, const K: usize>(mut self, simd: S, stride: usize) {
        let channels = self.filter.channels;
        let (width, width_out) = (self.rows[0].len() / channels, self.out.len() / channels);
        // Outputs whose whole window lies inside the image.
        let inside = self.left.div_ceil(stride)
            ..((width + self.left + stride).saturating_sub(K) / stride).min(width_out);
        let mut x = 0;
        while x < width_out {
            if inside.contains(&x) && x + PIXELS <= inside.end {
                self.block::<S, K, PIXELS>(simd, x, stride);
                x += PIXELS;
            } else if inside.contains(&x) {
                self.block::<S, K, 1>(simd, x, stride);
                x += 1;
            } else {
                self.edge(simd, x, stride);
                x += 1;
            }
        }
    }

    /// `P` pixels from `x` on, all windows inside.
    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn block<S: Simd, const K: usize, const P: usize>(&mut self, simd: S, x: usize, stride: usize) {
        let channels = self.filter.channels;
        let vectors = channels / S::F32_LANES;
        let first = (x * stride - self.left) * channels;
        let span = (K + (P - 1) * stride) * channels;
        let rows: [&[S::f32s]; K] =
            std::array::from_fn(|k| S::as_simd_f32s(&self.rows[k][first..][..span]).0);
        let weight = S::as_simd_f32s(&self.filter.weight).0;
        let bias = S::as_simd_f32s(&self.filter.bias).0;
        let out = S::as_mut_simd_f32s(&mut self.out[x * channels..][..P * channels]).0;
        let (zero, six) = (simd.splat_f32s(0.0), simd.splat_f32s(6.0));
        for (c, &bias) in bias.iter().enumerate() {
            let mut acc = [bias; P];
            for (ky, row) in rows.iter().enumerate() {
                for kx in 0..K {
                    let w = weight[(ky * K + kx) * vectors + c];
                    for (p, acc) in acc.iter_mut().enumerate() {
                        *acc = simd.mul_add_e_f32s(row[(kx + p * stride) * vectors + c], w, *acc);
                    }
                }
            }
            for (p, acc) in acc.into_iter().enumerate() {
                out[p * vectors + c] = simd.min_f32s(simd.max_f32s(acc, zero), six);
            }
        }
    }

    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn edges<S: Simd>(mut self, simd: S, stride: usize) {
        for x in 0..self.out.len() / self.filter.channels {
            self.edge(simd, x, stride);
        }
    }

    /// One pixel whose window may reach beyond the image.
    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn edge<S: Simd>(&mut self, simd: S, x: usize, stride: usize) {
        let (side, channels) = (self.filter.side, self.filter.channels);
        let width = self.rows[0].len() / channels;
        let out = S::as_mut_simd_f32s(&mut self.out[x * channels..][..channels]).0;
        out.copy_from_slice(S::as_simd_f32s(&self.filter.bias).0);
        for (ky, row) in self.rows.iter().enumerate() {
            for kx in 0..side {
                let Some(at) = (x * stride + kx).checked_sub(self.left).filter(|&at| at < width) else {
                    continue;
                };
                let input = S::as_simd_f32s(&row[at * channels..][..channels]).0;
                let weight =
                    S::as_simd_f32s(&self.filter.weight[(ky * side + kx) * channels..][..channels]).0;
                for ((out, &x), &w) in out.iter_mut().zip(input).zip(weight) {
                    *out = simd.mul_add_e_f32s(x, w, *out);
                }
            }
        }
        let (zero, six) = (simd.splat_f32s(0.0), simd.splat_f32s(6.0));
        for out in out {
            *out = simd.min_f32s(simd.max_f32s(*out, zero), six);
        }
    }
}
