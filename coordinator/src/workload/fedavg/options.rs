//! `[fedavg]` of a plan, checked.

use std::fmt;

use serde::Deserialize;
use sheaf_analytic::Normalize;
use sheaf_proto::fedavg::{AdapterSpec, Optimizer, Training};

use crate::{
    error::Error,
    privacy::{Rounds, Schedule},
    run::plan::Plan,
    workload::afl::AflOptions,
};

/// Rounds beyond this are a mistake.
const MAX_ROUNDS: u32 = 10_000;
/// No decoder has more layers.
const MAX_LAYERS: usize = 1024;

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// Softmax regression on feature rows.
    Softmax,
    /// An adapter of a language model.
    Lora,
}

/// `[fedavg]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FedavgOptions {
    /// "softmax" or "lora".
    pub head: HeadKind,
    /// Rounds of training.
    pub rounds: u32,
    /// Share of the sites that each round is asked of; drawn by `seed` and the round's number.
    #[serde(default = "one")]
    pub fraction: f64,
    /// Passes over a site's records in each round.
    #[serde(default = "one_epoch")]
    pub local_epochs: usize,
    /// Records a step; 0: all of them.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Step size.
    pub learning_rate: f64,
    /// "sgd", "momentum" or "adamw".
    #[serde(default)]
    pub optimizer: Option<Optimizer>,
    /// FedProx.
    #[serde(default)]
    pub mu: f64,
    /// Shrinks weights.
    #[serde(default)]
    pub weight_decay: f64,
    /// Of the draw of sites and the order of records.
    #[serde(default)]
    pub seed: u64,
    /// Measure after so many rounds, and after the last.
    #[serde(default = "one_round")]
    pub evaluate_every: u32,
    /// Softmax: scale every row to length 1 ("l2") or leave it ("none"), as with AFL.
    #[serde(default)]
    pub normalize: Option<Normalize>,
    /// Softmax: subtract mean and divide by standard deviation of all sites. On for tables.
    #[serde(default)]
    pub standardize: Option<bool>,
    /// Softmax: what a simulation compares with.
    #[serde(default)]
    pub compare: Option<Compare>,
    /// Ridge parameter of the AFL model that is compared with.
    #[serde(default)]
    pub lambda: Option<f64>,
    /// Lora: the adapter.
    #[serde(default)]
    pub lora: Option<AdapterSpec>,
    /// Lora: the frozen model, by its name in the catalogue.
    #[serde(default)]
    pub model: Option<String>,
    /// Lora: longer records are cut, tokens.
    #[serde(default)]
    pub max_tokens: Option<usize>,
}

/// What a simulation compares with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compare {
    /// The AFL model of the same feature rows.
    Afl,
    /// Nothing.
    None,
}

const fn one() -> f64 {
    1.0
}
const fn one_epoch() -> usize {
    1
}
const fn one_round() -> u32 {
    1
}
const fn batch() -> usize {
    32
}

impl FedavgOptions {
    /// Reads and checks the plan's table.
    pub fn of(plan: &Plan) -> Result<Self, Error> {
        let options: Self = plan
            .options
            .clone()
            .try_into()
            .map_err(|e: toml::de::Error| Error::invalid(format!("[fedavg] {}", e.message())))?;
        options.check()?;
        if options.head == HeadKind::Softmax {
            options.afl().features(1).validate().map_err(|e| Error::invalid(format!("[fedavg] {e}")))?;
        }
        Ok(options)
    }

