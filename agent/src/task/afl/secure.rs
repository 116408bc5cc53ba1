//! AFL's sums as a vector of a secure sum: the coordinator gets the total over all sites and no site's sums.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use sheaf_analytic::SumsShape;
use sheaf_data::Source;
use sheaf_proto::{
    afl::{NoisedSums, RELEASE_SUMS, SUMS, SumsSpec},
    secure::{self, MaybeSecure},
};
use sheaf_secagg::{Stage, Subject};

use super::{parse, private, sums};
use crate::{
    egress::{Answer, Made, Private},
    error::AgentError,
    features,
    task::{Assignment, Resources},
};

/// Keeps the subject of these sums apart from that of other sums over the same records.
const SUBJECT: &[u8] = b"sheaf afl sums 1\n";

/// The stage that a phase's name says, if it is one of the secure sum.
pub(super) fn stage(phase: &str) -> Option<Stage> {
    match secure::parse(phase) {
        Some((SUMS, stage)) => Some(stage),
        _ => None,
    }
}

/// What is summed: AFL's sums over the records of these files, whatever columns are read of them. Not over the encoding and its figures, which change with the sites of
/// a run: the coordinator could then compare two sums over nearly the same sites as often as it asks for another one.
fn subject(content: &[u8; 32]) -> Subject {
    Sha256::new().chain_update(SUBJECT).chain_update(content).finalize().into()
}

/// Answers a stage. Its kind is that of the sums at every stage, so that a site which does not let sums out takes no part.
pub(super) fn perform(
    assignment: &Assignment,
    stage: Stage,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Answer, AgentError> {
    let began = Instant::now();
    let MaybeSecure { secure } = parse(&assignment.spec)?;
    let asked = secure.filter(|asked| asked.stage == stage).ok_or_else(|| {
        AgentError::Task(format!("phase \"{}\" does not say what the secure sum is about", assignment.phase))
    })?;
    let spec: SumsSpec = parse(&assignment.spec)?;
    let shape = SumsShape::of(&spec.features, spec.encoding.classes.len());
    let length = match &spec.privacy {
        Some(_) => NoisedSums::vector_len(&shape),
        None => shape.vector_len(),
    };
    if asked.terms.length != length {
        return Err(AgentError::Task(format!(
            "the secure sum is of {} numbers, the sums asked for have {}",
            asked.terms.length, length
        )));
    }
    // Only the masked vector is made of records.
    let mut made = Made::Protocol;
    let bytes = resources.secure()?.answer(
        &asked,
        &assignment.inputs,
        || Ok(subject(&source.digest(resources.assets)?)),
        || {
            let opened = features::open(source, &spec.schema, resources, cancelled)?;
            if let Some(privacy) = &spec.privacy {
                let least = asked.terms.min_survivors;
                let purse = resources.purse()?;
                let (noised, paid) =
                    private::share(&spec, privacy, &opened.dataset, (purse, least), cancelled)?;
                made = paid;
                return Ok(noised);
            }
            let sums = sums(&spec, &opened.dataset, cancelled)?;
            made = Made::OfRows(sums.rows());
            Ok(sums.to_vector())
        },
    )?;
    Ok(Answer { kind: RELEASE_SUMS, bytes: Private::new(bytes), seconds: made.seconds(began), made })
}
