use std::collections::HashMap;

use crate::error::TextError;
use crate::record::Labelled;
use crate::words::{fold, single_line};

/// The labels of a run, in the plan's order. They come from the plan, never from records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    folded: HashMap<String, usize>,
}

impl Labels {
    /// Labels that an answer can be matched with.
    ///
    /// Errors: no label; one that is empty, not on one line or has white space at an end; two that differ in case or white
    /// space alone.
    pub fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Self, TextError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let refuse = |reason: String| Err(TextError::Labels { reason });
        if names.is_empty() {
            return refuse("there are none; the plan must name at least one".to_owned());
        }
        let mut folded = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            if name.is_empty() || *name != single_line(name) {
                return refuse(format!("{name:?} must be one line of text without white space at its ends"));
            }
            if let Some(earlier) = folded.insert(fold(name), index) {
                let earlier = &names[earlier];
                return refuse(format!(
                    "{earlier:?} and {name:?} differ in case or white space alone; rename one"
                ));
            }
        }
        Ok(Self { names, folded })
    }

    /// How many there are, at least one.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// The names, in the plan's order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The index of exactly this label.
    pub fn index(&self, label: &str) -> Option<usize> {
        self.names.iter().position(|name| name == label)
    }

    /// The index of the label of a sample, the `index`th of several.
    pub(crate) fn index_of(&self, index: usize, sample: &Labelled) -> Result<usize, TextError> {
        let unknown = || TextError::UnknownLabel { index, label: sample.label.clone(), known: self.count() };
        self.index(&sample.label).ok_or_else(unknown)
    }

    /// The index of the label that a language model meant: the same but for case, white space, and punctuation around it
    /// ("\"Positive\"." is `positive`). Nothing else is guessed: "4 stars" is not `4`, and what fits two labels fits none.
    pub fn find(&self, answer: &str) -> Option<usize> {
        let answer = fold(answer);
        if let Some(&index) = self.folded.get(&answer) {
            return Some(index);
        }
        // A label's own punctuation belongs to it: `"C++".` is `C++`. Of two that fit, the longer one says more.
        let around = |name: &str| {
            !name.is_empty()
                && answer.match_indices(name).any(|(at, _)| {
                    answer[..at].chars().all(is_wrapping)
                        && answer[at + name.len()..].chars().all(is_wrapping)
                })
        };
        let fitting: Vec<_> = self.folded.iter().filter(|(name, _)| around(name)).collect();
        if let Some(longest) = fitting.iter().map(|(name, _)| name.len()).max() {
            let mut longest = fitting.iter().filter(|(name, _)| name.len() == longest);
            return match (longest.next(), longest.next()) {
                (Some((_, index)), None) => Some(**index),
                _ => None,
            };
        }
        let bare = answer.trim_matches(is_wrapping);
        if bare.is_empty() {
            return None;
        }
        let mut fitting = self.folded.iter().filter(|(name, _)| name.trim_matches(is_wrapping) == bare);
        match (fitting.next(), fitting.next()) {
            (Some((_, &index)), None) => Some(index),
            _ => None,
        }
    }
}

/// What models put around a word. Signs that change its meaning ("C#", "-1", "5%") are not among them.
fn is_wrapping(c: char) -> bool {
    c == ' ' || "\"'`.,;:!?*_|()[]{}<>“”‘’«»、。，！？：；".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Labels {
        Labels::new(names.iter().copied()).unwrap()
    }

    #[test]
    fn punctuation_and_case_do_not_make_a_label_unknown() {
        let labels = labels(&["positive", "Very negative", "4"]);
        for (answer, index) in [
            ("Positive", 0),
            ("\"positive\".", 0),
            ("**positive**", 0),
            ("POSITIVE!", 0),
            (" very\u{a0} NEGATIVE,", 1),
            ("[4]", 2),
            ("4.", 2),
        ] {
            assert_eq!(labels.find(answer), Some(index), "{answer}");
        }
    }

    #[test]
    fn other_labels_are_unknown() {
        let labels = labels(&["positive", "negative", "4"]);
        for answer in ["neutral", "positive or negative", "4 stars", "4.5", "", "...", "posi"] {
            assert_eq!(labels.find(answer), None, "{answer}");
        }
    }

    #[test]
    fn punctuation_of_the_labels_themselves_counts_first() {
        let labels = labels(&["C", "C++", "-", "+"]);
        for (answer, index) in [("c++", 1), ("C++.", 1), ("\"C++\"", 1), ("c.", 0), ("-", 2), ("+.", 3)] {
            assert_eq!(labels.find(answer), Some(index), "{answer}");
        }
        assert_eq!(labels.find("C#"), None, "another language");
        assert_eq!(Labels::new(["Yahoo", "Yahoo!"]).unwrap().find("'yahoo!'."), Some(1));
        assert_eq!(Labels::new(["Yahoo!"]).unwrap().find("yahoo"), Some(0));
        assert_eq!(Labels::new(["a!", "a?"]).unwrap().find("a"), None, "fits both");
    }

    #[test]
    fn labels_that_answers_could_not_tell_apart_are_refused() {
        for bad in [vec![], vec![""], vec![" a"], vec!["a\nb"], vec!["a", "b", "A"], vec!["a b", "A\u{a0}B"]]
        {
            assert!(Labels::new(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
