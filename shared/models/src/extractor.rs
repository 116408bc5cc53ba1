//! Images and texts to features by a frozen network.
//!
//! ```text
//! Extractor::load("efficientnet-lite0", files, options, compute) ── images ──► [n, 1280]
//! Extractor::load("minilm-l6",          files, options, compute) ── texts  ──► [n, 384], of length 1
//! ```
//!
//! On the CPU the features of a record have the same bits whatever records stand beside it, and on however many threads
//! they are computed. On other devices they agree to rounding.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::backbone::efficientnet::{self, DeviceNet, HostNet};
use crate::encoder::minilm::{self, DeviceEncoder, HostEncoder, Tokens};
use crate::image::{Image, MAX_SIDE, normalised};
use crate::{Compute, ModelError, weights};

/// What a user may choose about an extractor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractorOptions {
    /// Images are resized to this many pixels a side; 0 is the model's own size, 224. At least 32.
    pub image_size: usize,
    /// Texts are cut to this many tokens, the two special ones counted; 0 is what the model's tokenizer says.
    pub max_tokens: usize,
}

/// A frozen network that is ready to run.
#[derive(Debug)]
pub struct Extractor {
    network: Network,
    dim: usize,
    backend: String,
}

#[derive(Debug)]
enum Network {
    Image { net: ImageNet, size: usize },
    Text { net: TextNet, tokens: Box<Tokens> },
}

#[derive(Debug)]
enum ImageNet {
    Host(HostNet),
    Device(DeviceNet),
}

#[derive(Debug)]
enum TextNet {
    Host(HostEncoder),
    Device(DeviceEncoder),
}

/// The size EfficientNet-Lite0 was trained on.
const OWN_SIZE: usize = 224;
/// The network halves an image five times.
const LEAST_SIZE: usize = 32;
/// Pixels a task on the CPU takes at least, so that the weights are read once for several small images.
const TASK_PIXELS: usize = 8 * 96 * 96;
/// Tokens a task on the CPU takes at least.
const TASK_TOKENS: usize = 256;
/// Images or texts that go to another device at once.
const DEVICE_BATCH: usize = 32;

