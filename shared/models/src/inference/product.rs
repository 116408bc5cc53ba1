//! `C = A B + bias` with `B` packed.

use pulp::{Simd, WithSimd};

/// Columns of a panel of `B`.
pub(crate) const NR: usize = 16;
/// Depth of one pass: this much of a panel (24 KiB) stays in the first cache.
const DEPTH: usize = 384;
/// Rows of `A` that one pass over all panels serves; with `DEPTH` they stay in the second cache.
const ROWS: usize = 96;

/// What happens to a finished sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// It is stored.
    Store,
    /// It is clamped to [0, 6] and stored.
    Relu6,
    /// It is added to what stands there (the residual).
    Add,
}

/// A matrix `[inputs, outputs]` cut into panels of [`NR`] columns, `[panel][input][NR]`, filled up with zeros.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panels {
    inputs: usize,
    outputs: usize,
    columns: Vec<[f32; NR]>,
}

impl Panels {
    /// Packs anew, keeping the memory; `row(k)` gives the `outputs` values of input `k`.
    pub(crate) fn pack_rows<'a>(&mut self, inputs: usize, outputs: usize, row: impl Fn(usize) -> &'a [f32]) {
        self.reset(inputs, outputs);
        for k in 0..inputs {
            for (p, values) in row(k)[..outputs].chunks(NR).enumerate() {
                self.columns[p * inputs + k][..values.len()].copy_from_slice(values);
            }
        }
    }

    /// Packs the transpose; `column(n)` gives the `inputs` values of output `n`.
    pub(crate) fn pack_columns<'a>(
        &mut self,
        inputs: usize,
        outputs: usize,
        column: impl Fn(usize) -> &'a [f32],
    ) {
        self.reset(inputs, outputs);
        for n in 0..outputs {
            let panel = &mut self.columns[n / NR * inputs..][..inputs];
            for (slot, &value) in panel.iter_mut().zip(column(n)) {
                slot[n % NR] = value;
            }
        }
    }

    fn reset(&mut self, inputs: usize, outputs: usize) {
        (self.inputs, self.outputs) = (inputs, outputs);
        self.columns.clear();
        self.columns.resize(outputs.div_ceil(NR) * inputs, [0.0; NR]);
    }

    /// `c = finish(a B)` for every row of `a`.
    pub(crate) fn apply(&self, a: Strided<&[f32]>, rows: usize, c: Strided<&mut [f32]>, finish: Finish) {
        self.run(a, rows, c, None, finish);
    }

    fn run(
        &self,
        a: Strided<&[f32]>,
        rows: usize,
        c: Strided<&mut [f32]>,
        bias: Option<&[[f32; NR]]>,
        finish: Finish,
    ) {
        if rows == 0 || self.outputs == 0 {
            return;
        }
        pulp::Arch::new().dispatch(Product { b: self, a, rows, c, bias, finish });
    }
}

/// A fully connected layer, or a convolution of one pixel: `y = x W' + bias`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    panels: Panels,
    bias: Vec<[f32; NR]>,
}

impl Linear {
    /// Packs a weight `[outputs, inputs]`, the order in which PyTorch keeps it, and a bias `[outputs]`.
    pub(crate) fn new(weight: &[f32], bias: &[f32]) -> Self {
        let outputs = bias.len();
        let inputs = weight.len() / outputs.max(1);
        let mut panels = Panels::default();
        panels.pack_columns(inputs, outputs, |n| &weight[n * inputs..][..inputs]);
        let mut padded = vec![[0.0; NR]; outputs.div_ceil(NR)];
        for (slot, values) in padded.iter_mut().zip(bias.chunks(NR)) {
            slot[..values.len()].copy_from_slice(values);
        }
        Self { panels, bias: padded }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.panels.outputs
    }

    pub(crate) fn inputs(&self) -> usize {
        self.panels.inputs
    }

    /// `x` is `[rows, inputs]`, `y` `[rows, outputs]`.
    pub(crate) fn apply(&self, x: &[f32], y: &mut [f32], finish: Finish) {
        let (inputs, outputs) = (self.panels.inputs, self.panels.outputs);
        let rows = y.len() / outputs;
        let (x, y) = (Strided { data: x, stride: inputs }, Strided { data: y, stride: outputs });
        self.panels.run(x, rows, y, Some(&self.bias), finish);
    }
}

/// Rows that start `stride` values apart.
#[derive(Debug)]
pub(crate) struct Strided<T> {
    pub(crate) data: T,
    pub(crate) stride: usize,
}

struct Product<'a> {
    b: &'a Panels,
    a: Strided<&'a [f32]>,
    rows: usize,
    c: Strided<&'a mut [f32]>,
    bias: Option<&'a [[f32; NR]]>,
    finish: Finish,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many rows a tile as the registers hold: 32 of 16 lanes, 16 of 8, 32 of 4.
        match S::F32_LANES {
            16 => self.run::<S, 1, 12>(simd),
            8 => self.run::<S, 2, 6>(simd),
            4 => self.run::<S, 4, 6>(simd),
            _ => self.run::<S, 16, 1>(simd),
        }
    }
}

