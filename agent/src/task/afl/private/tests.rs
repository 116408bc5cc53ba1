use proptest::prelude::*;
use sheaf_analytic::{FeatureMap, FeatureSpec};
use sheaf_data::{AssetStore, Encoding, Schema, Source};

use super::*;

const SCHEMA: &str = "target = 'y'\nnumeric = ['a', 'b']\n[declared]\nclasses = ['0', '1']\n\
    ranges = { a = [-1, 1], b = [-1, 1] }\n";

fn spec(bias: bool) -> SumsSpec {
    let schema: Schema = toml::from_str(SCHEMA).unwrap();
    let encoding = Encoding::declared(&schema).unwrap().unwrap();
    let features = FeatureSpec {
        input_dim: encoding.input_dim(),
        map: FeatureMap::Identity,
        normalize: Normalize::L2Bounded,
        bits: 14,
        bias,
    };
    SumsSpec { schema, encoding, features, privacy: None }
}

/// Rows of (patient, a, b, class).
fn dataset(rows: &[(u8, f64, f64, u8)]) -> Dataset {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.csv");
    let lines = rows.iter().map(|(patient, a, b, y)| format!("{patient},{a},{b},{y}\n"));
    std::fs::write(&path, format!("p,a,b,y\n{}", lines.collect::<String>())).unwrap();
    let source = Source::Table { path: Some(path), asset: None };
    source.open(&spec(false).schema, &AssetStore::new(folder.path().to_owned(), None)).unwrap()
}

fn sums_of(spec: &SumsSpec, unit: &str, rows: &[(u8, f64, f64, u8)]) -> Vec<i64> {
    exact(spec, unit, &dataset(rows), &|| false).unwrap()
}

fn distance(a: &[i64], b: &[i64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (*a as f64 - *b as f64).powi(2)).sum::<f64>().sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The claim of the module: with one unit fewer the numbers differ by at most what the noise is measured against.
    #[test]
    fn neighbours_differ_by_at_most_the_bound(
        rows in prop::collection::vec((0_u8..4, -5.0_f64..5.0, -5.0_f64..5.0, 0_u8..3), 2..24),
        bias in any::<bool>(),
    ) {
        let spec = spec(bias);
        let bound = sensitivity(&spec);
        let all = sums_of(&spec, "row", &rows);
        prop_assert!(distance(&all, &sums_of(&spec, "row", &rows[1..])) <= bound);
        let patients = sums_of(&spec, "p", &rows);
        let others: Vec<_> = rows.iter().filter(|row| row.0 != rows[0].0).copied().collect();
        if !others.is_empty() {
            prop_assert!(distance(&patients, &sums_of(&spec, "p", &others)) <= bound, "all rows of one patient");
        }
    }
}

#[test]
fn the_bound_is_reached_to_a_thousandth() {
    // A row along one axis has all its weight in one entry of G and one of B.
    let rows = [(0, 1.0, 0.0, 1), (1, 0.2, 0.4, 0)];
    let moved = distance(&sums_of(&spec(false), "row", &rows), &sums_of(&spec(false), "row", &rows[1..]));
    let share = moved / sensitivity(&spec(false));
    assert!(
        (0.999..=1.0).contains(&share),
        "{share}: less would be noise wasted, more would be a broken promise"
    );
}

#[test]
fn a_unit_counts_as_the_mean_of_its_rows_and_unknown_classes_count_nothing() {
    let spec = spec(false);
    let twice = sums_of(&spec, "p", &[(7, 1.0, 0.0, 1), (7, 1.0, 0.0, 1)]);
    assert_eq!(twice, sums_of(&spec, "row", &[(7, 1.0, 0.0, 1)]));
    let unknown = sums_of(&spec, "row", &[(7, 1.0, 0.0, 1), (8, 0.3, 0.4, 2)]);
    assert_eq!(unknown, twice, "class 2 is not declared");
}
