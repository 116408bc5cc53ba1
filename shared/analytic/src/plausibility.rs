use crate::error::AnalyticError;
use crate::sums::SumsShape;

/// The content checks of [`crate::Sums::validate`], fed piece by piece, so that encoded sums are checked without being
/// unpacked.
pub(crate) struct Plausibility<'a> {
    shape: SumsShape,
    counts: &'a [u64],
    diagonal_limit: i64,
    diagonal: Vec<i64>,
}

impl<'a> Plausibility<'a> {
    pub(crate) fn new(shape: &SumsShape, rows: u64, counts: &'a [u64]) -> Result<Self, AnalyticError> {
        shape.validate()?;
        if rows == 0 {
            return Err(AnalyticError::NoRows);
        }
        let limit = shape.max_rows();
        if rows > limit {
            return Err(AnalyticError::TooManyRows { rows, limit });
        }
        let counted: u128 = counts.iter().map(|&n| u128::from(n)).sum();
        if counted != u128::from(rows) {
            return Err(AnalyticError::Counts { counted, rows });
        }
        let diagonal_limit = rows as i64 * shape.max_abs * shape.max_abs;
        Ok(Self { shape: *shape, counts, diagonal_limit, diagonal: Vec::with_capacity(shape.dim) })
    }

    /// Takes the next values of the diagonal.
    pub(crate) fn diagonal(&mut self, values: &[i64]) -> Result<(), AnalyticError> {
        for &value in values {
            if value < 0 || value > self.diagonal_limit {
                let (index, limit) = (self.diagonal.len(), self.diagonal_limit);
                return Err(AnalyticError::Diagonal { index, value, limit });
            }
            self.diagonal.push(value);
        }
        Ok(())
    }

    /// Checks `g[row, first..]`; the whole diagonal must have been given.
    pub(crate) fn off_diagonal(&self, row: usize, first: usize, values: &[i64]) -> Result<(), AnalyticError> {
        let pivot = i128::from(self.diagonal[row]);
        let others = &self.diagonal[first..];
        let breaks = |(&value, &other): (&i64, &i64)| {
            i128::from(value) * i128::from(value) > pivot * i128::from(other)
        };
        match values.iter().zip(others).position(breaks) {
            None => Ok(()),
            Some(k) => Err(AnalyticError::OffDiagonal { row, column: first + k, value: values[k] }),
        }
    }

    /// Checks `B` from the flat index `start` on.
    pub(crate) fn cross(&self, start: usize, values: &[i64]) -> Result<(), AnalyticError> {
        let classes = self.shape.classes;
        let mut class = start % classes;
        for (k, &value) in values.iter().enumerate() {
            // Below 2^62: each count is at most the rows, and those are within max_rows.
            let limit = self.counts[class] as i64 * self.shape.max_abs;
            if value > limit || value < -limit {
                return Err(AnalyticError::Cross { row: (start + k) / classes, class, value, limit });
            }
            class = if class + 1 == classes { 0 } else { class + 1 };
        }
        Ok(())
    }
}
