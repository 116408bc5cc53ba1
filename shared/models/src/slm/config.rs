//! The shape of a Llama-family model, from a GGUF file's metadata or from `config.json`.

use serde::Deserialize;

use crate::{ModelError, weights::gguf::Gguf};

/// Sizes and constants of a Llama-family decoder (Touvron et al. 2023, arXiv 2302.13971; grouped queries: Ainslie et
/// al. 2023, arXiv 2305.13245).
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate: usize,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Epsilon of RMSNorm.
    pub rms_eps: f64,
    /// Whether the output layer is the embedding.
    pub tied: bool,
    /// Longest sequence that the model was made for.
    pub max_positions: usize,
}

/// What `config.json` says; other keys do not matter to inference or are refused by name below.
#[derive(Deserialize)]
struct HfConfig {
    #[serde(default)]
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    rope_theta: Option<f64>,
    rope_parameters: Option<Rope>,
    rope_scaling: Option<Rope>,
    rms_norm_eps: f64,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "default_positions")]
    max_position_embeddings: usize,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

#[derive(Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
}

const fn default_positions() -> usize {
    2048
}

fn unsupported(what: String) -> ModelError {
    ModelError::Unsupported {
        what,
        reason: "models of the Llama architecture without biases and with plain rotary embeddings are"
            .to_owned(),
    }
}

impl LlamaConfig {
    /// From the text of a `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Format`] for what is no such file, [`ModelError::Unsupported`] for another architecture.
    pub fn from_json(text: &str, file: &str) -> Result<Self, ModelError> {
        // The architecture is looked at before the keys that only a Llama has.
        #[derive(Deserialize)]
        struct Kind {
            #[serde(default)]
            model_type: String,
        }
        let format = |e: serde_json::Error| ModelError::Format {
            file: file.to_owned(),
            reason: format!("not the configuration of a Llama-family model: {e}"),
        };
        let kind: Kind = serde_json::from_str(text).map_err(format)?;
        if kind.model_type != "llama" {
            return Err(unsupported(format!("the architecture \"{}\" ({file})", kind.model_type)));
        }
        let config: HfConfig = serde_json::from_str(text).map_err(format)?;
        debug_assert_eq!(config.model_type, "llama");
        let ropes = [&config.rope_scaling, &config.rope_parameters];
        for rope in ropes.into_iter().flatten() {
            if let Some(kind) = rope.rope_type.as_deref().filter(|kind| *kind != "default") {
                return Err(unsupported(format!("the rotary scaling \"{kind}\" ({file})")));
            }
        }
        if config.attention_bias || config.mlp_bias {
            return Err(unsupported(format!("a model with biases ({file})")));
        }
        if let Some(act) = config.hidden_act.as_deref().filter(|act| *act != "silu") {
            return Err(unsupported(format!("the activation \"{act}\" ({file})")));
        }
        let theta = config.rope_theta.or(config.rope_parameters.and_then(|rope| rope.rope_theta));
        let heads = config.num_attention_heads;
        Self {
            vocab: config.vocab_size,
            hidden: config.hidden_size,
            layers: config.num_hidden_layers,
            heads,
            kv_heads: config.num_key_value_heads.unwrap_or(heads),
            head_dim: config.head_dim.unwrap_or(config.hidden_size / heads.max(1)),
            intermediate: config.intermediate_size,
            rope_theta: theta.unwrap_or(10_000.0),
            rms_eps: config.rms_norm_eps,
            tied: config.tie_word_embeddings,
            max_positions: config.max_position_embeddings,
        }
        .checked(file)
    }

    /// From the metadata of a GGUF file.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_gguf(gguf: &Gguf, file: &str) -> Result<Self, ModelError> {
        match gguf.text("general.architecture") {
            Some("llama") => {}
            other => {
                return Err(unsupported(format!(
                    "the architecture {} ({file})",
                    other.unwrap_or("without a name")
                )));
            }
        }
        if let Some(kind) = gguf.text("llama.rope.scaling.type").filter(|kind| *kind != "none") {
            return Err(unsupported(format!("the rotary scaling \"{kind}\" ({file})")));
        }
        let vocab = gguf
            .list("tokenizer.ggml.tokens")
            .ok_or_else(|| gguf.refused("the key tokenizer.ggml.tokens is missing".to_owned()))?
            .len();
        let (hidden, heads) =
            (gguf.uint("llama.embedding_length")?, gguf.uint("llama.attention.head_count")?);
        Self {
            vocab,
            hidden,
            layers: gguf.uint("llama.block_count")?,
            heads,
            kv_heads: gguf.uint("llama.attention.head_count_kv").unwrap_or(heads),
            head_dim: gguf.uint("llama.attention.key_length").unwrap_or(hidden / heads.max(1)),
            intermediate: gguf.uint("llama.feed_forward_length")?,
            rope_theta: gguf.float("llama.rope.freq_base").unwrap_or(10_000.0),
            rms_eps: gguf.float("llama.attention.layer_norm_rms_epsilon").ok_or_else(|| {
                gguf.refused("llama.attention.layer_norm_rms_epsilon is missing".to_owned())
            })?,
            tied: !gguf.has("output.weight"),
            max_positions: gguf.uint("llama.context_length")?,
        }
        .checked(file)
    }

    /// Refuses sizes that cannot be, before anything is allocated by them.
    fn checked(self, file: &str) -> Result<Self, ModelError> {
        let sizes = [
            ("vocabulary", self.vocab, 1 << 20),
            ("hidden size", self.hidden, 1 << 15),
            ("layers", self.layers, 1 << 10),
            ("heads", self.heads, 1 << 10),
            ("key and value heads", self.kv_heads, 1 << 10),
            ("head size", self.head_dim, 1 << 10),
            ("feed-forward size", self.intermediate, 1 << 17),
            ("positions", self.max_positions, 1 << 24),
        ];
        let refused = |reason: String| ModelError::Format { file: file.to_owned(), reason };
        for (what, size, most) in sizes {
            if size == 0 || size > most {
                return Err(refused(format!("the {what} {size} is not between 1 and {most}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) || !self.head_dim.is_multiple_of(2) {
            return Err(refused(format!(
                "{} heads of {} values cannot share {} key heads by rotary pairs",
                self.heads, self.head_dim, self.kv_heads
            )));
        }
        if !(self.rope_theta > 0.0 && self.rms_eps > 0.0) {
            return Err(refused("the rotary base and the norm's epsilon must be positive".to_owned()));
        }
        Ok(self)
    }

    /// Width of all query heads.
    pub const fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads, or of all value heads.
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}
