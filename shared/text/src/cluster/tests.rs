use super::*;
use proptest::prelude::*;

fn vectors(rows: &[[f32; 2]]) -> UnitVectors {
    UnitVectors::new(rows.as_flattened(), 2).unwrap()
}

/// What [`Clustering`] promises of any result.
fn check(vectors: &UnitVectors, clustering: &Clustering) {
    let Clustering { assignment, centres, objective, .. } = clustering;
    assert_eq!(assignment.len(), vectors.len());
    for (index, &own) in assignment.iter().enumerate() {
        let to = |cluster: usize| distance(vectors.row(index), centres.row(cluster));
        assert!(
            (0..centres.len()).all(|other| to(own) <= to(other)),
            "vector {index} is not at its nearest centre"
        );
    }
    assert!(clustering.members().iter().all(|members| !members.is_empty()), "an empty cluster");
    assert!(objective.windows(2).all(|pair| pair[1] <= pair[0] + 1e-5), "{objective:?}");
}

#[test]
fn groups_that_lie_apart_are_found() {
    let rows = [[1.0, 0.01], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.01, 1.0], [-1.0, 0.02], [1.0, -0.01]];
    let vectors = vectors(&rows);
    for seed in 0..50 {
        let clustering = k_means(&vectors, 3, MAX_ITERATIONS, seed).unwrap();
        check(&vectors, &clustering);
        let mut members = clustering.members();
        members.sort();
        assert_eq!(members, [vec![0, 2, 6], vec![1, 4], vec![3, 5]], "seed {seed}");
        assert!(clustering.converged);
    }
}

#[test]
fn fewer_distinct_vectors_are_fewer_clusters() {
    let vectors = vectors(&[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 5.0]]);
    let clustering = k_means(&vectors, 4, MAX_ITERATIONS, 1).unwrap();
    check(&vectors, &clustering);
    let mut members = clustering.members();
    members.sort();
    assert_eq!(members, [vec![0, 1, 3], vec![2, 4]]);
}

#[test]
fn a_centre_without_vectors_moves_to_the_one_worst_off() {
    let vectors = vectors(&[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]);
    let mut centres = self::vectors(&[[1.0, 0.0], [-1.0, -1.0]]);
    let near = settle(&vectors, &mut centres);
    let clusters: Vec<_> = near.iter().map(|near| near.cluster).collect();
    assert_eq!(clusters, [0, 0, 1]);
    assert_eq!(centres.row(1), [0.0, 1.0]);
}

#[test]
fn of_equally_near_centres_the_first_is_taken() {
    let vectors = vectors(&[[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]);
    let mut centres = self::vectors(&[[1.0, 0.0], [0.0, 1.0]]);
    let clusters: Vec<_> = settle(&vectors, &mut centres).iter().map(|near| near.cluster).collect();
    assert_eq!(clusters, [0, 0, 1]);
}

#[test]
fn a_centre_that_nothing_is_left_for_is_taken_out() {
    let vectors = vectors(&[[1.0, 0.0], [1.0, 0.0]]);
    let mut centres = self::vectors(&[[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]);
    assert!(settle(&vectors, &mut centres).iter().all(|near| near.cluster == 0));
    assert_eq!(centres.len(), 1);
}

#[test]
fn vectors_that_cancel_out_keep_their_centre() {
    let vectors = vectors(&[[1.0, 0.0], [-1.0, 0.0]]);
    let clustering = k_means(&vectors, 1, MAX_ITERATIONS, 3).unwrap();
    check(&vectors, &clustering);
    assert_eq!(clustering.objective.last(), Some(&2.0));
}

#[test]
fn the_bound_of_iterations_holds() {
    let rows: Vec<[f32; 2]> = (0..200).map(|i| [(i as f32).cos(), (i as f32).sin()]).collect();
    let vectors = vectors(&rows);
    let clustering = k_means(&vectors, 7, 2, 1).unwrap();
    assert_eq!((clustering.objective.len(), clustering.converged), (2, false));
    check(&vectors, &clustering);
}

#[test]
fn the_edges_of_k() {
    let three = vectors(&[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
    assert_eq!(k_means(&three, 3, 10, 1).unwrap().members().len(), 3);
    assert!(k_means(&three, 0, 10, 1).is_err());
    assert!(k_means(&three, 4, 10, 1).is_err());
    assert!(k_means(&three, 1, 0, 1).is_err());
    assert!(k_means(&vectors(&[]), 0, 10, 1).unwrap().assignment.is_empty());
    assert_eq!([0, 1, 4, 5, 400].map(default_clusters), [0, 1, 1, 2, 100]);
}

proptest! {
    #[test]
    fn promises_hold_on_any_vectors(
        // A coarse grid, so that equal vectors and equal distances come up.
        rows in prop::collection::vec(prop::array::uniform3(-2..=2_i8), 1..40),
        k in 1..12_usize,
        seed in any::<u64>(),
    ) {
        let values: Vec<f32> = rows.iter().filter(|row| **row != [0; 3]).flatten().map(|&v| f32::from(v)).collect();
        let vectors = UnitVectors::new(&values, 3).unwrap();
        prop_assume!(vectors.len() >= k);
        let clustering = k_means(&vectors, k, MAX_ITERATIONS, seed).unwrap();
        check(&vectors, &clustering);
        prop_assert!(clustering.centres.len() <= k);
        prop_assert_eq!(&k_means(&vectors, k, MAX_ITERATIONS, seed).unwrap(), &clustering);
    }
}
