//! Who a site is, and what it signs.
//!
//! The crate holds no identity keys. A caller passes a [`Signer`] for its own and a [`Verifier`] that knows those of
//! the peers. **The verifier is what keeps the coordinator out**: one that accepts any certificate of an authority
//! the coordinator runs lets the coordinator invent sites. Pin the peers' keys by a way that does not lead through
//! the coordinator.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::SecAggError;

/// Name of a site, 1 to 255 bytes; the caller's identity layer restricts the alphabet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SiteId(String);

impl SiteId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SiteId {
    type Err = SecAggError;

    fn from_str(text: &str) -> Result<Self, SecAggError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for SiteId {
    type Error = SecAggError;

    fn try_from(text: String) -> Result<Self, SecAggError> {
        if (1..=255).contains(&text.len()) { Ok(Self(text)) } else { Err(SecAggError::Name(text.len())) }
    }
}

impl From<SiteId> for String {
    fn from(site: SiteId) -> Self {
        site.0
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Signs with the identity key of this site.
pub trait Signer {
    /// A signature over `statement`, or why there is none, in words for an operator.
    fn sign(&self, statement: &[u8]) -> Result<Vec<u8>, String>;
}

/// Knows the identity keys of the peers. Signatures are checked on several threads.
pub trait Verifier: Sync {
    /// Whether `signature` over `statement` is one of `site`. False for a site that is not known.
    fn verify(&self, site: &SiteId, statement: &[u8], signature: &[u8]) -> bool;
}

/// Bytes to sign or to hash: a purpose, then fields with their lengths, so that no two statements read the same.
#[derive(Clone)]
pub(crate) struct Statement(Vec<u8>);

impl Statement {
    pub(crate) fn new(purpose: &str) -> Self {
        Self(b"sheaf-secagg/1".to_vec()).field(purpose.as_bytes())
    }

    pub(crate) fn field(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn number(self, number: u64) -> Self {
        self.field(&number.to_le_bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}
