use std::{fmt, str::FromStr};

use bytes::Bytes;

use crate::v1::BlobRef;

/// The SHA-256 and size of a blob: its name everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BlobId {
    sha256: [u8; 32],
    size: u64,
}

/// A blob reference that cannot be one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlobIdError {
    /// No reference where one is required.
    #[error("the message has no blob reference; the peer speaks another protocol version")]
    Missing,
    /// A digest of the wrong length.
    #[error("a blob digest has {0} bytes, SHA-256 has 32")]
    Length(usize),
    /// Not of the form `<64 hex digits>:<size>`.
    #[error("`{0}` is no blob id, expected <64 hex digits>:<size>")]
    Text(String),
}

impl BlobId {
    /// Names a blob by its digest and its size in bytes.
    pub const fn new(sha256: [u8; 32], size: u64) -> Self {
        Self { sha256, size }
    }

    /// The digest.
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The digest as 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        hex::encode(self.sha256)
    }

    /// Size in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reads the reference of a message.
    pub fn from_wire(blob: Option<&BlobRef>) -> Result<Self, BlobIdError> {
        let blob = blob.ok_or(BlobIdError::Missing)?;
        let sha256 = blob.sha256.as_ref().try_into().map_err(|_| BlobIdError::Length(blob.sha256.len()))?;
        Ok(Self { sha256, size: blob.size })
    }

    /// The form messages carry.
    pub fn to_wire(self) -> BlobRef {
        BlobRef { sha256: Bytes::copy_from_slice(&self.sha256), size: self.size }
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.hex(), self.size)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl FromStr for BlobId {
    type Err = BlobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BlobIdError::Text(text.chars().take(90).collect());
        let (digest, size) = text.split_once(':').ok_or_else(bad)?;
        let mut sha256 = [0; 32];
        hex::decode_to_slice(digest, &mut sha256).map_err(|_| bad())?;
        Ok(Self { sha256, size: size.parse().map_err(|_| bad())? })
    }
}

impl From<BlobId> for String {
    fn from(id: BlobId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for BlobId {
    type Error = BlobIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
