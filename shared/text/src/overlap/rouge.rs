use std::collections::HashMap;

use super::ngram::share;

/// A ROUGE score of a candidate against one reference (Lin, 2004), each part 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rouge {
    /// Matches over what the candidate has.
    pub precision: f64,
    /// Matches over what the reference has.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

impl Rouge {
    fn of(matches: usize, candidate: usize, reference: usize) -> Self {
        // 2PR / (P + R), without the rounding of two divisions.
        let f1 = share(2 * matches, candidate + reference);
        Self { precision: share(matches, candidate), recall: share(matches, reference), f1 }
    }
}

/// ROUGE-N: n-grams in both, each as often as it comes in both. All parts are 0 where a side has no n-gram.
///
/// On ASCII texts these are the values of the Python package `rouge_score` with `use_stemmer=False`; beyond ASCII they
/// differ, since it treats every other letter as a separator ([`words`](crate::words::words) does not).
pub fn rouge_n(candidate: &[String], reference: &[String], n: usize) -> Rouge {
    if n == 0 {
        return Rouge::of(0, 0, 0);
    }
    let mut left: HashMap<&[String], usize> = HashMap::new();
    for gram in reference.windows(n) {
        *left.entry(gram).or_default() += 1;
    }
    let mut matches = 0;
    for gram in candidate.windows(n) {
        if let Some(count) = left.get_mut(gram).filter(|count| **count > 0) {
            *count -= 1;
            matches += 1;
        }
    }
    let grams = |words: &[String]| (words.len() + 1).saturating_sub(n);
    match (grams(candidate), grams(reference)) {
        (0, _) | (_, 0) => Rouge::of(0, 0, 0),
        (candidate, reference) => Rouge::of(matches, candidate, reference),
    }
}

/// ROUGE-L: the longest common subsequence of words, over the text as one sentence: `rouge_score`'s `rougeL`, not its
/// `rougeLsum`. Quadratic in the words.
pub fn rouge_l(candidate: &[String], reference: &[String]) -> Rouge {
    let mut row = vec![0_usize; reference.len() + 1];
    for word in candidate {
        let mut diagonal = 0;
        for (at, other) in reference.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if word == other { diagonal + 1 } else { above.max(row[at]) };
            diagonal = above;
        }
    }
    Rouge::of(row[reference.len()], candidate.len(), reference.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::words;

    fn check(rouge: Rouge, precision: f64, recall: f64, f1: f64) {
        for (got, wanted) in [(rouge.precision, precision), (rouge.recall, recall), (rouge.f1, f1)] {
            assert!((got - wanted).abs() < 1e-12, "{rouge:?}");
        }
    }

    /// By hand, and the same as `rouge_score` 0.1.2 gives.
    #[test]
    fn reference_values() {
        let (a, b) = (words("the cat sat on the mat"), words("the cat is on the mat"));
        check(rouge_n(&a, &b, 1), 5.0 / 6.0, 5.0 / 6.0, 5.0 / 6.0);
        check(rouge_n(&a, &b, 2), 3.0 / 5.0, 3.0 / 5.0, 3.0 / 5.0);
        check(rouge_l(&a, &b), 5.0 / 6.0, 5.0 / 6.0, 5.0 / 6.0);

        let (a, b) = (words("police killed the gunman"), words("police kill the gunman the gunman"));
        check(rouge_n(&a, &b, 1), 3.0 / 4.0, 3.0 / 6.0, 0.6);
        check(rouge_n(&a, &b, 2), 1.0 / 3.0, 1.0 / 5.0, 0.25);
        check(rouge_l(&a, &b), 3.0 / 4.0, 3.0 / 6.0, 0.6);

        // A word counts as often as both have it.
        let (a, b) = (words("the the the"), words("the cat"));
        check(rouge_n(&a, &b, 1), 1.0 / 3.0, 1.0 / 2.0, 0.4);
        check(rouge_n(&a, &b, 2), 0.0, 0.0, 0.0);

        let (a, b) = (words("Don't stop, now!"), words("don t stop"));
        check(rouge_n(&a, &b, 2), 2.0 / 3.0, 1.0, 0.8);
        check(rouge_l(&a, &b), 3.0 / 4.0, 1.0, 6.0 / 7.0);
    }

    #[test]
    fn order_counts_in_the_longest_subsequence() {
        check(rouge_l(&words("a b c d"), &words("d c b a")), 0.25, 0.25, 0.25);
    }

    #[test]
    fn nothing_in_common_with_nothing() {
        for (a, b) in [("", ""), ("", "a"), ("a", "")] {
            check(rouge_n(&words(a), &words(b), 1), 0.0, 0.0, 0.0);
            check(rouge_l(&words(a), &words(b)), 0.0, 0.0, 0.0);
        }
    }

    #[test]
    fn accented_letters_are_letters() {
        // rouge_score would cut both into "na" and "ve" and find two matches.
        check(rouge_n(&words("naïve"), &words("naäve"), 1), 0.0, 0.0, 0.0);
    }
}
