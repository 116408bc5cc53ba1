//! Tuning a language model to put texts into classes: an adapter and a linear head on the last token's state, together, by Adam
//! on the cross-entropy.

use std::path::Path;

use super::{
    AdamW, Frozen, TuneConfig,
    optimizer::{Named, global_norm, rescale, schedule},
    supervised::{add, order_of},
};
use crate::{
    ModelError,
    adapter::Adapter,
    heads::sequence::{SCORE, SequenceHead},
    lora::Dropout,
    loss::classification,
    slm::{
        LanguageModel,
        forward::{Adapted, Keep},
    },
};

/// The head's file beside an adapter's.
const HEAD: &str = "head.safetensors";
/// Records that are scored together, at most.
const TOGETHER: usize = 64;

/// A record to learn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// Its number among the records; several cases may have one.
    pub record: usize,
    /// Its class, from 0.
    pub class: usize,
    /// What it weighs against others; above 0.
    pub weight: f64,
}

/// A model's part that tells classes apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    /// The adapter of the model.
    pub adapter: Adapter,
    /// `[classes, hidden]` on the last token's state.
    pub head: SequenceHead,
}

impl Classifier {
    /// One that has learnt nothing: all classes score 0, so that the first is given.
    pub fn untrained(model: &LanguageModel, adapter: &Adapter, classes: usize) -> Self {
        Self { adapter: adapter.clone(), head: SequenceHead::new(classes, model.config().hidden) }
    }

