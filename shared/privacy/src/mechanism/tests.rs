use super::{
    LEAST_SCALE, MechanismError, Sensitivity, convolution_excess, discrete_gaussian, discrete_gaussian_share,
    discrete_laplace, gaussian, laplace, scale,
};
use crate::{
    Event, Scale, Sigma,
    audit::chi_square_tails,
    ledger::{StepToken, tests::token},
};

const DRAWS: usize = 60_000;
/// How rarely an honest sampler fails one of these tests.
const FALSE_ALARM: f64 = 1e-6;

fn steps(sensitivity: f64) -> Sensitivity {
    Sensitivity::new(sensitivity).unwrap()
}

fn gaussian_token(sigma: f64) -> StepToken {
    token(Event::Gaussian { sigma: Sigma::new(sigma).unwrap(), count: 1 })
}

fn laplace_token(scale: f64) -> StepToken {
    token(Event::Laplace { scale: Scale::new(scale).unwrap(), count: 1 })
}

/// p-value of draws against weights that are not normalised; everything outside the cells is one cell.
fn fit(draws: &[i64], weight: impl Fn(i64) -> f64, reach: i64) -> f64 {
    let total: f64 = (-40 * reach..=40 * reach).map(&weight).sum();
    let n = draws.len() as f64;
    let mut statistic = 0.0;
    let mut inside = 0.0;
    let mut probability = 0.0;
    for cell in -reach..=reach {
        let seen = draws.iter().filter(|draw| **draw == cell).count() as f64;
        let expected = n * weight(cell) / total;
        statistic += (seen - expected).powi(2) / expected;
        (inside, probability) = (inside + seen, probability + weight(cell) / total);
    }
    let (seen, expected) = (n - inside, n * (1.0 - probability));
    assert!(expected > 5.0, "the outer cell expects only {expected}");
    statistic += (seen - expected).powi(2) / expected;
    chi_square_tails(statistic, 2 * reach as u64 + 1).1
}

fn gaussian_weight(scale: f64) -> impl Fn(i64) -> f64 {
    move |x| (-(x as f64).powi(2) / (2.0 * scale * scale)).exp()
}

fn laplace_weight(scale: f64) -> impl Fn(i64) -> f64 {
    move |x| (-(x as f64).abs() / scale).exp()
}

#[test]
fn gaussian_draws_have_the_pmf() {
    for scale in [0.8, 3.0] {
        let (draws, _) = gaussian::add(&vec![0; DRAWS], scale, steps(1.0)).unwrap();
        let p = fit(&draws, gaussian_weight(scale), (3.0 * scale) as i64);
        assert!(p > FALSE_ALARM, "scale {scale}: p = {p:e}");
    }
}

/// A relative error r of the scale moves the statistic by about 2 n r^2 (Gaussian) or n r^2 (Laplace): hundreds here,
/// against a threshold near 70 and a deviation near 40, so that this test itself fails less than once in a million.
#[test]
fn the_test_sees_eight_percent_of_scale() {
    let (draws, _) = gaussian::add(&vec![0; DRAWS], 3.24, steps(1.0)).unwrap();
    assert!(fit(&draws, gaussian_weight(3.0), 9) < FALSE_ALARM);
    let (draws, _) = laplace::add(&vec![0; DRAWS], 2.7, steps(1.0)).unwrap();
    assert!(fit(&draws, laplace_weight(2.5), 12) < FALSE_ALARM);
}

#[test]
fn laplace_draws_have_the_pmf() {
    for scale in [0.7, 2.5] {
        let (draws, _) = laplace::add(&vec![0; DRAWS], scale, steps(1.0)).unwrap();
        let p = fit(&draws, laplace_weight(scale), (5.0 * scale) as i64);
        assert!(p > FALSE_ALARM, "scale {scale}: p = {p:e}");
    }
}

#[test]
fn parts_add_up_to_the_whole() {
    let sites = 4;
    let part = 3.0 / f64::from(sites).sqrt();
    assert!(convolution_excess(sites as u32, part) < 1e-8);
    let mut sum = vec![0; DRAWS];
    for _ in 0..sites {
        let (draws, _) = gaussian::add(&vec![0; DRAWS], part, steps(1.0)).unwrap();
        sum.iter_mut().zip(draws).for_each(|(sum, draw)| *sum += draw);
    }
    let p = fit(&sum, gaussian_weight(3.0), 9);
    assert!(p > FALSE_ALARM, "p = {p:e}");
}

