use std::collections::HashSet;

use super::ngram::share;

/// Distinct n-grams over all n-grams of the texts together, 0 to 1: distinct-1 and distinct-2 for `n` of 1 and 2. 0 where
/// there is no n-gram.
///
/// Li et al. (NAACL 2016, arXiv 1510.03055) divide by the words instead, which for `n` = 2 gives slightly less. It falls
/// with the amount of text, so compare pools of equal size.
pub fn distinct(texts: &[Vec<String>], n: usize) -> f64 {
    if n == 0 {
        return 0.0;
    }
    let grams = || texts.iter().flat_map(|text| text.windows(n));
    share(grams().collect::<HashSet<_>>().len(), grams().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::words;

    #[test]
    fn repeats_lower_it() {
        let texts = [words("a b a b"), words("a c"), words("")];
        // Words a b a b a c; pairs ab ba ab ac.
        assert_eq!(distinct(&texts, 1), 3.0 / 6.0);
        assert_eq!(distinct(&texts, 2), 3.0 / 4.0);
        assert_eq!(distinct(&texts, 5), 0.0);
        assert_eq!(distinct(&texts, 0), 0.0);
    }
}