impl Extractor {
    /// Loads `efficientnet-lite0` (role `weights`), `minilm-l6` (roles `weights`, `tokenizer`, and `config` where there
    /// is one) or another encoder of its kind, whose sizes its own `config` says, from files by their roles.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for another model, [`ModelError::Config`] for an option out of range, and what is wrong
    /// with the files.
    pub fn load(
        model: &str,
        files: &BTreeMap<String, PathBuf>,
        options: &ExtractorOptions,
        compute: &Compute,
    ) -> Result<Self, ModelError> {
        let file = |role: &'static str| {
            files.get(role).map(PathBuf::as_path).ok_or_else(|| ModelError::Config {
                option: "model",
                reason: format!(
                    "{model} needs a file of the role {role:?}, which the catalogue entry does not have"
                ),
            })
        };
        let of_its_own = ["tokenizer", "config"].iter().all(|role| files.contains_key(*role));
        match model {
            "efficientnet-lite0" => {
                let size = image_size(options)?;
                let mut tensors = weights::read(file("weights")?)?;
                let weights = efficientnet::Weights::take(&mut tensors, &efficientnet::Config::lite0())?;
                Self::of_images(&weights, size, compute)
            }
            name if name == "minilm-l6" || of_its_own => {
                let config = match files.get("config") {
                    Some(path) => {
                        let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
                        minilm::Config::from_json(&bytes, &path.display().to_string())?
                    }
                    None => minilm::Config::minilm_l6(),
                };
                let (positions, vocab) = (config.max_position_embeddings, config.vocab_size);
                let tokens = Tokens::load(file("tokenizer")?, options.max_tokens, positions, vocab)?;
                let mut tensors = weights::read(file("weights")?)?;
                Ok(Self::of_texts(minilm::Weights::take(&mut tensors, &config)?, tokens, compute))
            }
            other => Err(ModelError::Unsupported {
                what: format!("the backbone {other:?}"),
                reason:
                    "efficientnet-lite0 takes images, minilm-l6 takes texts, as does an encoder of its kind \
                         with a tokenizer and a config"
                        .to_owned(),
            }),
        }
    }

    /// An extractor of images from weights of any configuration.
    ///
    /// # Errors
    /// [`ModelError::Config`] where the size is out of range.
    pub fn of_images(
        weights: &efficientnet::Weights,
        size: usize,
        compute: &Compute,
    ) -> Result<Self, ModelError> {
        let size = image_size(&ExtractorOptions { image_size: size, max_tokens: 0 })?;
        let net = if is_cpu(compute) {
            ImageNet::Host(HostNet::new(weights))
        } else {
            ImageNet::Device(DeviceNet::new(weights, &compute.device))
        };
        Ok(Self { network: Network::Image { net, size }, dim: weights.dim(), backend: compute.name.clone() })
    }

    pub(crate) fn of_texts(weights: minilm::Weights, tokens: Tokens, compute: &Compute) -> Self {
        let dim = weights.dim();
        let net = if is_cpu(compute) {
            TextNet::Host(HostEncoder::new(weights))
        } else {
            TextNet::Device(DeviceEncoder::new(&weights, &compute.device))
        };
        let network = Network::Text { net, tokens: Box::new(tokens) };
        Self { network, dim, backend: compute.name.clone() }
    }

    /// Features of a record.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// What it runs on.
    pub fn backend(&self) -> String {
        self.backend.clone()
    }

    /// Features `[n, dim]` of images, in their order.
    ///
    /// # Errors
    /// [`ModelError::Input`] for an image that cannot be used, its place told, and for a network of texts.
    pub fn images(&self, images: &[Image<'_>]) -> Result<Vec<f32>, ModelError> {
        let Network::Image { net, size } = &self.network else {
            return Err(ModelError::Input("this model takes texts, not images".to_owned()));
        };
        for (i, image) in images.iter().enumerate() {
            image.check().map_err(|error| ModelError::Input(format!("image {i}: {error}")))?;
        }
        let mut features = vec![0.0; images.len() * self.dim];
        let pixels = size * size * 3;
        let batch = |images: &[Image<'_>]| {
            let mut batch = vec![0.0; images.len() * pixels];
            for (image, out) in images.iter().zip(batch.chunks_exact_mut(pixels)) {
                normalised(image, *size, efficientnet::MEAN, efficientnet::DEVIATION, out);
            }
            batch
        };
        match net {
            ImageNet::Host(net) => {
                let share = images.len().div_ceil(rayon::current_num_threads()).max(1);
                let task = TASK_PIXELS.div_ceil(size * size).min(share);
                let tasks = images.par_chunks(task).zip(features.par_chunks_mut(task * self.dim));
                tasks.for_each(|(images, out)| net.forward(&batch(images), images.len(), *size, out));
            }
            ImageNet::Device(net) => {
                for (images, out) in
                    images.chunks(DEVICE_BATCH).zip(features.chunks_mut(DEVICE_BATCH * self.dim))
                {
                    out.copy_from_slice(&net.forward(batch(images), images.len(), *size)?);
                }
            }
        }
        finite(features, self.dim)
    }

    /// Features `[n, dim]` of texts, in their order, each of length 1. An empty text has features too: those of its two
    /// special tokens.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a network of images.
    pub fn texts(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        let Network::Text { net, tokens } = &self.network else {
            return Err(ModelError::Input("this model takes images, not texts".to_owned()));
        };
        let ids = texts.par_iter().map(|text| tokens.encode(text)).collect::<Result<Vec<_>, _>>()?;
        self.encode(net, &ids)
    }

    /// Features of texts whose tokens are given, `[n, dim]`.
    fn encode(&self, net: &TextNet, ids: &[Vec<u32>]) -> Result<Vec<f32>, ModelError> {
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let mut features = vec![0.0; ids.len() * self.dim];
        match net {
            TextNet::Host(net) => {
                let all: usize = ids.iter().map(|ids| ids.len()).sum();
                let least = TASK_TOKENS.min(all.div_ceil(rayon::current_num_threads()));
                let mut tasks = Vec::new();
                let (mut ids, mut out) = (ids.as_slice(), features.as_mut_slice());
                while !ids.is_empty() {
                    let mut tokens = 0;
                    let full = |ids: &&[u32]| {
                        tokens += ids.len();
                        tokens >= least
                    };
                    let texts = ids.iter().position(full).map_or(ids.len(), |last| last + 1);
                    let (task, rest) = ids.split_at(texts);
                    let (slot, behind) = out.split_at_mut(texts * self.dim);
                    tasks.push((task, slot));
                    (ids, out) = (rest, behind);
                }
                tasks.into_par_iter().for_each(|(ids, out)| net.forward(ids, out));
            }
            TextNet::Device(net) => {
                for (ids, out) in ids.chunks(DEVICE_BATCH).zip(features.chunks_mut(DEVICE_BATCH * self.dim)) {
                    out.copy_from_slice(&net.forward(ids)?);
                }
            }
        }
        finite(features, self.dim)
    }
}

fn image_size(options: &ExtractorOptions) -> Result<usize, ModelError> {
    match options.image_size {
        0 => Ok(OWN_SIZE),
        size if (LEAST_SIZE..=MAX_SIDE / 8).contains(&size) => Ok(size),
        size => Err(ModelError::Config {
            option: "image_size",
            reason: format!(
                "{size} is outside {LEAST_SIZE} to {}; 0 is the model's own {OWN_SIZE}",
                MAX_SIDE / 8
            ),
        }),
    }
}

fn is_cpu(compute: &Compute) -> bool {
    compute.name == Compute::cpu().name
}

/// Weights are finite, but their products need not be.
fn finite(features: Vec<f32>, dim: usize) -> Result<Vec<f32>, ModelError> {
    match features.iter().position(|x| !x.is_finite()) {
        None => Ok(features),
        Some(at) => Err(ModelError::Diverged(format!(
            "record {} has the feature {}; the weights do not fit the model, or the device computes wrong",
            at / dim,
            features[at]
        ))),
    }
}

/// The values of a tensor, back on the host.
pub(crate) fn read_back<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    tensor.into_data().convert::<f32>().try_into_vec::<f32>().map_err(|error| ModelError::Device {
        device: "the one chosen".to_owned(),
        reason: format!("gave values back that cannot be read: {error:?}"),
    })
}

#[cfg(test)]
mod tests;
