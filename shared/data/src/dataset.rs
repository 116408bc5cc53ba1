//! Records in memory, as their source holds them, with label, split and site of every row.

mod description;
mod dialogue;
mod image;
mod levels;
mod media;
#[cfg(test)]
mod tests;
mod units;
mod writing;

pub use description::{ColumnDescription, Description};
pub use dialogue::Dialogue;
pub use image::ImageShape;
pub use levels::Levels;
pub use media::{Media, RgbImage};
pub use units::ROW_UNIT;

use crate::DataError;
use sha2::{Digest, Sha256};

/// What a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Models are fitted on it.
    Train,
    /// Models are only evaluated on it.
    Test,
}

/// Values of a dense array, row-major, in the type that the file has.
#[derive(Clone, PartialEq)]
pub(crate) enum Values {
    /// Bytes, scaled by 1/255 when encoded.
    U8(Vec<u8>),
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

/// How a table's column is read.
#[derive(Clone, PartialEq)]
pub(crate) enum Reading {
    /// Numbers, not-a-number where missing.
    Number(Vec<f64>),
    /// Names; true for every level of the column that means "missing".
    Name(Vec<bool>),
    /// Not an input.
    Unread,
}

/// One column of a table: the cells as they are (after corrections) and their reading.
#[derive(Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) cells: Levels,
    pub(crate) reading: Reading,
}

/// One text.
#[derive(Clone, PartialEq)]
pub(crate) struct Text {
    pub(crate) id: Option<String>,
    pub(crate) body: String,
    pub(crate) answer: Option<String>,
    /// Of an answer that is a program.
    pub(crate) tests: Option<Tests>,
}

/// Tests of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tests {
    /// Runs before the program's tests.
    pub setup: String,
    /// Statements that fail where the program is wrong.
    pub asserts: Vec<String>,
}

/// The inputs, by kind.
#[derive(Clone, PartialEq)]
pub(crate) enum Records {
    /// `[rows, dim]`; where the rows are images, how.
    Dense { dim: usize, values: Values, image: Option<ImageShape> },
    /// Columns of equal length.
    Table(Vec<Column>),
    /// One text a row.
    Text(Vec<Text>),
}

/// Records with label, split and, where known, site of every row. It has no `Debug`: records are private.
#[derive(Clone, PartialEq)]
pub struct Dataset {
    pub(crate) records: Records,
    pub(crate) labels: Levels,
    pub(crate) split: Vec<Split>,
    pub(crate) sites: Option<Levels>,
}

impl Dataset {
    /// Number of rows, training and test.
    pub fn len(&self) -> usize {
        self.split.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.split.is_empty()
    }

    /// The label of every row; a row may have none.
    pub fn labels(&self) -> &Levels {
        &self.labels
    }

    /// What every row is for.
    pub fn split(&self) -> &[Split] {
        &self.split
    }

    /// The site that owns each row, where the source says so.
    pub fn sites(&self) -> Option<&Levels> {
        self.sites.as_ref()
    }

    /// The rows of one split, in order.
    pub fn rows(&self, split: Split) -> Vec<usize> {
        self.split.iter().enumerate().filter(|&(_, &s)| s == split).map(|(row, _)| row).collect()
    }

    /// A data set of these rows, in this order; a row may be taken more than once.
    ///
    /// # Panics
    /// Where a row is not below [`Dataset::len`]: the caller made the list.
    #[must_use]
    pub fn subset(&self, rows: &[usize]) -> Self {
        let records = match &self.records {
            Records::Dense { dim, values, image } => {
                Records::Dense { dim: *dim, values: values.subset(*dim, rows), image: *image }
            }
            Records::Table(columns) => {
                Records::Table(columns.iter().map(|column| column.subset(rows)).collect())
            }
            Records::Text(texts) => Records::Text(rows.iter().map(|&row| texts[row].clone()).collect()),
        };
        Self {
            records,
            labels: self.labels.subset(rows),
            split: rows.iter().map(|&row| self.split[row]).collect(),
            sites: self.sites.as_ref().map(|sites| sites.subset(rows)),
        }
    }

