use super::*;
use crate::error::AnalyticError;
use crate::gram::GramAccumulator;
use crate::sample::{BITS, ONE, rows, sums};

/// Gaussian elimination with row pivoting: shares nothing with the solve.
fn gauss(mut a: Vec<f64>, mut b: Vec<f64>, n: usize, columns: usize) -> Vec<f64> {
    for k in 0..n {
        let best = (k..n).max_by(|x, y| a[x * n + k].abs().total_cmp(&a[y * n + k].abs())).unwrap();
        (0..n).for_each(|j| a.swap(k * n + j, best * n + j));
        (0..columns).for_each(|j| b.swap(k * columns + j, best * columns + j));
        for i in (0..n).filter(|i| *i != k) {
            let f = a[i * n + k] / a[k * n + k];
            (k..n).for_each(|j| a[i * n + j] -= f * a[k * n + j]);
            (0..columns).for_each(|j| b[i * columns + j] -= f * b[k * columns + j]);
        }
    }
    (0..n * columns).map(|k| b[k] / a[k / columns * n + k / columns]).collect()
}

fn reference(sums: &Sums, lambda: f64) -> Vec<f64> {
    let (n, unit) = (sums.dim(), 2.0_f64.powi(-(sums.bits() as i32)));
    let at = |i: usize, j: usize| sums.gram()[packed_index(n, i.min(j), i.max(j))] as f64 * unit * unit;
    let a = (0..n * n).map(|k| at(k / n, k % n) + if k / n == k % n { lambda } else { 0.0 }).collect();
    gauss(a, sums.cross().iter().map(|&v| v as f64 * unit).collect(), n, sums.classes())
}

#[test]
fn agrees_with_gaussian_elimination() {
    for (n, dim, classes, lambda) in
        [(5, 3, 2, 0.1), (40, 20, 5, 1e-3), (300, 130, 11, 0.0), (20, 65, 3, 0.5)]
    {
        let sums = sums(dim as u64, n, dim, classes);
        let expected = reference(&sums, lambda);
        let weights = solve(&sums, lambda).unwrap();
        let scale = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        for (x, y) in weights.as_slice().iter().zip(&expected) {
            assert!((x - y).abs() <= 1e-9 * scale, "{x} and {y} at D = {dim}");
        }
    }
}

/// The hash is that of a textbook Cholesky in plain Python floats over these rows, so it holds on every machine,
/// thread count and release; a change of it breaks published models.
#[test]
fn the_hash_of_a_model_is_that_of_the_textbook_solve() {
    let (n, dim, classes) = (500_usize, 150, 7);
    let entry = |k: usize| {
        let (r, d) = (k / dim, k % dim);
        ((r * 7919 + d * 104_729 + r * d * 31) % 32_769) as f64 - 16_384.0
    };
    let q: Vec<f64> = (0..n * dim).map(entry).collect();
    let labels: Vec<u32> = (0..n as u32).map(|r| r % classes as u32).collect();
    let mut accumulator = GramAccumulator::new(dim, classes, BITS, ONE).unwrap();
    accumulator.push(&q, &labels).unwrap();
    let weights = solve(&accumulator.finish(), 0.25).unwrap();
    assert_eq!(weights.sha256(), "7fdfac99d3ae8bf0ed1a8315ee75bb98222018b813cca5c35829323078252fb1");
}

#[test]
fn a_singular_system_asks_for_a_larger_lambda() {
    let few = sums(1, 5, 30, 2);
    let error = solve(&few, 0.0).unwrap_err();
    let AnalyticError::NotPositiveDefinite { pivot, suggested, .. } = error else { panic!("{error}") };
    assert_eq!(pivot, 5);
    assert!(error.to_string().contains("lambda"));
    assert!(solve(&few, suggested).is_ok());
    let nothing = solve(&Sums::zero(3, 2, BITS), 0.0).unwrap_err();
    assert!(matches!(nothing, AnalyticError::NotPositiveDefinite { pivot: 0, .. }));
    for lambda in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(solve(&few, lambda), Err(AnalyticError::Ridge { .. })));
    }
}

#[test]
fn scores_are_the_fixed_order_sums_in_any_batch() {
    for (dim, classes) in [(1, 1), (7, 3), (128, 8), (129, 9), (300, 20)] {
        let weights = solve(&sums(8, 400, dim, classes), 0.1).unwrap();
        let (q, _) = rows(9, 150, dim, classes);
        let expected: Vec<u64> = (0..150 * classes)
            .map(|k| {
                let (row, class) = (k / classes, k % classes);
                let products =
                    (0..dim).map(|d| q[row * dim + d] / 16384.0 * weights.as_slice()[d * classes + class]);
                products.fold(0.0_f64, |sum, p| sum + p).to_bits()
            })
            .collect();
        for batch in [150, 64, 7, 1] {
            let ours: Vec<u64> = q
                .chunks(batch * dim)
                .flat_map(|q| scores(q, q.len() / dim, &weights, BITS).unwrap())
                .map(f64::to_bits)
                .collect();
            assert_eq!(ours, expected, "[{dim}, {classes}] in batches of {batch}");
        }
    }
    let weights = Weights::new(2, 1, vec![1.0, 2.0]).unwrap();
    assert!(matches!(scores(&[1.0; 3], 2, &weights, BITS), Err(AnalyticError::Length { .. })));
    assert_eq!(scores(&[], 0, &weights, BITS), Ok(vec![]));
}

#[test]
fn weights_refuse_misfits_and_split_their_bias() {
    assert!(Weights::new(2, 2, vec![0.0; 3]).is_err());
    assert!(Weights::new(0, 2, vec![]).is_err());
    assert!(matches!(
        Weights::new(2, 2, vec![0.0, 1.0, 2.0, f64::NAN]),
        Err(AnalyticError::NotFinite { row: 1, column: 1, .. })
    ));
    let weights = Weights::new(2, 2, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
    assert_eq!(weights.split_bias(), ([1.0, 2.0].as_slice(), [3.0, 4.0].as_slice()));
    assert_eq!(weights.to_le_bytes().len(), 32);
    // sha256 of 1.0, 2.0, 3.0, 4.0 as little-endian doubles, from Python's hashlib.
    assert_eq!(weights.sha256(), "6bab56d2f81d4b5a2dbf102bf6a6ff7d5211a475fc5f97813f977e8ba714b07d");
}
