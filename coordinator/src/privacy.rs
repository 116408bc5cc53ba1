//! `[privacy]` of a plan: how much every site may lose in the run, and the noise that this asks for.
//!
//! A plan states epsilon and delta; the noise follows from how often the workload draws it. The sites get the noise, charge
//! it to their own ledgers and decide by their own caps: nothing here can raise them.

mod statement;

use serde::{Deserialize, Serialize};
use sheaf_data::ROW_UNIT;
use sheaf_privacy::{
    Delta, Epsilon, Event, Rate, Scale, Sigma,
    accountant::{Account, AccountError, Composition, Filter, Noise, calibrate::LEAST_SIGMA},
};
use sheaf_proto::privacy::{NoisyTraining, PrivacySpec};

pub use statement::{SignedStatement, Spend};

use crate::error::Error;

/// Room between the least cap that holds a run and the one that is advised, relative.
const ROOM: f64 = 1e-6;
/// Caps that are tried.
const FILTERS: usize = 20;

/// `[privacy]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacySection {
    /// What the model may cost each site.
    pub epsilon: Epsilon,
    /// Probability with which that may fail.
    pub delta: Delta,
    /// Whose presence is protected: "row", or the column whose equal values are one unit.
    #[serde(default = "row")]
    pub unit: String,
    /// What measuring the model on the sites' test rows may cost each site, beside the model. Without it no site measures.
    #[serde(default)]
    pub evaluate: Option<Epsilon>,
    /// Training: units that a site has, about, by public knowledge: the sampling rate and the size of a step go by it.
    #[serde(default)]
    pub units: Option<u64>,
    /// Training: the most that one unit's gradient may weigh.
    #[serde(default)]
    pub clip: Option<f64>,
}

fn row() -> String {
    ROW_UNIT.to_owned()
}

/// How a workload spends what a plan allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Noised sums over all rows, so many times.
    Sums {
        /// How often.
        times: u64,
    },
    /// DP-SGD in rounds.
    Training(Rounds),
    /// DP-SGD of two models on the same records, under one account.
    Proxies {
        /// The generation proxy.
        generator: Rounds,
        /// The reward proxy.
        reward: Rounds,
        /// The most that one unit's gradient of the reward may weigh; the generator's is the section's.
        clip: f64,
        /// Noise of the reward over noise of the generator, both against their clip.
        noise: f64,
    },
}

/// How a model is trained in rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rounds {
    /// Records a step, on average.
    pub batch: u64,
    /// Passes over the records in a round.
    pub epochs: u64,
    /// Rounds.
    pub rounds: u64,
}

impl Rounds {
    /// DP-SGD of so many units.
    fn noisy(self, clip: f64, units: u64) -> Result<(Rate, NoisyTraining), Error> {
        if !(clip.is_finite() && clip > 0.0) {
            return Err(invalid("clip must be a number above 0"));
        }
        let counted = || {
            let each = units.checked_mul(self.epochs)?.div_ceil(self.batch).max(1);
            Some((each, each.checked_mul(self.rounds)?))
        };
        let (steps, rest) = counted()
            .ok_or_else(|| invalid("units, epochs and rounds are more steps than can be counted"))?;
        let rate = Rate::new((self.batch as f64 / units as f64).min(1.0)).map_err(invalid)?;
        Ok((rate, NoisyTraining { clip, units, steps, rest }))
    }
}

/// A training that is paid for: its event of the whole run, and its first round.
#[derive(Debug, Clone, PartialEq)]
struct Paid {
    event: Event,
    training: NoisyTraining,
}

/// A checked section with its noise.
#[derive(Debug, Clone, PartialEq)]
pub struct Privacy {
    /// As the plan says it.
    pub section: PrivacySection,
    /// What the model costs.
    pub model: Event,
    /// What measuring it costs, where it is paid for.
    pub metrics: Option<Event>,
    /// DP-SGD in the first round.
    training: Option<NoisyTraining>,
    /// DP-SGD of a second model on the same records.
    reward: Option<Paid>,
}