    fn check(&self) -> Result<(), Error> {
        let within = |key: &str, value: f64, low: f64, high: f64| {
            if value.is_finite() && value >= low && value <= high {
                Ok(())
            } else {
                refuse(format!("{key} must be {low} to {high}, not {value}"))
            }
        };
        if self.rounds == 0 || self.rounds > MAX_ROUNDS {
            return refuse(format!("rounds must be 1 to {MAX_ROUNDS}, not {}", self.rounds));
        }
        if !(self.fraction > 0.0 && self.fraction <= 1.0) {
            return refuse(format!("fraction must be above 0 and at most 1, not {}", self.fraction));
        }
        if self.local_epochs == 0 || self.local_epochs > 1000 {
            return refuse(format!("local_epochs must be 1 to 1000, not {}", self.local_epochs));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 100.0) {
            return refuse(format!(
                "learning_rate must be above 0 and at most 100, not {}",
                self.learning_rate
            ));
        }
        within("mu", self.mu, 0.0, 1e6)?;
        within("weight_decay", self.weight_decay, 0.0, 10.0)?;
        within("lambda", self.lambda.unwrap_or(1.0), 0.0, f64::MAX)?;
        if self.evaluate_every == 0 {
            return refuse("evaluate_every must be at least 1; the last round is always measured");
        }
        match self.head {
            HeadKind::Softmax => self.check_softmax(),
            HeadKind::Lora => self.check_lora(),
        }
    }

    fn check_softmax(&self) -> Result<(), Error> {
        for (key, set) in [
            ("lora", self.lora.is_some()),
            ("model", self.model.is_some()),
            ("max_tokens", self.max_tokens.is_some()),
        ] {
            if set {
                return refuse(format!("{key} is for head = \"lora\""));
            }
        }
        Ok(())
    }

    fn check_lora(&self) -> Result<(), Error> {
        for (key, set) in [
            ("normalize", self.normalize.is_some()),
            ("standardize", self.standardize.is_some()),
            ("compare", self.compare.is_some_and(|compare| compare != Compare::None)),
            ("lambda", self.lambda.is_some()),
        ] {
            if set {
                return refuse(format!("{key} is for head = \"softmax\""));
            }
        }
        if self.optimizer.is_some_and(|optimizer| optimizer != Optimizer::AdamW) {
            return refuse("an adapter is trained with optimizer = \"adamw\"");
        }
        if self.batch == 0 {
            return refuse("batch must be at least 1 for an adapter");
        }
        let Some(adapter) = &self.lora else {
            return refuse(
                "head = \"lora\" needs lora = { rank = 8, alpha = 16, targets = [\"q_proj\", \"v_proj\"] }",
            );
        };
        if let Err(problem) = check_adapter(adapter) {
            return refuse(problem);
        }
        if !(8..=8192).contains(&self.max_tokens()) {
            return refuse(format!("max_tokens must be 8 to 8192, not {}", self.max_tokens()));
        }
        Ok(())
    }

    /// How often noise is drawn.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] for a head that has no private form.
    pub fn schedule(&self) -> Result<Schedule, Error> {
        match self.head {
            HeadKind::Lora => Ok(Schedule::Training(Rounds {
                batch: self.batch as u64,
                epochs: self.local_epochs as u64,
                rounds: u64::from(self.rounds),
            })),
            HeadKind::Softmax => Err(Error::invalid(
                "[privacy] is for head = \"lora\"; a classifier of feature rows has it with workload = \"afl\"",
            )),
        }
    }

    /// How a site trains in one round.
    pub fn training(&self) -> Training {
        Training {
            epochs: self.local_epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            optimizer: self.optimizer.unwrap_or(match self.head {
                HeadKind::Softmax => Optimizer::Sgd,
                HeadKind::Lora => Optimizer::AdamW,
            }),
            mu: self.mu,
            weight_decay: self.weight_decay,
            seed: self.seed,
        }
    }

    /// What AFL would do with the same records: decides the feature rows, and is compared with.
    pub fn afl(&self) -> AflOptions {
        AflOptions {
            lambda: self.lambda.unwrap_or(1.0),
            normalize: self.normalize.unwrap_or(Normalize::L2),
            bias: true,
            standardize: self.standardize,
            ..AflOptions::default()
        }
    }

    /// Whether a simulation compares with AFL; it does unless told not to.
    pub fn compares_with_afl(&self) -> bool {
        self.compare != Some(Compare::None)
    }

