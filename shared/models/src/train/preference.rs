//! Direct preference optimisation: the loss and gradients of pairs, with the model without its adapter as the reference.

use super::{
    Encoded,
    example::TokenBatch,
    optimizer::Named,
    supervised::{response_log_p, to_host},
};
use crate::{
    ModelError,
    adapter::Adapter,
    lora::Dropout,
    loss::{self, token_log_p, token_loss},
    slm::{
        LanguageModel,
        backward::backward,
        forward::{Adapted, Keep},
    },
};

/// A response that was preferred and one that was not, to the same prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Preferred.
    pub chosen: Encoded,
    /// Not.
    pub rejected: Encoded,
}

/// Mean loss over pairs and its gradient.
///
/// # Errors
/// [`ModelError::Input`] for no or over-long pairs.
pub fn dpo(
    model: &LanguageModel,
    adapter: &Adapter,
    pairs: &[Pair],
    beta: f64,
) -> Result<(f64, Named), ModelError> {
    let records: Vec<&Encoded> = pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]).collect();
    let owned: Vec<Encoded> = records.iter().map(|record| (*record).clone()).collect();
    let reference = response_log_p(model, None, &owned)?;
    let lora = adapter.to_device(model.config(), model.device())?;
    let adapted = Adapted { weights: &lora, dropout: Dropout { rate: 0.0, seed: 0 } };
    let mut batch = TokenBatch::new(&records)?;
    let pass = model.run(&batch.batch, Some(adapted), Keep::Traces)?;
    let log_p = token_log_p(model, &pass.hidden, &batch.targets);
    let policy: Vec<f64> =
        batch.spans.iter().map(|span| log_p[span.clone()].iter().map(|p| f64::from(*p)).sum()).collect();
    let mut total = 0.0;
    let spans = batch.spans.chunks_exact(2).zip(policy.chunks_exact(2)).zip(reference.chunks_exact(2));
    for ((spans, policy), reference) in spans {
        let (value, slopes) = loss::dpo([policy[0], policy[1]], [reference[0].sum, reference[1].sum], beta);
        total += value;
        for (span, slope) in spans.iter().zip(slopes) {
            // A weight is the factor of -log p.
            batch.targets.weights[span.clone()].fill((-slope / pairs.len() as f64) as f32);
        }
    }
    let (_, d_hidden) = token_loss(model, &pass.hidden, &batch.targets);
    let gradients = to_host(backward(model, &batch.batch, adapted, pass, d_hidden, false));
    Ok((total / pairs.len().max(1) as f64, gradients))
}
