//! Every row once, seeded, and the two traps of label skew.

use super::{Partition, SiteRows, partition, random::Random, slug};
use crate::dataset::{Records, Values};
use crate::{Dataset, Levels, Schema, Split};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn data(rows: usize, classes: usize, test_every: usize) -> Dataset {
    Dataset {
        records: Records::Dense { dim: 1, values: Values::U8(vec![0; rows]), image: None },
        labels: Levels::new((0..rows).map(|row| Some((row * 7 % classes).to_string()))),
        split: (0..rows)
            .map(|row| if (row + 1) % test_every == 0 { Split::Test } else { Split::Train })
            .collect(),
        sites: Some(Levels::new((0..rows).map(|row| Some(["VA Long Beach", "Cleveland"][row % 2])))),
    }
}

fn cut(data: &Dataset, kind: &Partition, central: bool) -> Vec<SiteRows> {
    partition(data, &Schema::default(), kind, central).unwrap()
}

fn each_once(sites: &[SiteRows], expected: usize) {
    let rows: Vec<usize> = sites.iter().flat_map(|site| site.rows.iter().copied()).collect();
    assert_eq!(rows.len(), expected);
    assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), expected);
}

fn kinds() -> impl Strategy<Value = Partition> {
    prop_oneof![
        Just(Partition::Column { column: None }),
        (1..20_usize, any::<u64>()).prop_map(|(sites, seed)| Partition::Iid { sites, seed }),
        (1..20_usize, 0.001..10.0, any::<u64>(), 0..4_usize).prop_map(|(sites, alpha, seed, min_rows)| {
            Partition::Dirichlet { sites, alpha, seed, min_rows }
        }),
        (1..20_usize, 1..4_usize, any::<u64>()).prop_map(|(sites, shards, seed)| Partition::Shards {
            sites,
            shards,
            seed
        }),
    ]
}

proptest! {
    #[test]
    fn every_row_is_at_exactly_one_site_and_the_seed_decides(kind in kinds(), rows in 90..200_usize, classes in 1..12_usize, central in any::<bool>()) {
        let data = data(rows, classes, 5);
        let sites = cut(&data, &kind, central);
        each_once(&sites, if central { data.rows(Split::Train).len() } else { rows });
        prop_assert_eq!(&sites, &cut(&data, &kind, central));
        for site in &sites {
            prop_assert!(site.rows.is_sorted());
            let train = site.rows.iter().filter(|&&row| data.split()[row] == Split::Train).count();
            let least = if let Partition::Dirichlet { min_rows, .. } = kind { min_rows.max(1) } else { 1 };
            prop_assert!(train >= least, "{} has {} training rows", site.name, train);
        }
    }
}

#[test]
fn a_thousand_sites_at_alpha_0_005_end_at_once() {
    let data = data(5_000, 10, 10);
    let sites = cut(&data, &Partition::Dirichlet { sites: 1000, alpha: 0.005, seed: 3, min_rows: 1 }, false);
    each_once(&sites, 5_000);
    assert_eq!(
        (sites.len(), sites[0].name.as_str(), sites[999].name.as_str()),
        (1000, "site-0001", "site-1000")
    );
    assert!(sites.iter().all(|site| !site.rows.is_empty()));
}

#[test]
fn small_alpha_skews_large_alpha_does_not() {
    let data = data(10_000, 10, 1_000_000);
    let spread = |alpha| {
        let sites = cut(&data, &Partition::Dirichlet { sites: 10, alpha, seed: 1, min_rows: 1 }, true);
        let classes = |site: &SiteRows| {
            site.rows.iter().filter_map(|&row| data.labels().code(row)).collect::<BTreeSet<_>>().len()
        };
        sites.iter().map(classes).sum::<usize>()
    };
    assert!(spread(0.01) < 45, "{}", spread(0.01));
    assert_eq!(spread(100.0), 100);
}

#[test]
fn shards_bound_the_classes_of_a_site() {
    let data = data(10_000, 10, 1_000_000);
    for site in cut(&data, &Partition::Shards { sites: 100, shards: 2, seed: 9 }, true) {
        let classes: BTreeSet<_> = site.rows.iter().filter_map(|&row| data.labels().code(row)).collect();
        assert!(site.rows.len() == 100 && classes.len() <= 4, "{} {}", site.rows.len(), classes.len());
    }
}

#[test]
fn sites_of_a_column_are_named_after_it() {
    let sites = cut(&data(10, 2, 5), &Partition::Column { column: None }, false);
    assert_eq!(
        sites.iter().map(|site| site.name.as_str()).collect::<Vec<_>>(),
        ["cleveland", "va-long-beach"]
    );
    assert_eq!(sites[1].rows, [0, 2, 4, 6, 8]);
    assert_eq!(slug("  Zürich  (HB)--2 "), "z-rich-hb-2");
    let mut clash = data(2, 1, 9);
    clash.sites = Some(Levels::new([Some("a b"), Some("A-B")]));
    assert!(partition(&clash, &Schema::default(), &Partition::Column { column: None }, false).is_err());
    clash.sites = Some(Levels::new([Some("a"), None]));
    assert!(partition(&clash, &Schema::default(), &Partition::Column { column: None }, false).is_err());
    clash.sites = None;
    assert!(partition(&clash, &Schema::default(), &Partition::Column { column: None }, false).is_err());
}

#[test]
fn what_cannot_be_is_said() {
    let data = data(20, 2, 5);
    for kind in [
        Partition::Iid { sites: 0, seed: 0 },
        Partition::Iid { sites: 17, seed: 0 },
        Partition::Dirichlet { sites: 4, alpha: 0.0, seed: 0, min_rows: 1 },
        Partition::Dirichlet { sites: 4, alpha: f64::NAN, seed: 0, min_rows: 1 },
        Partition::Dirichlet { sites: 4, alpha: 0.1, seed: 0, min_rows: 5 },
        Partition::Dirichlet { sites: 4, alpha: 0.1, seed: 0, min_rows: usize::MAX },
        Partition::Shards { sites: 4, shards: 0, seed: 0 },
        Partition::Shards { sites: 4, shards: 5, seed: 0 },
    ] {
        assert!(partition(&data, &Schema::default(), &kind, false).is_err(), "{kind:?}");
    }
    let parsed: Partition = toml::from_str("kind = 'dirichlet'\nsites = 3\nalpha = 0.1\nseed = 1").unwrap();
    assert_eq!(parsed, Partition::Dirichlet { sites: 3, alpha: 0.1, seed: 1, min_rows: 1 });
}

#[test]
fn gamma_draws_have_the_right_mean_and_variance() {
    let mut random = Random::new("test", 1);
    for shape in [0.5, 2.5] {
        let draws: Vec<f64> = (0..50_000).map(|_| random.ln_gamma(shape).exp()).collect();
        let mean = draws.iter().sum::<f64>() / 5e4;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 5e4;
        assert!(
            (mean / shape - 1.0).abs() < 0.05 && (variance / shape - 1.0).abs() < 0.1,
            "{shape}: {mean} {variance}"
        );
    }
}
