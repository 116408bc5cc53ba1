//! EfficientNet-Lite0 (Tan and Le 2019; Lite: Liu 2020): mobile inverted bottlenecks without squeeze-and-excitation.
//!
//! ```text
//! [n, S, S, 3] ─ stem 3x3/2 ─► 16 blocks ─ head 1x1 ─► [n, S/32, S/32, 1280] ─ mean ─► features [n, 1280] ─ fc ─► [n, 1000]
//! block: expand 1x1 ─► depthwise k x k ─► project 1x1 (+ input where the shape stays)
//! ```
//!
//! ReLU6 behind stem, expand, depthwise and head. Padding is TensorFlow's SAME: the output has `ceil(size / stride)`
//! pixels, and an odd number of padded pixels puts the extra one behind. Batch normalisation (epsilon 1e-3) is folded into
//! the convolution before it when the weights are loaded. Input: (x - 127) / 128.

mod host;
mod tensors;

use crate::ModelError;
use crate::weights::TensorMap;

pub(crate) use host::HostNet;
pub(crate) use tensors::DeviceNet;

/// What is taken from a pixel, and what it is then divided by.
pub(crate) const MEAN: f32 = 127.0;
pub(crate) const DEVIATION: f32 = 128.0;
const EPSILON: f32 = 1e-3;

/// A row of the paper's table 1: `repeats` blocks, the first of which has the stride.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Blocks.
    pub repeats: usize,
    /// Side of the depthwise filter.
    pub kernel: usize,
    /// Stride of the first block.
    pub stride: usize,
    /// Channels of the expansion over channels in.
    pub expand: usize,
    /// Channels out.
    pub channels: usize,
}

/// The shape of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Channels of the stem.
    pub stem: usize,
    /// The stages.
    pub stages: Vec<Stage>,
    /// Features.
    pub head: usize,
    /// Classes of the classifier that came with the weights.
    pub classes: usize,
}

impl Config {
    /// EfficientNet-Lite0 of ImageNet.
    pub fn lite0() -> Self {
        let stage =
            |repeats, kernel, stride, expand, channels| Stage { repeats, kernel, stride, expand, channels };
        Self {
            stem: 32,
            stages: vec![
                stage(1, 3, 1, 1, 16),
                stage(2, 3, 2, 6, 24),
                stage(2, 5, 2, 6, 40),
                stage(3, 3, 2, 6, 80),
                stage(3, 5, 1, 6, 112),
                stage(4, 5, 2, 6, 192),
                stage(1, 3, 1, 6, 320),
            ],
            head: 1280,
            classes: 1000,
        }
    }
}

/// A convolution with its batch normalisation folded in.
#[derive(Clone, Debug)]
pub(crate) struct Conv {
    /// `[outputs, inputs / groups, side, side]`
    pub(crate) weight: Vec<f32>,
    /// `[outputs]`
    pub(crate) bias: Vec<f32>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) side: usize,
    pub(crate) stride: usize,
    pub(crate) groups: usize,
}

/// An inverted bottleneck.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) expand: Option<Conv>,
    pub(crate) depthwise: Conv,
    pub(crate) project: Conv,
    /// Whether the input is added to the output.
    pub(crate) residual: bool,
}

/// The weights on the host, as loaded.
#[derive(Clone, Debug)]
pub struct Weights {
    pub(crate) stem: Conv,
    pub(crate) blocks: Vec<Block>,
    pub(crate) head: Conv,
    /// `[classes, head]`
    pub(crate) classifier: Vec<f32>,
    /// `[classes]`
    pub(crate) classifier_bias: Vec<f32>,
}

/// Pixels of an output under SAME padding, and how many are padded in front.
pub(crate) fn same(size: usize, side: usize, stride: usize) -> (usize, usize) {
    let out = size.div_ceil(stride);
    (out, ((out - 1) * stride + side).saturating_sub(size) / 2)
}

