//! Language models of this process with adapters: what the coordinator of a RewardDS run asks of them.

use std::sync::Arc;

use sheaf_agent::{
    error::AgentError,
    models,
    task::{
        Resources,
        parameters::{named, sent},
        rewardds::{
            language,
            reward::{Responses, Sequences},
        },
    },
};
use sheaf_coordinator::{
    error::Error,
    models::adapted::{AdaptedModels, Ask, Drawing, TargetTuning, TunedTarget, Watch, Writer},
};
use sheaf_models::{
    Adapter, LanguageModel, ModelError,
    heads::embedding::EmbeddingHead,
    slm::generate::Sampling,
    train::{Frozen, RewardModel, TuneConfig, supervised::Tuner},
};
use sheaf_proto::{
    fedavg::{AdapterSpec, Parameters},
    rewardds::{Exchange, Generator, RewardForm, Target, Written},
};

use super::Local;

/// Those of [`super::BuiltIn`].
pub(super) struct WithAdapters(pub(super) Local);

fn failed(error: ModelError) -> Error {
    match error {
        ModelError::Stopped => stopped(),
        other => Error::invalid(format!("the language model: {other}")),
    }
}

fn of_agent(error: AgentError) -> Error {
    match error {
        AgentError::Cancelled => stopped(),
        other => Error::invalid(other.to_string()),
    }
}

fn stopped() -> Error {
    Error::transient("stopped; the next coordinator does it again")
}

fn sampling(how: Drawing) -> Sampling {
    Sampling {
        max_tokens: how.max_tokens,
        temperature: how.temperature,
        top_p: how.top_p,
        top_k: 0,
        ..Sampling::default()
    }
}

/// Does a list in pieces of about a batch, telling how far it is.
fn in_batches<T, R>(
    all: &[T],
    watch: Watch<'_>,
    mut one: impl FnMut(&[T], &dyn Fn() -> bool) -> Result<Vec<R>, Error>,
) -> Result<Vec<R>, Error> {
    let cancelled = || watch.stop.is_cancelled();
    let mut done = Vec::with_capacity(all.len());
    for piece in all.chunks(language::BATCH) {
        (watch.tell)(done.len() as u64, all.len() as u64);
        done.extend(one(piece, &cancelled)?);
    }
    Ok(done)
}

impl WithAdapters {
    fn resources(&self) -> Resources<'_> {
        Resources::new(&self.0.assets, &self.0.cache, None, self.0.device)
    }

    fn model(&self, name: &str) -> Result<Arc<LanguageModel>, Error> {
        models::language(name, &self.resources()).map_err(of_agent)
    }

    /// The model of a proxy and its adapter on the device.
    fn writer(&self, (generator, parameters): Writer<'_>) -> Result<(Arc<LanguageModel>, Adapter), Error> {
        Ok((self.model(&generator.model)?, language::adapter(&generator.adapter, parameters)))
    }
}

impl AdaptedModels for WithAdapters {
    fn first_adapter(&self, model: &str, adapter: &AdapterSpec, seed: u64) -> Result<Parameters, Error> {
        let model = self.model(model)?;
        let drawn = Adapter::new(&model, &language::config(adapter), seed).map_err(failed)?;
        Ok(sent(drawn.tensors))
    }

    fn first_reward(&self, generator: &Generator, form: &RewardForm, seed: u64) -> Result<Parameters, Error> {
        let named = match form {
            RewardForm::Embedding { encoder } => {
                let (dim, _) = sheaf_agent::features::embed(&[], encoder, &self.resources(), &|| false)
                    .map_err(of_agent)?;
                EmbeddingHead::linear(4 * dim, 1).parameters().clone()
            }
            RewardForm::LanguageModel { adapter, .. } => {
                let model = self.model(&generator.model)?;
                let drawn = Adapter::new(&model, &language::config(adapter), seed).map_err(failed)?;
                RewardModel::untrained(&model, &drawn).parameters()
            }
        };
        Ok(sent(named))
    }

    fn queries(
        &self,
        proxy: Writer<'_>,
        asks: &[Ask],
        how: Drawing,
        watch: Watch<'_>,
    ) -> Result<Vec<Written>, Error> {
        let (model, adapter) = self.writer(proxy)?;
        let lora = adapter.to_device(model.config(), model.device()).map_err(failed)?;
        in_batches(asks, watch, |piece, cancelled| {
            let requests: Vec<(String, u64)> = piece.iter().map(|ask| (ask.text.clone(), ask.seed)).collect();
            language::queries(&model, &lora, &requests, &sampling(how), cancelled).map_err(failed)
        })
    }

    fn responses(
        &self,
        proxy: Writer<'_>,
        asks: &[(Exchange, u64)],
        how: Drawing,
        watch: Watch<'_>,
    ) -> Result<Vec<Written>, Error> {
        let (model, adapter) = self.writer(proxy)?;
        let lora = adapter.to_device(model.config(), model.device()).map_err(failed)?;
        in_batches(asks, watch, |piece, cancelled| {
            language::responses(&model, &lora, proxy.0, piece, &sampling(how), cancelled).map_err(failed)
        })
    }

