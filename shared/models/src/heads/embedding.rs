//! Small heads on frozen sentence embeddings: a linear one, a two-layer network and a bilinear form. A few thousand parameters,
//! so that a tight privacy budget still leaves a signal; gradients are by record.

use std::{collections::BTreeMap, path::Path};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    ModelError,
    train::optimizer::Named,
    weights::{HostTensor, safetensors},
};

/// What a pair of embeddings says of their relation: `[q, r, |q - r|, q * r]`.
pub fn pair_features(query: &[f32], response: &[f32]) -> Vec<f32> {
    let pairs = || query.iter().zip(response);
    query
        .iter()
        .chain(response)
        .copied()
        .chain(pairs().map(|(q, r)| (q - r).abs()))
        .chain(pairs().map(|(q, r)| q * r))
        .collect()
}

/// A head: parameters by name.
#[derive(Debug, Clone, PartialEq)]
pub enum EmbeddingHead {
    /// `out = w x`: `w` `[out, in]`. No constant: it would cancel wherever scores are compared.
    Linear(Named),
    /// `out = w2 tanh(w1 x + b1) + b2`: `w1` `[hidden, in]`, `w2` `[out, hidden]`.
    Mlp(Named),
    /// `out = q' w r` of an input `[q, r]`: `w` `[dim, dim]`.
    Bilinear(Named),
}

impl EmbeddingHead {
    /// A two-layer head with small random weights in the first layer and zeros in the last.
    pub fn mlp(inputs: usize, hidden: usize, outputs: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let bound = 1.0 / (inputs as f32).sqrt();
        let data = (0..hidden * inputs).map(|_| random.random_range(-bound..bound)).collect();
        Self::Mlp(BTreeMap::from([
            ("w1".to_owned(), HostTensor { shape: vec![hidden, inputs], data }),
            ("b1".to_owned(), HostTensor::zeros(&[1, hidden])),
            ("w2".to_owned(), HostTensor::zeros(&[outputs, hidden])),
            ("b2".to_owned(), HostTensor::zeros(&[1, outputs])),
        ]))
    }

    /// A linear head of zeros.
    pub fn linear(inputs: usize, outputs: usize) -> Self {
        Self::Linear(BTreeMap::from([("w".to_owned(), HostTensor::zeros(&[outputs, inputs]))]))
    }

    /// A bilinear head of zeros for embeddings of `dim` values.
    pub fn bilinear(dim: usize) -> Self {
        Self::Bilinear(BTreeMap::from([("w".to_owned(), HostTensor::zeros(&[dim, dim]))]))
    }

    /// All parameters by name.
    pub const fn parameters(&self) -> &Named {
        match self {
            Self::Linear(named) | Self::Mlp(named) | Self::Bilinear(named) => named,
        }
    }

    /// The parameters, to be moved by an optimiser.
    pub const fn parameters_mut(&mut self) -> &mut Named {
        match self {
            Self::Linear(named) | Self::Mlp(named) | Self::Bilinear(named) => named,
        }
    }

    /// Scores of one record's input.
    ///
    /// # Errors
    /// [`ModelError::Input`] when the input has another length than the head takes.
    pub fn scores(&self, input: &[f32]) -> Result<Vec<f64>, ModelError> {
        Ok(self.run(input)?.0)
    }

    /// Scores, and the hidden layer of an [`Self::Mlp`].
    fn run(&self, input: &[f32]) -> Result<(Vec<f64>, Vec<f64>), ModelError> {
        match self {
            Self::Linear(p) => {
                let w = &p["w"];
                wanted(input, w.shape[1])?;
                Ok((rows(w).map(|w| dot(w, input)).collect(), Vec::new()))
            }
            Self::Mlp(p) => {
                let (w1, w2) = (&p["w1"], &p["w2"]);
                wanted(input, w1.shape[1])?;
                let hidden: Vec<f64> = rows(w1)
                    .zip(&p["b1"].data)
                    .map(|(w, b)| (dot(w, input) + f64::from(*b)).tanh())
                    .collect();
                let out = rows(w2).zip(&p["b2"].data).map(|(w, b)| {
                    w.iter().zip(&hidden).map(|(w, h)| f64::from(*w) * h).sum::<f64>() + f64::from(*b)
                });
                Ok((out.collect(), hidden))
            }
            Self::Bilinear(p) => {
                let w = &p["w"];
                wanted(input, 2 * w.shape[0])?;
                let (q, r) = input.split_at(w.shape[0]);
                let score = rows(w).zip(q).map(|(w, q)| f64::from(*q) * dot(w, r)).sum();
                Ok((vec![score], Vec::new()))
            }
        }
    }