impl Product<'_> {
    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn run<S: Simd, const V: usize, const MR: usize>(mut self, simd: S) {
        let (inputs, outputs) = (self.b.inputs, self.b.outputs);
        for first in (0..self.rows).step_by(ROWS) {
            let end = (first + ROWS).min(self.rows);
            let mut depth = 0;
            // An empty sum is still bias and activation, so that at least one pass runs.
            loop {
                let pass = DEPTH.min(inputs - depth);
                for p in 0..outputs.div_ceil(NR) {
                    let panel = &self.b.columns[p * inputs + depth..][..pass];
                    let mut row = first;
                    while row + MR <= end {
                        self.tile::<S, V, MR>(simd, row, p, depth, panel);
                        row += MR;
                    }
                    match end - row {
                        0 => {}
                        n if n >= 8 => {
                            self.tile::<S, V, 8>(simd, row, p, depth, panel);
                            self.rest::<S, V>(simd, row + 8, end, p, depth, panel);
                        }
                        _ => self.rest::<S, V>(simd, row, end, p, depth, panel),
                    }
                }
                depth += pass;
                if depth >= inputs {
                    break;
                }
            }
        }
    }

    /// Fewer than eight rows.
    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn rest<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        mut row: usize,
        end: usize,
        p: usize,
        depth: usize,
        panel: &[[f32; NR]],
    ) {
        if end - row >= 4 {
            self.tile::<S, V, 4>(simd, row, p, depth, panel);
            row += 4;
        }
        if end - row >= 2 {
            self.tile::<S, V, 2>(simd, row, p, depth, panel);
            row += 2;
        }
        if end > row {
            self.tile::<S, V, 1>(simd, row, p, depth, panel);
        }
    }

    /// `MR` rows and the columns of one panel, products `depth..depth + panel.len()`.
    #[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
    #[inline(always)]
    fn tile<S: Simd, const V: usize, const MR: usize>(
        &mut self,
        simd: S,
        row: usize,
        p: usize,
        depth: usize,
        panel: &[[f32; NR]],
    ) {
        let last = depth + panel.len() == self.b.inputs;
        let width = NR.min(self.b.outputs - p * NR);
        let a: [&[f32]; MR] =
            std::array::from_fn(|i| &self.a.data[(row + i) * self.a.stride + depth..][..panel.len()]);
        let mut acc = [[simd.splat_f32s(0.0); V]; MR];
        let corner = |i: usize| (row + i) * self.c.stride + p * NR;
        let bias = self.bias.map_or([simd.splat_f32s(0.0); V], |bias| load::<S, V>(&bias[p]));
        for (i, acc) in acc.iter_mut().enumerate() {
            *acc = bias;
            if depth > 0 || self.finish == Finish::Add {
                let old = partial::<S, V>(simd, &self.c.data[corner(i)..][..width]);
                for (x, old) in acc.iter_mut().zip(old) {
                    *x = if depth > 0 { old } else { simd.add_f32s(*x, old) };
                }
            }
        }
        for (k, b) in panel.iter().enumerate() {
            let b = load::<S, V>(b);
            for (acc, a) in acc.iter_mut().zip(&a) {
                let a = simd.splat_f32s(a[k]);
                for (x, b) in acc.iter_mut().zip(b) {
                    *x = simd.mul_add_e_f32s(a, b, *x);
                }
            }
        }
        let (zero, six) = (simd.splat_f32s(0.0), simd.splat_f32s(6.0));
        for (i, acc) in acc.iter_mut().enumerate() {
            if last && self.finish == Finish::Relu6 {
                for x in acc.iter_mut() {
                    *x = simd.min_f32s(simd.max_f32s(*x, zero), six);
                }
            }
            let out = &mut self.c.data[corner(i)..][..width];
            if width == NR {
                S::as_mut_simd_f32s(out).0[..V].copy_from_slice(acc);
            } else {
                let mut full = [0.0; NR];
                S::as_mut_simd_f32s(&mut full).0[..V].copy_from_slice(acc);
                out.copy_from_slice(&full[..width]);
            }
        }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
#[inline(always)]
fn load<S: Simd, const V: usize>(values: &[f32; NR]) -> [S::f32s; V] {
    let vectors = S::as_simd_f32s(values).0;
    std::array::from_fn(|v| vectors[v])
}

#[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
#[inline(always)]
fn partial<S: Simd, const V: usize>(_simd: S, values: &[f32]) -> [S::f32s; V] {
    if let Ok(full) = <&[f32; NR]>::try_from(values) {
        return load::<S, V>(full);
    }
    let mut full = [0.0; NR];
    full[..values.len()].copy_from_slice(values);
    load::<S, V>(&full)
}
