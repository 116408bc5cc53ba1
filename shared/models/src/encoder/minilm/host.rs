//! The encoder on the CPU: packed weights, several texts in one product, attention text by text.
//!
//! Texts are never padded: the rows of all tokens of a task stand under one another, so that a text's bits depend on
//! nothing beside it, and short texts cost what they are worth.

use super::{Dense, Norm, Weights};
use crate::inference::{Finish, Linear, Panels, Strided, gelu, layer_norm, softmax};

/// The encoder, packed.
#[derive(Clone, Debug)]
pub(crate) struct HostEncoder {
    heads: usize,
    epsilon: f32,
    words: Vec<f32>,
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<HostLayer>,
}

#[derive(Clone, Debug)]
struct HostLayer {
    qkv: Linear,
    out: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

/// What attention needs besides its input, kept from one head to the next.
#[derive(Debug, Default)]
struct Scratch {
    keys: Panels,
    values: Panels,
    scores: Vec<f32>,
}

impl HostEncoder {
    pub(crate) fn new(weights: Weights) -> Self {
        let pack = |dense: &Dense| Linear::new(&dense.weight, &dense.bias);
        let layers = weights.layers.into_iter().map(|layer| HostLayer {
            qkv: pack(&layer.qkv),
            out: pack(&layer.out),
            up: pack(&layer.up),
            down: pack(&layer.down),
            attention_norm: layer.attention_norm,
            norm: layer.norm,
        });
        Self {
            heads: weights.config.num_attention_heads,
            epsilon: weights.config.layer_norm_eps as f32,
            words: weights.words,
            positions: weights.positions,
            norm: weights.norm,
            layers: layers.collect(),
        }
    }

    /// Texts of token ids, none empty, to features `[texts, hidden]`.
    pub(crate) fn forward(&self, texts: &[&[u32]], features: &mut [f32]) {
        let hidden = self.norm.weight.len();
        let tokens: usize = texts.iter().map(|ids| ids.len()).sum();
        let mut x = Vec::with_capacity(tokens * hidden);
        for ids in texts {
            for (&id, position) in ids.iter().zip(self.positions.chunks_exact(hidden)) {
                let word = &self.words[id as usize * hidden..][..hidden];
                x.extend(word.iter().zip(position).map(|(w, p)| w + p));
            }
        }
        layer_norm(&mut x, &self.norm.weight, &self.norm.bias, self.epsilon);
        let lengths: Vec<usize> = texts.iter().map(|ids| ids.len()).collect();
        let mut scratch = Scratch::default();
        let (mut qkv, mut context) = (vec![0.0; tokens * 3 * hidden], vec![0.0; tokens * hidden]);
        let mut wide = vec![0.0; self.layers.first().map_or(0, |layer| tokens * layer.up.outputs())];
        for layer in &self.layers {
            layer.qkv.apply(&x, &mut qkv, Finish::Store);
            let mut start = 0;
            for &length in &lengths {
                let part = start * hidden..(start + length) * hidden;
                let input = &qkv[3 * part.start..3 * part.end];
                self.attention(input, &mut context[part], length, &mut scratch);
                start += length;
            }
            layer.out.apply(&context, &mut x, Finish::Add);
            layer_norm(&mut x, &layer.attention_norm.weight, &layer.attention_norm.bias, self.epsilon);
            layer.up.apply(&x, &mut wide, Finish::Store);
            gelu(&mut wide);
            layer.down.apply(&wide, &mut x, Finish::Add);
            layer_norm(&mut x, &layer.norm.weight, &layer.norm.bias, self.epsilon);
        }
        let mut rest = x.as_slice();
        for (feature, &length) in features.chunks_exact_mut(hidden).zip(&lengths) {
            let (text, behind) = rest.split_at(length * hidden);
            rest = behind;
            pool(text, feature);
        }
    }

    /// One text: `qkv` is `[length, 3 hidden]`, `context` `[length, hidden]`.
    fn attention(&self, qkv: &[f32], context: &mut [f32], length: usize, scratch: &mut Scratch) {
        let hidden = context.len() / length;
        let (dim, stride) = (hidden / self.heads, 3 * hidden);
        let Scratch { keys, values, scores } = scratch;
        scores.resize(length * length, 0.0);
        for head in 0..self.heads {
            let at = |row: usize, part: usize| &qkv[row * stride + part * hidden + head * dim..][..dim];
            keys.pack_columns(dim, length, |n| at(n, 1));
            values.pack_rows(length, dim, |k| at(k, 2));
            let query = Strided { data: &qkv[head * dim..], stride };
            keys.apply(query, length, Strided { data: &mut *scores, stride: length }, Finish::Store);
            softmax(scores, length);
            let out = Strided { data: &mut context[head * dim..], stride: hidden };
            values.apply(Strided { data: &*scores, stride: length }, length, out, Finish::Store);
        }
    }
}

/// The mean over the tokens of `[length, hidden]`, at length 1.
fn pool(text: &[f32], feature: &mut [f32]) {
    feature.fill(0.0);
    for token in text.chunks_exact(feature.len()) {
        feature.iter_mut().zip(token).for_each(|(f, t)| *f += t);
    }
    let tokens = (text.len() / feature.len()) as f32;
    feature.iter_mut().for_each(|f| *f /= tokens);
    let norm = feature.iter().map(|f| f * f).sum::<f32>().sqrt().max(1e-12);
    feature.iter_mut().for_each(|f| *f /= norm);
}
