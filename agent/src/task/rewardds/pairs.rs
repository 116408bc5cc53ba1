//! What a site's reward proxy learns to compare (spec C2, C3): to every query the record's own response, the generation proxy's
//! and the untuned model's.
//!
//! A record's three responses follow from that record alone and from models that hold nothing of it un-noised, so that they
//! count as the record's own. With `alone` set that is so to the bit; in batches a tie between two next tokens may be broken by
//! the rounding of sums over a batch (docs/rewardds.md).

use sheaf_models::{LanguageModel, LoraWeights, slm::generate::Sampling};
use sheaf_proto::rewardds::{Exchange, Generator, Written};

use super::language::{self, BATCH};
use crate::error::AgentError;

/// Pairs of one record at most: own before the untuned model's, own before the proxy's, the proxy's before the untuned model's.
pub(super) const PAIRS: [(usize, usize); 3] = [(0, 2), (0, 1), (1, 2)];

/// A query with the responses that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compared {
    /// The query, as the generation proxy reads it.
    pub(super) query: String,
    /// The record's own, the generation proxy's, the untuned model's; all cut alike.
    pub(super) responses: [String; 3],
}

impl Compared {
    /// The pairs `(better, worse)` of [`Self::responses`], by their place in the list of all: none of equal texts.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, (usize, usize))> {
        let differs = |(better, worse): (usize, usize)| self.responses[better] != self.responses[worse];
        PAIRS.into_iter().enumerate().filter(move |(_, pair)| differs(*pair))
    }
}

/// Answers the queries of records with both models, taking the likeliest token always.
///
/// # Errors
/// [`AgentError::Cancelled`], [`AgentError::Task`] for options that the model does not take.
pub(super) fn compared(
    model: &LanguageModel,
    lora: &LoraWeights,
    generator: &Generator,
    exchanges: &[Exchange],
    alone: bool,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Compared>, AgentError> {
    language::check_limits(model, generator.max_tokens, generator.answer_tokens)?;
    let sampling =
        Sampling { max_tokens: generator.answer_tokens, temperature: 0.0, top_k: 0, ..Sampling::default() };
    let mut all = Vec::with_capacity(exchanges.len());
    for batch in exchanges.chunks(if alone { 1 } else { BATCH }) {
        let mut queries = Vec::with_capacity(batch.len());
        for exchange in batch {
            let query = language::query(model, generator, &exchange.control, &exchange.query);
            queries.push(query.map_err(language::failed)?);
        }
        let asked: Vec<(String, u64)> = queries.iter().map(|query| (query.clone(), 0)).collect();
        let requests: Vec<(Exchange, u64)> = batch.iter().map(|exchange| (exchange.clone(), 0)).collect();
        let untuned = language::answers(model, None, &asked, &sampling, cancelled);
        let untuned = language::of_one(alone, untuned, || vec![language::nothing()])?;
        let tuned = language::responses(model, lora, generator, &requests, &sampling, cancelled);
        let tuned = language::of_one(alone, tuned, || vec![language::nothing()])?;
        for (((exchange, query), tuned), untuned) in batch.iter().zip(queries).zip(tuned).zip(untuned) {
            let own = language::shortened(model, &exchange.response, generator.answer_tokens);
            let responses = [own.map_err(language::failed)?.text, whole(tuned), whole(untuned)];
            all.push(Compared { query, responses });
        }
    }
    Ok(all)
}

/// A text as far as its last sentence, like the record's own: how it was cut must not tell them apart.
fn whole(written: Written) -> String {
    if written.ended { written.text } else { language::to_sentence(&written.text).text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_responses_are_not_compared() {
        let compared = |own: &str, tuned: &str, untuned: &str| Compared {
            query: String::new(),
            responses: [own.to_owned(), tuned.to_owned(), untuned.to_owned()],
        };
        let of = |compared: Compared| compared.pairs().map(|(_, pair)| pair).collect::<Vec<_>>();
        assert_eq!(of(compared("a", "b", "c")), PAIRS);
        assert_eq!(of(compared("a", "a", "c")), [(0, 2), (1, 2)]);
        assert!(of(compared("a", "a", "a")).is_empty());
    }
}
