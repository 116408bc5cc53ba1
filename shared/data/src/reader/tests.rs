//! Every reader on files written here by hand, whole and damaged.

use crate::dataset::{Records, Values};
use crate::{AssetStore, DataError, Dataset, Schema, Source, Split};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn open(source: &Source, schema: &Schema) -> Result<Dataset, DataError> {
    source.open(schema, &AssetStore::new(PathBuf::from("no-such-cache"), None))
}

fn source(text: &str, dir: &Path) -> Source {
    let mut source: Source = toml::from_str(text).unwrap();
    source.resolve_paths(dir);
    source
}

fn message(result: Result<Dataset, DataError>) -> String {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Every proper prefix of the file must be an error, not a panic and not data.
fn refuses_every_prefix(path: &Path, source: &Source, step: usize) {
    let whole = fs::read(path).unwrap();
    for length in (0..whole.len()).step_by(step) {
        fs::write(path, &whole[..length]).unwrap();
        assert!(open(source, &Schema::default()).is_err(), "a prefix of {length} bytes was read");
    }
    fs::write(path, whole).unwrap();
}

fn table_schema() -> Schema {
    toml::from_str(
        "target = 'num'\npositive_above = 0.0\nnumeric = ['age', 'chol']\ncategorical = ['cp']\nid = 'id'\nsite = 'where'\n\
         [missing.extra]\nchol = ['0']\n\
         [[corrections]]\ncolumn = 'id'\nequals = '3'\nset = { where = 'B' }\n",
    )
    .unwrap()
}

const TABLE: &str = "id,age,chol,cp,where,num\n1,63,233,typical,A,0\n2,67,0,\"a, b\",A,2\n3,41,,,A,1\n";

#[test]
fn a_csv_table_is_read_mended_and_written_back() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.csv"), TABLE).unwrap();
    fs::write(dir.path().join("b.csv.gz"), gzip(TABLE.as_bytes())).unwrap();
    let schema = table_schema();
    let data = open(&source("kind = 'table'\npath = 'a.csv'", dir.path()), &schema).unwrap();
    let packed = open(&source("kind = 'table'\npath = 'b.csv.gz'", dir.path()), &schema).unwrap();
    assert_eq!(data.digest(), packed.digest());
    assert_eq!(data.labels().iter().collect::<Vec<_>>(), [Some("0"), Some("1"), Some("1")]);
    assert_eq!(data.sites().unwrap().iter().collect::<Vec<_>>(), [Some("A"), Some("A"), Some("B")]);
    let described = data.describe();
    assert_eq!(described.columns.iter().map(|c| c.missing).collect::<Vec<_>>(), [0, 0, 2, 1, 0, 0]);
    assert_eq!((described.columns[1].min, described.columns[1].max), (Some(41.0), Some(67.0)));

    let again = data.write(&dir.path().join("out")).unwrap();
    assert_eq!(open(&again, &schema).unwrap().digest(), data.digest());
}

#[test]
fn table_errors_name_file_row_and_column_and_never_the_cell() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("bad.csv");
    let source = source("kind = 'table'\npath = 'bad.csv'", dir.path());
    fs::write(&path, TABLE.replace("67", "secret")).unwrap();
    let error = message(open(&source, &table_schema()));
    assert!(error.contains("bad.csv, row 2, column age") && !error.contains("secret"), "{error}");
    fs::write(&path, TABLE.replace("age", "years")).unwrap();
    assert!(message(open(&source, &table_schema())).contains("no column age"));
    fs::write(&path, "id,age,age\n").unwrap();
    assert!(message(open(&source, &table_schema())).contains("two columns"));
    fs::write(&path, format!("{TABLE}4,5\n")).unwrap();
    assert!(message(open(&source, &table_schema())).contains("row 4"));
    fs::remove_file(&path).unwrap();
    assert!(message(open(&source, &table_schema())).contains("cannot read"));
}

