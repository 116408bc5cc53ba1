//! Dense arrays with labels, whatever file they came from.

use super::{npy, safetensor};
use crate::dataset::{Records, Values};
use crate::{DataError, Dataset, ImageShape, Levels, Schema, Split, split};
use std::path::{Path, PathBuf};

/// Element types that dense files may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    U8,
    I32,
    I64,
    F16,
    F32,
    F64,
}

impl Element {
    pub(super) fn width(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }
}

/// An array as a file holds it: little-endian, row-major.
pub(super) struct Array {
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

/// One optional name a row.
pub(super) type Names = Vec<Option<String>>;

/// One part of a dense data set: a training or a test file.
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) rows: usize,
    pub(super) dim: usize,
    pub(super) values: Values,
    pub(super) image: Option<ImageShape>,
    pub(super) labels: Option<Names>,
    pub(super) sites: Option<Names>,
    pub(super) split: Option<Vec<Split>>,
}

/// Reads `x`, `y`, `site` and `split` of one or two safetensors files.
pub(crate) fn read_safetensors(
    train: &Path,
    test: Option<&Path>,
    schema: &Schema,
) -> Result<Dataset, DataError> {
    assemble(safetensor::read(train)?, test.map(safetensor::read).transpose()?, schema)
}

/// Reads one or two pairs of `.npy` files.
pub(crate) fn read_npy(
    train: &(PathBuf, Option<PathBuf>),
    test: Option<&(PathBuf, Option<PathBuf>)>,
    schema: &Schema,
) -> Result<Dataset, DataError> {
    let read = |(x, y): &(PathBuf, Option<PathBuf>)| -> Result<Part, DataError> {
        let labels = y.as_deref().map(|y| integers(y, "y", &npy::read(y)?)).transpose()?;
        part(x, &npy::read(x)?, labels)
    };
    assemble(read(train)?, test.map(read).transpose()?, schema)
}

/// Rows and values of an array of inputs, with their labels.
pub(super) fn part(path: &Path, x: &Array, labels: Option<Vec<i64>>) -> Result<Part, DataError> {
    let (&rows, trailing) = x
        .shape
        .split_first()
        .ok_or_else(|| DataError::file(path, "the inputs are a single number; they must be [N, d]"))?;
    let dim: usize = trailing.iter().product();
    if trailing.is_empty() || dim == 0 {
        return Err(DataError::file(
            path,
            format!("the inputs have shape {:?}; they must be [N, d] with d above 0", x.shape),
        ));
    }
    if rows >= u32::MAX as usize {
        return Err(DataError::file(
            path,
            format!("{rows} rows are more than are read at once; split the file"),
        ));
    }
    let values = values(path, x, dim)?;
    let image = ImageShape::of(trailing).filter(|_| x.element == Element::U8);
    let labels = labels.map(numbered);
    Ok(Part { path: path.to_owned(), rows, dim, values, image, labels, sites: None, split: None })
}

fn values(path: &Path, x: &Array, dim: usize) -> Result<Values, DataError> {
    let values = match x.element {
        Element::U8 => Values::U8(x.bytes.clone()),
        Element::F16 => Values::F32(words(&x.bytes).map(|b| half_to_f32(u16::from_le_bytes(b))).collect()),
        Element::F32 => Values::F32(words(&x.bytes).map(f32::from_le_bytes).collect()),
        Element::F64 => Values::F64(words(&x.bytes).map(f64::from_le_bytes).collect()),
        Element::I32 | Element::I64 => {
            return Err(DataError::file(
                path,
                "the inputs are whole numbers; they must be f64, f32, f16 or u8",
            ));
        }
    };
    let broken = match &values {
        Values::U8(_) => None,
        Values::F32(v) => v.iter().position(|x| !x.is_finite()),
        Values::F64(v) => v.iter().position(|x| !x.is_finite()),
    };
    match broken {
        Some(at) => {
            let place = (at / dim, at % dim);
            Err(DataError::cell(
                path,
                place.0,
                &place.1.to_string(),
                "the value is not finite; clean the features first",
            ))
        }
        None => Ok(values),
    }
}

