//! Supervised tuning of an adapter, and what a model thinks of held-out examples.

use std::{ops::ControlFlow, time::Instant};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    AdamW, Encoded, Example, Frozen,
    example::TokenBatch,
    optimizer::{Named, global_norm, rescale, schedule},
};
use crate::{
    ModelError,
    adapter::{Adapter, tensor_name},
    lora::{Dropout, LoraWeights, Module},
    loss::{token_log_p, token_loss},
    ops,
    slm::{
        LanguageModel,
        backward::{Gradients, backward},
        forward::{Adapted, Keep},
    },
    weights::HostTensor,
};

/// How to tune.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TuneConfig {
    /// Passes over the examples; may be a fraction.
    pub epochs: f64,
    /// Examples a forward pass.
    pub batch: usize,
    /// Forward passes a step of the optimiser.
    pub accumulation: usize,
    /// Longer examples are cut.
    pub max_tokens: usize,
    /// At its peak.
    pub learning_rate: f64,
    /// Share of the steps over which the rate rises.
    pub warmup: f64,
    /// AdamW's.
    pub weight_decay: f64,
    /// Gradients longer than this are scaled down to it; 0 for never.
    pub clip: f64,
    /// Of the order of examples and of dropout.
    pub seed: u64,
    /// FedProx (Li et al. 2020, arXiv 1812.06127): pull towards where the tuning began; 0 for none.
    pub proximal: f64,
    /// Run each block again in the backward pass: less memory, about a third more time.
    pub recompute: bool,
}

impl Default for TuneConfig {
    fn default() -> Self {
        Self {
            epochs: 1.0,
            batch: 4,
            accumulation: 1,
            max_tokens: 256,
            learning_rate: 2e-4,
            warmup: 0.05,
            weight_decay: 0.0,
            clip: 1.0,
            seed: 0,
            proximal: 0.0,
            recompute: false,
        }
    }
}

impl TuneConfig {
    /// # Errors
    /// [`ModelError::Config`] for a value outside its range.
    pub fn check(&self) -> Result<(), ModelError> {
        let refused = |option, reason: &str| Err(ModelError::Config { option, reason: reason.to_owned() });
        if !(self.epochs > 0.0 && self.epochs <= 10_000.0) {
            return refused("epochs", "must be above 0 and at most 10000");
        }
        if !(1..=4096).contains(&self.batch) || !(1..=4096).contains(&self.accumulation) {
            return refused("batch", "batch and accumulation must be between 1 and 4096");
        }
        if !(4..=65_536).contains(&self.max_tokens) {
            return refused("max_tokens", "must be between 4 and 65536");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate < 10.0) {
            return refused("learning_rate", "must be above 0 and below 10");
        }
        if !(0.0..=1.0).contains(&self.warmup) {
            return refused("warmup", "is a share of the steps: 0 to 1");
        }
        for (option, value) in
            [("weight_decay", self.weight_decay), ("clip", self.clip), ("proximal", self.proximal)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return refused(option, "must be 0 or more");
            }
        }
        Ok(())
    }
}

/// What one step of the optimiser did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// From 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Mean negative log-likelihood of a predicted token, in nats, before the step.
    pub loss: f64,
    /// Length of the gradient before clipping.
    pub gradient_norm: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// Tokens run through the model, padding included.
    pub tokens: u64,
    /// Wall seconds of the step.
    pub seconds: f64,
}

/// A finished tuning.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// The adapter.
    pub adapter: Adapter,
    /// Steps done.
    pub steps: usize,
    /// Tokens predicted, over all steps.
    pub tokens: u64,
    /// Mean loss of all steps, weighted by their tokens.
    pub mean_loss: f64,
}

/// Negative log-likelihood of predicted tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Nll {
    /// In nats.
    pub sum: f64,
    /// How many.
    pub tokens: u64,
}

impl Nll {
    /// `e` to the mean.
    pub fn perplexity(&self) -> f64 {
        (self.sum / self.tokens.max(1) as f64).exp()
    }
}

