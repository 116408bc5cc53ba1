//! Refuses surveys that no data can give: they come from other machines.

use super::{ColumnSurvey, InputSurvey, Survey};
use crate::DataError;

/// Rows a survey may speak of; more would overflow the exact sums.
const ROWS_LIMIT: u64 = 1 << 40;
/// Distinct classes, and distinct categories of a column.
const NAMES_LIMIT: usize = 1 << 16;
/// Characters of a class or category: names go into models and reports.
const NAME_LENGTH: usize = 256;
/// Values of a row.
const DIM_LIMIT: usize = 1 << 20;

impl Survey {
    /// Checks that data can give these numbers: counts add up, sums obey their bounds, names are printable and short.
    ///
    /// # Errors
    /// [`DataError::Survey`] naming what is impossible.
    pub fn check(&self) -> Result<(), DataError> {
        let refuse = |problem: String| Err(DataError::Survey(problem));
        if self.rows_train > ROWS_LIMIT || self.rows_test > ROWS_LIMIT {
            return refuse(format!("more than {ROWS_LIMIT} rows"));
        }
        names("classes", self.classes.keys())?;
        if self.classes.contains_key("") {
            return refuse("a class has an empty name".into());
        }
        let labelled = self.classes.values().try_fold(0_u64, |sum, &count| sum.checked_add(count));
        if labelled != Some(self.rows_train) {
            return refuse(format!("the classes' counts do not add up to {} training rows", self.rows_train));
        }
        match &self.inputs {
            InputSurvey::Text => Ok(()),
            InputSurvey::Dense { dim, sums } => {
                if *dim == 0 || *dim > DIM_LIMIT {
                    return refuse(format!("{dim} values a row; 1 to {DIM_LIMIT} are possible"));
                }
                let Some(sums) = sums else { return Ok(()) };
                if sums.len() != *dim {
                    return refuse(format!("sums of {} values, but rows have {dim}", sums.len()));
                }
                match sums.iter().position(|sums| !sums.possible(self.rows_train)) {
                    Some(at) => refuse(format!("the sums of value {at} are impossible")),
                    None => Ok(()),
                }
            }
            InputSurvey::Table { columns } => {
                columns.iter().try_for_each(|column| column.check(self.rows_train))
            }
        }
    }
}

impl ColumnSurvey {
    fn check(&self, rows: u64) -> Result<(), DataError> {
        match self {
            Self::Numeric { name, count, sums } => {
                names("columns", std::iter::once(name))?;
                if *count > rows || sums.is_some_and(|sums| !sums.possible(*count)) {
                    return Err(DataError::Survey(format!("count or sums of column {name} are impossible")));
                }
                Ok(())
            }
            Self::Categorical { name, categories } => {
                names("columns", std::iter::once(name))?;
                if categories.len() as u64 > rows {
                    return Err(DataError::Survey(format!(
                        "column {name} has more names than there are training rows"
                    )));
                }
                names(&format!("column {name}"), categories.iter())
            }
        }
    }
}

/// Names must be few, short and free of control characters.
fn names<'a>(what: &str, names: impl ExactSizeIterator<Item = &'a String>) -> Result<(), DataError> {
    if names.len() > NAMES_LIMIT {
        return Err(DataError::Survey(format!("{what}: more than {NAMES_LIMIT} names")));
    }
    for name in names {
        if name.chars().count() > NAME_LENGTH || name.chars().any(char::is_control) {
            return Err(DataError::Survey(format!(
                "{what}: a name is longer than {NAME_LENGTH} characters or has control characters"
            )));
        }
    }
    Ok(())
}
