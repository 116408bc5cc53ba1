use proptest::prelude::*;

use super::*;
use crate::units::{Rate, Scale, Sigma};

fn dp_sgd(q: f64, sigma: f64, steps: u64) -> Event {
    Event::PoissonGaussian { rate: Rate::new(q).unwrap(), sigma: Sigma::new(sigma).unwrap(), steps }
}

fn gaussian(sigma: f64, count: u64) -> Event {
    Event::Gaussian { sigma: Sigma::new(sigma).unwrap(), count }
}

fn laplace(scale: f64, count: u64) -> Event {
    Event::Laplace { scale: Scale::new(scale).unwrap(), count }
}

fn pure(epsilon: f64) -> Event {
    Event::Pure { epsilon: Epsilon::new(epsilon).unwrap() }
}

fn deltas(events: &[Event], adjacency: Adjacency, epsilon: f64) -> (f64, f64) {
    let at = |estimate| Pld::of(events, adjacency, estimate).delta(Epsilon::new(epsilon).unwrap()).get();
    (at(Estimate::Optimistic), at(Estimate::Pessimistic))
}

/// The truth lies between both estimates, and they are `close` (relative) to it.
fn assert_holds(events: &[Event], adjacency: Adjacency, epsilon: f64, truth: f64, rounding: f64, close: f64) {
    let (low, high) = deltas(events, adjacency, epsilon);
    assert!(
        low <= truth + rounding && truth <= high + rounding,
        "{events:?} {epsilon}: {low:e} {truth:e} {high:e}"
    );
    assert!((high - low) <= close * truth + rounding, "{events:?} {epsilon}: {low:e} {truth:e} {high:e}");
}

/// `delta(epsilon)` of the Gaussian mechanism: Balle and Wang 2018 (arXiv 1805.06530), theorem 8.
fn closed_form(mu: f64, epsilon: f64) -> f64 {
    use crate::accountant::normal::upper;
    upper(epsilon / mu - 0.5 * mu) - epsilon.exp() * upper(epsilon / mu + 0.5 * mu)
}

#[test]
fn gaussians_have_their_closed_form() {
    for (sigma, count) in [(0.3, 1), (1.0, 1), (50.0, 1000), (3.0, 40), (1000.0, 1)] {
        let mu = (count as f64).sqrt() / sigma;
        for epsilon in [0.0, 0.1 * mu, mu, 3.0 * mu] {
            assert_holds(
                &[gaussian(sigma, count)],
                Adjacency::AddRemove,
                epsilon,
                closed_form(mu, epsilon),
                1e-13,
                1e-5,
            );
            assert_holds(
                &[gaussian(2.0 * sigma, count), dp_sgd(1.0, 2.0 * sigma, 3 * count)],
                Adjacency::AddRemove,
                epsilon,
                closed_form(mu, epsilon),
                1e-13,
                1e-5,
            );
            assert_holds(
                &[gaussian(2.0 * sigma, count)],
                Adjacency::ReplaceOne,
                epsilon,
                closed_form(mu, epsilon),
                1e-13,
                1e-5,
            );
        }
    }
}

#[test]
fn convolution_reaches_the_closed_form_too() {
    // So close to no sampling that nothing but the code path differs.
    for (sigma, steps) in [(4.0, 16_u64), (50.0, 1000)] {
        let mu = (steps as f64).sqrt() / sigma;
        for epsilon in [0.5, 1.0, 3.0] {
            let events = [dp_sgd(1.0 - 1e-13, sigma, steps)];
            assert_holds(&events, Adjacency::AddRemove, epsilon, closed_form(mu, epsilon), 1e-12, 1e-3);
            assert_holds(
                &events,
                Adjacency::ReplaceOne,
                epsilon,
                closed_form(2.0 * mu, epsilon),
                1e-12,
                1e-4,
            );
        }
    }
}

