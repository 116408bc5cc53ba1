//! Gradients of single records, clipped and summed: what DP-SGD adds its noise to (Abadi et al. 2016, arXiv 1607.00133).
//!
//! A linear layer's gradient for one record is a product over that record's tokens alone, so all records' gradients come
//! from one batched product in place of one large one: the same arithmetic, and no second pass.

use super::{Encoded, Frozen, example::TokenBatch, optimizer::Named, supervised::to_host};
use crate::{
    ModelError,
    adapter::Adapter,
    lora::{Dropout, LoraWeights},
    loss::token_loss,
    slm::{
        LanguageModel,
        backward::backward,
        forward::{Adapted, Entry, Keep},
    },
    weights::HostTensor,
};

/// Numbers of gradients that are computed at a time, 256 MiB of them: bounds memory.
const NUMBERS: usize = 1 << 26;

/// Records whose gradients, of so many numbers each, are computed at a time.
pub fn at_once(numbers: usize) -> usize {
    (NUMBERS / numbers.max(1)).max(1)
}

/// The records' gradients after clipping, summed, and each one's length before.
#[derive(Debug, Clone)]
pub struct ClippedSum {
    /// By the adapter's names.
    pub sum: Named,
    /// Length of each record's gradient over all matrices together.
    pub norms: Vec<f64>,
    /// Each record's loss: the mean over its predicted tokens. Private: for tests and non-private runs.
    pub losses: Vec<f64>,
}

/// Gradients of each record's own mean loss, scaled down to at most `clip` and summed. A record's loss does not depend on
/// which others are in the batch, so neither does its gradient. One that is not finite counts as zero, since an error would
/// tell that such a record is there; its norm says so.
///
/// # Errors
/// [`ModelError::Input`] for no or over-long records.
pub fn clipped_sum(
    model: &LanguageModel,
    adapter: &Adapter,
    records: &[&Encoded],
    clip: f64,
) -> Result<ClippedSum, ModelError> {
    let lora = adapter.to_device(model.config(), model.device())?;
    let batch = TokenBatch::new(records)?;
    let entry = model.begin(&batch.batch)?;
    clipped(model, &lora, batch, entry, clip)
}

/// As [`clipped_sum`], of the records of these numbers, from what has been computed of them on.
///
/// # Errors
/// As [`clipped_sum`]; [`ModelError::Input`] too when a layer that was taken to be frozen has an adapter.
pub fn clipped_sum_from(
    model: &LanguageModel,
    adapter: &Adapter,
    records: &Frozen<'_>,
    rows: &[usize],
    clip: f64,
) -> Result<ClippedSum, ModelError> {
    let lora = adapter.to_device(model.config(), model.device())?;
    let (batch, entry) = records.batch(model, &lora, rows)?;
    clipped(model, &lora, batch, entry, clip)
}

fn clipped(
    model: &LanguageModel,
    lora: &LoraWeights,
    mut batch: TokenBatch,
    entry: Entry,
    clip: f64,
) -> Result<ClippedSum, ModelError> {
    if clip.is_nan() || clip <= 0.0 {
        return Err(ModelError::Config { option: "clip", reason: "must be positive".to_owned() });
    }
    // Dropout would tie a record's gradient to its place in the batch.
    let adapted = Adapted { weights: lora, dropout: Dropout { rate: 0.0, seed: 0 } };
    for span in &batch.spans {
        let weight = 1.0 / span.len().max(1) as f32;
        batch.targets.weights[span.clone()].fill(weight);
    }
    let pass = model.run_from(entry, &batch.batch, Some(adapted), Keep::Traces);
    let (log_p, d_hidden) = token_loss(model, &pass.hidden, &batch.targets);
    let losses = batch
        .spans
        .iter()
        .map(|span| {
            let sum: f64 = log_p[span.clone()].iter().map(|p| f64::from(*p)).sum();
            -sum / span.len().max(1) as f64
        })
        .collect();
    let gradients = to_host(backward(model, &batch.batch, adapted, pass, d_hidden, true));
    let (sum, norms) = clip_and_sum(gradients, batch.spans.len(), clip);
    Ok(ClippedSum { sum, norms, losses })
}

/// Clips stacked gradients `[records * rows, columns]` by record and sums them.
pub(crate) fn clip_and_sum(stacked: Named, records: usize, clip: f64) -> (Named, Vec<f64>) {
    let mut squares = vec![0.0_f64; records];
    for tensor in stacked.values() {
        let size = tensor.data.len() / records;
        for (square, record) in squares.iter_mut().zip(tensor.data.chunks_exact(size)) {
            *square += record.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        }
    }
    let norms: Vec<f64> = squares.into_iter().map(f64::sqrt).collect();
    let factor = |norm: &f64| norm.is_finite().then(|| (clip / norm.max(clip)) as f32);
    let factors: Vec<Option<f32>> = norms.iter().map(factor).collect();
    let sum = stacked
        .into_iter()
        .map(|(name, tensor)| {
            let size = tensor.data.len() / records;
            let mut sum = vec![0.0_f32; size];
            for (record, factor) in tensor.data.chunks_exact(size).zip(&factors) {
                let Some(factor) = factor else { continue };
                for (sum, value) in sum.iter_mut().zip(record) {
                    *sum += factor * value;
                }
            }
            let shape = vec![tensor.shape[0] / records, tensor.shape[1]];
            (name, HostTensor { shape, data: sum })
        })
        .collect();
    (sum, norms)
}
