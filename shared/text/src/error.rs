use thiserror::Error;

/// Why a step on texts refused its input. Nothing is changed where an error is returned.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum TextError {
    /// A control code that cannot be rendered.
    #[error("the template {pattern:?} is not usable: {reason}")]
    Template {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// A list of labels that cannot be told apart in an answer.
    #[error("the labels are not usable: {reason}")]
    Labels {
        /// What is wrong.
        reason: String,
    },
    /// A record has a label that the run does not have.
    #[error(
        "record {index} has the label {label:?}, which is none of the run's {known}; map or drop it first"
    )]
    UnknownLabel {
        /// Place of the record.
        index: usize,
        /// Its label.
        label: String,
        /// Labels of the run.
        known: usize,
    },
    /// A line that is not a text with its label.
    #[error("text {number}: {reason}")]
    Line {
        /// The line, from 1.
        number: usize,
        /// What is wrong.
        reason: String,
    },
    /// A setting is outside its range.
    #[error("{field} is not usable: {reason}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// What is allowed.
        reason: String,
    },
    /// Two inputs that belong together have different lengths.
    #[error("{what}: {got} where {expected} are needed; pass one for each")]
    Length {
        /// Which input.
        what: &'static str,
        /// Values needed.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// An embedding that has no direction.
    #[error("embedding {row} {reason}; check the encoder and drop empty texts before it")]
    Embedding {
        /// Its row.
        row: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A number that is NaN or infinite.
    #[error("{what} {index} is not finite; check the computation before it")]
    NotFinite {
        /// Which numbers.
        what: &'static str,
        /// Place among them.
        index: usize,
    },
    /// A criterion needs numbers that were not given.
    #[error("the criterion {criterion} needs {needs}, which were not given; compute them or take it out")]
    Evidence {
        /// The criterion.
        criterion: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Too few records of a label to show.
    #[error(
        "label {label:?} has {got} records where {needed} are shown in each prompt; show fewer or add records"
    )]
    TooFewRecords {
        /// The label.
        label: String,
        /// Records there are.
        got: usize,
        /// Records needed.
        needed: usize,
    },
    /// An answer of a language model that cannot be read.
    #[error("the answer is no {what}: {reason}; ask again, then fall back")]
    Answer {
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl TextError {
    pub(crate) fn line(index: usize, reason: impl std::fmt::Display) -> Self {
        Self::Line { number: index + 1, reason: reason.to_string() }
    }

    pub(crate) fn setting(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting { field, reason: reason.into() }
    }
}

pub(crate) fn same_length(what: &'static str, expected: usize, got: usize) -> Result<(), TextError> {
    if expected == got { Ok(()) } else { Err(TextError::Length { what, expected, got }) }
}

pub(crate) fn all_finite(what: &'static str, values: &[f64]) -> Result<(), TextError> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(TextError::NotFinite { what, index }),
        None => Ok(()),
    }
}
