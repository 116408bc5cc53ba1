//! Adapters in host memory and in files as the `peft` package of Python writes and reads them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::{
    ModelError,
    lora::{LoraConfig, LoraWeights, Module, Pair},
    ops,
    slm::{LanguageModel, LlamaConfig},
    weights::{HostTensor, TensorMap, safetensors},
};

const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";

/// An adapter: its options, and its matrices by their names in `peft`.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Rank, scale, targets, layers.
    pub config: LoraConfig,
    /// `base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight` `[rank, in]`, `...lora_B.weight` `[out, rank]`.
    pub tensors: BTreeMap<String, HostTensor>,
}

const PREFIX: &str = "base_model.model.model.layers.";

/// The name of one matrix; `part` is `A` or `B`.
pub(crate) fn tensor_name(layer: usize, module: Module, part: char) -> String {
    format!("{PREFIX}{layer}.{}.lora_{part}.weight", module.path())
}

/// The layer that a matrix's name speaks of.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
}

impl Adapter {
    /// A fresh adapter: `A` drawn as Kaiming-uniform with `a = sqrt 5` (as in `peft`), `B` zero, so that it changes
    /// nothing yet.
    ///
    /// # Errors
    /// [`ModelError::Config`] for options that cannot be meant, or more layers than the model has.
    pub fn new(model: &LanguageModel, config: &LoraConfig, seed: u64) -> Result<Self, ModelError> {
        Self::for_shape(model.config(), config, seed)
    }

    /// As [`Self::new`], from a model's sizes alone.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn for_shape(sizes: &LlamaConfig, config: &LoraConfig, seed: u64) -> Result<Self, ModelError> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut tensors = BTreeMap::new();
        for (layer, module) in places(sizes, config)? {
            let (output, input) = module.shape(sizes);
            let bound = 1.0 / (input as f32).sqrt();
            let a = (0..config.rank * input).map(|_| random.random_range(-bound..bound)).collect();
            tensors.insert(
                tensor_name(layer, module, 'A'),
                HostTensor { shape: vec![config.rank, input], data: a },
            );
            tensors.insert(tensor_name(layer, module, 'B'), HostTensor::zeros(&[output, config.rank]));
        }
        Ok(Self { config: config.clone(), tensors })
    }

    /// Checks the matrices against a model and brings them to its device.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] for a matrix that is missing, too many, misshapen or not finite, [`ModelError::Config`] when
    /// the model has fewer layers than are adapted.
    pub fn to_device(&self, sizes: &LlamaConfig, device: &Device) -> Result<LoraWeights, ModelError> {
        let mut map = TensorMap(self.tensors.clone());
        let mut layers = vec![[const { None }; 7]; sizes.layers];
        for (layer, module) in places(sizes, &self.config)? {
            let (output, input) = module.shape(sizes);
            let rank = self.config.rank;
            let mut take = |part, shape: [usize; 2]| {
                map.take(&tensor_name(layer, module, part), &shape)
                    .map(|t| ops::tensor(t.data, shape, device))
            };
            layers[layer][module as usize] =
                Some(Pair { a: take('A', [rank, input])?, b: take('B', [output, rank])? });
        }
        if let Some(name) = map.0.into_keys().next() {
            return Err(ModelError::Tensor {
                name,
                reason: "belongs to no target module of the model; the adapter is of another one".to_owned(),
            });
        }
        Ok(LoraWeights { scale: self.config.scale(), layers })
    }

    /// Writes `adapter_model.safetensors` and `adapter_config.json` into a folder, which is made where it is missing.
    /// `base` names the base model for people and tools.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, folder: &Path, base: &str) -> Result<(), ModelError> {
        fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.config.rank,
            "lora_alpha": self.config.alpha,
            "lora_dropout": self.config.dropout,
            "target_modules": self.config.modules()?.iter().map(|m| m.name()).collect::<Vec<_>>(),
            "layers_to_transform": self.config.layers.map(|_| self.layers()),
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "use_rslora": false,
            "use_dora": false,
        });
        let path = folder.join(CONFIG);
        let text = serde_json::to_vec_pretty(&config)
            .map_err(|e| ModelError::Format { file: CONFIG.to_owned(), reason: e.to_string() })?;
        fs::write(&path, text).map_err(ModelError::io(path))?;
        let path = folder.join(WEIGHTS);
        fs::write(&path, self.to_bytes()?).map_err(ModelError::io(path))
    }

    /// Reads a folder that [`Self::save`] or `peft` wrote.
    ///
    /// # Errors
    /// [`ModelError::Format`] for other files, [`ModelError::Unsupported`] for adapters other than plain LoRA.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let refused = |reason: String| ModelError::Format { file: path.display().to_string(), reason };
        let json: Value = serde_json::from_str(&text)
            .map_err(|e| refused(format!("not an adapter's configuration: {e}")))?;
        for (key, wanted) in [
            ("peft_type", json!("LORA")),
            ("use_dora", json!(false)),
            ("use_rslora", json!(false)),
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
        ] {
            if !json[key].is_null() && json[key] != wanted {
                return Err(ModelError::Unsupported {
                    what: format!("an adapter with {key} = {} ({})", json[key], path.display()),
                    reason: format!("{key} = {wanted} is"),
                });
            }
        }
        let targets = match &json["target_modules"] {
            Value::Array(names) => names.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect(),
            _ => return Err(refused("target_modules is not a list of names".to_owned())),
        };
        let config = LoraConfig {
            rank: json["r"].as_u64().ok_or_else(|| refused("r is missing".to_owned()))? as usize,
            alpha: json["lora_alpha"].as_f64().ok_or_else(|| refused("lora_alpha is missing".to_owned()))?,
            dropout: json["lora_dropout"].as_f64().unwrap_or(0.0),
            targets,
            layers: topmost(&json["layers_to_transform"], &path)?,
        };
        config.modules()?;
        Ok(Self { config, tensors: safetensors::read(&folder.join(WEIGHTS))?.0 })
    }

    /// The layers that have matrices, ascending.
    fn layers(&self) -> BTreeSet<usize> {
        self.tensors.keys().filter_map(|name| layer_of(name)).collect()
    }

    /// The matrices as a safetensors file.
    ///
    /// # Errors
    /// [`ModelError::Format`] when they cannot be written as one.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ModelError> {
        safetensors::write(&self.tensors)
    }
}

