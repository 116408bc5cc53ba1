use super::*;
use proptest::prelude::*;

fn scorer(criteria: &[(Measure, Bound)]) -> Scorer {
    Scorer::new(criteria.iter().map(|&(measure, bound)| Criterion { measure, bound }).collect()).unwrap()
}

fn kept(scored: &Scored) -> Vec<usize> {
    (0..scored.decisions.len()).filter(|&sample| scored.decisions[sample].is_kept()).collect()
}

fn likelihoods<'a>(labels: &'a [usize], values: &'a [f64]) -> Evidence<'a> {
    Evidence { labels, log_likelihood: Some(values), embeddings: None }
}

#[test]
fn unlikely_labels_go() {
    let evidence = likelihoods(&[0; 5], &[-0.1, -3.0, -2.0, -0.5, -3.0]);
    let scored = scorer(&[(Measure::LabelLikelihood, Bound::Threshold(-2.0))]).score(&evidence).unwrap();
    assert_eq!(kept(&scored), [0, 2, 3]);
    assert_eq!(scored.decisions[1], Decision::Dropped { criterion: 0, value: -3.0, bound: -2.0 });
    assert_eq!((scored.steps[0].given, scored.steps[0].kept()), (5, 3));
    // The worst fifth and two fifths: of the two equals the later one first.
    for (share, left) in
        [(0.2, vec![0, 1, 2, 3]), (0.39, vec![0, 1, 2, 3]), (0.4, vec![0, 2, 3]), (1.0, vec![])]
    {
        let scored = scorer(&[(Measure::LabelLikelihood, Bound::Quantile(share))]).score(&evidence).unwrap();
        assert_eq!(kept(&scored), left, "{share}");
    }
}

#[test]
fn what_lies_far_from_its_label_goes() {
    let vectors =
        UnitVectors::new(&[1.0, 0.0, 1.0, 0.1, 1.0, -0.1, 0.0, 1.0, 0.0, 1.0, 0.1, 1.0], 2).unwrap();
    // Sample 3 lies among label 1 and says label 0.
    let evidence = Evidence { labels: &[0, 0, 0, 0, 1, 1], log_likelihood: None, embeddings: Some(&vectors) };
    let scored = scorer(&[(Measure::CentroidDistance, Bound::Threshold(0.3))]).score(&evidence).unwrap();
    assert_eq!(kept(&scored), [0, 1, 2, 4, 5]);
    let scored = scorer(&[(Measure::CentroidDistance, Bound::Quantile(0.2))]).score(&evidence).unwrap();
    assert_eq!(kept(&scored), [0, 1, 2, 4, 5]);
}

#[test]
fn a_label_without_a_middle_is_judged_all_the_same() {
    let vectors = UnitVectors::new(&[1.0, 0.0, -1.0, 0.0], 2).unwrap();
    let evidence = Evidence { labels: &[0, 0], log_likelihood: None, embeddings: Some(&vectors) };
    let scored = scorer(&[(Measure::CentroidDistance, Bound::Threshold(0.5))]).score(&evidence).unwrap();
    assert!(kept(&scored).is_empty());
}

#[test]
fn of_near_duplicates_the_first_stays_and_drops_no_others_by_proxy() {
    // 20 degrees from one to the next: each is near its neighbours alone.
    let rows: Vec<f32> = (0..4)
        .flat_map(|i| [(20.0_f32 * i as f32).to_radians().cos(), (20.0_f32 * i as f32).to_radians().sin()])
        .collect();
    let vectors = UnitVectors::new(&rows, 2).unwrap();
    let evidence = Evidence { labels: &[0; 4], log_likelihood: None, embeddings: Some(&vectors) };
    let scored = scorer(&[(Measure::NearDuplicate, Bound::Threshold(0.9))]).score(&evidence).unwrap();
    assert_eq!(kept(&scored), [0, 2]);
}

#[test]
fn criteria_see_what_the_ones_before_left() {
    let vectors = UnitVectors::new(&[1.0, 0.0, 1.0, 0.0, 0.0, 1.0], 2).unwrap();
    let evidence =
        Evidence { labels: &[0; 3], log_likelihood: Some(&[-9.0, -1.0, -1.0]), embeddings: Some(&vectors) };
    let scored = scorer(&[
        (Measure::LabelLikelihood, Bound::Threshold(-2.0)),
        (Measure::NearDuplicate, Bound::Threshold(0.9)),
    ])
    .score(&evidence)
    .unwrap();
    assert_eq!(kept(&scored), [1, 2], "the copy of a dropped sample stays");
    assert_eq!(scored.steps.iter().map(|step| step.given).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn absent_or_broken_evidence_is_refused() {
    let by = |measure| scorer(&[(measure, Bound::Quantile(0.1))]);
    let nothing = Evidence { labels: &[0], log_likelihood: None, embeddings: None };
    for measure in [Measure::LabelLikelihood, Measure::CentroidDistance, Measure::NearDuplicate] {
        assert!(matches!(by(measure).score(&nothing), Err(TextError::Evidence { .. })));
    }
    let by = by(Measure::LabelLikelihood);
    assert!(matches!(by.score(&likelihoods(&[0, 0], &[-1.0])), Err(TextError::Length { .. })));
    assert!(matches!(
        by.score(&likelihoods(&[0], &[f64::NEG_INFINITY])),
        Err(TextError::NotFinite { index: 0, .. })
    ));
    let vectors = UnitVectors::new(&[1.0], 1).unwrap();
    let evidence =
        Evidence { labels: &[0, 0], log_likelihood: Some(&[-1.0, -1.0]), embeddings: Some(&vectors) };
    assert!(matches!(by.score(&evidence), Err(TextError::Length { .. })));
}

#[test]
fn impossible_criteria_are_refused() {
    assert!(Scorer::new(vec![]).is_err());
    for bound in [Bound::Threshold(f64::NAN), Bound::Quantile(1.1), Bound::Quantile(f64::NAN)] {
        assert!(Scorer::new(vec![Criterion { measure: Measure::NearDuplicate, bound }]).is_err());
    }
}

proptest! {
    #[test]
    fn a_quantile_drops_its_share_and_the_worst(values in prop::collection::vec(-9..0_i8, 0..30), share in 0.0..=1.0_f64) {
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        let labels = vec![0; values.len()];
        let scored = scorer(&[(Measure::LabelLikelihood, Bound::Quantile(share))]).score(&likelihoods(&labels, &values)).unwrap();
        let kept = kept(&scored);
        prop_assert_eq!(values.len() - kept.len(), (share * values.len() as f64).floor() as usize);
        let worst_kept = kept.iter().map(|&sample| values[sample]).fold(0.0, f64::min);
        let dropped = (0..values.len()).filter(|sample| !kept.contains(sample));
        prop_assert!(dropped.clone().all(|sample| values[sample] <= worst_kept));
        prop_assert_eq!(scored.steps[0].kept(), kept.len());
    }
}
