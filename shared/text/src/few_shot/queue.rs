use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::error::TextError;
use crate::labels::Labels;
use crate::random::shuffle;
use crate::record::Labelled;

/// Draws demonstrations, the same number of every label each time.
///
/// Each label has a queue of its records in an order drawn from the seed. Only when a queue is empty it is filled again, in
/// a new order, so every record is shown once before any is shown twice.
#[derive(Debug, Clone)]
pub struct Demonstrations<'a> {
    records: &'a [Labelled],
    per_label: usize,
    /// Places of the records of each label.
    pools: Vec<Vec<usize>>,
    queues: Vec<VecDeque<usize>>,
    rng: ChaCha8Rng,
}

impl<'a> Demonstrations<'a> {
    /// Queues over `records`, for `per_label` demonstrations of each label a prompt.
    ///
    /// Errors: `per_label` is 0, a record with a label that is not one of `labels`, a label with fewer than `per_label`
    /// records (a prompt would show one twice).
    pub fn new(
        records: &'a [Labelled],
        labels: &Labels,
        per_label: usize,
        seed: u64,
    ) -> Result<Self, TextError> {
        if per_label == 0 {
            return Err(TextError::setting(
                "per_label",
                "a label without a demonstration cannot be asked for",
            ));
        }
        let mut pools = vec![Vec::new(); labels.count()];
        for (index, record) in records.iter().enumerate() {
            pools[labels.index_of(index, record)?].push(index);
        }
        if let Some((label, pool)) =
            labels.names().iter().zip(&pools).find(|(_, pool)| pool.len() < per_label)
        {
            return Err(TextError::TooFewRecords {
                label: label.clone(),
                got: pool.len(),
                needed: per_label,
            });
        }
        let queues = vec![VecDeque::new(); pools.len()];
        Ok(Self { records, per_label, pools, queues, rng: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// The demonstrations of the next prompt: `per_label` different ones of every label, in mixed order, since models
    /// favour the label they saw last.
    pub fn draw(&mut self) -> Vec<&'a Labelled> {
        let mut drawn = Vec::with_capacity(self.per_label * self.pools.len());
        for label in 0..self.pools.len() {
            let before = drawn.len();
            while drawn.len() < before + self.per_label {
                if self.queues[label].is_empty() {
                    self.refill(label, &drawn[before..]);
                }
                // There are at least `per_label` records, so a queue that was just filled has one.
                drawn.extend(self.queues[label].pop_front());
            }
        }
        shuffle(&mut drawn, &mut self.rng);
        drawn.into_iter().map(|place| &self.records[place]).collect()
    }

    /// Fills a queue anew, with what the prompt has already at its end.
    fn refill(&mut self, label: usize, drawn: &[usize]) {
        let mut order = self.pools[label].clone();
        shuffle(&mut order, &mut self.rng);
        order.sort_by_key(|place| drawn.contains(place));
        self.queues[label] = order.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(sizes: &[usize]) -> (Vec<Labelled>, Labels) {
        let labels = Labels::new((0..sizes.len()).map(|label| format!("label {label}"))).unwrap();
        let of = |(label, &size): (usize, &usize)| {
            (0..size)
                .map(move |i| Labelled::new(format!("text {label} {i}"), format!("label {label}")))
                .collect::<Vec<_>>()
        };
        (sizes.iter().enumerate().flat_map(of).collect(), labels)
    }

    #[test]
    fn too_few_records_and_unknown_labels_are_refused() {
        let (records, labels) = records(&[3, 1]);
        assert!(Demonstrations::new(&records, &labels, 1, 1).is_ok());
        assert!(matches!(
            Demonstrations::new(&records, &labels, 2, 1),
            Err(TextError::TooFewRecords { got: 1, .. })
        ));
        assert!(Demonstrations::new(&records, &labels, 0, 1).is_err());
        let fewer = Labels::new(["label 0"]).unwrap();
        assert!(matches!(
            Demonstrations::new(&records, &fewer, 1, 1),
            Err(TextError::UnknownLabel { index: 3, .. })
        ));
    }

    #[test]
    fn the_order_of_labels_is_mixed() {
        let (records, labels) = records(&[4, 4]);
        let mut queues = Demonstrations::new(&records, &labels, 1, 1).unwrap();
        let last: Vec<_> = (0..50).map(|_| queues.draw()[1].label.clone()).collect();
        assert!((10..=40).contains(&last.iter().filter(|label| *label == "label 0").count()));
    }

    proptest! {
        #[test]
        fn queues_are_fair(
            sizes in prop::collection::vec(1..7_usize, 1..5),
            per_label in 1..4_usize,
            prompts in 1..12_usize,
            seed in any::<u64>(),
        ) {
            let sizes: Vec<_> = sizes.into_iter().map(|size| size.max(per_label)).collect();
            let (records, labels) = records(&sizes);
            let mut queues = Demonstrations::new(&records, &labels, per_label, seed).unwrap();
            let mut again = Demonstrations::new(&records, &labels, per_label, seed).unwrap();
            let mut shown = vec![0_usize; records.len()];
            let mut by_label = vec![0_usize; sizes.len()];
            for _ in 0..prompts {
                let drawn = queues.draw();
                prop_assert_eq!(&drawn, &again.draw());
                let places: Vec<_> = drawn.iter().map(|shown| records.iter().position(|record| record == *shown).unwrap()).collect();
                let mut distinct = places.clone();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), per_label * sizes.len(), "a prompt shows a record twice");
                for place in places {
                    shown[place] += 1;
                    by_label[labels.index(&records[place].label).unwrap()] += 1;
                }
                prop_assert!(by_label.iter().all(|count| *count == by_label[0]));
                // No record comes again before all of its label came: within a label, counts are at most one apart.
                let mut start = 0;
                for &size in &sizes {
                    let counts = &shown[start..start + size];
                    prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
                    start += size;
                }
            }
        }
    }
}
