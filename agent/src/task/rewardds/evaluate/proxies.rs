//! How good proxies are on test records: how often the reward tells the better of two responses, and how likely the generation
//! proxy finds what the records say. A site says the first where the run asks for it, and never the second: it is for those who
//! have the records anyway.

use sheaf_data::{Dataset, Schema};
use sheaf_models::{Adapter, LanguageModel, train::Frozen};
use sheaf_proto::{
    fedavg::Parameters,
    rewardds::{Exchange, Generator, Likelihood, Measured, Pairs, Share},
};

use super::super::{
    super::{Resources, parameters::named},
    generator, language, pairs,
    reward::{self, Responses, Sequences},
};
use crate::{error::AgentError, models};

/// The most that a record's mean negative log-likelihood counts, nats a token: a model that has diverged gives no number.
const MOST: f64 = 1e3;

/// For each of these records which of its pairs the reward puts in the right order; none of a pair of equal texts.
pub(super) type Judged = Vec<[Option<bool>; 3]>;

/// Lets a reward proxy judge the pairs of records.
pub(super) fn judged(
    measured: &Measured,
    (reward, generator): (&Parameters, &Parameters),
    exchanges: &[Exchange],
    alone: bool,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Judged, AgentError> {
    models::check_hash(&measured.generator.model, Some(&measured.generator.model_sha256))?;
    let model = models::language(&measured.generator.model, resources)?;
    let lora = language::adapter(&measured.generator.adapter, generator);
    let lora = lora.to_device(model.config(), model.device()).map_err(language::failed)?;
    let compared = pairs::compared(&model, &lora, &measured.generator, exchanges, alone, cancelled)?;
    let proxy = named(reward.clone());
    let mut scores = Vec::with_capacity(3 * compared.len());
    for piece in compared.chunks(if alone { 1 } else { compared.len().max(1) }) {
        let texts = reward::texts(piece);
        let sequences = Sequences::of(&measured.reward, &model, &texts)?;
        let responses = Responses::of(&measured.reward, &model, (&texts, &sequences), resources, cancelled)?;
        scores.extend(responses.scores(&proxy, cancelled)?);
    }
    let judge = |(compared, scores): (&pairs::Compared, &[f64])| {
        let mut right = [None; 3];
        for (number, (better, worse)) in compared.pairs() {
            right[number] = Some(scores[better] > scores[worse]);
        }
        right
    };
    Ok(compared.iter().zip(scores.chunks_exact(3)).map(judge).collect())
}

/// The pairs of test records that a reward proxy puts in the right order, exactly.
///
/// # Errors
/// As for the phase.
pub fn pairs_of(
    measured: &Measured,
    proxies: (&Parameters, &Parameters),
    (dataset, rows, schema): (&Dataset, &[usize], &Schema),
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Pairs, AgentError> {
    let exchanges = exchanges(measured, schema, dataset, rows);
    let all: Vec<Exchange> = exchanges.into_iter().map(|(_, exchange)| exchange).collect();
    let judged = judged(measured, proxies, &all, false, resources, cancelled)?;
    let mut pairs = Pairs { by_pair: Some([Share::default(); 3]), ..Pairs::default() };
    for of_record in &judged {
        let Some(share) = share(*of_record) else { continue };
        pairs.rows += 1.0;
        pairs.right += share;
        for (sum, right) in pairs.by_pair.iter_mut().flatten().zip(of_record) {
            if let Some(right) = right {
                sum.right += u64::from(*right);
                sum.of += 1;
            }
        }
    }
    Ok(pairs)
}

/// The share of a record's pairs that are right; none where it has no pair.
pub(super) fn share(pairs: [Option<bool>; 3]) -> Option<f64> {
    let known: Vec<bool> = pairs.into_iter().flatten().collect();
    let right = known.iter().filter(|right| **right).count();
    (!known.is_empty()).then(|| right as f64 / known.len() as f64)
}

/// The exchanges of the records of these rows, with their rows; of those that the generation proxy reads.
pub(super) fn exchanges(
    measured: &Measured,
    schema: &Schema,
    dataset: &Dataset,
    rows: &[usize],
) -> Vec<(usize, Exchange)> {
    let classes = generator::classes(schema);
    let of = |row: &usize| {
        let record = dataset.dialogue(*row)?;
        Some((*row, generator::exchange(&measured.generator, classes, record)?))
    };
    rows.iter().filter_map(of).collect()
}

/// How likely a generation proxy finds the test records of these rows, exactly; of those that it reads.
///
/// # Errors
/// [`AgentError::Cancelled`]; [`AgentError::Task`] for an adapter of another model, or limits that it does not take;
/// [`AgentError::Denied`] for a model that this agent knows with another hash; and what loading it fails with.
pub fn likelihood_of(
    measured: &Measured,
    proxy: &Parameters,
    (dataset, rows, schema): (&Dataset, &[usize], &Schema),
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Likelihood, AgentError> {
    let generator = &measured.generator;
    models::check_hash(&generator.model, Some(&generator.model_sha256))?;
    let model = models::language(&generator.model, resources)?;
    let exchanges = exchanges(measured, schema, dataset, rows);
    let all: Vec<Exchange> = exchanges.into_iter().map(|(_, exchange)| exchange).collect();
    likelihood(&model, (generator, proxy), &all, cancelled)
}

/// The same with the model and the records at hand.
pub(super) fn likelihood(
    model: &LanguageModel,
    (generator, proxy): (&Generator, &Parameters),
    exchanges: &[Exchange],
    cancelled: &dyn Fn() -> bool,
) -> Result<Likelihood, AgentError> {
    language::check_limits(model, generator.max_tokens, generator.answer_tokens)?;
    let mut records = Vec::with_capacity(exchanges.len());
    for exchange in exchanges {
        let record = language::encoded(model, generator, exchange, true).map_err(language::failed)?;
        // The proxy does not learn from one without anything to predict either.
        if record.targets() > 0 {
            records.push(record);
        }
    }
    let config = language::config(&generator.adapter);
    let frozen = Frozen::compute(model, &config, &records, cancelled).map_err(language::failed)?;
    let sum = |adapter: &Adapter| {
        let lora = adapter.to_device(model.config(), model.device()).map_err(language::failed)?;
        let nll = language::mean_nll(model, &lora, &frozen, false, cancelled).map_err(language::failed)?;
        Ok::<f64, AgentError>(nll.into_iter().map(|nll| nll.min(MOST)).sum())
    };
    // A drawn adapter that was not tuned changes nothing.
    let untuned = sum(&Adapter::new(model, &config, 0).map_err(language::failed)?)?;
    let tuned = sum(&language::adapter(&generator.adapter, proxy))?;
    Ok(Likelihood { rows: records.len() as u64, untuned, tuned })
}
