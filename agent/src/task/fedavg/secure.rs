//! A round as a secure sum: the site's parameters leave masked, and the coordinator learns the sum over all sites.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use sheaf_data::Source;
use sheaf_proto::{
    fedavg::{Parameters, ParametersFile as _, RELEASE_UPDATES, RoundSpec, Step, summed},
    secure::parse as parse_phase,
};
use sheaf_secagg::{Stage, Subject};

use super::round;
use crate::{
    egress::{Answer, Made, Private},
    error::AgentError,
    secure,
    task::{Assignment, Resources, afl::parse},
};

/// Keeps the subject of a round's sum apart from that of other sums over the same records.
const SUBJECT: &[u8] = b"sheaf fedavg round 1\n";

/// The stage that a phase's name says, if it is one of a round's sum.
pub(super) fn stage(phase: &str) -> Option<Stage> {
    let (base, stage) = parse_phase(phase)?;
    matches!(Step::parse(base), Some(Step::Round(_))).then_some(stage)
}

/// What is summed: what these parameters become on the records of these files. Another round begins with others.
fn subject(content: &[u8; 32], start: &[u8]) -> Subject {
    let start = Sha256::digest(start);
    Sha256::new().chain_update(SUBJECT).chain_update(content).chain_update(start).finalize().into()
}

/// Answers a stage. Its kind is that of updates at every stage, so that a site which does not let them out takes no part.
pub(super) fn perform(
    assignment: &Assignment,
    stage: Stage,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Answer, AgentError> {
    let began = Instant::now();
    let asked = secure::asked(assignment, stage)?;
    let spec: RoundSpec = parse(&assignment.spec)?;
    // The parameters come with the stages in which they are needed.
    let own = usize::from(matches!(stage, Stage::Advertise | Stage::MaskedInput));
    let (start, inputs) = assignment
        .inputs
        .split_at_checked(own)
        .ok_or_else(|| AgentError::Task("the round came without parameters".to_owned()))?;
    let start = start.first().map(Vec::as_slice).unwrap_or_default();
    let task = |e: &dyn std::fmt::Display| AgentError::Task(e.to_string());
    let mut made = Made::Protocol;
    let bytes = resources.secure()?.answer(
        &asked,
        inputs,
        || Ok(subject(&source.digest(resources.assets)?, start)),
        || {
            let length = summed::length(&Parameters::decode(start).map_err(|e| task(&e))?);
            if asked.terms.length != length {
                return Err(task(&format!(
                    "the secure sum is of {} numbers, the parameters are {length} with their weight",
                    asked.terms.length
                )));
            }
            let (update, of) = round(&spec, Some(start), source, resources, cancelled)?;
            // Where the number of records is private, every site weighs the same.
            let weight = update.measured.map_or(1, |measured| measured.rows);
            made = of;
            let grid = summed::grid(spec.max_rows).map_err(|e| task(&e))?;
            summed::vector(&update.parameters, weight, &grid).map_err(|e| task(&e))
        },
    )?;
    Ok(Answer { kind: RELEASE_UPDATES, bytes: Private::new(bytes), seconds: made.seconds(began), made })
}
