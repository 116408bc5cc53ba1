//! The documents of the workload `fdkt`: federated domain-specific knowledge transfer (arXiv 2405.14212). Sites tune a small
//! language model on their own texts under differential privacy and send what it writes; sites then learn from the texts of all.
//!
//! | phase | specification | input | answer |
//! |---|---|---|---|
//! | `synthesise` | [`SynthesiseSpec`] | | [`Labelled`], one JSON object a line |
//! | `transfer` | [`TransferSpec`] | the texts of all sites, one JSON object a line | [`Transfer`] |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_analytic::metrics::Confusion;
use sheaf_data::Schema;

use crate::{afl::SumsSpec, fedavg::AdapterSpec, privacy::PrivacySpec};

/// Workload name on the wire and in plans.
pub const WORKLOAD: &str = "fdkt";
/// Phase names.
pub const SYNTHESISE: &str = "synthesise";
/// Phase names.
pub const TRANSFER: &str = "transfer";
/// Kinds of output a site's policy allows or forbids: texts that a model wrote which was tuned on the site's records.
pub const RELEASE_SYNTHETIC: &str = "synthetic";
/// Stands for the label in a control code.
pub const LABEL: &str = "{label}";

/// A text with its label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// The text.
    pub text: String,
    /// One of the declared classes.
    pub label: String,
}

/// Asks a site to tune a generator and to write texts with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SynthesiseSpec {
    /// How records are read. Its declared classes are those that texts are written for.
    pub schema: Schema,
    /// The frozen model's name in the catalogue.
    pub model: String,
    /// SHA-256 of the model, 64 hexadecimal digits.
    pub model_sha256: String,
    /// The adapter that is tuned.
    pub adapter: AdapterSpec,
    /// Control code before every text, with [`LABEL`] in it.
    pub control: String,
    /// Longer records are cut, tokens.
    pub max_tokens: usize,
    /// How it is tuned.
    pub tuning: Tuning,
    /// How texts are drawn.
    pub sampling: Sampling,
    /// What it must be paid with; none tunes without noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacySpec>,
}

/// How a generator is tuned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Passes over the records.
    pub epochs: usize,
    /// Records a step, on average under `[privacy]`.
    pub batch: usize,
    /// Step size of Adam.
    pub learning_rate: f64,
    /// Of the first adapter and the order of records; never of noise.
    #[serde(default)]
    pub seed: u64,
}

/// How texts are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Texts of each class: the same number, so that nothing shows how the records are spread.
    pub per_class: usize,
    /// Longest text, tokens.
    pub max_tokens: usize,
    /// Spread of the draw.
    pub temperature: f64,
    /// Likeliest tokens to draw among; 0 for all.
    pub top_k: usize,
    /// Draw among the likeliest tokens that together have this probability.
    pub top_p: f64,
    /// Shorter texts are dropped, words.
    pub min_words: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { per_class: 10, max_tokens: 64, temperature: 1.0, top_k: 50, top_p: 0.9, min_words: 4 }
    }
}

/// Asks what the texts of all sites are worth at a site: models of the private records alone, of the texts alone, of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferSpec {
    /// How records become feature rows; the head on them is analytic (AFL).
    #[serde(flatten)]
    pub sums: SumsSpec,
    /// Ridge parameter.
    pub lambda: f64,
    /// What a synthetic text weighs against a private record.
    pub weight: u32,
}

/// What a task model learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// The site's own records.
    Local,
    /// The texts of all sites.
    Synthetic,
    /// Both.
    Transfer,
}

/// How models do on the site's test records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Confusion matrix by what was learnt from; empty with too few test records.
    pub arms: BTreeMap<Arm, Confusion>,
}
