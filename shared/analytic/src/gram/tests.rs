use proptest::prelude::*;

use super::*;
use crate::sample::{BITS, ONE, rows};
use crate::sums::packed_index;

/// The definition, in `i128`.
fn naive(q: &[f64], labels: &[u32], dim: usize, classes: usize) -> (Vec<i64>, Vec<i64>) {
    let (mut gram, mut cross) = (vec![0_i128; packed_len(dim)], vec![0_i128; dim * classes]);
    for (row, &label) in q.chunks_exact(dim).zip(labels) {
        for i in 0..dim {
            for j in i..dim {
                gram[packed_index(dim, i, j)] += row[i] as i128 * row[j] as i128;
            }
            cross[i * classes + label as usize] += row[i] as i128;
        }
    }
    let narrow = |sums: Vec<i128>| sums.into_iter().map(|v| i64::try_from(v).unwrap()).collect();
    (narrow(gram), narrow(cross))
}

#[test]
fn equals_the_definition() {
    for (n, dim, classes) in [(1, 1, 1), (3, 5, 2), (511, 17, 4), (700, 33, 3), (1500, 9, 7)] {
        let (q, labels) = rows(n as u64, n, dim, classes);
        let mut accumulator = GramAccumulator::new(dim, classes, BITS, ONE).unwrap();
        accumulator.push(&q, &labels).unwrap();
        let sums = accumulator.finish();
        let (gram, cross) = naive(&q, &labels, dim, classes);
        assert_eq!((sums.gram(), sums.cross()), (gram.as_slice(), cross.as_slice()));
        assert_eq!(sums.counts().iter().sum::<u64>(), n as u64);
        sums.validate(ONE).unwrap();
    }
}

#[test]
fn sums_past_53_bits_stay_exact() {
    // At +-2^26 only one row fits 53 bits, so every row is moved on its own.
    let top = 1_i64 << 26;
    let q: Vec<f64> = (0..600 * 3).map(|i| (top - i64::from(i % 7)) as f64).collect();
    let labels: Vec<u32> = (0..600).map(|i| i % 2).collect();
    let mut accumulator = GramAccumulator::new(3, 2, 20, top).unwrap();
    accumulator.push(&q, &labels).unwrap();
    accumulator.push(&q[..30], &labels[..10]).unwrap();
    let sums = accumulator.finish();
    let all = [q.as_slice(), &q[..30]].concat();
    let (gram, cross) = naive(&all, &[labels.as_slice(), &labels[..10]].concat(), 3, 2);
    assert!(gram[0] > 1 << 53);
    assert_eq!((sums.gram(), sums.cross()), (gram.as_slice(), cross.as_slice()));
}

#[test]
fn bad_rows_are_refused_and_change_nothing() {
    let mut accumulator = GramAccumulator::new(2, 2, BITS, ONE).unwrap();
    accumulator.push(&[1.0, 2.0], &[1]).unwrap();
    for bad in [0.5, f64::NAN, f64::INFINITY, ONE as f64 + 1.0] {
        let error = accumulator.push(&[1.0, 1.0, 3.0, bad], &[0, 0]).unwrap_err();
        assert!(matches!(error, AnalyticError::NotQuantised { row: 1, column: 1, .. }), "{error}");
    }
    let label = accumulator.push(&[1.0, 1.0], &[2]).unwrap_err();
    assert_eq!(label, AnalyticError::Label { row: 0, label: 2, classes: 2 });
    assert!(matches!(accumulator.push(&[1.0], &[0]), Err(AnalyticError::Length { .. })));
    let sums = accumulator.finish();
    assert_eq!((sums.rows(), sums.gram()), (1, [1, 2, 4].as_slice()));
}

#[test]
fn no_rows_give_zero_sums_and_rows_past_the_limit_are_refused() {
    assert_eq!(GramAccumulator::new(3, 2, BITS, ONE).unwrap().finish(), Sums::zero(3, 2, BITS));
    let top = 1_i64 << 26;
    let mut accumulator = GramAccumulator::new(1, 1, 20, top).unwrap();
    let limit = SumsShape { dim: 1, classes: 1, bits: 20, max_abs: top }.max_rows() as usize;
    assert_eq!(limit, 1023);
    accumulator.push(&vec![top as f64; limit], &vec![0; limit]).unwrap();
    let error = accumulator.push(&[1.0], &[0]).unwrap_err();
    assert_eq!(error, AnalyticError::TooManyRows { rows: 1024, limit: 1023 });
    assert!(GramAccumulator::new(0, 1, 14, 1).is_err());
    assert!(GramAccumulator::new(1, 0, 14, 1).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any split into sites and pushes, and any order of rows, gives the same sums.
    #[test]
    fn partition_and_order_do_not_matter(
        seed: u64,
        cuts in prop::collection::vec(1_usize..400, 1..12),
        order in Just((0..900_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (dim, classes, n) = (13, 3, 900);
        let (q, labels) = rows(seed, n, dim, classes);
        let mut whole = GramAccumulator::new(dim, classes, BITS, ONE).unwrap();
        whole.push(&q, &labels).unwrap();
        let whole = whole.finish();

        let mixed: Vec<f64> = order.iter().flat_map(|&i| q[i * dim..][..dim].iter().copied()).collect();
        let mixed_labels: Vec<u32> = order.iter().map(|&i| labels[i]).collect();
        let mut total = Sums::zero(dim, classes, BITS);
        let (mut q, mut labels) = (mixed.as_slice(), mixed_labels.as_slice());
        for cut in cuts.iter().cycle() {
            let take = (*cut).min(labels.len());
            let mut site = GramAccumulator::new(dim, classes, BITS, ONE).unwrap();
            let half = take / 2;
            site.push(&q[..half * dim], &labels[..half]).unwrap();
            site.push(&q[half * dim..take * dim], &labels[half..take]).unwrap();
            total.add(&site.finish()).unwrap();
            (q, labels) = (&q[take * dim..], &labels[take..]);
            if labels.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&total.gram, &whole.gram);
        prop_assert_eq!(&total.cross, &whole.cross);
        let hash = |s: &Sums| crate::solve(s, 0.1).unwrap().sha256();
        prop_assert_eq!(hash(&total), hash(&whole));
    }
}