/// A tuning in progress: step by step, so that it can be watched, kept and gone on with.
pub struct Tuner<'a> {
    model: &'a LanguageModel,
    examples: Frozen<'a>,
    config: TuneConfig,
    start: Named,
    pub(crate) adapter: Adapter,
    pub(crate) optimizer: AdamW,
    pub(crate) done: usize,
    tokens: u64,
    loss_sum: f64,
}

impl<'a> Tuner<'a> {
    /// Begins a tuning from an adapter.
    ///
    /// # Errors
    /// [`ModelError::Config`], [`ModelError::Input`] for no examples, [`ModelError::Tensor`] for an adapter of another
    /// model.
    pub fn new(
        model: &'a LanguageModel,
        adapter: &Adapter,
        examples: &'a [Encoded],
        config: &TuneConfig,
    ) -> Result<Self, ModelError> {
        config.check()?;
        adapter.to_device(model.config(), model.device())?;
        if examples.is_empty() {
            return Err(ModelError::Input("there are no examples to tune on".to_owned()));
        }
        Ok(Self {
            model,
            examples: Frozen::none(examples),
            start: if config.proximal > 0.0 { adapter.tensors.clone() } else { Named::new() },
            adapter: adapter.clone(),
            optimizer: AdamW::new(config.weight_decay),
            config: config.clone(),
            done: 0,
            tokens: 0,
            loss_sum: 0.0,
        })
    }

    /// Computes once what the layers below the adapter make of the examples, where there are such layers and an example comes
    /// more than once: steps are faster then. `cancelled` is asked between batches.
    ///
    /// # Errors
    /// As [`Frozen::compute`].
    pub fn freeze(&mut self, cancelled: &dyn Fn() -> bool) -> Result<(), ModelError> {
        if self.config.epochs > 1.0 {
            let records = self.examples.records;
            self.examples = Frozen::compute(self.model, &self.adapter.config, records, cancelled)?;
        }
        Ok(())
    }

    /// Examples a step.
    fn stride(&self) -> usize {
        self.config.batch * self.config.accumulation
    }

    /// Steps of the whole tuning.
    pub fn steps(&self) -> usize {
        let examples = (self.examples.len() as f64 * self.config.epochs).ceil() as usize;
        examples.div_ceil(self.stride()).max(1)
    }

    /// Steps done so far.
    pub const fn done(&self) -> usize {
        self.done
    }

    /// The adapter as it is now.
    pub const fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// The numbers of a step's examples. Each pass over them has an order of its own, drawn from the seed and the pass alone, so
    /// that a tuning that is gone on with sees what it would have seen.
    fn examples_of(&self, step: usize) -> Vec<usize> {
        let count = self.examples.len();
        let mut order: Option<(usize, Vec<usize>)> = None;
        (step * self.stride()..(step + 1) * self.stride())
            .map(|at| {
                let pass = at / count;
                if order.as_ref().is_none_or(|(of, _)| *of != pass) {
                    order = Some((pass, order_of(self.config.seed, pass, count)));
                }
                order.as_ref().map_or(0, |(_, order)| order[at % count])
            })
            .collect()
    }

