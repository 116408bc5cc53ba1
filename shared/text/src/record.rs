use serde::{Deserialize, Serialize};

/// A text and its label: a private record, or a sample that a language model wrote under a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// The text.
    pub text: String,
    /// The label, by its name in the plan.
    pub label: String,
}

impl Labelled {
    /// A text under a label.
    pub fn new(text: impl Into<String>, label: impl Into<String>) -> Self {
        Self { text: text.into(), label: label.into() }
    }
}
