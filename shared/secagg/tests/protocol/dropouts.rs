//! The sum equals the plain integer sum whoever drops out when, or the round fails and says why.

use proptest::prelude::*;
use sheaf_secagg::{Ring, SecAggError, Stage, quorum};

use crate::federation::{Federation, plain_sum, terms, vectors};

const STAGES: [Stage; 5] =
    [Stage::Advertise, Stage::ShareKeys, Stage::MaskedInput, Stage::Consistency, Stage::Unmask];

fn leaving() -> impl Strategy<Value = Option<Stage>> {
    prop_oneof![7 => Just(None), 1 => prop::sample::select(STAGES.to_vec()).prop_map(Some)]
}

/// Who is left at each stage decides everything: two thirds of those that advertised, to the end.
fn succeeds(leaves: &[Option<Stage>]) -> bool {
    let left = |stage: Stage| leaves.iter().filter(|l| l.is_none_or(|l| stage < l)).count();
    let began = left(Stage::Advertise);
    began >= 2 && STAGES[1..].iter().all(|&stage| left(stage) >= quorum(began))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_sum_is_exact_or_the_round_fails_clearly(
        leaves in prop::collection::vec(leaving(), 2..14),
        length in 1_usize..40,
        bits in 8_u32..=64,
        seed: u64,
    ) {
        let ring = Ring::new(bits).unwrap();
        let values = vectors(leaves.len(), length, ring, seed);
        let mut federation = Federation::new(leaves.len(), terms(length, ring), seed);
        let outcome = federation.run(&values, &leaves);
        let summed = |n: usize| leaves[n].is_none_or(|left| Stage::MaskedInput < left);
        if succeeds(&leaves) {
            let sum = outcome.unwrap();
            prop_assert_eq!(sum.values, plain_sum(&values, summed));
            prop_assert_eq!(sum.sites.len(), (0..leaves.len()).filter(|&n| summed(n)).count());
        } else {
            let clear =
                matches!(outcome, Err(SecAggError::TooFew { .. } | SecAggError::NotEnoughShares { .. }));
            prop_assert!(clear, "{:?}", outcome);
        }
    }
}

#[test]
fn a_sparse_graph_sums_exactly_with_sites_gone_at_every_stage() {
    for (sites, gone) in [(33, 3), (70, 7), (130, 13)] {
        let ring = Ring::new(48).unwrap();
        let values = vectors(sites, 20, ring, sites as u64);
        let mut federation = Federation::new(sites, terms(20, ring), 9);
        let leaves: Vec<_> =
            (0..sites).map(|n| (n % (sites / gone) == 1).then(|| STAGES[n % STAGES.len()])).collect();
        let sum = federation.run(&values, &leaves).unwrap();
        let graph = federation.server.cohort().unwrap().graph();
        assert!(graph.degree() + 1 < federation.server.cohort().unwrap().len());
        assert_eq!(sum.values, plain_sum(&values, |n| leaves[n].is_none_or(|l| Stage::MaskedInput < l)));
    }
}

/// A site that dealt and then left is recovered by its neighbours; one more answer may come late.
#[test]
fn a_late_answer_still_opens_the_sum() {
    let values = vectors(4, 8, Ring::FULL, 1);
    let mut federation = Federation::new(4, terms(8, Ring::FULL), 1);
    let roster = federation.advertise(|_| true).unwrap();
    federation.deal(&roster, |_| true).unwrap();
    let uploaded = federation.upload(&values, |n| n != 2).unwrap();
    let request = federation.vote(&uploaded, |n| n != 2).unwrap();
    let early = federation.open(&request, |n| n < 2);
    assert!(matches!(early, Err(SecAggError::NotEnoughShares { got: 2, needed: 3, .. })), "{early:?}");
    let sum = federation.open(&request, |n| n == 3).unwrap();
    assert_eq!(sum.values, plain_sum(&values, |n| n != 2));
}