impl Weights {
    /// Takes the network out of a file's arrays, by the names of the published PyTorch checkpoint.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] where an array is missing, misshapen or not finite.
    pub fn take(tensors: &mut TensorMap, config: &Config) -> Result<Self, ModelError> {
        let mut file = File(tensors);
        let stem = file.conv("_conv_stem", "_bn0", [3, config.stem], 3, 2, 1)?;
        let mut blocks = Vec::new();
        let mut inputs = config.stem;
        for stage in &config.stages {
            for repeat in 0..stage.repeats {
                let stride = if repeat == 0 { stage.stride } else { 1 };
                let wide = inputs * stage.expand;
                let at = |part: &str| format!("_blocks.{}.{part}", blocks.len());
                let expand = if stage.expand > 1 {
                    Some(file.conv(&at("_expand_conv"), &at("_bn0"), [inputs, wide], 1, 1, 1)?)
                } else {
                    None
                };
                let depthwise =
                    file.conv(&at("_depthwise_conv"), &at("_bn1"), [wide, wide], stage.kernel, stride, wide)?;
                let project =
                    file.conv(&at("_project_conv"), &at("_bn2"), [wide, stage.channels], 1, 1, 1)?;
                let residual = stride == 1 && inputs == stage.channels;
                blocks.push(Block { expand, depthwise, project, residual });
                inputs = stage.channels;
            }
        }
        let head = file.conv("_conv_head", "_bn1", [inputs, config.head], 1, 1, 1)?;
        let classifier = file.0.take("_fc.weight", &[config.classes, config.head])?.data;
        let classifier_bias = file.0.take("_fc.bias", &[config.classes])?.data;
        Ok(Self { stem, blocks, head, classifier, classifier_bias })
    }

    /// Features of an image.
    pub fn dim(&self) -> usize {
        self.head.outputs
    }

    /// Classes of the classifier.
    pub fn classes(&self) -> usize {
        self.classifier_bias.len()
    }

    /// The classifier on one image's features `[dim]`: a logit for each class. It shows that a network is loaded right;
    /// nothing is trained on it.
    pub fn logits(&self, features: &[f32]) -> Vec<f32> {
        let dot = |row: &[f32]| row.iter().zip(features).map(|(w, x)| w * x).sum::<f32>();
        self.classifier
            .chunks_exact(self.dim())
            .zip(&self.classifier_bias)
            .map(|(row, b)| dot(row) + b)
            .collect()
    }
}

struct File<'a>(&'a mut TensorMap);

impl File<'_> {
    /// A convolution and the batch normalisation behind it, as one: `w' = w gamma / sqrt(var + eps)`.
    fn conv(
        &mut self,
        conv: &str,
        norm: &str,
        [inputs, outputs]: [usize; 2],
        side: usize,
        stride: usize,
        groups: usize,
    ) -> Result<Conv, ModelError> {
        let shape = [outputs, inputs / groups, side, side];
        let mut weight = self.0.take(&format!("{conv}.weight"), &shape)?.data;
        let mut part = |name: &str| self.0.take(&format!("{norm}.{name}"), &[outputs]).map(|t| t.data);
        let (gamma, beta) = (part("weight")?, part("bias")?);
        let (mean, variance) = (part("running_mean")?, part("running_var")?);
        if let Some(bad) = variance.iter().find(|&&v| v < 0.0) {
            let reason = format!("holds the variance {bad}; the weights are damaged");
            return Err(ModelError::Tensor { name: format!("{norm}.running_var"), reason });
        }
        let scale: Vec<f32> = gamma.iter().zip(&variance).map(|(g, v)| g / (v + EPSILON).sqrt()).collect();
        for (filter, scale) in weight.chunks_exact_mut(shape[1] * side * side).zip(&scale) {
            filter.iter_mut().for_each(|w| *w *= scale);
        }
        let bias = (0..outputs).map(|i| beta[i] - mean[i] * scale[i]).collect();
        Ok(Conv { weight, bias, inputs, outputs, side, stride, groups })
    }
}
