use proptest::prelude::*;

use super::*;
use crate::units::{Rate, Scale, Sigma};

fn dp_sgd(q: f64, sigma: f64, steps: u64) -> Event {
    Event::PoissonGaussian { rate: Rate::new(q).unwrap(), sigma: Sigma::new(sigma).unwrap(), steps }
}

/// (q, sigma, order, divergence of one step): integrals of the definition with 30 digits.
const INTEGRALS: [(f64, f64, f64, f64); 8] = [
    (0.128, 0.6, 1.7, 0.137692455739419554),
    (0.128, 0.6, 1.6, 0.118517869005160161),
    (0.128, 0.6, 1.8, 0.160494809592618821),
    (0.004266666666666667, 0.7, 3.8, 0.000283378459773253174),
    (0.01, 1.0, 1.1, 0.0000924147108468695864),
    (0.064, 1.0, 10.9, 2.42427670353837343),
    (0.9, 4.0, 3.8, 0.0976852581730441823),
    (1e-6, 0.8, 5.5, 1.03698251366365546e-11),
];

#[test]
fn fractional_orders_match_the_integral() {
    for (q, sigma, order, expected) in INTEGRALS {
        let got = divergence(&dp_sgd(q, sigma, 1), order);
        // The logarithm of a number next to 1 keeps absolute accuracy only.
        assert!(
            (got - expected).abs() <= 1e-11 * expected + 1e-13,
            "{q} {sigma} {order}: {got:e} {expected:e}"
        );
    }
}

#[test]
fn series_and_whole_orders_agree() {
    for (q, sigma) in [(0.001, 0.6), (0.064, 1.0), (0.5, 2.0), (0.99, 5.0)] {
        for order in [2.0, 3.0, 7.0, 10.0] {
            let (below, at, above) = (
                divergence(&dp_sgd(q, sigma, 1), order - 1e-7),
                divergence(&dp_sgd(q, sigma, 1), order),
                divergence(&dp_sgd(q, sigma, 1), order + 1e-7),
            );
            assert!(below <= at && at <= above, "{q} {sigma} {order}");
            assert!((above - below) / at < 1e-5, "{q} {sigma} {order}: {below} {at} {above}");
        }
    }
}

#[test]
fn the_orders_are_those_of_the_reference() {
    assert_eq!(orders().len(), 99 + 52 + 4);
    assert!(orders().windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!((orders()[0], orders()[98], orders()[99]), (1.1, 10.9, 12.0));
}

#[test]
fn an_order_that_does_not_converge_is_dropped() {
    // Noise so small that the series meets infinities: no order may give a number that looks like a bound.
    let curve = RdpCurve::of(&dp_sgd(0.5, 1e-160, 1));
    assert!(curve.values().iter().all(|x| *x == f64::INFINITY));
    let delta = Delta::new(1e-5).unwrap();
    assert_eq!(curve.epsilon(delta), Err(AccountError::Unbounded { delta }));
    assert_eq!(curve.delta(Epsilon::new(3.0).unwrap()).get(), 1.0);
}

#[test]
fn pure_mechanisms_stay_under_their_epsilon() {
    for epsilon in [1e-3, 0.5, 3.0] {
        let pure = Event::Pure { epsilon: Epsilon::new(epsilon).unwrap() };
        let laplace = Event::Laplace { scale: Scale::new(1.0 / epsilon).unwrap(), count: 1 };
        for &order in orders() {
            let (most, less) = (divergence(&pure, order), divergence(&laplace, order));
            assert!(less <= most + 1e-15 && most <= epsilon, "{epsilon} {order}: {less} {most}");
            assert!(most <= 0.5 * order * epsilon * epsilon + 1e-15, "pure epsilon-DP is epsilon^2/2-zCDP");
        }
        assert!(divergence(&pure, 1024.0) > 0.98 * epsilon || epsilon < 0.1);
    }
}

#[test]
fn nothing_released_costs_nothing() {
    assert_eq!(RdpCurve::of(&dp_sgd(0.5, 1e-160, 0)), RdpCurve::zero());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn divergence_grows_with_rate_and_order_and_falls_with_noise(
        q in 1e-5..0.9_f64, sigma in 0.4..8.0_f64, index in 0_usize..150,
    ) {
        let order = orders()[index];
        let base = divergence(&dp_sgd(q, sigma, 1), order);
        prop_assert!(base.is_finite());
        let slack = 1e-12 * base + 1e-14;
        prop_assert!(divergence(&dp_sgd(q * 1.1, sigma, 1), order) >= base - slack);
        prop_assert!(divergence(&dp_sgd(q, sigma * 1.1, 1), order) <= base + slack);
        prop_assert!(divergence(&dp_sgd(q, sigma, 1), orders()[index + 1]) >= base - slack);
        prop_assert!(base <= divergence(&dp_sgd(1.0, sigma, 1), order) + slack);
    }

    #[test]
    fn delta_undoes_epsilon(q in 1e-4..0.5_f64, sigma in 0.6..4.0_f64, steps in 1_u64..5000, log in -14.0..-2.0_f64) {
        let curve = RdpCurve::of(&dp_sgd(q, sigma, steps));
        let delta = Delta::new(log.exp()).unwrap();
        let (epsilon, _) = curve.epsilon(delta).unwrap();
        prop_assume!(epsilon.get() > 0.0);
        let back = curve.delta(epsilon).get();
        prop_assert!((back / delta.get() - 1.0).abs() < 1e-6, "{back} {delta}");
    }
}