fn write_parquet(path: &Path) {
    let schema = "message t { required int32 id; required double age; optional double chol; \
                  optional binary cp (UTF8); required binary where (UTF8); required int32 num; }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let mut file = SerializedFileWriter::new(
        fs::File::create(path).unwrap(),
        schema,
        Arc::new(WriterProperties::default()),
    )
    .unwrap();
    let mut group = file.next_row_group().unwrap();
    let text = |cells: &[&str]| cells.iter().map(|cell| ByteArray::from(*cell)).collect::<Vec<_>>();
    for at in 0..6 {
        let mut column = group.next_column().unwrap().unwrap();
        match at {
            0 => column.typed::<Int32Type>().write_batch(&[1, 2, 3], None, None),
            1 => column.typed::<DoubleType>().write_batch(&[63.0, 67.0, 41.0], None, None),
            2 => column.typed::<DoubleType>().write_batch(&[233.0, 0.0], Some(&[1, 1, 0]), None),
            3 => column.typed::<ByteArrayType>().write_batch(
                &text(&["typical", "a, b"]),
                Some(&[1, 1, 0]),
                None,
            ),
            4 => column.typed::<ByteArrayType>().write_batch(&text(&["A", "A", "A"]), None, None),
            _ => column.typed::<Int32Type>().write_batch(&[0, 2, 1], None, None),
        }
        .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    file.close().unwrap();
}

#[test]
fn parquet_reads_as_the_same_table_as_csv_and_damage_is_an_error() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    write_parquet(&path);
    fs::write(dir.path().join("a.csv"), TABLE).unwrap();
    let parquet = source("kind = 'table'\npath = 'a.parquet'", dir.path());
    let csv = source("kind = 'table'\npath = 'a.csv'", dir.path());
    let schema = table_schema();
    assert_eq!(open(&parquet, &schema).unwrap().digest(), open(&csv, &schema).unwrap().digest());
    refuses_every_prefix(&path, &parquet, 7);
    // Flipped bytes may still be a readable file; they must not be a panic.
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(5) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        fs::write(&path, damaged).unwrap();
        drop(open(&parquet, &schema));
    }
}

fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}

fn le<const W: usize, T: Copy>(values: &[T], to: impl Fn(T) -> [u8; W]) -> Vec<u8> {
    values.iter().flat_map(|&v| to(v)).collect()
}

#[test]
fn npy_arrays_of_every_type_are_read_and_damage_is_an_error() {
    let dir = TempDir::new().unwrap();
    let x = dir.path().join("x.npy");
    fs::write(dir.path().join("y.npy"), npy("<i8", "(2,)", &le(&[7_i64, -1], i64::to_le_bytes))).unwrap();
    let source = source("kind = 'features'\ntrain_x = 'x.npy'\ntrain_y = 'y.npy'", dir.path());
    let read = |bytes: Vec<u8>| {
        fs::write(&x, bytes).unwrap();
        open(&source, &Schema::default())
    };
    let values = |dataset: &Dataset| match &dataset.records {
        Records::Dense { dim: 2, values: Values::U8(v), .. } => v.iter().map(|&x| f64::from(x)).collect(),
        Records::Dense { dim: 2, values: Values::F32(v), .. } => v.iter().map(|&x| f64::from(x)).collect(),
        Records::Dense { dim: 2, values: Values::F64(v), .. } => v.clone(),
        _ => Vec::new(),
    };
    let expected = [1.0, 2.0, 3.0, 0.5];
    let halves = [0x3c00_u16, 0x4000, 0x4200, 0x3800];
    for bytes in [
        npy("<f8", "(2, 2)", &le(&expected, f64::to_le_bytes)),
        npy("<f4", "(2, 2)", &le(&[1_f32, 2.0, 3.0, 0.5], f32::to_le_bytes)),
        npy("<f2", "(2, 2)", &le(&halves, u16::to_le_bytes)),
    ] {
        let data = read(bytes).unwrap();
        assert_eq!(values(&data), expected);
        assert_eq!(data.labels().iter().collect::<Vec<_>>(), [Some("7"), Some("-1")]);
    }
    assert_eq!(values(&read(npy("|u1", "(2, 1, 2)", &[1, 2, 3, 4])).unwrap()), [1.0, 2.0, 3.0, 4.0]);
    for (descr, shape, expected) in [
        (">f8", "(2, 2)", "type >f8"),
        ("<f8", "(3, 2)", "promises"),
        ("<f8", "(1, 2)", "bytes follow"),
        ("<f8", "(9999999999999999, 99999999)", "larger than any file"),
        ("<f8", "(99999999, 9)", "promises"),
        ("<f8", "(4,)", "must be [N, d]"),
        ("<f8", "(4, 0)", "bytes follow"),
        ("<f8", "(-4, 1)", "entry"),
    ] {
        let error = message(read(npy(descr, shape, &le(&[1.0, 2.0, 3.0, 4.0], f64::to_le_bytes))));
        assert!(error.contains(expected), "{error}");
    }
    let error = message(read(npy("<f8", "(2, 2)", &le(&[1.0, 2.0, f64::NAN, 4.0], f64::to_le_bytes))));
    assert!(error.contains("row 2, column 0"), "{error}");
    read(npy("<f8", "(2, 2)", &le(&expected, f64::to_le_bytes))).unwrap();
    refuses_every_prefix(&x, &source, 1);
}

