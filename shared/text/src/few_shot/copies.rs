use serde::{Deserialize, Serialize};

use crate::error::TextError;
use crate::funnel::Step;
use crate::overlap::overlap;
use crate::record::Labelled;
use crate::words::words;

/// When a text counts as a copy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CopySpec {
    /// Words of an n-gram.
    pub n: usize,
    /// Share of n-grams, of the text with fewer of them, from which on the two are copies; above 0, up to 1.
    pub threshold: f64,
}

impl Default for CopySpec {
    fn default() -> Self {
        Self { n: 4, threshold: 0.5 }
    }
}

/// What is new among generated samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// Samples that copy nothing, in their order.
    pub kept: Vec<Labelled>,
    /// For each its place in the input.
    pub places: Vec<usize>,
    /// Counts by reason: "copy of a demonstration", "copy of another answer".
    pub step: Step,
}

/// Drops generated samples that copy a demonstration or an earlier sample that stayed: [`overlap`] of at least
/// `threshold`, so a demonstration within a longer text is found, too. Errors: `n` is 0, a threshold outside its range.
pub fn drop_copies(samples: &[Labelled], shown: &[&Labelled], spec: &CopySpec) -> Result<Fresh, TextError> {
    if spec.n == 0 {
        return Err(TextError::setting("n", "an n-gram has at least one word"));
    }
    if !(spec.threshold > 0.0 && spec.threshold <= 1.0) {
        let reason = format!("{} is not above 0 and up to 1", spec.threshold);
        return Err(TextError::setting("threshold", reason));
    }
    let shown: Vec<_> = shown.iter().map(|record| words(&record.text)).collect();
    let mut kept_words: Vec<Vec<String>> = Vec::new();
    let step = Step::new("copies", samples.len());
    let mut fresh = Fresh { kept: Vec::new(), places: Vec::new(), step };
    for (place, sample) in samples.iter().enumerate() {
        let text = words(&sample.text);
        let copies = |other: &Vec<String>| overlap(&text, other, spec.n) >= spec.threshold;
        if shown.iter().any(copies) {
            fresh.step.drop_one("copy of a demonstration");
        } else if kept_words.iter().any(copies) {
            fresh.step.drop_one("copy of another answer");
        } else {
            fresh.kept.push(sample.clone());
            fresh.places.push(place);
            kept_words.push(text);
        }
    }
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_dropped_by_whom_they_copy() {
        let shown = Labelled::new("the charger stopped after two days of use", "1");
        let samples: Vec<_> = [
            "the charger stopped after two days of light use",
            "a lamp that is bright enough to read by at night",
            "I bought it and the charger stopped after two days of use, so I sent it back to the shop",
            "A lamp that is bright enough to read by!",
            "the charger is fine",
        ]
        .map(|text| Labelled::new(text, "1"))
        .into();
        let fresh = drop_copies(&samples, &[&shown], &CopySpec::default()).unwrap();
        assert_eq!(fresh.places, [1, 4]);
        assert_eq!(fresh.kept[0], samples[1]);
        assert_eq!(fresh.step.dropped["copy of a demonstration"], 2);
        assert_eq!(fresh.step.dropped["copy of another answer"], 1);
    }

    #[test]
    fn the_threshold_is_the_share_of_shared_n_grams() {
        // Three of the five pairs are shared.
        let (shown, sample) = (Labelled::new("a b c d e f", "1"), Labelled::new("a b c d x y", "1"));
        let kept = |threshold| {
            drop_copies(std::slice::from_ref(&sample), &[&shown], &CopySpec { n: 2, threshold })
                .unwrap()
                .kept
                .len()
        };
        assert_eq!((kept(0.6), kept(0.61)), (0, 1));
    }

    #[test]
    fn settings_that_compare_nothing_are_refused() {
        for spec in
            [(0, 0.5), (4, 0.0), (4, 1.1), (4, f64::NAN)].map(|(n, threshold)| CopySpec { n, threshold })
        {
            assert!(drop_copies(&[], &[], &spec).is_err(), "{spec:?}");
        }
    }
}
