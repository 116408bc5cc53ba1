//! The encoder as operations of burn, for every other device.

use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{Config, Dense, Norm, Weights};
use crate::ModelError;
use crate::extractor::read_back;

/// The encoder's weights on a device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceEncoder {
    device: Device,
    config: Config,
    words: Tensor<2>,
    positions: Tensor<2>,
    norm: DeviceNorm,
    layers: Vec<DeviceLayer>,
}

#[derive(Clone, Debug)]
struct DeviceLayer {
    qkv: DeviceDense,
    out: DeviceDense,
    attention_norm: DeviceNorm,
    up: DeviceDense,
    down: DeviceDense,
    norm: DeviceNorm,
}

/// The weight is transposed when it is loaded, `[inputs, outputs]`: a product with a view would copy it each time.
#[derive(Clone, Debug)]
struct DeviceDense {
    weight: Tensor<2>,
    bias: Tensor<2>,
}

#[derive(Clone, Debug)]
struct DeviceNorm {
    weight: Tensor<2>,
    bias: Tensor<2>,
    epsilon: f64,
}

impl DeviceEncoder {
    pub(crate) fn new(weights: &Weights, device: &Device) -> Self {
        let config = weights.config.clone();
        let table = |data: &[f32]| {
            let rows = data.len() / config.hidden_size;
            Tensor::from_data(TensorData::new(data.to_vec(), [rows, config.hidden_size]), device)
        };
        let dense = |dense: &Dense| DeviceDense::new(dense, device);
        let norm = |norm: &Norm| DeviceNorm::new(norm, config.layer_norm_eps, device);
        let layers = weights.layers.iter().map(|layer| DeviceLayer {
            qkv: dense(&layer.qkv),
            out: dense(&layer.out),
            attention_norm: norm(&layer.attention_norm),
            up: dense(&layer.up),
            down: dense(&layer.down),
            norm: norm(&layer.norm),
        });
        Self {
            device: device.clone(),
            words: table(&weights.words),
            positions: table(&weights.positions),
            norm: norm(&weights.norm),
            layers: layers.collect(),
            config,
        }
    }

    /// Texts of token ids, none empty, to features `[texts, hidden]`; padded to the longest, the padding masked out.
    pub(crate) fn forward(&self, texts: &[&[u32]]) -> Result<Vec<f32>, ModelError> {
        let (n, hidden) = (texts.len(), self.config.hidden_size);
        let length = texts.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let (mut ids, mut mask) = (vec![0_i32; n * length], vec![0.0_f32; n * length]);
        for (i, text) in texts.iter().enumerate() {
            for (t, &id) in text.iter().enumerate() {
                ids[i * length + t] = id as i32;
                mask[i * length + t] = 1.0;
            }
        }
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [n * length]), &self.device);
        let mask = Tensor::<3>::from_data(TensorData::new(mask, [n, length, 1]), &self.device);
        let positions = self.positions.clone().slice([0..length, 0..hidden]).unsqueeze::<3>();
        let x = self.words.clone().select(0, ids).reshape([n, length, hidden]) + positions;
        let mut x = self.norm.forward(x.reshape([n * length, hidden]));
        // 0 for a token, a large negative number for padding: its weight in the softmax is 0.
        let hide = (mask.clone() - 1.0).reshape([n, 1, 1, length]) * 1e9;
        for layer in &self.layers {
            let attended = self.attention(layer.qkv.forward(x.clone()), n, hide.clone());
            x = layer.attention_norm.forward(x + layer.out.forward(attended));
            let wide = gelu(layer.up.forward(x.clone()));
            x = layer.norm.forward(x + layer.down.forward(wide));
        }
        let sums = (x.reshape([n, length, hidden]) * mask.clone()).sum_dim(1).reshape([n, hidden]);
        let mean = sums / mask.sum_dim(1).reshape([n, 1]);
        let norm = mean.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
        read_back(mean / norm)
    }

    /// `qkv` is `[n length, 3 hidden]`, the result `[n length, hidden]`.
    fn attention(&self, qkv: Tensor<2>, n: usize, hide: Tensor<4>) -> Tensor<2> {
        let (rows, heads, dim) = (qkv.dims()[0], self.config.num_attention_heads, self.config.head_dim());
        let part = |i: usize| {
            let part = qkv.clone().slice([0..rows, i * heads * dim..(i + 1) * heads * dim]);
            part.reshape([n, rows / n, heads, dim]).swap_dims(1, 2)
        };
        let scores = part(0).matmul(part(1).swap_dims(2, 3)) + hide;
        softmax(scores, 3).matmul(part(2)).swap_dims(1, 2).reshape([rows, heads * dim])
    }
}

impl DeviceDense {
    fn new(dense: &Dense, device: &Device) -> Self {
        let outputs = dense.bias.len();
        let inputs = dense.weight.len() / outputs;
        let transposed =
            (0..inputs * outputs).map(|i| dense.weight[i % outputs * inputs + i / outputs]).collect();
        Self {
            weight: Tensor::from_data(TensorData::new::<f32, _>(transposed, [inputs, outputs]), device),
            bias: Tensor::from_data(TensorData::new(dense.bias.clone(), [1, outputs]), device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.clone()) + self.bias.clone()
    }
}

impl DeviceNorm {
    fn new(norm: &Norm, epsilon: f64, device: &Device) -> Self {
        let row = |data: &[f32]| Tensor::from_data(TensorData::new(data.to_vec(), [1, data.len()]), device);
        Self { weight: row(&norm.weight), bias: row(&norm.bias), epsilon }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let centred = x.clone() - x.mean_dim(1);
        let variance = centred.clone().powi_scalar(2).mean_dim(1);
        centred / (variance + self.epsilon).sqrt() * self.weight.clone() + self.bias.clone()
    }
}
