//! What the frozen layers below an adapter make of records: computed once, since nothing that is tuned changes it. Dropout is
//! of adapters' inputs alone, so it does not either.

use super::{
    Encoded,
    example::{TokenBatch, batch},
};
use crate::{
    ModelError,
    lora::{LoraConfig, LoraWeights},
    ops,
    slm::{
        LanguageModel,
        forward::{Batch, Entry},
    },
};

/// Tokens that are run at a time, padding included. It bounds memory: of SmolLM2 with all 30 layers adapted a token keeps 0.7 MB.
/// Gradients of 30-token records took the same time by 8, 16 and 34 of them.
const TOKENS: usize = 512;
/// States that are more than this, in bytes, are not kept: 450,000 tokens of a model of width 576.
const MOST_BYTES: usize = 1 << 30;

/// Records, and what enters the lowest adapted layer for each of their tokens, where that has been computed. Losses and
/// gradients are the same either way, up to the rounding of sums.
pub struct Frozen<'a> {
    pub(crate) records: &'a [Encoded],
    /// The layer that the states enter.
    layer: usize,
    /// By record `[its tokens that are run, hidden]`; empty where nothing is computed.
    states: Vec<Vec<f32>>,
}

impl<'a> Frozen<'a> {
    /// Records of which nothing is computed: each is run through the whole model every time.
    pub const fn none(records: &'a [Encoded]) -> Self {
        Self { records, layer: 0, states: Vec::new() }
    }

    /// Runs records through the layers below an adapter of these options, in batches; `cancelled` is asked before each. As
    /// [`Self::none`] where there are no layers below, and where the states would take more than 1 GiB. States that are not
    /// finite are kept as they are.
    ///
    /// # Errors
    /// [`ModelError::Stopped`] when cancelled, [`ModelError::Config`] for more layers than the model has,
    /// [`ModelError::Input`] for an over-long record.
    pub fn compute(
        model: &LanguageModel,
        adapter: &LoraConfig,
        records: &'a [Encoded],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, ModelError> {
        let layer = adapter.adapted_layers(model.config().layers)?.start;
        let width = model.config().hidden;
        let tokens: usize = records.iter().map(|record| record.run().len()).sum();
        let mut frozen = Self::none(records);
        if layer == 0 || tokens.saturating_mul(width * size_of::<f32>()) > MOST_BYTES {
            return Ok(frozen);
        }
        let mut states = vec![Vec::new(); records.len()];
        for rows in frozen.pieces((0..records.len()).collect(), usize::MAX) {
            if cancelled() {
                return Err(ModelError::Stopped);
            }
            let batch = batch(&frozen.named(&rows))?;
            let entering = ops::host(model.entering(&batch, layer)?);
            for (row, entering) in rows.iter().zip(entering.chunks_exact(batch.length * width)) {
                states[*row] = entering[..records[*row].run().len() * width].to_vec();
            }
        }
        (frozen.layer, frozen.states) = (layer, states);
        Ok(frozen)
    }

    /// How many records.
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Without records.
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The numbers of records, cut into pieces that are run together: of at most `most` records and about 512 tokens, and of
    /// much the same length each, since a short record beside a long one is mostly padding.
    pub fn pieces(&self, rows: Vec<usize>, most: usize) -> Vec<Vec<usize>> {
        let pieces = self.pieces_of(&rows, most).into_iter();
        pieces.map(|places| places.into_iter().map(|place| rows[place]).collect()).collect()
    }

    /// The same by the places of the numbers in the list, which may have one twice.
    pub(crate) fn pieces_of(&self, rows: &[usize], most: usize) -> Vec<Vec<usize>> {
        let length = |place: &usize| self.records[rows[*place]].tokens.len();
        let mut places: Vec<usize> = (0..rows.len()).collect();
        places.sort_by_key(length);
        let mut pieces: Vec<Vec<usize>> = Vec::new();
        for place in places {
            // The longest so far.
            let length = length(&place);
            match pieces.last_mut().filter(|p| p.len() < most && (p.len() + 1) * length <= TOKENS) {
                Some(piece) => piece.push(place),
                None => pieces.push(vec![place]),
            }
        }
        pieces
    }

    fn named(&self, rows: &[usize]) -> Vec<&'a Encoded> {
        rows.iter().map(|row| &self.records[*row]).collect()
    }

    /// A batch of the records of these numbers, and where its pass begins.
    pub(crate) fn batch(
        &self,
        model: &LanguageModel,
        lora: &LoraWeights,
        rows: &[usize],
    ) -> Result<(TokenBatch, Entry), ModelError> {
        let batch = TokenBatch::new(&self.named(rows))?;
        let entry = if self.states.is_empty() {
            model.begin(&batch.batch)?
        } else {
            self.entry(model, lora, rows, &batch.batch)?
        };
        Ok((batch, entry))
    }

    fn entry(
        &self,
        model: &LanguageModel,
        lora: &LoraWeights,
        rows: &[usize],
        batch: &Batch,
    ) -> Result<Entry, ModelError> {
        if lora.lowest() < self.layer {
            return Err(ModelError::Input(format!(
                "layer {} has an adapter, but what enters layer {} was taken to be frozen",
                lora.lowest(),
                self.layer
            )));
        }
        let width = model.config().hidden;
        // What stands behind a record's end influences nothing before it; zeros are as good as anything.
        let mut entering = vec![0.0; batch.len() * batch.length * width];
        for (row, entering) in rows.iter().zip(entering.chunks_exact_mut(batch.length * width)) {
            let states = &self.states[*row];
            entering[..states.len()].copy_from_slice(states);
        }
        let states = ops::tensor(entering, [batch.len() * batch.length, width], model.device());
        Ok(Entry { layer: self.layer, states })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Adapter, Compute, train::per_record::clipped_sum_from};

    #[test]
    fn a_record_whose_states_are_not_finite_counts_as_zero_beside_others() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_llama");
        let model = LanguageModel::load(&folder, &Compute::cpu()).unwrap();
        let config = LoraConfig { layers: Some(1), ..LoraConfig::default() };
        let adapter = Adapter::new(&model, &config, 1).unwrap();
        let record = |length: u32| Encoded { tokens: (1..length).collect(), first_target: 1 };
        let records = [record(9), record(14)];
        let mut frozen = Frozen::compute(&model, &config, &records, &|| false).unwrap();
        let alone = clipped_sum_from(&model, &adapter, &frozen, &[1], 0.1).unwrap();
        frozen.states[0][7] = f32::INFINITY;
        let both = clipped_sum_from(&model, &adapter, &frozen, &[0, 1], 0.1).unwrap();
        assert!(!both.norms[0].is_finite() && (both.norms[1] - alone.norms[0]).abs() < 1e-6);
        for (name, tensor) in &both.sum {
            let pairs = tensor.data.iter().zip(&alone.sum[name].data);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
        }
    }
}
