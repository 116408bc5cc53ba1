use std::collections::HashSet;

/// The distinct n-grams of a text's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NGrams<'a>(HashSet<&'a [String]>);

impl<'a> NGrams<'a> {
    /// The n-grams of `words`; none where `n` is 0 or above the number of words.
    pub fn of(words: &'a [String], n: usize) -> Self {
        Self(if n == 0 { HashSet::new() } else { words.windows(n).collect() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are in both.
    pub fn shared(&self, other: &NGrams<'_>) -> usize {
        let (few, many) = if self.len() <= other.len() { (&self.0, &other.0) } else { (&other.0, &self.0) };
        few.iter().filter(|gram| many.contains(**gram)).count()
    }
}

/// Share of the n-grams of `a` that `b` has too, 0 to 1. With fewer than `n` words on a side, n-grams of that side's whole
/// length are compared, so that a short copy shows too. 0 where a side has no words or `n` is 0.
pub fn containment(a: &[String], b: &[String], n: usize) -> f64 {
    let (a, b) = both(a, b, n);
    share(a.shared(&b), a.len())
}

/// Shared n-grams over those of the text with fewer of them, 0 to 1: the overlap coefficient. It is 1 where one text is
/// within the other, whichever is longer. Short texts as in [`containment`].
pub fn overlap(a: &[String], b: &[String], n: usize) -> f64 {
    let (a, b) = both(a, b, n);
    share(a.shared(&b), a.len().min(b.len()))
}

/// Shared n-grams over all n-grams of both, 0 to 1. Short texts as in [`containment`].
pub fn jaccard(a: &[String], b: &[String], n: usize) -> f64 {
    let (a, b) = both(a, b, n);
    let shared = a.shared(&b);
    share(shared, a.len() + b.len() - shared)
}

fn both<'a, 'b>(a: &'a [String], b: &'b [String], n: usize) -> (NGrams<'a>, NGrams<'b>) {
    let n = n.min(a.len()).min(b.len());
    (NGrams::of(a, n), NGrams::of(b, n))
}

pub(super) fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::words;

    #[test]
    fn shares_of_bigrams() {
        // a b, b c, c d against b c, c d, d e, e f: two shared of 3, of 4, and of 5 in all.
        let (a, b) = (words("a b c d"), words("b c d e f"));
        assert_eq!(containment(&a, &b, 2), 2.0 / 3.0);
        assert_eq!(containment(&b, &a, 2), 2.0 / 4.0);
        assert_eq!(overlap(&b, &a, 2), 2.0 / 3.0);
        assert_eq!(jaccard(&a, &b, 2), 2.0 / 5.0);
    }

    #[test]
    fn texts_shorter_than_n_are_compared_whole() {
        let (short, long) = (words("it works"), words("I say it works well"));
        assert_eq!(containment(&short, &long, 5), 1.0);
        assert_eq!(containment(&words("works it"), &long, 5), 0.0);
        assert_eq!(overlap(&long, &short, 5), 1.0);
        assert_eq!(jaccard(&words(""), &long, 5), 0.0);
        assert_eq!(overlap(&short, &long, 0), 0.0);
    }

    #[test]
    fn a_repeated_gram_counts_once() {
        let text = words("a b a b a");
        assert_eq!(NGrams::of(&text, 2).len(), 2);
        assert!(NGrams::of(&text, 6).is_empty());
    }
}