/// How many topmost layers a file's list of layers is; none where there is no list. How many layers the model has is not known
/// yet: a list of lower ones lacks matrices in [`Adapter::to_device`].
fn topmost(list: &Value, path: &Path) -> Result<Option<usize>, ModelError> {
    let numbers = match list {
        Value::Null => return Ok(None),
        Value::Array(layers) => layers.iter().map(Value::as_u64).collect(),
        one => one.as_u64().map(|layer| BTreeSet::from([layer])),
    };
    let bounds = numbers.as_ref().and_then(|n: &BTreeSet<u64>| Some((n.len(), n.first()?, n.last()?)));
    let Some((count, first, last)) = bounds else {
        return Err(ModelError::Format {
            file: path.display().to_string(),
            reason: "layers_to_transform is not a list of layers".to_owned(),
        });
    };
    if (last - first) as usize != count - 1 {
        return Err(ModelError::Unsupported {
            what: format!("an adapter of the layers {list} ({})", path.display()),
            reason: "one of the topmost layers, without gaps, is".to_owned(),
        });
    }
    Ok(Some(count))
}

/// Where the adapters are.
fn places(sizes: &LlamaConfig, config: &LoraConfig) -> Result<Vec<(usize, Module)>, ModelError> {
    let modules = config.modules()?;
    let layers = config.adapted_layers(sizes.layers)?;
    Ok(layers.flat_map(|layer| modules.iter().map(move |module| (layer, *module))).collect())
}

impl LanguageModel {
    /// The model with an adapter added into its weights: `W + (alpha / rank) B A`. With `sign` -1 it is taken out
    /// again (up to rounding).
    ///
    /// # Errors
    /// As [`Adapter::to_device`].
    pub fn merged(&self, adapter: &Adapter, sign: f64) -> Result<Self, ModelError> {
        let weights = adapter.to_device(&self.config, &self.device)?;
        let mut merged = self.clone();
        for (block, pairs) in merged.blocks.iter_mut().zip(&weights.layers) {
            for (weight, pair) in block.linear.iter_mut().zip(pairs) {
                if let Some(pair) = pair {
                    let change = pair.b.clone().matmul(pair.a.clone()).mul_scalar(weights.scale * sign);
                    *weight = weight.clone() + change;
                }
            }
        }
        Ok(merged)
    }
}
