//! What a report says of exchanged texts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_proto::fdkt::{Arm, Texts};
use sheaf_text::Funnel;

use crate::workload::fdkt::JudgeUse;

/// What sites learnt from each other's texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferReport {
    /// How task models do, by what they have learnt from; with the noise that it was paid for with.
    pub arms: Vec<ArmReport>,
    /// Texts in each set.
    pub counts: BTreeMap<Texts, usize>,
    /// What was dropped on the way to each set, and why.
    pub funnels: BTreeMap<Texts, Funnel>,
    /// Who filtered the sites' texts.
    pub judge: JudgeUse,
    /// What the coordinator's language model was used for; none where it wrote nothing.
    pub llm: Option<LlmUse>,
    /// A text of each set, for a few labels.
    pub samples: Vec<TransferSample>,
    /// Measured with the private records themselves; known in simulations alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<Judged>,
}

/// How the task models of one arm do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmReport {
    /// What they have learnt from.
    pub arm: Arm,
    /// Test records of all sites, noise included.
    pub rows: u64,
    /// Share of them that is put into its class.
    pub accuracy: f64,
    /// The same at each site.
    pub sites: BTreeMap<String, f64>,
}

/// What a language model was used for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlmUse {
    /// Its name, with its server.
    pub model: String,
    /// Requests that were sent.
    pub requests: u64,
    /// Prompts that the cache answered.
    pub from_cache: u64,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// What they cost, where prices are known.
    pub cost: Option<f64>,
    /// Wall time.
    pub seconds: f64,
}

/// A text of each set under one label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferSample {
    /// The label.
    pub label: String,
    /// By a site, under differential privacy.
    pub synthetic: Option<String>,
    /// By the language model, from the label alone.
    pub llm: Option<String>,
    /// By the language model, after the sites' texts.
    pub fdkt: Option<String>,
}

/// What a simulation measures with all private records at hand: exact figures, and what the texts give away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Test records of all sites.
    pub rows: u64,
    /// Share of them that the sites' task models put into their class, by arm, without noise.
    pub arms: BTreeMap<Arm, f64>,
    /// The same of one model of all sites' records in one place: the upper bound.
    pub pooled: f64,
    /// What the released texts have in common with private records.
    pub near_copies: NearCopies,
    /// What became of planted secrets; none where none were planted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canaries: Option<Canaries>,
}

/// Invented sentences with a secret of some words that were planted among the sites' training records, one in the place of a
/// record, and what the released texts say of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canaries {
    /// At all sites together.
    pub planted: usize,
    /// Words of a secret.
    pub words: usize,
    /// How many of them stand in some released text, in a row and whole.
    pub found: usize,
    /// Most words in a row of a secret that a released text has.
    pub longest_run: usize,
}

/// Runs of words that released texts share with private training records, the control code left aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearCopies {
    /// Released texts that were looked at.
    pub texts: usize,
    /// The longest run of words that one of them shares with a record.
    pub longest_run: usize,
    /// From so many words on a text counts as a near-copy.
    pub words: usize,
    /// Near-copies.
    pub found: usize,
}
