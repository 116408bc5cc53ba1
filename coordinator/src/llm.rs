//! The coordinator's access to a large language model. A model is an [`Llm`]: prompts in, texts out. Where it runs, on a
//! server that speaks the OpenAI protocol ([`endpoint`]) or in this process, the callers do not see.
//!
//! ```text
//! structured   an answer that must be JSON          many   twenty thousand prompts
//!          └──────────────┬───────────────────────────────┘
//!                       cache      no prompt is paid for twice
//!                         │
//!               Llm: endpoint, or a model of this process
//! ```
//!
//! A prompt is made from released or public text alone: nothing here looks at what it is handed, and an endpoint may be
//! anybody's server.

pub mod cache;
pub mod config;
pub mod endpoint;
pub mod error;
pub mod key;
pub mod many;
pub mod structured;
pub mod totals;

#[cfg(test)]
pub(crate) mod stub;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use cache::Cached;
pub use endpoint::Endpoint;
pub use error::LlmError;
pub use many::complete_all;
pub use structured::{StructuredError, structured};
pub use totals::Totals;

/// Added to the sample's index at each further attempt: larger than the index of any sample that callers ask for, so
/// that a second attempt at one sample is never the first at another.
const ATTEMPT: u32 = 1 << 16;

/// A language model.
#[tonic::async_trait]
pub trait Llm: Send + Sync {
    /// Which model this is, for provenance and for the keys of the cache: two models that may answer differently have
    /// different names, and a name is the same in every process.
    fn name(&self) -> String;

    /// How many completions are worth asking for at once, at least 1.
    fn concurrency(&self) -> usize {
        1
    }

    /// Whether the model does what it is asked: judges samples, keeps to a layout. One that does not can still go on with a
    /// text ([`Form::Continue`]).
    fn follows_instructions(&self) -> bool {
        true
    }

    /// What this process has used of the model so far.
    fn totals(&self) -> Totals {
        Totals::default()
    }

    /// Asks for one completion. Dropping the future gives the completion up.
    ///
    /// # Errors
    /// See [`LlmError`]. A transient failure comes back only after the model has tried again as often as it is set to.
    async fn complete(&self, prompt: &Prompt) -> Result<Completion, LlmError>;
}

#[tonic::async_trait]
impl<L: Llm + ?Sized> Llm for Arc<L> {
    fn name(&self) -> String {
        (**self).name()
    }
    fn concurrency(&self) -> usize {
        (**self).concurrency()
    }
    fn follows_instructions(&self) -> bool {
        (**self).follows_instructions()
    }
    fn totals(&self) -> Totals {
        (**self).totals()
    }
    async fn complete(&self, prompt: &Prompt) -> Result<Completion, LlmError> {
        (**self).complete(prompt).await
    }
}

/// What a model is asked. Two equal prompts are one question, and the cache answers it once.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prompt {
    /// Instructions that stand above the question.
    pub system: Option<String>,
    /// The question, or the text to go on with.
    pub user: String,
    /// Which of the two it is.
    pub form: Form,
    /// How the answer is drawn.
    pub options: Sampling,
    /// Which of several answers to the same question this is, from 0.
    pub sample: u32,
}

impl Prompt {
    /// A question without instructions, answered as text under [`Sampling::default`].
    pub fn new(user: impl Into<String>) -> Self {
        Self { system: None, user: user.into(), form: Form::Ask, options: Sampling::default(), sample: 0 }
    }

    /// A text to go on with.
    pub fn to_continue(text: impl Into<String>) -> Self {
        Self { form: Form::Continue, ..Self::new(text) }
    }

    /// The same question for a further attempt, 0 for the first: with another sample, so that the cache does not give the same
    /// answer again.
    #[must_use]
    pub fn again(self, attempt: u32) -> Self {
        Self { sample: self.sample.wrapping_add(attempt.wrapping_mul(ATTEMPT)), ..self }
    }

    /// The seed for this sample: the one of the options moved on by the sample's index, since a model that obeys its
    /// seed would otherwise give the same answer each time.
    pub fn seed(&self) -> Option<u64> {
        self.options.seed.map(|seed| seed.wrapping_add(u64::from(self.sample)))
    }

    /// Refuses options that no model can follow.
    ///
    /// # Errors
    /// [`LlmError::Refused`] names the option, its value and its range.
    pub fn check(&self) -> Result<(), LlmError> {
        let Sampling { temperature, top_p, max_tokens, .. } = self.options;
        let wrong = if !(temperature.is_finite() && temperature >= 0.0) {
            format!("temperature {temperature}: it must be a number from 0")
        } else if !(top_p > 0.0 && top_p <= 1.0) {
            format!("top_p {top_p}: it must be above 0 and at most 1")
        } else if max_tokens == 0 {
            "max_tokens 0: it must be at least 1".to_owned()
        } else if self.options.stop.as_ref().is_some_and(String::is_empty) {
            "an empty stop: every answer would end at once".to_owned()
        } else {
            return Ok(());
        };
        Err(LlmError::Refused { what: format!("a prompt has {wrong}") })
    }
}

/// What is wanted of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// An answer.
    Ask,
    /// That it goes on with a text where it ends. A server that only answers is asked to.
    Continue,
}

/// How an answer is drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sampling {
    /// Divides the logits: 0 takes the likeliest token each time.
    pub temperature: f64,
    /// Draws from the likeliest tokens that together have this probability, above 0 and at most 1.
    pub top_p: f64,
    /// Most tokens of the answer, at least 1.
    pub max_tokens: u32,
    /// Makes the draw repeatable on models that can.
    pub seed: Option<u64>,
    /// A text that ends the answer and does not belong to it.
    pub stop: Option<String>,
    /// What the answer must look like.
    pub format: Format,
}

impl Default for Sampling {
    /// The whole distribution as it is, up to 1024 tokens of text.
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, max_tokens: 1024, seed: None, stop: None, format: Format::Text }
    }
}

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Format {
    /// Any text.
    Text,
    /// A JSON object that fits this JSON schema. A model may fail at it; [`structured`] checks.
    Json(Value),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// The text, as the model wrote it.
    pub text: String,
    /// What it took.
    pub usage: Usage,
    /// Why the text ends where it ends.
    pub finish: Finish,
}

/// Tokens of one completion, as the model counts them; 0 where it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
}

/// Why a text ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model was done.
    Stop,
    /// `max_tokens` was reached: the text is cut.
    Length,
    /// Another reason, in the model's word.
    Other(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_no_model_can_follow_are_refused_by_name() {
        Prompt::new("x").check().unwrap();
        let with = |change: fn(&mut Sampling)| {
            let mut prompt = Prompt::new("x");
            change(&mut prompt.options);
            prompt.check().unwrap_err().to_string()
        };
        assert!(with(|o| o.temperature = f64::NAN).contains("temperature NaN"));
        assert!(with(|o| o.temperature = -0.1).contains("temperature -0.1"));
        assert!(with(|o| o.top_p = 0.0).contains("top_p 0"));
        assert!(with(|o| o.top_p = 1.5).contains("top_p 1.5"));
        assert!(with(|o| o.max_tokens = 0).contains("max_tokens"));
    }

    #[test]
    fn samples_of_a_seeded_prompt_have_seeds_of_their_own() {
        let mut prompt = Prompt::new("x");
        prompt.sample = 3;
        assert_eq!(prompt.seed(), None);
        prompt.options.seed = Some(u64::MAX);
        assert_eq!(prompt.seed(), Some(2));
    }
}
