//! GELU, softmax and layer normalisation over slices; plain loops that the compiler turns into vectors.

use crate::kernels::exp;

const LANES: usize = 16;

/// `x / 2 (1 + erf(x / sqrt 2))`, in place; within 3e-7 of the exact value.
pub(crate) fn gelu(x: &mut [f32]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for x in x {
                *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
            }
        },
    );
}

/// Softmax over each row of `[rows, columns]`, in place.
pub(crate) fn softmax(x: &mut [f32], columns: usize) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for row in x.chunks_exact_mut(columns) {
                let top = reduce(row, f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
                for x in row.iter_mut() {
                    *x = exp(*x - top);
                }
                let scale = 1.0 / reduce(row, 0.0, |a, b| a + b);
                for x in row.iter_mut() {
                    *x *= scale;
                }
            }
        },
    );
}

/// `(x - mean) / sqrt(variance + epsilon) weight + bias` over each row of `[rows, weight.len()]`, in place.
pub(crate) fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let n = weight.len();
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for row in x.chunks_exact_mut(n) {
                let mean = reduce(row, 0.0, |a, b| a + b) / n as f32;
                for x in row.iter_mut() {
                    *x -= mean;
                }
                let variance = reduce(row, 0.0, |a, b| a + b * b) / n as f32;
                let scale = 1.0 / (variance + epsilon).sqrt();
                for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                    *x = *x * scale * weight + bias;
                }
            }
        },
    );
}

/// Folds a row in [`LANES`] strands, then the strands in order: an order that depends on the row's length alone.
#[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
#[inline(always)]
fn reduce(row: &[f32], start: f32, fold: impl Fn(f32, f32) -> f32) -> f32 {
    let mut strands = [start; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for chunk in whole {
        for (strand, &x) in strands.iter_mut().zip(chunk) {
            *strand = fold(*strand, x);
        }
    }
    for (strand, &x) in strands.iter_mut().zip(rest) {
        *strand = fold(*strand, x);
    }
    let mut total = strands[0];
    for &strand in &strands[1..] {
        // The strands of a sum of squares are sums already: squaring them again would be wrong.
        total = if start == 0.0 { total + strand } else { fold(total, strand) };
    }
    total
}

/// The error function; absolute error under 2e-7. A rational minimax fit of x on [-4, 4] (the one of Eigen).
#[expect(clippy::inline_always, reason = "must be compiled with the features of the dispatch around it")]
#[expect(clippy::excessive_precision, reason = "the published coefficients")]
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = if x > 4.0 { 4.0 } else { x };
    let x = if x < -4.0 { -4.0 } else { x };
    let s = x * x;
    let mut p = -2.72614225801306e-10;
    for c in [
        2.77068142495902e-08,
        -2.10102402082508e-06,
        -5.69250639462346e-05,
        -7.34990630326855e-04,
        -2.95459980854025e-03,
        -1.60960333262415e-02,
    ] {
        p = p * s + c;
    }
    let mut q = -1.45660718464996e-05;
    for c in [-2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02] {
        q = q * s + c;
    }
    x * p / q
}
