//! Losses and their gradients with respect to what the model gives: hidden states for losses over tokens, scores for
//! losses over sequences.

use burn::tensor::Tensor;

use crate::{ops, slm::LanguageModel};

/// Rows of logits in memory at a time: `[128, vocab]` f32 is 25 MB for a vocabulary of 49,152.
const VOCABULARY_ROWS: usize = 128;

/// Tokens to predict: for each the row of the hidden states that predicts it, and its weight in the loss.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets {
    pub(crate) rows: Vec<u32>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) weights: Vec<f32>,
}

impl Targets {
    pub(crate) fn push(&mut self, row: usize, token: u32, weight: f32) {
        self.rows.push(row as u32);
        self.tokens.push(token);
        self.weights.push(weight);
    }
}

/// Log-probabilities of the target tokens, and the gradient of `sum of -weight * log p` with respect to the hidden
/// states `[rows, hidden]`. Logits exist for 128 rows at a time: never `[batch, length, vocab]`.
pub(crate) fn token_loss(
    model: &LanguageModel,
    hidden: &Tensor<2>,
    targets: &Targets,
) -> (Vec<f32>, Tensor<2>) {
    let mut log_p = Vec::with_capacity(targets.rows.len());
    let mut gradient = hidden.zeros_like();
    let chunks = targets
        .rows
        .chunks(VOCABULARY_ROWS)
        .zip(targets.tokens.chunks(VOCABULARY_ROWS))
        .zip(targets.weights.chunks(VOCABULARY_ROWS));
    for ((rows, tokens), weights) in chunks {
        let rows = ops::indices(rows, &model.device);
        let logits = ops::linear(&hidden.clone().select(0, rows.clone()), &model.output);
        let (chunk, d_logits) = ops::cross_entropy(logits, tokens, weights);
        log_p.extend(chunk);
        let d_rows = d_logits.matmul(model.output.clone());
        gradient = gradient.select_assign(0, rows, d_rows, burn::tensor::IndexingUpdateOp::Add);
    }
    (log_p, gradient)
}

/// Log-probabilities of the target tokens alone.
pub(crate) fn token_log_p(model: &LanguageModel, hidden: &Tensor<2>, targets: &Targets) -> Vec<f32> {
    let mut log_p = Vec::with_capacity(targets.rows.len());
    for (rows, tokens) in targets.rows.chunks(VOCABULARY_ROWS).zip(targets.tokens.chunks(VOCABULARY_ROWS)) {
        let rows = ops::indices(rows, &model.device);
        let logits = ops::linear(&hidden.clone().select(0, rows), &model.output);
        log_p.extend(ops::cross_entropy(logits, tokens, &vec![0.0; tokens.len()]).0);
    }
    log_p
}

/// `ln(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Bradley and Terry (1952): `-log sigmoid(chosen - rejected)`; with its gradient for the two scores.
pub fn bradley_terry(chosen: f64, rejected: f64) -> (f64, [f64; 2]) {
    let margin = chosen - rejected;
    let slope = sigmoid(-margin);
    (softplus(-margin), [-slope, slope])
}

/// Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7) of one pair: sequence
/// log-probabilities `[chosen, rejected]` under the policy and under the reference; with its gradient for the policy's.
pub fn dpo(policy: [f64; 2], reference: [f64; 2], beta: f64) -> (f64, [f64; 2]) {
    let margin = beta * ((policy[0] - reference[0]) - (policy[1] - reference[1]));
    let slope = beta * sigmoid(-margin);
    (softplus(-margin), [-slope, slope])
}

/// Softmax cross-entropy of one row of scores; with its gradient for the scores.
pub fn classification(scores: &[f64], class: usize) -> (f64, Vec<f64>) {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
    let mut gradient: Vec<f64> = scores.iter().map(|score| (score - most).exp() / total).collect();
    let loss = total.ln() - (scores[class] - most);
    gradient[class] -= 1.0;
    (loss, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_those_of_the_values() {
        let step = 1e-6;
        for (chosen, rejected) in [(0.3, -1.2), (-40.0, 40.0), (700.0, -700.0)] {
            let (_, slopes) = bradley_terry(chosen, rejected);
            let numeric = (bradley_terry(chosen + step, rejected).0
                - bradley_terry(chosen - step, rejected).0)
                / (2.0 * step);
            assert!((slopes[0] - numeric).abs() < 1e-6 && (slopes[0] + slopes[1]).abs() < 1e-12);
        }
        let (policy, reference) = ([-12.0, -9.0], [-11.5, -10.0]);
        let (_, slopes) = dpo(policy, reference, 0.1);
        let numeric = (dpo([policy[0], policy[1] + step], reference, 0.1).0
            - dpo([policy[0], policy[1] - step], reference, 0.1).0)
            / (2.0 * step);
        assert!((slopes[1] - numeric).abs() < 1e-6);
        let scores = [0.1, 2.0, -3.0];
        let (loss, gradient) = classification(&scores, 2);
        assert!(loss > 5.0 && gradient.iter().sum::<f64>().abs() < 1e-12);
    }
}
