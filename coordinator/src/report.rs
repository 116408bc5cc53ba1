//! What a run leaves behind: `report.json` (schema 1, documented in docs/report.md), `report.html`,
//! `model.safetensors`, `model.json`, `events.jsonl` and a signed `manifest.json`.

pub mod bundle;
mod html;
mod reward;
mod transfer;

use serde::{Deserialize, Serialize};
use sheaf_data::Backbone;

use crate::privacy::SignedStatement;

pub use html::render;
pub use reward::{
    PoolRound, ProxyReport, RefinementSample, RewardArm, RewardFigures, RewardJudged, RewardReport, Spread,
};
pub use transfer::{
    ArmReport, Canaries, Judged, JudgedClassifiers, LlmUse, NearCopies, TransferReport, TransferSample,
};

/// Version of `report.json`.
pub const SCHEMA: u32 = 1;

/// `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Which run.
    pub run: RunInfo,
    /// What came out.
    pub model: ModelInfo,
    /// How good it is.
    pub metrics: Metrics,
    /// Every invited site, by name.
    pub sites: Vec<SiteReport>,
    /// Round by round, for workloads of many rounds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<RoundReport>,
    /// Another method on the same feature rows; known in simulations that ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// What the tuned language model writes; known in simulations of an adapter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<TextSample>,
    /// What sites learnt from each other's texts, for workloads that exchange texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferReport>,
    /// What the coordinator's language model learnt from rewarded synthetic data, for the workload that makes some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardReport>,
    /// What the plan allowed to be lost; absent where answers were exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<RunPrivacy>,
    /// Where the time went.
    pub timing: Timing,
    /// What computed it.
    pub environment: Environment,
}

/// Which run a report is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Unique id.
    pub id: String,
    /// The plan's name.
    pub name: String,
    /// The workload.
    pub workload: String,
    /// SHA-256 of the plan's text.
    pub plan_sha256: String,
    /// done, running, failed or aborted.
    pub status: String,
    /// 1, then one more with every withdrawal or addition of a site.
    pub version: u32,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: Option<String>,
    /// The plan, TOML.
    pub plan: String,
}

/// One round of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundReport {
    /// From 1.
    pub round: u32,
    /// Sites that were asked.
    pub asked: usize,
    /// Sites whose updates are in it.
    pub sites: Vec<String>,
    /// Sites that were asked and are not in it.
    pub missed: Vec<MissedRound>,
    /// Training rows in it; null where they are private.
    pub rows: Option<u64>,
    /// Mean training loss, by rows; null where it is private.
    pub loss: Option<f64>,
    /// Of the model after it on test rows; null where it was not measured.
    pub accuracy: Option<f64>,
    /// Negative log-likelihood a test token, nats; null where it was not measured.
    pub test_loss: Option<f64>,
    /// Bytes the sites sent in this round.
    pub bytes_up: u64,
    /// Bytes the sites fetched in this round.
    pub bytes_down: u64,
    /// The parameters after it, `sha256:size`: a blob the operator may fetch.
    pub parameters: String,
}

/// A site that missed a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MissedRound {
    /// Who.
    pub site: String,
    /// Why.
    pub reason: String,
}

/// Another method on the same feature rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Its name for people.
    pub name: String,
    /// Its accuracy on the same test rows.
    pub accuracy: f64,
    /// Bytes all sites send for it, its survey left aside.
    pub bytes_up: u64,
}

/// The model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// File name beside the report.
    pub file: String,
    /// SHA-256 of the weight tensors' bytes: nothing in it varies by run.
    pub sha256: String,
    /// Class names, in the order of the weight's columns.
    pub classes: Vec<String>,
    /// Feature dimension D.
    pub dim: usize,
    /// The hash of the model of all rows in one place; known in simulations.
    pub pooled_sha256: Option<String>,
    /// Whether the two are equal.
    pub equal_to_pooled: Option<bool>,
    /// The pre-trained model whose features the weights are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Backbone>,
}

/// How good the models are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The federated model.
    pub test: Option<Scores>,
    /// The model of all rows in one place, on the same test rows; known in simulations.
    pub pooled: Option<Scores>,
    /// Models of single sites.
    pub local: Option<LocalScores>,
}

/// A model on test rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Test rows.
    pub rows: u64,
    /// Share of rows classified correctly.
    pub accuracy: f64,
    /// Mean recall over the classes that occur.
    pub balanced_accuracy: f64,
    /// Area under the ROC curve; two classes only.
    pub auc: Option<f64>,
    /// By class.
    pub per_class: Vec<ClassScores>,
    /// `[true][predicted]`.
    pub confusion: Vec<Vec<u64>>,
    /// "sites" (confusion matrices were summed) or "central".
    pub measured_on: String,
}

/// A model on one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The class's name.
    pub class: String,
    /// Test rows of the class.
    pub support: u64,
    /// Share of the class's rows found; none without rows.
    pub recall: Option<f64>,
    /// Share of rows given to the class that are of it; none when none were given.
    pub precision: Option<f64>,
}

/// Models that sites would have alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalScores {
    /// Mean over the sites measured.
    pub mean_accuracy: f64,
    /// How many were.
    pub sites_measured: usize,
}

