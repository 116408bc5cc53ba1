use proptest::prelude::*;

use super::*;
use crate::{
    accountant::Composition,
    units::{Rate, Scale, Sigma},
};

fn dp_sgd(q: f64, sigma: f64, steps: u64) -> Event {
    Event::PoissonGaussian { rate: Rate::new(q).unwrap(), sigma: Sigma::new(sigma).unwrap(), steps }
}

fn filter(cap: f64) -> Filter {
    Filter::new(Epsilon::new(cap).unwrap(), Delta::new(1e-5).unwrap()).unwrap()
}

#[test]
fn the_last_step_that_fits_is_the_last_allowed() {
    let mut filter = filter(4.0);
    let mut steps = 0;
    let refused = loop {
        match filter.charge(&dp_sgd(0.032, 1.0, 1)) {
            Ok(_) => steps += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, AccountError::OverCap { asked, spent, .. } if spent <= 4.0 && asked > 4.0),
        "{refused}"
    );
    // A refusal changes nothing, and one event with all steps is the same as the steps one by one.
    assert_eq!(filter.charge(&dp_sgd(0.032, 1.0, 1)), Err(refused));
    assert!(super::tests::filter(4.0).check(&dp_sgd(0.032, 1.0, steps)).is_ok());
    let error = super::tests::filter(4.0).check(&dp_sgd(0.032, 1.0, steps + 1)).unwrap_err();
    let AccountError::OverCap { fits, .. } = error else { panic!("{error}") };
    assert_eq!(fits.steps, Some(steps));
    let sigma = fits.sigma.unwrap().get();
    assert!(super::tests::filter(4.0).check(&dp_sgd(0.032, sigma, steps + 1)).is_ok(), "{sigma}");
}

#[test]
fn freedom_costs_steps_but_leaves_a_quarter() {
    // Steps that the filter allows beside those of the Rényi accountant, whose parameters are fixed beforehand.
    for (cap, q, sigma) in
        [(2.0, 0.01, 1.0), (4.0, 0.032, 1.0), (4.0, 0.064, 0.8), (8.0, 0.1, 1.0), (4.0, 1.0, 20.0)]
    {
        let delta = Delta::new(1e-5).unwrap();
        let most = |fits: &dyn Fn(&Event) -> bool| {
            let fits = |steps: &u64| fits(&dp_sgd(q, sigma, *steps));
            assert!(fits(&1));
            let (mut least, mut most) = (1, 1_000_000);
            while least + 1 < most {
                let middle = u64::midpoint(least, most);
                if fits(&middle) { least = middle } else { most = middle }
            }
            least
        };
        let filtered = most(&|event| filter(cap).check(event).is_ok());
        let fixed = most(&|event| {
            Composition::from_iter([*event])
                .rdp()
                .epsilon(delta)
                .is_ok_and(|(epsilon, _)| epsilon.get() <= cap)
        });
        println!("cap {cap} q {q} sigma {sigma}: {filtered} of {fixed} steps");
        assert!(filtered <= fixed);
        assert!(filtered as f64 > 0.25 * fixed as f64, "{cap} {q} {sigma}: {filtered} of {fixed}");
    }
}

#[test]
fn what_happened_is_recorded_even_over_the_cap() {
    let mut filter = filter(1.0);
    assert_eq!(filter.spent(), 0.0);
    filter.record(&dp_sgd(0.1, 0.7, 500));
    assert!(filter.spent() > 1.0);
    let error = filter.charge(&Event::Pure { epsilon: Epsilon::new(1e-6).unwrap() }).unwrap_err();
    assert!(error.to_string().ends_with("nothing of this kind fits any more"), "{error}");
    let free = Event::Gaussian { sigma: Sigma::new(1.0).unwrap(), count: 0 };
    assert!(filter.check(&free).is_err(), "over the cap is over the cap");
}

#[test]
fn a_delta_of_zero_is_refused() {
    let none = Delta::new(0.0).unwrap();
    assert!(Filter::new(Epsilon::new(1.0).unwrap(), none).is_err() && Odometer::new(none).is_err());
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1e-3..0.3_f64, 0.6..4.0_f64, 1_u64..300).prop_map(|(q, sigma, steps)| dp_sgd(q, sigma, steps)),
        (1.0..20.0_f64).prop_map(|sigma| Event::Gaussian { sigma: Sigma::new(sigma).unwrap(), count: 1 }),
        (2.0..50.0_f64).prop_map(|scale| Event::Laplace { scale: Scale::new(scale).unwrap(), count: 2 }),
        (0.0..0.3_f64).prop_map(|epsilon| Event::Pure { epsilon: Epsilon::new(epsilon).unwrap() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_list_of_charges_passes_the_cap(cap in 0.1..10.0_f64, events in proptest::collection::vec(any_event(), 1..20)) {
        let mut filter = filter(cap);
        let mut charged = Composition::new();
        for event in &events {
            let before = filter.clone();
            if filter.charge(event).is_ok() {
                charged.push(*event);
            } else {
                prop_assert_eq!(&filter, &before);
            }
        }
        prop_assert!(filter.spent() <= cap);
        let fixed = charged.rdp().epsilon(Delta::new(1e-5).unwrap()).unwrap().0.get();
        prop_assert!(fixed <= filter.spent() + 1e-9 || charged.events().is_empty(), "{} {}", fixed, filter.spent());
    }

    #[test]
    fn an_odometer_only_rises_and_is_no_lower_than_rdp(events in proptest::collection::vec(any_event(), 1..10)) {
        let delta = Delta::new(1e-5).unwrap();
        let mut odometer = Odometer::new(delta).unwrap();
        prop_assert_eq!(odometer.reading().unwrap().get(), 0.0);
        let mut all = Composition::new();
        let mut last = 0.0;
        for event in events {
            odometer.record(&event);
            all.push(event);
            let reading = odometer.reading().unwrap().get();
            prop_assert!(reading >= last);
            prop_assert!(reading >= all.rdp().epsilon(delta).unwrap().0.get());
            last = reading;
        }
    }
}
