//! From records to numbers: decided once from the merged survey, published with the model, the same at every site.

mod declared;
mod hashed_text;
mod rows;
#[cfg(test)]
mod tests;

use crate::schema::MissingNumeric;
use crate::{ColumnSurvey, DataError, Dataset, InputSurvey, Schema, Survey};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Most inputs an encoding may have.
const DIM_LIMIT: usize = 1 << 20;

/// How records become input vectors and labels become class numbers. JSON, part of a model's `model.json`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Encoding {
    /// The classes that training rows have: in numeric order if all are whole numbers, else sorted as text.
    pub classes: Vec<String>,
    /// How inputs are made.
    pub inputs: Inputs,
}

/// How inputs are made, by kind of data.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Inputs {
    /// The values themselves (bytes scaled by 1/255), standardised or not.
    Dense {
        /// Values of a row.
        dim: usize,
        /// `(v - mean) / std` where present.
        standardize: Option<Moments>,
    },
    /// Columns of a table, one after the other.
    Table {
        /// In the order of the inputs.
        columns: Vec<ColumnEncoding>,
    },
    /// Signed hashing of word 1- and 2-grams (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask
    /// Learning").
    HashedText {
        /// Number of inputs.
        dim: usize,
    },
}

/// Mean and population standard deviation of every value.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// `[dim]`.
    pub mean: Vec<f64>,
    /// `[dim]`; a value that never varies has 0 and is encoded as 0.
    pub std: Vec<f64>,
}

/// How one column becomes inputs.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ColumnEncoding {
    /// `(v - mean) / std`; 0 where `std` is 0.
    Numeric {
        /// The column.
        name: String,
        /// 0 without standardising.
        mean: f64,
        /// 1 without standardising.
        std: f64,
        /// What stands for a missing number, before standardising; `None` refuses it.
        fill: Option<f64>,
        /// One more input: 1 where the number is missing, else 0.
        indicator: bool,
    },
    /// One input for each name: 1 for the row's own, 0 for others. A name that is not listed gives zeros.
    Categorical {
        /// The column.
        name: String,
        /// Sorted; the empty name stands for "missing".
        categories: Vec<String>,
    },
}

impl Encoding {
    /// Decides the encoding. A pure function of the survey's integers and the schema, so the same survey gives the same
    /// bits however the rows were spread over sites.
    ///
    /// # Errors
    /// [`DataError::Survey`] or [`DataError::Encoding`] where the survey has no training rows, does not fit the schema, or
    /// lacks the sums that standardising needs.
    pub fn decide(survey: &Survey, schema: &Schema, standardize: bool) -> Result<Self, DataError> {
        survey.check()?;
        schema.validate()?;
        if survey.rows_train == 0 {
            return Err(DataError::Encoding(
                "no site has training rows; check the split and the data".into(),
            ));
        }
        let lacking =
            || DataError::Encoding("the survey has no sums; survey with moments to standardise".into());
        let inputs = match &survey.inputs {
            InputSurvey::Text => Inputs::HashedText { dim: schema.text_dim },
            InputSurvey::Dense { dim, .. } if !standardize => Inputs::Dense { dim: *dim, standardize: None },
            InputSurvey::Dense { dim, sums } => {
                let moments =
                    sums.as_ref().ok_or_else(lacking)?.iter().map(|sums| sums.moments(survey.rows_train));
                let (mean, std) = moments.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
                Inputs::Dense { dim: *dim, standardize: Some(Moments { mean, std }) }
            }
            InputSurvey::Table { columns } => {
                let named: Vec<_> = columns.iter().map(ColumnSurvey::name).collect();
                if !named.iter().copied().eq(schema
                    .numeric
                    .iter()
                    .chain(&schema.categorical)
                    .map(String::as_str))
                {
                    return Err(DataError::Encoding(format!(
                        "the survey's columns {named:?} are not the schema's"
                    )));
                }
                let columns = columns
                    .iter()
                    .map(|column| column.decide(survey.rows_train, schema, standardize))
                    .collect::<Result<_, _>>()?;
                Inputs::Table { columns }
            }
        };
        let encoding = Self { classes: classes(survey), inputs };
        encoding.check()?;
        Ok(encoding)
    }

    /// Checks an encoding that came from elsewhere: shapes agree, numbers are finite, names are sorted and unique where
    /// rows are looked up in them.
    ///
    /// # Errors
    /// [`DataError::Encoding`] naming what is wrong.
    pub fn check(&self) -> Result<(), DataError> {
        let refuse =
            |problem: String| Err(DataError::Encoding(format!("{problem}; the model file is damaged")));
        let usable = |mean: f64, std: f64| mean.is_finite() && std.is_finite() && std >= 0.0;
        if self.classes.iter().collect::<HashSet<_>>().len() != self.classes.len() {
            return refuse("a class is there twice".into());
        }
        match &self.inputs {
            Inputs::Dense { standardize: Some(Moments { mean, std }), dim }
                if mean.len() != *dim
                    || std.len() != *dim
                    || !mean.iter().zip(std).all(|(&mean, &std)| usable(mean, std)) =>
            {
                return refuse(format!("the moments are not finite or not of {dim} values"));
            }
            Inputs::Dense { .. } | Inputs::HashedText { .. } => {}
            Inputs::Table { columns } => {
                for column in columns {
                    match column {
                        ColumnEncoding::Numeric { name, mean, std, fill, .. } => {
                            if !usable(*mean, *std) || fill.is_some_and(|fill| !fill.is_finite()) {
                                return refuse(format!("column {name} has numbers that are not finite"));
                            }
                        }
                        ColumnEncoding::Categorical { name, categories } => {
                            if !categories.is_sorted_by(|a, b| a < b) {
                                return refuse(format!(
                                    "the categories of column {name} are not sorted and unique"
                                ));
                            }
                        }
                    }
                }
            }
        }
        match self.input_dim() {
            1..=DIM_LIMIT => Ok(()),
            dim => refuse(format!("{dim} inputs are none, or more than {DIM_LIMIT}")),
        }
    }