/// What a run costs each site.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Mechanisms and how often.
    pub events: Vec<Event>,
    /// By every accountant.
    #[serde(flatten)]
    pub account: Account,
    /// The least cap (at this delta) that lets the run in at a site where nothing was spent before.
    pub cap: f64,
}

fn invalid(problem: impl std::fmt::Display) -> Error {
    Error::invalid(format!("[privacy] {problem}"))
}

impl Privacy {
    /// Finds the noise.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] for an epsilon that no noise keeps, less noise than 0.3 times the clipping norm, a
    /// delta that would let a site publish a whole record, keys that do not go with the workload.
    pub fn resolve(section: PrivacySection, schedule: Schedule) -> Result<Self, Error> {
        let missing = |key: &str| invalid(format!("{key} is needed to train with noise"));
        let units = || section.units.filter(|units| *units > 0).ok_or_else(|| missing("units"));
        let clip = || section.clip.ok_or_else(|| missing("clip"));
        let (model, training, reward) = match schedule {
            Schedule::Sums { times } => {
                if section.clip.is_some() {
                    return Err(invalid("clip is for training; rows of sums have length 1"));
                }
                let rate = Rate::new(1.0).map_err(invalid)?;
                let sigma =
                    section.sigma(&|sigma| Ok(vec![Event::PoissonGaussian { rate, sigma, steps: times }]))?;
                (Event::Gaussian { sigma, count: times }, None, None)
            }
            Schedule::Training(rounds) => {
                let units = units()?;
                let (rate, training) = rounds.noisy(clip()?, units)?;
                let event = |sigma| Event::PoissonGaussian { rate, sigma, steps: training.rest };
                let sigma = section.sigma(&|sigma| Ok(vec![event(sigma)]))?;
                (event(sigma), Some(training), None)
            }
            Schedule::Proxies { generator, reward, clip: of_reward, noise } => {
                let units = units()?;
                let (rate, training) = generator.noisy(clip()?, units)?;
                let (of_reward_rate, of_reward) = reward.noisy(of_reward, units)?;
                let event = |sigma| Event::PoissonGaussian { rate, sigma, steps: training.rest };
                let second = |sigma: Sigma| {
                    let sigma = Sigma::new(noise * sigma.get())?;
                    let event = Event::PoissonGaussian { rate: of_reward_rate, sigma, steps: of_reward.rest };
                    Ok::<_, AccountError>(event)
                };
                let sigma = section.sigma(&|sigma| Ok(vec![event(sigma), second(sigma)?]))?;
                if noise * sigma.get() < LEAST_SIGMA {
                    return Err(invalid(format!(
                        "the reward would have noise of {} times its clip, less than {LEAST_SIGMA}; raise reward.noise",
                        noise * sigma.get()
                    )));
                }
                let reward = Paid { event: second(sigma).map_err(invalid)?, training: of_reward };
                (event(sigma), Some(training), Some(reward))
            }
        };
        let metrics = section
            .evaluate
            .map(|epsilon| Scale::new(1.0 / epsilon.get()).map(|scale| Event::Laplace { scale, count: 1 }))
            .transpose()
            .map_err(|e| invalid(format!("evaluate: {e}")))?;
        Ok(Self { section, model, metrics, training, reward })
    }

    /// What a site is asked to pay for its part of the model.
    pub fn model_spec(&self) -> PrivacySpec {
        self.spec(self.model)
    }

    /// What a site is asked to pay for measuring, where it is asked.
    pub fn metrics_spec(&self) -> Option<PrivacySpec> {
        self.metrics.map(|event| self.spec(event))
    }

