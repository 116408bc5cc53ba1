//! `[rewardds]` of a plan.

mod sections;

use serde::Deserialize;
use sheaf_data::{Backbone, TextPart, catalogue::Catalogue};
use sheaf_proto::{
    fdkt::{LABEL, Tuning},
    fedavg::AdapterSpec,
    rewardds::{Arm, Generator, RewardForm, Target, control},
};

use sections::model;
pub(super) use sections::{
    FilterOptions, Form, GeneratorOptions, Kind, Proxies, QueryOptions, RefineOptions, RewardOptions,
    TargetOptions,
};

use crate::{
    error::Error,
    models::adapted::{Drawing, TargetTuning},
    privacy::{Rounds, Schedule},
    run::plan::Plan,
    workload::fedavg::check_adapter,
};

/// `[rewardds]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewarddsOptions {
    /// What the target is tuned on and measured with; all of them when absent. An ablation leaves some out.
    #[serde(default = "all")]
    pub arms: Vec<Arm>,
    /// Whose the proxies are.
    #[serde(default)]
    pub proxies: Proxies,
    /// The sites' small language model, by its name in the catalogue.
    #[serde(default = "model")]
    pub model: String,
    /// The encoder of the reward's embeddings, by its name in the catalogue.
    #[serde(default = "encoder")]
    pub encoder: String,
    /// Control code before every query; with `{label}` in it, of the record's class.
    pub control: String,
    /// Longer records are cut, tokens.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// Longer responses are cut behind a sentence, tokens.
    #[serde(default = "answer_tokens")]
    pub answer_tokens: usize,
    /// The generation proxy.
    pub generator: GeneratorOptions,
    /// The reward proxy.
    pub reward: RewardOptions,
    /// Queries that the generation proxy writes.
    #[serde(default)]
    pub queries: QueryOptions,
    /// Candidate responses, and which of them are kept.
    #[serde(default)]
    pub filter: FilterOptions,
    /// Self-optimizing refinement.
    #[serde(default)]
    pub refine: RefineOptions,
    /// The coordinator's language model.
    pub target: TargetOptions,
    /// Most test records that a site measures; 0: all of them.
    #[serde(default = "measured")]
    pub measured_records: usize,
}

fn all() -> Vec<Arm> {
    Arm::ALL.to_vec()
}
fn encoder() -> String {
    "minilm-l6".to_owned()
}
const fn max_tokens() -> usize {
    160
}
const fn answer_tokens() -> usize {
    64
}
const fn measured() -> usize {
    100
}

/// An error about a key of `[rewardds]`.
pub(super) fn refuse(problem: impl std::fmt::Display) -> Error {
    Error::invalid(format!("[rewardds] {problem}"))
}

/// The catalogue's hash of a model that a key names.
fn sha256(key: &str, model: &str) -> Result<String, Error> {
    let catalogue = Catalogue::known()?;
    Ok(catalogue.model(model).map_err(|e| refuse(format!("{key}: {e}")))?.sha256())
}

impl RewarddsOptions {
    /// Reads and checks the plan's table.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] with the key.
    pub fn of(plan: &Plan) -> Result<Self, Error> {
        let options: Self =
            plan.options.clone().try_into().map_err(|e: toml::de::Error| refuse(e.message()))?;
        options.check_control(plan)?;
        options.check_proxies(plan)?;
        options.check_sampling()?;
        options.check_target()?;
        if options.target.code && plan.schema.text != TextPart::WithTest {
            return Err(refuse(
                "target.code needs [schema] text = \"with-test\": without a test no task says what its function is called",
            ));
        }
        let unmeasured = options.target.kind == Kind::Hosted || plan.run.secure_aggregation;
        if unmeasured && plan.privacy.as_ref().is_some_and(|privacy| privacy.metrics.is_some()) {
            return Err(refuse(
                "[privacy] evaluate: sites measure neither a hosted target nor anything under secure_aggregation; leave the key out",
            ));
        }
        sha256("model", &options.model)?;
        sha256("encoder", &options.encoder)?;
        Ok(options)
    }

