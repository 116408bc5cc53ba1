//! Workloads: what a run asks of its sites and what it makes of the answers. A new one is a file here, one in
//! the agent, its documents in `sheaf-proto`, and a line in [`named`]; nothing else knows workloads by name.

mod adapter;
pub mod afl;
mod ask;
pub mod fdkt;
pub mod fedavg;
pub mod rewardds;
pub mod secure;

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use sheaf_proto::BlobId;
use sheaf_transport::{digest::sha256_hex, identity::SiteName};

use crate::{
    error::Error,
    models::Tools,
    privacy::Schedule,
    report::{LocalScores, RewardReport, Scores, SiteMetrics, TransferReport},
    run::{
        event::{Next, PhaseOutput, PhaseSpec},
        plan::Plan,
    },
    store::blobs::BlobStore,
};

/// What a workload may use: the plan, the blobs, and nothing of the run's state but what it is handed.
pub struct Context<'a> {
    /// The checked plan.
    pub plan: &'a Plan,
    /// The coordinator's blobs.
    pub blobs: &'a BlobStore,
    /// Sites that take part now, by name, where a workload decides or merges; empty elsewhere.
    pub members: &'a [SiteName],
    /// The run's id.
    pub run_id: &'a str,
    /// Of the run: 1, then one more with every withdrawal or addition.
    pub version: u32,
    /// The authority's certificate, DER: what site credentials are checked against. Empty where none are.
    pub authority: &'a [u8],
    /// Models and the like, where a workload merges; none elsewhere.
    pub tools: Option<&'a Tools<'a>>,
}

/// The answers to one phase and what may be reused.
pub struct Answers<'a> {
    /// The question.
    pub phase: &'a PhaseSpec,
    /// Answers of every member, by site name.
    pub contributions: &'a [(SiteName, BlobId)],
    /// Finished phases before this one.
    pub outputs: &'a [PhaseOutput],
    /// What the same question gave for another set of members.
    pub previous: Option<&'a PhaseOutput>,
}

/// The coordinator's side of a workload. All methods block and are called on blocking threads.
pub trait Workload: Send + Sync {
    /// How often the workload draws noise under a plan's `[privacy]`.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] where it has no private form with these options.
    fn schedule(&self, plan: &Plan) -> Result<Schedule, Error>;

    /// Refuses a plan whose options cannot be meant.
    fn check_plan(&self, plan: &Plan) -> Result<(), Error>;

    /// What to do after these finished phases. Equal outputs and members must give the same answer, to the byte.
    fn next(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Next, Error>;

    /// Refuses an answer that cannot be, before anything changes.
    fn check_result(
        &self,
        context: &Context<'_>,
        phase: &PhaseSpec,
        site: &SiteName,
        answer: &Path,
    ) -> Result<(), Error>;

    /// Makes one document of all answers. The order of contributions must not matter.
    fn reduce(&self, context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error>;

    /// Blobs besides the output itself in which single members' answers are merged: they are deleted with the
    /// output when one of its members is withdrawn.
    fn merged_blobs(&self, context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error>;

    /// The model and its figures.
    fn publish(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Publication, Error>;
}

/// What a finished run consists of; stored as a JSON blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publication {
    /// `model.safetensors`.
    pub model: BlobId,
    /// `model.json`.
    pub card: BlobId,
    /// Hash of the weights.
    pub weight_sha256: String,
    /// Class names.
    pub classes: Vec<String>,
    /// Feature dimension.
    pub dim: usize,
    /// The federated model on the sites' test rows.
    pub test: Option<Scores>,
    /// The sites' own models.
    pub local: Option<LocalScores>,
    /// By site.
    pub sites: BTreeMap<SiteName, SitePublication>,
    /// What the features were computed on.
    pub backend: String,
    /// The model's name beside the report, where it is not `model.safetensors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_file: Option<String>,
    /// The card's name beside the report, where it is not `model.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card_file: Option<String>,
    /// What a workload of many rounds did in each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<RoundPublication>,
    /// Files beside the report, by their paths.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, BlobId>,
    /// What sites learnt from each other's texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferReport>,
    /// What the target learnt from rewarded synthetic data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardReport>,
}

/// What is published about one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundPublication {
    /// From 1.
    pub round: u32,
    /// The phase's key.
    pub key: String,
    /// The parameters after it.
    pub parameters: BlobId,
    /// Training rows in it; none where they are private.
    pub rows: Option<u64>,
    /// Mean training loss of the sites, by rows; none where it is private.
    pub loss: Option<f64>,
    /// Whose updates are in it.
    pub sites: Vec<SiteName>,
    /// Of its model on the sites' test rows, where it was measured.
    pub accuracy: Option<f64>,
    /// Negative log-likelihood a test token, nats, where it was measured.
    pub test_loss: Option<f64>,
}

/// What is published about one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SitePublication {
    /// Training rows; none where they are private.
    pub rows: Option<u64>,
    /// Training rows by class; empty where they are private.
    pub class_counts: Vec<u64>,
    /// Its figures.
    pub metrics: SiteMetrics,
}

/// The registry.
///
/// # Errors
/// [`crate::error::Class::Invalid`] for a name that is not in it.
pub fn named(name: &str) -> Result<&'static dyn Workload, Error> {
    match name {
        sheaf_proto::afl::WORKLOAD => Ok(&afl::Afl),
        sheaf_proto::fedavg::WORKLOAD => Ok(&fedavg::Fedavg),
        sheaf_proto::fdkt::WORKLOAD => Ok(&fdkt::Fdkt),
        sheaf_proto::rewardds::WORKLOAD => Ok(&rewardds::Rewardds),
        _ => Err(Error::invalid(format!(
            "there is no workload `{name}`; this version has: {}, {}, {}, {}",
            sheaf_proto::afl::WORKLOAD,
            sheaf_proto::fedavg::WORKLOAD,
            sheaf_proto::fdkt::WORKLOAD,
            sheaf_proto::rewardds::WORKLOAD
        ))),
    }
}

/// A question to every member, on whose answers the model depends: stores the specification and names the whole by content.
///
/// # Errors
/// The specification cannot be stored.
pub fn question(
    context: &Context<'_>,
    name: &str,
    spec: &impl Serialize,
    inputs: Vec<BlobId>,
    release: &str,
    max_result_bytes: u64,
) -> Result<PhaseSpec, Error> {
    let spec = context.blobs.put(&serde_json::to_vec_pretty(spec)?)?;
    Ok(PhaseSpec {
        name: name.to_owned(),
        key: phase_key(name, &spec, &inputs),
        spec,
        inputs,
        releases: vec![release.to_owned()],
        defines_model: true,
        max_result_bytes,
        may_miss: false,
        sites: None,
        site_inputs: BTreeMap::new(),
    })
}

/// Names a question by content: the phase's name and a digest of all that is asked.
fn phase_key(name: &str, spec: &BlobId, inputs: &[BlobId]) -> String {
    let mut text = format!("{name} {spec}");
    for input in inputs {
        text.push(' ');
        text.push_str(&input.to_string());
    }
    format!("{name}-{}", &sha256_hex(text.as_bytes())[..16])
}
