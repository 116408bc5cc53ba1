//! The documents of the workload `fedavg`: rounds of training at the sites and weighted averaging between them
//! (McMahan et al. 2017; with `mu`, FedProx, Li et al. 2020).
//!
//! | phase | specification | input | answer |
//! |---|---|---|---|
//! | `survey` (softmax head only) | [`crate::afl::SurveySpec`] | | `sheaf_data::Survey` |
//! | `start` (secure aggregation of an adapter only) | [`RoundSpec`] of round 1 | | the drawn parameters |
//! | `round-K` | [`RoundSpec`] | the parameters, where there are any yet | [`Update`]; as a secure sum ([`crate::secure`]) [`summed`] |
//! | `evaluate-K` | [`EvaluateSpec`] | the parameters | [`crate::afl::Evaluation`] or [`TextEvaluation`] |
//!
//! Specifications are JSON, so that a person at a site can read what is asked; parameters and updates are safetensors.

pub mod summed;
mod update;

use std::fmt;

use serde::{Deserialize, Serialize};
use sheaf_data::Schema;

use crate::{afl::SumsSpec, privacy::PrivacySpec};

pub use update::{Measured, Parameters, ParametersFile, Tensor, Update, UpdateError};

/// Workload name on the wire and in plans.
pub const WORKLOAD: &str = "fedavg";
/// Kinds of output a site's policy allows or forbids: parameters that were trained on the site's records.
pub const RELEASE_UPDATES: &str = "updates";
/// Name of the head's matrix, `[features, classes]`.
pub const WEIGHT: &str = "weight";
/// Name of the head's constant, `[classes]`.
pub const BIAS: &str = "bias";

/// The phase of [`Step::Start`].
const START: &str = "start";

/// A phase by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What the records look like.
    Survey,
    /// Secure aggregation of an adapter: the parameters that all sites begin with.
    Start,
    /// Training, rounds counted from 1.
    Round(u32),
    /// Measuring the model of a round.
    Evaluate(u32),
}

impl Step {
    /// Reads a phase's name; none for that of another workload.
    pub fn parse(name: &str) -> Option<Self> {
        match name.split_once('-') {
            None if name == crate::afl::SURVEY => Some(Self::Survey),
            None if name == START => Some(Self::Start),
            Some(("round", round)) => round.parse().ok().map(Self::Round),
            Some(("evaluate", round)) => round.parse().ok().map(Self::Evaluate),
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Survey => f.write_str(crate::afl::SURVEY),
            Self::Start => f.write_str(START),
            Self::Round(round) => write!(f, "round-{round}"),
            Self::Evaluate(round) => write!(f, "evaluate-{round}"),
        }
    }
}

/// What is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "head", rename_all = "lowercase")]
pub enum Head {
    /// Softmax regression on feature rows; the rows are those of AFL, to the bit.
    Softmax(SumsSpec),
    /// A low-rank adapter of a language model, on prompts and responses.
    Lora(LoraSpec),
}

impl Head {
    /// How columns are read.
    pub const fn schema(&self) -> &Schema {
        match self {
            Self::Softmax(rows) => &rows.schema,
            Self::Lora(lora) => &lora.schema,
        }
    }
}

/// An adapter and the model under it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraSpec {
    /// How records are read: texts are prompts, answers are responses.
    pub schema: Schema,
    /// The frozen model's name in the catalogue.
    pub model: String,
    /// SHA-256 of the model, 64 hexadecimal digits, as the coordinator's catalogue has it.
    pub model_sha256: String,
    /// The adapter.
    pub adapter: AdapterSpec,
    /// Longer records are cut, tokens.
    pub max_tokens: usize,
}

/// A low-rank adapter (Hu et al. 2021).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterSpec {
    /// r.
    pub rank: usize,
    /// The product is scaled by alpha / r.
    pub alpha: f64,
    /// Dropout before the adapter while training, 0 to below 1.
    #[serde(default)]
    pub dropout: f64,
    /// Modules that get an adapter, by the end of their name, such as `q_proj`.
    pub targets: Vec<String>,
    /// How many of the topmost decoder layers get one; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,
}

/// How a site trains in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Passes over the site's records.
    pub epochs: usize,
    /// Records a step; 0: all of them.
    pub batch: usize,
    /// Step size.
    pub learning_rate: f64,
    /// Which rule.
    pub optimizer: Optimizer,
    /// FedProx: weight of half the squared distance from the round's start; 0 is plain FedAvg.
    pub mu: f64,
    /// Shrinks weights (not the bias): L2 with SGD, decoupled with AdamW.
    pub weight_decay: f64,
    /// Of the order of records, with the round's number.
    pub seed: u64,
}

/// The rule of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Plain stochastic gradient descent.
    Sgd,
    /// With momentum 0.9, begun anew in every round.
    Momentum,
    /// AdamW (beta 0.9, 0.999), begun anew in every round.
    AdamW,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Asks for training from the input's parameters on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundSpec {
    /// From 1.
    pub round: u32,
    /// How.
    pub training: Training,
    /// Of a secure sum: rows that no site has more of.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_rows: u64,
    /// What it must be paid for with: then training is DP-SGD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacySpec>,
    /// What.
    #[serde(flatten)]
    pub head: Head,
}

/// Asks how well the parameters do on the site's test records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluateSpec {
    /// Of which round the parameters are.
    pub round: u32,
    /// Train a model on the site's rows alone, like this, to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Training>,
    /// What.
    #[serde(flatten)]
    pub head: Head,
}

/// How well an adapter does at a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextEvaluation {
    /// Training records there.
    pub train_rows: u64,
    /// Test records measured; 0 where there are fewer than the site's limit.
    pub test_rows: u64,
    /// Response tokens of the test records.
    pub tokens: u64,
    /// Sum of their negative log-likelihoods, nats.
    pub nll: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_have_names_that_read_back() {
        for step in [Step::Survey, Step::Start, Step::Round(1), Step::Evaluate(120)] {
            assert_eq!(Step::parse(&step.to_string()), Some(step));
        }
        for name in ["sums", "round", "round-", "round-x", "evaluate--1"] {
            assert_eq!(Step::parse(name), None, "{name}");
        }
    }
}
