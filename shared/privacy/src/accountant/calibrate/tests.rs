use super::*;

fn ask(epsilon: f64, delta: f64, q: f64, steps: u64) -> Calibration {
    Calibration {
        epsilon: Epsilon::new(epsilon).unwrap(),
        delta: Delta::new(delta).unwrap(),
        rate: Rate::new(q).unwrap(),
        steps,
        records: None,
    }
}

#[test]
fn the_noise_of_reference_rows_is_found_again() {
    for (sigma, q, steps, delta, epsilon) in [
        (1.0, 0.064, 78, 2e-4, 3.0880580533965167),
        (0.6, 0.064, 78, 1e-4, 10.566054952698217),
        (1.5, 0.0256, 391, 5e-6, 1.656883867474449),
        (0.3, 1.0, 1, 1e-5, 19.13076),
    ] {
        let asked = ask(epsilon, delta, q, steps);
        let found = asked.solve().unwrap();
        assert!(found.account.epsilon_pld <= asked.epsilon, "{found:?}");
        assert!(found.account.epsilon_pld.get() > epsilon * (1.0 - 1e-4), "{found:?}");
        assert!((found.sigma.get() / sigma - 1.0).abs() < 1e-4, "{found:?}");
    }
}

#[test]
fn never_above_what_was_asked() {
    for epsilon in [0.01, 0.5, 1.0, 2.0, 4.0, 8.0] {
        for (q, steps) in [(0.01, 500), (0.3, 40), (1.0, 10)] {
            let asked = ask(epsilon, 1e-5, q, steps);
            let found = asked.solve().unwrap();
            assert!(found.account.epsilon_pld <= asked.epsilon, "{found:?}");
            let less = Sigma::new(found.sigma.get() * 0.999).unwrap();
            let spent =
                Composition::from_iter([Event::PoissonGaussian { rate: asked.rate, sigma: less, steps }]);
            assert!(spent.epsilon(asked.delta).unwrap().get() > epsilon, "{found:?} is not the least");
        }
    }
}

/// Two trainings share one noise multiplier: together they cost what was asked, and each alone less.
#[test]
fn several_events_are_noised_for_their_total() {
    let (epsilon, delta) = (Epsilon::new(4.0).unwrap(), Delta::new(1e-5).unwrap());
    let event = |q, sigma, steps| Event::PoissonGaussian { rate: Rate::new(q).unwrap(), sigma, steps };
    let events = |sigma: Sigma| {
        let more = Sigma::new(2.0 * sigma.get())?;
        Ok(Composition::from_iter([event(0.2, sigma, 30), event(0.1, more, 200)]))
    };
    let found = Noise { epsilon, delta, records: Some(1000), events: &events }.solve().unwrap();
    assert!(found.account.epsilon_pld <= epsilon && found.account.epsilon_pld.get() > 4.0 * (1.0 - 1e-4));
    let both = events(found.sigma).unwrap();
    assert_eq!(both.epsilon(delta).unwrap(), found.account.epsilon_pld);
    for event in both.events() {
        let alone = Composition::from_iter([*event]).epsilon(delta).unwrap();
        assert!(alone < epsilon);
    }
    let less = Sigma::new(found.sigma.get() * 0.999).unwrap();
    assert!(events(less).unwrap().epsilon(delta).unwrap() > epsilon);
}

#[test]
fn paper_guarantees_are_refused() {
    let error = ask(50.0, 1e-5, 0.01, 10).solve().unwrap_err();
    assert!(matches!(error, AccountError::NoiseTooSmall { achieved, .. } if achieved < 50.0), "{error}");
    let with_records = |delta, records| Calibration { records: Some(records), ..ask(1.0, delta, 0.1, 100) };
    let error = with_records(1e-3, 1000).solve().unwrap_err();
    assert_eq!(
        error.to_string(),
        "delta 0.001 is not below 1/1000: it allows one record to be published; take 1e-4 or less"
    );
    assert!(with_records(0.99e-3, 1000).solve().is_ok());
    assert!(matches!(ask(0.0, 1e-12, 1.0, 1_000_000).solve(), Err(AccountError::Unreachable { .. })));
    assert!(matches!(ask(1.0, 0.0, 0.1, 100).solve(), Err(AccountError::Unreachable { .. })));
}