    /// One step of the optimiser; `None` when all are done.
    ///
    /// # Errors
    /// [`ModelError::Diverged`] when the loss or a gradient is not finite; the adapter stays as it was.
    pub fn step(&mut self) -> Result<Option<Step>, ModelError> {
        let steps = self.steps();
        if self.done >= steps {
            return Ok(None);
        }
        let began = Instant::now();
        let rows = self.examples_of(self.done);
        let targets: usize = rows.iter().map(|row| self.examples.records[*row].targets()).sum();
        let lora = self.adapter.to_device(self.model.config(), self.model.device())?;
        let (mut gradients, mut loss, mut tokens) = (Named::new(), 0.0, 0);
        for (part, rows) in rows.chunks(self.config.batch).enumerate() {
            let (mut batch, entry) = self.examples.batch(self.model, &lora, rows)?;
            batch.targets.weights.fill(1.0 / targets.max(1) as f32);
            let stream = (self.done * self.config.accumulation + part) as u64;
            let dropout =
                Dropout { rate: self.adapter.config.dropout, seed: self.config.seed ^ (stream << 20) };
            let adapted = Adapted { weights: &lora, dropout };
            let keep = if self.config.recompute { Keep::Inputs } else { Keep::Traces };
            let pass = self.model.run_from(entry, &batch.batch, Some(adapted), keep);
            let (log_p, d_hidden) = token_loss(self.model, &pass.hidden, &batch.targets);
            loss -= log_p.iter().map(|p| f64::from(*p)).sum::<f64>();
            tokens += (batch.batch.len() * batch.batch.length) as u64;
            let part = backward(self.model, &batch.batch, adapted, pass, d_hidden, false);
            add(&mut gradients, to_host(part));
        }
        let loss = loss / targets.max(1) as f64;
        for (name, start) in &self.start {
            if let (Some(gradient), Some(now)) = (gradients.get_mut(name), self.adapter.tensors.get(name)) {
                for ((g, now), start) in gradient.data.iter_mut().zip(&now.data).zip(&start.data) {
                    *g += self.config.proximal as f32 * (now - start);
                }
            }
        }
        let norm = global_norm(&gradients);
        if !(loss.is_finite() && norm.is_finite()) {
            return Err(ModelError::Diverged(format!(
                "step {} gave the loss {loss} and a gradient of length {norm}; try a smaller learning_rate",
                self.done + 1
            )));
        }
        if self.config.clip > 0.0 && norm > self.config.clip {
            rescale(&mut gradients, self.config.clip / norm);
        }
        let learning_rate = schedule(self.config.learning_rate, self.config.warmup, self.done, steps);
        self.optimizer.step(&mut self.adapter.tensors, &gradients, learning_rate);
        self.done += 1;
        self.tokens += targets as u64;
        self.loss_sum += loss * targets as f64;
        Ok(Some(Step {
            step: self.done,
            steps,
            loss,
            gradient_norm: norm,
            learning_rate,
            tokens,
            seconds: began.elapsed().as_secs_f64(),
        }))
    }

    /// Ends the tuning where it is.
    pub fn finish(self) -> Tuned {
        Tuned {
            steps: self.done,
            tokens: self.tokens,
            mean_loss: self.loss_sum / self.tokens.max(1) as f64,
            adapter: self.adapter,
        }
    }
}

/// The order of so many examples in a pass over them, drawn from the seed and the pass alone.
pub fn order_of(seed: u64, pass: usize, count: usize) -> Vec<usize> {
    let mut shuffled: Vec<usize> = (0..count).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(pass as u64);
    shuffled.shuffle(&mut random);
    shuffled
}

/// Device gradients of one record, or of all together, under the adapter's names.
pub(crate) fn to_host(gradients: Gradients) -> Named {
    let mut named = Named::new();
    for (layer, modules) in gradients.into_iter().enumerate() {
        for (module, pair) in Module::ALL.into_iter().zip(modules) {
            let Some(pair) = pair else { continue };
            for (part, tensor) in [('A', pair.a), ('B', pair.b)] {
                let [records, rows, columns] = tensor.dims();
                let shape = vec![records * rows, columns];
                named.insert(tensor_name(layer, module, part), HostTensor { shape, data: ops::host(tensor) });
            }
        }
    }
    named
}

/// Adds gradients of the same names and shapes; the first of them to nothing.
pub(crate) fn add(sum: &mut Named, more: Named) {
    if sum.is_empty() {
        *sum = more;
        return;
    }
    for (name, more) in more {
        if let Some(sum) = sum.get_mut(&name) {
            for (sum, more) in sum.data.iter_mut().zip(more.data) {
                *sum += more;
            }
        }
    }
}

