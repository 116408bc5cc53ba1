use opendp::{
    domains::{AtomDomain, VectorDomain},
    measurements::make_gaussian,
    metrics::L2Distance,
};

use super::{MechanismError, Sensitivity, in_pieces, scale};
use crate::{Event, Sigma, ledger::StepToken};

/// Discrete Gaussian noise of standard deviation sigma times sensitivity on every number.
///
/// **Claim.** One release is sigma^-2 / 2 zero-concentrated DP, so its Rényi divergence at order a is at most a / (2 sigma^2),
/// as the ledger charges `Event::Gaussian`. Neighbours differ by at most `sensitivity` in L2. Additions saturate at the
/// ends of i64, which is post-processing.
///
/// **Why it holds.** For integer vectors the discrete Gaussian has the divergences of the continuous one or less. The
/// accountants' PLD takes the continuous curve: see [`LEAST_SCALE`](super::LEAST_SCALE). The sampler is exact: rational arithmetic, rejection, no floating point. opendp's own privacy map is
/// asked at every call and must not be above the charge.
///
/// **Source.** Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), theorem 4 and algorithm 3; opendp `make_gaussian`.
///
/// **Test.** Chi-square against the pmf and the discrete curve against the continuous one: `mechanism/tests.rs`.
///
/// # Errors
/// [`MechanismError`]; the step stays charged.
pub fn discrete_gaussian(
    values: &[i64],
    sensitivity: Sensitivity,
    token: StepToken,
) -> Result<Vec<i64>, MechanismError> {
    let sigma = charged(&token, "Gaussian noise")?;
    let scale = scale(sigma.get(), sensitivity)?;
    let (noised, bound) = add(values, scale, sensitivity)?;
    let charged = 0.5 / (sigma.get() * sigma.get());
    if bound > charged { Err(MechanismError::Undercharged { bound, charged }) } else { Ok(noised) }
}

/// A site's part of Gaussian noise that only the sum has in full: variance (sigma sensitivity)^2 / `sites`.
///
/// **Claim.** Where at least `sites` sites add their part and nobody sees less than the sum (secure aggregation), the sum is
/// charged rightly as `Event::Gaussian` with the token's sigma, at each of these sites. More sites mean more noise.
///
/// **Why it holds.** The sum of n discrete Gaussians of variance s^2 is within a factor exp(tau) of the discrete Gaussian of
/// variance n s^2 in every probability, tau = 10 sum_(k<n) exp(-2 pi^2 s^2 k / (k + 1)): [`convolution_excess`]. The part's
/// scale is kept at [`LEAST_SCALE`](super::LEAST_SCALE) or more, and tau is then 0 in f64.
///
/// **What it needs.** `sites` is the smallest cohort that the plan allows and the site enforces. A site alone adds too little:
/// its own vector must never be seen. Sites that collude know their own parts: with c of them among exactly `sites`, the noise
/// against them has sigma sqrt(1 - c / sites). Sites that leave out their part lower it the same way.
///
/// **Source.** Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), theorem 1 and proposition 14.
///
/// **Test.** Chi-square of a sum of parts against the pmf of the whole: `mechanism/tests.rs`.
///
/// # Errors
/// [`MechanismError`]; the step stays charged.
pub fn discrete_gaussian_share(
    values: &[i64],
    sensitivity: Sensitivity,
    sites: u32,
    token: StepToken,
) -> Result<Vec<i64>, MechanismError> {
    if sites == 0 {
        return Err(MechanismError::NoSites);
    }
    let sigma = charged(&token, "Gaussian noise")?;
    let scale = scale(sigma.get() / f64::from(sites).sqrt(), sensitivity)?;
    Ok(add(values, scale, sensitivity)?.0)
}

/// How much a sum of `sites` discrete Gaussians of standard deviation `scale` each (steps of the grid) may exceed, in the
/// logarithm of any probability, one discrete Gaussian of their variance. For a vector, multiply by its length.
pub fn convolution_excess(sites: u32, scale: f64) -> f64 {
    let exponent = -2.0 * std::f64::consts::PI.powi(2) * scale * scale;
    10.0 * (1..sites).map(|k| (exponent * f64::from(k) / f64::from(k + 1)).exp()).sum::<f64>()
}

fn charged(token: &StepToken, mechanism: &'static str) -> Result<Sigma, MechanismError> {
    match token.event() {
        Event::Gaussian { sigma, .. } => Ok(sigma),
        charged => Err(MechanismError::OtherMechanism { charged, mechanism }),
    }
}

/// The noised values and the zCDP bound by opendp. Every piece has the same mechanism; its bound is for the whole vector's
/// sensitivity.
pub(super) fn add(
    values: &[i64],
    scale: f64,
    sensitivity: Sensitivity,
) -> Result<(Vec<i64>, f64), MechanismError> {
    let mechanism = || {
        let domain = VectorDomain::new(AtomDomain::<i64>::default());
        make_gaussian(domain, L2Distance::<f64>::default(), scale, None)
    };
    let bound = mechanism()?.map(&sensitivity.get())?;
    let noised = in_pieces(values, |piece| Ok(mechanism()?.invoke(piece)?))?;
    Ok((noised, bound))
}