    fn check_control(&self, plan: &Plan) -> Result<(), Error> {
        let code = &self.control;
        if code.trim().is_empty() || code.contains('\n') {
            return Err(refuse("control must be one line, such as \"A medical question and its answer:\""));
        }
        if code.replace(LABEL, "").contains(['{', '}']) {
            return Err(refuse(format!("control has braces that are not {LABEL}")));
        }
        if code.contains(LABEL) && plan.schema.declared.is_none() {
            return Err(refuse(format!(
                "control names {LABEL}: [schema.declared] must say which classes there are"
            )));
        }
        if !(16..=4096).contains(&self.max_tokens) || !(4..=2048).contains(&self.answer_tokens) {
            return Err(refuse("max_tokens must be 16 to 4096, answer_tokens 4 to 2048"));
        }
        if self.answer_tokens + 8 > self.max_tokens {
            return Err(refuse("max_tokens must leave room for a query: 8 more than answer_tokens at least"));
        }
        let twice = (1..self.arms.len()).any(|at| self.arms[..at].contains(&self.arms[at]));
        if self.arms.is_empty() || twice {
            return Err(refuse("arms must name at least one arm, and each once"));
        }
        Ok(())
    }

    fn check_proxies(&self, plan: &Plan) -> Result<(), Error> {
        for (section, tuning) in [("generator", &self.generator.tuning), ("reward", &self.reward.tuning)] {
            let Tuning { epochs, batch, learning_rate, .. } = *tuning;
            if epochs == 0 || batch == 0 || !(learning_rate > 0.0 && learning_rate <= 1.0) {
                return Err(refuse(format!(
                    "{section}.tuning needs epochs and batch of at least 1 and a learning_rate above 0, at most 1"
                )));
            }
        }
        check_adapter(&self.generator.lora).map_err(|e| refuse(format!("generator: {e}")))?;
        match (self.reward.form, &self.reward.lora) {
            (Form::LanguageModel, Some(lora)) => {
                check_adapter(lora).map_err(|e| refuse(format!("reward: {e}")))?;
            }
            (Form::LanguageModel, None) => {
                return Err(refuse("reward.lora is missing; form = \"language-model\" needs it"));
            }
            (Form::Embedding, Some(_)) => {
                return Err(refuse("reward.lora is for form = \"language-model\""));
            }
            (Form::Embedding, None) => {}
        }
        let RewardOptions { clip, noise, .. } = self.reward;
        if !(clip.is_finite() && clip > 0.0 && (0.01..=100.0).contains(&noise)) {
            return Err(refuse("reward.clip must be above 0, reward.noise 0.01 to 100"));
        }
        let (generator, reward) = (self.generator.rounds, self.reward.rounds);
        if self.proxies == Proxies::PerSite && (generator, reward) != (1, 1) {
            return Err(refuse("rounds are for proxies = \"shared\": a site's own proxies are tuned once"));
        }
        if !(1..=1000).contains(&generator) || !(1..=1000).contains(&reward) {
            return Err(refuse("generator.rounds and reward.rounds must be 1 to 1000"));
        }
        if plan.run.secure_aggregation && self.proxies == Proxies::PerSite {
            return Err(refuse(
                "[run] secure_aggregation: a site's own proxies cannot be summed; leave the key out, or use proxies = \"shared\"",
            ));
        }
        Ok(())
    }