#[test]
fn safetensors_keep_type_split_and_sites_through_a_round_trip() {
    let dir = TempDir::new().unwrap();
    let x = le(&[1_f32, 2.0, 3.0, 4.0, 5.0, 6.0], f32::to_le_bytes);
    let y = le(&[3_i32, 1, 3], i32::to_le_bytes);
    let site = le(&[0_i64, 0, 1], i64::to_le_bytes);
    let view = |dtype, shape: &[usize], bytes| {
        safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap()
    };
    let views = [
        ("x", view(safetensors::Dtype::F32, &[3, 2], &x)),
        ("y", view(safetensors::Dtype::I32, &[3], &y)),
        ("site", view(safetensors::Dtype::I64, &[3], &site)),
        ("split", view(safetensors::Dtype::U8, &[3], &[0, 1, 0])),
    ];
    let path = dir.path().join("a.safetensors");
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let single = source("kind = 'features'\ntrain = 'a.safetensors'", dir.path());
    let data = open(&single, &Schema::default()).unwrap();
    assert_eq!(data.split(), [Split::Train, Split::Test, Split::Train]);
    assert_eq!(data.sites().unwrap().get(2), Some("1"));
    let part = data.subset(&[2, 0]);
    let again = open(&part.write(&dir.path().join("out")).unwrap(), &Schema::default()).unwrap();
    assert_eq!(again.digest(), part.digest());
    assert!(!single.has_test());
    let both = source("kind = 'features'\ntrain = 'a.safetensors'\ntest = 'a.safetensors'", dir.path());
    assert!(both.has_test());
    assert_eq!(open(&both, &Schema::default()).unwrap().rows(Split::Test), [1, 3, 4, 5]);
    refuses_every_prefix(&path, &single, 3);
}

#[test]
fn idx_pairs_are_read_and_absurd_headers_refused() {
    let dir = TempDir::new().unwrap();
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1][..], &[10, 20, 30, 40]].concat();
    fs::write(dir.path().join("x"), &images).unwrap();
    fs::write(dir.path().join("x.gz"), gzip(&images)).unwrap();
    fs::write(dir.path().join("y"), [0, 0, 8, 1, 0, 0, 0, 2, 9, 4]).unwrap();
    let plain =
        source("kind = 'idx'\ntrain_x = 'x'\ntrain_y = 'y'\ntest_x = 'x.gz'\ntest_y = 'y'", dir.path());
    let data = open(&plain, &Schema::default()).unwrap();
    assert!(plain.has_test());
    assert_eq!((data.len(), data.rows(Split::Train)), (4, vec![0, 1]));
    assert!(
        matches!(&data.records, Records::Dense { dim: 2, values: Values::U8(v), .. } if v[4..] == [10, 20, 30, 40])
    );
    refuses_every_prefix(&dir.path().join("x"), &plain, 1);
    refuses_every_prefix(&dir.path().join("x.gz"), &plain, 1);
    fs::write(dir.path().join("x"), [0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255])
        .unwrap();
    assert!(message(open(&plain, &Schema::default())).contains("larger than any file"));
    fs::write(dir.path().join("x"), [&[0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[1, 2]].concat()).unwrap();
    assert!(message(open(&plain, &Schema::default())).contains("do not belong together"));
}