#[test]
fn a_part_has_the_variance_of_a_part() {
    let (sigma, sensitivity, sites) = (2.0, 1000.0, 9);
    let zeros = vec![0; 20_000];
    let part = discrete_gaussian_share(&zeros, steps(sensitivity), sites, gaussian_token(sigma)).unwrap();
    let scale = sigma * sensitivity / f64::from(sites).sqrt();
    let statistic = part.iter().map(|x| (*x as f64 / scale).powi(2)).sum();
    let (lower, upper) = chi_square_tails(statistic, zeros.len() as u64);
    assert!(lower.min(upper) > FALSE_ALARM, "lower {lower:e}, upper {upper:e}");
}

#[test]
fn values_are_kept_under_the_noise() {
    let values: Vec<i64> = (0..2000).map(|i| 1_000_000 * i).collect();
    let sensitivity = steps(1000.0);
    let noised = discrete_gaussian(&values, sensitivity, gaussian_token(1.0)).unwrap();
    let errors = values.iter().zip(&noised).map(|(v, n)| ((n - v) as f64 / 1000.0).powi(2)).sum();
    let (lower, upper) = chi_square_tails(errors, 2000);
    assert!(lower.min(upper) > FALSE_ALARM);
    let noised = discrete_laplace(&values, sensitivity, laplace_token(1.0)).unwrap();
    // |Laplace| / scale is exponential, and twice a sum of n exponentials is chi-square with 2 n degrees of freedom.
    let errors = values.iter().zip(&noised).map(|(v, n)| 2.0 * (n - v).abs() as f64 / 1000.0).sum();
    let (lower, upper) = chi_square_tails(errors, 4000);
    assert!(lower.min(upper) > FALSE_ALARM);
}

#[test]
fn ends_of_the_range_saturate() {
    let noised = discrete_gaussian(&[i64::MAX, i64::MIN], steps(1e6), gaussian_token(3.0)).unwrap();
    assert!(noised[0] > i64::MAX - 100_000_000 && noised[1] < i64::MIN + 100_000_000);
}

#[test]
fn a_coarse_grid_is_refused() {
    let coarse = discrete_gaussian(&[1], steps(1.0), gaussian_token(2.0));
    assert!(matches!(coarse, Err(MechanismError::CoarseGrid { .. })));
    let coarse = discrete_gaussian_share(&[1], steps(500.0), 16, gaussian_token(2.0));
    assert!(matches!(coarse, Err(MechanismError::CoarseGrid { .. })));
    assert!(discrete_gaussian_share(&[1], steps(600.0), 16, gaussian_token(2.0)).is_ok());
}

#[test]
fn the_scale_is_rounded_up_by_little() {
    for exact in [256.0, 300.1, 1e6 / 3.0, 2.0_f64.powi(40) - 1.0, 1e15 / 7.0] {
        let rounded = scale(1.0, steps(exact)).unwrap();
        assert!(rounded > exact && rounded < exact * (1.0 + 2e-6), "{exact}: {rounded}");
    }
}

#[test]
fn another_mechanisms_token_is_refused() {
    let token = laplace_token(2.0);
    let refused = discrete_gaussian(&[1], steps(1000.0), token);
    assert!(matches!(refused, Err(MechanismError::OtherMechanism { .. })));
    let refused = discrete_laplace(&[1], steps(100.0), gaussian_token(2.0));
    assert!(matches!(refused, Err(MechanismError::OtherMechanism { .. })));
    let refused = discrete_gaussian_share(&[1], steps(100.0), 0, gaussian_token(2.0));
    assert_eq!(refused, Err(MechanismError::NoSites));
    assert!(Sensitivity::new(f64::NAN).is_err() && Sensitivity::new(0.0).is_err());
}

/// delta at epsilon of an integer mechanism whose centre moves by `shift`: sum of max(0, P(y) - e^epsilon P(y - shift)).
fn discrete_delta(weight: impl Fn(i64) -> f64, shift: i64, epsilon: f64, reach: i64) -> f64 {
    let total: f64 = (-reach..=reach).map(&weight).sum();
    let excess = |y: i64| (weight(y) - epsilon.exp() * weight(y + shift)).max(0.0);
    (-reach..=reach).map(excess).sum::<f64>() / total
}