impl LocalScores {
    /// Of what was measured of each; none where nothing was.
    pub fn of(accuracies: &[f64]) -> Option<Self> {
        let sites_measured = accuracies.len();
        let mean_accuracy = accuracies.iter().sum::<f64>() / sites_measured as f64;
        (sites_measured > 0).then_some(Self { mean_accuracy, sites_measured })
    }
}

/// One site's part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Its name.
    pub name: String,
    /// Training rows in the sums; null where they are private.
    pub rows: Option<u64>,
    /// in, dropped, declined or withdrawn.
    pub status: String,
    /// Why it is not in.
    pub reason: Option<String>,
    /// Bytes it sent for this version's phases.
    pub bytes_up: u64,
    /// Bytes it fetched.
    pub bytes_down: u64,
    /// Its computing time, seconds.
    pub seconds: f64,
    /// Training rows by class.
    pub class_counts: Vec<u64>,
    /// How models do there.
    pub metrics: SiteMetrics,
    /// What the run has cost the site's data set, as the site says; absent where nothing was spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<SitePrivacy>,
}

/// What the plan allowed to be lost. Adjacency is add/remove of one unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunPrivacy {
    /// Whose presence is protected: `row`, or a column.
    pub unit: String,
    /// What the model may cost each site.
    pub epsilon: f64,
    /// What measuring it may cost each site; null where no site measured.
    pub evaluate: Option<f64>,
    /// The delta of both.
    pub delta: f64,
    /// The mechanisms, with their noise.
    pub events: Vec<sheaf_privacy::Event>,
}

/// What a run has cost a site's data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SitePrivacy {
    /// PLD epsilon of the run, from above: what it spent.
    pub epsilon: f64,
    /// Rényi epsilon of the run.
    pub epsilon_rdp: f64,
    /// PLD epsilon of the run where neighbours differ by one unit exchanged.
    pub epsilon_replace_one: f64,
    /// Delta of these.
    pub delta: f64,
    /// PLD epsilon of everything ever done with the data set, at the cap's delta.
    pub epsilon_total: f64,
    /// The site's cap.
    pub cap: f64,
    /// The cap's delta.
    pub cap_delta: f64,
    /// Entries of the site's ledger at that moment.
    pub ledger_entries: u64,
    /// The statement that these figures are from, as the site signed it.
    pub statement: SignedStatement,
}

/// How models do at one site.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteMetrics {
    /// Test rows there.
    pub test_rows: u64,
    /// The federated model's.
    pub accuracy: Option<f64>,
    /// The federated model's.
    pub balanced_accuracy: Option<f64>,
    /// Of a model of this site's rows alone.
    pub local_accuracy: Option<f64>,
}

/// Where the time went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// From submission (or the version's start) to publication, seconds.
    pub total_s: f64,
    /// By phase, in order.
    pub phases: Vec<PhaseTiming>,
}

/// Time of one phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseTiming {
    /// Its name.
    pub name: String,
    /// From opening to the last answer, seconds.
    pub seconds: f64,
}

/// What computed the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Of Sheaf.
    pub version: String,
    /// What the sites' features were computed on.
    pub backend: String,
    /// Threads the coordinator may use.
    pub threads: usize,
}

/// Figures an operator measures and attaches: those that need data the coordinator does not have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachedEvaluation {
    /// The federated model on a central test set.
    #[serde(default)]
    pub test: Option<Scores>,
    /// The model of all rows in one place.
    #[serde(default)]
    pub pooled: Option<Scores>,
    /// Its hash.
    #[serde(default)]
    pub pooled_sha256: Option<String>,
    /// Single sites' models on a central test set.
    #[serde(default)]
    pub local: Option<LocalScores>,
    /// Accuracy of rounds' models on a central test set.
    #[serde(default)]
    pub rounds: std::collections::BTreeMap<u32, f64>,
    /// Another method on the same feature rows.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// What the tuned language model writes.
    #[serde(default)]
    pub samples: Vec<TextSample>,
    /// What exchanged texts are worth and give away, measured with the private records.
    #[serde(default)]
    pub judged: Option<Judged>,
    /// What the target and the reward proxies are worth, measured with the private records.
    #[serde(default)]
    pub reward: Option<RewardJudged>,
}

/// What a language model writes after a prompt, always its likeliest token, without and with the run's adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextSample {
    /// The prompt: a test record's text.
    pub prompt: String,
    /// The record's own answer, of which the models know nothing.
    pub reference: String,
    /// The frozen model.
    pub before: String,
    /// The model with the adapter.
    pub after: String,
}

impl Scores {
    /// From the integers that were summed.
    pub fn from_confusion(
        confusion: &sheaf_analytic::metrics::Confusion,
        auc: Option<f64>,
        classes: &[String],
        measured_on: &str,
    ) -> Self {
        let per_class = confusion
            .per_class()
            .into_iter()
            .zip(classes)
            .map(|(scores, class)| ClassScores {
                class: class.clone(),
                support: scores.support,
                recall: scores.recall,
                precision: scores.precision,
            })
            .collect();
        Self {
            rows: confusion.rows(),
            accuracy: confusion.accuracy().unwrap_or(0.0),
            balanced_accuracy: confusion.balanced_accuracy().unwrap_or(0.0),
            auc,
            per_class,
            confusion: confusion.counts().chunks(confusion.classes().max(1)).map(<[u64]>::to_vec).collect(),
            measured_on: measured_on.to_owned(),
        }
    }
}
