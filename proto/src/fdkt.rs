//! The documents of the workload `fdkt`: federated domain-specific knowledge transfer (arXiv 2405.14212). Sites tune a small
//! language model on their own texts under differential privacy and send what it writes; sites then learn from the texts of all.
//!
//! | phase | specification | input | answer |
//! |---|---|---|---|
//! | `synthesise` | [`SynthesiseSpec`] | | [`Labelled`], one JSON object a line |
//! | `vote-N` | [`VoteSpec`] | candidates: [`Labelled`], one JSON object a line | [`Votes`] |
//! | `refine` | asked of nobody: the coordinator filters, and its language model writes | | |
//! | `transfer` | [`TransferSpec`] | sets of [`Labelled`], one JSON object a line | [`Transfer`] |
//!
//! Votes and what is measured can be secure sums in place of the last two ([`crate::secure`]): `vote-N` of its votes, `transfer`
//! of [`TransferSpec::to_vector`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_data::Schema;
pub use sheaf_text::Labelled;

use crate::{afl::SumsSpec, fedavg::AdapterSpec, privacy::PrivacySpec};

mod summed;

pub use summed::NoCounts;

/// Workload name on the wire and in plans.
pub const WORKLOAD: &str = "fdkt";
/// Phase names.
pub const SYNTHESISE: &str = "synthesise";
/// Phase names: candidates of Private Evolution, asked of nobody.
pub const SEED: &str = "seed";
/// Phase names: this with the number of the vote, from 1.
pub const VOTE: &str = "vote-";
/// Phase names.
pub const REFINE: &str = "refine";
/// Phase names.
pub const TRANSFER: &str = "transfer";
/// Kinds of output a site's policy allows or forbids: texts that a model wrote which was tuned on the site's records.
pub const RELEASE_SYNTHETIC: &str = "synthetic";
/// Stands for the label in a control code, as [`spoken`] has it.
pub const LABEL: &str = "{label}";

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

/// Asks a site which of many candidates lie nearest to its records (Private Evolution: Xie et al. 2024, arXiv 2403.01749).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoteSpec {
    /// How records and candidates become feature rows, and what the votes must be paid with.
    #[serde(flatten)]
    pub sums: SumsSpec,
    /// Votes that the run still wants, this one included: what a site reserves anew where a crash has used up what it had.
    pub left: u64,
}

/// Votes of a site's training records, each for the candidate of its own label that lies nearest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Votes {
    /// One number a candidate, in [`VOTE_UNIT`]s, with noise where it is paid for.
    pub votes: Vec<i64>,
}

/// What the vote of a unit weighs; a unit of several records shares it among theirs. So fine that a site's share of the least
/// noise that a plan may have (0.3 units) among the most sites of a secure sum still is noise on integers (`LEAST_SCALE`).
pub const VOTE_UNIT: i64 = 1 << 16;

/// How an adapter is tuned.
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

/// Asks what texts are worth at a site: models of its own records, of each set of texts, of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferSpec {
    /// How records become feature rows; the head on them is analytic (AFL).
    #[serde(flatten)]
    pub sums: SumsSpec,
    /// Ridge parameter.
    pub lambda: f64,
    /// What a private record weighs against a text.
    pub weight: u32,
    /// Which sets of texts the inputs are, in their order.
    pub texts: Vec<Texts>,
    /// Which task models are trained and measured.
    #[serde(default = "analytic")]
    pub task: Vec<TaskModel>,
    /// How [`TaskModel::LanguageModel`] is made, where it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier: Option<ClassifierSpec>,
}

fn analytic() -> Vec<TaskModel> {
    vec![TaskModel::Analytic]
}

/// What sites train on records and texts. None of it leaves a site, only how many test records it gets right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskModel {
    /// The analytic head on the features of the schema's backbone.
    Analytic,
    /// A language model with an adapter and a head that puts texts into classes.
    LanguageModel,
}

impl TaskModel {
    /// All of them, in the order of reading.
    pub const ALL: [Self; 2] = [Self::Analytic, Self::LanguageModel];
}

