//! The adapter tuned with noise: DP-SGD with Adam's rule (Abadi et al. 2016, arXiv 1607.00133; Yu et al. 2022, arXiv
//! 2110.06500, for adapters).
//!
//! **Claim.** The adapters of all rounds of a run are together as private as the ledger's `Event::PoissonGaussian` says,
//! add/remove of one privacy unit with all its records.
//!
//! **Why it holds.** [`sheaf_privacy::dpsgd`] for each step: units are drawn independently, a unit's gradient is clipped as one
//! (the mean over its records), noise is drawn once for a token of the ledger, the divisor is public. Everything else reads
//! the noised mean alone: Adam, the learning rate, the pull of FedProx. What training tells on the way (losses, sizes of
//! batches, a record that cannot be encoded) stays in this function.
//!
//! **Source.** docs/privacy.md, "Training".
//!
//! **Test.** `private/tests.rs`: a site without records sends noise like any other; a clip bounds what a record can do; the
//! ledger is charged once for all rounds, and again for what a crash has used up.

use sheaf_data::{Dataset, Split};
use sheaf_models::{
    Adapter, LanguageModel, ModelError,
    train::{
        AdamW, Encoded, Example, Frozen,
        optimizer::{Named, rescale, schedule},
        per_record::{at_once, clipped_sum_from},
    },
    weights::HostTensor,
};
use sheaf_privacy::{
    Event,
    dpsgd::{
        Clip, ClippedSum, DpError, MOST_UNITS_IN_F32, NoiseStream, PoissonSampler, Privatised, PublicUnits,
        Units,
    },
    ledger::{Reservation, StepToken},
};
use sheaf_proto::{
    fedavg::{LoraSpec, RoundSpec, Update},
    privacy::{NoisyTraining, PrivacySpec},
};

use super::{adapter, model_error, task};
use crate::{budget::Purse, egress::Made, error::AgentError, task::parameters::sent};

fn dp(error: DpError) -> AgentError {
    task(error)
}

/// The training records by unit; those that the model cannot take are left out, without a word.
pub(super) struct Records {
    encoded: Vec<Encoded>,
    units: Units,
}

impl Records {
    /// Encodes the training records of a data set.
    pub(super) fn of(
        dataset: &Dataset,
        unit: &str,
        model: &LanguageModel,
        max_tokens: usize,
    ) -> Result<Self, AgentError> {
        // Data of another kind are a mistake in the plan; a unit without answers is a private fact.
        dataset.dialogues(&[])?;
        let mut records = Vec::new();
        for (owner, rows) in dataset.units(unit, Split::Train)?.into_iter().enumerate() {
            for (prompt, response) in dataset.dialogues(&rows).unwrap_or_default() {
                let example = Example { prompt: prompt.to_owned(), response: response.to_owned() };
                match model.encode_example(&example, max_tokens) {
                    Ok(record) => records.push((owner, record)),
                    Err(ModelError::Input(_)) => {}
                    Err(error) => return Err(model_error(error)),
                }
            }
        }
        Ok(Self::new(records))
    }

    /// Records that are encoded, each with the number of its unit.
    pub(super) fn new(records: Vec<(usize, Encoded)>) -> Self {
        let (owners, encoded): (Vec<usize>, Vec<Encoded>) = records.into_iter().unzip();
        Self { units: Units::by_label(&owners), encoded }
    }
}

/// Everything about a round but the records.
pub(super) struct Plan<'a> {
    pub(super) round: &'a RoundSpec,
    pub(super) lora: &'a LoraSpec,
    pub(super) privacy: &'a PrivacySpec,
}

impl Plan<'_> {
    fn training(&self) -> Result<&NoisyTraining, AgentError> {
        self.privacy
            .training
            .as_ref()
            .ok_or_else(|| AgentError::Task("training with noise comes without its clip".to_owned()))
    }
}

/// One round.
pub(super) fn train(
    plan: &Plan<'_>,
    input: Option<&[u8]>,
    records: &Records,
    model: &LanguageModel,
    purse: Purse,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Update, Made), AgentError> {
    let start = adapter(plan.lora, input, model, plan.round.training.seed)?;
    let (adapter, made) = tuned(plan, start, records, model, purse, cancelled)?;
    Ok((Update { parameters: sent(adapter.tensors), measured: None }, made))
}

/// The adapter after a round's steps, and what paid for them.
pub(super) fn tuned(
    plan: &Plan<'_>,
    start: Adapter,
    records: &Records,
    model: &LanguageModel,
    purse: Purse,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Adapter, Made), AgentError> {
    let training = plan.training()?;
    let mut reservation = purse.reserve(training.steps, training.rest)?;
    let adapter = steps(plan, training, start, records, model, &mut reservation, cancelled)?;
    Ok((adapter, Made::WithNoise(purse.charge(reservation))))
}

