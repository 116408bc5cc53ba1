//! A linear head on the last token's hidden state: one output is a reward, several are classes. The tensor's name is
//! that of `transformers`' sequence classification models.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;

use crate::{
    ModelError,
    adapter::Adapter,
    lora::{Dropout, LoraWeights},
    ops,
    slm::{
        LanguageModel,
        backward::backward,
        forward::{Adapted, Batch, Entry, Keep},
    },
    train::{Frozen, optimizer::Named, supervised::to_host},
    weights::{HostTensor, safetensors},
};

/// The name of the head's matrix in files and gradients.
pub const SCORE: &str = "score.weight";

/// Scores of whole sequences.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceHead {
    /// `[outputs, hidden]`
    pub weight: HostTensor,
}

/// Stacked gradients by record and the scores they belong to.
#[derive(Debug, Clone)]
pub struct ScoreGradients {
    /// `[records][outputs]`
    pub scores: Vec<Vec<f64>>,
    /// Under the adapter's names and [`SCORE`]: `[records * rows, columns]`; `[rows, columns]` where they are summed.
    pub stacked: Named,
}

impl SequenceHead {
    /// A head of zeros: every sequence scores 0.
    pub fn new(outputs: usize, hidden: usize) -> Self {
        Self { weight: HostTensor::zeros(&[outputs, hidden]) }
    }

