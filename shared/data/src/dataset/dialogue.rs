//! Texts with their answers, for training on what should follow a text.

use super::{Dataset, Records};
use crate::DataError;

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
