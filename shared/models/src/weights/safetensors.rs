//! Safetensors files, any floating type, as f32.

use std::{collections::BTreeMap, fs, path::Path};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{HostTensor, TensorMap, values};
use crate::ModelError;

/// Reads a file.
///
/// # Errors
/// [`ModelError::Io`], or [`ModelError::Format`] for a truncated or damaged file.
pub fn read(path: &Path) -> Result<TensorMap, ModelError> {
    let bytes = fs::read(path).map_err(ModelError::io(path))?;
    from_bytes(&bytes, &path.display().to_string())
}

/// Reads the bytes of a file; `file` names it in errors. Tensors of whole numbers are left out: no weight is one.
///
/// # Errors
/// [`ModelError::Format`].
pub fn from_bytes(bytes: &[u8], file: &str) -> Result<TensorMap, ModelError> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| ModelError::Format {
        file: file.to_owned(),
        reason: format!("not a whole safetensors file ({e}); fetch it again"),
    })?;
    let mut map = TensorMap::default();
    for (name, view) in tensors.iter() {
        let data = view.data();
        let data = match view.dtype() {
            Dtype::F32 => values(data, f32::from_le_bytes),
            Dtype::F64 => values(data, |bytes| f64::from_le_bytes(bytes) as f32),
            Dtype::F16 => values(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => values(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            _ => continue,
        };
        map.0.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), data });
    }
    Ok(map)
}

/// A file's bytes, every tensor as f32, in the order of their names.
///
/// # Errors
/// [`ModelError::Format`] when a shape does not fit its values.
pub fn write(tensors: &BTreeMap<String, HostTensor>) -> Result<Vec<u8>, ModelError> {
    let refused = |e: safetensors::SafeTensorError| ModelError::Format {
        file: "safetensors".to_owned(),
        reason: e.to_string(),
    };
    let bytes: Vec<Vec<u8>> = tensors
        .values()
        .map(|tensor| tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, tensor), bytes)| {
            Ok((name.clone(), TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(refused)?))
        })
        .collect::<Result<Vec<_>, ModelError>>()?;
    safetensors::serialize(views, None).map_err(refused)
}
