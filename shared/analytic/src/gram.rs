use crate::error::AnalyticError;
use crate::kernel::padded;
use crate::sums::{Sums, SumsShape, packed_len, rows_within};
use crate::syrk::add_gram;

/// Rows gathered before a matrix product, so that pushing a few at a time costs no more than pushing many.
const BLOCK_ROWS: usize = 512;

/// Feeds quantised rows block by block into [`Sums`]: exact, whatever the blocks, the threads or the order.
///
/// Products of integers are summed in `f64` only while every partial sum stays below 2^53, then moved into `i64`.
/// Memory: `D^2` doubles, and the packed `i64` triangle from the first move on.
pub struct GramAccumulator {
    shape: SumsShape,
    rows: u64,
    counts: Vec<u64>,
    /// Rows waiting for a product, with their labels.
    waiting: Vec<f64>,
    waiting_labels: Vec<u32>,
    /// Upper triangle, `[n, n]` row-major with `n` padded to whole strips.
    gram: Vec<f64>,
    /// `[C, D]`: a row is added to one contiguous class.
    cross: Vec<f64>,
    /// Rows in `gram` and `cross`.
    held: u64,
    /// What no longer fits 53 bits.
    moved: Option<Sums>,
}

impl GramAccumulator {
    /// An empty accumulator for `dim` features within `max_abs` and `classes` classes.
    pub fn new(dim: usize, classes: usize, bits: u32, max_abs: i64) -> Result<Self, AnalyticError> {
        let shape = SumsShape { dim, classes, bits, max_abs };
        shape.validate()?;
        Ok(Self {
            shape,
            rows: 0,
            counts: vec![0; classes],
            waiting: Vec::new(),
            waiting_labels: Vec::new(),
            gram: vec![0.0; padded(dim) * padded(dim)],
            cross: vec![0.0; dim * classes],
            held: 0,
            moved: None,
        })
    }

    /// Adds rows `q`, `[labels.len(), D]` row-major integers within `max_abs`. On an error nothing is added.
    pub fn push(&mut self, q: &[f64], labels: &[u32]) -> Result<(), AnalyticError> {
        self.check(q, labels)?;
        self.rows += labels.len() as u64;
        for &label in labels {
            self.counts[label as usize] += 1;
        }
        if self.waiting_labels.len() + labels.len() < BLOCK_ROWS {
            self.waiting.extend_from_slice(q);
            self.waiting_labels.extend_from_slice(labels);
            return Ok(());
        }
        self.multiply_waiting();
        if labels.len() < BLOCK_ROWS {
            self.waiting.extend_from_slice(q);
            self.waiting_labels.extend_from_slice(labels);
        } else {
            self.multiply(q, labels);
        }
        Ok(())
    }

    /// The sums of all rows pushed.
    pub fn finish(mut self) -> Sums {
        self.multiply_waiting();
        // The buffer is not needed any more; the packed triangle may be as large.
        (self.waiting, self.waiting_labels) = (Vec::new(), Vec::new());
        let SumsShape { dim, classes, bits, .. } = self.shape;
        if self.moved.is_some() {
            self.move_held();
        }
        let (gram, cross) = match self.moved {
            None => (pack(&self.gram, dim), transpose(&self.cross, dim, classes)),
            Some(moved) => (moved.gram, moved.cross),
        };
        Sums { dim, classes, bits, rows: self.rows, counts: self.counts, gram, cross }
    }

    fn check(&self, q: &[f64], labels: &[u32]) -> Result<(), AnalyticError> {
        let SumsShape { dim, classes, max_abs, .. } = self.shape;
        if q.len() != labels.len() * dim {
            let expected = labels.len() * dim;
            return Err(AnalyticError::Length { what: "the quantised rows", expected, got: q.len() });
        }
        let (rows, limit) = (self.rows + labels.len() as u64, self.shape.max_rows());
        if rows > limit {
            return Err(AnalyticError::TooManyRows { rows, limit });
        }
        if let Some(row) = labels.iter().position(|&l| l as usize >= classes) {
            return Err(AnalyticError::Label { row, label: labels[row], classes });
        }
        let bound = max_abs as f64;
        let sound = |v: f64| v.abs() <= bound && v.fract().abs() == 0.0;
        let all = pulp::Arch::new().dispatch(
            #[inline(always)]
            || q.iter().fold(true, |all, &v| all & sound(v)),
        );
        if all {
            return Ok(());
        }
        let at = q.iter().position(|&v| !sound(v)).unwrap_or(0);
        let (row, column, value) = (at / dim, at % dim, q[at].to_string());
        Err(AnalyticError::NotQuantised { row, column, value, max_abs })
    }

    fn multiply_waiting(&mut self) {
        let (q, labels) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.waiting_labels));
        self.multiply(&q, &labels);
        (self.waiting, self.waiting_labels) = (q, labels);
        self.waiting.clear();
        self.waiting_labels.clear();
    }

    /// Adds checked rows, in pieces that keep every partial sum within 53 bits.
    fn multiply(&mut self, q: &[f64], labels: &[u32]) {
        let dim = self.shape.dim;
        let exact = rows_within(53, self.shape.max_abs);
        let piece = usize::try_from(exact).unwrap_or(usize::MAX).min(labels.len()).max(1);
        for (q, labels) in q.chunks(piece.saturating_mul(dim)).zip(labels.chunks(piece)) {
            if self.held + labels.len() as u64 > exact {
                self.move_held();
            }
            self.held += labels.len() as u64;
            for (row, &label) in q.chunks_exact(dim).zip(labels) {
                let class = &mut self.cross[label as usize * dim..][..dim];
                class.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
            }
            add_gram(&mut self.gram, q, dim);
        }
    }

    fn move_held(&mut self) {
        let SumsShape { dim, classes, bits, .. } = self.shape;
        let moved = self.moved.get_or_insert_with(|| Sums::zero(dim, classes, bits));
        let mut packed = moved.gram.as_mut_slice();
        for (i, upper) in self.gram.chunks_exact(padded(dim)).take(dim).enumerate() {
            let (row, rest) = packed.split_at_mut(dim - i);
            row.iter_mut().zip(&upper[i..dim]).for_each(|(sum, v)| *sum += *v as i64);
            packed = rest;
        }
        for (d, sums) in moved.cross.chunks_exact_mut(classes).enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum += self.cross[c * dim + d] as i64;
            }
        }
        self.gram.fill(0.0);
        self.cross.fill(0.0);
        self.held = 0;
    }
}

fn pack(upper: &[f64], dim: usize) -> Vec<i64> {
    let mut packed = Vec::with_capacity(packed_len(dim));
    for (i, row) in upper.chunks_exact(padded(dim)).take(dim).enumerate() {
        packed.extend(row[i..dim].iter().map(|&v| v as i64));
    }
    packed
}

fn transpose(cross: &[f64], dim: usize, classes: usize) -> Vec<i64> {
    let mut out = Vec::with_capacity(dim * classes);
    for d in 0..dim {
        out.extend((0..classes).map(|c| cross[c * dim + d] as i64));
    }
    out
}

#[cfg(test)]
mod tests;
