//! Draws whose values depend on the seed and this code alone, not on the version of a crate of distributions.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;

/// Uniform in `0..bound`; `bound` is at least 1.
pub(crate) fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    // The high half of the product: biased by less than bound / 2^64, which no draw here can show.
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

/// Uniform in `[0, 1)`, 53 bits.
pub(crate) fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Fisher and Yates.
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for at in (1..items.len()).rev() {
        items.swap(at, below(rng, at + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng as _;

    #[test]
    fn all_orders_come_equally_often() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            shuffle(&mut items, &mut rng);
            *seen.entry(items).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        // 1000 each; 150 are more than five standard deviations.
        assert!(seen.values().all(|count: &i32| (count - 1000).abs() < 150), "{seen:?}");
    }
}