#[test]
fn the_discrete_gaussian_curve_is_the_continuous_one() {
    let mut worst = 0.0_f64;
    for shift in [64_i64, 128, 256, 512] {
        let mu = shift as f64 / LEAST_SCALE;
        for step in 0..60 {
            let epsilon = 0.05 + 0.1 * f64::from(step);
            let tail = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
            let continuous = tail(mu / 2.0 - epsilon / mu) - epsilon.exp() * tail(-mu / 2.0 - epsilon / mu);
            if continuous < 1e-10 {
                continue;
            }
            let discrete = discrete_delta(gaussian_weight(LEAST_SCALE), shift, epsilon, 4000);
            worst = worst.max(discrete / continuous - 1.0);
        }
    }
    println!("discrete over continuous Gaussian delta, less 1: {worst:e}");
    assert!(worst < 3e-5, "{worst:e}");
}

#[test]
fn the_discrete_laplace_curve_is_the_continuous_one() {
    let mut worst = 0.0_f64;
    for shift in [64_i64, 128, 256, 512] {
        let whole = shift as f64 / LEAST_SCALE;
        for part in 0..20 {
            let epsilon = whole * f64::from(part) / 20.0;
            let continuous = 1.0 - ((epsilon - whole) / 2.0).exp();
            let discrete = discrete_delta(laplace_weight(LEAST_SCALE), shift, epsilon, 8000);
            worst = worst.max(discrete / continuous - 1.0);
        }
        // Pure DP is exact, not approximate.
        assert!(discrete_delta(laplace_weight(LEAST_SCALE), shift, whole + 1e-12, 8000) < 1e-12);
    }
    println!("discrete over continuous Laplace delta, less 1: {worst:e}");
    assert!(worst < 4e-4, "{worst:e}");
}

/// Not a promise, a record: `cargo test -p sheaf-privacy speed_of_draws -- --nocapture`.
#[test]
fn speed_of_draws_is_usable() {
    let began = std::time::Instant::now();
    let drawn = discrete_gaussian(&vec![0; 20_000], steps(1e6), gaussian_token(1.0)).unwrap();
    let each = began.elapsed().as_secs_f64() / drawn.len() as f64;
    println!("discrete Gaussian, scale 1e6: {:.2} us a draw", 1e6 * each);
    assert!(each < 1e-3, "{each} s a draw");
}

/// opendp composes Gaussian mechanisms in zCDP and converts (Canonne, Kamath, Steinke 2020): another route to the same
/// promise. Its epsilon is an upper bound like the Rényi one, which at its best order is the same curve; the loss
/// distribution's must lie below.
#[test]
fn opendp_s_composition_and_conversion_agree() {
    use opendp::{
        combinators::{make_composition, make_zCDP_to_approxDP},
        domains::{AtomDomain, VectorDomain},
        measurements::make_gaussian,
        measures::ZeroConcentratedDivergence,
        metrics::L2Distance,
    };

    use crate::{Delta, accountant::Composition};

    for (sigmas, delta) in
        [(vec![2.0], 1e-5), (vec![1.0, 3.0], 1e-6), (vec![5.0; 12], 1e-4), (vec![0.7], 1e-5)]
    {
        let mechanism = |sigma: &f64| {
            let domain = VectorDomain::new(AtomDomain::<i64>::default());
            make_gaussian::<_, _, ZeroConcentratedDivergence>(
                domain,
                L2Distance::<f64>::default(),
                sigma * 1024.0,
                None,
            )
            .unwrap()
        };
        let together = make_composition(sigmas.iter().map(mechanism).collect()).unwrap();
        let theirs = make_zCDP_to_approxDP(together).unwrap().map(&1024.0).unwrap().epsilon(delta).unwrap();
        let event = |sigma: &f64| Event::Gaussian { sigma: Sigma::new(*sigma).unwrap(), count: 1 };
        let ours: Composition = sigmas.iter().map(event).collect();
        let ours = ours.account(Delta::new(delta).unwrap()).unwrap();
        let (rdp, pld) = (ours.epsilon_rdp.get(), ours.epsilon_pld.get());
        assert!((rdp / theirs - 1.0).abs() < 5e-3, "{sigmas:?}: Rényi {rdp}, opendp {theirs}");
        assert!(pld <= theirs, "{sigmas:?}: loss distribution {pld}, opendp {theirs}");
    }
}
