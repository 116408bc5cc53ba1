//! The network on the CPU: packed weights, channels last, a few image rows at a time.
//!
//! The expansion of a block is six times as wide as what goes in and out. It never exists as a whole for a large image: a
//! band of rows is expanded, filtered and projected while it lies in the second cache, and the rows that the next band
//! needs again are kept. Small images are done several at once instead, so that the weights are read once for all of them.

use super::{Block, Conv, Weights, same};
use crate::inference::{Depthwise, Finish, Linear};

/// Pixels that one product takes at least, where there are as many: below, reading the weights costs more than using them.
const PIXELS: usize = 64;

/// The network, packed.
#[derive(Clone, Debug)]
pub(crate) struct HostNet {
    stem: Linear,
    blocks: Vec<HostBlock>,
    head: Linear,
}

#[derive(Clone, Debug)]
struct HostBlock {
    expand: Option<(Linear, Finish)>,
    depthwise: Depthwise,
    project: Linear,
    residual: bool,
}

/// What a task needs besides its images, kept from one call to the next.
#[derive(Debug, Default)]
struct Scratch {
    wide: Vec<f32>,
    filtered: Vec<f32>,
    zeros: Vec<f32>,
}

/// Activations `[n, size, size, channels]`.
struct Activations {
    data: Vec<f32>,
    n: usize,
    size: usize,
}

/// Lengthens `x` to `length` at least and gives that much of it.
fn room(x: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if x.len() < length {
        x.resize(length, 0.0);
    }
    &mut x[..length]
}

/// The filters of a convolution of one pixel, with `inputs` and `outputs` filled up by zeros.
fn pointwise(conv: &Conv, inputs: usize, outputs: usize) -> Linear {
    let mut weight = vec![0.0; inputs * outputs];
    for (to, from) in weight.chunks_exact_mut(inputs).zip(conv.weight.chunks_exact(conv.inputs)) {
        to[..conv.inputs].copy_from_slice(from);
    }
    let mut bias = conv.bias.clone();
    bias.resize(outputs, 0.0);
    Linear::new(&weight, &bias)
}

impl HostNet {
    pub(crate) fn new(weights: &Weights) -> Self {
        let stem = &weights.stem;
        // [outputs, inputs, side, side] to [outputs, side, side, inputs]: the order of a patch.
        let (area, patch) = (stem.side * stem.side, stem.side * stem.side * stem.inputs);
        let filters = stem.weight.chunks_exact(patch);
        let filters = filters.flat_map(|f| (0..patch).map(|i| f[i % stem.inputs * area + i / stem.inputs]));
        Self {
            stem: Linear::new(&filters.collect::<Vec<_>>(), &stem.bias),
            blocks: weights.blocks.iter().map(HostBlock::new).collect(),
            head: pointwise(&weights.head, weights.head.inputs, weights.head.outputs),
        }
    }

    /// Images `[n, size, size, 3]` to features `[n, dim]`.
    pub(crate) fn forward(&self, images: &[f32], n: usize, size: usize, features: &mut [f32]) {
        let mut scratch = Scratch::default();
        let mut x = self.stem(images, n, size, &mut scratch);
        let mut spare = Vec::new();
        for block in &self.blocks {
            let y = block.forward(&x, std::mem::take(&mut spare), &mut scratch);
            spare = std::mem::replace(&mut x, y).data;
        }
        let (pixels, dim) = (x.size * x.size, self.head.outputs());
        let head = room(&mut scratch.wide, n * pixels * dim);
        self.head.apply(&x.data, head, Finish::Relu6);
        for (mean, image) in features.chunks_exact_mut(dim).zip(head.chunks_exact(pixels * dim)) {
            mean.fill(0.0);
            for pixel in image.chunks_exact(dim) {
                mean.iter_mut().zip(pixel).for_each(|(m, x)| *m += x);
            }
            mean.iter_mut().for_each(|m| *m /= pixels as f32);
        }
    }

    /// A 3 by 3 convolution of stride 2, as a product over patches, one row of output at a time.
    fn stem(&self, images: &[f32], n: usize, size: usize, scratch: &mut Scratch) -> Activations {
        const SIDE: usize = 3;
        let (out, front) = same(size, SIDE, 2);
        let (patch, channels) = (self.stem.inputs(), self.stem.outputs());
        let mut data = vec![0.0; n * out * out * channels];
        let patches = room(&mut scratch.wide, out * patch);
        for (image, output) in
            images.chunks_exact(size * size * 3).zip(data.chunks_exact_mut(out * out * channels))
        {
            for (y, row) in output.chunks_exact_mut(out * channels).enumerate() {
                for (x, patch) in patches.chunks_exact_mut(patch).enumerate() {
                    for (ky, line) in patch.chunks_exact_mut(SIDE * 3).enumerate() {
                        for (kx, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                            // Wraps to something large where the tap lies in front of the image.
                            let (y, x) = ((2 * y + ky).wrapping_sub(front), (2 * x + kx).wrapping_sub(front));
                            let inside = y < size && x < size;
                            *pixel = if inside {
                                std::array::from_fn(|c| image[(y * size + x) * 3 + c])
                            } else {
                                [0.0; 3]
                            };
                        }
                    }
                }
                self.stem.apply(patches, row, Finish::Relu6);
            }
        }
        Activations { data, n, size: out }
    }
}

