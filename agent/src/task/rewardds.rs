//! RewardDS at the site: tune a small proxy that writes and one that rewards, both on the site's records, and measure what the
//! coordinator made with them (spec: `sheaf_proto::rewardds`).

pub mod evaluate;
mod generator;
pub mod language;
mod pairs;
pub mod reward;

use std::time::Instant;

use sheaf_data::Source;
use sheaf_proto::{
    afl::RELEASE_METRICS,
    fedavg::{Parameters, ParametersFile as _},
    rewardds::{
        DELIVER, DeliverSpec, EvaluateSpec, GeneratorSpec, RELEASE_PROXIES, RewardForm, RewardSpec, Step,
    },
};

use super::{Assignment, Resources, Workload, afl::Afl, parse, secure_round, to_json};
use crate::{
    egress::{Answer, Made, Private},
    error::AgentError,
};

/// The folder of the target's adapter among what stays at the site.
const KEPT: &str = "target";

/// The workload.
pub struct Rewardds;

impl Workload for Rewardds {
    fn columns(&self, assignment: &Assignment) -> Result<Vec<String>, AgentError> {
        if self.reads_records(assignment) { Afl.columns(assignment) } else { Ok(Vec::new()) }
    }

    fn reads_records(&self, assignment: &Assignment) -> bool {
        assignment.phase != DELIVER
    }

    fn models(&self, assignment: &Assignment) -> Result<Vec<String>, AgentError> {
        if !self.reads_records(assignment) {
            return Ok(vec![parse::<DeliverSpec>(&assignment.spec)?.target.model]);
        }
        let mut named = Afl.models(assignment)?;
        match step(&assignment.phase)? {
            Step::Generator(_) => named.push(parse::<GeneratorSpec>(&assignment.spec)?.generator.model),
            Step::Reward(_) => {
                let spec: RewardSpec = parse(&assignment.spec)?;
                named.push(spec.generator.model);
                named.extend(encoder(spec.reward));
            }
            Step::Evaluate => {
                let spec: EvaluateSpec = parse(&assignment.spec)?;
                named.push(spec.target.model);
                if let Some(measured) = spec.reward {
                    named.push(measured.generator.model);
                    named.extend(encoder(measured.reward));
                }
            }
            _ => {}
        }
        Ok(named)
    }

    fn perform(
        &self,
        assignment: &Assignment,
        source: &Source,
        resources: &Resources<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Answer, AgentError> {
        let is_proxy = |base: &str| matches!(Step::parse(base), Some(Step::Generator(_) | Step::Reward(_)));
        if let Some(stage) = secure_round::stage(&assignment.phase, is_proxy) {
            let (inputs, max_rows) = match step(&assignment.phase)? {
                Step::Generator(_) => (1, parse::<GeneratorSpec>(&assignment.spec)?.round.max_rows),
                _ => (2, parse::<RewardSpec>(&assignment.spec)?.round.max_rows),
            };
            let domain = b"sheaf rewardds proxy 1\n";
            let summed = secure_round::Round { domain, kind: RELEASE_PROXIES, inputs, max_rows };
            return secure_round::perform(assignment, (stage, &summed), source, resources, |given| {
                let (parameters, made) = proxy(assignment, given, source, resources, cancelled)?;
                // Every site weighs the same: how many records it has need not be known.
                Ok((parameters, 1, made))
            });
        }
        let began = Instant::now();
        let (kind, bytes, made) = match step(&assignment.phase)? {
            Step::Generator(_) | Step::Reward(_) => {
                let (parameters, made) = proxy(assignment, &assignment.inputs, source, resources, cancelled)?;
                let bytes = parameters.encode().map_err(|e| AgentError::Task(e.to_string()))?;
                (RELEASE_PROXIES, bytes, made)
            }
            Step::Evaluate => {
                let (figures, made) = evaluate::evaluate(assignment, source, resources, cancelled)?;
                (RELEASE_METRICS, to_json(&figures)?, made)
            }
            Step::Deliver => {
                keep(&parse(&assignment.spec)?, &assignment.inputs, resources)?;
                (RELEASE_PROXIES, b"{}".to_vec(), Made::Protocol)
            }
            _ => return Err(unknown(&assignment.phase)),
        };
        Ok(Answer { kind, bytes: Private::new(bytes), seconds: made.seconds(began), made })
    }
}

/// Leaves the target in the site's folder of the run, for the site to use.
fn keep(spec: &DeliverSpec, inputs: &[Vec<u8>], resources: &Resources<'_>) -> Result<(), AgentError> {
    let [target] = inputs else {
        return Err(AgentError::Task("the target comes without its adapter".to_owned()));
    };
    let parameters = Parameters::decode(target)
        .map_err(|e| AgentError::Task(format!("the target's adapter cannot be read: {e}")))?;
    if let Some(folder) = resources.kept(KEPT)? {
        language::adapter(&spec.target.adapter, &parameters).save(&folder, &spec.target.model)?;
    }
    Ok(())
}

/// One round of the proxy that a phase, or the sum of one, is about.
fn proxy(
    assignment: &Assignment,
    inputs: &[Vec<u8>],
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Parameters, Made), AgentError> {
    let input = |at: usize| {
        let missing = || AgentError::Task("the round came without a proxy's parameters".to_owned());
        inputs.get(at).map(Vec::as_slice).ok_or_else(missing)
    };
    match step(&assignment.phase)? {
        Step::Generator(_) => {
            generator::train(&parse(&assignment.spec)?, input(0)?, source, resources, cancelled)
        }
        Step::Reward(_) => {
            reward::train(&parse(&assignment.spec)?, (input(0)?, input(1)?), source, resources, cancelled)
        }
        _ => Err(unknown(&assignment.phase)),
    }
}

/// The encoder that a form of reward runs, if it does.
fn encoder(form: RewardForm) -> Option<String> {
    match form {
        RewardForm::Embedding { encoder } => Some(encoder.model),
        RewardForm::LanguageModel { .. } => None,
    }
}

/// The step of a phase; of the one that a stage of a secure sum belongs to.
fn step(phase: &str) -> Result<Step, AgentError> {
    let base = sheaf_proto::secure::parse(phase).map_or(phase, |(base, _)| base);
    Step::parse(base).ok_or_else(|| unknown(phase))
}

fn unknown(phase: &str) -> AgentError {
    AgentError::Task(format!("rewardds has no phase \"{phase}\" for a site; a newer version may"))
}
