//! Texts with their answers, for training on what should follow a text.

use super::{Dataset, Records, Tests};
use crate::DataError;

/// A record of a query and its response.
#[derive(Clone, Copy)]
pub struct Dialogue<'a> {
    /// The query.
    pub query: &'a str,
    /// The response.
    pub response: &'a str,
    /// Its class, where it has one.
    pub label: Option<&'a str>,
    /// Of a response that is a program.
    pub tests: Option<&'a Tests>,
}

impl Dataset {
    /// Text and label of rows; a row without a label is left out.
    ///
    /// # Errors
    /// [`DataError::Schema`] where the data are not texts.
    pub fn labelled_texts(&self, rows: &[usize]) -> Result<Vec<(&str, &str)>, DataError> {
        let Records::Text(texts) = &self.records else {
            return Err(DataError::Schema("texts are asked for, but the data are not texts".into()));
        };
        let of = |&row: &usize| Some((texts.get(row)?.body.as_str(), self.labels.get(row)?));
        Ok(rows.iter().filter_map(of).collect())
    }

    /// The row as query and response; none where it has no answer, or is no text.
    pub fn dialogue(&self, row: usize) -> Option<Dialogue<'_>> {
        let Records::Text(texts) = &self.records else { return None };
        let text = texts.get(row)?;
        let response = text.answer.as_deref().filter(|answer| !answer.trim().is_empty())?;
        Some(Dialogue {
            query: &text.body,
            response,
            label: self.labels.get(row),
            tests: text.tests.as_ref(),
        })
    }

    /// Text and answer of rows; a row without an answer is left out.
    ///
    /// # Errors
    /// [`DataError::Schema`] where the data are not texts, or none of these rows has an answer.
    pub fn dialogues(&self, rows: &[usize]) -> Result<Vec<(&str, &str)>, DataError> {
        let Records::Text(texts) = &self.records else {
            return Err(DataError::Schema(
                "texts with answers are asked for, but the data are not texts".into(),
            ));
        };
        let found: Vec<_> = rows
            .iter()
            .filter_map(|&row| texts.get(row))
            .filter_map(|text| Some((text.body.as_str(), text.answer.as_deref()?)))
            .filter(|(_, answer)| !answer.trim().is_empty())
            .collect();
        if found.is_empty() && !rows.is_empty() {
            return Err(DataError::Schema(
                "texts with answers are asked for, but no record has an answer; see docs/data.md".into(),
            ));
        }
        Ok(found)
    }
}
