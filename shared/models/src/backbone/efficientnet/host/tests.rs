//! Blocks against PyTorch's: `tests/fixtures/torch_parts`, made by `tests/reference/efficientnet.py`.

use std::path::Path;

use super::*;
use crate::{
    backbone::efficientnet::File,
    weights::{HostTensor, TensorMap, safetensors},
};

fn parts() -> TensorMap {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch_parts");
    safetensors::read(&folder.join("parts.safetensors")).expect("a fixture")
}

/// `[n, channels, size, size]` to `[n, size, size, channels]`.
fn channels_last(tensor: &HostTensor) -> Vec<f32> {
    let [n, channels, size, width] = tensor.shape[..] else { panic!("not images: {:?}", tensor.shape) };
    assert_eq!(size, width);
    let area = size * size;
    let at = |i: usize| i / (area * channels) * channels * area + i % channels * area + i / channels % area;
    (0..n * area * channels).map(|i| tensor.data[at(i)]).collect()
}

/// An inverted bottleneck of the fixture: 4 channels in, the wide ones, the ones out, side and stride of its filter.
fn check(name: &str, [wide, outputs, side, stride]: [usize; 4]) {
    const INPUTS: usize = 4;
    let mut tensors = parts();
    let (input, output) = (
        tensors.0.remove(&format!("block.{name}.input")).expect("an input"),
        tensors.0.remove(&format!("block.{name}.output")).expect("an output"),
    );
    let mut file = File(&mut tensors);
    let at = |part: &str| format!("block.{name}.{part}");
    let mut conv = |conv: &str, norm: &str, channels, side, stride, groups| {
        file.conv(&at(conv), &at(norm), channels, side, stride, groups).expect("whole weights")
    };
    let block = Block {
        expand: (wide != INPUTS).then(|| conv("_expand_conv", "_bn0", [INPUTS, wide], 1, 1, 1)),
        depthwise: conv("_depthwise_conv", "_bn1", [wide, wide], side, stride, wide),
        project: conv("_project_conv", "_bn2", [wide, outputs], 1, 1, 1),
        residual: stride == 1 && outputs == INPUTS,
    };
    let x = Activations { data: channels_last(&input), n: input.shape[0], size: input.shape[2] };
    let y = HostBlock::new(&block).forward(&x, Vec::new(), &mut Scratch::default());
    let wanted = channels_last(&output);
    assert_eq!((y.size, y.data.len()), (output.shape[2], wanted.len()));
    let off = y.data.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    assert!(off < 1e-5, "{name}: {off}");
}

#[test]
fn a_block_with_a_residual_is_the_reference_s() {
    check("skip", [24, 4, 3, 1]);
}

#[test]
fn a_block_that_halves_the_image_is_the_reference_s() {
    check("down", [24, 6, 5, 2]);
}

#[test]
fn a_block_without_expansion_is_the_reference_s() {
    check("first", [4, 4, 3, 1]);
}
