//! Why a language model gave no answer, by what the caller can do about it.

use std::time::Duration;

/// A completion that did not come. Texts name the model and carry what a server said; they never hold a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    /// The same prompt may succeed later: too many requests, a server's own failure, a time-out, a broken connection.
    #[error("{what}")]
    Transient {
        /// What happened, where, and what to do.
        what: String,
        /// How long the server asked to be left alone, if it did.
        retry_after: Option<Duration>,
    },
    /// The prompt can never succeed as things are set: a wrong key, an unknown model, options the model does not take.
    #[error("{what}")]
    Refused {
        /// What happened, where, and what to do.
        what: String,
    },
    /// The answer is not what the protocol says.
    #[error("{what}")]
    Rubbish {
        /// What was wrong, where, and what to do.
        what: String,
    },
    /// The caller gave up before an answer came.
    #[error("cancelled before the language model answered; what has been answered is in the cache")]
    Cancelled,
}

impl LlmError {
    /// Whether the same prompt may succeed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Cancelled)
    }

    /// A transient failure in which nobody said how long it lasts.
    pub fn transient(what: impl Into<String>) -> Self {
        Self::Transient { what: what.into(), retry_after: None }
    }
}

impl From<LlmError> for crate::error::Error {
    fn from(error: LlmError) -> Self {
        let message = format!("language model: {error}");
        match error {
            LlmError::Transient { .. } | LlmError::Cancelled => Self::transient(message),
            LlmError::Refused { .. } => Self::invalid(message),
            LlmError::Rubbish { .. } => Self::corrupt(message),
        }
    }
}
