//! What a data set looks like, for `describe` and for logs at the site.

use super::{Column, Dataset, Reading, Records, Split, Values};
use crate::Levels;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Counts and ranges of a data set. It shows extremes of single records, so it is for the data's owner only.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Description {
    /// `dense`, `table` or `text`.
    pub kind: String,
    /// All rows.
    pub rows: u64,
    /// Training rows.
    pub rows_train: u64,
    /// Test rows.
    pub rows_test: u64,
    /// The columns of a table; one entry named `x` for dense values; one named `text` with lengths in characters.
    pub columns: Vec<ColumnDescription>,
    /// Rows of each class, training and test.
    pub classes: BTreeMap<String, u64>,
    /// Rows without a label.
    pub unlabelled: u64,
    /// Rows of each site, where the source names sites.
    pub sites: BTreeMap<String, u64>,
}

/// One column of a [`Description`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ColumnDescription {
    /// The column's name.
    pub name: String,
    /// `numeric`, `categorical`, `unread`, or the type of a dense array with its width, such as `u8 [784]`.
    pub kind: String,
    /// Missing cells.
    pub missing: u64,
    /// Smallest number.
    pub min: Option<f64>,
    /// Largest number.
    pub max: Option<f64>,
    /// Distinct cells, for columns that are not numeric.
    pub levels: Option<u64>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        writeln!(
            f,
            "{}: {} rows, {} for training, {} for test",
            self.kind, self.rows, self.rows_train, self.rows_test
        )?;
        for column in self.columns.iter().take(SHOWN) {
            write!(f, "  {:<20} {:<12} missing {:<6}", column.name, column.kind, column.missing)?;
            match (column.min, column.max, column.levels) {
                (Some(min), Some(max), _) => writeln!(f, " {min} to {max}")?,
                (_, _, Some(levels)) => writeln!(f, " {levels} levels")?,
                _ => writeln!(f)?,
            }
        }
        if self.columns.len() > SHOWN {
            writeln!(f, "  and {} more columns", self.columns.len() - SHOWN)?;
        }
        if !self.classes.is_empty() {
            writeln!(f, "  classes: {}", listed(&self.classes))?;
        }
        if self.unlabelled > 0 {
            writeln!(f, "  rows without a label: {}", self.unlabelled)?;
        }
        if !self.sites.is_empty() {
            writeln!(f, "  sites: {}", listed(&self.sites))?;
        }
        Ok(())
    }
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    const SHOWN: usize = 20;
    let mut names: Vec<_> =
        counts.iter().take(SHOWN).map(|(name, rows)| format!("{name} ({rows})")).collect();
    if counts.len() > SHOWN {
        names.push(format!("and {} more", counts.len() - SHOWN));
    }
    names.join(", ")
}

impl Dataset {
    /// Counts and ranges, for the owner of the data.
    pub fn describe(&self) -> Description {
        let rows_test = self.split.iter().filter(|&&split| split == Split::Test).count() as u64;
        let columns = match &self.records {
            Records::Table(columns) => columns.iter().map(Column::describe).collect(),
            Records::Dense { dim, values, .. } => vec![values.describe(*dim)],
            Records::Text(texts) => {
                let (min, max) = range(texts.iter().map(|text| text.body.chars().count() as f64));
                vec![ColumnDescription {
                    name: "text".into(),
                    kind: "text".into(),
                    missing: 0,
                    min,
                    max,
                    levels: None,
                }]
            }
        };
        Description {
            kind: match self.records {
                Records::Dense { .. } => "dense".into(),
                Records::Table(_) => "table".into(),
                Records::Text(_) => "text".into(),
            },
            rows: self.len() as u64,
            rows_train: self.len() as u64 - rows_test,
            rows_test,
            columns,
            classes: counts(&self.labels),
            unlabelled: self.labels.codes().filter(Option::is_none).count() as u64,
            sites: self.sites.as_ref().map(counts).unwrap_or_default(),
        }
    }
}

fn counts(levels: &Levels) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for name in levels.iter().flatten() {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

fn range(values: impl Iterator<Item = f64>) -> (Option<f64>, Option<f64>) {
    values.filter(|v| !v.is_nan()).fold((None, None), |(min, max), v| {
        (Some(min.map_or(v, |m: f64| m.min(v))), Some(max.map_or(v, |m: f64| m.max(v))))
    })
}

impl Column {
    fn describe(&self) -> ColumnDescription {
        let (kind, (min, max), levels) = match &self.reading {
            Reading::Number(numbers) => ("numeric", range(numbers.iter().copied()), None),
            Reading::Name(_) => ("categorical", (None, None), Some(self.cells.used().len() as u64)),
            Reading::Unread => ("unread", (None, None), Some(self.cells.used().len() as u64)),
        };
        ColumnDescription {
            name: self.name.clone(),
            kind: kind.into(),
            missing: self.missing() as u64,
            min,
            max,
            levels,
        }
    }
}

impl Values {
    fn describe(&self, dim: usize) -> ColumnDescription {
        let (kind, (min, max)) = match self {
            Self::U8(v) => ("u8", range(v.iter().map(|&x| f64::from(x)))),
            Self::F32(v) => ("f32", range(v.iter().map(|&x| f64::from(x)))),
            Self::F64(v) => ("f64", range(v.iter().copied())),
        };
        ColumnDescription {
            name: "x".into(),
            kind: format!("{kind} [{dim}]"),
            missing: 0,
            min,
            max,
            levels: None,
        }
    }
}
