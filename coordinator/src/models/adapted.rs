//! Language models of the coordinator's own process that run and learn with adapters: what RewardDS does with the sites' proxies.

use sheaf_proto::{
    fedavg::{AdapterSpec, Parameters},
    rewardds::{Exchange, Generator, RewardForm, Target, Written},
};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// How texts are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawing {
    /// Spread; 0 takes the likeliest token always.
    pub temperature: f64,
    /// Draw among the likeliest tokens that together have this probability.
    pub top_p: f64,
    /// Longest text, tokens.
    pub max_tokens: usize,
}

/// Something to be written, with the seed of its draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// A control code, or a question.
    pub text: String,
    /// Of the draw.
    pub seed: u64,
}

/// How the target is tuned.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetTuning {
    /// Passes over the examples.
    pub epochs: usize,
    /// Examples a step.
    pub batch: usize,
    /// Step size at its peak.
    pub learning_rate: f64,
    /// Of the first adapter and the order of examples.
    pub seed: u64,
}

/// A tuned target.
#[derive(Debug, Clone, PartialEq)]
pub struct TunedTarget {
    /// The adapter after the pass that the held examples liked best.
    pub adapter: Parameters,
    /// Mean negative log-likelihood of the held examples, nats a token, before the first pass and after each; empty without any.
    pub held: Vec<f64>,
    /// After which pass the adapter is, from 1.
    pub pass: usize,
    /// Tokens learnt from.
    pub tokens: u64,
}

/// Who may stop long work, and who hears of it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called when the coordinator stops.
    pub stop: &'a CancellationToken,
    /// Hears what is done of how much.
    pub tell: &'a (dyn Fn(u64, u64) + Sync),
}

/// A proxy that writes.
pub type Writer<'a> = (&'a Generator, &'a Parameters);

/// Language models with adapters. All methods block; all of them fail with [`crate::error::Class::Transient`] when they are stopped
/// and with [`crate::error::Class::Invalid`] for parameters of another model.
#[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
pub trait AdaptedModels: Send + Sync {
    /// An adapter drawn from a seed, that changes nothing yet.
    fn first_adapter(&self, model: &str, adapter: &AdapterSpec, seed: u64) -> Result<Parameters, Error>;

    /// A reward proxy that has learnt nothing.
    fn first_reward(&self, generator: &Generator, form: &RewardForm, seed: u64) -> Result<Parameters, Error>;

    /// Queries from control codes.
    fn queries(
        &self,
        proxy: Writer<'_>,
        asks: &[Ask],
        how: Drawing,
        watch: Watch<'_>,
    ) -> Result<Vec<Written>, Error>;

    /// Responses to the queries of exchanges, whose own responses are not looked at.
    fn responses(
        &self,
        proxy: Writer<'_>,
        asks: &[(Exchange, u64)],
        how: Drawing,
        watch: Watch<'_>,
    ) -> Result<Vec<Written>, Error>;

    /// Perplexity of each response.
    fn perplexities(
        &self,
        proxy: Writer<'_>,
        exchanges: &[Exchange],
        watch: Watch<'_>,
    ) -> Result<Vec<f64>, Error>;

    /// A reward proxy's scores of responses to queries.
    fn rewards(
        &self,
        generator: &Generator,
        reward: (&RewardForm, &Parameters),
        pairs: &[(&str, &str)],
        watch: Watch<'_>,
    ) -> Result<Vec<f64>, Error>;

    /// The target's answers.
    fn answers(
        &self,
        target: &Target,
        adapter: Option<&Parameters>,
        asks: &[Ask],
        how: Drawing,
        watch: Watch<'_>,
    ) -> Result<Vec<Written>, Error>;

    /// Tunes the target on queries and responses, from an adapter on or from a drawn one; `held` examples choose the pass.
    fn tune(
        &self,
        target: &Target,
        start: Option<&Parameters>,
        examples: &[(String, String)],
        held: &[(String, String)],
        how: &TargetTuning,
        watch: Watch<'_>,
    ) -> Result<TunedTarget, Error>;
}
