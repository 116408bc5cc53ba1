//! What rows become, by hand-checked values.

use crate::dataset::{Column, Reading, Records, Text, Values};
use crate::{Dataset, Encoding, Levels, MissingCategorical, MissingNumeric, Schema, Split, survey};

fn table() -> Dataset {
    let cells = Levels::new([Some("b"), Some(""), Some("a"), Some("z")]);
    let missing = cells.names().iter().map(String::is_empty).collect();
    Dataset {
        records: Records::Table(vec![
            Column { name: "c".into(), cells, reading: Reading::Name(missing) },
            Column {
                name: "v".into(),
                cells: Levels::new([Some("1"), Some("3"), Some(""), Some("9")]),
                reading: Reading::Number(vec![1.0, 3.0, f64::NAN, 9.0]),
            },
        ]),
        labels: Levels::new([Some("10"), Some("9"), Some("10"), Some("77")]),
        split: vec![Split::Train, Split::Train, Split::Train, Split::Test],
        sites: None,
    }
}

fn schema(numeric: MissingNumeric, categorical: MissingCategorical) -> Schema {
    let mut schema = Schema { numeric: vec!["v".into()], categorical: vec!["c".into()], ..Schema::default() };
    schema.missing.numeric = numeric;
    schema.missing.categorical = categorical;
    schema
}

fn encode(schema: &Schema, standardize: bool) -> (Encoding, Vec<f64>) {
    let data = table();
    let survey = survey(&data, schema, standardize).unwrap();
    let encoding = Encoding::decide(&survey, schema, standardize).unwrap();
    let inputs = encoding.inputs(&data, &[0, 1, 2, 3]).unwrap();
    (encoding, inputs)
}

#[test]
fn numbers_are_standardised_names_one_hot_and_unknown_names_zero() {
    let (encoding, inputs) = encode(&schema(MissingNumeric::Mean, MissingCategorical::Level), true);
    // Training numbers 1 and 3: mean 2, deviation 1. Categories of training rows: missing, a, b.
    assert_eq!(encoding.input_names(), ["v", "c (missing)", "c=a", "c=b"]);
    #[rustfmt::skip]
    assert_eq!(inputs, [
        -1.0, 0.0, 0.0, 1.0,
         1.0, 1.0, 0.0, 0.0,
         0.0, 0.0, 1.0, 0.0,
         7.0, 0.0, 0.0, 0.0,
    ]);
    assert_eq!(
        encoding.classes,
        ["9", "10"],
        "whole numbers sort as numbers; a class of test rows alone is unknown"
    );
    assert_eq!(encoding.labels(&table(), &[3, 0, 1]).unwrap(), [None, Some(1), Some(0)]);
}

#[test]
fn missing_numbers_follow_the_schema() {
    let (encoding, inputs) = encode(&schema(MissingNumeric::Indicator, MissingCategorical::Zero), false);
    assert_eq!(encoding.input_names(), ["v", "v (missing)", "c=a", "c=b"]);
    assert_eq!(inputs[4..12], [3.0, 0.0, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0]);
    let (_, inputs) = encode(&schema(MissingNumeric::Zero, MissingCategorical::Zero), true);
    assert_eq!(inputs[6..7], [-2.0], "zero before standardising");
    let refusing = schema(MissingNumeric::Refuse, MissingCategorical::Zero);
    assert!(survey(&table(), &refusing, false).unwrap_err().to_string().contains("lacks 1"));
    let complete = survey(&table().subset(&[0, 1]), &refusing, true).unwrap();
    let encoding = Encoding::decide(&complete, &refusing, true).unwrap();
    assert!(encoding.inputs(&table(), &[2]).unwrap_err().to_string().contains("row 3, column v"));
}

#[test]
fn an_encoding_does_not_depend_on_who_holds_the_rows_and_survives_json() {
    let schema = schema(MissingNumeric::Mean, MissingCategorical::Level);
    let (whole, _) = encode(&schema, true);
    let data = table();
    for groups in [[vec![0], vec![1, 2, 3]], [vec![3, 2], vec![1, 0]], [vec![0, 1, 2, 3], vec![]]] {
        let mut merged = survey(&data.subset(&groups[0]), &schema, true).unwrap();
        merged.merge(&survey(&data.subset(&groups[1]), &schema, true).unwrap()).unwrap();
        assert_eq!(Encoding::decide(&merged, &schema, true).unwrap(), whole);
    }
    let json = serde_json::to_string(&whole).unwrap();
    assert_eq!(serde_json::from_str::<Encoding>(&json).unwrap(), whole);
}

