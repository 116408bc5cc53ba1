use proptest::prelude::*;

use super::*;
use crate::sample::{BITS, ONE, sums};
use crate::solve;

/// What an AFL client with these rows would send.
fn client(sums: &Sums, gamma: f64) -> ClientUpdate {
    let (dim, classes) = (sums.dim(), sums.classes());
    let unit = 2.0_f64.powi(-(BITS as i32));
    let at = |i: usize, j: usize| sums.gram()[packed_index(dim, i.min(j), i.max(j))] as f64 * unit * unit;
    let corr = Mat::from_fn(dim, dim, |i, j| at(i, j) + if i == j { gamma } else { 0.0 });
    let cross = Mat::from_fn(dim, classes, |i, j| sums.cross()[i * classes + j] as f64 * unit);
    let weight = corr.partial_piv_lu().solve(cross);
    ClientUpdate { dim, classes, weight: finite(&weight, "C").unwrap(), corr: finite(&corr, "C").unwrap() }
}

/// Merges in a random binary tree: `picks` chooses which two are merged next.
fn tree(mut updates: Vec<ClientUpdate>, picks: &[usize]) -> ClientUpdate {
    for pick in picks.iter().cycle() {
        if updates.len() == 1 {
            break;
        }
        let a = updates.swap_remove(pick % updates.len());
        let b = updates.swap_remove(pick / 7 % updates.len());
        updates.push(fold(&[a, b]).unwrap());
    }
    updates.remove(0)
}

fn assert_close(ours: &[f64], expected: &[f64], tolerance: f64) {
    let scale = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    for (x, y) in ours.iter().zip(expected) {
        assert!((x - y).abs() <= tolerance * scale, "{x} and {y}, scale {scale}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// The theorem of the paper: any order, any tree, fewer rows than features at every client.
    #[test]
    fn folding_and_removing_equals_one_solve(
        seed: u64,
        k in 2_usize..=20,
        picks in prop::collection::vec(0_usize..10_000, 25),
        gamma in 0.1_f64..2.0,
        lambda in 0.05_f64..2.0,
    ) {
        let sites: Vec<Sums> = (0..k as u64).map(|i| sums(seed.wrapping_add(i), 10, 24, 4)).collect();
        let mut total = Sums::zero(24, 4, BITS);
        for site in &sites {
            total.add(site).unwrap();
        }
        let expected = solve(&total, lambda).unwrap();
        let updates: Vec<ClientUpdate> = sites.iter().map(|s| client(s, gamma)).collect();
        for merged in [fold(&updates).unwrap(), tree(updates, &picks)] {
            let weight = remove_regularisation(&merged, k, gamma, lambda).unwrap();
            assert_close(&weight, expected.as_slice(), 1e-8);
        }
    }

    #[test]
    fn importing_a_client_gives_its_exact_sums(seed: u64, n in 1_usize..60, gamma in 0.01_f64..2.0) {
        let sums = sums(seed, n, 12, 3);
        let imported = import(&client(&sums, gamma), gamma, sums.counts(), sums.rows(), BITS).unwrap();
        prop_assert_eq!(&imported, &sums);
        prop_assert_eq!(imported.validate(ONE), Ok(()));
    }
}

#[test]
fn features_off_the_grid_still_import_as_plausible_sums() {
    // One row whose features are no multiples of 2^-14.
    let x = [0.123_456_789_f64, -0.3, 0.000_01, 0.9];
    let corr = (0..16).map(|k| x[k / 4] * x[k % 4] + if k / 4 == k % 4 { 1.0 } else { 0.0 }).collect();
    let update = ClientUpdate { dim: 4, classes: 1, weight: vec![0.1; 4], corr };
    let sums = import(&update, 1.0, &[1], 1, BITS).unwrap();
    sums.validate(ONE).unwrap();
    let expected = (x[0] * x[3] * 2.0_f64.powi(28)).trunc();
    assert_eq!(sums.gram()[3], expected as i64);
}

#[test]
fn impossible_updates_are_refused() {
    let good = client(&sums(1, 20, 3, 2), 1.0);
    let (counts, rows) = (sums(1, 20, 3, 2).counts().to_vec(), 20);
    let refused = |change: &dyn Fn(&mut ClientUpdate)| {
        let mut bad = good.clone();
        change(&mut bad);
        import(&bad, 1.0, &counts, rows, BITS).unwrap_err()
    };
    assert!(matches!(refused(&|u| u.corr[1] += 1e-3), AnalyticError::NotSymmetric { row: 0, column: 1 }));
    assert!(matches!(refused(&|u| u.corr[4] = -5.0), AnalyticError::Diagonal { index: 1, .. }));
    assert!(matches!(refused(&|u| u.corr[0] = f64::NAN), AnalyticError::NotFinite { .. }));
    assert!(matches!(refused(&|u| u.weight[0] = f64::INFINITY), AnalyticError::NotFinite { .. }));
    assert!(matches!(refused(&|u| u.weight[0] = 1e300), AnalyticError::Overflow { what: "cross" }));
    assert!(matches!(
        refused(&|u| (u.corr[1], u.corr[3]) = (1e3, 1e3)),
        AnalyticError::OffDiagonal { row: 0, column: 1, .. }
    ));
    assert!(matches!(refused(&|u| _ = u.corr.pop()), AnalyticError::Length { what: "corr", .. }));
    assert!(matches!(import(&good, 1.0, &[1, 1], 3, BITS), Err(AnalyticError::Counts { .. })));
    assert!(matches!(import(&good, -1.0, &counts, rows, BITS), Err(AnalyticError::Ridge { .. })));
    assert_eq!(fold(&[]), Err(AnalyticError::NoUpdates));
    assert!(matches!(
        fold(&[good.clone(), client(&sums(1, 20, 4, 2), 1.0)]),
        Err(AnalyticError::Shape { what: "dim", .. })
    ));
    assert_eq!(remove_regularisation(&good, 0, 1.0, 1.0), Err(AnalyticError::NoUpdates));
    let singular = ClientUpdate { corr: vec![0.0; 9], ..good.clone() };
    assert!(matches!(fold(&[singular.clone(), singular]), Err(AnalyticError::Singular { .. })));
}