    fn check_sampling(&self) -> Result<(), Error> {
        let q = &self.queries;
        if !(1..=1_000_000).contains(&q.count) || !(1.0..=100.0).contains(&q.spare) {
            return Err(refuse("queries.count must be 1 to 1000000, queries.spare 1 to 100"));
        }
        if q.min_words == 0 {
            return Err(refuse("queries.min_words must be at least 1"));
        }
        if !(1..=2048).contains(&q.max_tokens) || !(0.7..=1.0).contains(&q.near) {
            return Err(refuse("queries.max_tokens must be 1 to 2048, queries.near 0.7 to 1"));
        }
        let f = &self.filter;
        if !(2..=1000).contains(&f.candidates) || !(0.0..=1.0).contains(&f.alpha) || f.fold == 0 {
            return Err(refuse(
                "filter.candidates must be 2 to 1000, filter.alpha 0 to 1, filter.fold at least 1",
            ));
        }
        let r = &self.refine;
        if !(1..=100).contains(&r.rounds) || !(1..=1000).contains(&r.revisions) {
            return Err(refuse("refine.rounds must be 1 to 100, refine.revisions 1 to 1000"));
        }
        if !(1..=1024).contains(&r.feedback_tokens) {
            return Err(refuse("refine.feedback_tokens must be 1 to 1024"));
        }
        for (section, temperature, top_p) in [
            ("queries", q.temperature, q.top_p),
            ("filter", f.temperature, f.top_p),
            ("refine", r.temperature, r.top_p),
        ] {
            if !(temperature > 0.0 && temperature <= 10.0 && top_p > 0.0 && top_p <= 1.0) {
                return Err(refuse(format!(
                    "{section}.temperature must be above 0 and at most 10, {section}.top_p above 0, at most 1"
                )));
            }
        }
        Ok(())
    }

    fn check_target(&self) -> Result<(), Error> {
        let t = &self.target;
        if !(0.0..0.9).contains(&t.holdout) {
            return Err(refuse("target.holdout must be from 0 to below 0.9"));
        }
        if self.arms.contains(&Arm::RgfSor) && self.refine.rounds < 2 {
            return Err(refuse(
                "refine.rounds must be at least 2 for the arm \"rgf-sor\": the filtering is the first",
            ));
        }
        if t.kind == Kind::Hosted {
            if t.lora.is_some() || t.code {
                return Err(refuse(
                    "target.lora and target.code are for kind = \"embedded\": a hosted model stays as it is",
                ));
            }
            if let Some(arm) = self.arms.iter().find(|arm| !matches!(arm, Arm::Rgf | Arm::RgfSor)) {
                return Err(refuse(format!(
                    "arms: a hosted target is not tuned, so that \"{}\" cannot be compared; leave \"rgf\" and \"rgf-sor\"",
                    arm.name()
                )));
            }
            return Ok(());
        }
        let lora =
            t.lora.as_ref().ok_or_else(|| refuse("target.lora is missing; kind = \"embedded\" needs it"))?;
        check_adapter(lora).map_err(|e| refuse(format!("target: {e}")))?;
        if !(1..=1000).contains(&t.epochs)
            || !(1..=1000).contains(&t.refine_epochs)
            || !(1..=4096).contains(&t.batch)
        {
            return Err(refuse(
                "target.epochs and target.refine_epochs must be 1 to 1000, target.batch 1 to 4096",
            ));
        }
        if !(t.learning_rate > 0.0 && t.learning_rate <= 1.0) {
            return Err(refuse("target.learning_rate must be above 0, at most 1"));
        }
        sha256("target.model", &t.model).map(drop)
    }

    /// How often the proxies draw noise under `[privacy]`.
    pub fn schedule(&self) -> Schedule {
        let rounds = |tuning: &Tuning, rounds: u32| Rounds {
            batch: tuning.batch as u64,
            epochs: tuning.epochs as u64,
            rounds: u64::from(rounds),
        };
        Schedule::Proxies {
            generator: rounds(&self.generator.tuning, self.generator.rounds),
            reward: rounds(&self.reward.tuning, self.reward.rounds),
            clip: self.reward.clip,
            noise: self.reward.noise,
        }
    }