fn dense(values: Values, rows: usize, dim: usize) -> Dataset {
    Dataset {
        records: Records::Dense { dim, values, image: None },
        labels: Levels::new((0..rows).map(|_| Some("a"))),
        split: vec![Split::Train; rows],
        sites: None,
    }
}

#[test]
fn bytes_are_scaled_and_constants_become_zero() {
    let data = dense(Values::U8(vec![0, 7, 255, 7]), 2, 2);
    let counted = survey(&data, &Schema::default(), true).unwrap();
    let plain = Encoding::decide(&counted, &Schema::default(), false).unwrap();
    assert_eq!(plain.inputs(&data, &[1]).unwrap(), [1.0, 7.0 / 255.0]);
    let standard = Encoding::decide(&counted, &Schema::default(), true).unwrap();
    assert_eq!(standard.inputs(&data, &[0, 1]).unwrap(), [-1.0, 0.0, 1.0, 0.0]);
    assert_eq!(plain.input_dim(), 2);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let data = dense(Values::F64(vec![1.0, 2.0]), 1, 2);
    let narrow = dense(Values::F64(vec![1.0]), 1, 1);
    let counted = survey(&data, &Schema::default(), false).unwrap();
    let error = Encoding::decide(&counted, &Schema::default(), true).unwrap_err().to_string();
    assert!(error.contains("no sums"), "{error}");
    let encoding = Encoding::decide(&counted, &Schema::default(), false).unwrap();
    assert!(encoding.inputs(&narrow, &[0]).is_err() && encoding.inputs(&table(), &[0]).is_err());
    assert!(encoding.inputs(&data, &[1]).is_err() && encoding.labels(&data, &[1]).is_err());
    let mut empty = counted.clone();
    empty.rows_train = 0;
    empty.classes.clear();
    assert!(Encoding::decide(&empty, &Schema::default(), false).is_err());
    let foreign = schema(MissingNumeric::Mean, MissingCategorical::Level);
    let tables = survey(&table(), &foreign, true).unwrap();
    assert!(Encoding::decide(&tables, &Schema { numeric: vec!["w".into()], ..foreign }, true).is_err());
}

#[test]
fn damaged_encodings_are_refused() {
    let (whole, _) = encode(&schema(MissingNumeric::Mean, MissingCategorical::Level), true);
    let json = serde_json::to_string(&whole).unwrap();
    for (from, to) in [
        ("\"std\":1.0", "\"std\":-1.0"),
        ("[\"\",\"a\",\"b\"]", "[\"b\",\"a\"]"),
        ("[\"9\",\"10\"]", "[\"9\",\"9\"]"),
    ] {
        let damaged: Encoding = serde_json::from_str(&json.replace(from, to)).unwrap();
        assert!(damaged != whole && damaged.check().is_err(), "{from}");
    }
    for inputs in [
        "{\"kind\":\"hashed-text\",\"dim\":0}",
        "{\"kind\":\"dense\",\"dim\":99999999999,\"standardize\":null}",
    ] {
        let damaged: Encoding =
            serde_json::from_str(&format!("{{\"classes\":[],\"inputs\":{inputs}}}")).unwrap();
        assert!(damaged.check().is_err(), "{inputs}");
    }
}

#[test]
fn texts_are_hashed_to_the_width_of_the_schema() {
    let data = Dataset {
        records: Records::Text(vec![Text { id: None, body: "my card".into(), answer: None, tests: None }]),
        labels: Levels::new([Some("a")]),
        split: vec![Split::Train],
        sites: None,
    };
    let schema = Schema { text_dim: 64, ..Schema::default() };
    let encoding = Encoding::decide(&survey(&data, &schema, true).unwrap(), &schema, true).unwrap();
    let inputs = encoding.inputs(&data, &[0, 0]).unwrap();
    assert_eq!((inputs.len(), &inputs[..64]), (128, &inputs[64..]));
}

#[test]
fn fifty_thousand_rows_of_512_take_no_time_to_speak_of() {
    let data = dense(Values::F32((0..50_000 * 512).map(|n| (n % 1009) as f32).collect()), 50_000, 512);
    let counted = survey(&data, &Schema::default(), true).unwrap();
    let encoding = Encoding::decide(&counted, &Schema::default(), true).unwrap();
    let rows: Vec<usize> = (0..50_000).collect();
    let start = std::time::Instant::now();
    let inputs = encoding.inputs(&data, &rows).unwrap();
    // Generous: the machine may be busy. It takes about 0.2 s alone.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    assert!((inputs.iter().sum::<f64>() / inputs.len() as f64).abs() < 1e-6);
}
