//! A round of a proxy as a secure sum: its parameters leave masked, and the coordinator learns the mean over all sites.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use sheaf_data::Source;
use sheaf_proto::{
    fedavg::{Parameters, ParametersFile as _, summed},
    rewardds::{GeneratorSpec, RELEASE_PROXIES, RewardSpec, Step},
    secure::parse as parse_phase,
};
use sheaf_secagg::Stage;

use super::{proxy, step};
use crate::{
    egress::{Answer, Private},
    error::AgentError,
    secure,
    task::{Assignment, Resources, parse},
};

/// Domain of what the parameters that a round begins with become on the records of these files. Another round begins with others.
const SUMMED: &[u8] = b"sheaf rewardds proxy 1\n";

/// The stage that a phase's name says, if it is one of a proxy's sum.
pub(super) fn stage(phase: &str) -> Option<Stage> {
    let (base, stage) = parse_phase(phase)?;
    matches!(Step::parse(base), Some(Step::Generator(_) | Step::Reward(_))).then_some(stage)
}

/// Answers a stage. Its kind is that of proxies at every stage, so that a site which does not let them out takes no part.
pub(super) fn perform(
    assignment: &Assignment,
    stage: Stage,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Answer, AgentError> {
    let began = Instant::now();
    let asked = secure::asked(assignment, stage)?;
    let (max_rows, count) = match step(&assignment.phase)? {
        Step::Generator(_) => (parse::<GeneratorSpec>(&assignment.spec)?.round.max_rows, 1),
        _ => (parse::<RewardSpec>(&assignment.spec)?.round.max_rows, 2),
    };
    let (given, inputs) =
        secure::split_many(assignment, stage, count, "the round came without a proxy's parameters")?;
    let task = |e: &dyn std::fmt::Display| AgentError::Task(e.to_string());
    let begun = |given: &[Vec<u8>]| {
        given.iter().fold(Sha256::new(), |hash, input| hash.chain_update(Sha256::digest(input)))
    };
    let (bytes, made) = resources.secure()?.answer(
        &asked,
        inputs,
        || Ok(secure::subject(SUMMED, &source.digest(resources.assets)?, &begun(given).finalize())),
        || {
            let start = given.first().map(Vec::as_slice).unwrap_or_default();
            secure::check_length(&asked, summed::length(&Parameters::decode(start).map_err(|e| task(&e))?))?;
            let (parameters, made) = proxy(assignment, given, source, resources, cancelled)?;
            let grid = summed::grid(max_rows).map_err(|e| task(&e))?;
            // Every site weighs the same: how many records it has need not be known.
            Ok((summed::vector(&parameters, 1, &grid).map_err(|e| task(&e))?, made))
        },
    )?;
    Ok(Answer {
        kind: RELEASE_PROXIES,
        bytes: Private::new(bytes),
        seconds: secure::seconds(stage, &made, began),
        made,
    })
}
