//! One token after another: a cache of keys and values for each sequence, and steps over several sequences at once.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::{
    LanguageModel, LlamaConfig,
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
        self.begin_all(&[(prompt, 1)])
    }

    /// Runs prompts at once and begins so many sequences with each, which stand together; gives the logits after each prompt's
    /// last token, `[prompts, vocab]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for no prompt, or an empty or over-long one.
    pub fn begin_all(&mut self, prompts: &[(&[u32], usize)]) -> Result<Vec<f32>, ModelError> {
        let batch = Batch::new(&prompts.iter().map(|(prompt, _)| prompt.to_vec()).collect::<Vec<_>>())?;
        let pass = self.model.run(&batch, self.adapted(), Keep::Cache)?;
        let (_, key_heads) = self.model.heads(&batch);
        let empty = |length| Cache { keys: Vec::new(), values: Vec::new(), length };
        let mut caches: Vec<Cache> = batch.lengths.iter().map(|length| empty(*length)).collect();
        let width = self.model.config.kv_width();
        for kept in pass.caches {
            let [keys, values] = kept.map(|split| ops::host(ops::merge_heads(split, key_heads, None)));
            for (record, cache) in caches.iter_mut().enumerate() {
                let own = record * batch.length * width..(record * batch.length + cache.length) * width;
                cache.keys.push(keys[own.clone()].to_vec());
                cache.values.push(values[own].to_vec());
            }
        }
        for (cache, (_, copies)) in caches.into_iter().zip(prompts) {
            self.sequences.push(cache);
            self.fork(*copies);
        }
        let last = pass.hidden.select(0, ops::indices(&batch.last_rows(), &self.model.device));
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
        let Self { rotary, sequences: caches, .. } = self;
        let mut caches: Vec<Option<&mut Cache>> = caches.iter_mut().map(Some).collect();
        let named = sequences.iter().map(|sequence| caches[*sequence].take());
        let Some(mut caches) = named.collect::<Option<Vec<&mut Cache>>>() else {
            return Err(ModelError::Input("a sequence is named twice in one step".to_owned()));
        };
        let mut x = model.embedding.clone().select(0, ops::indices(tokens, &model.device));
        for (layer, block) in model.blocks.iter().enumerate() {
            let apply = |module: Module, x: &Tensor<2>| adapted_linear(block, layer, module, x, adapted);
            let normed = ops::rms_norm(&x, &block.attention_norm, config.rms_eps);
            let (q, k) = (ops::host(apply(Module::Query, &normed)), ops::host(apply(Module::Key, &normed)));
            let v = ops::host(apply(Module::Value, &normed));
            let attended = attend(config, rotary, layer, &mut caches, (q, k, v));
            let attended = ops::tensor(attended, [sequences.len(), config.query_width()], &model.device);
            let middle = x + apply(Module::Output, &attended);
            let normed = ops::rms_norm(&middle, &block.feed_forward_norm, config.rms_eps);
            let gated = ops::swiglu(&apply(Module::Gate, &normed), &apply(Module::Up, &normed));
            x = middle + apply(Module::Down, &gated);
        }
        for cache in caches {
            cache.length += 1;
        }
        let hidden = ops::rms_norm(&x, &model.final_norm, config.rms_eps);
        Ok(ops::host(ops::linear(&hidden, &model.output)))
    }
}

/// Appends one position's keys and values to the caches and gives what its queries see there. Rows are those of the caches.
fn attend(
    config: &LlamaConfig,
    rotary: &Rotary,
    layer: usize,
    caches: &mut [&mut Cache],
    (mut q, mut k, v): (Vec<f32>, Vec<f32>, Vec<f32>),
) -> Vec<f32> {
    let (query_width, kv_width) = (config.query_width(), config.kv_width());
    let mut out = vec![0.0; q.len()];
    caches
        .par_iter_mut()
        .zip(q.par_chunks_exact_mut(query_width))
        .zip(k.par_chunks_exact_mut(kv_width))
        .zip(v.par_chunks_exact(kv_width))
        .zip(out.par_chunks_exact_mut(query_width))
        .for_each(|((((cache, q), k), v), out)| {
            kernels::rotate_row(q, rotary, cache.length);
            kernels::rotate_row(k, rotary, cache.length);
            cache.keys[layer].extend_from_slice(k);
            cache.values[layer].extend_from_slice(v);
            let (keys, values) = (&cache.keys[layer], &cache.values[layer]);
            kernels::attend(q, keys, values, config.kv_heads, config.head_dim, out);
        });
    out
}
