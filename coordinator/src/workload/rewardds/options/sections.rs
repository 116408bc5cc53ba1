//! The sections of `[rewardds]`, with their defaults.

use serde::{Deserialize, Serialize};
use sheaf_proto::{fdkt::Tuning, fedavg::AdapterSpec};

/// Whose the proxies are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proxies {
    /// Every site tunes its own; the coordinator samples from each and averages their rewards.
    #[default]
    PerSite,
    /// All sites tune one of each in rounds of averaging.
    Shared,
}

/// `[rewardds.generator]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorOptions {
    /// Its adapter.
    pub lora: AdapterSpec,
    /// How it is tuned in a round.
    pub tuning: Tuning,
    /// `proxies = "shared"`: rounds of tuning and averaging.
    #[serde(default = "one")]
    pub rounds: u32,
}

/// `[rewardds.reward]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardOptions {
    /// What it reads.
    pub form: Form,
    /// `language-model`: its adapter.
    #[serde(default)]
    pub lora: Option<AdapterSpec>,
    /// How it is tuned in a round.
    pub tuning: Tuning,
    /// `proxies = "shared"`: rounds of tuning and averaging.
    #[serde(default = "one")]
    pub rounds: u32,
    /// Under `[privacy]`: the most that one unit's gradient may weigh; the generator's is `clip` there.
    #[serde(default = "unit")]
    pub clip: f64,
    /// Under `[privacy]`: its noise over the generator's, each against its clip. More of it leaves more of epsilon to the generator.
    #[serde(default = "unit")]
    pub noise: f64,
    /// Under `[privacy]`: answers each record's query by itself, so that its pairs follow from it alone to the bit.
    #[serde(default = "yes")]
    pub alone: bool,
}

/// What a reward proxy reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Sentence embeddings of query and response, by a linear head.
    Embedding,
    /// Query and response themselves, by the small language model with an adapter and a scalar head.
    LanguageModel,
}

/// `[rewardds.queries]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryOptions {
    /// Queries, at most.
    pub count: usize,
    /// So many times as many are drawn, since duplicates go.
    pub spare: f64,
    /// Longest query, tokens.
    pub max_tokens: usize,
    /// Shorter queries are dropped, words.
    pub min_words: usize,
    /// Of two queries with at least this Jaccard similarity of word triples one goes.
    pub near: f64,
    /// Spread of the draw.
    pub temperature: f64,
    /// Draw among the likeliest tokens that together have this probability.
    pub top_p: f64,
    /// Of all draws of the coordinator.
    pub seed: u64,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            count: 3000,
            spare: 1.5,
            max_tokens: 64,
            min_words: 3,
            near: 0.8,
            temperature: 1.0,
            top_p: 0.7,
            seed: 0,
        }
    }
}

/// `[rewardds.filter]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterOptions {
    /// Candidate responses to each query.
    pub candidates: usize,
    /// Weight of the reward's rank against that of the perplexity.
    pub alpha: f64,
    /// One in so many queries is kept.
    pub fold: usize,
    /// Spread of the draw.
    pub temperature: f64,
    /// Draw among the likeliest tokens that together have this probability.
    pub top_p: f64,
}

impl Default for FilterOptions {
    fn default() -> Self {
        Self { candidates: 6, alpha: 0.5, fold: 8, temperature: 1.0, top_p: 0.7 }
    }
}

/// `[rewardds.refine]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RefineOptions {
    /// Rounds, the filtering being the first.
    pub rounds: u32,
    /// Revisions of each response in a round.
    pub revisions: usize,
    /// Longest feedback, tokens.
    pub feedback_tokens: usize,
    /// Spread of the draw.
    pub temperature: f64,
    /// Draw among the likeliest tokens that together have this probability.
    pub top_p: f64,
    /// A hosted target: examples from the pool that stand before a question.
    pub shots: usize,
}

impl Default for RefineOptions {
    fn default() -> Self {
        Self { rounds: 3, revisions: 6, feedback_tokens: 48, temperature: 0.7, top_p: 0.9, shots: 3 }
    }
}

/// `[rewardds.target]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetOptions {
    /// Where it is.
    #[serde(default)]
    pub kind: Kind,
    /// `embedded`: its name in the catalogue.
    #[serde(default = "model")]
    pub model: String,
    /// `embedded`: its adapter.
    #[serde(default)]
    pub lora: Option<AdapterSpec>,
    /// Passes over the filtered examples.
    #[serde(default = "epochs")]
    pub epochs: usize,
    /// Passes over the pool in each round of refinement.
    #[serde(default = "refine_epochs")]
    pub refine_epochs: usize,
    /// Examples a step.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Step size.
    #[serde(default = "learning_rate")]
    pub learning_rate: f64,
    /// Share of the queries that are held out to choose the pass by.
    #[serde(default = "holdout")]
    pub holdout: f64,
    /// Responses are Python programs: sites run them against their tests in a sandbox.
    #[serde(default)]
    pub code: bool,
}

/// Where the target is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In the coordinator's process: an adapter of it is tuned and goes to the sites.
    #[default]
    Embedded,
    /// The server of `[llm]`: its weights stay as they are, prompts and examples change.
    Hosted,
}

pub(super) fn model() -> String {
    "smollm2-135m".to_owned()
}
const fn one() -> u32 {
    1
}
const fn unit() -> f64 {
    1.0
}
const fn yes() -> bool {
    true
}
const fn epochs() -> usize {
    8
}
const fn refine_epochs() -> usize {
    3
}
const fn batch() -> usize {
    8
}
const fn learning_rate() -> f64 {
    1e-3
}
const fn holdout() -> f64 {
    0.1
}