    /// Number of inputs of a row.
    pub fn input_dim(&self) -> usize {
        match &self.inputs {
            Inputs::Dense { dim, .. } | Inputs::HashedText { dim } => *dim,
            Inputs::Table { columns } => columns.iter().map(ColumnEncoding::width).sum(),
        }
    }

    /// A name for every input: `age`, `age (missing)`, `cp=asymptomatic`, `x17`, `hash17`.
    pub fn input_names(&self) -> Vec<String> {
        match &self.inputs {
            Inputs::Dense { dim, .. } => (0..*dim).map(|at| format!("x{at}")).collect(),
            Inputs::HashedText { dim } => (0..*dim).map(|at| format!("hash{at}")).collect(),
            Inputs::Table { columns } => columns.iter().flat_map(ColumnEncoding::names).collect(),
        }
    }

    /// Class numbers of rows: `None` for a row without a label or with a class that the model does not know.
    ///
    /// # Errors
    /// [`DataError::Encoding`] where a row is not in the data set.
    pub fn labels(&self, dataset: &Dataset, rows: &[usize]) -> Result<Vec<Option<u32>>, DataError> {
        rows::check(dataset, rows)?;
        let known: HashMap<&str, u32> = self.classes.iter().map(String::as_str).zip(0..).collect();
        let of_level: Vec<_> =
            dataset.labels().names().iter().map(|name| known.get(name.as_str()).copied()).collect();
        Ok(rows
            .iter()
            .map(|&row| dataset.labels().code(row).and_then(|code| of_level[code as usize]))
            .collect())
    }
}

impl ColumnSurvey {
    fn decide(&self, rows: u64, schema: &Schema, standardize: bool) -> Result<ColumnEncoding, DataError> {
        match self {
            Self::Categorical { name, categories } => Ok(ColumnEncoding::Categorical {
                name: name.clone(),
                categories: categories.iter().cloned().collect(),
            }),
            Self::Numeric { name, count, sums } => {
                let policy = schema.missing.numeric;
                let needs = standardize || matches!(policy, MissingNumeric::Mean | MissingNumeric::Indicator);
                let (mean, std) = match sums {
                    Some(sums) => sums.moments(*count)?,
                    None if needs => {
                        return Err(DataError::Encoding(format!(
                            "column {name} was surveyed without sums; survey with moments"
                        )));
                    }
                    None => (0.0, 1.0),
                };
                Ok(ColumnEncoding::Numeric {
                    name: name.clone(),
                    mean: if standardize { mean } else { 0.0 },
                    std: if standardize { std } else { 1.0 },
                    fill: match policy {
                        MissingNumeric::Mean | MissingNumeric::Indicator => Some(mean),
                        MissingNumeric::Zero => Some(0.0),
                        MissingNumeric::Refuse => None,
                    },
                    indicator: policy == MissingNumeric::Indicator && *count < rows,
                })
            }
        }
    }
}

impl ColumnEncoding {
    fn width(&self) -> usize {
        match self {
            Self::Numeric { indicator, .. } => 1 + usize::from(*indicator),
            Self::Categorical { categories, .. } => categories.len(),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Numeric { name, indicator: false, .. } => vec![name.clone()],
            Self::Numeric { name, indicator: true, .. } => vec![name.clone(), format!("{name} (missing)")],
            Self::Categorical { name, categories } => categories
                .iter()
                .map(|category| {
                    if category.is_empty() {
                        format!("{name} (missing)")
                    } else {
                        format!("{name}={category}")
                    }
                })
                .collect(),
        }
    }
}

fn classes(survey: &Survey) -> Vec<String> {
    let mut classes: Vec<String> =
        survey.classes.iter().filter(|&(_, &count)| count > 0).map(|(name, _)| name.clone()).collect();
    let numbers: Option<Vec<i64>> = classes.iter().map(|name| name.parse().ok()).collect();
    if numbers.is_some() {
        // The names break ties such as "1" and "01".
        classes.sort_by_cached_key(|name| (name.parse::<i64>().unwrap_or(i64::MAX), name.clone()));
    }
    classes
}

/// What stands for a missing name, as a category; `None` where it gives zeros.
fn missing_category(categories: &[String]) -> Option<usize> {
    categories.binary_search_by(|category| category.as_str().cmp("")).ok()
}
