//! What a report says of a target that was tuned on rewarded synthetic data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_proto::rewardds::{Arm, Figures, Likelihood, Pairs};
use sheaf_text::{
    Funnel,
    reward::{Histogram, Variety},
};

use super::LlmUse;

/// What the coordinator's language model learnt, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardReport {
    /// The target in words: which model, tuned or not.
    pub target: String,
    /// What the sites sent, or made together.
    pub proxies: Vec<ProxyReport>,
    /// By what the target was tuned on, in the order of reading.
    pub arms: Vec<RewardArm>,
    /// Test records of all sites, noise included; none where sites measured nothing.
    pub rows: Option<f64>,
    /// How often the reward proxies put pairs of test records in the right order, as the sites say it.
    pub pairs: Option<Pairs>,
    /// Filtering, then each round of refinement.
    pub rounds: Vec<PoolRound>,
    /// What was dropped on the way from draws to queries with candidates.
    pub funnel: Funnel,
    /// A few refinements.
    pub samples: Vec<RefinementSample>,
    /// What a hosted target was used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm: Option<LlmUse>,
    /// Measured with the private records themselves; known in simulations alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<RewardJudged>,
}

/// A proxy as it reached the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyReport {
    /// The site's name, or `shared`.
    pub owner: String,
    /// Bytes of the generation proxy.
    pub generator_bytes: u64,
    /// Bytes of the reward proxy.
    pub reward_bytes: u64,
}

/// The target of one arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardArm {
    /// What it was tuned on.
    pub arm: Arm,
    /// Examples that it learnt from; none where it was not tuned.
    pub examples: Option<usize>,
    /// Tokens that it learnt from, over all passes.
    pub tokens: u64,
    /// Negative log-likelihood of held-out synthetic examples before the first pass and after each, nats a token.
    pub held: Vec<f64>,
    /// The pass whose adapter was taken, from 1.
    pub pass: usize,
    /// What the sites say of it, with the noise that it was paid for with.
    pub said: Option<RewardFigures>,
}

/// Means over test records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RewardFigures {
    /// Mean over records of the response's mean negative log-likelihood, nats a token.
    pub nll: f64,
    /// e to it.
    pub perplexity: f64,
    /// Mean ROUGE-L F1 of greedy answers.
    pub rouge_l: f64,
    /// Mean ROUGE-1 F1.
    pub rouge_1: Option<f64>,
    /// Mean ROUGE-2 F1.
    pub rouge_2: Option<f64>,
    /// Mean words of greedy answers.
    pub words: Option<f64>,
    /// Share of programs that pass their tests at the first try.
    pub pass_at_1: Option<f64>,
}

impl RewardFigures {
    /// Means of sums over so many records; none without a record.
    pub fn of(rows: f64, sums: &Figures) -> Option<Self> {
        let mean = |sum: f64| sum / rows;
        // Noise may leave less than a record. A number beyond the largest could not be read again.
        (rows >= 1.0).then(|| Self {
            nll: mean(sums.nll),
            perplexity: mean(sums.nll).min(700.0).exp(),
            rouge_l: mean(sums.rouge_l),
            rouge_1: sums.rouge_1.map(mean),
            rouge_2: sums.rouge_2.map(mean),
            words: sums.words.map(mean),
            pass_at_1: sums.passed.map(mean),
        })
    }
}

/// The pool after a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolRound {
    /// 1 for the filtering.
    pub round: u32,
    /// Queries, those that are held out among them.
    pub queries: usize,
    /// Responses that were taken into the pool.
    pub accepted: usize,
    /// Responses in the pool after it.
    pub pool: usize,
    /// The score that a revision had to reach.
    pub threshold: Option<f64>,
    /// What became of the chosen responses, by reason.
    pub verdicts: BTreeMap<String, usize>,
    /// Rewards of all candidates, of the chosen ones, and of the pool.
    pub scores: Spread<Histogram>,
    /// Lengths and variety of the same: watch them for reward hacking.
    pub variety: Spread<Variety>,
}

/// The same of all candidates of a round, of those chosen, and of the pool after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread<T> {
    /// Of all candidates.
    pub candidates: T,
    /// Of each query's best.
    pub chosen: T,
    /// Of the pool.
    pub pool: T,
}

/// One refinement side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefinementSample {
    /// The round that it is from.
    pub round: u32,
    /// The query.
    pub query: String,
    /// The best response before.
    pub chosen: String,
    /// The worst response before.
    pub rejected: String,
    /// What the target said of the two.
    pub feedback: String,
    /// The best revision.
    pub revision: String,
    /// Scores of the best response before, of the worst one and of the revision.
    pub scores: [f64; 3],
    /// What became of it.
    pub verdict: String,
}

/// What a simulation measures with all private records at hand: sums over test records of all sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardJudged {
    /// Test records.
    pub rows: u64,
    /// By arm, the non-private one among them.
    pub arms: BTreeMap<Arm, Figures>,
    /// Pairs that each site's reward proxy puts in the right order on its own test records.
    pub pairs: Option<Pairs>,
    /// How likely each site's generation proxy finds the site's own test records, all sites together; none where there was no proxy
    /// to measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Likelihood>,
    /// Training records that were left out since a test record nearly equals them.
    #[serde(default)]
    pub duplicates: usize,
}

impl RewardReport {
    /// An arm's exact figures where they are known, else what the sites say.
    pub fn figures(&self, arm: Arm) -> Option<RewardFigures> {
        let exact = self
            .judged
            .as_ref()
            .and_then(|judged| RewardFigures::of(judged.rows as f64, judged.arms.get(&arm)?));
        exact.or_else(|| self.arms.iter().find(|report| report.arm == arm)?.said)
    }

    /// How often the reward is right: exactly where that is known, else as the sites say it.
    pub fn accuracy(&self) -> Option<f64> {
        let exact = self.judged.as_ref().and_then(|judged| judged.pairs.as_ref()?.accuracy());
        exact.or_else(|| self.pairs.as_ref()?.accuracy())
    }

    /// How likely the generation proxies find test records, and the untuned model, nats a token; known in simulations alone.
    pub fn generator(&self) -> Option<(f64, f64)> {
        self.judged.as_ref()?.generator?.means()
    }
}
