//! CIFAR-10's binary files: records of one label byte and 3 * 32 * 32 bytes in planes R, G, B (Krizhevsky 2009).

use super::array::{self, Array, Element, Part};
use super::bytes;
use crate::{DataError, Dataset, Schema};
use std::io::Read;
use std::path::PathBuf;

/// Bytes of one image.
const PIXELS: usize = 3 * 32 * 32;

/// Reads training and test batches, in order.
pub(crate) fn read(train: &[PathBuf], test: &[PathBuf], schema: &Schema) -> Result<Dataset, DataError> {
    let train = batches(train)?
        .ok_or_else(|| DataError::Source("neither train nor asset is given; add one of them".into()))?;
    array::assemble(train, batches(test)?, schema)
}

fn batches(paths: &[PathBuf]) -> Result<Option<Part>, DataError> {
    let Some(first) = paths.first() else {
        return Ok(None);
    };
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in paths {
        let mut reader = bytes::open(path)?;
        let mut content = Vec::new();
        reader.read_to_end(&mut content).map_err(|e| DataError::read(path, e))?;
        let records = content.chunks_exact(1 + PIXELS);
        if !records.remainder().is_empty() {
            let problem =
                format!("{} bytes are not a whole number of records of {} bytes", content.len(), 1 + PIXELS);
            return Err(DataError::file(path, problem));
        }
        for (row, record) in records.enumerate() {
            if record[0] > 9 {
                return Err(DataError::row(
                    path,
                    row,
                    format!("the label is {}; CIFAR-10 has 0 to 9", record[0]),
                ));
            }
            labels.push(i64::from(record[0]));
            pixels.extend_from_slice(&record[1..]);
        }
    }
    let array = Array { element: Element::U8, shape: vec![labels.len(), 3, 32, 32], bytes: pixels };
    array::part(first, &array, Some(labels)).map(Some)
}
