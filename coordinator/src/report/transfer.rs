//! What a report says of exchanged texts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_proto::fdkt::{Arm, TaskModel, Texts};
use sheaf_text::Funnel;

use crate::workload::fdkt::JudgeUse;

/// What sites learnt from each other's texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferReport {
    /// How task models do, by what they are and what they have learnt from; with the noise that it was paid for with.
    pub arms: Vec<ArmReport>,
    /// What people call the task models that the plan asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<TaskModel, String>,
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
    /// What they are; in older reports all of them are analytic.
    #[serde(default = "analytic")]
    pub task: TaskModel,
    /// What they have learnt from.
    pub arm: Arm,
    /// Test records of all sites, noise included.
    pub rows: u64,
    /// Share of them that is put into its class.
    pub accuracy: f64,
    /// The same at each site.
    pub sites: BTreeMap<String, f64>,
}

const fn analytic() -> TaskModel {
    TaskModel::Analytic
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
    /// Share of them that the sites' analytic heads put into their class, by arm, without noise.
    pub arms: BTreeMap<Arm, f64>,
    /// The same of one head of all sites' records in one place: the upper bound.
    pub pooled: f64,
    /// The same of the language model, where the plan asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_model: Option<JudgedClassifiers>,
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

/// Exact figures of a language model as the task model: shares of the same test records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedClassifiers {
    /// Of the sites' classifiers, by arm.
    pub arms: BTreeMap<Arm, f64>,
    /// Of one classifier of all sites' records in one place.
    pub pooled: f64,
}

impl Judged {
    /// The exact share of a task model's arm.
    pub fn arm(&self, task: TaskModel, arm: Arm) -> Option<f64> {
        let arms = match task {
            TaskModel::Analytic => &self.arms,
            TaskModel::LanguageModel => &self.language_model.as_ref()?.arms,
        };
        arms.get(&arm).copied()
    }

    /// The exact share of a task model of all sites' records.
    pub fn pooled(&self, task: TaskModel) -> Option<f64> {
        match task {
            TaskModel::Analytic => Some(self.pooled),
            TaskModel::LanguageModel => self.language_model.as_ref().map(|judged| judged.pooled),
        }
    }
}

impl TransferReport {
    /// What the sites say of a task model's arm.
    pub fn said(&self, task: TaskModel, arm: Arm) -> Option<f64> {
        let found = self.arms.iter().find(|report| report.task == task && report.arm == arm);
        found.map(|report| report.accuracy)
    }

    /// What a simulation knows of it.
    pub fn exact(&self, task: TaskModel, arm: Arm) -> Option<f64> {
        self.judged.as_ref().and_then(|judged| judged.arm(task, arm))
    }

    /// The task models of which anything is known, in the order of reading.
    pub fn tasks(&self) -> Vec<TaskModel> {
        let known = |task: TaskModel, arm| self.said(task, arm).or_else(|| self.exact(task, arm)).is_some();
        TaskModel::ALL.into_iter().filter(|task| Arm::ALL.into_iter().any(|arm| known(*task, arm))).collect()
    }

    /// What people call a task model.
    pub fn name(&self, task: TaskModel) -> &str {
        // Older reports, and those of a plan that did not ask for it but a simulation's judge did.
        let unnamed = match task {
            TaskModel::Analytic => "analytic head on an encoder",
            TaskModel::LanguageModel => "language model with a classification adapter",
        };
        self.names.get(&task).map_or(unnamed, String::as_str)
    }
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
