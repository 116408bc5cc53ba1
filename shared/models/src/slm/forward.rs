//! A whole batch through the decoder, with what the backward pass needs where it is asked for.

use burn::tensor::Tensor;

use super::{Block, LanguageModel};
use crate::{
    ModelError,
    kernels::{Heads, Rotary},
    lora::{Dropout, LoraWeights, Module},
    ops,
};

/// Token sequences, padded on the right to one length. What is behind a sequence's end influences nothing before it,
/// since attention looks back only.
#[derive(Debug, Clone)]
pub struct Batch {
    pub(crate) tokens: Vec<u32>,
    pub(crate) lengths: Vec<usize>,
    pub(crate) length: usize,
}

impl Batch {
    /// A batch of sequences.
    ///
    /// # Errors
    /// [`ModelError::Input`] when there is none or one is empty.
    pub fn new(sequences: &[Vec<u32>]) -> Result<Self, ModelError> {
        let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
        let length = lengths.iter().copied().max().unwrap_or(0);
        if lengths.is_empty() || lengths.contains(&0) {
            return Err(ModelError::Input("a batch needs sequences of at least one token".to_owned()));
        }
        let mut tokens = Vec::with_capacity(lengths.len() * length);
        for sequence in sequences {
            tokens.extend_from_slice(sequence);
            tokens.resize(tokens.len() + length - sequence.len(), 0);
        }
        Ok(Self { tokens, lengths, length })
    }

    /// The row of each sequence's last token among all.
    pub(crate) fn last_rows(&self) -> Vec<u32> {
        let last = |(record, length): (usize, &usize)| (record * self.length + length - 1) as u32;
        self.lengths.iter().enumerate().map(last).collect()
    }

    /// Sequences.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }
}

/// An adapter in use, and in training what it drops.
#[derive(Clone, Copy)]
pub(crate) struct Adapted<'a> {
    pub(crate) weights: &'a LoraWeights,
    pub(crate) dropout: Dropout,
}

/// What a block leaves for its backward pass. Norms, gates and attention weights are computed again there: they cost
/// little and would take most of the memory.
pub(crate) struct BlockTrace {
    /// The block's input `[batch * length, hidden]`.
    pub(crate) input: Tensor<2>,
    /// All but the input; absent where the block is to be run again.
    pub(crate) inner: Option<Inner>,
}

pub(crate) struct Inner {
    /// Rotated queries `[batch * kv, group * length, dim]`.
    pub(crate) q: Tensor<3>,
    /// Rotated keys `[batch * kv, length, dim]`.
    pub(crate) k: Tensor<3>,
    /// Values, likewise.
    pub(crate) v: Tensor<3>,
    /// Attention's result before the output layer `[batch * length, heads * dim]`.
    pub(crate) attended: Tensor<2>,
    /// The residual stream between attention and feed-forward.
    pub(crate) middle: Tensor<2>,
    pub(crate) gate: Tensor<2>,
    pub(crate) up: Tensor<2>,
}

/// A forward pass: the last hidden states and, if asked for, the blocks' traces.
pub(crate) struct Pass {
    /// Before the final norm `[batch * length, hidden]`.
    pub(crate) last: Tensor<2>,
    /// After it.
    pub(crate) hidden: Tensor<2>,
    /// Of the topmost blocks, ascending; the last is of the model's last block.
    pub(crate) traces: Vec<BlockTrace>,
    /// Keys and values by block, where they were to be kept.
    pub(crate) caches: Vec<[Tensor<3>; 2]>,
    pub(crate) rotary: Rotary,
}

/// Where a pass begins: what enters a layer, `[batch * length, hidden]`.
pub(crate) struct Entry {
    pub(crate) layer: usize,
    pub(crate) states: Tensor<2>,
}

/// What a pass should keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing: inference.
    Nothing,
    /// Each block's keys and values: a prompt before generation.
    Cache,
    /// What backward needs, from the lowest block with an adapter on.
    Traces,
    /// These blocks' input alone; backward runs the block again. Less memory, about a third more time.
    Inputs,
}

impl LanguageModel {
    pub(crate) fn heads(&self, batch: &Batch) -> (Heads, Heads) {
        let c = &self.config;
        let (batch, length) = (batch.len(), batch.length);
        let keys = Heads { batch, length, kv: c.kv_heads, group: 1, dim: c.head_dim };
        (Heads { group: c.heads / c.kv_heads, ..keys }, keys)
    }

    pub(crate) fn check_tokens(&self, batch: &Batch) -> Result<(), ModelError> {
        if let Some(token) = batch.tokens.iter().find(|token| **token as usize >= self.config.vocab) {
            return Err(ModelError::Input(format!(
                "token {token} is not in the vocabulary of {}; the tokenizer is of another model",
                self.config.vocab
            )));
        }
        if batch.length > self.config.max_positions {
            return Err(ModelError::Input(format!(
                "{} tokens are more than the {} that the model was made for; shorten the text",
                batch.length, self.config.max_positions
            )));
        }
        Ok(())
    }