/// Two steps, by adding up `(P - e^epsilon Q)+` over a fine lattice of outcomes.
fn two_steps(q: f64, sigma: f64, epsilon: f64, pair: impl Fn(f64) -> (f64, f64)) -> f64 {
    assert!(q > 0.0);
    let (reach, count) = (9.0 * sigma + 1.0, 2400);
    let width = 2.0 * reach / f64::from(count);
    let densities: Vec<(f64, f64)> =
        (0..count).map(|i| pair(-reach + (f64::from(i) + 0.5) * width)).collect();
    let growth = epsilon.exp();
    let row = |&(p, q): &(f64, f64)| {
        densities.iter().map(|&(p2, q2)| (p * p2 - growth * q * q2).max(0.0)).sum::<f64>()
    };
    densities.iter().map(row).sum::<f64>() * width * width
}

#[test]
fn two_steps_match_the_double_integral() {
    let (q, sigma) = (0.2, 0.9);
    let normal = |x: f64, mean: f64| {
        (-0.5 * ((x - mean) / sigma).powi(2)).exp() / (sigma * (2.0 * std::f64::consts::PI).sqrt())
    };
    let mixed = |x: f64, mean: f64| (1.0 - q) * normal(x, 0.0) + q * normal(x, mean);
    for epsilon in [0.0, 0.3, 1.0, 2.5] {
        let remove = two_steps(q, sigma, epsilon, |x| (mixed(x, 1.0), normal(x, 0.0)));
        let add = two_steps(q, sigma, epsilon, |x| (normal(x, 0.0), mixed(x, 1.0)));
        let truth = remove.max(add);
        assert_holds(&[dp_sgd(q, sigma, 2)], Adjacency::AddRemove, epsilon, truth, 2e-5 * truth, 1e-4);
        let truth = two_steps(q, sigma, epsilon, |x| (mixed(x, 1.0), mixed(x, -1.0)));
        assert_holds(&[dp_sgd(q, sigma, 2)], Adjacency::ReplaceOne, epsilon, truth, 2e-5 * truth, 1e-4);
    }
}

#[test]
fn one_laplace_release_has_its_closed_form() {
    for scale in [0.5_f64, 1.0, 7.0] {
        for epsilon in [0.0, 0.3 / scale, 0.9 / scale] {
            let truth = -(0.5 * (epsilon - 1.0 / scale)).exp_m1();
            assert_holds(&[laplace(scale, 1)], Adjacency::AddRemove, epsilon, truth, 1e-13, 1e-3);
            assert_holds(&[laplace(2.0 * scale, 1)], Adjacency::ReplaceOne, epsilon, truth, 1e-13, 1e-3);
        }
    }
}

#[test]
fn pure_mechanisms_compose_optimally() {
    // Kairouz, Oh, Viswanath 2015 (arXiv 1311.0776), theorem 3.3: k equal ones, by the binomial law.
    let (k, epsilon) = (10_i32, 0.2_f64);
    let truth = (1.0 + epsilon.exp()).ln();
    let mut binomial = 1.0;
    let mut terms = Vec::new();
    for i in 0..=k {
        terms.push((
            binomial * (f64::from(k - i) * epsilon - f64::from(k) * truth).exp(),
            f64::from(k - 2 * i) * epsilon,
        ));
        binomial *= f64::from(k - i) / f64::from(i + 1);
    }
    for at in [0.0, 0.35, 0.8, 1.3] {
        let delta: f64 = terms.iter().map(|&(mass, loss)| mass * (1.0 - (at - loss).exp()).max(0.0)).sum();
        assert_holds(&vec![pure(epsilon); 10], Adjacency::AddRemove, at, delta, 1e-12, 1e-2);
        assert_holds(&vec![pure(0.5 * epsilon); 10], Adjacency::ReplaceOne, at, delta, 1e-12, 1e-2);
    }
}

#[test]
fn pure_epsilon_holds_with_no_delta_at_all() {
    let none = Delta::new(0.0).unwrap();
    let pld = Pld::of(&[pure(1.0)], Adjacency::AddRemove, Estimate::Pessimistic);
    let epsilon = pld.epsilon(none).unwrap().get();
    assert!((1.0..1.0002).contains(&epsilon), "{epsilon}");
    let pld = Pld::of(&[gaussian(1.0, 1)], Adjacency::AddRemove, Estimate::Pessimistic);
    assert_eq!(pld.epsilon(none), Err(AccountError::Unbounded { delta: none }));
}