    /// Whether the model of a round is measured.
    pub const fn is_measured(&self, round: u32) -> bool {
        round.is_multiple_of(self.evaluate_every) || round >= self.rounds
    }

    /// The frozen model.
    pub fn model(&self) -> &str {
        self.model.as_deref().unwrap_or("smollm2-135m")
    }

    /// Longest record, tokens.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens.unwrap_or(256)
    }
}

fn refuse(problem: impl fmt::Display) -> Result<(), Error> {
    Err(Error::invalid(format!("[fedavg] {problem}")))
}

/// Refuses an adapter that no site could tune, saying which key of `lora` is wrong.
pub(in crate::workload) fn check_adapter(adapter: &AdapterSpec) -> Result<(), String> {
    if adapter.rank == 0 || adapter.rank > 256 {
        return Err(format!("lora.rank must be 1 to 256, not {}", adapter.rank));
    }
    if !(adapter.alpha.is_finite() && adapter.alpha > 0.0) {
        return Err(format!("lora.alpha must be above 0, not {}", adapter.alpha));
    }
    if !(0.0..1.0).contains(&adapter.dropout) {
        return Err(format!("lora.dropout must be at least 0 and below 1, not {}", adapter.dropout));
    }
    // The coordinator knows no model's number of layers: too many for it is refused at the sites.
    if adapter.layers.is_some_and(|layers| !(1..=MAX_LAYERS).contains(&layers)) {
        return Err(format!("lora.layers must be 1 to {MAX_LAYERS}; leave it out to adapt all layers"));
    }
    if adapter.targets.is_empty() {
        return Err("lora.targets must name at least one module, such as \"q_proj\"".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "[run]\nname = 'x'\nworkload = 'fedavg'\n[fedavg]\nrounds = 3\nlearning_rate = 0.5\n";

    #[test]
    fn mistakes_are_named() {
        let softmax = format!("{PLAN}head = 'softmax'\n");
        let lora = format!("{PLAN}head = 'lora'\nlora = {{ rank = 8, alpha = 16, targets = ['q_proj'] }}\n");
        assert!(Plan::parse(&softmax).is_ok());
        assert!(Plan::parse(&lora).is_ok());
        assert!(Plan::parse(&lora.replace("alpha = 16", "alpha = 16, layers = 6")).is_ok());
        for (text, part) in [
            (PLAN.to_owned(), "head"),
            (softmax.replace("rounds = 3", "rounds = 0"), "rounds"),
            (softmax.replace("0.5", "-1.0"), "learning_rate"),
            (format!("{softmax}fraction = 0.0"), "fraction"),
            (format!("{softmax}fraction = 1.5"), "fraction"),
            (format!("{softmax}mu = nan"), "mu"),
            (format!("{softmax}local_epochs = 0"), "local_epochs"),
            (format!("{softmax}evaluate_every = 0"), "evaluate_every"),
            (format!("{softmax}optimizer = 'adam'"), "adam"),
            (format!("{softmax}epochs = 1"), "epochs"),
            (format!("{softmax}max_tokens = 64"), "lora"),
            (format!("{lora}standardize = true"), "softmax"),
            (format!("{lora}optimizer = 'sgd'"), "adamw"),
            (lora.replace("rank = 8", "rank = 0"), "rank"),
            (lora.replace("['q_proj']", "[]"), "targets"),
            (lora.replace("alpha = 16", "alpha = 16, layers = 0"), "layers"),
            (lora.replace("alpha = 16", "alpha = 16, beta = 1"), "beta"),
            (format!("{PLAN}head = 'lora'"), "needs lora"),
        ] {
            let error = Plan::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn the_last_round_is_always_measured() {
        let options =
            FedavgOptions::of(&Plan::parse(&format!("{PLAN}head = 'softmax'\nevaluate_every = 2")).unwrap());
        let options = options.unwrap();
        let measured: Vec<_> = (1..=3).filter(|round| options.is_measured(*round)).collect();
        assert_eq!(measured, [2, 3]);
    }
}