    /// Gradients of one record's loss, given the loss's gradient for its scores.
    ///
    /// # Errors
    /// As [`Self::scores`].
    pub fn gradients(&self, input: &[f32], slopes: &[f64]) -> Result<Named, ModelError> {
        let (_, hidden) = self.run(input)?;
        let outer = |left: &[f64], right: &mut dyn Iterator<Item = f64>| -> Vec<f32> {
            let right: Vec<f64> = right.collect();
            left.iter().flat_map(|l| right.iter().map(move |r| (l * r) as f32)).collect()
        };
        let like = |name: &str, data: Vec<f32>| {
            (name.to_owned(), HostTensor { shape: self.parameters()[name].shape.clone(), data })
        };
        let mut inputs = input.iter().map(|x| f64::from(*x));
        Ok(match self {
            Self::Linear(_) => BTreeMap::from([like("w", outer(slopes, &mut inputs))]),
            Self::Mlp(p) => {
                let w2 = &p["w2"];
                let width = w2.shape[1];
                let d_hidden: Vec<f64> = (0..width)
                    .map(|i| {
                        let back: f64 = slopes.iter().zip(rows(w2)).map(|(s, w)| s * f64::from(w[i])).sum();
                        back * (1.0 - hidden[i] * hidden[i])
                    })
                    .collect();
                BTreeMap::from([
                    like("w1", outer(&d_hidden, &mut inputs)),
                    like("b1", d_hidden.iter().map(|d| *d as f32).collect()),
                    like("w2", outer(slopes, &mut hidden.iter().copied())),
                    like("b2", slopes.iter().map(|s| *s as f32).collect()),
                ])
            }
            Self::Bilinear(p) => {
                let (q, r) = input.split_at(p["w"].shape[0]);
                let left: Vec<f64> = q.iter().map(|q| slopes[0] * f64::from(*q)).collect();
                BTreeMap::from([like("w", outer(&left, &mut r.iter().map(|r| f64::from(*r))))])
            }
        })
    }

    /// Writes the head as a safetensors file.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        std::fs::write(path, safetensors::write(self.parameters())?).map_err(ModelError::io(path))
    }

    /// Reads parameters of this head's shape from a file.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] for a head of another shape; this one stays as it was.
    pub fn load(&mut self, path: &Path) -> Result<(), ModelError> {
        let mut map = safetensors::read(path)?;
        let read = self
            .parameters()
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), map.take(name, &tensor.shape)?)))
            .collect::<Result<Named, ModelError>>()?;
        *self.parameters_mut() = read;
        Ok(())
    }
}

fn wanted(input: &[f32], length: usize) -> Result<(), ModelError> {
    if input.len() == length {
        return Ok(());
    }
    Err(ModelError::Input(format!("the head takes {length} values, not {}", input.len())))
}

fn rows(matrix: &HostTensor) -> impl Iterator<Item = &[f32]> {
    matrix.data.chunks_exact(matrix.shape[1])
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each parameter is moved a little; the scores must move as the gradient says.
    fn check(mut head: EmbeddingHead, input: &[f32]) {
        let slopes: Vec<f64> = (0..head.scores(input).unwrap().len()).map(|i| 1.0 - 0.3 * i as f64).collect();
        let value = |head: &EmbeddingHead| -> f64 {
            head.scores(input).unwrap().iter().zip(&slopes).map(|(score, slope)| score * slope).sum()
        };
        let gradients = head.gradients(input, &slopes).unwrap();
        for (name, gradient) in &gradients {
            for at in 0..gradient.data.len() {
                let step = 1e-3;
                let mut moved = |by: f32| {
                    head.parameters_mut().get_mut(name).unwrap().data[at] += by;
                    let value = value(&head);
                    head.parameters_mut().get_mut(name).unwrap().data[at] -= by;
                    value
                };
                let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
                assert!((numeric - f64::from(gradient.data[at])).abs() < 1e-3, "{name}[{at}]");
            }
        }
    }

    #[test]
    fn gradients_are_those_of_the_scores() {
        let mut mlp = EmbeddingHead::mlp(6, 4, 2, 7);
        for (i, value) in mlp.parameters_mut().get_mut("w2").unwrap().data.iter_mut().enumerate() {
            *value = 0.2 * i as f32 - 0.5;
        }
        check(mlp, &[0.1, -0.4, 0.9, 1.2, -0.7, 0.0]);
        check(EmbeddingHead::linear(4, 2), &[0.3, -0.2, 1.5, 0.0]);
        let mut bilinear = EmbeddingHead::bilinear(3);
        bilinear.parameters_mut().get_mut("w").unwrap().data[4] = 0.5;
        check(bilinear, &[0.1, -0.4, 0.9, 1.2, -0.7, 0.3]);
    }

    #[test]
    fn heads_come_back_from_files() {
        let path = tempfile::tempdir().unwrap().keep().join("head.safetensors");
        let head = EmbeddingHead::mlp(8, 3, 1, 1);
        head.save(&path).unwrap();
        let mut other = EmbeddingHead::mlp(8, 3, 1, 2);
        other.load(&path).unwrap();
        assert_eq!(head, other);
        assert!(EmbeddingHead::mlp(9, 3, 1, 2).load(&path).is_err());
        assert!(head.scores(&[0.0; 7]).is_err());
        assert_eq!(pair_features(&[1.0, 2.0], &[3.0, 1.0]), [1.0, 2.0, 3.0, 1.0, 2.0, 1.0, 3.0, 2.0]);
    }
}
