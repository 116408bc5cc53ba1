//! Sums as one vector of integers, as secure aggregation adds them.

use crate::error::AnalyticError;
use crate::sums::{Sums, SumsShape, packed_len};

impl SumsShape {
    /// Elements of a vector of sums.
    pub fn vector_len(&self) -> u64 {
        let (dim, classes) = (self.dim as u64, self.classes as u64);
        dim * (dim + 1) / 2 + dim * classes + classes + 1
    }

    /// Largest magnitude of an element when the sums are of at most `rows` rows: that of the Gram matrix's diagonal.
    /// None above 2^62, where sums do not go.
    pub fn vector_bound(&self, rows: u64) -> Option<u64> {
        let square = self.max_abs.unsigned_abs().max(1).checked_mul(self.max_abs.unsigned_abs().max(1))?;
        rows.checked_mul(square).filter(|bound| *bound <= 1 << 62)
    }
}

impl Sums {
    /// Gram matrix (packed), cross matrix, rows of each class, rows: adding two vectors adds the sums.
    pub fn to_vector(&self) -> Vec<i64> {
        // Counts are at most MAX_ROWS, 2^40.
        let counts = self.counts.iter().map(|&count| count as i64);
        let matrices = self.gram.iter().chain(&self.cross).copied();
        matrices.chain(counts).chain([self.rows as i64]).collect()
    }

    /// Reads what [`Sums::to_vector`] has written. Length and signs are checked here, contents by [`Sums::validate`].
    pub fn from_vector(shape: &SumsShape, mut vector: Vec<i64>) -> Result<Self, AnalyticError> {
        shape.validate()?;
        let (expected, got) = (shape.vector_len() as usize, vector.len());
        if expected != got {
            return Err(AnalyticError::Length { what: "the vector of sums", expected, got });
        }
        let tail = vector.split_off(packed_len(shape.dim) + shape.dim * shape.classes);
        let cross = vector.split_off(packed_len(shape.dim));
        let counts: Result<Vec<u64>, _> = tail.into_iter().map(u64::try_from).collect();
        let mut counts = counts.map_err(|_| AnalyticError::Overflow { what: "a count" })?;
        let rows = counts.pop().ok_or(AnalyticError::NoRows)?;
        Self::from_parts(shape, rows, counts, vector, cross)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::GramAccumulator;

    const SHAPE: SumsShape = SumsShape { dim: 3, classes: 2, bits: 4, max_abs: 16 };

    fn sums(rows: &[([i8; 3], bool)]) -> Sums {
        let mut accumulator =
            GramAccumulator::new(SHAPE.dim, SHAPE.classes, SHAPE.bits, SHAPE.max_abs).unwrap();
        for (row, label) in rows {
            let row: Vec<f64> = row.iter().map(|&v| f64::from(v % 17)).collect();
            accumulator.push(&row, &[u32::from(*label)]).unwrap();
        }
        accumulator.finish()
    }

    proptest! {
        #[test]
        fn adding_vectors_adds_sums(
            a in prop::collection::vec((any::<[i8; 3]>(), any::<bool>()), 0..20),
            b in prop::collection::vec((any::<[i8; 3]>(), any::<bool>()), 0..20),
        ) {
            let (mut a, b) = (sums(&a), sums(&b));
            let bound = SHAPE.vector_bound(20).unwrap();
            prop_assert!(a.to_vector().iter().all(|v| v.unsigned_abs() <= bound));
            prop_assert_eq!(a.to_vector().len() as u64, SHAPE.vector_len());
            let added: Vec<i64> = a.to_vector().iter().zip(b.to_vector()).map(|(a, b)| a + b).collect();
            a.add(&b).unwrap();
            prop_assert_eq!(Sums::from_vector(&SHAPE, added).unwrap(), a);
        }
    }

    #[test]
    fn what_cannot_be_sums_is_refused() {
        let vector = sums(&[([1, 2, 3], true)]).to_vector();
        assert!(Sums::from_vector(&SHAPE, vector[1..].to_vec()).is_err());
        let mut negative = vector;
        *negative.last_mut().unwrap() = -1;
        assert!(Sums::from_vector(&SHAPE, negative).is_err());
        assert_eq!(SHAPE.vector_bound(u64::MAX), None);
    }
}
