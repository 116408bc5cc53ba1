//! `[fdkt]` of a plan.

mod classifier;

use serde::{Deserialize, Serialize};
use sheaf_data::Backbone;
use sheaf_proto::{
    fdkt::{LABEL, Sampling, TaskModel, Texts, Tuning, spoken},
    fedavg::AdapterSpec,
};
use sheaf_text::Labels;

pub use classifier::ClassifierOptions;

use crate::{error::Error, run::plan::Plan, workload::afl::AflOptions, workload::fedavg::check_adapter};

/// `[fdkt]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdktOptions {
    /// Sets of texts that are made and measured; all of them when absent. An ablation leaves some out.
    #[serde(default = "all")]
    pub arms: Vec<Texts>,
    /// The sites' small language model, by its name in the catalogue.
    #[serde(default = "model")]
    pub model: String,
    /// Where the sites' texts come from.
    #[serde(default)]
    pub synthesiser: Synthesiser,
    /// `dp-lora`: the generator's adapter.
    #[serde(default)]
    pub lora: Option<AdapterSpec>,
    /// `dp-lora`: control code before every text, with `{label}` in it.
    #[serde(default)]
    pub control: Option<String>,
    /// `private-evolution`: how candidates are made and chosen.
    #[serde(default)]
    pub evolution: EvolutionOptions,
    /// What the texts are, for the coordinator's language model: "Questions of a bank's customers".
    pub about: String,
    /// How a model that does what it is asked in one sentence is asked for one text without an example, with `{label}` in it. One
    /// of `about`, when absent.
    #[serde(default)]
    pub ask: Option<String>,
    /// Longer records are cut, tokens.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// `dp-lora`: how the generator is tuned.
    #[serde(default)]
    pub tuning: Option<Tuning>,
    /// How texts are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// Which of the sites' texts go on.
    #[serde(default)]
    pub filter: FilterOptions,
    /// What the coordinator's language model writes.
    #[serde(default)]
    pub augment: AugmentOptions,
    /// Task models that sites train on records and texts, and measure.
    #[serde(default = "analytic")]
    pub task: Vec<TaskModel>,
    /// `task` with `language-model`: how it learns classes.
    #[serde(default)]
    pub classifier: ClassifierOptions,
    /// Ridge parameter of the analytic head.
    #[serde(default = "one")]
    pub lambda: f64,
    /// What a private record weighs against a text.
    #[serde(default = "weight")]
    pub private_weight: u32,
}

/// Where the sites' texts come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Synthesiser {
    /// Sites tune a small language model with noise and let it write.
    #[default]
    DpLora,
    /// The coordinator's language model writes candidates, the sites' records vote for them with noise: no site trains.
    PrivateEvolution,
}

/// `[fdkt.evolution]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvolutionOptions {
    /// Votes.
    pub rounds: u32,
    /// Candidates of each class in a vote, at most.
    pub candidates: usize,
    /// Candidates of each class that a vote leaves, at most.
    pub keep: usize,
}

impl Default for EvolutionOptions {
    fn default() -> Self {
        Self { rounds: 3, candidates: 12, keep: 4 }
    }
}

/// What `dp-lora` needs.
pub(super) struct Generator<'a> {
    pub(super) lora: &'a AdapterSpec,
    pub(super) control: &'a str,
    pub(super) tuning: &'a Tuning,
}

/// `[fdkt.filter]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterOptions {
    /// Who decides.
    pub judge: Judge,
    /// Answers of a judge to one cluster until scores decide.
    pub attempts: u32,
    /// Scores: share of the texts that fit their label worst and are dropped.
    pub worst: f64,
    /// Scores: share of those left that lie farthest from the middle of their label and are dropped.
    pub far: f64,
    /// Texts with a higher cosine to an earlier one are dropped.
    pub near: f64,
}

impl Default for FilterOptions {
    fn default() -> Self {
        Self { judge: Judge::Auto, attempts: 3, worst: 0.25, far: 0.1, near: 0.95 }
    }
}

/// Who filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judge {
    /// The language model where it follows instructions, scores where it does not.
    Auto,
    /// The language model, cluster by cluster.
    Llm,
    /// Scores alone.
    Scores,
}

/// `[fdkt.augment]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentOptions {
    /// Texts of each class that go to the sites, at most.
    pub per_class: usize,
    /// So many times as many are asked for, since some will not do.
    pub spare: f64,
    /// Texts of a class that a prompt shows.
    pub demonstrations: usize,
    /// What a prompt looks like.
    pub prompt: PromptKind,
    /// Texts that a prompt asks for.
    pub per_prompt: usize,
    /// Longest text, tokens.
    pub max_tokens: u32,
    /// Spread of the draw.
    pub temperature: f64,
    /// Draw among the likeliest tokens that together have this probability.
    pub top_p: f64,
    /// Shorter texts are dropped, words.
    pub min_words: usize,
    /// A text is dropped when another label fits it better than its own by more than this, nats.
    pub margin: f64,
    /// Of the order of demonstrations and of the draw.
    pub seed: u64,
}

