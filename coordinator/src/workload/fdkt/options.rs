//! `[fdkt]` of a plan.

use serde::{Deserialize, Serialize};
use sheaf_data::Backbone;
use sheaf_proto::{
    fdkt::{LABEL, Sampling, Texts, Tuning, spoken},
    fedavg::AdapterSpec,
};
use sheaf_text::Labels;

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
    /// Ridge parameter of the task model.
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
                 features the task model reads",
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
        if !(self.lambda.is_finite() && self.lambda > 0.0) || self.private_weight == 0 {
            return Err(refuse("lambda must be above 0 and private_weight at least 1"));
        }
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

    /// The task model's features: those of AFL on the backbone.
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

/// The encoder of the task model.
pub(super) fn encoder(plan: &Plan) -> Result<&Backbone, Error> {
    plan.schema.backbone.as_ref().ok_or_else(|| Error::bug("a checked plan has its backbone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "[run]\nname = 'x'\nworkload = 'fdkt'\n[schema.declared]\nclasses = ['a', 'b_c']\ndim = 384\n\
        [schema.backbone]\nmodel = 'minilm-l6'\n[fdkt]\ncontrol = 'About: {label}'\nabout = 'Questions'\n\
        lora = { rank = 4, alpha = 8, targets = ['q_proj'] }\n\
        tuning = { epochs = 1, batch = 8, learning_rate = 0.001 }\n";
    const PRIVACY: &str = "[privacy]\nepsilon = 8\ndelta = 1e-4\nunits = 300\n";

    #[test]
    fn mistakes_are_named() {
        assert!(Plan::parse(PLAN).is_ok());
        for (text, part) in [
            (PLAN.replace("control = 'About: {label}'\n", ""), "control"),
            (format!("{PLAN}evolution = {{ keep = 20 }}\n"), "evolution"),
            (PLAN.replace("{label}", "label"), "control"),
            (PLAN.replace("{label}", "{label} {domain}"), "braces"),
            (PLAN.replace("epochs = 1", "epochs = 0"), "tuning"),
            (PLAN.replace("rank = 4", "rank = 0"), "lora"),
            (PLAN.replace("'Questions'", "' '"), "about"),
            (format!("{PLAN}ask = 'Write something.'\n"), "ask"),
            (PLAN.replace("'b_c'", "'A'"), "classes"),
            (PLAN.replace("[schema.declared]\nclasses = ['a', 'b_c']\ndim = 384\n", ""), "schema.declared"),
            (
                PLAN.replace("workload = 'fdkt'\n", "workload = 'fdkt'\nsecure_aggregation = true\n"),
                "private-evolution",
            ),
            (format!("{PLAN}sampling = {{ per_class = 0 }}\n"), "per_class"),
            (format!("{PLAN}filter = {{ worst = 1.0 }}\n"), "filter"),
            (format!("{PLAN}filter = {{ judge = 'me' }}\n"), "`scores`"),
            (format!("{PLAN}augment = {{ spare = 0.5 }}\n"), "augment.spare"),
            (format!("{PLAN}augment = {{ top_p = 0.0 }}\n"), "augment.top_p"),
            (format!("{PLAN}arms = ['best']\n"), "`fdkt`"),
            (format!("{PLAN}colour = 1\n"), "colour"),
            (format!("{PLAN}{PRIVACY}"), "clip"),
            (format!("{PLAN}arms = ['llm']\n{PRIVACY}clip = 1.0\n"), "nothing is spent"),
        ] {
            let error = Plan::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn an_ablation_leaves_work_out() {
        let of = |arms: &str| {
            FdktOptions::of(&Plan::parse(&format!("{PLAN}arms = {arms}\n")).unwrap())
                .map(|options| (options.synthesises(), options.augments()))
                .unwrap()
        };
        assert_eq!(of("[]"), (false, false));
        assert_eq!(of("['synthetic']"), (true, false));
        assert_eq!(of("['llm']"), (false, true));
        assert_eq!(of("['fdkt']"), (true, true));
        assert_eq!(of("['synthetic']\nsynthesiser = 'private-evolution'"), (true, true));
    }
}
