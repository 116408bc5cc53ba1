//! The reward proxy at a site (spec C4): which of two responses to a query is the better one, learnt by Bradley and Terry's loss.
//!
//! **Claim.** Under `[privacy]` the proxies of all rounds of a run are together as private as the ledger's
//! `Event::PoissonGaussian` says, add/remove of one privacy unit with all its records.
//!
//! **Why it holds.** [`sheaf_privacy::dpsgd`] for each step: units are drawn independently; the pairs of a record are averaged, the
//! records of a unit are, and that mean is clipped as one; noise is drawn once for a token of the ledger. What is compared
//! ([`super::pairs`]) is of the record alone, the generation proxy was paid for itself. Adam, and the mean over the later
//! steps' parameters, read noised steps alone.
//!
//! **Source.** Spec C3 to C5; Abadi et al. 2016 (arXiv 1607.00133); averaging of iterates: Polyak and Juditsky 1992.
//!
//! **Test.** `reward/tests.rs`.

use std::collections::BTreeMap;

use sheaf_data::Source;
use sheaf_models::{
    LanguageModel, ModelError,
    heads::embedding::{EmbeddingHead, pair_features},
    loss::bradley_terry,
    train::{AdamW, Encoded, Frozen, RewardModel, optimizer::Named, supervised::order_of},
    weights::HostTensor,
};
use sheaf_privacy::{
    dpsgd::{Clip, ClippedSum, DpError, NoiseStream, PoissonSampler, PublicUnits, Units},
    ledger::Reservation,
};
use sheaf_proto::{
    fdkt::Tuning,
    fedavg::{Parameters, ParametersFile as _},
    privacy::{NoisyTraining, PrivacySpec},
    rewardds::{Exchange, REWARD_WEIGHT, RewardForm, RewardSpec, one_line},
};

use super::{
    super::{
        Resources,
        fedavg::lora,
        parameters::{named, sent},
    },
    generator, language,
    pairs::{self, Compared},
};
use crate::{egress::Made, error::AgentError, features, models};

/// Passes beyond this are a mistake.
const MOST_EPOCHS: usize = 10_000;
/// The file of the reward proxy among what stays at the site.
const KEPT: &str = "reward.safetensors";

/// Responses to queries as a reward proxy reads them.
enum Read<'a> {
    /// Features of each pair, one a row.
    Embedding(Vec<Vec<f32>>),
    /// Token sequences.
    LanguageModel { model: &'a LanguageModel, records: Frozen<'a>, config: sheaf_models::LoraConfig },
}

/// Responses ready to be scored or learnt from, by number.
pub struct Responses<'a>(Read<'a>);

/// Token sequences of responses; none in the form that reads embeddings. They outlive [`Responses`].
pub struct Sequences(Vec<Encoded>);

impl Sequences {
    /// Encodes queries with their responses.
    ///
    /// # Errors
    /// [`AgentError::Task`] for a text that is too long for any model.
    pub fn of(form: &RewardForm, model: &LanguageModel, pairs: &[(&str, &str)]) -> Result<Self, AgentError> {
        let RewardForm::LanguageModel { max_tokens, .. } = form else { return Ok(Self(Vec::new())) };
        let encode = |(query, response): &(&str, &str)| {
            // The response is what is to be judged: where both are too long, the query loses its beginning.
            let response = language::shortened(model, response, max_tokens.saturating_sub(8))?.text;
            let room = max_tokens.saturating_sub(model.vocabulary().encode_plain(&response)?.len() + 4);
            let query = language::fitted(model, &one_line(query), room.max(1))?;
            model.encode_text(&format!("{query}\n{response}"), *max_tokens)
        };
        pairs.iter().map(encode).collect::<Result<_, ModelError>>().map(Self).map_err(language::failed)
    }
}

