use super::super::{NoiseCheck, binomial_upper_tail, chi_square_tails};

#[test]
fn binomial_tails_are_exact_where_they_can_be_counted() {
    assert!((binomial_upper_tail(8, 10, 0.5) - 56.0 / 1024.0).abs() < 1e-15);
    assert!((binomial_upper_tail(0, 10, 0.3) - 1.0).abs() < 1e-12);
    assert!((binomial_upper_tail(10, 10, 0.1) / 1e-10 - 1.0).abs() < 1e-10);
    assert_eq!(binomial_upper_tail(11, 10, 0.5), 0.0);
}

/// For an even number of degrees of freedom the upper tail is a Poisson sum.
fn upper_by_poisson(statistic: f64, dof: u64) -> f64 {
    let x = statistic / 2.0;
    (0..dof / 2).map(|k| (k as f64 * x.ln() - x - libm::lgamma(k as f64 + 1.0)).exp()).sum()
}

#[test]
fn chi_square_tails_agree_with_poisson_sums() {
    for dof in [2, 10, 200, 20_000] {
        for z in [-8.0, -4.0, -1.0, 0.0, 1.0, 4.0, 8.0] {
            let statistic = dof as f64 + z * (2.0 * dof as f64).sqrt();
            if statistic <= 0.0 {
                continue;
            }
            let (lower, upper) = chi_square_tails(statistic, dof);
            let expected = upper_by_poisson(statistic, dof);
            assert!(
                (upper - expected).abs() < 1e-9 * expected.max(1e-3),
                "{dof} {z}: {upper:e} {expected:e}"
            );
            assert!((lower + upper - 1.0).abs() < 1e-12);
        }
    }
    // Tables: 5 % points.
    assert!((chi_square_tails(3.841_458_820_694_124, 1).1 - 0.05).abs() < 1e-12);
    assert!((chi_square_tails(11.070_497_693_516_351, 5).1 - 0.05).abs() < 1e-12);
    assert_eq!(chi_square_tails(0.0, 5), (0.0, 1.0));
}

#[test]
fn a_million_numbers_fix_sigma_to_half_a_percent() {
    // A chi-square with 1e6 degrees of freedom has a standard deviation of 1414: 1 % of sigma is 14 of them.
    let check = |ratio: f64| chi_square_tails(1e6 * ratio * ratio, 1_000_000);
    assert!((check(1.0).1 - 0.5).abs() < 1e-3);
    assert!(check(1.005).1 < 1e-6 && check(0.995).0 < 1e-6);
    assert!(check(1.001).1 > 1e-6 && check(0.999).0 > 1e-6);
    let endless = chi_square_tails(f64::INFINITY, 10);
    assert_eq!(endless.1, 0.0, "{endless:?}");
    let _: fn(&NoiseCheck) -> bool = NoiseCheck::passes;
}
