use super::*;
use crate::sample::uniform;

fn spec(input_dim: usize, map: FeatureMap, normalize: Normalize) -> FeatureSpec {
    FeatureSpec { input_dim, map, normalize, bits: 14, bias: false }
}

fn identity(input_dim: usize, normalize: Normalize) -> Featurizer {
    Featurizer::new(&spec(input_dim, FeatureMap::Identity, normalize)).unwrap()
}

#[test]
fn unit_rows_land_on_the_grid() {
    let q = identity(2, Normalize::L2).quantise(&[3.0, 4.0, -0.5, 0.0, 0.0, 0.0], 3).unwrap();
    // 0.6 * 16384 = 9830.4, 0.8 * 16384 = 13107.2
    assert_eq!(q, [9830.0, 13107.0, -16384.0, 0.0, 0.0, 0.0]);
    assert!(q.iter().all(|v| v.to_bits() != (-0.0_f64).to_bits()));
}

#[test]
fn extreme_rows_keep_their_direction() {
    let map = identity(2, Normalize::L2);
    for scale in [1e-300, 1e-160, 1.0, 1e160, 1e300] {
        assert_eq!(map.quantise(&[3.0 * scale, 4.0 * scale], 1).unwrap(), [9830.0, 13107.0], "{scale}");
    }
    assert_eq!(map.quantise(&[f64::MIN_POSITIVE * f64::EPSILON, 0.0], 1).unwrap(), [16384.0, 0.0]);
    assert_eq!(map.quantise(&[f64::MAX, f64::MAX], 1).unwrap(), [11585.0, 11585.0]);
}

#[test]
fn ties_go_to_even_without_normalisation() {
    let half = 0.5 / 16384.0;
    let q = identity(4, Normalize::None).quantise(&[half, 3.0 * half, -half, 16.0], 1).unwrap();
    assert_eq!(q, [0.0, 2.0, 0.0, 262_144.0]);
}

#[test]
fn bad_values_are_named() {
    let map = identity(2, Normalize::L2);
    let at = |x: &[f64]| map.quantise(x, 2).unwrap_err();
    assert!(matches!(at(&[1.0, 1.0, 1.0, f64::NAN]), AnalyticError::NotFinite { row: 1, column: 1, .. }));
    assert!(matches!(
        at(&[1.0, f64::NEG_INFINITY, 1.0, 1.0]),
        AnalyticError::NotFinite { row: 0, column: 1, .. }
    ));
    assert!(matches!(at(&[1.0; 3]), AnalyticError::Length { expected: 4, got: 3, .. }));
    let error = identity(1, Normalize::None).quantise(&[1.0, 16.5], 2).unwrap_err();
    assert_eq!(error, AnalyticError::OutOfBound { row: 1, column: 0, value: 16.5, bound: 16.0 });
    assert!(error.to_string().contains("standardise"));
}

#[test]
fn the_bias_column_is_one_even_for_a_zero_row() {
    let mut with_bias = spec(2, FeatureMap::Identity, Normalize::L2);
    with_bias.bias = true;
    let map = Featurizer::new(&with_bias).unwrap();
    assert_eq!(map.quantise(&[0.0, 0.0, 1.0, 0.0], 2).unwrap(), [0.0, 0.0, 16384.0, 16384.0, 0.0, 16384.0]);
    assert_eq!(with_bias.output_dim(), 3);
}

#[test]
fn bounded_rows_never_exceed_the_unit_norm_in_integers() {
    for d in [1, 2, 3, 100, 1280] {
        let bounded = identity(d, Normalize::L2Bounded);
        // Equal entries just above a rounding boundary are the worst case; random rows stand for the rest.
        let mut x = uniform(d as u64, 50 * d);
        x.extend(vec![1.0; d]);
        let q = bounded.quantise(&x, 51).unwrap();
        let worst = q.chunks(d).map(|row| row.iter().map(|v| v * v).sum::<f64>()).fold(0.0, f64::max);
        assert!(worst <= 2.0_f64.powi(28), "{d}: {worst}");
        assert_eq!(bounded.spec().row_norm_bound().to_bits(), 1.0_f64.to_bits());
    }
}

