//! AFL on sums that carry noise (SSP: Vu and Slavkovic 2009; Wang 2018, arXiv 1803.02596). All of it is post-processing of
//! what the sites have paid for.

use sheaf_analytic::{AnalyticError, Normalize, SumsShape, solve as solve_sums};
use sheaf_proto::{
    afl::{NoisedError, NoisedSums, SumsSpec},
    privacy::PrivacySpec,
};

use super::{AflOptions, Solved, shape};
use crate::{
    error::Error,
    run::plan::Plan,
    workload::{Answers, Context},
};

/// The ridge parameter is doubled at most so often until the noised matrix is positive definite.
const DOUBLINGS: u32 = 60;

/// Refuses a private plan that would need to know something of the records beforehand, and turns on what keeps a record's
/// weight at 1.
pub(super) fn check(plan: &Plan, options: &mut AflOptions) -> Result<(), Error> {
    if plan.schema.declared.is_none() {
        return Err(Error::invalid(
            "[privacy] needs [schema.declared]: classes and, of a table, ranges and levels from a code book, since a survey \
             of the records would tell about them",
        ));
    }
    if options.normalize == Normalize::None {
        return Err(Error::invalid(
            "[afl] normalize = \"none\" does not go with [privacy]: a record's weight must be bounded",
        ));
    }
    options.normalize = Normalize::L2Bounded;
    Ok(())
}

/// Standard deviation of the noise on an entry of `G` of one site, in real units.
fn noise_of_a_site(spec: &SumsSpec, privacy: &PrivacySpec) -> Result<f64, Error> {
    let bound = spec.features.row_norm_bound();
    let sigma = privacy.event.sigma().ok_or_else(|| Error::bug("sums under another noise than Gaussian"))?;
    Ok(sigma.get() * (bound.powi(4) + bound * bound).sqrt())
}

/// Solves. The ridge parameter follows from the noise, which is public: a symmetric matrix of noise
/// of deviation s has eigenvalues up to about 2 s sqrt(D), and so little of the data's own must be left to it.
pub(super) fn solve(
    sum: NoisedSums,
    spec: &SumsSpec,
    noise: f64,
    options: &AflOptions,
) -> Result<Solved, Error> {
    let shape = shape(spec);
    let merged = sum.encode().map_err(|e| Error::bug(e.to_string()))?;
    let sums = sum.into_sums(&shape).map_err(|e| Error::bug(e.to_string()))?;
    let mut lambda = options.lambda.max(options.noise_ridge * noise * (shape.dim as f64).sqrt());
    for _ in 0..DOUBLINGS {
        match solve_sums(&sums, lambda) {
            Ok(weights) => return Ok(Solved { weights, lambda, merged, rows: None }),
            Err(AnalyticError::NotPositiveDefinite { .. }) => lambda *= 2.0,
            Err(error) => return Err(Error::invalid(error.to_string())),
        }
    }
    Err(Error::invalid(format!("the noised sums have no solution even with lambda {lambda}")))
}

/// Adds the sites' sums, each with noise of its own, and solves.
pub(super) fn merge(
    context: &Context<'_>,
    answers: &Answers<'_>,
    spec: &SumsSpec,
    privacy: &PrivacySpec,
    options: &AflOptions,
) -> Result<Solved, Error> {
    let shape: SumsShape = shape(spec);
    let mut sum = NoisedSums::zero(&shape);
    for (site, blob) in answers.contributions {
        let of_site = |e: NoisedError| Error::invalid(format!("sums of site {site}: {e}"));
        let sums = NoisedSums::decode(&context.blobs.get(blob)?, &shape).map_err(of_site)?;
        sum.add(&sums).map_err(of_site)?;
    }
    let noise = noise_of_a_site(spec, privacy)? * (answers.contributions.len() as f64).sqrt();
    solve(sum, spec, noise, options)
}

/// Solves the open total of a secure sum, in which the noise of the smallest cohort is whole.
pub(super) fn solve_total(
    values: Vec<i64>,
    spec: &SumsSpec,
    privacy: &PrivacySpec,
    (sites, least): (usize, u32),
    options: &AflOptions,
) -> Result<Solved, Error> {
    let noise = noise_of_a_site(spec, privacy)? * (sites as f64 / f64::from(least.max(1))).sqrt();
    let sum = NoisedSums::from_vector(&shape(spec), values).map_err(|e| Error::invalid(e.to_string()))?;
    solve(sum, spec, noise, options)
}