impl Default for AugmentOptions {
    fn default() -> Self {
        Self {
            per_class: 10,
            spare: 1.5,
            demonstrations: 3,
            prompt: PromptKind::Auto,
            per_prompt: 5,
            max_tokens: 64,
            temperature: 0.8,
            top_p: 0.9,
            min_words: 4,
            margin: 1.0,
            seed: 0,
        }
    }
}

/// What a prompt looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptKind {
    /// `label-complete` for a model that follows instructions, `by-label` for one that does not.
    Auto,
    /// Demonstrations of every label, and a layout to answer in.
    LabelComplete,
    /// A list of texts of one label to go on with, or a question for one where there is nothing to show; one new text an answer.
    ByLabel,
}

fn all() -> Vec<Texts> {
    Texts::ALL.to_vec()
}
fn model() -> String {
    "smollm2-135m".to_owned()
}
fn analytic() -> Vec<TaskModel> {
    vec![TaskModel::Analytic]
}
const fn max_tokens() -> usize {
    96
}
const fn one() -> f64 {
    1.0
}
const fn weight() -> u32 {
    4
}

/// An error about a key of `[fdkt]`.
pub(super) fn refuse(problem: impl std::fmt::Display) -> Error {
    Error::invalid(format!("[fdkt] {problem}"))
}

impl FdktOptions {
    /// Whether sites write texts themselves, which leave them.
    pub fn sites_write(&self) -> bool {
        self.synthesises() && self.synthesiser == Synthesiser::DpLora
    }

    /// Reads and checks the plan's table.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] with the key.
    pub fn of(plan: &Plan) -> Result<Self, Error> {
        let options: Self =
            plan.options.clone().try_into().map_err(|e: toml::de::Error| refuse(e.message()))?;
        if plan.schema.declared.is_none() || plan.schema.backbone.is_none() {
            return Err(refuse(
                "the plan needs [schema.declared] with the classes, which texts are written for, and [schema.backbone], whose \
                 features the analytic head reads",
            ));
        }
        if plan.run.secure_aggregation && options.synthesiser == Synthesiser::DpLora {
            return Err(refuse(
                "[run] secure_aggregation: texts cannot be summed; leave the key out, or use synthesiser = \"private-evolution\", \
                 whose votes can",
            ));
        }
        options.check_task()?;
        if options.synthesiser == Synthesiser::DpLora {
            options.check_generator()?;
        }
        options.check_refinement()?;
        options.classifier()?;
        if plan.privacy.is_some() && !options.synthesises() {
            return Err(refuse(
                "arms has no texts of the sites, so nothing is spent; leave [privacy] out, or take \"synthetic\" or \"fdkt\" in",
            ));
        }
        labels(plan)?;
        Ok(options)
    }

