//! Sums that carry noise, as a safetensors file of two i64 tensors. They are no sums of any rows any more: a diagonal may be
//! negative, so the checks of exact sums do not apply.

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sheaf_analytic::{Sums, SumsShape};

const GRAM: &str = "gram";
const CROSS: &str = "cross";
/// Beyond any sum of rows with noise on it; leaves room for adding a thousand sites.
const MOST: u64 = 1 << 52;

/// `G` and `B` of a site with noise; neither rows nor class counts.
#[derive(Clone, PartialEq, Eq)]
pub struct NoisedSums {
    /// Upper triangle of `G` in units of `2^-2s`, row by row: `[D (D + 1) / 2]`.
    pub gram: Vec<i64>,
    /// `B` in units of `2^-s`, `[D, C]` row-major.
    pub cross: Vec<i64>,
}

/// A file that is not [`NoisedSums`].
#[derive(Debug, thiserror::Error)]
pub enum NoisedError {
    /// Not safetensors.
    #[error("the noised sums are not a readable safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A tensor that is missing or cannot be used.
    #[error("tensor {name}: {reason}")]
    Tensor {
        /// Which.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The sum of sites does not fit.
    #[error("the sum of the sites' numbers leaves 64 bits")]
    Overflow,
}

impl NoisedSums {
    /// No site.
    pub fn zero(shape: &SumsShape) -> Self {
        Self { gram: vec![0; gram_len(shape)], cross: vec![0; shape.dim * shape.classes] }
    }

    /// From one vector on the grid of `G`: packed `G`, then `B 2^s`. Rounding what has noise costs nothing.
    ///
    /// # Errors
    /// [`NoisedError::Tensor`] for another length.
    pub fn from_vector(shape: &SumsShape, mut vector: Vec<i64>) -> Result<Self, NoisedError> {
        let expected = Self::vector_len(shape);
        if vector.len() as u64 != expected {
            let reason = format!("the vector has {} numbers, expected {expected}", vector.len());
            return Err(NoisedError::Tensor { name: GRAM, reason });
        }
        let cross = vector.split_off(gram_len(shape));
        let unit = 1_i64 << shape.bits;
        let cross = cross.into_iter().map(|value| value.saturating_add(unit / 2).div_euclid(unit)).collect();
        Ok(Self { gram: vector, cross })
    }

    /// Numbers of the vector that [`Self::from_vector`] takes.
    pub fn vector_len(shape: &SumsShape) -> u64 {
        (gram_len(shape) + shape.dim * shape.classes) as u64
    }

    /// The bytes as they are sent.
    ///
    /// # Errors
    /// [`NoisedError::Format`], in practice none.
    pub fn encode(&self) -> Result<Vec<u8>, NoisedError> {
        let bytes = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (gram, cross) = (bytes(&self.gram), bytes(&self.cross));
        let tensors = [
            (GRAM, TensorView::new(Dtype::I64, vec![self.gram.len()], &gram)?),
            (CROSS, TensorView::new(Dtype::I64, vec![self.cross.len()], &cross)?),
        ];
        Ok(safetensors::serialize(tensors, None)?)
    }

    /// Reads what [`Self::encode`] wrote, for a shape that is known; refuses other lengths and absurd magnitudes.
    ///
    /// # Errors
    /// [`NoisedError`].
    pub fn decode(bytes: &[u8], shape: &SumsShape) -> Result<Self, NoisedError> {
        let file = SafeTensors::deserialize(bytes)?;
        let take = |name: &'static str, length: usize| {
            let refuse = |reason: String| NoisedError::Tensor { name, reason };
            let tensor = file.tensor(name).map_err(|e| refuse(e.to_string()))?;
            if tensor.dtype() != Dtype::I64 || tensor.shape() != [length] {
                let (dtype, shape) = (tensor.dtype(), tensor.shape());
                return Err(refuse(format!("is {dtype:?} {shape:?}, expected I64 [{length}]")));
            }
            let (words, _) = tensor.data().as_chunks::<8>();
            let values: Vec<i64> = words.iter().map(|word| i64::from_le_bytes(*word)).collect();
            match values.iter().position(|value| value.unsigned_abs() > MOST) {
                Some(at) => Err(refuse(format!("number {at} is beyond 2^52"))),
                None => Ok(values),
            }
        };
        Ok(Self { gram: take(GRAM, gram_len(shape))?, cross: take(CROSS, shape.dim * shape.classes)? })
    }

    /// Adds another site's, exactly.
    ///
    /// # Errors
    /// [`NoisedError::Overflow`]; [`NoisedError::Tensor`] for another length.
    pub fn add(&mut self, other: &Self) -> Result<(), NoisedError> {
        for (name, into, from) in
            [(GRAM, &mut self.gram, &other.gram), (CROSS, &mut self.cross, &other.cross)]
        {
            if into.len() != from.len() {
                let reason = format!("has {} numbers, expected {}", from.len(), into.len());
                return Err(NoisedError::Tensor { name, reason });
            }
            for (sum, value) in into.iter_mut().zip(from) {
                *sum = sum.checked_add(*value).ok_or(NoisedError::Overflow)?;
            }
        }
        Ok(())
    }

    /// The same numbers as sums of an unknown number of rows, to be solved.
    ///
    /// # Errors
    /// Another shape.
    pub fn into_sums(self, shape: &SumsShape) -> Result<Sums, sheaf_analytic::AnalyticError> {
        Sums::from_parts(shape, 0, vec![0; shape.classes], self.gram, self.cross)
    }
}

fn gram_len(shape: &SumsShape) -> usize {
    shape.dim * (shape.dim + 1) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPE: SumsShape = SumsShape { dim: 3, classes: 2, bits: 14, max_abs: 1 << 14 };

    proptest! {
        #[test]
        fn they_read_back_and_add_up(a in prop::collection::vec(-(1_i64 << 50)..1 << 50, 12), b in prop::collection::vec(-(1_i64 << 50)..1 << 50, 12)) {
            let sums = |v: &[i64]| NoisedSums { gram: v[..6].to_vec(), cross: v[6..].to_vec() };
            let bytes = sums(&a).encode().unwrap();
            prop_assert!(NoisedSums::decode(&bytes, &SHAPE).unwrap() == sums(&a));
            let mut sum = sums(&a);
            sum.add(&sums(&b)).unwrap();
            let plain: Vec<i64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            prop_assert!(sum == sums(&plain));
            for end in 0..bytes.len() {
                prop_assert!(NoisedSums::decode(&bytes[..end], &SHAPE).is_err());
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut sums = NoisedSums::zero(&SHAPE);
        sums.gram[4] = i64::MAX;
        let error = NoisedSums::decode(&sums.encode().unwrap(), &SHAPE).err().unwrap().to_string();
        assert!(error.contains("gram") && error.contains("number 4"), "{error}");
        let wide = SumsShape { dim: 4, ..SHAPE };
        assert!(NoisedSums::decode(&NoisedSums::zero(&SHAPE).encode().unwrap(), &wide).is_err());
        let mut one = NoisedSums::zero(&SHAPE);
        one.gram[0] = 1;
        assert!(sums.add(&sums.clone()).is_err() && one.add(&NoisedSums::zero(&wide)).is_err());
    }
}
