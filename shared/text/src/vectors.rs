use crate::error::TextError;

/// Embeddings of length one, `[N, D]` row-major: the dot product of two is the cosine of their angle.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitVectors {
    dim: usize,
    data: Vec<f32>,
}

impl UnitVectors {
    /// Scales each row of `rows`, `[N, dim]` row-major, to length one.
    ///
    /// Errors: `dim` is 0, a length that is no multiple of it, a row that is not finite or has no direction.
    pub fn new(rows: &[f32], dim: usize) -> Result<Self, TextError> {
        if dim == 0 {
            return Err(TextError::setting("dim", "embeddings need at least one dimension"));
        }
        if !rows.len().is_multiple_of(dim) {
            let expected = rows.len().next_multiple_of(dim);
            return Err(TextError::Length { what: "values of the embeddings", expected, got: rows.len() });
        }
        let mut data = Vec::with_capacity(rows.len());
        for (row, values) in rows.chunks_exact(dim).enumerate() {
            let reason =
                if values.iter().any(|v| !v.is_finite()) { "is not finite" } else { "has length zero" };
            let unit = normalised(&values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
            data.extend(unit.ok_or(TextError::Embedding { row, reason })?);
        }
        Ok(Self { dim, data })
    }

    pub(crate) fn empty(dim: usize) -> Self {
        Self { dim, data: Vec::new() }
    }

    /// Vectors `N`.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Dimensions `D`.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Vector `index`, `[D]`; panics beyond the last, as a slice does.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.dim..][..self.dim]
    }

    pub(crate) fn set(&mut self, index: usize, row: &[f32]) {
        self.data[index * self.dim..][..self.dim].copy_from_slice(row);
    }

    pub(crate) fn push(&mut self, row: &[f32]) {
        debug_assert_eq!(row.len(), self.dim);
        self.data.extend_from_slice(row);
    }
}

/// Cosine of two unit vectors of one length. Summed in order in double precision: the same bits on every machine.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `values` at length one, if they have a direction.
pub(crate) fn normalised(values: &[f64]) -> Option<Vec<f32>> {
    // The largest value is taken out first, so that squares can neither overflow nor vanish.
    let largest = values.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
    if !(largest.is_finite() && largest > 0.0) || values.iter().any(|v| v.is_nan()) {
        return None;
    }
    let norm = values.iter().map(|v| (v / largest).powi(2)).sum::<f64>().sqrt();
    Some(values.iter().map(|v| (v / largest / norm) as f32).collect())
}

/// The mean direction of rows of `vectors`, unless it is (nearly) zero: opposite vectors have none.
pub(crate) fn mean_direction(vectors: &UnitVectors, rows: impl Iterator<Item = usize>) -> Option<Vec<f32>> {
    let mut sum = vec![0.0; vectors.dim()];
    let mut count = 0.0_f64;
    for row in rows {
        count += 1.0;
        sum.iter_mut().zip(vectors.row(row)).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
    // Below this a direction is rounding of single-precision inputs.
    if norm > 1e-6 * count { normalised(&sum) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_length_one() {
        let vectors = UnitVectors::new(&[3.0, 4.0, 0.0, -2e-30, 1e30, 1e30], 2).unwrap();
        assert_eq!(vectors.row(0), [0.6, 0.8]);
        assert_eq!(vectors.row(1), [0.0, -1.0]);
        assert!((cosine(vectors.row(2), vectors.row(2)) - 1.0).abs() < 1e-6);
        assert_eq!(vectors.len(), 3);
    }

    #[test]
    fn rows_without_direction_are_refused() {
        let refused = |rows: &[f32]| UnitVectors::new(rows, 2).unwrap_err();
        assert!(matches!(refused(&[1.0, 0.0, 0.0, 0.0]), TextError::Embedding { row: 1, .. }));
        assert!(matches!(refused(&[f32::NAN, 1.0]), TextError::Embedding { row: 0, .. }));
        assert!(matches!(refused(&[1.0, f32::INFINITY]), TextError::Embedding { row: 0, .. }));
        assert!(matches!(refused(&[1.0; 3]), TextError::Length { expected: 4, got: 3, .. }));
        assert!(UnitVectors::new(&[], 0).is_err());
    }

    #[test]
    fn opposite_vectors_have_no_mean() {
        let vectors = UnitVectors::new(&[1.0, 0.0, -1.0, 0.0], 2).unwrap();
        assert_eq!(mean_direction(&vectors, 0..2), None);
    }
}
