use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::near::mix;
use crate::error::TextError;
use crate::words::words;

/// A run of words that two texts share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Words.
    pub len: usize,
    /// Where it starts in the first text, or in the text looked up.
    pub at: usize,
    /// Where it starts in the second text, or in the record.
    pub other_at: usize,
}

/// The longest run of words that both texts have, the first of equals in `a`; nothing where they share no word. Quadratic;
/// for many records use [`RunIndex`].
pub fn longest_run(a: &[String], b: &[String]) -> Option<Run> {
    let mut best: Option<Run> = None;
    let mut row = vec![0_usize; b.len() + 1];
    for (i, word) in a.iter().enumerate() {
        // Backwards: each cell needs its left neighbour of the row before.
        for (j, other) in b.iter().enumerate().rev() {
            row[j + 1] = if word == other { row[j] + 1 } else { 0 };
            let len = row[j + 1];
            if len > best.map_or(0, |run| run.len) {
                best = Some(Run { len, at: i + 1 - len, other_at: j + 1 - len });
            }
        }
    }
    best
}

/// Finds runs of at least `n` words that a text shares with any of many records: the check that "no released text has
/// 20 words in a row of a private record".
///
/// Every window of `n` words of the records is indexed by a rolling hash; what a text hits is compared word by word, so a
/// collision costs time and never a wrong answer. It holds the records' words: it stays where they are, and cannot be
/// printed.
pub struct RunIndex {
    n: usize,
    ids: HashMap<String, u32>,
    records: Vec<Vec<u32>>,
    windows: HashMap<u64, Vec<(u32, u32)>>,
}

impl RunIndex {
    /// Indexes records for runs of `n` words and more. Errors: `n` is 0; more than 2^32 records or words.
    pub fn new<S: AsRef<str>>(records: impl IntoIterator<Item = S>, n: usize) -> Result<Self, TextError> {
        if n == 0 {
            return Err(TextError::setting("n", "a run has at least one word"));
        }
        let mut index = Self { n, ids: HashMap::new(), records: Vec::new(), windows: HashMap::new() };
        for text in records {
            index.add(text.as_ref())?;
        }
        Ok(index)
    }

    fn add(&mut self, text: &str) -> Result<(), TextError> {
        let too_many =
            |_| TextError::setting("records", "an index holds up to 2^32 records, words each and words");
        let record = u32::try_from(self.records.len()).map_err(too_many)?;
        let words = words(text);
        u32::try_from(words.len()).map_err(too_many)?;
        let mut sequence = Vec::with_capacity(words.len());
        for word in words {
            let next = self.ids.len();
            sequence.push(match self.ids.entry(word) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => *new.insert(u32::try_from(next).map_err(too_many)?),
            });
        }
        for (at, hash) in hashes(&sequence, self.n) {
            self.windows.entry(hash).or_default().push((record, at as u32));
        }
        self.records.push(sequence);
        Ok(())
    }

    /// The longest run of `n` words or more that the text shares with a record, and which record; the first of equals.
    pub fn longest(&self, text: &str) -> Option<(usize, Run)> {
        let words = words(text);
        let ids: Vec<_> = words.iter().map(|word| self.ids.get(word).copied()).collect();
        let mut best: Option<(usize, Run)> = None;
        let mut start = 0;
        // A word that no record has ends every run.
        for part in ids.split(Option::is_none) {
            let part_ids: Vec<u32> = part.iter().copied().flatten().collect();
            for (at, hash) in hashes(&part_ids, self.n) {
                for &(record, record_at) in self.windows.get(&hash).into_iter().flatten() {
                    let (record, record_at) = (record as usize, record_at as usize);
                    let longest = best.map_or(0, |(_, run)| run.len);
                    if let Some(len) = self.extend(&part_ids, at, record, record_at, longest) {
                        best = Some((record, Run { len, at: start + at, other_at: record_at }));
                    }
                }
            }
            start += part.len() + 1;
        }
        best
    }

    /// Whether the text shares `n` words in a row with any record.
    pub fn shares_run(&self, text: &str) -> bool {
        self.longest(text).is_some()
    }

    /// Length of the run from these places on, if it has `n` words and is longer than `longest`.
    fn extend(
        &self,
        ids: &[u32],
        at: usize,
        record: usize,
        record_at: usize,
        longest: usize,
    ) -> Option<usize> {
        let (text, record) = (&ids[at..], &self.records[record][record_at..]);
        // Cheap when many places repeat what was found already: most end before its last word.
        if longest > 0 && (text.get(longest)? != record.get(longest)?) {
            return None;
        }
        let len = text.iter().zip(record).take_while(|(a, b)| a == b).count();
        (len >= self.n && len > longest).then_some(len)
    }
}