    /// The parts of the plan that `dp-lora` needs.
    pub(super) fn generator(&self) -> Result<Generator<'_>, Error> {
        let missing = |key| refuse(format!("{key} is missing; synthesiser = \"dp-lora\" needs it"));
        Ok(Generator {
            lora: self.lora.as_ref().ok_or_else(|| missing("lora"))?,
            control: self.control.as_deref().ok_or_else(|| missing("control"))?,
            tuning: self.tuning.as_ref().ok_or_else(|| missing("tuning"))?,
        })
    }

    fn check_task(&self) -> Result<(), Error> {
        let Sampling { per_class, max_tokens, temperature, top_p, .. } = self.sampling;
        if per_class == 0 || per_class > 10_000 || max_tokens == 0 || max_tokens > 1024 {
            return Err(refuse("sampling.per_class must be 1 to 10000, sampling.max_tokens 1 to 1024"));
        }
        check_draw("sampling", temperature, top_p)?;
        if !(8..=2048).contains(&self.max_tokens) {
            return Err(refuse("max_tokens must be 8 to 2048"));
        }
        let weighs = (1..=1000).contains(&self.private_weight);
        if !(self.lambda.is_finite() && self.lambda > 0.0 && weighs) {
            return Err(refuse("lambda must be above 0, private_weight 1 to 1000"));
        }
        let twice = (1..self.task.len()).any(|at| self.task[..at].contains(&self.task[at]));
        if self.task.is_empty() || twice {
            return Err(refuse(
                "task must name \"analytic\", \"language-model\", or each of them once: [evaluate] decides whether sites measure",
            ));
        }
        self.classifier.check()?;
        let EvolutionOptions { rounds, candidates, keep } = self.evolution;
        if !(1..=100).contains(&rounds) || keep == 0 || keep > candidates || candidates > 1000 {
            return Err(refuse(
                "evolution.rounds must be 1 to 100, evolution.candidates at most 1000, evolution.keep 1 to candidates",
            ));
        }
        Ok(())
    }

    fn check_generator(&self) -> Result<(), Error> {
        let Generator { lora, control, tuning } = self.generator()?;
        if !control.contains(LABEL) {
            return Err(refuse(format!(
                "control must have {LABEL} in it, such as \"Question about: {LABEL}\""
            )));
        }
        if control.replace(LABEL, "").contains(['{', '}']) {
            return Err(refuse(format!("control has braces that are not {LABEL}")));
        }
        let Tuning { epochs, batch, learning_rate, .. } = *tuning;
        if epochs == 0 || batch == 0 || !(learning_rate > 0.0 && learning_rate <= 1.0) {
            return Err(refuse(
                "tuning needs epochs and batch of at least 1 and a learning_rate above 0, at most 1",
            ));
        }
        check_adapter(lora).map_err(refuse)
    }

    fn check_refinement(&self) -> Result<(), Error> {
        if self.about.trim().is_empty() {
            return Err(refuse(
                "about must say what the texts are, such as \"Questions of a bank's customers\"",
            ));
        }
        if self.ask.as_ref().is_some_and(|ask| !ask.contains(LABEL)) {
            return Err(refuse(format!("ask must have {LABEL} in it")));
        }
        let FilterOptions { worst, far, near, attempts, .. } = self.filter;
        if !((0.0..1.0).contains(&worst) && (0.0..1.0).contains(&far) && near > 0.0 && near <= 1.0) {
            return Err(refuse(
                "filter: worst and far are shares from 0 to below 1, near is above 0, at most 1",
            ));
        }
        if attempts == 0 || attempts > 100 {
            return Err(refuse("filter.attempts must be 1 to 100"));
        }
        let a = &self.augment;
        if !(1..=10_000).contains(&a.per_class) || !(1.0..=20.0).contains(&a.spare) {
            return Err(refuse("augment.per_class must be 1 to 10000, augment.spare 1 to 20"));
        }
        if !(1..=100).contains(&a.per_prompt) || a.demonstrations > 100 {
            return Err(refuse("augment.per_prompt must be 1 to 100, augment.demonstrations at most 100"));
        }
        if !(1..=2048).contains(&a.max_tokens) || a.min_words == 0 || a.margin.is_nan() {
            return Err(refuse(
                "augment.max_tokens must be 1 to 2048, augment.min_words at least 1, augment.margin a number",
            ));
        }
        check_draw("augment", a.temperature, a.top_p)
    }

    /// The question for one text of a label, without an example.
    pub(super) fn question(&self, label: &str) -> String {
        match &self.ask {
            Some(ask) => ask.replace(LABEL, label),
            None => format!("Write one of these: {}, about {label}. Write only the text.", self.about),
        }
    }

    /// Whether sites write texts.
    pub fn synthesises(&self) -> bool {
        self.arms.iter().any(|texts| matches!(texts, Texts::Synthetic | Texts::Fdkt))
    }

    /// Whether the coordinator's language model writes texts.
    pub fn augments(&self) -> bool {
        self.evolves() || self.arms.iter().any(|texts| matches!(texts, Texts::Llm | Texts::Fdkt))
    }

    /// Whether the sites' texts are candidates that their records vote for.
    pub fn evolves(&self) -> bool {
        self.synthesises() && self.synthesiser == Synthesiser::PrivateEvolution
    }

    /// The task model that a report speaks of first.
    pub fn first_task(&self) -> TaskModel {
        self.task.iter().copied().min().unwrap_or(TaskModel::Analytic)
    }

    /// The analytic head's features: those of AFL on the backbone.
    pub fn afl(&self) -> AflOptions {
        AflOptions { lambda: self.lambda, ..AflOptions::default() }
    }
}

fn check_draw(section: &str, temperature: f64, top_p: f64) -> Result<(), Error> {
    if temperature > 0.0 && temperature <= 10.0 && top_p > 0.0 && top_p <= 1.0 {
        return Ok(());
    }
    Err(refuse(format!(
        "{section}.temperature must be above 0 and at most 10, {section}.top_p above 0, at most 1"
    )))
}

/// The declared classes, by the names that the schema gives them.
pub(super) fn classes(plan: &Plan) -> &[String] {
    plan.schema.declared.as_ref().map(|declared| declared.classes.as_slice()).unwrap_or_default()
}

/// The declared classes as texts and prompts name them, in the same order.
///
/// # Errors
/// [`crate::error::Class::Invalid`] for two that would read the same.
pub(super) fn labels(plan: &Plan) -> Result<Labels, Error> {
    Labels::new(classes(plan).iter().map(|class| spoken(class)))
        .map_err(|e| Error::invalid(format!("[schema.declared] classes: {e}")))
}

/// The encoder of the analytic head.
pub(super) fn encoder(plan: &Plan) -> Result<&Backbone, Error> {
    plan.schema.backbone.as_ref().ok_or_else(|| Error::bug("a checked plan has its backbone"))
}

#[cfg(test)]
mod tests;
