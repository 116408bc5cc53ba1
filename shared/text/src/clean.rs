//! Cleaning: stray punctuation, white space, length, exact duplicates.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::error::TextError;
use crate::funnel::Step;
use crate::record::Labelled;
use crate::words::{fold, is_blank, single_line, words};

/// Which texts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CleanSpec {
    /// Fewest words ([`words`]) of a text, at least 1.
    pub min_words: usize,
    /// Most words of a text.
    pub max_words: usize,
}

impl Default for CleanSpec {
    fn default() -> Self {
        Self { min_words: 10, max_words: 512 }
    }
}

/// Why a text was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unclean {
    /// Fewer than `min_words` words.
    TooShort,
    /// More than `max_words` words.
    TooLong,
    /// The same as an earlier text but for case and white space, whatever the label.
    Duplicate,
}

impl Unclean {
    /// The reason as a report shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too short",
            Self::TooLong => "too long",
            Self::Duplicate => "duplicate",
        }
    }
}

/// What cleaning left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// The kept samples, tidied, in their order.
    pub kept: Vec<Labelled>,
    /// For each kept sample its place in the input.
    pub places: Vec<usize>,
    /// Place in the input and reason of each that was dropped.
    pub dropped: Vec<(usize, Unclean)>,
    /// Counts by reason.
    pub step: Step,
}

/// Tidies every text ([`tidy`]), then drops what is too short, too long, or there already. Of duplicates the first stays.
///
/// Cleaning what is clean changes nothing. Errors: `min_words` is 0 or above `max_words`.
pub fn clean(samples: &[Labelled], spec: &CleanSpec) -> Result<Cleaned, TextError> {
    let CleanSpec { min_words, max_words } = *spec;
    if min_words == 0 || min_words > max_words {
        let reason = format!("{min_words} is not within 1 and max_words, which is {max_words}");
        return Err(TextError::setting("min_words", reason));
    }
    let mut seen = HashSet::new();
    let step = Step::new("clean", samples.len());
    let mut cleaned = Cleaned { kept: Vec::new(), places: Vec::new(), dropped: Vec::new(), step };
    for (place, sample) in samples.iter().enumerate() {
        let text = tidy(&sample.text);
        let count = words(&text).len();
        let reason = if count < min_words {
            Some(Unclean::TooShort)
        } else if count > max_words {
            Some(Unclean::TooLong)
        } else if !seen.insert(fold(&text)) {
            Some(Unclean::Duplicate)
        } else {
            None
        };
        if let Some(reason) = reason {
            cleaned.dropped.push((place, reason));
            cleaned.step.drop_one(reason.name());
        } else {
            cleaned.kept.push(Labelled { text, label: sample.label.clone() });
            cleaned.places.push(place);
        }
    }
    Ok(cleaned)
}

/// The text on one line, without stray punctuation: separators, bullets and marks at its start; separators and open
/// brackets at its end; quotation marks around all of it, or one without its partner at an end. What ends a sentence stays.
pub fn tidy(text: &str) -> String {
    let line = single_line(text);
    let mut rest = line.as_str();
    loop {
        let before = rest.len();
        rest = rest.trim_start_matches(|c| is_blank(c) || STRAY_BEFORE.contains(c));
        rest = rest.trim_end_matches(|c| is_blank(c) || STRAY_AFTER.contains(c));
        rest = without_stray_quotes(rest);
        if rest.len() == before {
            return rest.to_owned();
        }
    }
}

const STRAY_BEFORE: &str = ":;,.!?|/\\-–—−*_=~>)]}`•·";
const STRAY_AFTER: &str = ":;,|/\\-–—−*_=~<([{`•·#";
const QUOTES: &str = "\"“”„«»";

fn without_stray_quotes(text: &str) -> &str {
    let is_quote = |c: char| QUOTES.contains(c);
    let quotes = text.chars().filter(|&c| is_quote(c)).count();
    match (text.strip_prefix(is_quote), text.strip_suffix(is_quote)) {
        // Both ends, nothing quoted within; a lone mark is both ends at once.
        (Some(inner), Some(_)) if quotes <= 2 => inner.strip_suffix(is_quote).unwrap_or(inner),
        (Some(rest), _) | (None, Some(rest)) if quotes % 2 == 1 => rest,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPEC: CleanSpec = CleanSpec { min_words: 2, max_words: 4 };

    fn samples(texts: &[&str]) -> Vec<Labelled> {
        texts.iter().map(|text| Labelled::new(*text, "a")).collect()
    }

    #[test]
    fn stray_punctuation_goes_and_sentences_stay() {
        for (text, tidied) in [
            (": Great product.", "Great product."),
            ("- **Great** product!", "Great** product!"),
            ("\"Great product.\"", "Great product."),
            ("“Great product.", "Great product."),
            ("\"Great\" she said, \"it works\"", "\"Great\" she said, \"it works\""),
            ("Great\u{a0}\u{2003}product ,\n\n", "Great product"),
            ("Great (really)", "Great (really)"),
            ("$5 is fine; isn't it?", "$5 is fine; isn't it?"),
            ("\"", ""),
            (" ... ", ""),
        ] {
            assert_eq!(tidy(text), tidied);
        }
    }

    #[test]
    fn drops_are_counted_by_reason_and_the_first_of_duplicates_stays() {
        let samples = samples(&[
            "It  works.",
            "one",
            "it WORKS.",
            "a b c d e",
            "... ! ? ,",
            "it works well",
            "IT\u{2003}works.",
        ]);
        let cleaned = clean(&samples, &SPEC).unwrap();
        assert_eq!(cleaned.places, [0, 5]);
        assert_eq!(cleaned.kept[0].text, "It works.");
        let reasons = [
            (1, Unclean::TooShort),
            (2, Unclean::Duplicate),
            (3, Unclean::TooLong),
            (4, Unclean::TooShort),
            (6, Unclean::Duplicate),
        ];
        assert_eq!(cleaned.dropped, reasons);
        assert_eq!(cleaned.step.dropped["duplicate"], 2);
        assert_eq!(cleaned.step.kept(), 2);
    }

    #[test]
    fn ten_words_are_asked_for_by_default() {
        let nine = "a b c d e f g h i";
        let cleaned = clean(&samples(&[nine, &format!("{nine} j")]), &CleanSpec::default()).unwrap();
        assert_eq!(cleaned.places, [1]);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        assert!(clean(&[], &CleanSpec { min_words: 0, max_words: 4 }).is_err());
        assert!(clean(&[], &CleanSpec { min_words: 5, max_words: 4 }).is_err());
    }

    proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(texts in prop::collection::vec("([a-cA-C“”\"*:.,!( \u{a0}\n-]|\\PC){0,24}", 0..12)) {
            let spec = CleanSpec { min_words: 1, max_words: 8 };
            let samples: Vec<_> = texts.iter().map(|text| Labelled::new(text, "a")).collect();
            let once = clean(&samples, &spec).unwrap();
            prop_assert_eq!(once.kept.len() + once.dropped.len(), samples.len());
            prop_assert_eq!(once.step.kept(), once.kept.len());
            let twice = clean(&once.kept, &spec).unwrap();
            prop_assert_eq!(&twice.kept, &once.kept);
            prop_assert!(twice.dropped.is_empty());
        }
    }
}
