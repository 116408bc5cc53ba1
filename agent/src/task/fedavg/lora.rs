//! The adapter of a language model: supervised tuning on the site's texts and answers.

mod private;

use std::sync::Arc;

use sheaf_data::{Dataset, Split};
use sheaf_models::{
    Adapter, LanguageModel, LoraConfig, ModelError,
    train::{
        self, Encoded, Example, TuneConfig, Tuned,
        supervised::{Tuner, encode},
    },
};
use sheaf_proto::fedavg::{
    AdapterSpec, LoraSpec, Measured, Parameters, ParametersFile, RoundSpec, TextEvaluation, Update,
};

use crate::{
    egress::Made,
    error::AgentError,
    models,
    task::{
        Resources,
        parameters::{named, sent},
    },
};

fn task(error: impl std::fmt::Display) -> AgentError {
    AgentError::Task(error.to_string())
}

fn model_error(error: ModelError) -> AgentError {
    match error {
        ModelError::Stopped => AgentError::Cancelled,
        ModelError::Input(problem) => AgentError::Data(problem),
        other => task(other),
    }
}

/// The frozen model, which must be the one that the coordinator means.
fn model(lora: &LoraSpec, resources: &Resources<'_>) -> Result<Arc<LanguageModel>, AgentError> {
    models::check_hash(&lora.model, Some(&lora.model_sha256))?;
    models::language(&lora.model, resources)
}

fn examples(dataset: &Dataset, split: Split) -> Result<Vec<Example>, AgentError> {
    let dialogues = dataset.dialogues(&dataset.rows(split))?;
    let example = |(prompt, response): (&str, &str)| Example {
        prompt: prompt.to_owned(),
        response: response.to_owned(),
    };
    Ok(dialogues.into_iter().map(example).collect())
}

/// An adapter's options as the model reads them.
pub(in crate::task) fn config(spec: &AdapterSpec) -> LoraConfig {
    LoraConfig {
        rank: spec.rank,
        alpha: spec.alpha,
        dropout: spec.dropout,
        targets: spec.targets.clone(),
        layers: spec.layers,
    }
}

/// The adapter that a round begins with: the last round's, or one drawn from the seed, which is the same at every site.
fn adapter(
    lora: &LoraSpec,
    input: Option<&[u8]>,
    model: &LanguageModel,
    seed: u64,
) -> Result<Adapter, AgentError> {
    let config = config(&lora.adapter);
    let Some(input) = input else {
        return Adapter::new(model, &config, seed).map_err(model_error);
    };
    let parameters = <Parameters as ParametersFile>::decode(input).map_err(task)?;
    Ok(Adapter { config, tensors: named(parameters) })
}

/// An adapter tuned from `start` on, or from one drawn by the seed, on token sequences, each with the number of the privacy unit
/// that it belongs to: for workloads that make their own sequences of records.
pub(in crate::task) fn tuned(
    spec: &RoundSpec,
    lora: &LoraSpec,
    start: Option<&[u8]>,
    records: Vec<(usize, Encoded)>,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Adapter, Made), AgentError> {
    let model = model(lora, resources)?;
    let start = adapter(lora, start, &model, spec.training.seed)?;
    if let Some(privacy) = &spec.privacy {
        let records = private::Records::new(records);
        let plan = private::Plan { round: spec, lora, privacy };
        return private::tuned(&plan, start, &records, &model, resources.purse()?, cancelled);
    }
    let records: Vec<Encoded> = records.into_iter().map(|(_, record)| record).collect();
    let config = tune_config(spec, lora);
    let tuner = Tuner::new(&model, &start, &records, &config).map_err(model_error)?;
    Ok((run(tuner, spec.round, cancelled)?.adapter, Made::OfRows(records.len() as u64)))
}

/// All steps of a tuning.
fn run(mut tuner: Tuner<'_>, round: u32, cancelled: &dyn Fn() -> bool) -> Result<Tuned, AgentError> {
    tuner.freeze(cancelled).map_err(model_error)?;
    while let Some(step) = tuner.step().map_err(model_error)? {
        tracing::info!(round, step = step.step, of = step.steps, loss = step.loss, "tuning");
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
    }
    Ok(tuner.finish())
}

