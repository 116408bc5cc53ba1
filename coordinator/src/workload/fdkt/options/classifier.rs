//! `[fdkt.classifier]`: how the sites' language model learns to put texts into classes.

use serde::{Deserialize, Serialize};
use sheaf_data::catalogue::Catalogue;
use sheaf_proto::{
    fdkt::{ClassifierSpec, TaskModel, Tuning},
    fedavg::AdapterSpec,
};

use super::{FdktOptions, refuse};
use crate::{error::Error, workload::fedavg::check_adapter};

/// `[fdkt.classifier]`. The model is that of `[fdkt] model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifierOptions {
    /// The adapter that is tuned beside the head.
    pub lora: AdapterSpec,
    /// Passes over records and texts.
    pub epochs: usize,
    /// Records and texts a step.
    pub batch: usize,
    /// Step size of Adam at its peak.
    pub learning_rate: f64,
    /// Longer records and texts are cut, tokens.
    pub max_tokens: usize,
    /// Of the first adapter and the order of what is learnt.
    pub seed: u64,
}

impl Default for ClassifierOptions {
    /// The topmost four layers of 30: what the others make of a text is computed once.
    fn default() -> Self {
        let targets = ["q_proj", "v_proj"].map(str::to_owned).to_vec();
        Self {
            lora: AdapterSpec { rank: 4, alpha: 8.0, dropout: 0.0, targets, layers: Some(4) },
            epochs: 8,
            batch: 16,
            learning_rate: 1e-3,
            max_tokens: 64,
            seed: 0,
        }
    }
}

impl ClassifierOptions {
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |problem: &str| Err(refuse(format!("classifier.{problem}")));
        if let Err(problem) = check_adapter(&self.lora) {
            return refuse(&problem);
        }
        if !(1..=1000).contains(&self.epochs) || !(1..=4096).contains(&self.batch) {
            return refuse("epochs must be 1 to 1000, classifier.batch 1 to 4096");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return refuse("learning_rate must be above 0, at most 1");
        }
        if !(4..=2048).contains(&self.max_tokens) {
            return refuse("max_tokens must be 4 to 2048");
        }
        Ok(())
    }
}

impl FdktOptions {
    /// How sites tune their language model to classify, where they are asked to.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] for a model that is not in the catalogue.
    pub fn classifier(&self) -> Result<Option<ClassifierSpec>, Error> {
        if !self.task.contains(&TaskModel::LanguageModel) {
            return Ok(None);
        }
        let ClassifierOptions { lora, epochs, batch, learning_rate, max_tokens, seed } = &self.classifier;
        let (epochs, batch, learning_rate, seed) = (*epochs, *batch, *learning_rate, *seed);
        Ok(Some(ClassifierSpec {
            model: self.model.clone(),
            model_sha256: self.model_sha256()?,
            adapter: lora.clone(),
            max_tokens: *max_tokens,
            tuning: Tuning { epochs, batch, learning_rate, seed },
        }))
    }

    /// The hash of the sites' language model.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] for one that is not in the catalogue.
    pub(in crate::workload::fdkt) fn model_sha256(&self) -> Result<String, Error> {
        Catalogue::known()
            .and_then(|catalogue| Ok(catalogue.model(&self.model)?.sha256()))
            .map_err(|e| refuse(format!("model: {e}")))
    }
}
