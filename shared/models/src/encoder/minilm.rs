//! MiniLM-L6 (Wang et al. 2020; sentence encoder: Reimers and Gurevych 2019): BERT of 6 layers and 384 dimensions.
//!
//! ```text
//! ids [t] ─ word + position + segment 0, norm ─► 6 layers ─► [t, 384] ─ mean over tokens ─ / L2 norm ─► [384]
//! layer: x = norm(x + attention(x)); x = norm(x + down(gelu(up(x))))
//! ```

mod host;
mod tensors;
mod tokens;

use serde::Deserialize;

use crate::ModelError;
use crate::weights::TensorMap;

pub(crate) use host::HostEncoder;
pub(crate) use tensors::DeviceEncoder;
pub(crate) use tokens::Tokens;

/// The shape of an encoder, as `config.json` gives it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Config {
    /// Rows of the table of words.
    pub vocab_size: usize,
    /// Dimensions of a token and of the features.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads; they share the dimensions evenly.
    pub num_attention_heads: usize,
    /// Dimensions between `up` and `down`.
    pub intermediate_size: usize,
    /// Tokens a text may have at most.
    pub max_position_embeddings: usize,
    /// Rows of the table of segments, of which the first is used.
    pub type_vocab_size: usize,
    /// Added to a variance.
    pub layer_norm_eps: f64,
    /// The activation; only `gelu` is there.
    pub hidden_act: String,
}

impl Config {
    /// MiniLM-L6-H384-uncased.
    pub fn minilm_l6() -> Self {
        Self {
            vocab_size: 30_522,
            hidden_size: 384,
            num_hidden_layers: 6,
            num_attention_heads: 12,
            intermediate_size: 1536,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: "gelu".to_owned(),
        }
    }

    /// Reads a `config.json`; `file` is what errors call it.
    ///
    /// # Errors
    /// [`ModelError::Format`] and [`ModelError::Unsupported`].
    pub fn from_json(bytes: &[u8], file: &str) -> Result<Self, ModelError> {
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|error| ModelError::Format { file: file.to_owned(), reason: error.to_string() })?;
        let unsupported = |what: &str, reason: &str| {
            Err(ModelError::Unsupported { what: format!("{file}: {what}"), reason: reason.to_owned() })
        };
        if config.hidden_act != "gelu" {
            return unsupported(&config.hidden_act, "the encoder's activation must be gelu");
        }
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        if heads == 0 || hidden == 0 || !hidden.is_multiple_of(heads) {
            return unsupported(&format!("{heads} heads"), "they must share hidden_size evenly");
        }
        Ok(config)
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// `y = x W' + b`; the weight is `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// Layer normalisation.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// A layer of the encoder.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// Query, key and value behind one another, `[3 hidden, hidden]`; the query is scaled by `1 / sqrt(head_dim)`.
    pub(crate) qkv: Dense,
    pub(crate) out: Dense,
    pub(crate) attention_norm: Norm,
    pub(crate) up: Dense,
    pub(crate) down: Dense,
    pub(crate) norm: Norm,
}

/// The weights on the host, as loaded.
#[derive(Clone, Debug)]
pub struct Weights {
    pub(crate) config: Config,
    /// `[vocab, hidden]`
    pub(crate) words: Vec<f32>,
    /// `[positions, hidden]`, the first segment added.
    pub(crate) positions: Vec<f32>,
    pub(crate) norm: Norm,
    pub(crate) layers: Vec<Layer>,
}

impl Weights {
    /// Takes the encoder out of a file's arrays, by the names of Hugging Face's `BertModel`.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] where an array is missing, misshapen or not finite.
    pub fn take(tensors: &mut TensorMap, config: &Config) -> Result<Self, ModelError> {
        let hidden = config.hidden_size;
        let mut file = File(tensors);
        let words = file.array("embeddings.word_embeddings.weight", &[config.vocab_size, hidden])?;
        let mut positions =
            file.array("embeddings.position_embeddings.weight", &[config.max_position_embeddings, hidden])?;
        let segments =
            file.array("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, hidden])?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&segments).for_each(|(p, s)| *p += s);
        }
        let norm = file.norm("embeddings.LayerNorm", hidden)?;
        let layers =
            (0..config.num_hidden_layers).map(|i| file.layer(i, config)).collect::<Result<_, _>>()?;
        Ok(Self { config: config.clone(), words, positions, norm, layers })
    }

    /// Features of a text.
    pub fn dim(&self) -> usize {
        self.config.hidden_size
    }
}

struct File<'a>(&'a mut TensorMap);

impl File<'_> {
    fn array(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        Ok(self.0.take(name, shape)?.data)
    }

    fn dense(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Dense, ModelError> {
        let weight = self.array(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Dense { weight, bias: self.array(&format!("{name}.bias"), &[outputs])? })
    }

    fn norm(&mut self, name: &str, dim: usize) -> Result<Norm, ModelError> {
        let weight = self.array(&format!("{name}.weight"), &[dim])?;
        Ok(Norm { weight, bias: self.array(&format!("{name}.bias"), &[dim])? })
    }

    fn layer(&mut self, index: usize, config: &Config) -> Result<Layer, ModelError> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let at = |part: &str| format!("encoder.layer.{index}.{part}");
        let mut qkv = self.dense(&at("attention.self.query"), hidden, hidden)?;
        let scale = 1.0 / (config.head_dim() as f32).sqrt();
        qkv.weight.iter_mut().chain(&mut qkv.bias).for_each(|x| *x *= scale);
        for part in ["attention.self.key", "attention.self.value"] {
            let dense = self.dense(&at(part), hidden, hidden)?;
            qkv.weight.extend(dense.weight);
            qkv.bias.extend(dense.bias);
        }
        Ok(Layer {
            qkv,
            out: self.dense(&at("attention.output.dense"), hidden, hidden)?,
            attention_norm: self.norm(&at("attention.output.LayerNorm"), hidden)?,
            up: self.dense(&at("intermediate.dense"), hidden, wide)?,
            down: self.dense(&at("output.dense"), wide, hidden)?,
            norm: self.norm(&at("output.LayerNorm"), hidden)?,
        })
    }
}
