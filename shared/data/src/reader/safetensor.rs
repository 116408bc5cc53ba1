//! Safetensors files with `x`, `y`, and if they are there `site` and `split`.

use super::array::{self, Array, Element, Names, Part};
use crate::{DataError, Split};
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// Reads one file. The crate checks header, shapes and offsets against the file's length.
pub(super) fn read(path: &Path) -> Result<Part, DataError> {
    let bytes = std::fs::read(path).map_err(|e| DataError::read(path, e))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| DataError::file(path, format!("not a whole safetensors file: {e}; write it again")))?;
    let tensor = |name: &str| -> Result<Option<Array>, DataError> {
        if !file.names().contains(&name) {
            return Ok(None);
        }
        let view = file.tensor(name).map_err(|e| DataError::file(path, format!("tensor {name}: {e}")))?;
        let element = match view.dtype() {
            Dtype::U8 | Dtype::BOOL => Element::U8,
            Dtype::I32 => Element::I32,
            Dtype::I64 => Element::I64,
            Dtype::F16 => Element::F16,
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            other => {
                return Err(DataError::file(
                    path,
                    format!("tensor {name} has type {other:?}, which is not read; convert it"),
                ));
            }
        };
        Ok(Some(Array { element, shape: view.shape().to_vec(), bytes: view.data().to_vec() }))
    };
    let vector = |name: &str| tensor(name)?.map(|array| array::integers(path, name, &array)).transpose();
    let x = tensor("x")?.ok_or_else(|| {
        DataError::file(
            path,
            format!(
                "has no tensor x; it has {:?}. Name the inputs x [N, d] and the labels y [N]",
                file.names()
            ),
        )
    })?;
    let named = |name: &str| -> Result<Option<Names>, DataError> {
        vector(name)?.map(|numbers| name_all(path, &bytes, name, numbers)).transpose()
    };
    let mut part = array::part(path, &x, None)?;
    part.labels = named("y")?;
    part.sites = named("site")?;
    part.split = vector("split")?
        .map(|split| {
            split
                .into_iter()
                .enumerate()
                .map(|(row, value)| match value {
                    0 => Ok(Split::Train),
                    1 => Ok(Split::Test),
                    _ => Err(DataError::cell(
                        path,
                        row,
                        "split",
                        format!("{value} is neither 0 (training) nor 1 (test)"),
                    )),
                })
                .collect()
        })
        .transpose()?;
    Ok(part)
}

/// Numbers as names: places in the metadata's list `NAME.names` where there is one, -1 for none; else the numbers
/// themselves.
fn name_all(path: &Path, bytes: &[u8], name: &str, numbers: Vec<i64>) -> Result<Names, DataError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|e| DataError::file(path, format!("not a whole safetensors file: {e}; write it again")))?;
    let key = format!("{name}.names");
    let Some(list) = metadata.metadata().as_ref().and_then(|metadata| metadata.get(&key)) else {
        return Ok(array::numbered(numbers));
    };
    let list: Vec<String> = serde_json::from_str(list)
        .map_err(|_| DataError::file(path, format!("the metadata {key} is not a JSON list of names")))?;
    let of = |(row, number): (usize, i64)| match usize::try_from(number) {
        Err(_) if number == -1 => Ok(None),
        Ok(at) if at < list.len() => Ok(Some(list[at].clone())),
        _ => Err(DataError::cell(path, row, name, format!("is none of the {} places of {key}", list.len()))),
    };
    numbers.into_iter().enumerate().map(of).collect()
}
