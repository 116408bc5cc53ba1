//! The network as operations of burn, for every other device.

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};

use super::{Block, Conv, Weights, same};
use crate::ModelError;
use crate::extractor::read_back;

/// The network's weights on a device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceNet {
    device: Device,
    stem: DeviceConv,
    blocks: Vec<DeviceBlock>,
    head: DeviceConv,
}

#[derive(Clone, Debug)]
struct DeviceBlock {
    expand: Option<DeviceConv>,
    depthwise: DeviceConv,
    project: DeviceConv,
    residual: bool,
}

#[derive(Clone, Debug)]
struct DeviceConv {
    weight: Tensor<4>,
    bias: Tensor<1>,
    side: usize,
    stride: usize,
    groups: usize,
}

impl DeviceNet {
    pub(crate) fn new(weights: &Weights, device: &Device) -> Self {
        let conv = |conv: &Conv| DeviceConv::new(conv, device);
        let block = |block: &Block| DeviceBlock {
            expand: block.expand.as_ref().map(conv),
            depthwise: conv(&block.depthwise),
            project: conv(&block.project),
            residual: block.residual,
        };
        Self {
            device: device.clone(),
            stem: conv(&weights.stem),
            blocks: weights.blocks.iter().map(block).collect(),
            head: conv(&weights.head),
        }
    }

    /// Images `[n, size, size, 3]` to features `[n, dim]`.
    pub(crate) fn forward(&self, images: Vec<f32>, n: usize, size: usize) -> Result<Vec<f32>, ModelError> {
        let x = Tensor::<4>::from_data(TensorData::new(images, [n, size, size, 3]), &self.device);
        let mut x = self.stem.forward(x.permute([0, 3, 1, 2])).clamp(0.0, 6.0);
        for block in &self.blocks {
            x = block.forward(x);
        }
        let x = self.head.forward(x).clamp(0.0, 6.0);
        read_back(x.mean_dims(&[2, 3]))
    }
}

impl DeviceBlock {
    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let mut x = input.clone();
        if let Some(expand) = &self.expand {
            x = expand.forward(x).clamp(0.0, 6.0);
        }
        let x = self.project.forward(self.depthwise.forward(x).clamp(0.0, 6.0));
        if self.residual { x + input } else { x }
    }
}

impl DeviceConv {
    fn new(conv: &Conv, device: &Device) -> Self {
        let shape = [conv.outputs, conv.inputs / conv.groups, conv.side, conv.side];
        Self {
            weight: Tensor::from_data(TensorData::new(conv.weight.clone(), shape), device),
            bias: Tensor::from_data(TensorData::new(conv.bias.clone(), [conv.outputs]), device),
            side: conv.side,
            stride: conv.stride,
            groups: conv.groups,
        }
    }

    /// `[n, inputs, h, w]` to `[n, outputs, ceil(h / stride), ceil(w / stride)]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let pad = |size: usize| {
            let (out, front) = same(size, self.side, self.stride);
            (front, ((out - 1) * self.stride + self.side).saturating_sub(size + front))
        };
        let options =
            ConvOptions::new_with_padding([self.stride; 2], [pad(height), pad(width)], [1; 2], self.groups);
        conv2d(x, self.weight.clone(), Some(self.bias.clone()), options)
    }
}