    fn perplexities(
        &self,
        proxy: Writer<'_>,
        exchanges: &[Exchange],
        watch: Watch<'_>,
    ) -> Result<Vec<f64>, Error> {
        let (model, adapter) = self.writer(proxy)?;
        let lora = adapter.to_device(model.config(), model.device()).map_err(failed)?;
        in_batches(exchanges, watch, |piece, cancelled| {
            let records = piece.iter().map(|exchange| language::encoded(&model, proxy.0, exchange, false));
            let records = records.collect::<Result<Vec<_>, _>>().map_err(failed)?;
            let nll = language::mean_nll(&model, &lora, &Frozen::none(&records), false, cancelled);
            Ok(nll.map_err(failed)?.into_iter().map(f64::exp).collect())
        })
    }

    fn rewards(
        &self,
        generator: &Generator,
        (form, parameters): (&RewardForm, &Parameters),
        pairs: &[(&str, &str)],
        watch: Watch<'_>,
    ) -> Result<Vec<f64>, Error> {
        (watch.tell)(0, pairs.len() as u64);
        let model = self.model(&generator.model)?;
        let cancelled = || watch.stop.is_cancelled();
        let sequences = Sequences::of(form, &model, pairs).map_err(of_agent)?;
        let responses = Responses::of(form, &model, (pairs, &sequences), &self.resources(), &cancelled)
            .map_err(of_agent)?;
        responses.scores(&named(parameters.clone()), &cancelled).map_err(of_agent)
    }

    fn answers(
        &self,
        target: &Target,
        adapter: Option<&Parameters>,
        asks: &[Ask],
        how: Drawing,
        watch: Watch<'_>,
    ) -> Result<Vec<Written>, Error> {
        let model = self.model(&target.model)?;
        let lora = adapter.map(|parameters| {
            language::adapter(&target.adapter, parameters).to_device(model.config(), model.device())
        });
        let lora = lora.transpose().map_err(failed)?;
        in_batches(asks, watch, |piece, cancelled| {
            let questions: Vec<(String, u64)> =
                piece.iter().map(|ask| (ask.text.clone(), ask.seed)).collect();
            language::answers(&model, lora.as_ref(), &questions, &sampling(how), cancelled).map_err(failed)
        })
    }

    fn tune(
        &self,
        target: &Target,
        start: Option<&Parameters>,
        examples: &[(String, String)],
        held: &[(String, String)],
        how: &TargetTuning,
        watch: Watch<'_>,
    ) -> Result<TunedTarget, Error> {
        let model = self.model(&target.model)?;
        let config = language::config(&target.adapter);
        let start = match start {
            Some(parameters) => language::adapter(&target.adapter, parameters),
            None => Adapter::new(&model, &config, how.seed).map_err(failed)?,
        };
        if examples.is_empty() {
            let adapter = sent(start.tensors);
            return Ok(TunedTarget { adapter, held: Vec::new(), pass: 0, tokens: 0 });
        }
        let cancelled = || watch.stop.is_cancelled();
        let encode = |pairs: &[(String, String)]| {
            let one = |(query, response): &(String, String)| {
                language::example(&model, target, query, response).map(|(_, encoded)| encoded)
            };
            pairs.iter().map(one).collect::<Result<Vec<_>, _>>().map_err(failed)
        };
        let (records, held) = (encode(examples)?, encode(held)?);
        let frozen = Frozen::compute(&model, &config, &held, &cancelled).map_err(failed)?;
        let liked = |adapter: &Adapter| -> Result<Option<f64>, Error> {
            if held.is_empty() {
                return Ok(None);
            }
            let lora = adapter.to_device(model.config(), model.device()).map_err(failed)?;
            let nll = language::mean_nll(&model, &lora, &frozen, false, &cancelled).map_err(failed)?;
            Ok(Some(nll.iter().sum::<f64>() / nll.len() as f64))
        };
        let tuning = TuneConfig {
            epochs: how.epochs as f64,
            batch: how.batch,
            max_tokens: target.max_tokens,
            learning_rate: how.learning_rate,
            seed: how.seed,
            ..TuneConfig::default()
        };
        let mut tuner = Tuner::new(&model, &start, &records, &tuning).map_err(failed)?;
        tuner.freeze(&cancelled).map_err(failed)?;
        // A step may go over the end of a pass: a pass is over when as many examples as there are have been seen.
        let (steps, passes) = (tuner.steps(), |step: usize| step * how.batch / records.len());
        let mut curve: Vec<f64> = liked(&start)?.into_iter().collect();
        let (mut best, mut pass) = (None, 0);
        while let Some(step) = tuner.step().map_err(failed)? {
            (watch.tell)(step.step as u64, steps as u64);
            if cancelled() {
                return Err(stopped());
            }
            if passes(step.step) == passes(step.step - 1) && step.step != steps {
                continue;
            }
            pass = passes(step.step).max(pass);
            let nll = liked(tuner.adapter())?;
            curve.extend(nll);
            // Without held-out examples the last pass is taken.
            let better = match (&best, nll) {
                (Some((_, _, least)), Some(nll)) => nll < *least,
                _ => true,
            };
            if better {
                best = Some((tuner.adapter().clone(), pass, nll.unwrap_or(f64::INFINITY)));
            }
        }
        let tokens = tuner.finish().tokens;
        let (adapter, pass, _) = best.ok_or_else(|| Error::bug("a tuning without a step"))?;
        Ok(TunedTarget { adapter: sent(adapter.tensors), held: curve, pass, tokens })
    }
}