fn tune_config(spec: &RoundSpec, lora: &LoraSpec) -> TuneConfig {
    TuneConfig {
        epochs: spec.training.epochs as f64,
        batch: spec.training.batch,
        max_tokens: lora.max_tokens,
        learning_rate: spec.training.learning_rate,
        warmup: 0.0,
        weight_decay: spec.training.weight_decay,
        // Another order in every round, whatever the records are.
        seed: spec.training.seed.wrapping_add(u64::from(spec.round) << 32),
        proximal: spec.training.mu,
        ..TuneConfig::default()
    }
}

/// The adapter that every site begins with: it is drawn from the plan's seed and holds nothing of records.
pub(super) fn start(
    spec: &RoundSpec,
    lora: &LoraSpec,
    resources: &Resources<'_>,
) -> Result<Vec<u8>, AgentError> {
    let drawn = adapter(lora, None, &*model(lora, resources)?, spec.training.seed)?;
    sent(drawn.tensors).encode().map_err(task)
}

/// One round.
pub(super) fn train(
    spec: &RoundSpec,
    lora: &LoraSpec,
    input: Option<&[u8]>,
    dataset: &Dataset,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Update, Made), AgentError> {
    let model = model(lora, resources)?;
    if let Some(privacy) = &spec.privacy {
        let records = private::Records::of(dataset, &privacy.unit, &model, lora.max_tokens)?;
        let plan = private::Plan { round: spec, lora, privacy };
        return private::train(&plan, input, &records, &model, resources.purse()?, cancelled);
    }
    let examples = examples(dataset, Split::Train)?;
    let update = tune(spec, lora, input, &examples, &model, cancelled)?;
    Ok((update, Made::OfRows(examples.len() as u64)))
}

/// A round's tuning: the adapter from where the round begins, and what it has become on the examples.
fn tune(
    spec: &RoundSpec,
    lora: &LoraSpec,
    input: Option<&[u8]>,
    examples: &[Example],
    model: &LanguageModel,
    cancelled: &dyn Fn() -> bool,
) -> Result<Update, AgentError> {
    if examples.is_empty() {
        return Err(AgentError::Data("there are no training records".to_owned()));
    }
    let start = adapter(lora, input, model, spec.training.seed)?;
    let config = tune_config(spec, lora);
    let records = encode(model, examples, config.max_tokens).map_err(model_error)?;
    let tuner = Tuner::new(model, &start, &records, &config).map_err(model_error)?;
    let tuned = run(tuner, spec.round, cancelled)?;
    let parameters = sent(tuned.adapter.tensors);
    let measured = Some(Measured { rows: examples.len() as u64, loss: tuned.mean_loss });
    Ok(Update { parameters, measured })
}

/// How likely the model finds the test records' answers.
pub(super) fn evaluate(
    lora: &LoraSpec,
    input: &[u8],
    dataset: &Dataset,
    resources: &Resources<'_>,
    min_rows: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<TextEvaluation, AgentError> {
    let train_rows = dataset.rows(Split::Train).len() as u64;
    let examples = examples(dataset, Split::Test)?;
    // Figures of a handful of records would be figures of persons.
    if (examples.len() as u64) < min_rows.max(1) {
        return Ok(TextEvaluation { train_rows, test_rows: 0, tokens: 0, nll: 0.0 });
    }
    if cancelled() {
        return Err(AgentError::Cancelled);
    }
    let model = model(lora, resources)?;
    let adapter = adapter(lora, Some(input), &model, 0)?;
    let nll = train::evaluate(&model, Some(&adapter), &examples, lora.max_tokens).map_err(model_error)?;
    Ok(TextEvaluation { train_rows, test_rows: examples.len() as u64, tokens: nll.tokens, nll: nll.sum })
}

#[cfg(test)]
mod tests;