/// How a language model learns to put texts into the declared classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassifierSpec {
    /// The frozen model's name in the catalogue.
    pub model: String,
    /// SHA-256 of the model, 64 hexadecimal digits.
    pub model_sha256: String,
    /// The adapter that is tuned beside the head.
    pub adapter: AdapterSpec,
    /// Longer texts are cut, tokens.
    pub max_tokens: usize,
    /// How both are tuned.
    pub tuning: Tuning,
}

/// A set of texts that sites learn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Texts {
    /// What the sites wrote under differential privacy, filtered.
    Synthetic,
    /// What the coordinator's language model wrote from the classes' names alone.
    Llm,
    /// What the sites wrote, and what the coordinator's language model wrote after their example.
    Fdkt,
}

impl Texts {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Synthetic, Self::Llm, Self::Fdkt];

    /// As plans and file names write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Synthetic => "synthetic",
            Self::Llm => "llm",
            Self::Fdkt => "fdkt",
        }
    }

    /// What a site's own records and these texts give.
    pub const fn arm(self) -> Arm {
        match self {
            Self::Synthetic => Arm::Synthetic,
            Self::Llm => Arm::Llm,
            Self::Fdkt => Arm::Fdkt,
        }
    }

    /// What these texts give without a record.
    pub const fn alone(self) -> Arm {
        match self {
            Self::Synthetic => Arm::SyntheticAlone,
            Self::Llm => Arm::LlmAlone,
            Self::Fdkt => Arm::FdktAlone,
        }
    }
}

/// What a task model has learnt from. An arm that names texts learns from them and the site's own records, unless it says
/// "alone".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// The site's own records.
    Local,
    /// [`Texts::Synthetic`].
    Synthetic,
    /// [`Texts::Llm`].
    Llm,
    /// [`Texts::Fdkt`].
    Fdkt,
    /// [`Texts::Synthetic`] without a record.
    SyntheticAlone,
    /// [`Texts::Llm`] without a record.
    LlmAlone,
    /// [`Texts::Fdkt`] without a record.
    FdktAlone,
}

impl Arm {
    /// All of them, in the order of reading.
    pub const ALL: [Self; 7] = [
        Self::Local,
        Self::Synthetic,
        Self::SyntheticAlone,
        Self::Llm,
        Self::LlmAlone,
        Self::Fdkt,
        Self::FdktAlone,
    ];

    /// Whether the site's own records are among what it learns from.
    pub fn reads_records(self) -> bool {
        Texts::ALL.into_iter().all(|texts| texts.alone() != self)
    }

    /// The texts that it learns from, if any.
    pub fn texts(self) -> Option<Texts> {
        Texts::ALL.into_iter().find(|texts| texts.arm() == self || texts.alone() == self)
    }
}

/// How models do on the site's test records; all of it with noise where it is paid for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Test records; 0 where there were too few to say anything.
    pub rows: u64,
    /// How many of them a model puts into their class, by what it is and by what it has learnt from.
    pub correct: BTreeMap<TaskModel, BTreeMap<Arm, u64>>,
}

impl Transfer {
    /// What models get right of so many test records.
    pub fn of(rows: u64, right: impl IntoIterator<Item = ((TaskModel, Arm), u64)>) -> Self {
        let mut transfer = Self { rows, ..Self::default() };
        for ((task, arm), right) in right {
            transfer.correct.entry(task).or_default().insert(arm, right);
        }
        transfer
    }

    /// How many test records a model gets right; none where it was not measured.
    pub fn right(&self, task: TaskModel, arm: Arm) -> Option<u64> {
        self.correct.get(&task)?.get(&arm).copied()
    }

    /// Adds what another site has measured of the same models.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        for (task, arms) in &other.correct {
            for (arm, correct) in arms {
                *self.correct.entry(*task).or_default().entry(*arm).or_default() += correct;
            }
        }
    }

    /// Share of the test records that a model puts into their class; none where it was not measured.
    pub fn accuracy(&self, task: TaskModel, arm: Arm) -> Option<f64> {
        let correct = self.right(task, arm)?;
        // Noise may find more right ones than there are records.
        (self.rows > 0).then(|| (correct.min(self.rows)) as f64 / self.rows as f64)
    }
}

/// A class's name as a text would have it: "card_arrival" is "card arrival".
pub fn spoken(label: &str) -> String {
    label.split(['_', '-', ' ']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