impl<'a> Responses<'a> {
    /// Computes what the frozen parts make of queries with their responses.
    ///
    /// # Errors
    /// [`AgentError::Cancelled`]; as [`features::embed`].
    pub fn of(
        form: &RewardForm,
        model: &'a LanguageModel,
        (pairs, sequences): (&[(&str, &str)], &'a Sequences),
        resources: &Resources<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, AgentError> {
        match form {
            RewardForm::Embedding { encoder } => {
                let mut places: BTreeMap<&str, usize> = BTreeMap::new();
                let mut texts = Vec::new();
                for text in pairs.iter().flat_map(|(query, response)| [*query, *response]) {
                    places.entry(text).or_insert_with(|| {
                        texts.push(text);
                        texts.len() - 1
                    });
                }
                let (dim, values) = features::embed(&texts, encoder, resources, cancelled)?;
                let row = |text: &str| places.get(text).map(|place| &values[place * dim..(place + 1) * dim]);
                let feature = |(query, response): &(&str, &str)| {
                    row(query).zip(row(response)).map(|(q, r)| pair_features(q, r)).unwrap_or_default()
                };
                Ok(Self(Read::Embedding(pairs.iter().map(feature).collect())))
            }
            RewardForm::LanguageModel { adapter, .. } => {
                let config = lora::config(adapter);
                let records =
                    Frozen::compute(model, &config, &sequences.0, cancelled).map_err(language::failed)?;
                Ok(Self(Read::LanguageModel { model, records, config }))
            }
        }
    }

    /// Scores of all of them under a proxy.
    ///
    /// # Errors
    /// [`AgentError::Task`] for a proxy of another form, [`AgentError::Cancelled`].
    pub fn scores(&self, proxy: &Named, cancelled: &dyn Fn() -> bool) -> Result<Vec<f64>, AgentError> {
        match &self.0 {
            Read::Embedding(inputs) => {
                let head = head(proxy)?;
                let score = |input: &Vec<f32>| Ok(head.scores(input)?[0]);
                inputs.iter().map(score).collect::<Result<_, ModelError>>().map_err(language::failed)
            }
            Read::LanguageModel { model, records, config } => {
                let rows: Vec<usize> = (0..records.len()).collect();
                let reward = RewardModel::of(model, config, proxy.clone()).map_err(language::failed)?;
                reward.scores(model, records, &rows, cancelled).map_err(language::failed)
            }
        }
    }

    /// The gradient of one record's loss: of its responses at these places, whose slopes follow from their scores.
    fn gradient(
        &self,
        proxy: &Named,
        places: &[usize],
        slopes: &dyn Fn(&[f64]) -> Vec<f64>,
    ) -> Result<Named, ModelError> {
        match &self.0 {
            Read::Embedding(inputs) => {
                let head = head(proxy).map_err(|e| ModelError::Input(e.to_string()))?;
                let scores = places.iter().map(|place| Ok(head.scores(&inputs[*place])?[0]));
                let slopes = slopes(&scores.collect::<Result<Vec<f64>, ModelError>>()?);
                let mut sum = Named::new();
                for (place, slope) in places.iter().zip(slopes) {
                    let gradient = head.gradients(&inputs[*place], &[slope])?;
                    add(&mut sum, gradient, 1.0);
                }
                Ok(sum)
            }
            Read::LanguageModel { model, records, config } => {
                RewardModel::of(model, config, proxy.clone())?.gradient(model, records, places, slopes)
            }
        }
    }
}

fn head(proxy: &Named) -> Result<EmbeddingHead, AgentError> {
    if proxy.len() == 1 && proxy.contains_key(REWARD_WEIGHT) {
        return Ok(EmbeddingHead::Linear(proxy.clone()));
    }
    Err(AgentError::Task("the reward proxy has other tensors than a linear head".to_owned()))
}

fn add(sum: &mut Named, more: Named, weight: f32) {
    for (name, more) in more {
        let sum = sum.entry(name).or_insert_with(|| HostTensor::zeros(&more.shape));
        sum.data.iter_mut().zip(more.data).for_each(|(sum, value)| *sum += weight * value);
    }
}

/// Slopes of a record's loss, the mean over its pairs, by response.
fn slopes(compared: &Compared, scores: &[f64]) -> Vec<f64> {
    let pairs: Vec<(usize, usize)> = compared.pairs().map(|(_, pair)| pair).collect();
    let mut slopes = vec![0.0; scores.len()];
    for (better, worse) in &pairs {
        let (_, [of_better, of_worse]) = bradley_terry(scores[*better], scores[*worse]);
        slopes[*better] += of_better / pairs.len() as f64;
        slopes[*worse] += of_worse / pairs.len() as f64;
    }
    slopes
}

/// Records to learn from: responses ready to be read, three a record in their order.
struct Corpus<'a> {
    compared: &'a [Compared],
    responses: &'a Responses<'a>,
}

impl Corpus<'_> {
    fn gradient(&self, proxy: &Named, record: usize) -> Result<Named, AgentError> {
        let compared = &self.compared[record];
        let places: Vec<usize> = (0..3).map(|at| 3 * record + at).collect();
        let slopes = |scores: &[f64]| slopes(compared, scores);
        self.responses.gradient(proxy, &places, &slopes).map_err(language::failed)
    }
}

