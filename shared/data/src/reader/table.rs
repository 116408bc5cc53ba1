//! Tables with named columns: CSV (plain or gzip) and Parquet.

use super::{bytes, parquet};
use crate::dataset::{Column, Reading, Records};
use crate::{DataError, Dataset, Levels, Schema, Split, split};
use std::path::Path;

/// Cells of a column before they are interned.
pub(super) struct RawColumn {
    pub(super) name: String,
    pub(super) cells: Vec<String>,
}

/// Reads a table, mends it and reads its columns as the schema says.
pub(crate) fn read(path: &Path, schema: &Schema) -> Result<Dataset, DataError> {
    let mut raw = match bytes::extension(path).as_str() {
        "csv" => read_csv(path)?,
        "parquet" => parquet::read(path)?,
        other => {
            return Err(DataError::file(
                path,
                format!("ends in .{other}; tables are read from .csv, .csv.gz and .parquet"),
            ));
        }
    };
    correct(path, &mut raw, schema)?;
    let names =
        |raw: &[RawColumn]| raw.iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(", ");
    let find = |name: &str| {
        raw.iter().find(|column| column.name == name).ok_or_else(|| {
            DataError::file(
                path,
                format!("has no column {name}, which the schema names; it has {}", names(&raw)),
            )
        })
    };
    for name in schema.numeric.iter().chain(&schema.categorical).chain(&schema.id) {
        find(name)?;
    }
    let labels =
        match schema.target.as_deref().and_then(|target| raw.iter().find(|column| column.name == target)) {
            Some(column) => labels(path, column, schema)?,
            // Rows to predict have no target; a survey refuses training rows without a label.
            None => Levels::new(vec![None::<&str>; raw.first().map_or(0, |column| column.cells.len())]),
        };
    let split = splits(path, &raw, schema)?;
    let sites = match &schema.site {
        Some(site) => raw
            .iter()
            .find(|column| &column.name == site)
            .map(|column| Levels::new(column.cells.iter().map(|cell| present(schema, site, cell)))),
        None => None,
    };
    let columns =
        raw.into_iter().map(|column| read_column(path, column, schema)).collect::<Result<_, _>>()?;
    Ok(Dataset { records: Records::Table(columns), labels, split, sites })
}

pub(super) fn read_csv(path: &Path) -> Result<Vec<RawColumn>, DataError> {
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes::open(path)?);
    let header = reader.headers().map_err(|e| DataError::file(path, format!("no header row: {e}")))?;
    let mut columns: Vec<RawColumn> = Vec::new();
    for name in header {
        let name = name.trim_start_matches('\u{feff}').trim();
        if columns.iter().any(|column| column.name == name) {
            return Err(DataError::file(path, format!("has two columns named {name:?}; rename one")));
        }
        columns.push(RawColumn { name: name.to_owned(), cells: Vec::new() });
    }
    let mut record = csv::StringRecord::new();
    let mut row = 0;
    while reader
        .read_record(&mut record)
        .map_err(|e| DataError::row(path, row, format!("not a CSV row: {e}")))?
    {
        for (column, cell) in columns.iter_mut().zip(&record) {
            column.cells.push(cell.to_owned());
        }
        row += 1;
    }
    Ok(columns)
}

fn correct(path: &Path, raw: &mut [RawColumn], schema: &Schema) -> Result<(), DataError> {
    let place = |raw: &[RawColumn], name: &str| {
        raw.iter().position(|column| column.name == name).ok_or_else(|| {
            DataError::file(path, format!("has no column {name}, which a correction in the schema names"))
        })
    };
    for correction in &schema.corrections {
        let asked = place(raw, &correction.column)?;
        let rows: Vec<usize> = raw[asked]
            .cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| **cell == correction.equals)
            .map(|(row, _)| row)
            .collect();
        for (name, value) in &correction.set {
            let at = place(raw, name)?;
            for &row in &rows {
                raw[at].cells[row].clone_from(value);
            }
        }
    }
    Ok(())
}

/// The cell, unless it is missing.
pub(super) fn present<'a>(schema: &Schema, column: &str, cell: &'a str) -> Option<&'a str> {
    Some(cell.trim()).filter(|cell| !schema.missing.is_missing(column, cell))
}

fn number(path: &Path, row: usize, column: &str, cell: &str) -> Result<f64, DataError> {
    match cell.trim().parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        // The cell itself stays out of the message: errors travel further than records may.
        _ => Err(DataError::cell(
            path,
            row,
            column,
            "is not a finite number; if the cell means \"missing\", list it under [schema.missing]",
        )),
    }
}

fn labels(path: &Path, target: &RawColumn, schema: &Schema) -> Result<Levels, DataError> {
    let mut labels = Vec::with_capacity(target.cells.len());
    for (row, cell) in target.cells.iter().enumerate() {
        let cell = present(schema, &target.name, cell);
        labels.push(match (cell, schema.positive_above) {
            (Some(cell), Some(limit)) => {
                Some(if number(path, row, &target.name, cell)? > limit { "1" } else { "0" })
            }
            (cell, _) => cell,
        });
    }
    Ok(Levels::new(labels))
}

fn splits(path: &Path, raw: &[RawColumn], schema: &Schema) -> Result<Vec<Split>, DataError> {
    let rows = raw.first().map_or(0, |column| column.cells.len());
    let Some(rule) = &schema.split else {
        return Ok(vec![Split::Train; rows]);
    };
    if let Some(name) = &rule.column {
        let column = raw.iter().find(|column| &column.name == name).ok_or_else(|| {
            DataError::file(path, format!("has no column {name}, which schema.split names"))
        })?;
        return column
            .cells
            .iter()
            .enumerate()
            .map(|(row, cell)| {
                split::parse(cell)
                    .ok_or_else(|| DataError::cell(path, row, name, "is neither train (0) nor test (1)"))
            })
            .collect();
    }
    // In the schema's order, so that the order of a file's columns and columns without use do not matter.
    let read: Vec<&RawColumn> = match &schema.id {
        Some(id) => vec![id],
        None => schema.numeric.iter().chain(&schema.categorical).chain(&schema.target).collect(),
    }
    .into_iter()
    .filter_map(|name| raw.iter().find(|column| &column.name == name))
    .collect();
    let content = |row: usize| read.iter().map(move |column| column.cells[row].as_bytes());
    Ok((0..rows).map(|row| split::decide(Some(rule), content(row))).collect())
}

fn read_column(path: &Path, raw: RawColumn, schema: &Schema) -> Result<Column, DataError> {
    let RawColumn { name, cells } = raw;
    let reading = if schema.numeric.contains(&name) {
        let mut numbers = Vec::with_capacity(cells.len());
        for (row, cell) in cells.iter().enumerate() {
            numbers.push(match present(schema, &name, cell) {
                Some(cell) => number(path, row, &name, cell)?,
                None => f64::NAN,
            });
        }
        Reading::Number(numbers)
    } else {
        Reading::Unread
    };
    let cells = if schema.categorical.contains(&name) {
        // Trimmed, so that " a" and "a" are one level everywhere.
        Levels::new(cells.iter().map(|cell| Some(cell.trim())))
    } else {
        Levels::new(cells.iter().map(Some))
    };
    let reading = match reading {
        Reading::Unread if schema.categorical.contains(&name) => {
            Reading::Name(cells.names().iter().map(|level| schema.missing.is_missing(&name, level)).collect())
        }
        reading => reading,
    };
    Ok(Column { name, cells, reading })
}
