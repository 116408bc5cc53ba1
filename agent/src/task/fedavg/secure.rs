//! A round as a secure sum: the site's parameters leave masked, and the coordinator learns the sum over all sites.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use sheaf_data::Source;
use sheaf_proto::{
    fedavg::{Parameters, ParametersFile as _, RELEASE_UPDATES, RoundSpec, Step, summed},
    secure::parse as parse_phase,
};
use sheaf_secagg::Stage;

use super::round;
use crate::{
    egress::{Answer, Private},
    error::AgentError,
    secure,
    task::{Assignment, Resources, parse},
};

/// Domain of what the parameters that a round begins with become on the records of these files. Another round begins with others.
const SUMMED: &[u8] = b"sheaf fedavg round 1\n";

/// The stage that a phase's name says, if it is one of a round's sum.
pub(super) fn stage(phase: &str) -> Option<Stage> {
    let (base, stage) = parse_phase(phase)?;
    matches!(Step::parse(base), Some(Step::Round(_))).then_some(stage)
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
    let (start, inputs) = secure::split_inputs(assignment, stage, "the round came without parameters")?;
    let task = |e: &dyn std::fmt::Display| AgentError::Task(e.to_string());
    let (bytes, made) = resources.secure()?.answer(
        &asked,
        inputs,
        || Ok(secure::subject(SUMMED, &source.digest(resources.assets)?, &Sha256::digest(start))),
        || {
            let parameters = Parameters::decode(start).map_err(|e| task(&e))?;
            secure::check_length(&asked, summed::length(&parameters))?;
            let (update, made) = round(&spec, Some(start), source, resources, cancelled)?;
            // Where the number of records is private, every site weighs the same.
            let weight = update.measured.map_or(1, |measured| measured.rows);
            let grid = summed::grid(spec.max_rows).map_err(|e| task(&e))?;
            Ok((summed::vector(&update.parameters, weight, &grid).map_err(|e| task(&e))?, made))
        },
    )?;
    Ok(Answer {
        kind: RELEASE_UPDATES,
        bytes: Private::new(bytes),
        seconds: secure::seconds(stage, &made, began),
        made,
    })
}
