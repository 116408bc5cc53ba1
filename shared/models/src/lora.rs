//! Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): beside a frozen weight `W` `[out, in]` two small matrices
//! `A` `[rank, in]` and `B` `[out, rank]`, so that `y = W x + (alpha / rank) B A x`.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{ModelError, ops, slm::LlamaConfig};

/// The linear layers of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Out of attention.
    Output,
    /// The gate of the feed-forward layer.
    Gate,
    /// Into the feed-forward layer.
    Up,
    /// Out of it.
    Down,
}

impl Module {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The name by which target modules are given: `q_proj`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// Its path within a layer: `self_attn.q_proj`.
    pub fn path(self) -> String {
        let part = if self <= Self::Output { "self_attn" } else { "mlp" };
        format!("{part}.{}", self.name())
    }

    /// `(out, in)`.
    pub const fn shape(self, config: &LlamaConfig) -> (usize, usize) {
        match self {
            Self::Query => (config.query_width(), config.hidden),
            Self::Key | Self::Value => (config.kv_width(), config.hidden),
            Self::Output => (config.hidden, config.query_width()),
            Self::Gate | Self::Up => (config.intermediate, config.hidden),
            Self::Down => (config.hidden, config.intermediate),
        }
    }
}

/// Which adapters, how large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of each adapter.
    pub rank: usize,
    /// Scale: the adapter's part is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Share of an adapter's inputs set to zero in training.
    pub dropout: f64,
    /// Names of target modules: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`.
    pub targets: Vec<String>,
    /// How many of the topmost decoder layers are adapted; all when absent. Nothing below them is differentiated, and what
    /// they make of a record never changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            targets: vec!["q_proj".to_owned(), "v_proj".to_owned()],
            layers: None,
        }
    }
}

impl LoraConfig {
    /// The target modules, sorted, each once.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an unknown name, no name, or values outside their range.
    pub fn modules(&self) -> Result<Vec<Module>, ModelError> {
        let refused = |option, reason: String| Err(ModelError::Config { option, reason });
        if !(1..=1024).contains(&self.rank) {
            return refused("rank", format!("{} is not between 1 and 1024", self.rank));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refused("alpha", format!("{} is not a positive number", self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refused("dropout", format!("{} is not at least 0 and below 1", self.dropout));
        }
        if self.layers == Some(0) {
            return refused("layers", "must be at least 1; leave it out to adapt all layers".to_owned());
        }
        let mut modules = Vec::new();
        for name in &self.targets {
            if let Some(module) = Module::ALL.into_iter().find(|module| module.name() == name) {
                modules.push(module);
            } else {
                let known = Module::ALL.map(Module::name).join(", ");
                return refused("targets", format!("there is no module `{name}`; there are {known}"));
            }
        }
        modules.sort_unstable();
        modules.dedup();
        if modules.is_empty() {
            return refused("targets", "names no module; q_proj and v_proj are usual".to_owned());
        }
        Ok(modules)
    }

    /// The adapted layers of a model of so many.
    ///
    /// # Errors
    /// [`ModelError::Config`] when the model has fewer than are to be adapted.
    pub fn adapted_layers(&self, of: usize) -> Result<Range<usize>, ModelError> {
        let layers = self.layers.unwrap_or(of);
        let lowest = of.checked_sub(layers).ok_or_else(|| ModelError::Config {
            option: "layers",
            reason: format!("{layers} layers are to be adapted, but the model has only {of}"),
        })?;
        Ok(lowest..of)
    }

    /// `alpha / rank`.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

/// An adapter's matrices on a device, by layer and module.
#[derive(Clone)]
pub struct LoraWeights {
    pub(crate) scale: f64,
    pub(crate) layers: Vec<[Option<Pair>; 7]>,
}

/// One adapter: `a` `[rank, in]`, `b` `[out, rank]`.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) a: Tensor<2>,
    pub(crate) b: Tensor<2>,
}

impl LoraWeights {
    pub(crate) fn pair(&self, layer: usize, module: Module) -> Option<&Pair> {
        self.layers[layer][module as usize].as_ref()
    }

    /// The lowest layer that has an adapter; nothing below it needs a gradient.
    pub(crate) fn lowest(&self) -> usize {
        self.layers.iter().position(|layer| layer.iter().any(Option::is_some)).unwrap_or(0)
    }
}

/// What one training pass drops from adapters' inputs; made anew from the seed wherever it is needed, never kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    pub(crate) rate: f64,
    pub(crate) seed: u64,
}

impl Dropout {
    /// `x` with its dropped elements 0 and the rest scaled up.
    pub(crate) fn apply(self, x: &Tensor<2>, layer: usize, module: Module) -> Tensor<2> {
        if self.rate == 0.0 {
            return x.clone();
        }
        x.clone() * self.mask(x.dims(), layer, module, &x.device())
    }

    /// Factors of the elements of `x`: 0 or `1 / (1 - rate)`.
    pub(crate) fn mask(self, shape: [usize; 2], layer: usize, module: Module, device: &Device) -> Tensor<2> {
        let stream = self.seed ^ ((layer as u64) << 8 | module as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let keep = (1.0 / (1.0 - self.rate)) as f32;
        let limit = (self.rate * f64::from(u32::MAX)) as u32;
        let factors = (0..shape[0] * shape[1])
            .map(|i| if splitmix(stream.wrapping_add(i as u64)) as u32 >= limit { keep } else { 0.0 })
            .collect();
        ops::tensor(factors, shape, device)
    }
}

/// One step of SplitMix64: a good mixing of a counter. For dropout alone, never for noise.
const fn splitmix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
