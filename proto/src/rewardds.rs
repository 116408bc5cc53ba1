//! The documents of the workload `rewardds`: reward-driven synthesis under differential privacy (EMNLP 2025, arXiv 2502.18517).
//! Sites tune two small proxies on their own queries and responses: one that writes, one that rewards. The coordinator samples,
//! filters and refines with them, tunes its own language model on what is left, and sites measure that.
//!
//! | phase | specification | input | answer |
//! |---|---|---|---|
//! | `start` | asked of nobody: the proxies' first parameters are drawn | | |
//! | `generator-K` | [`GeneratorSpec`] | its parameters | its parameters; as a secure sum ([`crate::secure`]) [`crate::fedavg::summed`] |
//! | `reward-K` | [`RewardSpec`] | its parameters, the generator's | its parameters; as a secure sum the same |
//! | `sample`, `tune-ARM`, `refine-K` | asked of nobody | | |
//! | `evaluate` | [`EvaluateSpec`] | the target's adapters, the reward's parameters, the generator's | [`Evaluation`] |
//! | `deliver` | [`DeliverSpec`] | the target's adapter | nothing |
//!
//! Specifications are JSON, parameters are safetensors ([`crate::fedavg::Parameters`]).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use sheaf_data::{Backbone, Schema};

use crate::{
    fdkt::{LABEL, Tuning, spoken},
    fedavg::AdapterSpec,
    privacy::PrivacySpec,
};

/// Workload name on the wire and in plans.
pub const WORKLOAD: &str = "rewardds";
/// Kinds of output a site's policy allows or forbids: a small model that was tuned on the site's records.
pub const RELEASE_PROXIES: &str = "proxies";
/// Phase names: of the one that asks nothing of records.
pub const DELIVER: &str = "deliver";
/// The reward's matrix in its [`RewardForm::Embedding`], `[1, 4 * dim]`.
pub const REWARD_WEIGHT: &str = "w";
/// Under privacy an answer counts as no less likely than this, nats a token: what noise is measured against.
pub const MOST_NLL: f64 = 8.0;

/// A phase by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// First parameters of both proxies.
    Start,
    /// Tuning the generation proxy, rounds counted from 1.
    Generator(u32),
    /// Tuning the reward proxy, rounds counted from 1.
    Reward(u32),
    /// Queries and candidate responses, rewarded.
    Sample,
    /// Tuning the target as one arm does.
    Tune(Arm),
    /// A round of refinement, from 2.
    Refine(u32),
    /// Measuring the target at the sites.
    Evaluate,
    /// Bringing the sites the target.
    Deliver,
}

impl Step {
    /// Reads a phase's name; none for that of another workload.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "start" => return Some(Self::Start),
            "sample" => return Some(Self::Sample),
            "evaluate" => return Some(Self::Evaluate),
            DELIVER => return Some(Self::Deliver),
            _ => {}
        }
        let (kind, rest) = name.split_once('-')?;
        match kind {
            "generator" => rest.parse().ok().map(Self::Generator),
            "reward" => rest.parse().ok().map(Self::Reward),
            "refine" => rest.parse().ok().map(Self::Refine),
            "tune" => Arm::ALL.into_iter().find(|arm| arm.name() == rest).map(Self::Tune),
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::Generator(round) => write!(f, "generator-{round}"),
            Self::Reward(round) => write!(f, "reward-{round}"),
            Self::Sample => f.write_str("sample"),
            Self::Tune(arm) => write!(f, "tune-{}", arm.name()),
            Self::Refine(round) => write!(f, "refine-{round}"),
            Self::Evaluate => f.write_str("evaluate"),
            Self::Deliver => f.write_str(DELIVER),
        }
    }
}

