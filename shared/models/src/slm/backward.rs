//! The backward pass by hand: gradients of the adapters alone, for the batch or for each record.

use burn::tensor::Tensor;

use super::{
    LanguageModel,
    forward::{Adapted, Batch, Inner, Pass},
};
use crate::{lora::Module, ops};

/// Gradients of one adapter: `a` `[records, rank, in]`, `b` `[records, out, rank]`. For a batch as a whole there is
/// one record.
#[derive(Clone)]
pub(crate) struct PairGradient {
    pub(crate) a: Tensor<3>,
    pub(crate) b: Tensor<3>,
}

/// Gradients by layer and module.
pub(crate) type Gradients = Vec<[Option<PairGradient>; 7]>;

struct Backward<'a> {
    model: &'a LanguageModel,
    batch: &'a Batch,
    adapted: Adapted<'a>,
    /// Records that gradients are kept apart for; 1 for their sum.
    records: usize,
}

/// Goes back from the gradient of the final hidden states (after the final norm), `[batch * length, hidden]`. The
/// pass must have kept traces or inputs. With `per_record` the gradients of the records are kept apart, which costs
/// no more than their sum but the memory for them.
pub(crate) fn backward(
    model: &LanguageModel,
    batch: &Batch,
    adapted: Adapted<'_>,
    pass: Pass,
    d_hidden: Tensor<2>,
    per_record: bool,
) -> Gradients {
    let records = if per_record { batch.len() } else { 1 };
    let work = Backward { model, batch, adapted, records };
    let Pass { last, mut traces, rotary, .. } = pass;
    let zero = last.zeros_like();
    let mut dx = ops::rms_norm_backward(d_hidden, &last, &model.final_norm, model.config.rms_eps, &zero);
    drop(last);
    let mut gradients: Gradients = vec![Default::default(); model.blocks.len()];
    // There are traces of the blocks from the lowest adapted one on: nothing below needs a gradient.
    let lowest = model.blocks.len() - traces.len();
    while let Some(trace) = traces.pop() {
        let layer = lowest + traces.len();
        let inner = trace.inner.unwrap_or_else(|| {
            model.block(&model.blocks[layer], layer, &trace.input, batch, &rotary, Some(adapted)).1
        });
        dx = work.block(layer, &trace.input, inner, &rotary, dx, &mut gradients[layer]);
    }
    gradients
}

impl Backward<'_> {
    fn block(
        &self,
        layer: usize,
        input: &Tensor<2>,
        inner: Inner,
        rotary: &crate::kernels::Rotary,
        dx: Tensor<2>,
        gradients: &mut [Option<PairGradient>; 7],
    ) -> Tensor<2> {
        let model = self.model;
        let (block, eps) = (&model.blocks[layer], model.config.rms_eps);
        let (query_heads, key_heads) = model.heads(self.batch);
        let Inner { q, k, v, attended, middle, gate, up } = inner;

        // Feed-forward: out = middle + down(silu(gate) * up)
        let gated = ops::swiglu(&gate, &up);
        let d_gated = self.linear(layer, Module::Down, &gated, &dx, gradients);
        drop(gated);
        let (d_gate, d_up) = ops::swiglu_backward(d_gated, gate, up);
        let normed = ops::rms_norm(&middle, &block.feed_forward_norm, eps);
        let d_normed = self.linear(layer, Module::Gate, &normed, &d_gate, gradients)
            + self.linear(layer, Module::Up, &normed, &d_up, gradients);
        let dx = ops::rms_norm_backward(d_normed, &middle, &block.feed_forward_norm, eps, &dx);

        // Attention: middle = input + output(softmax(q k') v)
        let d_attended = self.linear(layer, Module::Output, &attended, &dx, gradients);
        let d_attended = ops::split_heads(d_attended, query_heads, None);
        let weights = ops::attention_weights(&q, &k, query_heads);
        let d_v = weights.clone().transpose().matmul(d_attended.clone());
        let d_weights = d_attended.matmul(v.transpose());
        let d_scores = ops::attention_weights_backward(d_weights, &weights, query_heads);
        let d_q = d_scores.clone().matmul(k);
        let d_k = d_scores.transpose().matmul(q);
        let d_q = ops::merge_heads(d_q, query_heads, Some(rotary));
        let d_k = ops::merge_heads(d_k, key_heads, Some(rotary));
        let d_v = ops::merge_heads(d_v, key_heads, None);
        let normed = ops::rms_norm(input, &block.attention_norm, eps);
        let d_normed = self.linear(layer, Module::Query, &normed, &d_q, gradients)
            + self.linear(layer, Module::Key, &normed, &d_k, gradients)
            + self.linear(layer, Module::Value, &normed, &d_v, gradients);
        ops::rms_norm_backward(d_normed, input, &block.attention_norm, eps, &dx)
    }

    /// Gradient of a linear layer's input; the adapter's own gradients go to `gradients`.
    fn linear(
        &self,
        layer: usize,
        module: Module,
        x: &Tensor<2>,
        dy: &Tensor<2>,
        gradients: &mut [Option<PairGradient>; 7],
    ) -> Tensor<2> {
        let dx = dy.clone().matmul(self.model.blocks[layer].weight(module).clone());
        let Adapted { weights, dropout } = self.adapted;
        let Some(pair) = weights.pair(layer, module) else {
            return dx;
        };
        let by_record = |t: Tensor<2>| {
            let [rows, width] = t.dims();
            t.reshape([self.records, rows / self.records, width])
        };
        let x = dropout.apply(x, layer, module);
        let d_low = dy.clone().matmul(pair.b.clone()).mul_scalar(weights.scale);
        let low = ops::linear(&x, &pair.a).mul_scalar(weights.scale);
        let shape = x.dims();
        gradients[module as usize] = Some(PairGradient {
            a: by_record(d_low.clone()).transpose().matmul(by_record(x)),
            b: by_record(dy.clone()).transpose().matmul(by_record(low)),
        });
        let through = d_low.matmul(pair.a.clone());
        if dropout.rate == 0.0 {
            return dx + through;
        }
        dx + through * dropout.mask(shape, layer, module, &dy.device())
    }
}
