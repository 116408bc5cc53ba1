//! Votes and what texts are worth as vectors of secure sums: the coordinator gets totals over all sites and nothing of one site.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use sheaf_data::Source;
use sheaf_proto::{
    afl::{RELEASE_METRICS, RELEASE_STATISTICS},
    fdkt::{TRANSFER, TransferSpec, VOTE, VoteSpec},
    secure::{SecureSpec, parse as parse_phase},
};
use sheaf_secagg::{Stage, Subject};

use super::{transfer, votes};
use crate::{
    egress::{Answer, Made, Private},
    error::AgentError,
    secure::{self, subject},
    task::{
        Assignment, Resources,
        afl::secure::{FIGURES, SUMMED},
        parse,
    },
};

/// Domain of the subject of noised votes of the records of these files for certain candidates.
const VOTED: &[u8] = b"sheaf fdkt votes 1\n";

/// Domain of the subject of noised figures of the records of these files for certain texts.
const MEASURED: &[u8] = b"sheaf fdkt figures 1\n";

/// What a secure sum is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Summed {
    /// Votes.
    Votes,
    /// How many test records models get right.
    Worth,
}

/// Which secure sum a phase is a stage of, and which stage.
pub(super) fn stage(phase: &str) -> Option<(Summed, Stage)> {
    match parse_phase(phase)? {
        (TRANSFER, stage) => Some((Summed::Worth, stage)),
        (base, stage) => base.starts_with(VOTE).then_some((Summed::Votes, stage)),
    }
}

/// Answers a stage. Its kind is that of what is summed at every stage, so that a site which does not let that out takes no
/// part.
pub(super) fn perform(
    assignment: &Assignment,
    (summed, stage): (Summed, Stage),
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Answer, AgentError> {
    let began = Instant::now();
    let asked = secure::asked(assignment, stage)?;
    let (kind, (bytes, made)) = match summed {
        Summed::Votes => (RELEASE_STATISTICS, vote_stage(assignment, &asked, source, resources, cancelled)?),
        Summed::Worth => (RELEASE_METRICS, worth_stage(assignment, &asked, source, resources, cancelled)?),
    };
    Ok(Answer { kind, bytes: Private::new(bytes), seconds: secure::seconds(stage, &made, began), made })
}

/// What votes are summed of. Without noise the votes of a class add up to its records, whatever the candidates are: all votes
/// of all runs over these files are of one subject, with every other sum that these sizes can be read from, so that nobody
/// subtracts sums over nearly the same sites. With noise each sum is paid for and as private as one that the site would show
/// alone: other candidates are another subject, and a site may miss a vote.
fn subject_of(spec: &VoteSpec, candidates: &[u8], content: &[u8; 32]) -> Subject {
    match &spec.sums.privacy {
        None => subject(SUMMED, content, &[]),
        Some(_) => subject(VOTED, content, &Sha256::digest(candidates)),
    }
}

fn vote_stage(
    assignment: &Assignment,
    asked: &SecureSpec,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Vec<u8>, Made), AgentError> {
    let spec: VoteSpec = parse(&assignment.spec)?;
    let (candidates, inputs) =
        secure::split_inputs(assignment, asked.stage, "the vote came without candidates")?;
    resources.secure()?.answer(
        asked,
        inputs,
        || {
            // Before anything is begun or paid for.
            secure::check_length(asked, votes::labels(candidates)?.len() as u64)?;
            Ok(subject_of(&spec, candidates, &source.digest(resources.assets)?))
        },
        || {
            let least = asked.terms.min_survivors;
            votes::share(&spec, (candidates, least), source, resources, cancelled)
        },
    )
}

fn inputs_digest(sets: &[Vec<u8>]) -> [u8; 32] {
    let hash = |hash: Sha256, set: &Vec<u8>| hash.chain_update(Sha256::digest(set));
    sets.iter().fold(Sha256::new(), hash).finalize().into()
}

fn worth_stage(
    assignment: &Assignment,
    asked: &SecureSpec,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Vec<u8>, Made), AgentError> {
    let spec: TransferSpec = parse(&assignment.spec)?;
    secure::check_length(asked, spec.vector_len() as u64)?;
    let missing = "the task comes with fewer sets of texts than it names";
    let (sets, inputs) = secure::split_many(assignment, asked.stage, spec.texts.len(), missing)?;
    resources.secure()?.answer(
        asked,
        inputs,
        || {
            let content = source.digest(resources.assets)?;
            // As for votes: each noised sum is paid for and private by itself.
            Ok(match spec.sums.privacy {
                None => subject(FIGURES, &content, &[]),
                Some(_) => subject(MEASURED, &content, &inputs_digest(sets)),
            })
        },
        || {
            let (measured, made) =
                transfer::worth(&spec, (sets, assignment.min_rows), source, (resources, &|_| {}), cancelled)?;
            Ok((spec.to_vector(&measured), made))
        },
    )
}

#[cfg(test)]
mod tests;
