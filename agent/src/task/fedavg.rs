//! FedAvg at the site: training in rounds, and measuring what came of it (spec: `sheaf_proto::fedavg`).

pub(in crate::task) mod lora;
mod softmax;

use std::time::Instant;

use serde::Deserialize;
use sheaf_data::Source;
use sheaf_proto::{
    afl::{Evaluation, RELEASE_METRICS},
    fedavg::{EvaluateSpec, Head, RELEASE_UPDATES, RoundSpec, Step, Update},
};

pub use softmax::{centralised, measure};

use super::{Assignment, Resources, Workload, afl::Afl, parse, secure_round, to_json};
use crate::{
    egress::{Answer, Made, Private},
    error::AgentError,
    features::{self, Opened},
};

/// One round of training on the site's records.
fn round(
    spec: &RoundSpec,
    input: Option<&[u8]>,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Update, Made), AgentError> {
    let dataset = features::open(source, spec.head.schema(), resources, cancelled)?.dataset;
    match &spec.head {
        Head::Softmax(rows) => softmax::train(spec, rows, input, &dataset, cancelled),
        Head::Lora(lora) => lora::train(spec, lora, input, &dataset, resources, cancelled),
    }
}

/// The workload.
pub struct Fedavg;

impl Workload for Fedavg {
    fn columns(&self, assignment: &Assignment) -> Result<Vec<String>, AgentError> {
        // Every specification of this workload carries the schema under the name that AFL's do.
        Afl.columns(assignment)
    }

    fn models(&self, assignment: &Assignment) -> Result<Vec<String>, AgentError> {
        // The survey has no head; its schema may name a backbone, as that of a softmax head may.
        #[derive(Deserialize)]
        struct Asked {
            #[serde(flatten)]
            head: Head,
        }
        let backbone = Afl.models(assignment)?;
        let adapted = match parse(&assignment.spec) {
            Ok(Asked { head: Head::Lora(lora) }) => Some(lora.model),
            _ => None,
        };
        Ok(backbone.into_iter().chain(adapted).collect())
    }

    fn perform(
        &self,
        assignment: &Assignment,
        source: &Source,
        resources: &Resources<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Answer, AgentError> {
        let is_round = |base: &str| matches!(Step::parse(base), Some(Step::Round(_)));
        if let Some(stage) = secure_round::stage(&assignment.phase, is_round) {
            let spec: RoundSpec = parse(&assignment.spec)?;
            let summed = secure_round::Round {
                domain: b"sheaf fedavg round 1\n",
                kind: RELEASE_UPDATES,
                inputs: 1,
                max_rows: spec.max_rows,
            };
            return secure_round::perform(assignment, (stage, &summed), source, resources, |given| {
                let start = given.first().map(Vec::as_slice);
                let (update, made) = round(&spec, start, source, resources, cancelled)?;
                // Where the number of records is private, every site weighs the same.
                let weight = update.measured.map_or(1, |measured| measured.rows);
                Ok((update.parameters, weight, made))
            });
        }
        let began = Instant::now();
        let input = assignment.inputs.first().map(Vec::as_slice);
        let (kind, bytes, made) = match Step::parse(&assignment.phase) {
            Some(Step::Survey) => return Afl.perform(assignment, source, resources, cancelled),
            Some(Step::Start) => {
                let spec: RoundSpec = parse(&assignment.spec)?;
                let Head::Lora(lora) = &spec.head else {
                    return Err(AgentError::Task("only an adapter is drawn at the sites".to_owned()));
                };
                (RELEASE_UPDATES, lora::start(&spec, lora, resources)?, Made::Protocol)
            }
            Some(Step::Round(_)) => {
                let spec: RoundSpec = parse(&assignment.spec)?;
                let (update, made) = round(&spec, input, source, resources, cancelled)?;
                let bytes = update.encode().map_err(|e| AgentError::Task(e.to_string()))?;
                (RELEASE_UPDATES, bytes, made)
            }
            Some(Step::Evaluate(_)) => {
                let spec: EvaluateSpec = parse(&assignment.spec)?;
                let Opened { dataset, backend } =
                    features::open(source, spec.head.schema(), resources, cancelled)?;
                let input = input
                    .ok_or_else(|| AgentError::Task("the evaluation came without parameters".to_owned()))?;
                let (bytes, rows) = match &spec.head {
                    Head::Softmax(rows) => {
                        let figures =
                            softmax::evaluate(&spec, rows, input, &dataset, assignment.min_rows, cancelled)?;
                        let train_rows = figures.train_rows;
                        (to_json(&Evaluation { backend, ..figures })?, train_rows)
                    }
                    Head::Lora(lora) => {
                        let figures =
                            lora::evaluate(lora, input, &dataset, resources, assignment.min_rows, cancelled)?;
                        (to_json(&figures)?, figures.train_rows)
                    }
                };
                (RELEASE_METRICS, bytes, Made::OfRows(rows))
            }
            None => {
                return Err(AgentError::Task(format!(
                    "fedavg has no phase \"{}\"; a newer version may",
                    assignment.phase
                )));
            }
        };
        Ok(Answer { kind, bytes: Private::new(bytes), seconds: made.seconds(began), made })
    }
}
