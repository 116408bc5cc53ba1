//! AFL's exact sums through the masks: the same integers as their plain merge.

use rand_chacha::{ChaCha20Rng, rand_core::Rng as _, rand_core::SeedableRng as _};
use sheaf_analytic::{FeatureMap, FeatureSpec, Featurizer, GramAccumulator, Normalize, Sums, SumsShape};
use sheaf_secagg::{Ring, Stage};

use crate::federation::{Federation, terms};

const ROWS: usize = 40;

fn spec() -> FeatureSpec {
    FeatureSpec { input_dim: 12, map: FeatureMap::Identity, normalize: Normalize::L2, bits: 14, bias: true }
}

fn sums(site: u64, shape: &SumsShape) -> Sums {
    let mut rng = ChaCha20Rng::seed_from_u64(site);
    let rows: Vec<f64> = (0..ROWS * 12).map(|_| f64::from(rng.next_u32() as i32)).collect();
    let labels: Vec<u32> = (0..ROWS).map(|_| rng.next_u32() % 3).collect();
    let &SumsShape { dim, classes, bits, max_abs } = shape;
    let mut accumulator = GramAccumulator::new(dim, classes, bits, max_abs).unwrap();
    let featurizer = Featurizer::new(&spec()).unwrap();
    accumulator.push(&featurizer.quantise(&rows, ROWS).unwrap(), &labels).unwrap();
    accumulator.finish()
}

fn flatten(sums: &Sums) -> Vec<i64> {
    let counts = sums.counts().iter().map(|&n| n as i64);
    std::iter::once(sums.rows() as i64)
        .chain(counts)
        .chain(sums.gram().iter().copied())
        .chain(sums.cross().iter().copied())
        .collect()
}

fn unflatten(shape: &SumsShape, flat: &[i64]) -> Sums {
    let packed = shape.dim * (shape.dim + 1) / 2;
    let (counts, rest) = flat[1..].split_at(shape.classes);
    let (gram, cross) = rest.split_at(packed);
    let counts = counts.iter().map(|&n| n as u64).collect();
    Sums::from_parts(shape, flat[0] as u64, counts, gram.to_vec(), cross.to_vec()).unwrap()
}

#[test]
fn masked_sums_are_the_plain_sums() {
    let shape = SumsShape::of(&spec(), 3);
    let sites: Vec<Sums> = (0..6).map(|n| sums(n, &shape)).collect();
    let values: Vec<Vec<i64>> = sites.iter().map(flatten).collect();
    // No sum of a site leaves 2^62; what a site may have to keep the total of six below 2^63 is a bound on its rows.
    let bound = ROWS as u64 * shape.max_abs.unsigned_abs().pow(2);
    let ring = Ring::holding(bound, sites.len()).unwrap();
    assert!(ring.bits() < 40);
    let mut federation = Federation::new(6, terms(values[0].len(), ring), 1);
    let mut leaves = [None; 6];
    leaves[4] = Some(Stage::MaskedInput);
    let opened = federation.run(&values, &leaves).unwrap();
    let mut plain = Sums::zero(shape.dim, shape.classes, shape.bits);
    for (_, site) in sites.iter().enumerate().filter(|(n, _)| *n != 4) {
        plain.add(site).unwrap();
    }
    let total = unflatten(&shape, &opened.values);
    assert_eq!(total, plain);
    total.validate(shape.max_abs).unwrap();
}