    /// The generation proxy as the sites are told.
    ///
    /// # Errors
    /// A model that the catalogue does not know.
    pub fn generator(&self) -> Result<Generator, Error> {
        Ok(Generator {
            model: self.model.clone(),
            model_sha256: sha256("model", &self.model)?,
            adapter: self.generator.lora.clone(),
            control: self.control.clone(),
            max_tokens: self.max_tokens,
            answer_tokens: self.answer_tokens,
        })
    }

    /// The encoder, pinned.
    ///
    /// # Errors
    /// A model that the catalogue does not know.
    pub fn encoder(&self) -> Result<Backbone, Error> {
        Ok(Backbone {
            model: self.encoder.clone(),
            sha256: Some(sha256("encoder", &self.encoder)?),
            image_size: 0,
            max_tokens: self.max_tokens.min(256),
        })
    }

    /// The reward proxy as the sites are told.
    ///
    /// # Errors
    /// As [`Self::encoder`].
    pub fn reward(&self) -> Result<RewardForm, Error> {
        Ok(match (self.reward.form, &self.reward.lora) {
            (Form::LanguageModel, Some(adapter)) => {
                RewardForm::LanguageModel { adapter: adapter.clone(), max_tokens: self.max_tokens }
            }
            _ => RewardForm::Embedding { encoder: self.encoder()? },
        })
    }

    /// The target, where it is one of this process.
    ///
    /// # Errors
    /// A model that the catalogue does not know.
    pub fn target(&self) -> Result<Option<Target>, Error> {
        let of = |adapter: &AdapterSpec| {
            Ok(Target {
                model: self.target.model.clone(),
                model_sha256: sha256("target.model", &self.target.model)?,
                adapter: adapter.clone(),
                max_tokens: self.max_tokens,
                answer_tokens: self.answer_tokens,
                code: self.target.code,
            })
        };
        match self.target.kind {
            Kind::Embedded => self.target.lora.as_ref().map(of).transpose(),
            Kind::Hosted => Ok(None),
        }
    }

    /// How the target is tuned for so many passes.
    pub fn tuning(&self, epochs: usize) -> TargetTuning {
        TargetTuning {
            epochs,
            batch: self.target.batch,
            learning_rate: self.target.learning_rate,
            seed: self.queries.seed,
        }
    }

    /// The control codes that queries are drawn from.
    pub fn controls(&self, plan: &Plan) -> Vec<String> {
        match &plan.schema.declared {
            Some(declared) if self.control.contains(LABEL) => {
                declared.classes.iter().map(|class| control(&self.control, class)).collect()
            }
            _ => vec![self.control.clone()],
        }
    }

    /// How queries are drawn.
    pub const fn drawing_queries(&self) -> Drawing {
        let QueryOptions { temperature, top_p, max_tokens, .. } = self.queries;
        Drawing { temperature, top_p, max_tokens }
    }

    /// How candidates are drawn.
    pub const fn drawing_candidates(&self) -> Drawing {
        let FilterOptions { temperature, top_p, .. } = self.filter;
        Drawing { temperature, top_p, max_tokens: self.answer_tokens }
    }

    /// How feedback and revisions are drawn, so many tokens of them.
    pub const fn drawing_revisions(&self, max_tokens: usize) -> Drawing {
        let RefineOptions { temperature, top_p, .. } = self.refine;
        Drawing { temperature, top_p, max_tokens }
    }

    /// The arms that the target is tuned for in one go, in the order of reading; refinement begins with the filter.
    pub fn filters(&self) -> Vec<Arm> {
        let wanted = |arm: &Arm| self.arms.contains(arm) || (*arm == Arm::Rgf && self.refines());
        Arm::ALL.into_iter().filter(|arm| arm.is_filter() && wanted(arm)).collect()
    }

    /// Whether there are rounds of refinement.
    pub fn refines(&self) -> bool {
        self.arms.contains(&Arm::RgfSor) && self.refine.rounds > 1
    }
}

#[cfg(test)]
mod tests;
