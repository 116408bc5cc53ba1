use super::DpError;

/// Part of the clipping norm that is left for rounding.
const MARGIN: f64 = 1.0 / 1024.0;

/// Units in a sum of f32 numbers whose rounding the margin pays for, at worst: adding one unit to n others may move each of n
/// partial sums, of norm n C at most, by 2^-24 of itself, twice: 2 n^2 2^-24 C, under C / 1024 up to n = 90.
pub const MOST_UNITS_IN_F32: usize = 64;

/// The clipping norm C: the most that one unit may move the sum of gradients, in L2 over all tensors together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip(f64);

impl Clip {
    /// Takes a finite number above 0.
    ///
    /// # Errors
    /// [`DpError::Clip`].
    pub fn new(norm: f64) -> Result<Self, DpError> {
        if norm.is_finite() && norm > 0.0 { Ok(Self(norm)) } else { Err(DpError::Clip(norm)) }
    }

    /// C: what the noise is measured against.
    pub fn norm(self) -> f64 {
        self.0
    }

    /// C (1 - 2^-10): what gradients are really clipped to, by this module and by any other code that clips for it. The
    /// difference pays for rounding.
    pub fn applied(self) -> f64 {
        self.0 * (1.0 - MARGIN)
    }

    /// What a gradient of this norm is multiplied by; 0 when it is not finite.
    fn factor(self, norm: f64) -> f64 {
        if norm.is_finite() { self.applied() / norm.max(self.applied()) } else { 0.0 }
    }
}

/// The sum of clipped gradients of one logical batch, in f64, over however many pieces it is computed in.
pub struct ClippedSum {
    clip: Clip,
    sum: Vec<Vec<f64>>,
    dropped: u64,
}

impl ClippedSum {
    /// An empty sum, of tensors with so many numbers each.
    pub fn new(lengths: &[usize], clip: Clip) -> Self {
        Self { clip, sum: lengths.iter().map(|length| vec![0.0; *length]).collect(), dropped: 0 }
    }

    /// Adds a unit's gradient, clipped. One that is not finite counts as zero, without a word: that it was so is private.
    ///
    /// # Errors
    /// [`DpError::Tensors`], [`DpError::Shape`].
    pub fn add(&mut self, gradient: &[&[f32]]) -> Result<(), DpError> {
        self.add_mean(&[gradient])
    }

    /// Adds a unit with several losses (chunks of a text, pairs of a preference): their gradients are averaged, then clipped
    /// once. A unit without any adds nothing.
    ///
    /// # Errors
    /// [`DpError::Tensors`], [`DpError::Shape`].
    pub fn add_mean(&mut self, losses: &[&[&[f32]]]) -> Result<(), DpError> {
        for gradient in losses {
            self.check(gradient)?;
        }
        if losses.is_empty() {
            return Ok(());
        }
        let share = 1.0 / losses.len() as f64;
        let mean =
            |tensor: usize, i: usize| losses.iter().map(|g| f64::from(g[tensor][i])).sum::<f64>() * share;
        let square: f64 = (0..self.sum.len())
            .flat_map(|tensor| (0..self.sum[tensor].len()).map(move |i| mean(tensor, i).powi(2)))
            .sum();
        let factor = self.clip.factor(square.sqrt());
        if factor == 0.0 {
            self.dropped += 1;
            return Ok(());
        }
        for (tensor, sum) in self.sum.iter_mut().enumerate() {
            for (i, sum) in sum.iter_mut().enumerate() {
                *sum += factor * mean(tensor, i);
            }
        }
        Ok(())
    }

    /// Adds a sum of at most [`MOST_UNITS_IN_F32`] gradients that other code clipped to [`Clip::applied`].
    ///
    /// # Errors
    /// [`DpError::TooManyUnits`], [`DpError::Tensors`], [`DpError::Shape`]; [`DpError::NotFinite`], since a clipped sum is.
    pub fn add_clipped(&mut self, partial: &[&[f32]], units: usize) -> Result<(), DpError> {
        if units > MOST_UNITS_IN_F32 {
            return Err(DpError::TooManyUnits { most: MOST_UNITS_IN_F32, found: units });
        }
        self.check(partial)?;
        if partial.iter().flat_map(|tensor| tensor.iter()).any(|value| !value.is_finite()) {
            return Err(DpError::NotFinite);
        }
        for (sum, tensor) in self.sum.iter_mut().zip(partial) {
            for (sum, value) in sum.iter_mut().zip(*tensor) {
                *sum += f64::from(*value);
            }
        }
        Ok(())
    }

    fn check(&self, gradient: &[&[f32]]) -> Result<(), DpError> {
        if gradient.len() != self.sum.len() {
            return Err(DpError::Tensors { expected: self.sum.len(), found: gradient.len() });
        }
        for (tensor, (sum, found)) in self.sum.iter().zip(gradient).enumerate() {
            if sum.len() != found.len() {
                return Err(DpError::Shape { tensor, expected: sum.len(), found: found.len() });
            }
        }
        Ok(())
    }

    /// Units left out since their gradient was not finite. Private: for the site's own log at most.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The clipping norm.
    pub fn clip(&self) -> Clip {
        self.clip
    }

    /// The sum by tensor, without noise. Private: for [`crate::audit::StepResiduals`].
    pub fn exact(&self) -> &[Vec<f64>] {
        &self.sum
    }

    pub(super) fn into_exact(self) -> Vec<Vec<f64>> {
        self.sum
    }
}