/// What the target is tuned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// Nothing.
    Untuned,
    /// All queries, one response each.
    Unfiltered,
    /// A draw of queries, one response each, as many as the filters keep.
    Random,
    /// Responses that the query's other candidates agree with most, by ROUGE-L.
    Rouge,
    /// Responses that lie nearest to their query, by cosine of sentence embeddings.
    Embedding,
    /// Responses that the generation proxy finds likeliest.
    Perplexity,
    /// Reward guided filtering.
    Rgf,
    /// Reward guided filtering, then self-optimizing refinement.
    RgfSor,
    /// The private records themselves, without noise: an upper bound that a simulation alone knows.
    NonPrivate,
}

impl Arm {
    /// All of them, in the order of reading.
    pub const ALL: [Self; 9] = [
        Self::Untuned,
        Self::Unfiltered,
        Self::Random,
        Self::Rouge,
        Self::Embedding,
        Self::Perplexity,
        Self::Rgf,
        Self::RgfSor,
        Self::NonPrivate,
    ];

    /// As plans and file names write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Untuned => "untuned",
            Self::Unfiltered => "unfiltered",
            Self::Random => "random",
            Self::Rouge => "rouge",
            Self::Embedding => "embedding",
            Self::Perplexity => "perplexity",
            Self::Rgf => "rgf",
            Self::RgfSor => "rgf-sor",
            Self::NonPrivate => "non-private",
        }
    }

    /// Whether the coordinator tunes its model for it on synthetic data in one go.
    pub const fn is_filter(self) -> bool {
        matches!(
            self,
            Self::Unfiltered | Self::Random | Self::Rouge | Self::Embedding | Self::Perplexity | Self::Rgf
        )
    }
}

/// Asks a site to tune the generation proxy: what follows the control code is learnt, the query and the response to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratorSpec {
    /// How records are read: texts are queries, answers are responses.
    pub schema: Schema,
    /// The proxy.
    #[serde(flatten)]
    pub generator: Generator,
    /// How it is tuned.
    pub tuning: Tuning,
    /// The round and its price.
    #[serde(flatten)]
    pub round: Round,
}

/// A generation proxy: an adapter of a small language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// The frozen model's name in the catalogue.
    pub model: String,
    /// SHA-256 of the model, 64 hexadecimal digits.
    pub model_sha256: String,
    /// The adapter.
    pub adapter: AdapterSpec,
    /// Control code before every query; with [`LABEL`] in it, of the record's class.
    pub control: String,
    /// Longer records are cut, tokens.
    pub max_tokens: usize,
    /// Longest response, tokens: longer ones are cut.
    pub answer_tokens: usize,
}

/// Which round it is and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// From 1.
    pub round: u32,
    /// Of a secure sum: rows that no site has more of.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_rows: u64,
    /// What it must be paid with: then training is DP-SGD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacySpec>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Asks a site to tune the reward proxy: its own response is preferred to the generation proxy's, that to the untuned model's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardSpec {
    /// How records are read.
    pub schema: Schema,
    /// What answers the records' queries, with and without its adapter.
    pub generator: Generator,
    /// The proxy.
    pub reward: RewardForm,
    /// How it is tuned.
    pub tuning: Tuning,
    /// Answers each record's query by itself, so that its pairs follow from it alone to the bit: several times slower.
    pub alone: bool,
    /// The round and its price.
    #[serde(flatten)]
    pub round: Round,
}

/// A reward proxy: scores a response to a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "kebab-case")]
pub enum RewardForm {
    /// A linear head on `[e_q, e_r, |e_q - e_r|, e_q * e_r]` of frozen sentence embeddings.
    Embedding {
        /// The encoder.
        encoder: Backbone,
    },
    /// The generator's language model with an adapter of its own and a head on the last token.
    LanguageModel {
        /// The adapter.
        adapter: AdapterSpec,
        /// Longer pairs of query and response are cut, tokens.
        max_tokens: usize,
    },
}

/// Brings a site the tuned target, its only input, which stays there. The answer is empty: it reads no record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeliverSpec {
    /// The target.
    pub target: Target,
    /// What it was tuned on.
    pub arm: Arm,
}

