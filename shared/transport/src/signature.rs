//! A site's signatures: a key that outlives the certificates of its connections, vouched for by one of them.
//!
//! ```text
//! authority ──► certificate (renewed, with a new key) ──► signs the signing key ──► signs statements
//! ```
//!
//! Peers may pin a signing key by its fingerprint, compared by telephone: then not even the authority can put another
//! in its place.

use std::path::Path;

use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use rustls::SignatureScheme;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    identity::{Identity, PeerCertificate, SiteName},
    keys::{KeyError, SecretKey},
    tls::{SwappableCertificate, fingerprint},
};

/// Keeps what a connection's key signs here apart from everything else it signs.
const VOUCH: &[u8] = b"sheaf-signing-key-1\n";

/// A signature that cannot be made, or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The key's file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key cannot sign.
    #[error("the signing key cannot be used: {0}")]
    Unusable(String),
    /// The chain of trust has a gap.
    #[error("the signing key is not vouched for: {0}")]
    Untrusted(&'static str),
}

/// The secret part. It has no Debug.
pub struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    /// Reads the key, or makes it where there is none yet.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds another kind of key.
    pub fn open(path: &Path) -> Result<Self, SignatureError> {
        let key = if path.exists() {
            SecretKey::load(path)?
        } else {
            let key = SecretKey::generate()?;
            key.save(path)?;
            key
        };
        let unusable = |e: ring::error::KeyRejected| SignatureError::Unusable(e.to_string());
        let random = SystemRandom::new();
        let der = key.pair().serialized_der();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random).map(Self).map_err(unusable)
    }

    /// A signature over the bytes (ECDSA P-256 with SHA-256, ASN.1).
    ///
    /// # Errors
    /// [`SignatureError::Unusable`] without random numbers.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let signature = self.0.sign(&SystemRandom::new(), bytes);
        Ok(signature.map_err(|e| SignatureError::Unusable(e.to_string()))?.as_ref().to_vec())
    }

    /// What shows that the key is this site's: the public part, signed by the connection's key.
    ///
    /// # Errors
    /// [`SignatureError::Unusable`].
    pub fn credentials(&self, connection: &SwappableCertificate) -> Result<Credentials, SignatureError> {
        let public_key = self.0.public_key().as_ref().to_vec();
        let (certificate, binding) = connection.sign(&vouched(&public_key))?;
        Ok(Credentials { public_key, certificate, binding })
    }
}

fn vouched(public_key: &[u8]) -> Vec<u8> {
    [VOUCH, public_key].concat()
}

/// The public part of a site's signing key and who vouches for it. Hexadecimal in JSON, bytes in binary formats.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The point, uncompressed, 65 bytes.
    #[serde(with = "hex_or_bytes")]
    public_key: Vec<u8>,
    /// The site's certificate, DER.
    #[serde(with = "hex_or_bytes")]
    certificate: Vec<u8>,
    /// By the certificate's key, over the public key.
    #[serde(with = "hex_or_bytes")]
    binding: Vec<u8>,
}

/// Hexadecimal where people read, bytes where they do not.
mod hex_or_bytes {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            hex::serde::serialize(bytes, serializer)
        } else {
            bytes.serialize(serializer)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if deserializer.is_human_readable() {
            hex::serde::deserialize(deserializer)
        } else {
            Vec::<u8>::deserialize(deserializer)
        }
    }
}

impl Credentials {
    /// Whose key it is, by an authority.
    ///
    /// # Errors
    /// [`SignatureError::Untrusted`].
    pub fn site(&self, authority: &[u8]) -> Result<SiteName, SignatureError> {
        let untrusted = SignatureError::Untrusted;
        let read = |der| X509Certificate::from_der(der).map(|(_, certificate)| certificate);
        let leaf = read(&self.certificate).map_err(|_| untrusted("its certificate cannot be read"))?;
        let ca = read(authority).map_err(|_| untrusted("the authority's certificate cannot be read"))?;
        let holds = |by: &X509Certificate<'_>, bytes: &[u8], signature: &[u8]| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &by.public_key().subject_public_key.data)
                .verify(bytes, signature)
                .is_ok()
        };
        if !holds(&ca, leaf.tbs_certificate.as_ref(), &leaf.signature_value.data) {
            return Err(untrusted("its certificate is not of this authority"));
        }
        if !holds(&leaf, &vouched(&self.public_key), &self.binding) {
            return Err(untrusted("its certificate did not sign it"));
        }
        match PeerCertificate::from_der(&self.certificate).map(|peer| peer.identity) {
            Ok(Identity::Site(site)) => Ok(site),
            _ => Err(untrusted("its certificate is not a site's")),
        }
    }

    /// Whether this key made the signature. Says nothing of whose key it is: see [`Self::site`].
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.public_key).verify(bytes, signature).is_ok()
    }

    /// SHA-256 of the public key: what people compare and policies pin.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.public_key)
    }
}

impl SwappableCertificate {
    /// The leaf in use, DER, and a signature by its key.
    fn sign(&self, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), SignatureError> {
        let certified = self.load();
        let unusable = |e: &dyn std::fmt::Display| SignatureError::Unusable(e.to_string());
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        let signer = certified.key.choose_scheme(&[scheme]).ok_or_else(|| unusable(&"not a P-256 key"))?;
        let leaf = certified.cert.first().ok_or_else(|| unusable(&"it has no certificate"))?;
        Ok((leaf.to_vec(), signer.sign(bytes).map_err(|e| unusable(&e))?))
    }
}