/// Every response with its query, three a record.
pub(super) fn texts(compared: &[Compared]) -> Vec<(&str, &str)> {
    let mut all = Vec::with_capacity(3 * compared.len());
    for Compared { query, responses } in compared {
        all.extend(responses.iter().map(|response| (query.as_str(), response.as_str())));
    }
    all
}

/// One round: the proxy's parameters after it.
pub(super) fn train(
    spec: &RewardSpec,
    (start, generator): (&[u8], &[u8]),
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Parameters, Made), AgentError> {
    let decode = |bytes: &[u8]| {
        <Parameters as sheaf_proto::fedavg::ParametersFile>::decode(bytes)
            .map_err(|e| AgentError::Task(format!("a proxy cannot be read: {e}")))
    };
    let (start, writer) = (named(decode(start)?), decode(generator)?);
    let privacy = spec.round.privacy.as_ref();
    models::check_hash(&spec.generator.model, Some(&spec.generator.model_sha256))?;
    check(spec, &start, resources)?;
    // Long work comes first: what would be refused in the end is refused at once.
    let paid = privacy.map(|privacy| pay(privacy, resources)).transpose()?;
    let dataset = source.open(&spec.schema, resources.assets)?;
    let model = models::language(&spec.generator.model, resources)?;
    let exchanges =
        generator::exchanges(&spec.generator, &spec.schema, &dataset, generator::unit(&spec.round))?;
    let (owners, exchanges): (Vec<usize>, Vec<Exchange>) = exchanges.into_iter().unzip();
    let lora = language::adapter(&spec.generator.adapter, &writer);
    let lora = lora.to_device(model.config(), model.device()).map_err(language::failed)?;
    // Said once: how long a part takes tells how many records there are.
    resources.tell("tuning the reward proxy");
    let compared = pairs::compared(&model, &lora, &spec.generator, &exchanges, spec.alone, cancelled)?;
    let texts = texts(&compared);
    let sequences = Sequences::of(&spec.reward, &model, &texts)?;
    let responses = Responses::of(&spec.reward, &model, (&texts, &sequences), resources, cancelled)?;
    let corpus = Corpus { compared: &compared, responses: &responses };
    let (proxy, made) = match paid {
        Some((training, purse, mut reservation)) => {
            let units = Units::by_label(&owners);
            let proxy = noisy(spec, training, start, (&corpus, &units), &mut reservation, cancelled)?;
            (proxy, Made::WithNoise(purse.charge(reservation)))
        }
        None => (exact(spec, start, &corpus, cancelled)?, Made::OfRows(compared.len() as u64)),
    };
    let parameters = sent(proxy);
    let file = parameters.encode().map_err(|e| AgentError::Task(e.to_string()))?;
    // What is paid for is sent, whether or not the site's own copy can be written.
    if let Err(error) = resources.keep(KEPT, &file) {
        tracing::warn!("the reward proxy is not kept here: {error}");
    }
    Ok((parameters, made))
}

/// Refuses a task that does not go together, whatever records there are: that it failed for one would say that it is there.
fn check(spec: &RewardSpec, start: &Named, resources: &Resources<'_>) -> Result<(), AgentError> {
    let refused = |problem: &str| Err(AgentError::Task(problem.to_owned()));
    if spec.tuning.batch == 0 {
        return refused("the reward is to be tuned on batches of no record");
    }
    if spec.tuning.epochs > MOST_EPOCHS {
        return refused("the reward is to be tuned in more passes than any plan has");
    }
    if let RewardForm::LanguageModel { adapter, .. } = &spec.reward {
        let model = models::language(&spec.generator.model, resources)?;
        let reward =
            RewardModel::of(&model, &lora::config(adapter), start.clone()).map_err(language::failed)?;
        reward.adapter.to_device(model.config(), model.device()).map_err(language::failed)?;
    }
    if let RewardForm::Embedding { encoder } = &spec.reward {
        let head = head(start)?;
        let (dim, _) = features::embed(&[], encoder, resources, &|| false)?;
        if head.parameters()[REWARD_WEIGHT].shape != [1, 4 * dim] {
            return refused("the reward proxy is of another encoder");
        }
    }
    Ok(())
}