/// Asks how the target does on a site's test records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluateSpec {
    /// How records are read.
    pub schema: Schema,
    /// The target.
    pub target: Target,
    /// What it was tuned on; the inputs are the adapters of all but [`Arm::Untuned`], in this order.
    pub arms: Vec<Arm>,
    /// Measures the reward too: its parameters and the generator's are the last two inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<Measured>,
    /// Most test records that are measured, the first of an order by their content; 0: all of them.
    pub records: usize,
    /// What the figures must be paid with; none tells them exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacySpec>,
}

/// The coordinator's language model, as sites measure it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The frozen model's name in the catalogue.
    pub model: String,
    /// SHA-256 of the model, 64 hexadecimal digits.
    pub model_sha256: String,
    /// Its adapter.
    pub adapter: AdapterSpec,
    /// Longer records are cut, tokens.
    pub max_tokens: usize,
    /// Longest response, tokens.
    pub answer_tokens: usize,
    /// Responses are Python programs: they are run against the record's tests, in a sandbox.
    #[serde(default)]
    pub code: bool,
}

/// A reward proxy that is measured, with what it compares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The proxy.
    pub reward: RewardForm,
    /// What answers the test records' queries.
    pub generator: Generator,
}

/// How the target does on test records. Sums over records; with noise where it is paid for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Test records; 0 where there were too few to say anything.
    pub rows: f64,
    /// By what the target was tuned on.
    pub arms: BTreeMap<Arm, Figures>,
    /// The reward's judgement of pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Pairs>,
}

/// Sums over test records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Of the mean negative log-likelihood of the response's tokens, nats.
    pub nll: f64,
    /// Of ROUGE-L F1 of the greedy answer.
    pub rouge_l: f64,
    /// Of ROUGE-1 F1; none where figures are noised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rouge_1: Option<f64>,
    /// Of ROUGE-2 F1; none where figures are noised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rouge_2: Option<f64>,
    /// Of the greedy answer's words; none where figures are noised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<f64>,
    /// Records whose tests the greedy answer passes (pass@1); none where responses are no code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<f64>,
}

/// Pairs of test records that a reward puts in the right order: a record counts the share of its pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pairs {
    /// Records that have any pair.
    pub rows: f64,
    /// Sum of the shares that are right.
    pub right: f64,
    /// The same by pair (own before the untuned model's, own before the proxy's, the proxy's before the untuned model's); none where
    /// figures are noised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_pair: Option<[Share; 3]>,
}

/// How likely test records are under a generation proxy, and under the model as it was published: sums over records of the mean
/// negative log-likelihood of what follows the control code (query, response, end), nats a token. No site says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    /// Test records that the proxy reads.
    pub rows: u64,
    /// Under the untuned model.
    pub untuned: f64,
    /// Under the proxy.
    pub tuned: f64,
}

impl Likelihood {
    /// Adds what is known of another site's proxy.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.untuned += other.untuned;
        self.tuned += other.tuned;
    }

    /// Means over records, under the proxy and under the untuned model, nats a token; none without a record.
    pub fn means(&self) -> Option<(f64, f64)> {
        let mean = |sum: f64| sum / self.rows as f64;
        (self.rows > 0).then(|| (mean(self.tuned), mean(self.untuned)))
    }
}

/// So many right of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// In the right order.
    pub right: u64,
    /// In all.
    pub of: u64,
}

