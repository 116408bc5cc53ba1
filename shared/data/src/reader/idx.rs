//! IDX, the format of MNIST and its relatives: two zero bytes, a type byte (8 = u8), the number of dimensions, each
//! dimension as a big-endian u32, then the values.

use super::array::{self, Array, Element, Part};
use super::bytes;
use crate::{DataError, Dataset, Schema};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Reads one or two pairs of files.
pub(crate) fn read(
    train: &(PathBuf, Option<PathBuf>),
    test: Option<&(PathBuf, Option<PathBuf>)>,
    schema: &Schema,
) -> Result<Dataset, DataError> {
    let read = |(x, y): &(PathBuf, Option<PathBuf>)| -> Result<Part, DataError> {
        let labels = y.as_deref().map(|y| array::integers(y, "labels", &read_array(y)?)).transpose()?;
        array::part(x, &read_array(x)?, labels)
    };
    array::assemble(read(train)?, test.map(read).transpose()?, schema)
}

fn read_array(path: &Path) -> Result<Array, DataError> {
    let mut reader = bytes::open(path)?;
    let fail = |e: std::io::Error| DataError::file(path, format!("cut off in the header: {e}"));
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(fail)?;
    let [0, 0, 8, rank] = magic else {
        return Err(DataError::file(
            path,
            format!("starts with {magic:?}; an IDX file of bytes starts with 0, 0, 8"),
        ));
    };
    let mut shape = Vec::new();
    for _ in 0..rank {
        let mut size = [0; 4];
        reader.read_exact(&mut size).map_err(fail)?;
        shape.push(u32::from_be_bytes(size) as usize);
    }
    let count = bytes::volume(path, &shape, 1)?;
    Ok(Array { element: Element::U8, shape, bytes: bytes::read_rest(path, reader, count)? })
}
