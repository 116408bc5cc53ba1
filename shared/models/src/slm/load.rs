//! Reads a decoder from a GGUF file or from a folder with `config.json`, `*.safetensors` and `tokenizer.json`.

use std::{fs, path::Path};

use burn::tensor::{Device, Tensor};

use super::{Block, LanguageModel, LlamaConfig, chat::ChatTemplate, tokenizer::Vocabulary};
use crate::{
    ModelError,
    device::Compute,
    lora::Module,
    ops,
    weights::{HostTensor, TensorMap, gguf::Gguf, safetensors},
};

/// Where tensors come from, under the names of `transformers`.
trait Weights {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<HostTensor, ModelError>;
}

impl Weights for TensorMap {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<HostTensor, ModelError> {
        Self::take(self, name, shape)
    }
}

struct GgufWeights<'a> {
    gguf: &'a Gguf,
    config: &'a LlamaConfig,
}

impl Weights for GgufWeights<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<HostTensor, ModelError> {
        let mut tensor = self.gguf.tensor(&gguf_name(name), shape)?;
        // llama.cpp turns neighbouring pairs, the Llama code halves: rows of queries and keys lie accordingly.
        let heads = if name.ends_with("q_proj.weight") {
            self.config.heads
        } else if name.ends_with("k_proj.weight") {
            self.config.kv_heads
        } else {
            return Ok(tensor);
        };
        let (width, half) = (shape[1], self.config.head_dim / 2);
        let mut rows = Vec::with_capacity(tensor.data.len());
        for head in 0..heads {
            for part in 0..2 {
                for pair in 0..half {
                    let row = head * 2 * half + 2 * pair + part;
                    rows.extend_from_slice(&tensor.data[row * width..(row + 1) * width]);
                }
            }
        }
        tensor.data = rows;
        Ok(tensor)
    }
}

/// `model.layers.3.self_attn.q_proj.weight` is `blk.3.attn_q.weight` there.
fn gguf_name(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    [
        ("layers.", "blk."),
        ("embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(
        if name == "norm.weight" { "output_norm.weight".to_owned() } else { name.to_owned() },
        |name, (from, to)| name.replace(from, to),
    )
}

impl LanguageModel {
    /// Loads a model: a `.gguf` file, or a folder as `transformers` saves it.
    ///
    /// # Errors
    /// [`ModelError`] names the file, the tensor or the key that is wrong; [`ModelError::Unsupported`] for another
    /// architecture than Llama's.
    pub fn load(path: &Path, compute: &Compute) -> Result<Self, ModelError> {
        let device = &compute.device;
        if path.is_dir() {
            return Self::load_folder(path, device);
        }
        let gguf = Gguf::open(path)?;
        let config = LlamaConfig::from_gguf(&gguf, &path.display().to_string())?;
        let vocabulary = Vocabulary::from_gguf(&gguf)?;
        let chat = gguf.text("tokenizer.chat_template").map(ChatTemplate::new).transpose()?;
        let mut weights = GgufWeights { gguf: &gguf, config: &config };
        Self::build(config.clone(), &mut weights, vocabulary, chat, device)
    }

    fn load_folder(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(ModelError::io(path))
        };
        let config =
            LlamaConfig::from_json(&read("config.json")?, &folder.join("config.json").display().to_string())?;
        let vocabulary = Vocabulary::from_folder(folder)?;
        let chat = ChatTemplate::from_folder(folder)?;
        let mut weights = TensorMap::default();
        let mut files: Vec<_> = fs::read_dir(folder)
            .map_err(ModelError::io(folder))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
            .collect();
        files.sort();
        if files.is_empty() {
            return Err(ModelError::Format {
                file: folder.display().to_string(),
                reason: "there is no .safetensors file in it".to_owned(),
            });
        }
        for file in files {
            weights.0.extend(safetensors::read(&file)?.0);
        }
        Self::build(config, &mut weights, vocabulary, chat, device)
    }

    fn build(
        config: LlamaConfig,
        weights: &mut impl Weights,
        vocabulary: Vocabulary,
        chat: Option<ChatTemplate>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        if vocabulary.size() > config.vocab {
            return Err(ModelError::Format {
                file: "tokenizer".to_owned(),
                reason: format!(
                    "it has {} tokens, the model only {}: they do not belong together",
                    vocabulary.size(),
                    config.vocab
                ),
            });
        }
        let (vocab, hidden) = (config.vocab, config.hidden);
        let matrix = |weights: &mut dyn Weights, name: &str, shape: [usize; 2]| {
            weights.take(name, &shape).map(|t| ops::tensor(t.data, shape, device))
        };
        let vector = |weights: &mut dyn Weights, name: &str| {
            weights.take(name, &[hidden]).map(|t| ops::tensor(t.data, [hidden], device))
        };
        let embedding = matrix(weights, "model.embed_tokens.weight", [vocab, hidden])?;
        let mut blocks = Vec::new();
        for layer in 0..config.layers {
            let mut linear = Vec::new();
            for module in Module::ALL {
                let name = format!("model.layers.{layer}.{}.weight", module.path());
                let (output, input) = module.shape(&config);
                linear.push(matrix(weights, &name, [output, input])?);
            }
            let linear: [Tensor<2>; 7] = linear
                .try_into()
                .map_err(|_| ModelError::Input("a block has seven linear layers".to_owned()))?;
            let prefix = format!("model.layers.{layer}");
            blocks.push(Block {
                attention_norm: vector(weights, &format!("{prefix}.input_layernorm.weight"))?,
                feed_forward_norm: vector(weights, &format!("{prefix}.post_attention_layernorm.weight"))?,
                linear,
            });
        }
        let final_norm = vector(weights, "model.norm.weight")?;
        let output =
            if config.tied { embedding.clone() } else { matrix(weights, "lm_head.weight", [vocab, hidden])? };
        Ok(Self { config, device: device.clone(), embedding, blocks, final_norm, output, vocabulary, chat })
    }
}
