//! Records of text as token sequences of which some tokens are to be predicted.

use serde::{Deserialize, Serialize};

use crate::{
    ModelError,
    loss::Targets,
    slm::{LanguageModel, chat::Message, forward::Batch},
};

/// A prompt and what should follow it. An empty prompt trains on the whole text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// What is given.
    #[serde(default)]
    pub prompt: String,
    /// What is to be predicted.
    pub response: String,
}

/// An example as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Prompt and response.
    pub tokens: Vec<u32>,
    /// Index of the first token that is predicted; at least 1.
    pub first_target: usize,
}

impl Encoded {
    /// Tokens that are predicted.
    pub fn targets(&self) -> usize {
        self.tokens.len().saturating_sub(self.first_target)
    }

    /// Tokens that are run: the last one predicts nothing.
    pub(crate) fn run(&self) -> &[u32] {
        &self.tokens[..self.tokens.len().saturating_sub(1)]
    }
}

impl LanguageModel {
    /// Encodes an example: the prompt through the model's chat template where it has one, the response, and the token
    /// that ends it. What is over `max_tokens` is cut from the response's end, or from the prompt's beginning where the
    /// prompt alone would leave no room for half of it.
    ///
    /// # Errors
    /// [`ModelError::Input`] for an empty response or `max_tokens` below 4.
    pub fn encode_example(&self, example: &Example, max_tokens: usize) -> Result<Encoded, ModelError> {
        if max_tokens < 4 {
            return Err(ModelError::Config { option: "max_tokens", reason: "must be at least 4".to_owned() });
        }
        let vocabulary = self.vocabulary();
        let mut response = vocabulary.encode_plain(&example.response)?;
        if response.is_empty() {
            return Err(ModelError::Input("an example has an empty response; leave it out".to_owned()));
        }
        response.extend(vocabulary.ends().first());
        let mut prompt = match (example.prompt.is_empty(), self.chat()) {
            // Something must come before the first token that is predicted.
            (true, _) => vec![self.mark()],
            (false, Some(chat)) => chat.encode(&[Message::user(&example.prompt)], vocabulary)?,
            (false, None) => vocabulary.encode_plain(&example.prompt)?,
        };
        let room = max_tokens.saturating_sub(response.len()).max(max_tokens / 2);
        if prompt.len() > room {
            prompt.drain(..prompt.len() - room);
        }
        response.truncate(max_tokens - prompt.len());
        let first_target = prompt.len();
        prompt.extend(response);
        Ok(Encoded { tokens: prompt, first_target })
    }

    /// Encodes a text whose class is to be learnt: what begins a text, its tokens, cut so that with the first they are at most
    /// `max_tokens`, and the token that ends it. The state that would predict that last token says the class instead.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a text of more than 16 MiB, [`ModelError::Config`] for `max_tokens` below 2.
    pub fn encode_text(&self, text: &str, max_tokens: usize) -> Result<Encoded, ModelError> {
        if max_tokens < 2 {
            return Err(ModelError::Config { option: "max_tokens", reason: "must be at least 2".to_owned() });
        }
        let mut tokens = vec![self.mark()];
        tokens.extend(self.vocabulary().encode_plain(text)?);
        tokens.truncate(max_tokens);
        let first_target = tokens.len();
        tokens.push(self.mark());
        Ok(Encoded { tokens, first_target })
    }

    /// Stands before a text and behind it.
    fn mark(&self) -> u32 {
        self.vocabulary().ends().first().copied().unwrap_or(0)
    }
}

/// What is run of records.
pub(crate) fn batch(records: &[&Encoded]) -> Result<Batch, ModelError> {
    Batch::new(&records.iter().map(|record| record.run().to_vec()).collect::<Vec<_>>())
}

/// A batch and its targets, each of weight 1; `spans` gives each record's range of targets.
pub(crate) struct TokenBatch {
    pub(crate) batch: Batch,
    pub(crate) targets: Targets,
    pub(crate) spans: Vec<std::ops::Range<usize>>,
}

impl TokenBatch {
    pub(crate) fn new(records: &[&Encoded]) -> Result<Self, ModelError> {
        let batch = batch(records)?;
        let mut targets = Targets::default();
        let mut spans = Vec::new();
        for (record, encoded) in records.iter().enumerate() {
            let begin = targets.rows.len();
            for at in encoded.first_target..encoded.tokens.len() {
                targets.push(record * batch.length + at - 1, encoded.tokens[at], 1.0);
            }
            spans.push(begin..targets.rows.len());
        }
        Ok(Self { batch, targets, spans })
    }
}
