//! Inner loops of the frozen networks on the CPU: products with packed weights, depthwise convolution, GELU, softmax,
//! layer normalisation.
//!
//! Frozen networks need no gradients, so nothing here knows tensors: slices go in and out, weights are packed once when a
//! model is loaded, and bias and activation are applied while a tile is still in registers. Everything is single-threaded;
//! the callers run records side by side.
//!
//! Claim: a row of a result has the same bits whatever rows stand beside it. Why it holds: every element takes its
//! products one after the other in the order of `k` through one accumulator, the vectors run over columns alone, and no
//! choice depends on the number of rows. Test: `inference::tests`, `extractor::tests`.

mod depthwise;
mod elementwise;
mod product;

pub(crate) use depthwise::Depthwise;
pub(crate) use elementwise::{gelu, layer_norm, softmax};
pub(crate) use product::{Finish, Linear, Panels, Strided};

#[cfg(test)]
mod tests;
