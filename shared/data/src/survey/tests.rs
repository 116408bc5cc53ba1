//! Exactness, order and refusal of surveys.

use crate::dataset::{Column, Reading, Records, Values};
use crate::{ColumnSurvey, Dataset, InputSurvey, Levels, Schema, Split, Sums, Survey, survey};
use proptest::prelude::*;

type Row = (f64, Option<u8>, u8, bool);

fn table(rows: &[Row]) -> Dataset {
    let numbers = rows.iter().map(|row| if row.1.is_some() { row.0 } else { f64::NAN }).collect();
    let names =
        Levels::new(rows.iter().map(|row| Some(row.1.map_or(String::new(), |n| format!("n{}", n % 5)))));
    let missing = names.names().iter().map(String::is_empty).collect();
    Dataset {
        records: Records::Table(vec![
            Column {
                name: "v".into(),
                cells: Levels::new(rows.iter().map(|row| Some(row.0.to_string()))),
                reading: Reading::Number(numbers),
            },
            Column { name: "c".into(), cells: names, reading: Reading::Name(missing) },
        ]),
        labels: Levels::new(rows.iter().map(|row| Some((row.2 % 3).to_string()))),
        split: rows.iter().map(|row| if row.3 { Split::Test } else { Split::Train }).collect(),
        sites: None,
    }
}

fn schema() -> Schema {
    Schema { numeric: vec!["v".into()], categorical: vec!["c".into()], ..Schema::default() }
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    proptest::collection::vec((-1e6..1e6, any::<Option<u8>>(), any::<u8>(), any::<bool>()), 1..60)
}