impl HostBlock {
    fn new(block: &Block) -> Self {
        // The filter runs over whole vectors of channels.
        let depthwise = &block.depthwise;
        let wide = depthwise.outputs.next_multiple_of(16);
        let area = depthwise.side * depthwise.side;
        let (mut weight, mut bias) = (depthwise.weight.clone(), depthwise.bias.clone());
        weight.resize(wide * area, 0.0);
        bias.resize(wide, 0.0);
        let unit = |wide| {
            // Without an expansion, channels that are no multiple of a vector need one that only copies.
            let mut copy =
                Conv { weight: vec![0.0; depthwise.inputs * depthwise.inputs], ..depthwise.clone() };
            (0..depthwise.inputs).for_each(|i| copy.weight[i * depthwise.inputs + i] = 1.0);
            copy.bias.fill(0.0);
            pointwise(&copy, depthwise.inputs, wide)
        };
        let expand = match &block.expand {
            Some(expand) => Some((pointwise(expand, expand.inputs, wide), Finish::Relu6)),
            None => (wide != depthwise.inputs).then(|| (unit(wide), Finish::Store)),
        };
        Self {
            expand,
            depthwise: Depthwise::new(&weight, &bias, depthwise.side, depthwise.stride),
            project: pointwise(&block.project, wide, block.project.outputs),
            residual: block.residual,
        }
    }

    /// `y` is memory that may be used for the result.
    fn forward(&self, x: &Activations, mut y: Vec<f32>, scratch: &mut Scratch) -> Activations {
        let (out, _) = same(x.size, self.depthwise.side(), self.depthwise.stride());
        y.clear();
        if self.residual {
            y.extend_from_slice(&x.data);
        } else {
            y.resize(x.n * out * out * self.project.outputs(), 0.0);
        }
        let per_input = x.data.len() / x.n;
        let per_output = y.len() / x.n;
        let group = if x.size * x.size <= 2 * PIXELS { (2 * PIXELS / (out * out)).max(1) } else { 1 };
        for (x_group, y_group) in x.data.chunks(group * per_input).zip(y.chunks_mut(group * per_output)) {
            if x_group.len() > per_input {
                self.whole_images(x_group, y_group, x.size, scratch);
            } else {
                self.bands(x_group, y_group, x.size, scratch);
            }
        }
        Activations { data: y, n: x.n, size: out }
    }

    fn finish(&self) -> Finish {
        if self.residual { Finish::Add } else { Finish::Store }
    }

    /// Several small images at once.
    fn whole_images(&self, x: &[f32], y: &mut [f32], size: usize, scratch: &mut Scratch) {
        let Scratch { wide, filtered, zeros } = scratch;
        let (out, _) = same(size, self.depthwise.side(), self.depthwise.stride());
        let channels = self.project.inputs();
        let n = y.len() / (out * out * self.project.outputs());
        let wide = match &self.expand {
            Some((expand, finish)) => {
                let wide = room(wide, n * size * size * channels);
                expand.apply(x, wide, *finish);
                wide
            }
            None => x,
        };
        let filtered = room(filtered, n * out * out * channels);
        let images = wide.chunks_exact(size * size * channels);
        for (image, filtered) in images.zip(filtered.chunks_exact_mut(out * out * channels)) {
            self.filter(image, 0, size, 0, filtered, zeros);
        }
        self.project.apply(filtered, y, self.finish());
    }

    /// One image, a band of rows at a time.
    fn bands(&self, x: &[f32], y: &mut [f32], size: usize, scratch: &mut Scratch) {
        let Scratch { wide, filtered, zeros } = scratch;
        let (side, stride) = (self.depthwise.side(), self.depthwise.stride());
        let (out, front) = same(size, side, stride);
        let channels = self.project.inputs();
        let (line_in, line) = (x.len() / size, size * channels);
        let height = PIXELS.div_ceil(out).min(out);
        let wide = room(wide, if self.expand.is_some() { ((height - 1) * stride + side) * line } else { 0 });
        // Rows `have.0..have.1` of the image stand expanded at the start of `wide`.
        let mut have = (0, 0);
        for (band, y) in y.chunks_mut(height * out * self.project.outputs()).enumerate() {
            let top = band * height;
            let rows = y.len() / (out * self.project.outputs());
            let need =
                (top * stride).saturating_sub(front)..((top + rows - 1) * stride + side - front).min(size);
            let filtered = room(filtered, rows * out * channels);
            if let Some((expand, finish)) = &self.expand {
                wide.copy_within(
                    (need.start - have.0).min(have.1 - have.0) * line..(have.1 - have.0) * line,
                    0,
                );
                let start = have.1.max(need.start);
                let fresh = &mut wide[(start - need.start) * line..(need.end - need.start) * line];
                expand.apply(&x[start * line_in..need.end * line_in], fresh, *finish);
                have = (need.start, need.end);
                self.filter(&wide[..need.len() * line], need.start, size, top, filtered, zeros);
            } else {
                self.filter(&x[need.start * line..need.end * line], need.start, size, top, filtered, zeros);
            }
            self.project.apply(filtered, y, self.finish());
        }
    }

    /// Rows of the depthwise filter from output row `top` on, as many as `out` holds; `wide` holds the rows of an image
    /// of `size` rows from `first` on.
    fn filter(
        &self,
        wide: &[f32],
        first: usize,
        size: usize,
        top: usize,
        out: &mut [f32],
        zeros: &mut Vec<f32>,
    ) {
        let (side, stride) = (self.depthwise.side(), self.depthwise.stride());
        let (width_out, front) = same(size, side, stride);
        let line = size * self.project.inputs();
        let zeros: &[f32] = room(zeros, line);
        let mut rows = vec![zeros; side];
        for (y, out) in out.chunks_exact_mut(width_out * self.project.inputs()).enumerate() {
            for (k, row) in rows.iter_mut().enumerate() {
                let at = ((top + y) * stride + k).wrapping_sub(front);
                *row = if at < size { &wide[(at - first) * line..][..line] } else { zeros };
            }
            self.depthwise.row(&rows, front, out);
        }
    }
}

#[cfg(test)]
mod tests;
