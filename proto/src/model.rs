//! The published model: `model.safetensors` and its card `model.json`.

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use sheaf_analytic::{FeatureSpec, Weights};
use sheaf_data::{Encoding, Schema};

/// Everything needed to apply a model to new records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Version of this document, 1.
    pub schema: u32,
    /// Workload that made the model.
    pub workload: String,
    /// SHA-256 of the weight tensors' bytes (weight, then bias), 64 hexadecimal digits.
    pub sha256: String,
    /// Class names, in the order of the weight's columns.
    pub classes: Vec<String>,
    /// Ridge parameter.
    pub lambda: f64,
    /// How columns are read.
    pub reading: Schema,
    /// How records become input rows.
    pub encoding: Encoding,
    /// How input rows become feature rows.
    pub features: FeatureSpec,
    /// Training rows in the sums; none where they are private.
    #[serde(default)]
    pub rows: Option<u64>,
    /// Sites in the sums, by name.
    pub sites: Vec<String>,
}

/// A model file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Not safetensors.
    #[error("the model file is not a readable safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// Tensors missing or of another shape.
    #[error("the model file does not fit its card: {0}")]
    Shape(String),
}

/// Writes `weight` [D, C] f64 and, where the features have one, `bias` [C] f64.
pub fn write_model(weights: &Weights, features: &FeatureSpec) -> Result<Vec<u8>, ModelError> {
    let bytes = weights.to_le_bytes();
    let (dim, classes) = (weights.dim, weights.classes);
    let rows = dim - usize::from(features.bias);
    let (weight, bias) = bytes.split_at(rows * classes * 8);
    let mut tensors = vec![("weight", TensorView::new(Dtype::F64, vec![rows, classes], weight)?)];
    if features.bias {
        tensors.push(("bias", TensorView::new(Dtype::F64, vec![classes], bias)?));
    }
    Ok(safetensors::serialize(tensors, None)?)
}

/// Reads what [`write_model`] wrote, for features and a number of classes that are known.
pub fn read_model(bytes: &[u8], features: &FeatureSpec, classes: usize) -> Result<Weights, ModelError> {
    let file = SafeTensors::deserialize(bytes)?;
    let dim = features.output_dim();
    let rows = dim - usize::from(features.bias);
    let mut values = Vec::with_capacity(dim * classes);
    let mut take = |name: &str, shape: &[usize]| {
        let tensor = file.tensor(name)?;
        if tensor.dtype() != Dtype::F64 || tensor.shape() != shape {
            return Err(ModelError::Shape(format!(
                "tensor `{name}` is {:?} {:?}, expected F64 {shape:?}",
                tensor.dtype(),
                tensor.shape()
            )));
        }
        let (words, _) = tensor.data().as_chunks::<8>();
        values.extend(words.iter().map(|word| f64::from_le_bytes(*word)));
        Ok(())
    };
    take("weight", &[rows, classes])?;
    if features.bias {
        take("bias", &[classes])?;
    }
    if values.iter().any(|v| !v.is_finite()) {
        return Err(ModelError::Shape("a weight is NaN or infinite".to_owned()));
    }
    Weights::new(dim, classes, values).map_err(|e| ModelError::Shape(e.to_string()))
}
