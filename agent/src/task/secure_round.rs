//! A round of tuning as a secure sum: a site's parameters leave masked, and the coordinator learns the sum over all sites.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use sheaf_data::Source;
use sheaf_proto::fedavg::{Parameters, ParametersFile as _, summed};
use sheaf_secagg::Stage;

use super::{Assignment, Resources};
use crate::{
    egress::{Answer, Made, Private},
    error::AgentError,
    secure,
};

/// What is summed.
pub(super) struct Round {
    /// Domain of what the parameters that a round begins with become on the records of these files. Another round begins with others.
    pub(super) domain: &'static [u8],
    /// The answer's kind at every stage, so that a site which does not let it out takes no part.
    pub(super) kind: &'static str,
    /// How many inputs the round begins with; the first has the parameters that are tuned.
    pub(super) inputs: usize,
    /// The most that a site's parameters weigh.
    pub(super) max_rows: u64,
}

/// The stage that a phase's name says, if its sum is one of a round.
pub(super) fn stage(phase: &str, is_round: impl FnOnce(&str) -> bool) -> Option<Stage> {
    let (base, stage) = sheaf_proto::secure::parse(phase)?;
    is_round(base).then_some(stage)
}

/// Answers a stage. `tune` gives the parameters after the round, how much they weigh and what they were made of.
pub(super) fn perform(
    assignment: &Assignment,
    (stage, round): (Stage, &Round),
    source: &Source,
    resources: &Resources<'_>,
    tune: impl FnOnce(&[Vec<u8>]) -> Result<(Parameters, u64, Made), AgentError>,
) -> Result<Answer, AgentError> {
    let began = Instant::now();
    let asked = secure::asked(assignment, stage)?;
    let (given, inputs) =
        secure::split_many(assignment, stage, round.inputs, "the round came without its parameters")?;
    let task = |e: &dyn std::fmt::Display| AgentError::Task(e.to_string());
    let (bytes, made) = resources.secure()?.answer(
        &asked,
        inputs,
        || {
            let begun = given.iter().fold(Sha256::new(), sha2::Digest::chain_update);
            Ok(secure::subject(round.domain, &source.digest(resources.assets)?, &begun.finalize()))
        },
        || {
            let start = given.first().map(Vec::as_slice).unwrap_or_default();
            secure::check_length(&asked, summed::length(&Parameters::decode(start).map_err(|e| task(&e))?))?;
            let (parameters, weight, made) = tune(given)?;
            let grid = summed::grid(round.max_rows).map_err(|e| task(&e))?;
            Ok((summed::vector(&parameters, weight, &grid).map_err(|e| task(&e))?, made))
        },
    )?;
    Ok(Answer {
        kind: round.kind,
        bytes: Private::new(bytes),
        seconds: secure::seconds(stage, &made, began),
        made,
    })
}