    /// What a site is asked to pay in a round of training, from 1.
    pub fn round_spec(&self, round: u32) -> PrivacySpec {
        let training = self.training.as_ref().map(|first| of_round(first, round));
        // A second training of the run, and what is measured after both.
        let later = self.reward.iter().map(|reward| reward.event).chain(self.metrics).collect();
        let later = if self.reward.is_some() { later } else { Vec::new() };
        PrivacySpec { training, later, ..self.model_spec() }
    }

    /// What a site is asked to pay in a round of training the reward proxy, from 1; none where the plan has none.
    pub fn reward_spec(&self, round: u32) -> Option<PrivacySpec> {
        let Paid { event, training } = self.reward.as_ref()?;
        Some(PrivacySpec { training: Some(of_round(training, round)), ..self.spec(*event) })
    }

    fn spec(&self, event: Event) -> PrivacySpec {
        PrivacySpec {
            unit: self.section.unit.clone(),
            delta: self.section.delta,
            event,
            later: Vec::new(),
            training: None,
        }
    }

    /// Everything a run draws noise for.
    pub fn events(&self) -> Vec<Event> {
        let reward = self.reward.as_ref().map(|reward| reward.event);
        [Some(self.model), reward, self.metrics].into_iter().flatten().collect()
    }

    /// What the whole run costs each site.
    ///
    /// # Errors
    /// Parameters that no accountant takes.
    pub fn cost(&self) -> Result<Cost, Error> {
        let events = self.events();
        let account = events.iter().copied().collect::<Composition>().account(self.section.delta);
        let account = account.map_err(invalid)?;
        // One event on a fresh data set is let in by its loss distribution; with more, the Rényi sum decides.
        let cap = match events.as_slice() {
            [_] => account.epsilon_pld.get() * (1.0 + ROOM),
            _ => self.filtered(&events, account.epsilon_rdp)?,
        };
        Ok(Cost { events, account, cap })
    }

    /// A cap under which the site's filter lets all these events in. Its orders follow from the cap, so the cap is sought.
    fn filtered(&self, events: &[Event], start: Epsilon) -> Result<f64, Error> {
        let mut cap = start;
        for _ in 0..FILTERS {
            let mut filter = Filter::new(cap, self.section.delta).map_err(invalid)?;
            events.iter().for_each(|event| filter.record(event));
            if filter.spent() <= cap.get() {
                break;
            }
            cap = Epsilon::new(filter.spent() * (1.0 + ROOM)).map_err(invalid)?;
        }
        Ok(cap.get())
    }
}

/// Of a training in rounds, what is left from a round on.
fn of_round(first: &NoisyTraining, round: u32) -> NoisyTraining {
    let rest = first.rest - first.steps * u64::from(round.saturating_sub(1));
    NoisyTraining { rest, ..first.clone() }
}

