//! The first federated phase: what every site must know before rows can be encoded, as counts, exact integer sums and
//! sorted unions. Merging is commutative and associative, so every order of sites gives the same bytes.

mod check;
mod sums;
#[cfg(test)]
mod tests;

pub use sums::Sums;

use crate::dataset::{Column, Reading, Records, Values};
use crate::schema::{MissingCategorical, MissingNumeric};
use crate::{DataError, Dataset, Schema, Split};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What one site, or any union of sites, knows about its rows. JSON; large integers are decimal strings.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Survey {
    /// Training rows.
    pub rows_train: u64,
    /// Test rows.
    pub rows_test: u64,
    /// Training rows of each class; a class that only test rows have is there with 0.
    pub classes: BTreeMap<String, u64>,
    /// What the inputs look like.
    pub inputs: InputSurvey,
}

/// What the inputs look like, by kind of data.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum InputSurvey {
    /// Dense values.
    Dense {
        /// Values of a row.
        dim: usize,
        /// Sums of each of the `dim` values over training rows (bytes scaled by 1/255), where asked for.
        sums: Option<Vec<Sums>>,
    },
    /// A table: the schema's numeric, then its categorical columns.
    Table {
        /// One entry a column.
        columns: Vec<ColumnSurvey>,
    },
    /// Texts: hashing needs nothing to be agreed on.
    Text,
}

/// One column of a table, over training rows.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ColumnSurvey {
    /// Numbers.
    Numeric {
        /// The column.
        name: String,
        /// Rows where the number is there.
        count: u64,
        /// Their sums; absent where neither standardising nor filling needs them.
        sums: Option<Sums>,
    },
    /// Names.
    Categorical {
        /// The column.
        name: String,
        /// All names that occur; the empty name stands for "missing" where that is a level of its own.
        categories: BTreeSet<String>,
    },
}

/// Surveys the rows of one site. `want_moments` asks for sums of numbers; for tables they are also taken where the
/// schema fills missing numbers with the mean.
///
/// # Errors
/// [`DataError::Survey`] where a training row has no label or a number is too large for the fixed-point sums,
/// [`DataError::Schema`] where a column is not there.
pub fn survey(dataset: &Dataset, schema: &Schema, want_moments: bool) -> Result<Survey, DataError> {
    let mut classes = BTreeMap::new();
    for (row, (split, label)) in dataset.split().iter().zip(dataset.labels().iter()).enumerate() {
        match (split, label) {
            (Split::Train, Some(label)) => *classes.entry(label.to_owned()).or_insert(0) += 1,
            (Split::Test, Some(label)) => {
                classes.entry(label.to_owned()).or_insert(0);
            }
            (Split::Train, None) => {
                let target = schema.target.as_deref().unwrap_or("the labels");
                let problem = format!(
                    "training row {} has no label; check schema.target ({target}) and the data",
                    row + 1
                );
                return Err(DataError::Survey(problem));
            }
            (Split::Test, None) => {}
        }
    }
    let train = dataset.rows(Split::Train);
    let inputs = match &dataset.records {
        Records::Dense { dim, values, .. } => {
            let sums = want_moments.then(|| dense_sums(values, *dim, &train)).transpose()?;
            InputSurvey::Dense { dim: *dim, sums }
        }
        Records::Table(_) if schema.numeric.is_empty() && schema.categorical.is_empty() => {
            return Err(DataError::Schema(
                "names no inputs of the table; list columns under numeric or categorical".into(),
            ));
        }
        Records::Table(_) => {
            InputSurvey::Table { columns: table_columns(dataset, schema, &train, want_moments)? }
        }
        Records::Text(_) => InputSurvey::Text,
    };
    let survey = Survey {
        rows_train: train.len() as u64,
        rows_test: (dataset.len() - train.len()) as u64,
        classes,
        inputs,
    };
    survey.check()?;
    Ok(survey)
}

fn dense_sums(values: &Values, dim: usize, rows: &[usize]) -> Result<Vec<Sums>, DataError> {
    let mut sums = vec![Sums::default(); dim];
    match values {
        Values::U8(v) => {
            let scaled: Vec<f64> = (0..=255).map(|byte| f64::from(byte) / 255.0).collect();
            add_rows(&mut sums, v, dim, rows, |byte| scaled[usize::from(byte)])?;
        }
        Values::F32(v) => add_rows(&mut sums, v, dim, rows, f64::from)?,
        Values::F64(v) => add_rows(&mut sums, v, dim, rows, |x| x)?,
    }
    Ok(sums)
}

fn add_rows<T: Copy>(
    sums: &mut [Sums],
    values: &[T],
    dim: usize,
    rows: &[usize],
    to_f64: impl Fn(T) -> f64,
) -> Result<(), DataError> {
    for &row in rows {
        for (sum, &value) in sums.iter_mut().zip(&values[row * dim..(row + 1) * dim]) {
            sum.add(to_f64(value))?;
        }
    }
    Ok(())
}

