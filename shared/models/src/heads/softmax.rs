//! Softmax regression on frozen features, trained by minibatches: the head of FedAvg and FedProx.
//!
//! Plain loops in one fixed order: the same rows, options and seed give the same values on every machine with the same
//! `exp`, whatever its vectors or threads. Weights are held by class (`[C, D]`), so that both products run over
//! features, the long index.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{ModelError, train::AdamW};

/// Lanes of a sum over features: more than the registers of any machine hold, so that no compiler may reorder it.
const LANES: usize = 16;

/// A linear classifier: scores are `x weight + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Features `D`.
    pub dim: usize,
    /// Classes `C`.
    pub classes: usize,
    /// `[D, C]`, the classes run fastest.
    pub weight: Vec<f32>,
    /// `[C]`.
    pub bias: Vec<f32>,
}

/// Training rows.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Features, `[rows, D]`.
    pub features: &'a [f32],
    /// Classes, `[rows]`, each below `C`.
    pub labels: &'a [u32],
}

/// The rule of a step; its memory begins anew with every call of [`Head::train`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// `w -= rate g` with `v = momentum v + g` in place of `g`; the decay is part of `g`.
    Sgd {
        /// 0: plain.
        momentum: f32,
    },
    /// AdamW (Loshchilov and Hutter 2019): beta 0.9 and 0.999, epsilon 1e-8, decay apart from the gradient.
    AdamW,
}

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadTraining {
    /// Passes over the rows.
    pub epochs: usize,
    /// Rows a step; 0: all of them.
    pub batch: usize,
    /// Step size.
    pub learning_rate: f32,
    /// Which rule.
    pub rule: Rule,
    /// Shrinks weights, not the bias.
    pub weight_decay: f32,
    /// FedProx (Li et al. 2020): weight of half the squared distance from where training began.
    pub proximal: f32,
    /// Of the order of the rows.
    pub seed: u64,
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedHead {
    /// The head.
    pub head: Head,
    /// Mean cross-entropy of the last pass, each row's before the step it was part of, nats.
    pub loss: f64,
}

impl Head {
    /// All zeros: every class is as likely.
    pub fn zeros(dim: usize, classes: usize) -> Self {
        Self { dim, classes, weight: vec![0.0; dim * classes], bias: vec![0.0; classes] }
    }

    fn check(&self, rows: Rows<'_>) -> Result<(), ModelError> {
        let bad = |what: String| Err(ModelError::Input(what));
        let (dim, classes) = (self.dim, self.classes);
        if dim == 0 || classes == 0 || self.weight.len() != dim * classes || self.bias.len() != classes {
            return bad(format!("a head of {dim} features and {classes} classes does not have these values"));
        }
        if rows.labels.is_empty() {
            return bad("there are no training rows".to_owned());
        }
        if rows.features.len() != dim * rows.labels.len() {
            return bad(format!(
                "{} values are not {} rows of {dim} features",
                rows.features.len(),
                rows.labels.len()
            ));
        }
        match rows.labels.iter().position(|label| *label as usize >= classes) {
            Some(row) => bad(format!("row {row} is of class {}, there are {classes}", rows.labels[row])),
            None => Ok(()),
        }
    }

    /// Trains from here on. `cancelled` is asked before every step.
    ///
    /// # Errors
    /// [`ModelError::Input`] for rows that do not fit, [`ModelError::Diverged`] when values leave the finite numbers,
    /// [`ModelError::Stopped`] when cancelled.
    pub fn train(
        &self,
        rows: Rows<'_>,
        training: &HeadTraining,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<TrainedHead, ModelError> {
        self.check(rows)?;
        let count = rows.labels.len();
        let batch = if training.batch == 0 { count } else { training.batch.min(count) };
        let mut state = State::new(self, training);
        let mut order: Vec<usize> = (0..count).collect();
        let mut random = ChaCha8Rng::seed_from_u64(training.seed);
        let mut loss = 0.0;
        for _ in 0..training.epochs {
            if batch < count {
                order.shuffle(&mut random);
            }
            loss = 0.0;
            for step in order.chunks(batch) {
                if cancelled() {
                    return Err(ModelError::Stopped);
                }
                loss += state.step(rows, step, training);
            }
            loss /= count as f64;
            if !loss.is_finite() {
                break;
            }
        }
        let head = state.head();
        if !loss.is_finite() || head.weight.iter().chain(&head.bias).any(|value| !value.is_finite()) {
            return Err(ModelError::Diverged(format!(
                "the head's training left the finite numbers at learning rate {}; lower it",
                training.learning_rate
            )));
        }
        Ok(TrainedHead { head, loss })
    }
}

/// Values while training: by class, weights `[C, D]` then the bias `[C]`, in one vector.
struct State {
    dim: usize,
    classes: usize,
    values: Vec<f32>,
    start: Vec<f32>,
    gradient: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    steps: u64,
    scores: Vec<f32>,
}

impl State {
    fn new(head: &Head, training: &HeadTraining) -> Self {
        let (dim, classes) = (head.dim, head.classes);
        let mut values = Vec::with_capacity((dim + 1) * classes);
        for class in 0..classes {
            values.extend(head.weight.iter().skip(class).step_by(classes));
        }
        values.extend(&head.bias);
        let memory = |wanted: bool| if wanted { vec![0.0; values.len()] } else { Vec::new() };
        let adam = training.rule == Rule::AdamW;
        Self {
            dim,
            classes,
            start: values.clone(),
            gradient: vec![0.0; values.len()],
            first: memory(adam || matches!(training.rule, Rule::Sgd { momentum } if momentum > 0.0)),
            second: memory(adam),
            steps: 0,
            scores: vec![0.0; classes],
            values,
        }
    }

    fn head(&self) -> Head {
        let (dim, classes) = (self.dim, self.classes);
        let (weights, bias) = self.values.split_at(dim * classes);
        let mut weight = vec![0.0; dim * classes];
        for (class, row) in weights.chunks_exact(dim).enumerate() {
            for (out, value) in weight.iter_mut().skip(class).step_by(classes).zip(row) {
                *out = *value;
            }
        }
        Head { dim, classes, weight, bias: bias.to_vec() }
    }

    /// One step on these rows; gives the sum of their losses before it.
    fn step(&mut self, rows: Rows<'_>, batch: &[usize], training: &HeadTraining) -> f64 {
        let loss = self.gradient(rows, batch);
        let (weights, mu) = (self.dim * self.classes, training.proximal);
        if mu > 0.0 {
            for ((g, value), start) in self.gradient.iter_mut().zip(&self.values).zip(&self.start) {
                *g += mu * (value - start);
            }
        }
        match training.rule {
            Rule::Sgd { momentum } => {
                if training.weight_decay > 0.0 {
                    for (g, value) in self.gradient.iter_mut().zip(&self.values).take(weights) {
                        *g += training.weight_decay * value;
                    }
                }
                let step = if momentum > 0.0 {
                    for (m, g) in self.first.iter_mut().zip(&self.gradient) {
                        *m = momentum * *m + g;
                    }
                    &self.first
                } else {
                    &self.gradient
                };
                for (value, step) in self.values.iter_mut().zip(step) {
                    *value -= training.learning_rate * step;
                }
            }
            Rule::AdamW => self.adamw(training, weights),
        }
        loss
    }

    fn adamw(&mut self, training: &HeadTraining, weights: usize) {
        self.steps += 1;
        let rule =
            |decay: f32| AdamW::new(f64::from(decay)).update(self.steps, f64::from(training.learning_rate));
        let (decayed, plain) = (rule(training.weight_decay), rule(0.0));
        let (first, second) = (self.first.split_at_mut(weights), self.second.split_at_mut(weights));
        let (values, gradient) = (self.values.split_at_mut(weights), self.gradient.split_at(weights));
        decayed.apply(values.0, gradient.0, first.0, second.0);
        plain.apply(values.1, gradient.1, first.1, second.1);
    }

    /// Mean gradient of the cross-entropy over a batch; gives the sum of the losses.
    fn gradient(&mut self, rows: Rows<'_>, batch: &[usize]) -> f64 {
        let (dim, classes) = (self.dim, self.classes);
        self.gradient.fill(0.0);
        let scale = 1.0 / batch.len() as f32;
        let mut loss = 0.0;
        let (weights, bias) = self.values.split_at(dim * classes);
        let (weight_gradient, bias_gradient) = self.gradient.split_at_mut(dim * classes);
        for &row in batch {
            let x = &rows.features[row * dim..][..dim];
            for ((score, weights), bias) in self.scores.iter_mut().zip(weights.chunks_exact(dim)).zip(bias) {
                *score = bias + dot(weights, x);
            }
            let truth = rows.labels[row] as usize;
            loss += f64::from(soften(&mut self.scores, truth));
            self.scores[truth] -= 1.0;
            let gradients = weight_gradient.chunks_exact_mut(dim).zip(bias_gradient.iter_mut());
            for (p, (gradient, bias)) in self.scores.iter().zip(gradients) {
                let p = p * scale;
                *bias += p;
                for (g, x) in gradient.iter_mut().zip(x) {
                    *g += p * x;
                }
            }
        }
        loss
    }
}

/// Scores become probabilities; gives the negative logarithm of the true class's.
fn soften(scores: &mut [f32], truth: usize) -> f32 {
    let largest = scores.iter().fold(f32::NEG_INFINITY, |m, s| m.max(*s));
    let of_truth = scores[truth] - largest;
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
    sum.ln() - of_truth
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests;