    pub(crate) fn run(
        &self,
        batch: &Batch,
        adapted: Option<Adapted<'_>>,
        keep: Keep,
    ) -> Result<Pass, ModelError> {
        Ok(self.run_from(self.begin(batch)?, batch, adapted, keep))
    }

    /// The entry of a whole pass: the tokens' embeddings.
    pub(crate) fn begin(&self, batch: &Batch) -> Result<Entry, ModelError> {
        self.check_tokens(batch)?;
        let tokens = ops::indices(&batch.tokens, &self.device);
        Ok(Entry { layer: 0, states: self.embedding.clone().select(0, tokens) })
    }

    fn rotary(&self, batch: &Batch) -> Rotary {
        Rotary::new(0..batch.length, self.config.head_dim, self.config.rope_theta)
    }

    /// What enters a layer where none below it has an adapter, `[batch * length, hidden]`.
    pub(crate) fn entering(&self, batch: &Batch, layer: usize) -> Result<Tensor<2>, ModelError> {
        let rotary = self.rotary(batch);
        let through = |x: Tensor<2>, (layer, block): (usize, &Block)| {
            self.block(block, layer, &x, batch, &rotary, None).0
        };
        let x = self.begin(batch)?.states;
        Ok(self.blocks.iter().enumerate().take(layer).fold(x, through))
    }

    /// A pass from a layer on. No layer below it may have an adapter.
    pub(crate) fn run_from(
        &self,
        entry: Entry,
        batch: &Batch,
        adapted: Option<Adapted<'_>>,
        keep: Keep,
    ) -> Pass {
        let rotary = self.rotary(batch);
        let Entry { layer: first, states: mut x } = entry;
        let (mut traces, mut caches) = (Vec::new(), Vec::new());
        let lowest = match keep {
            Keep::Nothing | Keep::Cache => self.blocks.len(),
            Keep::Traces | Keep::Inputs => adapted.map_or(0, |adapted| adapted.weights.lowest()),
        };
        for (layer, block) in self.blocks.iter().enumerate().skip(first) {
            let (output, inner) = self.block(block, layer, &x, batch, &rotary, adapted);
            if keep == Keep::Cache {
                caches.push([inner.k, inner.v]);
            } else if layer >= lowest {
                let inner = (keep != Keep::Inputs).then_some(inner);
                traces.push(BlockTrace { input: x, inner });
            }
            x = output;
        }
        let hidden = ops::rms_norm(&x, &self.final_norm, self.config.rms_eps);
        Pass { last: x, hidden, traces, caches, rotary }
    }

    pub(crate) fn block(
        &self,
        block: &Block,
        layer: usize,
        x: &Tensor<2>,
        batch: &Batch,
        rotary: &Rotary,
        adapted: Option<Adapted<'_>>,
    ) -> (Tensor<2>, Inner) {
        let eps = self.config.rms_eps;
        let (query_heads, key_heads) = self.heads(batch);
        let apply = |module: Module, x: &Tensor<2>| adapted_linear(block, layer, module, x, adapted);
        let normed = ops::rms_norm(x, &block.attention_norm, eps);
        let q = ops::split_heads(apply(Module::Query, &normed), query_heads, Some(rotary));
        let k = ops::split_heads(apply(Module::Key, &normed), key_heads, Some(rotary));
        let v = ops::split_heads(apply(Module::Value, &normed), key_heads, None);
        let weights = ops::attention_weights(&q, &k, query_heads);
        let attended = ops::merge_heads(weights.matmul(v.clone()), query_heads, None);
        let middle = x.clone() + apply(Module::Output, &attended);
        let normed = ops::rms_norm(&middle, &block.feed_forward_norm, eps);
        let (gate, up) = (apply(Module::Gate, &normed), apply(Module::Up, &normed));
        let output = middle.clone() + apply(Module::Down, &ops::swiglu(&gate, &up));
        (output, Inner { q, k, v, attended, middle, gate, up })
    }
}

/// `W x`, and the adapter's part where the module has one.
pub(crate) fn adapted_linear(
    block: &Block,
    layer: usize,
    module: Module,
    x: &Tensor<2>,
    adapted: Option<Adapted<'_>>,
) -> Tensor<2> {
    let y = ops::linear(x, block.weight(module));
    let Some((adapted, pair)) = adapted.and_then(|a| a.weights.pair(layer, module).map(|pair| (a, pair)))
    else {
        return y;
    };
    let low = ops::linear(&adapted.dropout.apply(x, layer, module), &pair.a);
    y + ops::linear(&low, &pair.b).mul_scalar(adapted.weights.scale)
}
