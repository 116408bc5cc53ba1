use proptest::prelude::*;

use super::*;
use crate::sample::{BITS, ONE, sums};
use crate::solve;

/// Sums with contents anywhere in 60 bits: the algebra must not rely on their being plausible.
fn any_sums() -> impl Strategy<Value = Sums> {
    let value = -(1_i64 << 60)..(1_i64 << 60);
    let cross = prop::collection::vec(value.clone(), 6);
    (0..1_u64 << 40, prop::collection::vec(0..1_u64 << 40, 2), prop::collection::vec(value, 6), cross)
        .prop_map(|(rows, counts, gram, cross)| Sums {
            dim: 3,
            classes: 2,
            bits: BITS,
            rows,
            counts,
            gram,
            cross,
        })
}

fn plus(a: &Sums, b: &Sums) -> Sums {
    let mut sum = a.clone();
    sum.add(b).unwrap();
    sum
}

proptest! {
    #[test]
    fn merging_is_commutative_and_associative(a in any_sums(), b in any_sums(), c in any_sums()) {
        prop_assert_eq!(plus(&a, &b), plus(&b, &a));
        prop_assert_eq!(plus(&plus(&a, &b), &c), plus(&a, &plus(&b, &c)));
        prop_assert_eq!(&plus(&a, &Sums::zero(3, 2, BITS)), &a);
    }

    #[test]
    fn subtracting_undoes_adding(
        a in (any::<u64>(), 1_usize..40).prop_map(|(s, n)| sums(s, n, 3, 2)),
        b in (any::<u64>(), 1_usize..40).prop_map(|(s, n)| sums(s, n, 3, 2)),
    ) {
        let mut total = plus(&a, &b);
        total.subtract(&b).unwrap();
        prop_assert_eq!(total, a);
    }
}

#[test]
fn a_withdrawn_site_leaves_no_trace_in_the_model() {
    let sites: Vec<Sums> = (0..5).map(|k| sums(k, 30, 20, 3)).collect();
    let total =
        |kept: &[usize]| kept.iter().fold(Sums::zero(20, 3, BITS), |total, &k| plus(&total, &sites[k]));
    let mut after = total(&[0, 1, 2, 3, 4]);
    after.subtract(&sites[2]).unwrap();
    assert_eq!(after, total(&[4, 3, 1, 0]));
    assert_eq!(solve(&after, 0.5).unwrap().sha256(), solve(&total(&[0, 1, 3, 4]), 0.5).unwrap().sha256());
}

#[test]
fn a_refused_merge_changes_nothing() {
    let small = sums(1, 10, 3, 2);
    let mut total = small.clone();
    assert_eq!(total.add(&sums(1, 10, 4, 2)), Err(AnalyticError::Shape { what: "dim", expected: 3, got: 4 }));
    assert!(matches!(total.add(&sums(1, 10, 3, 3)), Err(AnalyticError::Shape { what: "classes", .. })));
    assert!(matches!(total.add(&Sums::zero(3, 2, 10)), Err(AnalyticError::Shape { what: "bits", .. })));
    let mut huge = small.clone();
    huge.gram[1] = i64::MAX;
    huge.gram[0] = i64::MAX;
    assert_eq!(total.add(&huge), Err(AnalyticError::Overflow { what: "gram" }));
    let mut huge = small.clone();
    huge.cross[5] = i64::MIN;
    total.cross[5] = -1;
    assert_eq!(total.add(&huge), Err(AnalyticError::Overflow { what: "cross" }));
    total.cross[5] = small.cross[5];
    assert_eq!(
        total.subtract(&sums(2, 11, 3, 2)),
        Err(AnalyticError::NotContained { what: "the row count" })
    );
    let mut other = small.clone();
    other.counts.swap(0, 1);
    other.counts[0] += 20;
    assert_eq!(total.subtract(&other), Err(AnalyticError::NotContained { what: "a class count" }));
    let mut other = small.clone();
    other.gram[0] += 1;
    assert_eq!(total.subtract(&other), Err(AnalyticError::NotContained { what: "the diagonal of gram" }));
    assert_eq!(total, small);
}

#[test]
fn impossible_contents_are_named() {
    let good = sums(3, 12, 4, 2);
    good.validate(ONE).unwrap();
    let refused = |change: &dyn Fn(&mut Sums)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad.validate(ONE).unwrap_err()
    };
    assert_eq!(refused(&|s| (s.rows, s.counts) = (0, vec![0, 0])), AnalyticError::NoRows);
    assert_eq!(refused(&|s| s.counts[0] += 1), AnalyticError::Counts { counted: 13, rows: 12 });
    assert!(matches!(refused(&|s| s.counts = vec![u64::MAX; 2]), AnalyticError::Counts { .. }));
    assert!(matches!(refused(&|s| s.rows = MAX_ROWS + 1), AnalyticError::TooManyRows { .. }));
    let limit = 12 * ONE * ONE;
    assert_eq!(refused(&|s| s.gram[4] = -1), AnalyticError::Diagonal { index: 1, value: -1, limit });
    assert!(matches!(refused(&|s| s.gram[0] = limit + 1), AnalyticError::Diagonal { index: 0, .. }));
    assert_eq!(
        refused(&|s| s.gram[5] = i64::MIN),
        AnalyticError::OffDiagonal { row: 1, column: 2, value: i64::MIN }
    );
    assert!(matches!(refused(&|s| s.gram[9] = 0), AnalyticError::OffDiagonal { row: 0, column: 3, .. }));
    let value = good.counts[1] as i64 * ONE + 1;
    assert!(matches!(refused(&|s| s.cross[7] = value), AnalyticError::Cross { row: 3, class: 1, .. }));
    assert!(matches!(refused(&|s| s.cross[0] = i64::MIN), AnalyticError::Cross { row: 0, class: 0, .. }));
}

#[test]
fn parts_must_fit_the_shape() {
    let shape = SumsShape { dim: 2, classes: 2, bits: BITS, max_abs: ONE };
    assert!(Sums::from_parts(&shape, 1, vec![1, 0], vec![1, 0, 0], vec![1, 0, 0, 0]).is_ok());
    assert!(Sums::from_parts(&shape, 1, vec![1], vec![1, 0, 0], vec![1, 0, 0, 0]).is_err());
    assert!(Sums::from_parts(&shape, 1, vec![1, 0], vec![1, 0], vec![1, 0, 0, 0]).is_err());
    assert!(Sums::from_parts(&shape, 1, vec![1, 0], vec![1, 0, 0], vec![1]).is_err());
}

#[test]
fn debug_output_holds_no_contents() {
    let text = format!("{:?}", sums(1, 10, 3, 2));
    assert_eq!(text, "Sums { dim: 3, classes: 2, bits: 14, rows: 10, .. }");
}