/// Tunes an adapter on examples. `progress` is told every step and may break, which ends the tuning with what there is.
///
/// # Errors
/// As [`Tuner::new`] and [`Tuner::step`].
pub fn tune(
    model: &LanguageModel,
    adapter: &Adapter,
    examples: &[Example],
    config: &TuneConfig,
    progress: &mut dyn FnMut(&Step) -> ControlFlow<()>,
) -> Result<Tuned, ModelError> {
    let encoded = encode(model, examples, config.max_tokens)?;
    let mut tuner = Tuner::new(model, adapter, &encoded, config)?;
    while let Some(step) = tuner.step()? {
        if progress(&step).is_break() {
            break;
        }
    }
    Ok(tuner.finish())
}

/// Encodes examples.
///
/// # Errors
/// As [`LanguageModel::encode_example`], with the example's number.
pub fn encode(
    model: &LanguageModel,
    examples: &[Example],
    max_tokens: usize,
) -> Result<Vec<Encoded>, ModelError> {
    examples
        .iter()
        .enumerate()
        .map(|(index, example)| {
            model.encode_example(example, max_tokens).map_err(|e| match e {
                ModelError::Input(reason) => ModelError::Input(format!("example {index}: {reason}")),
                other => other,
            })
        })
        .collect()
}

/// Negative log-likelihood of the examples' responses.
///
/// # Errors
/// As [`tune`].
pub fn evaluate(
    model: &LanguageModel,
    adapter: Option<&Adapter>,
    examples: &[Example],
    max_tokens: usize,
) -> Result<Nll, ModelError> {
    let lora = adapter.map(|adapter| adapter.to_device(model.config(), model.device())).transpose()?;
    let mut nll = Nll::default();
    for log_p in response_log_p(model, lora.as_ref(), &encode(model, examples, max_tokens)?)? {
        nll.sum -= log_p.sum;
        nll.tokens += log_p.tokens;
    }
    Ok(nll)
}

/// The summed log-probability of the responses of the records of these numbers, from what has been computed of them on; in
/// their order. `cancelled` is asked between batches.
///
/// # Errors
/// [`ModelError::Stopped`] when cancelled; [`ModelError::Input`] for over-long records, or when a layer that was taken to be
/// frozen has an adapter.
pub fn response_log_p_from(
    model: &LanguageModel,
    lora: &LoraWeights,
    records: &Frozen<'_>,
    rows: &[usize],
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Nll>, ModelError> {
    let adapted = Adapted { weights: lora, dropout: Dropout { rate: 0.0, seed: 0 } };
    let mut sums = vec![Nll::default(); rows.len()];
    for places in records.pieces_of(rows, usize::MAX) {
        if cancelled() {
            return Err(ModelError::Stopped);
        }
        let piece: Vec<usize> = places.iter().map(|place| rows[*place]).collect();
        let (batch, entry) = records.batch(model, lora, &piece)?;
        let pass = model.run_from(entry, &batch.batch, Some(adapted), Keep::Nothing);
        let log_p = token_log_p(model, &pass.hidden, &batch.targets);
        for (place, span) in places.iter().zip(&batch.spans) {
            let sum = log_p[span.clone()].iter().map(|p| f64::from(*p)).sum();
            sums[*place] = Nll { sum, tokens: span.len() as u64 };
        }
    }
    Ok(sums)
}

/// The summed log-probability of each record's response.
///
/// # Errors
/// [`ModelError::Input`] for over-long records.
pub fn response_log_p(
    model: &LanguageModel,
    lora: Option<&LoraWeights>,
    records: &[Encoded],
) -> Result<Vec<Nll>, ModelError> {
    let adapted = lora.map(|weights| Adapted { weights, dropout: Dropout { rate: 0.0, seed: 0 } });
    let mut sums = Vec::new();
    for records in records.chunks(8) {
        let batch = TokenBatch::new(&records.iter().collect::<Vec<_>>())?;
        let pass = model.run(&batch.batch, adapted, Keep::Nothing)?;
        let log_p = token_log_p(model, &pass.hidden, &batch.targets);
        sums.extend(batch.spans.iter().map(|span| Nll {
            sum: log_p[span.clone()].iter().map(|p| f64::from(*p)).sum(),
            tokens: span.len() as u64,
        }));
    }
    Ok(sums)
}
