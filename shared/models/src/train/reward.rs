//! A language model as a reward: an adapter and a linear head on the last token's state score whole sequences. A record's loss may
//! be of several sequences (the responses to its query that are compared), whose gradients are one.

use super::{Frozen, optimizer::Named};
use crate::{
    ModelError,
    adapter::Adapter,
    heads::sequence::{SCORE, SequenceHead},
    lora::{Dropout, LoraConfig},
    slm::{LanguageModel, forward::Adapted},
    weights::HostTensor,
};

/// Sequences that are scored together, at most.
const TOGETHER: usize = 64;

/// A model's part that scores responses.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardModel {
    /// The adapter of the model.
    pub adapter: Adapter,
    /// `[1, hidden]` on the last token's state.
    pub head: SequenceHead,
}

impl RewardModel {
    /// One that has learnt nothing: every response scores 0.
    pub fn untrained(model: &LanguageModel, adapter: &Adapter) -> Self {
        Self { adapter: adapter.clone(), head: SequenceHead::new(1, model.config().hidden) }
    }

    /// Adapter and head under their names, as they are tuned and sent.
    pub fn parameters(&self) -> Named {
        let mut all = self.adapter.tensors.clone();
        all.insert(SCORE.to_owned(), self.head.weight.clone());
        all
    }

    /// The reverse of [`Self::parameters`].
    ///
    /// # Errors
    /// [`ModelError::Tensor`] without a head of one output; what the adapter lacks is found when it is used.
    pub fn of(model: &LanguageModel, config: &LoraConfig, mut parameters: Named) -> Result<Self, ModelError> {
        let refused = |reason: String| ModelError::Tensor { name: SCORE.to_owned(), reason };
        let weight = parameters.remove(SCORE).ok_or_else(|| refused("is missing".to_owned()))?;
        let wanted = [1, model.config().hidden];
        if weight.shape != wanted {
            return Err(refused(format!("has the shape {:?}, expected {wanted:?}", weight.shape)));
        }
        Ok(Self {
            adapter: Adapter { config: config.clone(), tensors: parameters },
            head: SequenceHead { weight },
        })
    }

    /// Scores of the records of these numbers, in their order. `cancelled` is asked between batches.
    ///
    /// # Errors
    /// [`ModelError::Stopped`] when cancelled; as [`SequenceHead::scores_from`].
    pub fn scores(
        &self,
        model: &LanguageModel,
        records: &Frozen<'_>,
        rows: &[usize],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<f64>, ModelError> {
        let lora = self.adapter.to_device(model.config(), model.device())?;
        let mut scores = vec![0.0; rows.len()];
        for places in records.pieces_of(rows, TOGETHER) {
            if cancelled() {
                return Err(ModelError::Stopped);
            }
            let piece: Vec<usize> = places.iter().map(|place| rows[*place]).collect();
            let scored = self.head.scores_from(model, &lora, records, &piece)?;
            for (place, score) in places.iter().zip(scored) {
                scores[*place] = score[0];
            }
        }
        Ok(scores)
    }

    /// The gradient of one loss over the scores of several sequences, whose slopes `slopes` gives: under the names of
    /// [`Self::parameters`].
    ///
    /// # Errors
    /// [`ModelError::Input`] for no or over-long sequences, or when a layer that was taken to be frozen has an adapter.
    pub fn gradient(
        &self,
        model: &LanguageModel,
        records: &Frozen<'_>,
        rows: &[usize],
        slopes: &dyn Fn(&[f64]) -> Vec<f64>,
    ) -> Result<Named, ModelError> {
        let lora = self.adapter.to_device(model.config(), model.device())?;
        let adapted = Adapted { weights: &lora, dropout: Dropout { rate: 0.0, seed: 0 } };
        let found = self.head.gradients_from(model, adapted, records, rows, |scores| {
            let scores: Vec<f64> = scores.iter().map(|score| score[0]).collect();
            slopes(&scores).into_iter().map(|slope| vec![slope]).collect()
        })?;
        let summed = |(name, tensor): (String, HostTensor)| {
            let size = tensor.data.len() / rows.len();
            let mut data = vec![0.0_f32; size];
            for record in tensor.data.chunks_exact(size) {
                data.iter_mut().zip(record).for_each(|(sum, value)| *sum += value);
            }
            let shape = vec![tensor.shape[0] / rows.len(), tensor.shape[1]];
            (name, HostTensor { shape, data })
        };
        Ok(found.stacked.into_iter().map(summed).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Compute, loss::bradley_terry, train::Encoded};

    /// A step against the gradient of a pair's loss makes it smaller, and by about what the gradient says.
    #[test]
    fn gradients_are_those_of_a_pairs_loss() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_llama");
        let model = LanguageModel::load(&folder, &Compute::cpu()).unwrap();
        let config = LoraConfig { layers: Some(1), ..LoraConfig::default() };
        let mut reward = RewardModel::untrained(&model, &Adapter::new(&model, &config, 1).unwrap());
        for (at, value) in reward.head.weight.data.iter_mut().enumerate() {
            *value = 0.1 * (at % 7) as f32 - 0.3;
        }
        let record = |length: u32| Encoded { tokens: (1..length).collect(), first_target: 1 };
        let sequences = [record(9), record(14)];
        let frozen = Frozen::compute(&model, &config, &sequences, &|| false).unwrap();
        let loss = |reward: &RewardModel| {
            let scores = reward.scores(&model, &frozen, &[0, 1], &|| false).unwrap();
            bradley_terry(scores[0], scores[1]).0
        };
        let slopes = |scores: &[f64]| bradley_terry(scores[0], scores[1]).1.to_vec();
        let gradient = reward.gradient(&model, &frozen, &[0, 1], &slopes).unwrap();
        let square: f64 = gradient.values().flat_map(|t| &t.data).map(|v| f64::from(*v).powi(2)).sum();
        let (before, step) = (loss(&reward), 1e-3 / square.sqrt());
        let mut moved = reward.parameters();
        for (name, tensor) in &mut moved {
            for (value, slope) in tensor.data.iter_mut().zip(&gradient[name].data) {
                *value -= (step * f64::from(*slope)) as f32;
            }
        }
        let moved = RewardModel::of(&model, &config, moved).unwrap();
        let (fell, expected) = (before - loss(&moved), step * square);
        assert!((fell - expected).abs() < 0.1 * expected, "{fell} where {expected} was expected");
        assert!(RewardModel::of(&model, &config, Named::new()).is_err(), "no head");
    }
}