/// A vector of whole numbers, of any of the types that labels have.
pub(super) fn integers(path: &Path, name: &str, array: &Array) -> Result<Vec<i64>, DataError> {
    if array.shape.len() != 1 {
        return Err(DataError::file(path, format!("{name} has shape {:?}; it must be [N]", array.shape)));
    }
    match array.element {
        Element::U8 => Ok(array.bytes.iter().map(|&b| i64::from(b)).collect()),
        Element::I32 => Ok(words(&array.bytes).map(|b| i64::from(i32::from_le_bytes(b))).collect()),
        Element::I64 => Ok(words(&array.bytes).map(i64::from_le_bytes).collect()),
        other => Err(DataError::file(path, format!("{name} has type {other:?}; it must be i64, i32 or u8"))),
    }
}

/// The bytes in groups of `W`; the readers have checked that they divide evenly.
fn words<const W: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; W]> + '_ {
    bytes.as_chunks::<W>().0.iter().copied()
}

/// IEEE 754 half precision to single precision, exact.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    match exponent {
        0 => sign * fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2_f32.powi(exponent - 15),
    }
}

/// Puts training and test part together. Without a split in the files and without a test file the schema's rule
/// decides by the row's id-free content: its values.
pub(super) fn assemble(train: Part, test: Option<Part>, schema: &Schema) -> Result<Dataset, DataError> {
    for part in std::iter::once(&train).chain(&test) {
        for (name, len) in [
            ("labels", part.labels.as_ref().map(Vec::len)),
            ("sites", part.sites.as_ref().map(Vec::len)),
            ("splits", part.split.as_ref().map(Vec::len)),
        ] {
            if len.is_some_and(|len| len != part.rows) {
                let problem = format!(
                    "{} rows but {} {name}; the files do not belong together",
                    part.rows,
                    len.unwrap_or(0)
                );
                return Err(DataError::file(&part.path, problem));
            }
        }
    }
    let dim = train.dim;
    let mut split = match (&train.split, &test) {
        (Some(split), _) => split.clone(),
        (None, Some(_)) => vec![Split::Train; train.rows],
        (None, None) => by_rule(&train, schema),
    };
    let mut image = train.image;
    let mut labels = names(train.labels, train.rows);
    let has_sites = train.sites.is_some() || test.as_ref().is_some_and(|test| test.sites.is_some());
    let mut sites = names(train.sites, train.rows);
    let mut values = train.values;
    if let Some(test) = test {
        if test.dim != dim {
            let problem = format!("test rows have {} values, training rows {dim}", test.dim);
            return Err(DataError::file(&test.path, problem));
        }
        if !values.append(test.values) {
            return Err(DataError::file(
                &test.path,
                "the test values have another type than the training values",
            ));
        }
        // Two readings of one width are no images that a model could be given.
        image = image.filter(|_| image == test.image);
        split.resize(split.len() + test.rows, Split::Test);
        labels.extend(names(test.labels, test.rows));
        sites.extend(names(test.sites, test.rows));
    }
    Ok(Dataset {
        records: Records::Dense { dim, values, image },
        labels: Levels::new(labels),
        split,
        sites: has_sites.then(|| Levels::new(sites)),
    })
}

fn by_rule(part: &Part, schema: &Schema) -> Vec<Split> {
    if schema.split.as_ref().is_none_or(|rule| rule.test_fraction == 0.0) {
        return vec![Split::Train; part.rows];
    }
    let bytes = part.values.to_le_bytes();
    let width = bytes.len() / part.rows.max(1);
    bytes
        .chunks_exact(width.max(1))
        .map(|row| split::decide(schema.split.as_ref(), std::iter::once(row)))
        .collect()
}

/// Whole numbers as names.
pub(super) fn numbered(numbers: Vec<i64>) -> Names {
    numbers.into_iter().map(|n| Some(n.to_string())).collect()
}

fn names(names: Option<Names>, rows: usize) -> Names {
    names.unwrap_or_else(|| vec![None; rows])
}
