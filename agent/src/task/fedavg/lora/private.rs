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
        AdamW, Encoded, Example,
        optimizer::{Named, schedule},
        per_record::clipped_sum,
    },
    weights::HostTensor,
};
use sheaf_privacy::{
    dpsgd::{Clip, ClippedSum, DpError, NoiseStream, PoissonSampler, Privatised, PublicUnits, Units},
    ledger::{Reservation, StepToken},
};
use sheaf_proto::{
    fedavg::{LoraSpec, RoundSpec, Update},
    privacy::{NoisyTraining, PrivacySpec},
};

use super::{adapter, as_update, model_error, task};
use crate::{budget::Purse, egress::Made, error::AgentError};

/// Records whose gradients are computed at a time: bounds memory. At most
/// [`MOST_UNITS_IN_F32`](sheaf_privacy::dpsgd::MOST_UNITS_IN_F32).
const PIECE: usize = 8;

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
    Ok((Update { parameters: as_update(adapter.tensors), measured: None }, made))
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
    for step in 0..training.steps {
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
        let token = reservation.token().map_err(|e| AgentError::Ledger(e.to_string()))?;
        let noised = one_step(&adapter, records, model, clip, (&mut sampler, &mut noise), units, token)?;
        let mut gradient = named(&adapter.tensors, noised);
        pull(&mut gradient, &adapter.tensors, &start.tensors, how.mu);
        let rate = schedule(how.learning_rate, 0.0, step as usize, training.steps as usize);
        optimizer.step(&mut adapter.tensors, &gradient, rate);
        // A step's number is all that may be told of it.
        tracing::info!(round = plan.round.round, step = step + 1, of = training.steps, "tuning with noise");
    }
    Ok(adapter)
}

/// The noised mean gradient of a drawn batch.
fn one_step(
    adapter: &Adapter,
    records: &Records,
    model: &LanguageModel,
    clip: Clip,
    (sampler, noise): (&mut PoissonSampler, &mut NoiseStream),
    units: PublicUnits,
    token: StepToken,
) -> Result<Privatised, AgentError> {
    let drawn = sampler.draw(&records.units, &token).map_err(dp)?;
    let lengths: Vec<usize> = adapter.tensors.values().map(|tensor| tensor.data.len()).collect();
    let mut sum = ClippedSum::new(&lengths, clip);
    let (single, several): (Vec<usize>, Vec<usize>) =
        drawn.into_iter().partition(|unit| records.units.rows(*unit).len() == 1);
    let of = |rows: &[usize]| rows.iter().map(|row| &records.encoded[*row]).collect::<Vec<_>>();
    let rows: Vec<usize> = single.iter().map(|unit| records.units.rows(*unit)[0]).collect();
    for piece in rows.chunks(PIECE) {
        let clipped = clipped_sum(model, adapter, &of(piece), clip.applied()).map_err(model_error)?;
        sum.add_clipped(&slices(&clipped.sum), piece.len()).map_err(dp)?;
    }
    for unit in several {
        let mut losses: Vec<Named> = Vec::new();
        for row in records.units.rows(unit) {
            losses.push(clipped_sum(model, adapter, &of(&[*row]), f64::MAX).map_err(model_error)?.sum);
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