type Paid<'a> = (&'a NoisyTraining, crate::budget::Purse, Reservation);

fn pay<'a>(privacy: &'a PrivacySpec, resources: &Resources<'_>) -> Result<Paid<'a>, AgentError> {
    let training = privacy
        .training
        .as_ref()
        .ok_or_else(|| AgentError::Task("training with noise comes without its clip".to_owned()))?;
    let purse = resources.purse()?;
    let reservation = purse.reserve(training.steps, training.rest)?;
    Ok((training, purse, reservation))
}

/// Tuning without noise.
fn exact(
    spec: &RewardSpec,
    start: Named,
    corpus: &Corpus<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Named, AgentError> {
    let Tuning { epochs, batch, learning_rate, seed } = spec.tuning;
    let records = corpus.compared.len();
    let steps = epochs * records.div_ceil(batch);
    let mut descent = Descent::new(start, learning_rate, steps);
    for pass in 0..epochs {
        let seed = seed.wrapping_add(u64::from(spec.round.round) << 32);
        for batch in order_of(seed, pass, records).chunks(batch) {
            if cancelled() {
                return Err(AgentError::Cancelled);
            }
            let mut gradient = Named::new();
            for record in batch {
                add(&mut gradient, corpus.gradient(&descent.proxy, *record)?, 1.0 / batch.len() as f32);
            }
            descent.step(&gradient);
        }
    }
    Ok(descent.finish())
}

/// DP-SGD.
fn noisy(
    spec: &RewardSpec,
    training: &NoisyTraining,
    start: Named,
    (corpus, units): (&Corpus<'_>, &Units),
    reservation: &mut Reservation,
    cancelled: &dyn Fn() -> bool,
) -> Result<Named, AgentError> {
    let dp = |error: DpError| AgentError::Task(error.to_string());
    let clip = Clip::new(training.clip).map_err(dp)?;
    let public = PublicUnits::new(training.units).map_err(dp)?;
    let (mut sampler, mut noise) = (PoissonSampler::new().map_err(dp)?, NoiseStream::new().map_err(dp)?);
    let mut descent = Descent::new(start, spec.tuning.learning_rate, training.steps as usize);
    for step in 0..training.steps {
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
        let token = reservation.token().map_err(|e| AgentError::Ledger(e.to_string()))?;
        let lengths: Vec<usize> = descent.proxy.values().map(|tensor| tensor.data.len()).collect();
        let mut sum = ClippedSum::new(&lengths, clip);
        for unit in sampler.draw(units, &token).map_err(dp)? {
            let records = units.rows(unit).iter().map(|record| corpus.gradient(&descent.proxy, *record));
            let records = records.collect::<Result<Vec<Named>, _>>()?;
            let slices: Vec<Vec<&[f32]>> =
                records.iter().map(|named| named.values().map(|t| t.data.as_slice()).collect()).collect();
            sum.add_mean(&slices.iter().map(Vec::as_slice).collect::<Vec<_>>()).map_err(dp)?;
        }
        let mean = sum.privatise(public, token, &mut noise).map_err(dp)?.mean;
        let of = descent.proxy.iter().zip(mean);
        let gradient =
            of.map(|((name, tensor), data)| (name.clone(), HostTensor { shape: tensor.shape.clone(), data }));
        descent.step(&gradient.collect());
        tracing::info!(
            round = spec.round.round,
            step = step + 1,
            of = training.steps,
            "tuning the reward with noise"
        );
    }
    Ok(descent.finish())
}

/// Adam, and the mean of the parameters over the later half of the steps, which noise at the end moves less than the last ones.
struct Descent {
    proxy: Named,
    optimizer: AdamW,
    rate: f64,
    steps: usize,
    done: usize,
    mean: Named,
}

impl Descent {
    fn new(proxy: Named, rate: f64, steps: usize) -> Self {
        Self { proxy, optimizer: AdamW::new(0.0), rate, steps, done: 0, mean: Named::new() }
    }

    fn step(&mut self, gradient: &Named) {
        self.optimizer.step(&mut self.proxy, gradient, self.rate);
        self.done += 1;
        let averaged = self.steps - self.steps / 2;
        if self.done > self.steps - averaged {
            add(&mut self.mean, self.proxy.clone(), 1.0 / averaged as f32);
        }
    }

    fn finish(self) -> Named {
        if self.mean.is_empty() { self.proxy } else { self.mean }
    }
}

#[cfg(test)]
mod tests;
