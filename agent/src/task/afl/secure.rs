//! AFL's sums and figures as vectors of secure sums: the coordinator gets totals over all sites and nothing of one site.

use std::time::Instant;

use sheaf_analytic::SumsShape;
use sheaf_data::Source;
use sheaf_proto::{
    afl::{EVALUATE, EvaluateSpec, NoisedSums, RELEASE_METRICS, RELEASE_SUMS, SUMS, SumsSpec},
    secure::{SecureSpec, parse as parse_phase},
};
use sheaf_secagg::Stage;

use super::{evaluate, private, sums};
use crate::{
    egress::{Answer, Made, Private},
    error::AgentError,
    features,
    secure::{self, subject},
    task::{Assignment, Resources, parse},
};

/// Domain of the subject of AFL's sums over the records of these files, whatever columns are read of them. The subject is not
/// over the encoding and its figures, which change with the sites of a run: the coordinator could then compare two sums over
/// nearly the same sites as often as it asks for another one. Every exact sum that holds the sizes of classes is of it.
pub(in crate::task) const SUMMED: &[u8] = b"sheaf afl sums 1\n";
/// Domain of how models do on the test records of these files. Not over which model: figures of nearly equal models over nearly
/// the same sites could be subtracted, too.
pub(in crate::task) const FIGURES: &[u8] = b"sheaf afl figures 1\n";

/// Which secure sum a phase is a stage of, and which stage.
pub(super) fn stage(phase: &str) -> Option<(&'static str, Stage)> {
    match parse_phase(phase) {
        Some((SUMS, stage)) => Some((SUMS, stage)),
        Some((EVALUATE, stage)) => Some((EVALUATE, stage)),
        _ => None,
    }
}

/// Answers a stage. Its kind is that of what is summed at every stage, so that a site which does not let that out takes no
/// part.
pub(super) fn perform(
    assignment: &Assignment,
    (base, stage): (&'static str, Stage),
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Answer, AgentError> {
    let began = Instant::now();
    let asked = secure::asked(assignment, stage)?;
    let (kind, bytes, made) = if base == SUMS {
        let (bytes, made) = sums_stage(assignment, &asked, source, resources, cancelled)?;
        (RELEASE_SUMS, bytes, made)
    } else {
        let (bytes, made) = evaluate_stage(assignment, &asked, source, resources, cancelled)?;
        (RELEASE_METRICS, bytes, made)
    };
    Ok(Answer { kind, bytes: Private::new(bytes), seconds: secure::seconds(stage, &made, began), made })
}

fn sums_stage(
    assignment: &Assignment,
    asked: &SecureSpec,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Vec<u8>, Made), AgentError> {
    let spec: SumsSpec = parse(&assignment.spec)?;
    let shape = SumsShape::of(&spec.features, spec.encoding.classes.len());
    let length = match &spec.privacy {
        Some(_) => NoisedSums::vector_len(&shape),
        None => shape.vector_len(),
    };
    secure::check_length(asked, length)?;
    resources.secure()?.answer(
        asked,
        &assignment.inputs,
        || Ok(subject(SUMMED, &source.digest(resources.assets)?, &[])),
        || {
            let opened = features::open(source, &spec.schema, resources, cancelled)?;
            if let Some(privacy) = &spec.privacy {
                let least = asked.terms.min_survivors;
                let purse = resources.purse()?;
                return private::share(&spec, privacy, &opened.dataset, (purse, least), cancelled);
            }
            let sums = sums(&spec, &opened.dataset, cancelled)?;
            Ok((sums.to_vector(), Made::OfRows(sums.rows())))
        },
    )
}

fn evaluate_stage(
    assignment: &Assignment,
    asked: &SecureSpec,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Vec<u8>, Made), AgentError> {
    let spec: EvaluateSpec = parse(&assignment.spec)?;
    secure::check_length(asked, spec.vector_len() as u64)?;
    let (model, inputs) =
        secure::split_inputs(assignment, asked.stage, "the evaluation came without a model")?;
    resources.secure()?.answer(
        asked,
        inputs,
        || Ok(subject(FIGURES, &source.digest(resources.assets)?, &[])),
        || {
            let opened = features::open(source, &spec.sums.schema, resources, cancelled)?;
            let (figures, made) = if let Some(privacy) = &spec.sums.privacy {
                let purse = resources.purse()?;
                private::evaluate(&spec, privacy, model, &opened, purse, cancelled)?
            } else {
                let figures = evaluate(&spec, model, &opened, assignment.min_rows, cancelled)?;
                let made = Made::OfRows(figures.train_rows);
                (figures, made)
            };
            Ok((spec.to_vector(&figures), made))
        },
    )
}
