use super::super::{AuditError, OneRun, epsilon_lower_bound, p_value};
use crate::{Delta, Epsilon, dpsgd::NoiseStream};

const REFERENCE: &str = include_str!("../../../tests/data/audit_one_run.csv");

#[test]
fn bounds_and_p_values_agree_with_the_reference() {
    let mut rows = csv::Reader::from_reader(REFERENCE.as_bytes());
    let mut seen = 0;
    for row in rows.deserialize() {
        let (m, r, v, delta, p, bound, p_at_1): (u64, u64, u64, f64, f64, f64, f64) = row.unwrap();
        let ours = epsilon_lower_bound(m, r, v, delta, p);
        assert!((ours - bound).abs() < 1e-7, "m {m} r {r} v {v}: {ours} in place of {bound}");
        let ours = p_value(m, r, v, 1.0, delta);
        assert!(
            (ours - p_at_1).abs() < 1e-8 * p_at_1.max(1e-3),
            "m {m} r {r} v {v}: {ours} in place of {p_at_1}"
        );
        seen += 1;
    }
    assert_eq!(seen, 13);
}

#[test]
fn the_p_value_falls_with_right_guesses_and_rises_with_epsilon() {
    for v in 201..400 {
        assert!(p_value(1000, 400, v, 1.0, 1e-5) <= p_value(1000, 400, v - 1, 1.0, 1e-5) + 1e-12);
    }
    for step in 1..50 {
        let epsilon = 0.1 * f64::from(step);
        assert!(p_value(1000, 400, 300, epsilon, 1e-5) >= p_value(1000, 400, 300, epsilon - 0.1, 1e-5));
    }
    assert_eq!(p_value(1000, 400, 0, 1.0, 1e-5), 1.0);
}

#[test]
fn numbers_of_guesses_that_mean_nothing_are_refused() {
    let delta = Delta::new(1e-5).unwrap();
    for guesses in [0, 1, 3, 12] {
        assert_eq!(OneRun::new(10, guesses, delta), Err(AuditError::Guesses { canaries: 10, guesses }));
    }
    let canaries = OneRun::new(10, 4, delta).unwrap().flip(&mut NoiseStream::simulated(1));
    assert_eq!(canaries.judge(&[0.0; 9]), Err(AuditError::Scores { canaries: 10, scores: 9 }));
    let mut scores = [0.0; 10];
    scores[6] = f64::NAN;
    assert_eq!(canaries.judge(&scores), Err(AuditError::NotANumber(6)));
}

#[test]
fn an_oracle_is_caught_and_a_coin_is_not() {
    let audit = OneRun::new(1000, 400, Delta::new(1e-5).unwrap()).unwrap();
    let mut coins = NoiseStream::new().unwrap();
    let canaries = audit.flip(&mut coins);
    let known: Vec<f64> = canaries.included().iter().map(|included| f64::from(u8::from(*included))).collect();
    let found = canaries.judge(&known).unwrap();
    assert_eq!(found.correct, 400);
    // 400 of 400: without delta it would be the q with q^400 = 0.05, so log(q / (1 - q)) = 4.89.
    assert!((found.epsilon_lower - 4.86).abs() < 0.01, "{found:?}");
    assert!(found.refutes(Epsilon::new(4.8).unwrap()) && !found.refutes(Epsilon::new(4.9).unwrap()));
    // Scores that know nothing: other coins.
    let blind: Vec<f64> = (0..1000).map(|_| f64::from(u8::from(coins.coin()))).collect();
    let found = canaries.judge(&blind).unwrap();
    assert!(found.epsilon_lower < 0.5, "{found:?}");
}
