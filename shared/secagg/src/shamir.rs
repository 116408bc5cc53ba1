//! Secrets shared among neighbours (Shamir, CACM 1979), byte by byte over GF(2^8).
//!
//! The arithmetic is `vsss-rs`: kept up, draws every coefficient from all of the field (what RUSTSEC-2024-0398 is about in
//! `sharks`), takes the caller's generator, and multiplies without tables, so that timing does not depend on secrets.
//! `blahaj` is smaller and sound too, but looks secrets up in tables. The field gives at most 255 shares, above the
//! largest neighbourhood.

use rand_core::CryptoRng;
use vsss_rs::Gf256;
use zeroize::Zeroizing;

use crate::error::SecAggError;
use crate::identity::SiteId;
use crate::keys::Secret;

/// One share of 32 bytes. Its place, from 0, is known to all from the graph.
pub(crate) type Share = Secret;

/// Shares `secret` of `owner` so that any `threshold` of `shares` recover it.
pub(crate) fn split(
    owner: &SiteId,
    secret: &Secret,
    threshold: usize,
    shares: usize,
    rng: &mut impl CryptoRng,
) -> Result<Vec<Share>, SecAggError> {
    let refuse = |reason: String| SecAggError::Sharing { site: owner.clone(), reason };
    let dealt =
        Gf256::split_bytes(threshold, shares, secret.bytes(), rng).map_err(|e| refuse(e.to_string()))?;
    let dealt = Zeroizing::new(dealt);
    let share = |(place, bytes): (usize, &Vec<u8>)| match bytes.split_first() {
        Some((&x, rest)) if usize::from(x) == place + 1 => {
            rest.try_into().map(Share::from_bytes).map_err(|_| refuse("a share of another length".to_owned()))
        }
        _ => Err(refuse("shares are not numbered from 1".to_owned())),
    };
    dealt.iter().enumerate().map(share).collect()
}

/// Recovers the secret of `owner` from shares with their places. Fewer than `threshold` are refused; more than that
/// are not looked at. Whether the shares were true shows only in the result.
pub(crate) fn recover(
    owner: &SiteId,
    shares: &[(usize, Share)],
    threshold: usize,
) -> Result<Secret, SecAggError> {
    let refuse = |reason: String| SecAggError::Sharing { site: owner.clone(), reason };
    if shares.len() < threshold {
        return Err(SecAggError::NotEnoughShares {
            site: owner.clone(),
            got: shares.len(),
            needed: threshold,
        });
    }
    let mut points = Zeroizing::new(Vec::with_capacity(threshold));
    for (place, share) in &shares[..threshold] {
        let x = u8::try_from(place + 1).map_err(|_| refuse(format!("place {place} is beyond 254")))?;
        let mut point = Vec::with_capacity(33);
        point.push(x);
        point.extend_from_slice(share.bytes());
        points.push(point);
    }
    let secret = Zeroizing::new(Gf256::combine_bytes(&*points).map_err(|e| refuse(e.to_string()))?);
    let bytes = <[u8; 32]>::try_from(secret.as_slice()).map_err(|_| refuse("another length".to_owned()))?;
    Ok(Secret::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    use super::*;

    fn owner() -> SiteId {
        "a".parse().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_threshold_of_shares_gives_the_secret(n in 3_usize..=85, seed: u64, skip in 0_usize..85) {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let (t, secret) = (2 * n / 3 + 1, Secret::draw(&mut rng));
            let shares = split(&owner(), &secret, t, n, &mut rng).unwrap();
            let mut held: Vec<(usize, Share)> = shares.into_iter().enumerate().collect();
            held.rotate_left(skip % n);
            prop_assert!(recover(&owner(), &held, t).unwrap() == secret);
            held.truncate(t - 1);
            let short = recover(&owner(), &held, t);
            let expected = SecAggError::NotEnoughShares { site: owner(), got: t - 1, needed: t };
            prop_assert_eq!(short, Err(expected));
        }
    }

    /// One share below the threshold says nothing: over many sharings of one secret its bytes are uniform.
    #[test]
    fn too_few_shares_are_uniform() {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let secret = Secret::from_bytes([0; 32]);
        let mut counts = [0_u32; 256];
        for _ in 0..400 {
            let shares = split(&owner(), &secret, 3, 4, &mut rng).unwrap();
            shares[2].bytes().iter().for_each(|&b| counts[usize::from(b)] += 1);
        }
        // 12,800 bytes, 50 expected a value, 255 degrees of freedom: 348 is exceeded once in 10,000.
        let chi: f64 = counts.iter().map(|&n| (f64::from(n) - 50.0).powi(2) / 50.0).sum();
        assert!(chi < 348.0, "{chi}");
    }

    #[test]
    fn repeated_places_and_false_shares_do_not_pass_for_the_secret() {
        let mut rng = ChaCha20Rng::seed_from_u64(8);
        let secret = Secret::draw(&mut rng);
        let shares = split(&owner(), &secret, 3, 4, &mut rng).unwrap();
        let twice = [(0, shares[0].clone()), (0, shares[0].clone()), (1, shares[1].clone())];
        assert!(matches!(recover(&owner(), &twice, 3), Err(SecAggError::Sharing { .. })));
        // Not places 0 to 2: there all coefficients are one, and any order gives the secret.
        let swapped = [(1, shares[0].clone()), (0, shares[1].clone()), (3, shares[3].clone())];
        assert!(recover(&owner(), &swapped, 3).unwrap() != secret);
    }
}