#[test]
fn cifar_batches_are_read_in_order() {
    let dir = TempDir::new().unwrap();
    let record = |label: u8| [vec![label], vec![label * 10; 3072]].concat();
    fs::write(dir.path().join("1.bin"), [record(3), record(0)].concat()).unwrap();
    fs::write(dir.path().join("2.bin.gz"), gzip(&record(9))).unwrap();
    let cifar = source("kind = 'cifar'\ntrain = ['1.bin', '2.bin.gz']\ntest = ['1.bin']", dir.path());
    let data = open(&cifar, &Schema::default()).unwrap();
    assert_eq!(data.labels().iter().map(Option::unwrap).collect::<Vec<_>>(), ["3", "0", "9", "3", "0"]);
    fs::write(dir.path().join("1.bin"), record(10)).unwrap();
    assert!(message(open(&cifar, &Schema::default())).contains("1.bin, row 1"));
    fs::write(dir.path().join("1.bin"), &record(1)[..99]).unwrap();
    assert!(message(open(&cifar, &Schema::default())).contains("whole number of records"));
}

#[test]
fn texts_are_read_from_json_lines_and_csv() {
    let dir = TempDir::new().unwrap();
    let lines = "{\"id\":\"a\",\"split\":\"train\",\"text\":\"Hi \\\"you\\\"\",\"label\":\"x\",\"site\":\"s\",\"meta\":{\"k\":1}}\n\n\
                 {\"id\":\"b\",\"split\":\"test\",\"text\":\"bye\",\"answer\":\"ok\"}\n";
    fs::write(dir.path().join("a.jsonl"), lines).unwrap();
    let json = source("kind = 'text'\npath = 'a.jsonl'", dir.path());
    let data = open(&json, &Schema::default()).unwrap();
    assert_eq!(data.split(), [Split::Train, Split::Test]);
    assert_eq!((data.labels().get(0), data.labels().get(1)), (Some("x"), None));
    let again = open(&data.write(&dir.path().join("out")).unwrap(), &Schema::default()).unwrap();
    assert_eq!(again.digest(), data.digest());

    fs::write(dir.path().join("b.csv"), "text,category\n\"a, b\",x\nc,y\n").unwrap();
    let csv = open(&source("kind = 'text'\npath = 'b.csv'", dir.path()), &Schema::default()).unwrap();
    assert_eq!(csv.labels().iter().collect::<Vec<_>>(), [Some("x"), Some("y")]);

    let answers = Schema { text: crate::TextPart::Answer, ..Schema::default() };
    let lines = "{\"text\":\"q\",\"answer\":\"a\",\"label\":\"x\"}\n{\"text\":\"bare\",\"label\":\"x\"}\n";
    fs::write(dir.path().join("b.jsonl"), lines).unwrap();
    let read = open(&source("kind = 'text'\npath = 'b.jsonl'", dir.path()), &answers).unwrap();
    assert_eq!((read.text(0), read.text(1)), (Some("a"), Some("bare")), "the answer, where there is one");
    fs::write(dir.path().join("a.jsonl"), "{\"text\":\"private words\", \"label\": 3}").unwrap();
    let error = message(open(&json, &Schema::default()));
    assert!(error.contains("row 1") && !error.contains("private"), "{error}");
}

