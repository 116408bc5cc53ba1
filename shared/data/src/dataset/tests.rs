//! Subsets, interning and digests.

use super::{Dataset, Levels, Records, Split, Values};
use proptest::prelude::*;

fn dense(values: Vec<u8>) -> Dataset {
    let rows = values.len();
    Dataset {
        records: Records::Dense { dim: 1, values: Values::U8(values), image: None },
        labels: Levels::new((0..rows).map(|row| Some((row % 3).to_string()))),
        split: vec![Split::Train; rows],
        sites: None,
    }
}

#[test]
fn levels_are_sorted_and_give_back_every_name() {
    let names = [Some("b"), None, Some("a"), Some("b"), Some("")];
    let levels = Levels::new(names);
    assert_eq!(levels.names(), ["", "a", "b"]);
    assert_eq!(levels.iter().collect::<Vec<_>>(), names);
    assert_eq!((levels.code(1), levels.code(99)), (None, None));
}

#[test]
fn the_digest_sees_values_labels_and_splits() {
    let data = dense(vec![1, 2, 3]);
    let mut other = data.clone();
    other.split[1] = Split::Test;
    assert_ne!(data.digest(), other.digest());
    assert_ne!(data.digest(), dense(vec![1, 2, 4]).digest());
    assert_eq!(data.digest(), dense(vec![1, 2, 3]).digest());
}

proptest! {
    #[test]
    fn a_subset_of_a_subset_is_a_subset(values in proptest::collection::vec(any::<u8>(), 1..40), picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let data = dense(values);
        let rows: Vec<usize> = picks.iter().map(|pick| pick.index(data.len())).collect();
        let part = data.subset(&rows);
        prop_assert_eq!(part.len(), rows.len());
        let every: Vec<usize> = (0..part.len()).rev().collect();
        let reversed: Vec<usize> = rows.iter().rev().copied().collect();
        prop_assert_eq!(part.subset(&every).digest(), data.subset(&reversed).digest());
    }
}
