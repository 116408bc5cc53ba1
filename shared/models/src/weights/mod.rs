//! Readers of weight files. Every reader bounds what it reads before it allocates: files come from outside.

pub mod gguf;
pub mod safetensors;
pub mod torch;

use std::{collections::BTreeMap, fs, path::Path};

use crate::ModelError;

/// A tensor in host memory, row-major f32.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values; as many as the product of `shape`.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }
}

/// Tensors by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TensorMap(pub BTreeMap<String, HostTensor>);

impl TensorMap {
    /// Takes a tensor out, in the shape that the architecture asks for.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when it is missing, has another shape, or holds NaN or infinite values.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<HostTensor, ModelError> {
        let refused = |reason: String| ModelError::Tensor { name: name.to_owned(), reason };
        let tensor = self
            .0
            .remove(name)
            .ok_or_else(|| refused("is missing; is this a file of another model?".to_owned()))?;
        if tensor.shape != shape {
            return Err(refused(format!("has the shape {:?}; {shape:?} is needed", tensor.shape)));
        }
        if let Some(at) = tensor.data.iter().position(|value| !value.is_finite()) {
            return Err(refused(format!(
                "value {at} is {}; the file is damaged or was saved from a diverged run",
                tensor.data[at]
            )));
        }
        Ok(tensor)
    }
}

/// Reads a file of weights, its format told by its first bytes: safetensors, or PyTorch's older format.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::Format`] for a damaged file, [`ModelError::Unsupported`] for another format.
pub fn read(path: &Path) -> Result<TensorMap, ModelError> {
    let bytes = fs::read(path).map_err(ModelError::io(path))?;
    from_bytes(&bytes, &path.display().to_string())
}

/// Reads the bytes of a file of weights; `file` names it in errors.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8], file: &str) -> Result<TensorMap, ModelError> {
    let unsupported = |what: &str, reason: &str| {
        Err(ModelError::Unsupported { what: format!("{file}: {what}"), reason: reason.to_owned() })
    };
    match bytes {
        [0x80, ..] => torch::from_bytes(bytes, file),
        [b'P', b'K', ..] => unsupported(
            "a PyTorch archive (zip)",
            "weights are read from safetensors files and from PyTorch files of the older format; save it again with \
             safetensors.torch.save_file",
        ),
        [b'G', b'G', b'U', b'F', ..] => unsupported(
            "GGUF",
            "it holds a language model; this model's weights are safetensors or PyTorch files",
        ),
        _ => safetensors::from_bytes(bytes, file),
    }
}

/// Little-endian values of `N` bytes.
fn values<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

#[cfg(test)]
mod tests;