impl PrivacySection {
    /// The least noise under which these events together keep what the section says.
    fn sigma(&self, events: &dyn Fn(Sigma) -> Result<Vec<Event>, AccountError>) -> Result<Sigma, Error> {
        let events = |sigma| Ok(events(sigma)?.into_iter().collect::<Composition>());
        let noise = Noise { epsilon: self.epsilon, delta: self.delta, records: self.units, events: &events };
        Ok(noise.solve().map_err(invalid)?.sigma)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> PrivacySection {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_noise_keeps_what_the_plan_says() {
        let privacy =
            Privacy::resolve(section("epsilon = 1\ndelta = 1e-5"), Schedule::Sums { times: 1 }).unwrap();
        let cost = privacy.cost().unwrap();
        assert!(cost.account.epsilon_pld.get() <= 1.0 && cost.account.epsilon_pld.get() > 0.999);
        // Analytic Gaussian (Balle and Wang 2018): sigma 3.7304 at epsilon 1, delta 1e-5.
        let Event::Gaussian { sigma, count: 1 } = privacy.model else { panic!("{:?}", privacy.model) };
        assert!((sigma.get() - 3.7304).abs() < 0.003, "{sigma}");
        assert!(privacy.metrics_spec().is_none() && cost.cap >= 1.0 - 1e-3);
    }

    #[test]
    fn rounds_share_one_event_and_count_down() {
        let schedule = Schedule::Training(Rounds { batch: 32, epochs: 1, rounds: 3 });
        let text = "epsilon = 4\ndelta = 1e-4\nunits = 300\nclip = 1.0\nevaluate = 0.5\nunit = 'patient'";
        let privacy = Privacy::resolve(section(text), schedule).unwrap();
        assert_eq!(privacy.model.count(), 30);
        let rest: Vec<_> = (1..=3).map(|round| privacy.round_spec(round).training.unwrap().rest).collect();
        assert_eq!(rest, [30, 20, 10]);
        assert_eq!(privacy.round_spec(2).unit, "patient");
        let cost = privacy.cost().unwrap();
        assert!(
            cost.account.epsilon_pld.get() > 4.0 && cost.account.epsilon_pld.get() < 4.5,
            "metrics cost too"
        );
        assert!(cost.cap >= cost.account.epsilon_pld.get());
    }

    #[test]
    fn two_proxies_cost_together_what_the_plan_says() {
        let generator = Rounds { batch: 30, epochs: 3, rounds: 2 };
        let reward = Rounds { batch: 60, epochs: 10, rounds: 1 };
        let text = "epsilon = 8\ndelta = 1e-4\nunits = 300\nclip = 0.5";
        let schedule = Schedule::Proxies { generator, reward, clip: 1.0, noise: 2.0 };
        let privacy = Privacy::resolve(section(text), schedule).unwrap();
        let cost = privacy.cost().unwrap();
        assert_eq!(cost.events.len(), 2);
        assert!(cost.account.epsilon_pld.get() <= 8.0 && cost.account.epsilon_pld.get() > 7.99);
        let spec = privacy.reward_spec(1).unwrap();
        let (one, two) = (privacy.model.sigma().unwrap().get(), spec.event.sigma().unwrap().get());
        assert!((two / one - 2.0).abs() < 1e-9, "{one} {two}");
        assert!(spec.later.is_empty());
        assert_eq!(
            spec.training.clone().unwrap(),
            NoisyTraining { clip: 1.0, units: 300, steps: 50, rest: 50 }
        );
        assert_eq!(privacy.round_spec(2).training.unwrap().rest, 30);
        assert_eq!(
            privacy.round_spec(1).later,
            [spec.event],
            "a site knows of the second before it pays for the first"
        );
        let alone = Privacy::resolve(section(text), Schedule::Training(generator)).unwrap();
        assert!(alone.model.sigma().unwrap() < privacy.model.sigma().unwrap(), "the reward has its share");
        assert!(alone.reward_spec(1).is_none());
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let training = Schedule::Training(Rounds { batch: 1, epochs: 1, rounds: 1 });
        let many = Schedule::Training(Rounds { batch: 1, epochs: 3, rounds: 1 });
        for (text, schedule, part) in [
            ("epsilon = 1\ndelta = 1e-5\nclip = 1.0", Schedule::Sums { times: 1 }, "clip"),
            ("epsilon = 1\ndelta = 1e-5", training, "units"),
            ("epsilon = 1\ndelta = 1e-5\nunits = 100", training, "clip"),
            ("epsilon = 1\ndelta = 1e-5\nunits = 100\nclip = 0.0", training, "clip"),
            ("epsilon = 1\ndelta = 1e-5\nclip = 1.0\nunits = 9000000000000000000", many, "more steps"),
            ("epsilon = 1\ndelta = 0.1\nunits = 100", Schedule::Sums { times: 1 }, "delta"),
            ("epsilon = 1\ndelta = 0.0", Schedule::Sums { times: 1 }, "delta"),
            ("epsilon = 1\ndelta = 1e-5\nevaluate = 0.0", Schedule::Sums { times: 1 }, "evaluate"),
        ] {
            let error = Privacy::resolve(section(text), schedule).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
