//! Flat Parquet columns as cells of text, so that a table is read alike from CSV and Parquet.

use super::table::RawColumn;
use crate::DataError;
use parquet::basic::{ConvertedType, LogicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Records decoded at once; bounds what a false row count can allocate.
const BATCH: usize = 8192;

/// Reads all columns: integers, floats, booleans and text; nested columns are refused.
pub(super) fn read(path: &Path) -> Result<Vec<RawColumn>, DataError> {
    let file = File::open(path).map_err(|e| DataError::read(path, e))?;
    // The decoder asserts on some damaged pages; a damaged file must be an error here, not the end of the process.
    catch_unwind(AssertUnwindSafe(|| read_file(path, file))).unwrap_or_else(|_| {
        Err(DataError::file(path, "not a whole Parquet file: a page is damaged; write it again"))
    })
}

fn read_file(path: &Path, file: File) -> Result<Vec<RawColumn>, DataError> {
    let broken =
        |e: ParquetError| DataError::file(path, format!("not a whole Parquet file: {e}; write it again"));
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let mut columns: Vec<RawColumn> = Vec::new();
    for column in schema.columns() {
        if column.max_rep_level() > 0 || column.path().parts().len() != 1 || column.max_def_level() > 1 {
            return Err(DataError::file(
                path,
                format!("column {} is nested; only flat columns are read", column.path()),
            ));
        }
        columns.push(RawColumn { name: column.name().to_owned(), cells: Vec::new() });
    }
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(broken)?;
        for (at, column) in columns.iter_mut().enumerate() {
            read_chunk(path, group.as_ref(), at, &schema.column(at), &mut column.cells)?;
        }
    }
    let rows = columns.first().map_or(0, |column| column.cells.len());
    if columns.iter().any(|column| column.cells.len() != rows) {
        return Err(DataError::file(path, "the columns have different lengths; the file is damaged"));
    }
    Ok(columns)
}

fn read_chunk(
    path: &Path,
    group: &dyn RowGroupReader,
    at: usize,
    column: &ColumnDescriptor,
    cells: &mut Vec<String>,
) -> Result<(), DataError> {
    let name = column.name();
    let broken = |e: ParquetError| DataError::file(path, format!("column {name}: {e}; write the file again"));
    if matches!(column.converted_type(), ConvertedType::DECIMAL)
        || matches!(column.logical_type_ref(), Some(LogicalType::Decimal { .. } | LogicalType::Float16))
    {
        return Err(DataError::file(
            path,
            format!("column {name} is a decimal or half float; write it as a double"),
        ));
    }
    let unsigned = matches!(column.converted_type(), ConvertedType::UINT_32 | ConvertedType::UINT_64);
    let optional = column.max_def_level() > 0;
    let result = match group.get_column_reader(at).map_err(broken)? {
        ColumnReader::BoolColumnReader(r) => drain(r, optional, cells, |v| Some(v.to_string())),
        ColumnReader::Int32ColumnReader(r) if unsigned => {
            drain(r, optional, cells, |v| Some(v.cast_unsigned().to_string()))
        }
        ColumnReader::Int64ColumnReader(r) if unsigned => {
            drain(r, optional, cells, |v| Some(v.cast_unsigned().to_string()))
        }
        ColumnReader::Int32ColumnReader(r) => drain(r, optional, cells, |v| Some(v.to_string())),
        ColumnReader::Int64ColumnReader(r) => drain(r, optional, cells, |v| Some(v.to_string())),
        ColumnReader::FloatColumnReader(r) => drain(r, optional, cells, |v| Some(f64::from(*v).to_string())),
        ColumnReader::DoubleColumnReader(r) => drain(r, optional, cells, |v| Some(v.to_string())),
        ColumnReader::ByteArrayColumnReader(r) => {
            drain(r, optional, cells, |v: &ByteArray| v.as_utf8().ok().map(str::to_owned))
        }
        ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => {
            let problem =
                format!("column {name} has a type that is not read; write it as a number, boolean or text");
            return Err(DataError::file(path, problem));
        }
    };
    result.map_err(|e| match e {
        DrainError::Parquet(e) => broken(e),
        DrainError::NotText(row) => DataError::cell(path, row, name, "is not UTF-8 text"),
    })
}

enum DrainError {
    Parquet(ParquetError),
    NotText(usize),
}

/// Appends every value of a column chunk as text; a null is an empty cell, as in CSV.
fn drain<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    optional: bool,
    cells: &mut Vec<String>,
    to_text: impl Fn(&T::T) -> Option<String>,
) -> Result<(), DrainError> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    loop {
        levels.clear();
        values.clear();
        let (records, _, _) = reader
            .read_records(BATCH, optional.then_some(&mut levels), None, &mut values)
            .map_err(DrainError::Parquet)?;
        if records == 0 {
            return Ok(());
        }
        let mut present = values.iter();
        for row in 0..records {
            let value = if !optional || levels.get(row).is_some_and(|&level| level > 0) {
                present.next()
            } else {
                None
            };
            let at = cells.len();
            cells.push(value.map_or(Some(String::new()), &to_text).ok_or(DrainError::NotText(at))?);
        }
    }
}
