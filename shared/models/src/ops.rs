//! Tensor operations of the language model with two roads: fused loops over host memory on the CPU backend
//! ([`crate::kernels`]), burn's own operations on any other device. Gradients are written by hand beside each
//! operation, since a frozen base needs few of them and a graph would keep what nobody reads.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::kernels::{self, Heads, Rotary};

/// A product of so few rows takes as long as reading the weight, and burn's runs it on one core: its parts run side by side.
const FEW_ROWS: usize = 4;
/// Up to so many rows it is worth a tenth to a third of the time to have the weight on the left, where it is read as it lies: on the
/// right it is packed anew for every product.
const SOME_ROWS: usize = 64;
/// Values of a weight that are worth a thread.
const PART: usize = 1 << 16;

/// True where a tensor's memory is the host's.
pub(crate) fn on_host<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.device() == Device::flex()
}

/// A tensor on a device.
pub(crate) fn tensor<const D: usize>(data: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data, shape), device)
}

/// Indices on a device.
pub(crate) fn indices(values: &[u32], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.iter().map(|value| i64::from(*value)).collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

/// The values, in host memory; without a copy where they are there and nobody else holds them.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data();
    data.try_into_vec_as::<f32>().unwrap_or_default()
}

/// `x W'`: `x` `[n, in]`, `w` `[out, in]`.
pub(crate) fn linear(x: &Tensor<2>, w: &Tensor<2>) -> Tensor<2> {
    let ([rows, _], [outputs, inputs]) = (x.dims(), w.dims());
    let parts = rayon::current_num_threads().min(outputs * inputs / PART);
    if parts == 0 || rows > SOME_ROWS || !on_host(x) {
        return x.clone().matmul(w.clone().transpose());
    }
    if parts == 1 || rows > FEW_ROWS {
        let turned = w.clone().matmul(x.clone().transpose()).transpose();
        return tensor(host(turned), [rows, outputs], &x.device());
    }
    let height = outputs.div_ceil(parts);
    let part = |from: usize| {
        let part = w.clone().slice([from..(from + height).min(outputs), 0..inputs]);
        x.clone().matmul(part.transpose())
    };
    let starts: Vec<usize> = (0..outputs).step_by(height).collect();
    Tensor::cat(starts.into_par_iter().map(part).collect(), 1)
}

/// RMSNorm over rows (Zhang and Sennrich 2019, arXiv 1910.07467).
pub(crate) fn rms_norm(x: &Tensor<2>, weight: &Tensor<1>, eps: f64) -> Tensor<2> {
    if on_host(x) {
        let (shape, device) = (x.dims(), x.device());
        let mut rows = host(x.clone());
        kernels::rms_norm(&mut rows, &host(weight.clone()), eps as f32);
        return tensor(rows, shape, &device);
    }
    let scale = x.clone().square().mean_dim(1).add_scalar(eps).sqrt().recip();
    x.clone() * scale * weight.clone().unsqueeze()
}

/// Gradient of [`rms_norm`] with respect to `x` under `dy`, plus `residual`.
pub(crate) fn rms_norm_backward(
    dy: Tensor<2>,
    x: &Tensor<2>,
    weight: &Tensor<1>,
    eps: f64,
    residual: &Tensor<2>,
) -> Tensor<2> {
    if on_host(x) {
        let (shape, device) = (x.dims(), x.device());
        let mut dx = host(dy);
        let (x, weight) = (host(x.clone()), host(weight.clone()));
        kernels::rms_norm_backward(&mut dx, &x, &weight, eps as f32, &host(residual.clone()));
        return tensor(dx, shape, &device);
    }
    let d = x.dims()[1] as f64;
    let scale = x.clone().square().mean_dim(1).add_scalar(eps).sqrt().recip();
    let dy = dy * weight.clone().unsqueeze();
    let along = (dy.clone() * x.clone()).sum_dim(1).div_scalar(d) * scale.clone().powi_scalar(3);
    dy * scale - x.clone() * along + residual.clone()
}

/// Splits `[batch * length, heads * dim]` into `[batch * kv, group * length, dim]`, rotated by position.
pub(crate) fn split_heads(rows: Tensor<2>, heads: Heads, rotary: Option<&Rotary>) -> Tensor<3> {
    let Heads { batch, length, kv, group, dim } = heads;
    let shape = [batch * kv, group * length, dim];
    let device = rows.device();
    if on_host(&rows) {
        return tensor(kernels::split_heads(&host(rows), heads, rotary), shape, &device);
    }
    let split = rows.reshape([batch, length, kv, group, dim]).permute([0, 2, 3, 1, 4]);
    let split = match rotary {
        Some(rotary) => turn(split.reshape([batch * kv * group, length, dim]), rotary, 1.0),
        None => split.reshape([batch * kv * group, length, dim]),
    };
    split.reshape(shape)
}