fn table_columns(
    dataset: &Dataset,
    schema: &Schema,
    rows: &[usize],
    want_moments: bool,
) -> Result<Vec<ColumnSurvey>, DataError> {
    let wants_sums =
        want_moments || matches!(schema.missing.numeric, MissingNumeric::Mean | MissingNumeric::Indicator);
    let mut columns = Vec::new();
    for name in &schema.numeric {
        let Column { reading: Reading::Number(numbers), .. } = dataset.column(name)? else {
            return Err(DataError::Schema(format!(
                "column {name} was not read as numbers; open the data with this schema"
            )));
        };
        let mut sums = Sums::default();
        let mut count = 0;
        for value in rows.iter().map(|&row| numbers[row]).filter(|v| !v.is_nan()) {
            count += 1;
            sums.add(value)?;
        }
        if schema.missing.numeric == MissingNumeric::Refuse && count < rows.len() as u64 {
            let missing = rows.len() as u64 - count;
            return Err(DataError::Survey(format!(
                "column {name} lacks {missing} numbers and the schema refuses that"
            )));
        }
        columns.push(ColumnSurvey::Numeric { name: name.clone(), count, sums: wants_sums.then_some(sums) });
    }
    for name in &schema.categorical {
        let Column { cells, reading: Reading::Name(missing), .. } = dataset.column(name)? else {
            return Err(DataError::Schema(format!(
                "column {name} was not read as names; open the data with this schema"
            )));
        };
        let mut seen = vec![false; cells.names().len()];
        rows.iter().filter_map(|&row| cells.code(row)).for_each(|code| seen[code as usize] = true);
        let mut categories = BTreeSet::new();
        for ((level, &missing), _) in cells.names().iter().zip(missing).zip(seen).filter(|(_, seen)| *seen) {
            match (missing, schema.missing.categorical) {
                (false, _) => categories.insert(level.clone()),
                (true, MissingCategorical::Level) => categories.insert(String::new()),
                (true, MissingCategorical::Zero) => false,
            };
        }
        columns.push(ColumnSurvey::Categorical { name: name.clone(), categories });
    }
    Ok(columns)
}

impl Survey {
    /// Adds another site's survey. Both must be of the same kind, width and columns.
    ///
    /// # Errors
    /// [`DataError::Survey`] where they do not fit or a sum overflows; `self` is then unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), DataError> {
        let mut merged = self.clone();
        merged.rows_train = add(self.rows_train, other.rows_train)?;
        merged.rows_test = add(self.rows_test, other.rows_test)?;
        for (class, &count) in &other.classes {
            let mine = merged.classes.entry(class.clone()).or_insert(0);
            *mine = add(*mine, count)?;
        }
        merged.inputs.merge(&other.inputs)?;
        *self = merged;
        Ok(())
    }
}

impl InputSurvey {
    fn merge(&mut self, other: &Self) -> Result<(), DataError> {
        let misfit = |problem: String| {
            Err(DataError::Survey(format!("{problem}; the sites' data have different shapes")))
        };
        match (self, other) {
            (Self::Text, Self::Text) => Ok(()),
            (Self::Dense { dim, sums }, Self::Dense { dim: other_dim, sums: other_sums }) => {
                if dim != other_dim {
                    return misfit(format!("{dim} values a row here, {other_dim} there"));
                }
                match (sums, other_sums) {
                    (None, None) => Ok(()),
                    (Some(mine), Some(theirs)) if mine.len() == theirs.len() => {
                        mine.iter_mut().zip(theirs).try_for_each(|(a, b)| a.merge(b))
                    }
                    _ => misfit("sums of one but not of the other".into()),
                }
            }
            (Self::Table { columns }, Self::Table { columns: others }) if columns.len() == others.len() => {
                columns.iter_mut().zip(others).try_for_each(|(mine, theirs)| mine.merge(theirs))
            }
            _ => misfit("different kinds of data or numbers of columns".into()),
        }
    }
}

impl ColumnSurvey {
    /// The column's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Numeric { name, .. } | Self::Categorical { name, .. } => name,
        }
    }

    fn merge(&mut self, other: &Self) -> Result<(), DataError> {
        let misfit = format!(
            "column {} here meets column {} there, or another reading of it",
            self.name(),
            other.name()
        );
        if self.name() != other.name() {
            return Err(DataError::Survey(misfit));
        }
        match (self, other) {
            (Self::Numeric { count, sums, .. }, Self::Numeric { count: others, sums: other_sums, .. }) => {
                *count = add(*count, *others)?;
                match (sums, other_sums) {
                    (None, None) => Ok(()),
                    (Some(mine), Some(theirs)) => mine.merge(theirs),
                    _ => Err(DataError::Survey(misfit)),
                }
            }
            (Self::Categorical { categories, .. }, Self::Categorical { categories: others, .. }) => {
                categories.extend(others.iter().cloned());
                Ok(())
            }
            _ => Err(DataError::Survey(misfit)),
        }
    }
}

fn add(a: u64, b: u64) -> Result<u64, DataError> {
    a.checked_add(b).ok_or_else(|| DataError::Survey("a count of rows overflows".into()))
}