impl Evaluation {
    /// Adds what another site has measured of the same arms. A figure that one of them lacks is none of the sum.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        for (arm, figures) in &other.arms {
            match self.arms.get_mut(arm) {
                Some(sum) => sum.add(figures),
                None => self.arms.extend([(*arm, *figures)]),
            }
        }
        match (&mut self.pairs, &other.pairs) {
            (Some(sum), Some(other)) => sum.add(other),
            (sum @ None, other) => *sum = *other,
            (Some(_), None) => {}
        }
    }
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.nll += other.nll;
        self.rouge_l += other.rouge_l;
        for (sum, other) in [
            (&mut self.rouge_1, other.rouge_1),
            (&mut self.rouge_2, other.rouge_2),
            (&mut self.words, other.words),
            (&mut self.passed, other.passed),
        ] {
            *sum = sum.zip(other).map(|(a, b)| a + b);
        }
    }
}

impl Pairs {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.right += other.right;
        self.by_pair = self.by_pair.zip(other.by_pair).map(|(a, b)| {
            std::array::from_fn(|at| Share { right: a[at].right + b[at].right, of: a[at].of + b[at].of })
        });
    }

    /// Share of the pairs in the right order; none without a record.
    pub fn accuracy(&self) -> Option<f64> {
        (self.rows > 0.0).then(|| (self.right / self.rows).clamp(0.0, 1.0))
    }
}

/// A query and a response under a control code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The control code, without a class's mark.
    pub control: String,
    /// The query.
    pub query: String,
    /// The response.
    pub response: String,
}

/// A text that a language model wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The text, trimmed.
    pub text: String,
    /// The model ended it; else it was cut.
    pub ended: bool,
}

/// A query as it stands in front of a response: one line.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A control code, of a class where it names one.
pub fn control(code: &str, label: &str) -> String {
    code.replace(LABEL, &spoken(label))
}

/// What the generation proxy is given to write a query.
pub fn before_query(control: &str) -> String {
    format!("{control}\n")
}

/// What the generation proxy is given to write a response.
pub fn before_response(control: &str, query: &str) -> String {
    format!("{control}\n{}\n", one_line(query))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_have_names_of_their_own() {
        let mut steps = vec![
            Step::Start,
            Step::Sample,
            Step::Evaluate,
            Step::Deliver,
            Step::Generator(3),
            Step::Reward(1),
        ];
        steps.push(Step::Refine(2));
        steps.extend(Arm::ALL.map(Step::Tune));
        for step in steps {
            assert_eq!(Step::parse(&step.to_string()), Some(step));
        }
        for other in ["synthesise", "tune", "tune-", "generator-x", "refine-", ""] {
            assert_eq!(Step::parse(other), None, "{other}");
        }
        for arm in Arm::ALL {
            assert_eq!(serde_json::to_string(&arm).unwrap(), format!("\"{}\"", arm.name()));
        }
    }

    #[test]
    fn figures_of_sites_add_up() {
        let figures =
            |passed| Figures { nll: 3.0, rouge_l: 0.5, rouge_1: Some(0.75), passed, ..Figures::default() };
        let site = |passed| Evaluation {
            rows: 2.0,
            arms: [(Arm::Rgf, figures(passed))].into(),
            pairs: Some(Pairs { rows: 2.0, right: 1.5, by_pair: Some([Share { right: 1, of: 2 }; 3]) }),
        };
        let mut sum = Evaluation::default();
        sum.add(&site(Some(1.0)));
        sum.add(&site(None));
        assert_eq!((sum.rows, sum.arms[&Arm::Rgf].nll, sum.arms[&Arm::Rgf].rouge_1), (4.0, 6.0, Some(1.5)));
        assert_eq!(sum.arms[&Arm::Rgf].passed, None, "one site has not measured it");
        let pairs = sum.pairs.unwrap();
        assert_eq!((pairs.accuracy(), pairs.by_pair.unwrap()[2]), (Some(0.75), Share { right: 2, of: 4 }));
    }

    #[test]
    fn a_query_is_one_line_behind_its_control_code() {
        assert_eq!(control("About {label}:", "card_arrival"), "About card arrival:");
        assert_eq!(before_response("Q:", "two\n lines "), "Q:\ntwo lines\n");
        assert!(before_response("Q:", "x").starts_with(&before_query("Q:")));
    }
}
