//! Which rows are for training and which for testing.

use crate::dataset::Split;
use crate::schema::SplitRule;
use sha2::{Digest, Sha256};

/// Reads a split's name as it stands in a column or a JSON field. Validation rows are training rows here: nothing in
/// a one-round method is tuned on them. So are the rows that MBPP sets aside as prompts.
pub(crate) fn parse(name: &str) -> Option<Split> {
    match name.trim().to_ascii_lowercase().as_str() {
        "train" | "training" | "prompt" | "valid" | "validation" | "dev" | "0" => Some(Split::Train),
        "test" | "1" => Some(Split::Test),
        _ => None,
    }
}

/// Decides by hash: `content` is the row's id, or all that the schema reads of it. Parts are framed by their lengths,
/// so `["ab", "c"]` and `["a", "bc"]` differ.
pub(crate) fn decide<'a>(rule: Option<&SplitRule>, content: impl Iterator<Item = &'a [u8]>) -> Split {
    let Some(rule) = rule.filter(|rule| rule.test_fraction > 0.0) else {
        return Split::Train;
    };
    let mut hash = Sha256::new();
    hash.update(b"sheaf row split 1");
    hash.update(rule.seed.to_le_bytes());
    for part in content {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    // The top 53 bits as a number in [0, 1), every one of them exactly a double.
    let position = (u64::from_le_bytes(head) >> 11) as f64 / (1_u64 << 53) as f64;
    if position < rule.test_fraction { Split::Test } else { Split::Train }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_asked_part_is_test_and_the_seed_matters() {
        let rule = SplitRule { column: None, test_fraction: 0.25, seed: 1 };
        let other = SplitRule { seed: 2, ..rule.clone() };
        let of =
            |rule: &SplitRule, row: u32| decide(Some(rule), std::iter::once(row.to_le_bytes().as_slice()));
        let tests = (0..10_000).filter(|&row| of(&rule, row) == Split::Test).count();
        assert!((2_350..2_650).contains(&tests), "{tests}");
        assert!((0..100).any(|row| of(&rule, row) != of(&other, row)));
        assert_eq!(decide(None, std::iter::empty()), Split::Train);
    }
}