    /// Writes the adapter as [`Adapter::save`] does, and the head beside it as `head.safetensors`, under the name that
    /// `transformers` gives it.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, folder: &Path, base: &str) -> Result<(), ModelError> {
        self.adapter.save(folder, base)?;
        self.head.save(&folder.join(HEAD))
    }

    /// Tunes an adapter and a head of zeros on cases. A step takes `batch * accumulation` of them, of records run at most `batch`
    /// at a time, and goes against the mean of `weight` times the loss, over the mean weight of all cases. The same cases,
    /// options and seed give the same classifier on the same machine. Without cases it has learnt nothing.
    ///
    /// What the layers below the adapter make of the records should have been computed ([`Frozen::compute`]): every pass needs it.
    /// `max_tokens` is for whoever encodes the records. `cancelled` is asked before each step.
    ///
    /// # Errors
    /// [`ModelError::Config`] for options outside their range, among them `proximal`, which is for rounds; [`ModelError::Input`]
    /// for a case without a record, of no class, or of a weight that is not above 0; [`ModelError::Diverged`] when a step
    /// is not finite; [`ModelError::Stopped`] when cancelled.
    pub fn train(
        model: &LanguageModel,
        adapter: &Adapter,
        records: &Frozen<'_>,
        (cases, classes): (&[Case], usize),
        config: &TuneConfig,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, ModelError> {
        config.check()?;
        if config.proximal > 0.0 {
            let reason = "is for rounds of an adapter; a classifier has none".to_owned();
            return Err(ModelError::Config { option: "proximal", reason });
        }
        check(cases, records.len(), classes)?;
        let mut classifier = Self::untrained(model, adapter, classes);
        if cases.is_empty() {
            return Ok(classifier);
        }
        let mean_weight = cases.iter().map(|case| case.weight).sum::<f64>() / cases.len() as f64;
        let mut optimizer = AdamW::new(config.weight_decay);
        let stride = config.batch * config.accumulation;
        let seen = (cases.len() as f64 * config.epochs).ceil() as usize;
        // The last step of a pass may be a smaller one: a case comes once in it.
        let of_a_pass = cases.len().div_ceil(stride);
        let steps = seen / cases.len() * of_a_pass + (seen % cases.len()).div_ceil(stride);
        let mut order = Vec::new();
        for step in 0..steps {
            if cancelled() {
                return Err(ModelError::Stopped);
            }
            let (pass, in_pass) = (step / of_a_pass, step % of_a_pass);
            if in_pass == 0 {
                order = order_of(config.seed, pass, cases.len());
                order.truncate(seen - pass * cases.len());
            }
            let chosen = order.chunks(stride).nth(in_pass).unwrap_or_default();
            let chosen: Vec<Case> = chosen.iter().map(|at| cases[*at]).collect();
            let divisor = mean_weight * chosen.len() as f64;
            let (loss, mut gradient) =
                classifier.gradient(model, records, (&chosen, divisor), config, step)?;
            let norm = global_norm(&gradient);
            if !(loss.is_finite() && norm.is_finite()) {
                return Err(ModelError::Diverged(format!(
                    "step {} gave the loss {loss} and a gradient of length {norm}; try a smaller learning_rate",
                    step + 1
                )));
            }
            if config.clip > 0.0 && norm > config.clip {
                rescale(&mut gradient, config.clip / norm);
            }
            let rate = schedule(config.learning_rate, config.warmup, step, steps);
            classifier.step(&mut optimizer, &gradient, rate);
        }
        Ok(classifier)
    }

    /// The summed loss of cases, each times its weight over the divisor, and its gradient under the adapter's names and
    /// [`SCORE`].
    fn gradient(
        &self,
        model: &LanguageModel,
        records: &Frozen<'_>,
        (cases, divisor): (&[Case], f64),
        config: &TuneConfig,
        step: usize,
    ) -> Result<(f64, Named), ModelError> {
        let lora = self.adapter.to_device(model.config(), model.device())?;
        let keep = if config.recompute { Keep::Inputs } else { Keep::Traces };
        let (mut loss, mut gradient) = (0.0, Named::new());
        let numbers: Vec<usize> = cases.iter().map(|case| case.record).collect();
        // Several cases of one record are run several times: they are rare.
        for (part, places) in records.pieces_of(&numbers, config.batch).into_iter().enumerate() {
            let stream = (step * config.accumulation + part) as u64;
            let dropout = Dropout { rate: self.adapter.config.dropout, seed: config.seed ^ (stream << 20) };
            let adapted = Adapted { weights: &lora, dropout };
            let rows: Vec<usize> = places.iter().map(|place| cases[*place].record).collect();
            let part = self.head.gradient_from(model, adapted, records, &rows, keep, |scores| {
                let pairs = scores.iter().zip(&places);
                pairs
                    .map(|(scores, place)| {
                        let case = cases[*place];
                        let (of_case, slopes) = classification(scores, case.class);
                        let share = case.weight / divisor;
                        loss += share * of_case;
                        slopes.into_iter().map(|slope| share * slope).collect()
                    })
                    .collect()
            })?;
            add(&mut gradient, part.stacked);
        }
        Ok((loss, gradient))
    }

    /// One step of the optimiser on adapter and head as one.
    fn step(&mut self, optimizer: &mut AdamW, gradient: &Named, rate: f64) {
        let mut all = std::mem::take(&mut self.adapter.tensors);
        all.insert(SCORE.to_owned(), self.head.weight.clone());
        optimizer.step(&mut all, gradient, rate);
        if let Some(weight) = all.remove(SCORE) {
            self.head.weight = weight;
        }
        self.adapter.tensors = all;
    }

    /// The class of the highest score of each record of these numbers, in their order; the first of several. `cancelled` is asked
    /// between batches.
    ///
    /// # Errors
    /// [`ModelError::Stopped`] when cancelled; as [`SequenceHead::scores_from`].
    pub fn classes(
        &self,
        model: &LanguageModel,
        records: &Frozen<'_>,
        rows: &[usize],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<usize>, ModelError> {
        let lora = self.adapter.to_device(model.config(), model.device())?;
        let mut classes = vec![0; rows.len()];
        for places in records.pieces_of(rows, TOGETHER) {
            if cancelled() {
                return Err(ModelError::Stopped);
            }
            let piece: Vec<usize> = places.iter().map(|place| rows[*place]).collect();
            let scores = self.head.scores_from(model, &lora, records, &piece)?;
            for (place, scores) in places.iter().zip(scores) {
                let best =
                    |best: usize, (at, score): (usize, &f64)| if *score > scores[best] { at } else { best };
                classes[*place] = scores.iter().enumerate().fold(0, best);
            }
        }
        Ok(classes)
    }
}

fn check(cases: &[Case], records: usize, classes: usize) -> Result<(), ModelError> {
    let refused = |at: usize, what: &str| Err(ModelError::Input(format!("case {at}: {what}")));
    for (at, case) in cases.iter().enumerate() {
        if case.record >= records {
            return refused(at, &format!("there are {records} records, none of number {}", case.record));
        }
        if case.class >= classes {
            return refused(at, &format!("there are {classes} classes, none of number {}", case.class));
        }
        if !(case.weight > 0.0 && case.weight.is_finite()) {
            return refused(at, "its weight is not a number above 0");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
