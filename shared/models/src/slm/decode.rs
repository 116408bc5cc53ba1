//! One token after another: a cache of keys and values for each sequence, and steps over several sequences at once.

use burn::tensor::Tensor;

use super::{
    LanguageModel,
    forward::{Adapted, Batch, Keep, adapted_linear},
};
use crate::{
    ModelError,
    kernels::{self, Rotary},
    lora::{Dropout, LoraWeights, Module},
    ops,
};

/// Sequences in the middle of being written. Keys and values are in host memory: one position's attention is little
/// work, and no device needs padding for it.
pub struct Decoder<'a> {
    model: &'a LanguageModel,
    adapter: Option<&'a LoraWeights>,
    rotary: Rotary,
    sequences: Vec<Cache>,
}

/// Keys and values of one sequence, by layer `[length, kv * dim]`.
struct Cache {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    length: usize,
}

impl<'a> Decoder<'a> {
    /// A decoder for sequences of up to `positions` tokens.
    ///
    /// # Errors
    /// [`ModelError::Input`] when the model was made for fewer positions.
    pub fn new(
        model: &'a LanguageModel,
        adapter: Option<&'a LoraWeights>,
        positions: usize,
    ) -> Result<Self, ModelError> {
        let config = &model.config;
        if positions > config.max_positions {
            return Err(ModelError::Input(format!(
                "{positions} tokens are more than the {} that the model was made for",
                config.max_positions
            )));
        }
        let rotary = Rotary::new(0..positions, config.head_dim, config.rope_theta);
        Ok(Self { model, adapter, rotary, sequences: Vec::new() })
    }

    fn adapted(&self) -> Option<Adapted<'a>> {
        self.adapter.map(|weights| Adapted { weights, dropout: Dropout { rate: 0.0, seed: 0 } })
    }

    /// Begins one more sequence with its prompt; gives the logits after its last token, `[vocab]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for an empty or over-long prompt.
    pub fn begin(&mut self, prompt: &[u32]) -> Result<Vec<f32>, ModelError> {
        let batch = Batch::new(&[prompt.to_vec()])?;
        let pass = self.model.run(&batch, self.adapted(), Keep::Cache)?;
        let (_, key_heads) = self.model.heads(&batch);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for inner in pass.traces.into_iter().filter_map(|trace| trace.inner) {
            keys.push(ops::host(ops::merge_heads(inner.k, key_heads, None)));
            values.push(ops::host(ops::merge_heads(inner.v, key_heads, None)));
        }
        self.sequences.push(Cache { keys, values, length: prompt.len() });
        let width = self.model.config.hidden;
        let last = pass.hidden.slice([prompt.len() - 1..prompt.len(), 0..width]);
        Ok(ops::host(ops::linear(&last, &self.model.output)))
    }

    /// Begins as many sequences as wanted from the newest one, which goes on as the first of them.
    pub fn fork(&mut self, copies: usize) {
        if let Some(newest) = self.sequences.last() {
            let copy =
                || Cache { keys: newest.keys.clone(), values: newest.values.clone(), length: newest.length };
            let more: Vec<_> = (1..copies).map(|_| copy()).collect();
            self.sequences.extend(more);
        }
    }

    /// Appends one token to each of the named sequences (each at most once); gives their logits, `[n, vocab]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] when a sequence is full.
    pub fn step(&mut self, sequences: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let model = self.model;
        let config = &model.config;
        let full = |cache: &Cache| (cache.length + 1) * self.rotary.half > self.rotary.cos.len();
        if sequences.iter().any(|s| full(&self.sequences[*s])) {
            return Err(ModelError::Input("a sequence has no room for another token".to_owned()));
        }
        let adapted = self.adapted();
        let mut x = model.embedding.clone().select(0, ops::indices(tokens, &model.device));
        for (layer, block) in model.blocks.iter().enumerate() {
            let apply = |module: Module, x: &Tensor<2>| adapted_linear(block, layer, module, x, adapted);
            let normed = ops::rms_norm(&x, &block.attention_norm, config.rms_eps);
            let (q, k) = (ops::host(apply(Module::Query, &normed)), ops::host(apply(Module::Key, &normed)));
            let v = ops::host(apply(Module::Value, &normed));
            let attended = self.attend(layer, sequences, q, k, &v);
            let attended = ops::tensor(attended, [sequences.len(), config.query_width()], &model.device);
            let middle = x + apply(Module::Output, &attended);
            let normed = ops::rms_norm(&middle, &block.feed_forward_norm, config.rms_eps);
            let gated = ops::swiglu(&apply(Module::Gate, &normed), &apply(Module::Up, &normed));
            x = middle + apply(Module::Down, &gated);
        }
        for sequence in sequences {
            self.sequences[*sequence].length += 1;
        }
        let hidden = ops::rms_norm(&x, &model.final_norm, config.rms_eps);
        Ok(ops::host(ops::linear(&hidden, &model.output)))
    }

    fn attend(
        &mut self,
        layer: usize,
        sequences: &[usize],
        mut q: Vec<f32>,
        mut k: Vec<f32>,
        v: &[f32],
    ) -> Vec<f32> {
        let config = &self.model.config;
        let (query_width, kv_width) = (config.query_width(), config.kv_width());
        let mut out = vec![0.0; q.len()];
        for (row, sequence) in sequences.iter().enumerate() {
            let cache = &mut self.sequences[*sequence];
            let (q, k) = (&mut q[row * query_width..][..query_width], &mut k[row * kv_width..][..kv_width]);
            kernels::rotate_row(q, &self.rotary, cache.length);
            kernels::rotate_row(k, &self.rotary, cache.length);
            cache.keys[layer].extend_from_slice(k);
            cache.values[layer].extend_from_slice(&v[row * kv_width..][..kv_width]);
            let out = &mut out[row * query_width..][..query_width];
            let (keys, values) = (&cache.keys[layer], &cache.values[layer]);
            kernels::attend(q, keys, values, config.kv_heads, config.head_dim, out);
        }
        out
    }
}