    /// SHA-256, in hexadecimal, of the canonical content: kind, shape, values, labels, split and sites, in row order.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"sheaf data set 1");
        hash.update((self.len() as u64).to_le_bytes());
        match &self.records {
            Records::Dense { dim, values, image } => {
                frame(&mut hash, b"dense");
                hash.update((*dim as u64).to_le_bytes());
                if let Some(image) = image {
                    frame(&mut hash, b"image");
                    image.dims().iter().for_each(|&n| hash.update((n as u64).to_le_bytes()));
                }
                values.hash_into(&mut hash);
            }
            Records::Table(columns) => {
                frame(&mut hash, b"table");
                hash.update((columns.len() as u64).to_le_bytes());
                for column in columns {
                    frame(&mut hash, column.name.as_bytes());
                    column.cells.hash_into(&mut hash);
                }
            }
            Records::Text(texts) => {
                frame(&mut hash, b"text");
                for text in texts {
                    frame(&mut hash, text.body.as_bytes());
                    frame(&mut hash, text.answer.as_deref().unwrap_or_default().as_bytes());
                }
            }
        }
        self.labels.hash_into(&mut hash);
        hash.update(self.split.iter().map(|&split| u8::from(split == Split::Test)).collect::<Vec<_>>());
        if let Some(sites) = &self.sites {
            frame(&mut hash, b"sites");
            sites.hash_into(&mut hash);
        }
        hex::encode(hash.finalize())
    }

    /// The table's column, or an error that names it.
    pub(crate) fn column(&self, name: &str) -> Result<&Column, DataError> {
        let Records::Table(columns) = &self.records else {
            return Err(DataError::Schema(format!(
                "column {name} is asked for, but the data are not a table"
            )));
        };
        columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
            DataError::Schema(format!(
                "column {name} is not in the data; the columns are {}",
                names.join(", ")
            ))
        })
    }
}

/// Adds bytes with their length before them, so that neighbouring parts cannot run into each other.
fn frame(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

impl Column {
    fn subset(&self, rows: &[usize]) -> Self {
        let reading = match &self.reading {
            Reading::Number(numbers) => Reading::Number(rows.iter().map(|&row| numbers[row]).collect()),
            other => other.clone(),
        };
        Self { name: self.name.clone(), cells: self.cells.subset(rows), reading }
    }

    /// Rows whose cell is missing, as the schema reads the column.
    fn missing(&self) -> usize {
        match &self.reading {
            Reading::Number(numbers) => numbers.iter().filter(|v| v.is_nan()).count(),
            Reading::Name(missing) => {
                self.cells.codes().filter(|code| code.is_none_or(|c| missing[c as usize])).count()
            }
            Reading::Unread => 0,
        }
    }
}

impl Values {
    fn subset(&self, dim: usize, rows: &[usize]) -> Self {
        fn take<T: Copy>(values: &[T], dim: usize, rows: &[usize]) -> Vec<T> {
            let mut taken = Vec::with_capacity(rows.len() * dim);
            for &row in rows {
                taken.extend_from_slice(&values[row * dim..(row + 1) * dim]);
            }
            taken
        }
        match self {
            Self::U8(v) => Self::U8(take(v, dim, rows)),
            Self::F32(v) => Self::F32(take(v, dim, rows)),
            Self::F64(v) => Self::F64(take(v, dim, rows)),
        }
    }

    /// Appends the values of another array; false where the types differ.
    pub(crate) fn append(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::U8(a), Self::U8(b)) => a.extend(b),
            (Self::F32(a), Self::F32(b)) => a.extend(b),
            (Self::F64(a), Self::F64(b)) => a.extend(b),
            _ => return false,
        }
        true
    }

    /// The values as little-endian bytes.
    pub(crate) fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::U8(v) => v.clone(),
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    fn hash_into(&self, hash: &mut Sha256) {
        match self {
            Self::U8(v) => {
                frame(hash, b"u8");
                hash.update(v);
            }
            Self::F32(v) => {
                frame(hash, b"f32");
                for x in v {
                    hash.update(x.to_le_bytes());
                }
            }
            Self::F64(v) => {
                frame(hash, b"f64");
                for x in v {
                    hash.update(x.to_le_bytes());
                }
            }
        }
    }
}
