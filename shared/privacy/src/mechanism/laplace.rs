use opendp::{
    domains::{AtomDomain, VectorDomain},
    measurements::make_laplace,
    metrics::L1Distance,
};

use super::{MechanismError, Sensitivity, in_pieces, scale};
use crate::{Event, ledger::StepToken};

/// Discrete Laplace noise of scale `scale * sensitivity` on every number.
///
/// **Claim.** One release is 1 / scale pure DP, as the ledger charges `Event::Laplace`. Neighbours differ by at most
/// `sensitivity` in L1. Additions saturate at the ends of i64, which is post-processing.
///
/// **Why it holds.** The pmf falls by exp(-1 / s) a step of the grid, so moving the centre by k steps changes no probability
/// by more than exp(k / s). The sampler is exact. opendp's own privacy map is asked at every call and must not be above the
/// charge. The accountants' PLD takes the continuous curve: see [`LEAST_SCALE`](super::LEAST_SCALE).
///
/// **Source.** Ghosh, Roughgarden, Sundararajan 2012; Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), algorithm 2; opendp
/// `make_laplace`.
///
/// **Test.** Chi-square against the pmf and the discrete curve against the continuous one: `mechanism/tests.rs`.
///
/// # Errors
/// [`MechanismError`]; the step stays charged.
pub fn discrete_laplace(
    values: &[i64],
    sensitivity: Sensitivity,
    token: StepToken,
) -> Result<Vec<i64>, MechanismError> {
    let multiplier = match token.event() {
        Event::Laplace { scale, .. } => scale.get(),
        charged => return Err(MechanismError::OtherMechanism { charged, mechanism: "Laplace noise" }),
    };
    let (noised, bound) = add(values, scale(multiplier, sensitivity)?, sensitivity)?;
    let charged = 1.0 / multiplier;
    if bound > charged { Err(MechanismError::Undercharged { bound, charged }) } else { Ok(noised) }
}

/// The noised values and the pure-DP bound by opendp; as for the Gaussian.
pub(super) fn add(
    values: &[i64],
    scale: f64,
    sensitivity: Sensitivity,
) -> Result<(Vec<i64>, f64), MechanismError> {
    let mechanism = || {
        let domain = VectorDomain::new(AtomDomain::<i64>::default());
        make_laplace(domain, L1Distance::<f64>::default(), scale, None)
    };
    let bound = mechanism()?.map(&sensitivity.get())?;
    let noised = in_pieces(values, |piece| Ok(mechanism()?.invoke(piece)?))?;
    Ok((noised, bound))
}