#[test]
fn plain_unit_rows_stay_within_the_charged_bound() {
    let map = identity(300, Normalize::L2);
    let q = map.quantise(&uniform(5, 300 * 200), 200).unwrap();
    let bound = map.spec().row_norm_bound() * 16384.0;
    assert!(q.chunks(300).all(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt() <= bound));
    assert!(q.iter().all(|v| v.abs() <= map.spec().max_abs() as f64));
}

#[test]
fn a_random_map_gives_a_row_the_same_integers_in_any_batch() {
    for normalize in [Normalize::L2, Normalize::L2Bounded, Normalize::None] {
        let map =
            Featurizer::new(&spec(37, FeatureMap::RandomRelu { width: 90, seed: 7 }, normalize)).unwrap();
        let x = uniform(1, 37 * 300);
        let whole = map.quantise(&x, 300).unwrap();
        for batch in [1, 7, 64] {
            let parts: Vec<f64> =
                x.chunks(batch * 37).flat_map(|x| map.quantise(x, x.len() / 37).unwrap()).collect();
            assert_eq!(parts, whole, "{normalize:?} in batches of {batch}");
        }
    }
}

#[test]
fn the_random_map_is_the_documented_one() {
    // V drawn again from its description, and the product summed in integers.
    use rand_chacha::rand_core::{Rng, SeedableRng};
    let (d, width, seed) = (5, 4, 0x0102_0304_u64);
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..].copy_from_slice(b"sheaf.random-relu.v1....");
    let mut rng = rand_chacha::ChaCha8Rng::from_seed(key);
    let v: Vec<i64> = std::iter::from_fn(|| Some(i64::from(rng.next_u32() >> 19)))
        .filter(|w| *w <= 4096)
        .map(|w| w - 2048)
        .take(d * width)
        .collect();
    let x = [0.5, -0.25, 1.0, 0.125, -2.0];
    let q = x.map(|x: f64| (x * 16384.0) as i64);
    let expected: Vec<f64> = (0..width)
        .map(|j| {
            let product: i64 = (0..d).map(|i| q[i] * v[i * width + j]).sum();
            let real = product.max(0) as f64 / (2048.0 * 16384.0 * (d as f64).sqrt());
            (real * 16384.0).round_ties_even()
        })
        .collect();
    let map = Featurizer::new(&spec(d, FeatureMap::RandomRelu { width, seed }, Normalize::None)).unwrap();
    assert_eq!(map.quantise(&x, 1).unwrap(), expected);
    assert!(expected.iter().any(|v| *v > 0.0));
}

#[test]
fn unusable_specifications_are_refused() {
    let good = spec(8, FeatureMap::Identity, Normalize::L2);
    assert_eq!(good.validate(), Ok(()));
    let refused = |change: &dyn Fn(&mut FeatureSpec)| {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(matches!(bad.validate(), Err(AnalyticError::Spec { .. })), "{bad:?}");
    };
    refused(&|s| s.bits = 3);
    refused(&|s| s.bits = 21);
    refused(&|s| s.input_dim = 0);
    refused(&|s| s.input_dim = MAX_DIM + 1);
    refused(&|s| s.map = FeatureMap::RandomRelu { width: 0, seed: 0 });
    refused(&|s| (s.normalize, s.bits, s.input_dim) = (Normalize::L2Bounded, 4, 5000));
    // 2^16 inputs within 2^24 times entries within 2^11: 2^51 still fits, so nothing legal reaches 2^53.
    assert!(RandomRelu::check_exact(1 << 18, 1 << 24).is_err());
}

#[test]
fn specifications_read_as_plans_write_them() {
    let text =
        r#"{"input_dim":3,"map":{"kind":"random-relu","width":8,"seed":1},"normalize":"l2","bias":true}"#;
    let spec: FeatureSpec = serde_json::from_str(text).unwrap();
    assert_eq!((spec.bits, spec.output_dim(), spec.max_abs()), (14, 9, 16384));
    let again: FeatureSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(again, spec);
    assert!(serde_json::from_str::<FeatureSpec>(&text.replace("bias", "biass")).is_err());
    assert!(serde_json::from_str::<FeatureSpec>(&text.replace("width", "with")).is_err());
}
