use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::AnalyticError;

/// The weights `W` of a linear classifier, `[D, C]` row-major, the bias row (if any) last.
#[derive(Clone, PartialEq)]
pub struct Weights {
    /// Features `D`, the bias included.
    pub dim: usize,
    /// Classes `C`.
    pub classes: usize,
    data: Vec<f64>,
}

impl Weights {
    /// Weights from `[dim, classes]` row-major values, all finite.
    pub fn new(dim: usize, classes: usize, data: Vec<f64>) -> Result<Self, AnalyticError> {
        if dim == 0 || classes == 0 {
            let reason = format!("{dim} x {classes} weights classify nothing");
            return Err(AnalyticError::Spec { field: "the weight matrix", reason });
        }
        let expected = dim.saturating_mul(classes);
        if data.len() != expected {
            return Err(AnalyticError::Length { what: "the weight matrix", expected, got: data.len() });
        }
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            let (row, column, value) = (at / classes, at % classes, data[at].to_string());
            return Err(AnalyticError::NotFinite { row, column, value });
        }
        Ok(Self { dim, classes, data })
    }

    /// All values, `[D, C]` row-major.
    pub fn as_slice(&self) -> &[f64] {
        &self.data
    }

    /// All values as little-endian bytes.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        self.data.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// SHA-256 in hexadecimal of [`Weights::to_le_bytes`] and nothing else.
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        for row in self.data.chunks(4096) {
            let bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
        hex::encode(hasher.finalize())
    }

    /// Splits off the bias of a map with `bias = true`: weights `[D - 1, C]` and bias `[C]`.
    pub fn split_bias(&self) -> (&[f64], &[f64]) {
        self.data.split_at(self.data.len() - self.classes.min(self.data.len()))
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weights {{ dim: {}, classes: {}, sha256: {} }}", self.dim, self.classes, self.sha256())
    }
}
