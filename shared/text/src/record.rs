use serde::{Deserialize, Serialize};

use crate::error::TextError;

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

/// Texts as JSON lines, as they go between sites and coordinator and lie beside a report. Errors: none that texts can cause.
pub fn to_lines(texts: &[Labelled]) -> Result<Vec<u8>, TextError> {
    let mut lines = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        serde_json::to_writer(&mut lines, text).map_err(|e| TextError::line(index, e))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Texts of JSON lines. Errors: what is not UTF-8, a line that is not a text with its label and nothing else.
pub fn from_lines(lines: &[u8]) -> Result<Vec<Labelled>, TextError> {
    let text = std::str::from_utf8(lines).map_err(|e| TextError::line(0, e))?;
    let read = |(index, line)| serde_json::from_str(line).map_err(|e| TextError::line(index, e));
    text.lines().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_texts_and_nothing_else() {
        let texts = [Labelled::new("two\nlines", "a"), Labelled::new("\"quoted\"", "b")];
        let lines = to_lines(&texts).unwrap();
        assert_eq!(lines.split(|byte| *byte == b'\n').count(), 3, "two lines, each ended");
        assert_eq!(from_lines(&lines).unwrap(), texts);
        assert!(from_lines(b"").unwrap().is_empty());
        for bad in [&b"{\"text\":\"x\"}\n"[..], b"{\"text\":\"x\",\"label\":\"a\",\"more\":1}\n", b"\xff"] {
            assert!(from_lines(bad).unwrap_err().to_string().starts_with("text 1: "));
        }
    }
}