    /// Writes the head as a safetensors file.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let bytes = safetensors::write(&BTreeMap::from([(SCORE.to_owned(), self.weight.clone())]))?;
        std::fs::write(path, bytes).map_err(ModelError::io(path))
    }

    /// Reads a head for a model's hidden size.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] for a head of another model.
    pub fn load(path: &Path, outputs: usize, hidden: usize) -> Result<Self, ModelError> {
        Ok(Self { weight: safetensors::read(path)?.take(SCORE, &[outputs, hidden])? })
    }

    /// Scores of sequences, `[sequences][outputs]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for an empty or over-long sequence.
    pub fn scores(
        &self,
        model: &LanguageModel,
        lora: Option<&LoraWeights>,
        sequences: &[Vec<u32>],
    ) -> Result<Vec<Vec<f64>>, ModelError> {
        let adapted = lora.map(|weights| Adapted { weights, dropout: Dropout { rate: 0.0, seed: 0 } });
        let mut scores = Vec::new();
        for sequences in sequences.chunks(8) {
            let batch = Batch::new(sequences)?;
            let pass = model.run(&batch, adapted, Keep::Nothing)?;
            scores.extend(self.read_out(model, &last_states(model, &batch, &pass.hidden)));
        }
        Ok(scores)
    }

    /// Scores of the records of these numbers, run together, from what has been computed of them on: `[rows][outputs]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for no or over-long records, or when a layer that was taken to be frozen has an adapter.
    pub fn scores_from(
        &self,
        model: &LanguageModel,
        lora: &LoraWeights,
        records: &Frozen<'_>,
        rows: &[usize],
    ) -> Result<Vec<Vec<f64>>, ModelError> {
        let adapted = Adapted { weights: lora, dropout: Dropout { rate: 0.0, seed: 0 } };
        let (batch, entry) = records.batch(model, lora, rows)?;
        let pass = model.run_from(entry, &batch.batch, Some(adapted), Keep::Nothing);
        Ok(self.read_out(model, &last_states(model, &batch.batch, &pass.hidden)))
    }

    fn read_out(&self, model: &LanguageModel, states: &Tensor<2>) -> Vec<Vec<f64>> {
        let outputs = self.weight.shape[0];
        let shape = [outputs, self.weight.shape[1]];
        let weight = ops::tensor(self.weight.data.clone(), shape, &model.device);
        let rows = ops::host(ops::linear(states, &weight));
        rows.chunks_exact(outputs).map(|row| row.iter().map(|s| f64::from(*s)).collect()).collect()
    }

    /// Runs sequences, asks `slopes` for the loss's gradient with respect to their scores, and gives every record's
    /// gradients of adapter and head.
    ///
    /// # Errors
    /// [`ModelError::Input`] for an empty or over-long sequence.
    pub fn gradients(
        &self,
        model: &LanguageModel,
        adapter: &Adapter,
        sequences: &[Vec<u32>],
        slopes: impl FnOnce(&[Vec<f64>]) -> Vec<Vec<f64>>,
    ) -> Result<ScoreGradients, ModelError> {
        let lora = adapter.to_device(model.config(), model.device())?;
        let adapted = Adapted { weights: &lora, dropout: Dropout { rate: 0.0, seed: 0 } };
        let batch = Batch::new(sequences)?;
        let entry = model.begin(&batch)?;
        Ok(self.run_back(model, adapted, (&batch, entry), (Keep::Traces, true), slopes))
    }

    /// The gradients of the records of these numbers, summed, from what has been computed of them on: `[rows, columns]` by
    /// name. Of the sum no record can be told apart, and it takes the memory of one.
    pub(crate) fn gradient_from(
        &self,
        model: &LanguageModel,
        adapted: Adapted<'_>,
        records: &Frozen<'_>,
        rows: &[usize],
        keep: Keep,
        slopes: impl FnOnce(&[Vec<f64>]) -> Vec<Vec<f64>>,
    ) -> Result<ScoreGradients, ModelError> {
        let (batch, entry) = records.batch(model, adapted.weights, rows)?;
        Ok(self.run_back(model, adapted, (&batch.batch, entry), (keep, false), slopes))
    }

    /// As [`Self::gradient_from`], with every record's gradients apart: `[records * rows, columns]` by name, in the order of
    /// `rows`.
    pub(crate) fn gradients_from(
        &self,
        model: &LanguageModel,
        adapted: Adapted<'_>,
        records: &Frozen<'_>,
        rows: &[usize],
        slopes: impl FnOnce(&[Vec<f64>]) -> Vec<Vec<f64>>,
    ) -> Result<ScoreGradients, ModelError> {
        let (batch, entry) = records.batch(model, adapted.weights, rows)?;
        Ok(self.run_back(model, adapted, (&batch.batch, entry), (Keep::Traces, true), slopes))
    }

    /// Forward from an entry, and back from the slopes.
    fn run_back(
        &self,
        model: &LanguageModel,
        adapted: Adapted<'_>,
        (batch, entry): (&Batch, Entry),
        (keep, per_record): (Keep, bool),
        slopes: impl FnOnce(&[Vec<f64>]) -> Vec<Vec<f64>>,
    ) -> ScoreGradients {
        let pass = model.run_from(entry, batch, Some(adapted), keep);
        let states = last_states(model, batch, &pass.hidden);
        let scores = self.read_out(model, &states);
        let slopes = slopes(&scores);
        let (outputs, hidden) = (self.weight.shape[0], self.weight.shape[1]);
        let flat: Vec<f32> = slopes.iter().flatten().map(|slope| *slope as f32).collect();
        let d_scores = ops::tensor(flat, [batch.len(), outputs], &model.device);
        let weight = ops::tensor(self.weight.data.clone(), [outputs, hidden], &model.device);
        let d_states = d_scores.clone().matmul(weight);
        let d_hidden = pass.hidden.zeros_like().select_assign(
            0,
            last_rows(model, batch),
            d_states,
            burn::tensor::IndexingUpdateOp::Add,
        );
        let mut stacked = to_host(backward(model, batch, adapted, pass, d_hidden, per_record));
        // A sum is what one record of all rows would give.
        let (records, each) = if per_record { (batch.len(), 1) } else { (1, batch.len()) };
        let of_head = d_scores
            .reshape([records, each, outputs])
            .transpose()
            .matmul(states.reshape([records, each, hidden]));
        let shape = vec![records * outputs, hidden];
        stacked.insert(SCORE.to_owned(), HostTensor { shape, data: ops::host(of_head) });
        ScoreGradients { scores, stacked }
    }
}

fn last_rows(model: &LanguageModel, batch: &Batch) -> Tensor<1, burn::tensor::Int> {
    ops::indices(&batch.last_rows(), &model.device)
}

/// The hidden state of each sequence's last token `[records, hidden]`.
fn last_states(model: &LanguageModel, batch: &Batch, hidden: &Tensor<2>) -> Tensor<2> {
    hidden.clone().select(0, last_rows(model, batch))
}
