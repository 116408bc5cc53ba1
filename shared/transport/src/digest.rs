//! SHA-256 of bytes and files, as blob names.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use sha2::{Digest as _, Sha256};
use sheaf_proto::BlobId;

/// A running digest that counts what went in.
#[derive(Default, Clone)]
pub struct BlobHasher {
    inner: Sha256,
    size: u64,
}

impl BlobHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Bytes so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The name of everything that went in.
    pub fn finish(self) -> BlobId {
        BlobId::new(self.inner.finalize().into(), self.size)
    }

    /// Reads the first `limit` bytes of a file into a digest, in blocks: memory stays flat.
    pub fn of_prefix(path: &Path, limit: u64) -> io::Result<Self> {
        let mut hasher = Self::default();
        let mut reader = File::open(path)?.take(limit);
        let mut block = vec![0; 1 << 18];
        loop {
            match reader.read(&mut block)? {
                0 => return Ok(hasher),
                n => hasher.update(&block[..n]),
            }
        }
    }
}

/// The name of a byte string.
pub fn blob_id(bytes: &[u8]) -> BlobId {
    let mut hasher = BlobHasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// SHA-256 of a byte string, 64 hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    blob_id(bytes).hex()
}
