use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::words::fold;

/// A response that the target model is tuned on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Number of the query.
    pub query: usize,
    /// The response to it.
    pub response: String,
    /// The reward proxy's score of the response.
    pub score: f64,
    /// The round that it came in.
    pub round: u32,
}

/// What a target model is tuned on, growing round by round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    entries: Vec<Entry>,
}

/// What became of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is in the pool now.
    Accepted,
    /// Its score is too low or not finite, or the pool was empty.
    BelowThreshold,
    /// The pool has the response for this query.
    Duplicate,
}

impl Pool {
    /// A pool of the filtered responses of the first round, all taken as they are.
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// The entries, in the order they came.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The least score in the pool: what a revision must reach. None when it is empty.
    pub fn threshold(&self) -> Option<f64> {
        self.entries.iter().map(|entry| entry.score).reduce(f64::min)
    }

    /// Takes in the revisions of a round and tells what became of each, in order.
    ///
    /// Accepted are those whose score is finite and at least the threshold of the pool as it was before the round. Of
    /// these, a response that the pool has for the query, from before or from this round, is dropped; responses are
    /// compared without case and spacing ([`fold`]). An empty pool has no threshold and accepts nothing.
    pub fn grow(&mut self, revisions: Vec<Entry>) -> Vec<Verdict> {
        let threshold = self.threshold();
        let key = |entry: &Entry| (entry.query, fold(&entry.response));
        let mut known: HashSet<_> = self.entries.iter().map(key).collect();
        let mut verdicts = Vec::with_capacity(revisions.len());
        for revision in revisions {
            let reached =
                revision.score.is_finite() && threshold.is_some_and(|least| revision.score >= least);
            verdicts.push(if !reached {
                Verdict::BelowThreshold
            } else if known.insert(key(&revision)) {
                self.entries.push(revision);
                Verdict::Accepted
            } else {
                Verdict::Duplicate
            });
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Accepted, BelowThreshold, Duplicate};
    use super::*;
    use proptest::prelude::*;

    fn entry(query: usize, response: &str, score: f64) -> Entry {
        Entry { query, response: response.into(), score, round: 1 }
    }

    #[test]
    fn a_round_of_revisions() {
        let mut pool = Pool::new(vec![entry(0, "Take one a day.", 2.0), entry(1, "Rest.", 1.0)]);
        assert_eq!(pool.threshold(), Some(1.0));
        let verdicts = pool.grow(vec![
            entry(0, "Take two a day.", 1.0),
            entry(0, "Take three a day.", 0.9),
            entry(0, " take ONE\na day.", 3.0),
            entry(1, "Take one a day.", 3.0),
            entry(1, "take one  a day.", 4.0),
            entry(1, "Sleep.", f64::NAN),
            entry(1, "Sleep more.", f64::INFINITY),
        ]);
        assert_eq!(
            verdicts,
            [Accepted, BelowThreshold, Duplicate, Accepted, Duplicate, BelowThreshold, BelowThreshold]
        );
        let responses: Vec<_> = pool.entries().iter().map(|entry| entry.response.as_str()).collect();
        assert_eq!(responses, ["Take one a day.", "Rest.", "Take two a day.", "Take one a day."]);
    }

    #[test]
    fn an_empty_pool_accepts_nothing() {
        let mut pool = Pool::default();
        assert_eq!(pool.threshold(), None);
        assert_eq!(pool.grow(vec![entry(0, "Rest.", 9.0)]), [BelowThreshold]);
        assert!(pool.entries().is_empty());
    }

    #[test]
    fn verdicts_and_pools_are_written_and_read() {
        assert_eq!(serde_json::to_string(&BelowThreshold).unwrap(), "\"below-threshold\"");
        let pool = Pool::new(vec![entry(3, "Rest.", 0.1)]);
        let written = serde_json::to_string(&pool).unwrap();
        assert_eq!(serde_json::from_str::<Pool>(&written).unwrap(), pool);
    }

    fn rounds() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (0..3_usize, "[aAbB ]{0,3}", -4..5_i32)
            .prop_map(|(query, response, score)| entry(query, &response, score.into()));
        prop::collection::vec(entry, 0..12)
    }

    proptest! {
        #[test]
        fn none_below_the_old_threshold_is_accepted(first in rounds(), next in prop::collection::vec(rounds(), 0..4)) {
            let mut pool = Pool::new(first);
            for revisions in next {
                let before = pool.clone();
                let verdicts = pool.grow(revisions.clone());
                prop_assert_eq!(verdicts.len(), revisions.len());
                let (old, new) = pool.entries().split_at(before.entries().len());
                prop_assert_eq!(old, before.entries());
                let accepted: Vec<_> = verdicts
                    .iter()
                    .zip(&revisions)
                    .filter(|(verdict, _)| **verdict == Accepted)
                    .map(|(_, revision)| revision.clone())
                    .collect();
                prop_assert_eq!(new, &accepted);
                for (verdict, revision) in verdicts.iter().zip(&revisions) {
                    let reached = before.threshold().is_some_and(|least| revision.score >= least);
                    prop_assert_eq!(*verdict != BelowThreshold, reached);
                }
                prop_assert_eq!(pool.threshold(), before.threshold());
            }
        }

        #[test]
        fn a_round_given_twice_adds_nothing(first in rounds(), revisions in rounds()) {
            let mut pool = Pool::new(first);
            pool.grow(revisions.clone());
            let once = pool.clone();
            prop_assert!(!pool.grow(revisions).contains(&Accepted));
            prop_assert_eq!(pool, once);
        }
    }
}