/// The reverse of [`split_heads`] and its gradient.
pub(crate) fn merge_heads(split: Tensor<3>, heads: Heads, rotary: Option<&Rotary>) -> Tensor<2> {
    let Heads { batch, length, kv, group, dim } = heads;
    let shape = [batch * length, heads.width()];
    let device = split.device();
    if on_host(&split) {
        return tensor(kernels::merge_heads(&host(split), heads, rotary), shape, &device);
    }
    let split = split.reshape([batch * kv * group, length, dim]);
    let split = match rotary {
        Some(rotary) => turn(split, rotary, -1.0),
        None => split,
    };
    split.reshape([batch, kv, group, length, dim]).permute([0, 3, 1, 2, 4]).reshape(shape)
}

/// Rotary positions by burn's operations: `[any, length, dim]`.
fn turn(heads: Tensor<3>, rotary: &Rotary, direction: f64) -> Tensor<3> {
    let ([any, length, dim], half, device) = (heads.dims(), rotary.half, heads.device());
    let table = |values: &[f32]| tensor(values[..length * half].to_vec(), [1, length, half], &device);
    let (cos, sin) = (table(&rotary.cos), table(&rotary.sin).mul_scalar(direction));
    let low = heads.clone().slice([0..any, 0..length, 0..half]);
    let high = heads.slice([0..any, 0..length, half..dim]);
    let turned_low = low.clone() * cos.clone() - high.clone() * sin.clone();
    Tensor::cat(vec![turned_low, high * cos + low * sin], 2)
}

/// Causal attention weights: `q` `[any, group * length, dim]`, `k` `[any, length, dim]`; gives
/// `[any, group * length, length]`.
pub(crate) fn attention_weights(q: &Tensor<3>, k: &Tensor<3>, heads: Heads) -> Tensor<3> {
    let Heads { length, group, dim, .. } = heads;
    let scale = 1.0 / (dim as f32).sqrt();
    let scores = q.clone().matmul(k.clone().transpose());
    let device = scores.device();
    if on_host(&scores) {
        let shape = scores.dims();
        let mut scores = host(scores);
        kernels::causal_softmax(&mut scores, length, scale);
        return tensor(scores, shape, &device);
    }
    let later = (0..group * length)
        .flat_map(|row| (0..length).map(move |column| f32::from(u8::from(column > row % length)) * -1e9))
        .collect();
    let later = tensor(later, [1, group * length, length], &device);
    burn::tensor::activation::softmax(scores.mul_scalar(scale) + later, 2)
}

/// Gradient of [`attention_weights`] with respect to the products `q k'`, under `dp`.
pub(crate) fn attention_weights_backward(dp: Tensor<3>, p: &Tensor<3>, heads: Heads) -> Tensor<3> {
    let scale = 1.0 / (heads.dim as f32).sqrt();
    let device = dp.device();
    if on_host(&dp) {
        let shape = dp.dims();
        let mut dp = host(dp);
        kernels::softmax_backward(&mut dp, &host(p.clone()), heads.length, scale);
        return tensor(dp, shape, &device);
    }
    let mean = (dp.clone() * p.clone()).sum_dim(2);
    p.clone() * (dp - mean).mul_scalar(scale)
}

/// `silu(gate) * up`.
pub(crate) fn swiglu(gate: &Tensor<2>, up: &Tensor<2>) -> Tensor<2> {
    let device = gate.device();
    if on_host(gate) {
        let shape = gate.dims();
        let mut gate = host(gate.clone());
        kernels::swiglu(&mut gate, &host(up.clone()));
        return tensor(gate, shape, &device);
    }
    burn::tensor::activation::silu(gate.clone()) * up.clone()
}

/// Gradients of [`swiglu`] with respect to gate and up.
pub(crate) fn swiglu_backward(dh: Tensor<2>, gate: Tensor<2>, up: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let device = gate.device();
    if on_host(&gate) {
        let shape = gate.dims();
        let (mut gate, mut up) = (host(gate), host(up));
        kernels::swiglu_backward(&host(dh), &mut gate, &mut up);
        return (tensor(gate, shape, &device), tensor(up, shape, &device));
    }
    let s = burn::tensor::activation::sigmoid(gate.clone());
    let d_up = dh.clone() * gate.clone() * s.clone();
    let slope = s.clone() * (gate * s.neg().add_scalar(1.0)).add_scalar(1.0);
    (dh * up * slope, d_up)
}

/// Log-probabilities of `targets` under `logits` `[n, vocab]`, and the gradient of `-weight * log p`.
pub(crate) fn cross_entropy(logits: Tensor<2>, targets: &[u32], weights: &[f32]) -> (Vec<f32>, Tensor<2>) {
    let (device, [n, vocab]) = (logits.device(), logits.dims());
    if on_host(&logits) {
        let mut logits = host(logits);
        let log_p = kernels::cross_entropy(&mut logits, targets, weights);
        return (log_p, tensor(logits, [n, vocab], &device));
    }
    let index = indices(targets, &device).reshape([n, 1]);
    let log_softmax = burn::tensor::activation::log_softmax(logits, 1);
    let log_p = host(log_softmax.clone().gather(1, index.clone()));
    let onehot = Tensor::<2>::zeros([n, vocab], &device).scatter(
        1,
        index,
        Tensor::ones([n, 1], &device),
        burn::tensor::IndexingUpdateOp::Add,
    );
    let weights = tensor(weights.to_vec(), [n, 1], &device);
    (log_p, (log_softmax.exp() - onehot) * weights)
}
