use super::*;
use crate::units::{Rate, Scale, Sigma};

fn dp_sgd(sigma: f64, steps: u64) -> Event {
    Event::PoissonGaussian { rate: Rate::new(0.064).unwrap(), sigma: Sigma::new(sigma).unwrap(), steps }
}

fn delta() -> Delta {
    Delta::new(2e-4).unwrap()
}

#[test]
fn an_account_has_every_estimate_in_order() {
    let account = Composition::from_iter([dp_sgd(1.0, 78)]).account(delta()).unwrap();
    assert!((account.epsilon_rdp.get() - 3.66503).abs() < 1e-4);
    assert!((account.epsilon_pld.get() - 3.08806).abs() < 1e-4);
    assert!((account.epsilon_replace_one.get() - 4.54026).abs() < 1e-4);
    assert!(account.epsilon_pld_lower <= account.epsilon_pld && account.epsilon_pld < account.epsilon_rdp);
    let json = serde_json::to_value(account).unwrap();
    for key in ["delta", "epsilon_rdp", "epsilon_pld", "epsilon_pld_lower", "epsilon_replace_one"] {
        assert!(json[key].is_f64(), "{key}");
    }
}

#[test]
fn curves_compose_to_less_than_the_sum_of_epsilons() {
    let events = [dp_sgd(1.0, 78), Event::Laplace { scale: Scale::new(5.0).unwrap(), count: 10 }];
    let alone: f64 =
        events.iter().map(|event| Composition::from_iter([*event]).epsilon(delta()).unwrap().get()).sum();
    let together = Composition::from_iter(events).epsilon(delta()).unwrap().get();
    assert!(together < 0.9 * alone, "{together} {alone}");
}

#[test]
fn a_release_over_the_cap_is_refused_with_what_would_fit() {
    let cap = Epsilon::new(4.0).unwrap();
    let spent = Composition::from_iter([dp_sgd(1.0, 78)]);
    let small = Event::Gaussian { sigma: Sigma::new(20.0).unwrap(), count: 1 };
    assert!(spent.fits(&small, cap, delta()).unwrap() <= cap);
    let error = spent.fits(&dp_sgd(1.0, 200), cap, delta()).unwrap_err();
    let AccountError::OverCap { asked, spent: already, fits, .. } = error.clone() else { panic!("{error}") };
    assert!(asked > 4.0 && (already - 3.08806).abs() < 1e-4);
    let steps = fits.steps.unwrap();
    assert!(spent.fits(&dp_sgd(1.0, steps), cap, delta()).is_ok(), "{steps}");
    assert!(spent.fits(&dp_sgd(1.0, steps + 1), cap, delta()).is_err(), "{steps}");
    let sigma = fits.sigma.unwrap().get();
    assert!(spent.fits(&dp_sgd(sigma, 200), cap, delta()).is_ok(), "{sigma}");
    assert!(
        error.to_string().contains(&format!("3.0881 of 4.0000 is spent (delta 0.0002); {steps} steps")),
        "{error}"
    );
}
