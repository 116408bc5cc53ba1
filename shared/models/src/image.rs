//! Pictures, and how they become the input of a backbone.

use crate::ModelError;

/// The longest side of a picture or of a model's input that is taken.
pub const MAX_SIDE: usize = 16_384;

/// A picture of 8-bit red, green and blue.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[height, width, 3]`, row-major.
    pub rgb: &'a [u8],
}

impl Image<'_> {
    /// Refuses a picture without pixels, one larger than [`MAX_SIDE`], and one whose bytes are not `height width 3`.
    ///
    /// # Errors
    /// [`ModelError::Input`].
    pub fn check(&self) -> Result<(), ModelError> {
        let Self { height, width, rgb } = *self;
        if height == 0 || width == 0 {
            return Err(ModelError::Input(format!(
                "an image of {height} x {width} has no pixels; leave the record out"
            )));
        }
        if height > MAX_SIDE || width > MAX_SIDE {
            return Err(ModelError::Input(format!(
                "an image of {height} x {width}: at most {MAX_SIDE} pixels a side are taken; shrink it first"
            )));
        }
        if rgb.len() != height * width * 3 {
            return Err(ModelError::Input(format!(
                "an image of {height} x {width} needs {} bytes of RGB and has {}; grey images must be repeated three times",
                height * width * 3,
                rgb.len()
            )));
        }
        Ok(())
    }
}

/// One axis of a resize: for each output pixel the first input pixel and the weights from there on.
struct Axis(Vec<(usize, Vec<f32>)>);

impl Axis {
    /// The triangle filter with half-pixel centres, widened when shrinking so that every input pixel counts (what
    /// Pillow's BILINEAR and PyTorch's `interpolate(mode="bilinear", antialias=True)` do); plain bilinear when enlarging.
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let reach = scale.max(1.0);
        Self(
            (0..to)
                .map(|i| {
                    let centre = (i as f64 + 0.5) * scale;
                    let first = ((centre - reach + 0.5).max(0.0)) as usize;
                    let end = (((centre + reach + 0.5).max(0.0)) as usize).min(from).max(first + 1);
                    let weights: Vec<f64> = (first..end)
                        .map(|j| (1.0 - ((j as f64 + 0.5 - centre) / reach).abs()).max(0.0))
                        .collect();
                    let total: f64 = weights.iter().sum();
                    (first, weights.iter().map(|w| (w / total) as f32).collect())
                })
                .collect(),
        )
    }
}

/// Resizes to `size` by `size` and writes `(x - mean) / deviation` as `[size, size, 3]` to `out`.
///
/// The aspect is not kept: the whole picture is always seen. Values are not rounded back to 8 bits in between.
pub(crate) fn normalised(image: &Image<'_>, size: usize, mean: f32, deviation: f32, out: &mut [f32]) {
    let Image { height, width, rgb } = *image;
    if (height, width) == (size, size) {
        for (x, &byte) in out.iter_mut().zip(rgb) {
            *x = (f32::from(byte) - mean) / deviation;
        }
        return;
    }
    let (rows, columns) = (Axis::new(height, size), Axis::new(width, size));
    // Across first, one row of the picture at a time.
    let mut narrow = vec![0.0_f32; height * size * 3];
    for (from, to) in rgb.chunks_exact(width * 3).zip(narrow.chunks_exact_mut(size * 3)) {
        for ((first, weights), to) in columns.0.iter().zip(to.as_chunks_mut::<3>().0) {
            for (pixel, weight) in from[first * 3..].as_chunks::<3>().0.iter().zip(weights) {
                for (x, &byte) in to.iter_mut().zip(pixel) {
                    *x += f32::from(byte) * weight;
                }
            }
        }
    }
    for ((first, weights), to) in rows.0.iter().zip(out.chunks_exact_mut(size * 3)) {
        to.fill(0.0);
        for (from, weight) in narrow[first * size * 3..].chunks_exact(size * 3).zip(weights) {
            for (x, from) in to.iter_mut().zip(from) {
                *x += from * weight;
            }
        }
        for x in to {
            *x = (*x - mean) / deviation;
        }
    }
}

#[cfg(test)]
mod tests;
