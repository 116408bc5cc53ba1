//! Applying an encoding to rows.

use super::{ColumnEncoding, Encoding, Inputs, Moments, hashed_text, missing_category};
use crate::dataset::{Column, Reading, Records, Values};
use crate::{DataError, Dataset};

/// Refuses rows that are not there.
pub(super) fn check(dataset: &Dataset, rows: &[usize]) -> Result<(), DataError> {
    match rows.iter().find(|&&row| row >= dataset.len()) {
        Some(row) => {
            Err(DataError::Encoding(format!("row {row} is asked for, the data have {}", dataset.len())))
        }
        None => Ok(()),
    }
}

impl Encoding {
    /// Encodes rows: row-major `[rows, input_dim]`. Every row is encoded by itself, so any split of the rows gives the
    /// same numbers.
    ///
    /// # Errors
    /// [`DataError::Encoding`] or [`DataError::Schema`] where the data are of another kind or width, a column is not
    /// there, or a number is missing and the encoding refuses that.
    pub fn inputs(&self, dataset: &Dataset, rows: &[usize]) -> Result<Vec<f64>, DataError> {
        check(dataset, rows)?;
        match (&self.inputs, &dataset.records) {
            (Inputs::Dense { dim, standardize }, Records::Dense { dim: actual, values, .. }) => {
                if dim != actual {
                    let problem = format!("the model takes {dim} values a row, the data have {actual}");
                    return Err(DataError::Encoding(problem));
                }
                dense(*dim, standardize.as_ref(), values, rows)
            }
            (Inputs::Table { columns }, Records::Table(_)) => self.table(columns, dataset, rows),
            (Inputs::HashedText { dim }, Records::Text(texts)) => {
                self.check()?;
                let mut inputs = vec![0.0; rows.len() * dim];
                for (out, &row) in inputs.chunks_exact_mut(*dim).zip(rows) {
                    hashed_text::encode(&texts[row].body, out);
                }
                Ok(inputs)
            }
            _ => Err(DataError::Encoding("the data are of another kind than the model was made from".into())),
        }
    }

    fn table(
        &self,
        columns: &[ColumnEncoding],
        dataset: &Dataset,
        rows: &[usize],
    ) -> Result<Vec<f64>, DataError> {
        let width = self.input_dim();
        let mut inputs = vec![0.0; rows.len() * width];
        let mut offset = 0;
        for column in columns {
            match column {
                ColumnEncoding::Numeric { name, mean, std, fill, indicator } => {
                    let Reading::Number(numbers) = &dataset.column(name)?.reading else {
                        return Err(misread(name, "numbers"));
                    };
                    for (at, &row) in rows.iter().enumerate() {
                        let number = numbers[row];
                        let out = &mut inputs[at * width + offset..];
                        let value = if number.is_nan() {
                            fill.ok_or_else(|| {
                                DataError::Encoding(format!(
                                    "row {}, column {name}: no number, which the model refuses",
                                    row + 1
                                ))
                            })?
                        } else {
                            number
                        };
                        out[0] = standardized(value, *mean, *std);
                        if *indicator {
                            out[1] = f64::from(u8::from(number.is_nan()));
                        }
                    }
                }
                ColumnEncoding::Categorical { name, categories } => {
                    let column = dataset.column(name)?;
                    let places = places(column, categories)?;
                    for (at, &row) in rows.iter().enumerate() {
                        if let Some(place) = column.cells.code(row).and_then(|code| places[code as usize]) {
                            inputs[at * width + offset + place] = 1.0;
                        }
                    }
                }
            }
            offset += column.width();
        }
        Ok(inputs)
    }
}

fn standardized(value: f64, mean: f64, std: f64) -> f64 {
    if std == 0.0 { 0.0 } else { (value - mean) / std }
}

fn misread(name: &str, what: &str) -> DataError {
    DataError::Encoding(format!(
        "column {name} was not read as {what}; open the data with the model's schema"
    ))
}

/// For every level of the column the input that is 1 for it.
fn places(column: &Column, categories: &[String]) -> Result<Vec<Option<usize>>, DataError> {
    let Reading::Name(missing) = &column.reading else {
        return Err(misread(&column.name, "names"));
    };
    let place = |(level, &missing): (&String, &bool)| {
        if missing { missing_category(categories) } else { categories.binary_search(level).ok() }
    };
    Ok(column.cells.names().iter().zip(missing).map(place).collect())
}

fn dense(
    dim: usize,
    moments: Option<&Moments>,
    values: &Values,
    rows: &[usize],
) -> Result<Vec<f64>, DataError> {
    if moments.is_some_and(|m| m.mean.len() != dim || m.std.len() != dim) {
        return Err(DataError::Encoding(format!(
            "the moments are not of {dim} values; the model file is damaged"
        )));
    }
    Ok(match values {
        Values::U8(v) => {
            let scaled: Vec<f64> = (0..=255).map(|byte| f64::from(byte) / 255.0).collect();
            gather(v, dim, rows, moments, |byte| scaled[usize::from(byte)])
        }
        Values::F32(v) => gather(v, dim, rows, moments, f64::from),
        Values::F64(v) => gather(v, dim, rows, moments, |x| x),
    })
}

fn gather<T: Copy>(
    values: &[T],
    dim: usize,
    rows: &[usize],
    moments: Option<&Moments>,
    to_f64: impl Fn(T) -> f64,
) -> Vec<f64> {
    let mut inputs = Vec::with_capacity(rows.len() * dim);
    for &row in rows {
        let row = values[row * dim..(row + 1) * dim].iter().map(|&v| to_f64(v));
        match moments {
            None => inputs.extend(row),
            Some(Moments { mean, std }) => {
                inputs.extend(row.zip(mean).zip(std).map(|((v, &mean), &std)| standardized(v, mean, std)));
            }
        }
    }
    inputs
}