#[test]
fn nothing_released_costs_nothing() {
    for events in [vec![], vec![dp_sgd(0.1, 1.0, 0), gaussian(1.0, 0)], vec![pure(0.0)]] {
        for estimate in [Estimate::Pessimistic, Estimate::Optimistic] {
            let pld = Pld::of(&events, Adjacency::AddRemove, estimate);
            assert_eq!(pld.epsilon(Delta::new(1e-9).unwrap()).unwrap().get(), 0.0, "{events:?}");
            assert_eq!(pld.delta(Epsilon::new(0.1).unwrap()).get(), 0.0);
        }
    }
}

#[test]
fn extremes_neither_panic_nor_flatter() {
    let delta = Delta::new(1e-6).unwrap();
    for event in [
        dp_sgd(0.5, 0.01, 3),
        dp_sgd(1.0, 1e-3, 1),
        dp_sgd(1e-9, 0.3, 1_000_000),
        dp_sgd(0.3, 1e6, 10),
        dp_sgd(f64::MIN_POSITIVE, 1.0, 2),
        laplace(1e-3, 5),
        laplace(1e9, 5),
        pure(400.0),
    ] {
        let [low, high] = [Estimate::Optimistic, Estimate::Pessimistic]
            .map(|estimate| Pld::of(&[event], Adjacency::AddRemove, estimate).epsilon(delta).unwrap().get());
        assert!(low <= high, "{event:?}: {low} {high}");
        if let (Ok((rdp, _)), true) = (super::super::RdpCurve::of(&event).epsilon(delta), high > 1e-3) {
            assert!(high <= rdp.get() * 1.02, "{event:?}: {high} {rdp}");
        }
    }
}

#[test]
fn the_order_of_events_does_not_matter() {
    let events =
        [dp_sgd(0.05, 1.0, 60), gaussian(5.0, 2), laplace(10.0, 3), pure(0.2), dp_sgd(0.05, 1.0, 18)];
    let mut reversed = events;
    reversed.reverse();
    let at = |events: &[Event]| {
        Pld::of(events, Adjacency::AddRemove, Estimate::Pessimistic)
            .epsilon(Delta::new(1e-5).unwrap())
            .unwrap()
            .get()
    };
    let (one, other) = (at(&events), at(&reversed));
    assert!((one - other).abs() < 1e-9 * one, "{one} {other}");
    assert!(at(&events[..4]) < one);
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1e-4..1.0_f64, 0.5..5.0_f64, 1_u64..200).prop_map(|(q, sigma, steps)| dp_sgd(q, sigma, steps)),
        (1.0..20.0_f64, 1_u64..5).prop_map(|(sigma, count)| gaussian(sigma, count)),
        (2.0..50.0_f64, 1_u64..5).prop_map(|(scale, count)| laplace(scale, count)),
        (0.0..1.0_f64).prop_map(pure),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn estimates_are_ordered_and_grow(events in proptest::collection::vec(any_event(), 1..4), more in any_event()) {
        let delta = Delta::new(1e-6).unwrap();
        let at = |events: &[Event], adjacency, estimate| {
            Pld::of(events, adjacency, estimate).epsilon(delta).unwrap().get()
        };
        let high = at(&events, Adjacency::AddRemove, Estimate::Pessimistic);
        let low = at(&events, Adjacency::AddRemove, Estimate::Optimistic);
        prop_assert!(low <= high, "{low} {high}");
        let replaced = at(&events, Adjacency::ReplaceOne, Estimate::Pessimistic);
        prop_assert!(low <= replaced, "{low} {replaced}");
        let longer: Vec<Event> = events.iter().copied().chain([more]).collect();
        prop_assert!(at(&longer, Adjacency::AddRemove, Estimate::Pessimistic) >= low);
        let mut rdp = super::super::RdpCurve::zero();
        for event in &events {
            rdp.add(&super::super::RdpCurve::of(event));
        }
        let (rdp, _) = rdp.epsilon(delta).unwrap();
        prop_assert!(low <= rdp.get() + 1e-9, "{low} {rdp}");
    }
}
