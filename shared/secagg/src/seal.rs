//! Shares on their way from one site to another, through a coordinator that must not read or move them.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::error::SecAggError;
use crate::identity::SiteId;
use crate::shamir::Share;

/// Bytes of a sealed pair of shares: nonce, two shares, tag.
pub const SEALED_LEN: usize = NONCE + 64 + 16;
const NONCE: usize = 12;

/// The shares that one neighbour holds of one site.
pub(crate) struct SharePair {
    pub(crate) seed: Share,
    pub(crate) key: Share,
}

/// Seals with ChaCha20-Poly1305 under the key of the ordered pair. The nonce is random, so that even a site that lost
/// its state and dealt again would not use one twice.
pub(crate) fn seal(
    key: &[u8; 32],
    shares: &SharePair,
    context: &[u8],
    to: &SiteId,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SecAggError> {
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    let plain = Zeroizing::new([*shares.seed.bytes(), *shares.key.bytes()].concat());
    let sealed = ChaCha20Poly1305::new(key.into())
        .encrypt(&Nonce::from(nonce), Payload { msg: &plain, aad: context })
        .map_err(|_| SecAggError::Sealed { from: to.clone() })?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Opens what `from` sealed in the same context.
pub(crate) fn open(
    key: &[u8; 32],
    sealed: &[u8],
    context: &[u8],
    from: &SiteId,
) -> Result<SharePair, SecAggError> {
    let refused = || SecAggError::Sealed { from: from.clone() };
    let (nonce, body) = sealed.split_first_chunk::<NONCE>().ok_or_else(refused)?;
    let plain = ChaCha20Poly1305::new(key.into())
        .decrypt(&Nonce::from(*nonce), Payload { msg: body, aad: context })
        .map(Zeroizing::new)
        .map_err(|_| refused())?;
    match plain.as_chunks::<32>() {
        (&[seed, key], []) => Ok(SharePair { seed: Share::from_bytes(seed), key: Share::from_bytes(key) }),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    use super::*;

    #[test]
    fn only_the_same_key_and_context_open_untouched_bytes() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let site: SiteId = "a".parse().unwrap();
        let pair = SharePair { seed: Share::draw(&mut rng), key: Share::draw(&mut rng) };
        let sealed = seal(&[1; 32], &pair, b"here", &site, &mut rng).unwrap();
        assert_eq!(sealed.len(), SEALED_LEN);
        let opened = open(&[1; 32], &sealed, b"here", &site).unwrap();
        assert!(opened.seed == pair.seed && opened.key == pair.key);
        let refused = |key: &[u8; 32], sealed: &[u8], context: &[u8]| {
            matches!(open(key, sealed, context, &site), Err(SecAggError::Sealed { .. }))
        };
        assert!(refused(&[2; 32], &sealed, b"here"));
        assert!(refused(&[1; 32], &sealed, b"there"));
        assert!(refused(&[1; 32], &sealed[..11], b"here"));
        for at in 0..sealed.len() {
            let mut touched = sealed.clone();
            touched[at] ^= 1;
            assert!(refused(&[1; 32], &touched, b"here"), "{at}");
        }
    }
}
