//! What can go wrong between a file and a number.

use std::path::{Path, PathBuf};

/// Every failure of this crate. The message says what happened, where, and what to do next; none of them carries a
/// value of a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be opened or read.
    #[error("cannot read {path}: {cause}; check that the path is right and the file is readable")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        cause: std::io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {path}: {cause}; check free space and permissions")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        cause: std::io::Error,
    },
    /// A file is not what its kind says; `place` names row and column where there is one.
    #[error("{path}{place}: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// `, row 3, column chol`, or empty where the whole file is meant. Rows count from 1, without a header.
        place: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The `[schema]` contradicts itself or does not fit the data.
    #[error("[schema] {0}")]
    Schema(String),
    /// The data source is incomplete or contradicts itself.
    #[error("data source: {0}")]
    Source(String),
    /// A survey was refused: its numbers are impossible, or it does not fit the others.
    #[error("survey refused: {0}")]
    Survey(String),
    /// An encoding cannot be decided or does not fit the records.
    #[error("encoding: {0}")]
    Encoding(String),
    /// A partition cannot be made from these records.
    #[error("[partition] {0}")]
    Partition(String),
    /// An asset is unknown, or no source gave its files; every attempt is listed.
    #[error("asset {id}: {problem}")]
    Asset {
        /// The asset's id in the catalogue.
        id: String,
        /// What was tried, what each source answered, and what can be done.
        problem: String,
    },
}

impl DataError {
    pub(crate) fn read(path: &Path, cause: std::io::Error) -> Self {
        Self::Read { path: path.to_owned(), cause }
    }

    pub(crate) fn write(path: &Path, cause: std::io::Error) -> Self {
        Self::Write { path: path.to_owned(), cause }
    }

    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), place: String::new(), problem: problem.into() }
    }

    /// `row` counts from 0 in memory and from 1 in the message.
    pub(crate) fn row(path: &Path, row: usize, problem: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            place: format!(", row {}", row + 1),
            problem: problem.into(),
        }
    }

    /// As [`DataError::row`], with the column's name.
    pub(crate) fn cell(path: &Path, row: usize, column: &str, problem: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            place: format!(", row {}, column {column}", row + 1),
            problem: problem.into(),
        }
    }
}