proptest! {
    #[test]
    fn any_split_of_the_rows_merged_in_any_order_gives_the_same_bytes(rows in rows(), sites in 1..8_usize, turn in any::<usize>()) {
        let data = table(&rows);
        let whole = serde_json::to_string(&survey(&data, &schema(), true).unwrap()).unwrap();
        let mut parts: Vec<Survey> = (0..sites)
            .map(|site| (0..rows.len()).filter(|row| row.wrapping_mul(7).wrapping_add(turn) % sites == site).collect::<Vec<_>>())
            .map(|rows| survey(&data.subset(&rows), &schema(), true).unwrap())
            .collect();
        parts.rotate_left(turn % sites);
        let mut merged = parts[0].clone();
        for part in &parts[1..] {
            merged.merge(part).unwrap();
        }
        merged.check().unwrap();
        prop_assert_eq!(serde_json::to_string(&merged).unwrap(), whole.clone());
        prop_assert_eq!(serde_json::from_str::<Survey>(&whole).unwrap(), merged);
    }

    #[test]
    fn moments_agree_with_the_textbook_in_floating_point(values in proptest::collection::vec(-1e3..1e3_f64, 2..200)) {
        let mut sums = Sums::default();
        for &v in &values {
            sums.add(v).unwrap();
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        let (m, s) = sums.moments(values.len() as u64).unwrap();
        prop_assert!((m - mean).abs() < 2e-6 && (s - std).abs() < 2e-6, "{m} {mean} {s} {std}");
    }
}

#[test]
fn a_far_mean_does_not_drown_a_small_deviation() {
    let mut sums = Sums::default();
    for v in [1e9, 1e9 + 1.0, 1e9 + 2.0] {
        sums.add(v).unwrap();
    }
    let (mean, std) = sums.moments(3).unwrap();
    assert!(
        (mean - (1e9 + 1.0)).abs() < 1e-6 && (std - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12,
        "{mean} {std}"
    );
    assert!(sums.add(1e12).is_err() && sums.add(f64::NAN).is_err() && sums.add(f64::INFINITY).is_err());
}

#[test]
fn integers_travel_as_canonical_decimal_strings() {
    let sums = Sums { sum: -5, squares: 1 << 100 };
    let json = serde_json::to_string(&sums).unwrap();
    assert_eq!(json, "{\"sum\":\"-5\",\"squares\":\"1267650600228229401496703205376\"}");
    assert_eq!(serde_json::from_str::<Sums>(&json).unwrap(), sums);
    for bad in ["\"+5\"", "\"05\"", "5", "\"x\"", "\"999999999999999999999999999999999999999999\""] {
        assert!(
            serde_json::from_str::<Sums>(&format!("{{\"sum\":{bad},\"squares\":\"0\"}}")).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn impossible_surveys_are_refused() {
    let rows = [(1.0, Some(1), 0, false), (2.0, Some(2), 1, false), (3.0, None, 2, true)];
    let honest = survey(&table(&rows), &schema(), true).unwrap();
    assert_eq!((honest.rows_train, honest.rows_test, honest.classes["2"]), (2, 1, 0));
    let refused = |change: &dyn Fn(&mut Survey)| {
        let mut survey = honest.clone();
        change(&mut survey);
        survey.check().unwrap_err().to_string()
    };
    assert!(refused(&|s| s.rows_train = 3).contains("add up"));
    assert!(refused(&|s| *s.classes.get_mut("0").unwrap() = u64::MAX).contains("add up"));
    assert!(refused(&|s| s.rows_test = u64::MAX).contains("rows"));
    assert!(refused(&|s| s.classes.extend([("x\n".into(), 0)])).contains("control"));
    assert!(refused(&|s| s.classes.extend([("x".repeat(257), 0)])).contains("longer"));
    assert!(refused(&|s| s.classes.extend([(String::new(), 0)])).contains("empty"));
    let column = |s: &mut Survey, change: &dyn Fn(&mut u64, &mut Sums)| {
        if let InputSurvey::Table { columns } = &mut s.inputs
            && let ColumnSurvey::Numeric { count, sums: Some(sums), .. } = &mut columns[0]
        {
            change(count, sums);
        }
    };
    assert!(refused(&|s| column(s, &|count, _| *count = 3)).contains("impossible"));
    assert!(refused(&|s| column(s, &|_, sums| sums.squares = -1)).contains("impossible"));
    assert!(refused(&|s| column(s, &|_, sums| sums.sum = i128::MAX)).contains("impossible"));
    assert!(
        refused(&|s| s.inputs = InputSurvey::Dense { dim: usize::MAX, sums: None }).contains("values a row")
    );
    assert!(refused(&|s| s.inputs = InputSurvey::Dense { dim: 2, sums: Some(vec![]) }).contains("sums of 0"));
}

#[test]
fn surveys_that_do_not_fit_leave_the_first_unchanged() {
    let rows = [(1.0, Some(1), 0, false)];
    let mut first = survey(&table(&rows), &schema(), true).unwrap();
    let before = first.clone();
    let mut other = first.clone();
    other.inputs = InputSurvey::Text;
    assert!(first.merge(&other).is_err());
    let narrower = Schema { categorical: vec![], ..schema() };
    assert!(first.merge(&survey(&table(&rows), &narrower, true).unwrap()).is_err());
    let mut huge = before.clone();
    huge.rows_train = u64::MAX;
    assert!(first.merge(&huge).is_err());
    assert_eq!(first, before);
}

#[test]
fn bytes_are_summed_scaled_and_unlabelled_training_rows_refused() {
    let mut data = Dataset {
        records: Records::Dense { dim: 1, values: Values::U8(vec![0, 255]), image: None },
        labels: Levels::new([Some("a"), Some("a")]),
        split: vec![Split::Train; 2],
        sites: None,
    };
    let counted = survey(&data, &Schema::default(), true).unwrap();
    assert_eq!(
        counted.inputs,
        InputSurvey::Dense { dim: 1, sums: Some(vec![Sums { sum: 1 << 20, squares: 1 << 40 }]) }
    );
    data.labels = Levels::new([Some("a"), None]);
    assert!(survey(&data, &Schema::default(), true).unwrap_err().to_string().contains("row 2"));
}
