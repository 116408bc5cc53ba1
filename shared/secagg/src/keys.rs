//! Secrets of a round and the keys that pairs of sites derive from them.

use hkdf::Hkdf;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::SecAggError;
use crate::identity::{SiteId, Statement};

/// 32 secret bytes, wiped when dropped, never printed. Serialised only as part of a site's saved state.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    pub(crate) fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut secret = Self([0; 32]);
        rng.fill_bytes(&mut secret.0);
        secret
    }

    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The X25519 public key of these bytes.
    pub(crate) fn public_key(&self) -> [u8; 32] {
        PublicKey::from(&StaticSecret::from(self.0)).to_bytes()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// One end of a pair: a name and a public key.
pub(crate) struct End<'a> {
    pub(crate) site: &'a SiteId,
    pub(crate) key: &'a [u8; 32],
}

/// X25519, then HKDF-SHA256 with the terms' digest (run and round within it) as salt and purpose, ids and public keys of
/// `first` and `second` as info. `secret` belongs to one of the two ends, `peer` is the other.
pub(crate) fn pair_key(
    secret: &Secret,
    peer: &End<'_>,
    purpose: &str,
    terms: &[u8; 32],
    (first, second): (&End<'_>, &End<'_>),
) -> Result<Zeroizing<[u8; 32]>, SecAggError> {
    let shared = StaticSecret::from(*secret.bytes()).diffie_hellman(&PublicKey::from(*peer.key));
    if !shared.was_contributory() {
        return Err(SecAggError::WeakKey { site: peer.site.clone() });
    }
    let info = Statement::new(purpose)
        .field(first.site.as_str().as_bytes())
        .field(first.key)
        .field(second.site.as_str().as_bytes())
        .field(second.key);
    let mut key = Zeroizing::new([0; 32]);
    let expanded = Hkdf::<Sha256>::new(Some(terms), shared.as_bytes()).expand(info.bytes(), &mut *key);
    // 32 bytes are far below the 8160 that HKDF-SHA256 gives.
    expanded.map_err(|_| SecAggError::WeakKey { site: peer.site.clone() })?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    use super::*;

    fn site(name: &str) -> SiteId {
        name.parse().unwrap()
    }

    /// RFC 7748, section 6.1: Alice's private and public key.
    #[test]
    fn public_keys_are_those_of_the_standard() {
        let secret = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
            0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ];
        let public = [
            0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e, 0xf7, 0x5a,
            0x0d, 0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e, 0xaa, 0x9b, 0x4e, 0x6a,
        ];
        assert_eq!(Secret::from_bytes(secret).public_key(), public);
    }

    #[test]
    fn both_ends_get_one_key_that_depends_on_all_of_the_context() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (a, b) = (Secret::draw(&mut rng), Secret::draw(&mut rng));
        let (a_key, b_key, a_site, b_site) = (a.public_key(), b.public_key(), site("a"), site("b"));
        let (a_end, b_end) = (End { site: &a_site, key: &a_key }, End { site: &b_site, key: &b_key });
        let of = |secret: &Secret, peer: &End<'_>, purpose: &str, terms: u8, ends: (&End<'_>, &End<'_>)| {
            *pair_key(secret, peer, purpose, &[terms; 32], ends).unwrap()
        };
        let key = of(&a, &b_end, "mask", 1, (&a_end, &b_end));
        assert_eq!(of(&b, &a_end, "mask", 1, (&a_end, &b_end)), key);
        let others = [
            of(&a, &b_end, "seal", 1, (&a_end, &b_end)),
            of(&a, &b_end, "mask", 2, (&a_end, &b_end)),
            of(&a, &b_end, "mask", 1, (&b_end, &a_end)),
        ];
        assert!(others.iter().all(|other| *other != key));
    }

    #[test]
    fn a_key_of_low_order_is_refused() {
        let secret = Secret::draw(&mut ChaCha20Rng::seed_from_u64(1));
        let (own, peer, own_key) = (site("a"), site("b"), secret.public_key());
        let one = [[1].as_slice(), &[0; 31]].concat().try_into().unwrap();
        for weak in [[0; 32], one] {
            let (own, peer_end) = (End { site: &own, key: &own_key }, End { site: &peer, key: &weak });
            let refused = pair_key(&secret, &peer_end, "mask", &[1; 32], (&own, &peer_end));
            assert_eq!(refused, Err(SecAggError::WeakKey { site: peer.clone() }));
        }
    }
}