/// Of the polynomial, and the step of SplitMix64: the golden ratio's odd neighbour.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// Place and hash of each window of `n` ids: a polynomial mod 2^64, rolled on.
fn hashes(ids: &[u32], n: usize) -> impl Iterator<Item = (usize, u64)> + '_ {
    let leading = (1..n.min(ids.len())).fold(1_u64, |power, _| power.wrapping_mul(BASE));
    let mut hash = ids.iter().take(n - 1).fold(0_u64, |hash, &id| push(hash, id));
    (n..=ids.len()).map(move |end| {
        hash = push(hash, ids[end - 1]);
        let (at, whole) = (end - n, hash);
        hash = hash.wrapping_sub(spread(ids[at]).wrapping_mul(leading));
        (at, whole)
    })
}

fn push(hash: u64, id: u32) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(spread(id))
}

/// Neighbouring ids far apart.
fn spread(id: u32) -> u64 {
    mix(u64::from(id).wrapping_add(BASE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every pair of places, word by word.
    fn brute_force(a: &[String], b: &[String]) -> usize {
        let at = |i: usize, j: usize| a[i..].iter().zip(&b[j..]).take_while(|(a, b)| a == b).count();
        (0..a.len()).flat_map(|i| (0..b.len()).map(move |j| (i, j))).map(|(i, j)| at(i, j)).max().unwrap_or(0)
    }

    #[test]
    fn a_copied_run_is_found_whatever_its_case_and_punctuation() {
        let records = ["nothing of note here", "the patient, aged 54, came in with chest pain at night"];
        let index = RunIndex::new(records, 4).unwrap();
        let (record, run) = index.longest("He wrote: CAME IN WITH (chest) pain, then left").unwrap();
        assert_eq!((record, run), (1, Run { len: 5, at: 2, other_at: 4 }));
        assert!(!index.shares_run("came in with a chest pain at"));
        assert!(!index.shares_run(""));
        assert!(RunIndex::new(records, 0).is_err());
    }

    #[test]
    fn a_collision_of_hashes_is_no_run() {
        let index = RunIndex::new(["a b c d"], 3).unwrap();
        assert_eq!(index.extend(&[0, 1, 9], 0, 0, 0, 0), None);
        assert_eq!(index.extend(&[0, 1, 2], 0, 0, 0, 0), Some(3));
    }

    #[test]
    fn twenty_words_are_a_run_and_nineteen_are_not() {
        let record: Vec<String> = (0..30).map(|i| format!("w{i}")).collect();
        let index = RunIndex::new([record.join(" ")], 20).unwrap();
        assert!(index.shares_run(&format!("x {} y", record[5..25].join(" "))));
        assert!(!index.shares_run(&format!("x {} y {}", record[5..24].join(" "), record[25..].join(" "))));
    }

    #[test]
    fn thousands_of_records_with_one_opening_are_quick() {
        // The worst case for windows: all texts open alike, and one word repeats.
        let opening = "again ".repeat(200);
        let records: Vec<_> = (0..5000).map(|i| format!("{opening} record{i}")).collect();
        let index = RunIndex::new(records.iter().map(String::as_str).take(500), 20).unwrap();
        assert_eq!(index.longest(&format!("{opening} other")).unwrap().1.len, 200);
        assert_eq!(
            index.longest(&format!("again {} record77", "again ".repeat(30))).unwrap(),
            (77, Run { len: 32, at: 0, other_at: 169 })
        );
    }

    proptest! {
        #[test]
        fn the_index_and_the_table_agree_with_brute_force(
            records in prop::collection::vec(prop::collection::vec("[abc]", 0..24), 0..5),
            text in prop::collection::vec("[abcd]", 0..24),
            n in 1..5_usize,
        ) {
            let index = RunIndex::new(records.iter().map(|record| record.join(" ")), n).unwrap();
            let mut wanted = 0;
            for record in &records {
                let longest = brute_force(&text, record);
                let run = longest_run(&text, record);
                prop_assert_eq!(run.map_or(0, |run| run.len), longest);
                if let Some(Run { len, at, other_at }) = run {
                    prop_assert_eq!(&text[at..at + len], &record[other_at..other_at + len]);
                }
                wanted = wanted.max(longest);
            }
            let found = index.longest(&text.join(" "));
            prop_assert_eq!(found.map_or(0, |(_, run)| run.len), if wanted >= n { wanted } else { 0 });
            if let Some((record, Run { len, at, other_at })) = found {
                prop_assert_eq!(&text[at..at + len], &records[record][other_at..other_at + len]);
            }
        }
    }
}