#[test]
fn texts_are_read_from_parquet() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t.parquet");
    let columns = "message t { required binary text (UTF8); optional binary label (UTF8); required binary split (UTF8); \
                   required int32 length; }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(columns).unwrap());
    let properties = Arc::new(WriterProperties::default());
    let mut file = SerializedFileWriter::new(fs::File::create(&path).unwrap(), schema, properties).unwrap();
    let mut group = file.next_row_group().unwrap();
    let cells = |cells: &[&str]| cells.iter().map(|cell| ByteArray::from(*cell)).collect::<Vec<_>>();
    for (texts, levels) in
        [(&["one, two", "three"][..], None), (&["x"], Some(&[1, 0][..])), (&["train", "test"], None)]
    {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&cells(texts), levels, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int32Type>().write_batch(&[8, 5], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.close().unwrap();

    let parquet = source("kind = 'text'\npath = 't.parquet'", dir.path());
    let data = open(&parquet, &Schema::default()).unwrap();
    assert_eq!((data.text(0), data.text(1)), (Some("one, two"), Some("three")));
    assert_eq!((data.labels().get(0), data.labels().get(1)), (Some("x"), None));
    assert_eq!(data.split(), [Split::Train, Split::Test]);
    write_parquet(&path);
    let error = message(open(&parquet, &Schema::default()));
    assert!(error.contains("no column text") && error.contains("chol"), "{error}");
}

#[test]
fn texts_without_a_header_are_read_by_their_layout() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("news.csv");
    fs::write(&path, "\"2\",\"A title\",\"It was \"\"good\"\", they said\"\n\"1\",\"B\",\"c\"\n").unwrap();
    let layout = crate::catalogue::Layout {
        columns: ["label", "title", "text"].map(str::to_owned).to_vec(),
        classes: ["World", "Sports"].map(str::to_owned).to_vec(),
    };
    let files = [(path.clone(), Some(Split::Train))];
    let read = || super::text::read(&files, Some(&layout), &Schema::default());
    let data = read().unwrap();
    assert_eq!((data.text(0), data.labels().get(0)), (Some("It was \"good\", they said"), Some("Sports")));
    assert_eq!(data.labels().get(1), Some("World"), "the first row is one, too");
    fs::write(&path, "\"3\",\"A\",\"private words\"\n").unwrap();
    let error = message(read());
    assert!(error.contains("row 1") && error.contains("1 to 2") && !error.contains("private"), "{error}");
}

#[test]
fn a_row_keeps_its_split_whatever_the_order_of_the_rows() {
    let dir = TempDir::new().unwrap();
    let rows: Vec<String> = (0..60).map(|n| format!("{n},{},{},x,A,{}\n", n % 40, n * 3, n % 2)).collect();
    let header = "id,age,chol,cp,where,num\n";
    let reversed: String = rows.iter().rev().map(String::as_str).collect();
    fs::write(dir.path().join("a.csv"), format!("{header}{}", rows.concat())).unwrap();
    fs::write(dir.path().join("b.csv"), format!("{header}{reversed}")).unwrap();
    for id in [Some("id".to_owned()), None] {
        let mut schema = Schema { id, ..table_schema() };
        schema.split = toml::from_str("test_fraction = 0.3\nseed = 5").unwrap();
        let forward = open(&source("kind = 'table'\npath = 'a.csv'", dir.path()), &schema).unwrap();
        let backward = open(&source("kind = 'table'\npath = 'b.csv'", dir.path()), &schema).unwrap();
        assert!(backward.split().iter().rev().eq(forward.split()));
        let tests = forward.rows(Split::Test);
        assert!(!tests.is_empty() && tests.len() < 40);
        let part = forward.subset(&tests).write(&dir.path().join("part")).unwrap();
        assert_eq!(open(&part, &schema).unwrap().rows(Split::Test).len(), tests.len());
    }
}

#[test]
fn incomplete_and_contradicting_sources_are_refused() {
    let dir = TempDir::new().unwrap();
    for (text, expected) in [
        ("kind = 'table'", "neither path nor asset"),
        ("kind = 'cifar'", "neither train nor asset"),
        ("kind = 'table'\nasset = 'mnist'", "kind = \"idx\""),
        ("kind = 'table'\nasset = 'nothing'", "not in the catalogue"),
        ("kind = 'table'\nasset = 'heart-disease'\npath = 'x.csv'", "both given"),
        ("kind = 'features'\ntrain = 'a'\ntrain_x = 'b'", "not from both"),
        ("kind = 'table'\npath = 'x.xlsx'", ".xlsx"),
    ] {
        let error = message(open(&source(text, dir.path()), &Schema::default()));
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(toml::from_str::<Source>("kind = 'table'\nfile = 'x'").is_err());
    assert!(source("kind = 'idx'\nasset = 'mnist'", dir.path()).has_test());
    assert!(!source("kind = 'text'\nasset = 'banking77'", dir.path()).has_test());
}