fn steps(
    plan: &Plan<'_>,
    training: &NoisyTraining,
    start: Adapter,
    records: &Records,
    model: &LanguageModel,
    reservation: &mut Reservation,
    cancelled: &dyn Fn() -> bool,
) -> Result<Adapter, AgentError> {
    let how = &plan.round.training;
    let clip = Clip::new(training.clip).map_err(dp)?;
    let units = PublicUnits::new(training.units).map_err(dp)?;
    let (mut sampler, mut noise) = (PoissonSampler::new().map_err(dp)?, NoiseStream::new().map_err(dp)?);
    let mut optimizer = AdamW::new(how.weight_decay);
    let mut adapter = start.clone();
    let ready = Ready::new(plan, training, &start, records, model, cancelled)?;
    for step in 0..training.steps {
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
        let token = reservation.token().map_err(|e| AgentError::Ledger(e.to_string()))?;
        let noised = one_step(&adapter, &ready, model, clip, (&mut sampler, &mut noise), units, token)?;
        let mut gradient = named(&adapter.tensors, noised);
        pull(&mut gradient, &adapter.tensors, &start.tensors, how.mu);
        let rate = schedule(how.learning_rate, 0.0, step as usize, training.steps as usize);
        optimizer.step(&mut adapter.tensors, &gradient, rate);
        // A step's number is all that may be told of it.
        tracing::info!(round = plan.round.round, step = step + 1, of = training.steps, "tuning with noise");
    }
    Ok(adapter)
}

/// The records as steps read them.
struct Ready<'a> {
    units: &'a Units,
    records: Frozen<'a>,
}

impl<'a> Ready<'a> {
    /// Computes what the frozen layers make of all records, where an adapter leaves layers below and a record is drawn once or
    /// more on average: the plan alone says whether. It stays here like the records themselves.
    fn new(
        plan: &Plan<'_>,
        training: &NoisyTraining,
        start: &Adapter,
        records: &'a Records,
        model: &LanguageModel,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, AgentError> {
        let rate = match plan.privacy.event {
            Event::PoissonGaussian { rate, .. } => rate.get(),
            _ => 0.0,
        };
        let units = &records.units;
        if start.config.layers.is_none() || rate * (training.steps as f64) < 1.0 {
            return Ok(Self { units, records: Frozen::none(&records.encoded) });
        }
        let round = plan.round.round;
        // How far it is would tell how many records there are.
        tracing::info!(round, "running the frozen layers once");
        let frozen =
            Frozen::compute(model, &start.config, &records.encoded, cancelled).map_err(model_error)?;
        tracing::info!(round, "the frozen layers have been run");
        Ok(Self { units, records: frozen })
    }
}

/// The noised mean gradient of a drawn batch.
fn one_step(
    adapter: &Adapter,
    ready: &Ready<'_>,
    model: &LanguageModel,
    clip: Clip,
    (sampler, noise): (&mut PoissonSampler, &mut NoiseStream),
    units: PublicUnits,
    token: StepToken,
) -> Result<Privatised, AgentError> {
    let Ready { units: of_rows, records } = ready;
    let drawn = sampler.draw(of_rows, &token).map_err(dp)?;
    let lengths: Vec<usize> = adapter.tensors.values().map(|tensor| tensor.data.len()).collect();
    let mut sum = ClippedSum::new(&lengths, clip);
    let (single, several): (Vec<usize>, Vec<usize>) =
        drawn.into_iter().partition(|unit| of_rows.rows(*unit).len() == 1);
    let most = at_once(lengths.iter().sum()).min(MOST_UNITS_IN_F32);
    let gradients = |rows: &[usize], clip: f64| {
        clipped_sum_from(model, adapter, records, rows, clip).map(|clipped| clipped.sum).map_err(model_error)
    };
    let rows = single.iter().map(|unit| of_rows.rows(*unit)[0]).collect();
    // Pieces are by length, which is private, but a sum is the same in any order: what is left is rounding, and that is paid for
    // whatever stands together in a piece.
    for piece in records.pieces(rows, most) {
        sum.add_clipped(&slices(&gradients(&piece, clip.applied())?), piece.len()).map_err(dp)?;
    }
    for unit in several {
        let rows = of_rows.rows(unit);
        let pieces = records.pieces(rows.to_vec(), most);
        let mut losses: Vec<Named> = Vec::new();
        for piece in &pieces {
            // Not clipped yet: so scaled that the mean over pieces is the mean over records, which is clipped as one.
            let mut gradient = gradients(piece, f64::MAX)?;
            rescale(&mut gradient, pieces.len() as f64 / rows.len() as f64);
            losses.push(gradient);
        }
        let losses: Vec<Vec<&[f32]>> = losses.iter().map(slices).collect();
        sum.add_mean(&losses.iter().map(Vec::as_slice).collect::<Vec<_>>()).map_err(dp)?;
    }
    sum.privatise(units, token, noise).map_err(dp)
}

fn slices(named: &Named) -> Vec<&[f32]> {
    named.values().map(|tensor| tensor.data.as_slice()).collect()
}

/// The noised mean under the adapter's names; both are in the order of names.
fn named(tensors: &Named, noised: Privatised) -> Named {
    let pairs = tensors.iter().zip(noised.mean);
    pairs.map(|((name, t), data)| (name.clone(), HostTensor { shape: t.shape.clone(), data })).collect()
}

/// FedProx: towards where the round began.
fn pull(gradient: &mut Named, now: &Named, start: &Named, mu: f64) {
    if mu == 0.0 {
        return;
    }
    for (name, gradient) in gradient {
        let (Some(now), Some(start)) = (now.get(name), start.get(name)) else { continue };
        for ((g, now), start) in gradient.data.iter_mut().zip(&now.data).zip(&start.data) {
            *g += mu as f32 * (now - start);
        }
    }
}

#[cfg(test)]
mod tests;
