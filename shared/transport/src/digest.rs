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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_the_digest_and_the_size() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(blob_id(b"").to_string(), format!("{empty}:0"));
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(blob_id(b"abc").to_string(), format!("{abc}:3"));
        assert_eq!(sha256_hex(b"abc"), abc);
    }

    #[test]
    fn a_file_that_is_not_there_has_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        assert!(BlobHasher::of_prefix(&folder.path().join("none"), 1).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// What a resumed transfer relies on: the prefix on the disk and the rest from the wire give the name
        /// of the whole, wherever it was cut; a limit beyond the end is the end.
        #[test]
        fn a_prefix_and_the_rest_are_the_whole(length in 0..700_000usize, cut in 0..800_000usize, parts in 1..5usize) {
            let bytes: Vec<u8> = (0..length).map(|i| (i * i / 7) as u8).collect();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("blob");
            std::fs::write(&path, &bytes).unwrap();
            let mut hasher = BlobHasher::of_prefix(&path, cut as u64).unwrap();
            let held = cut.min(length);
            prop_assert_eq!(hasher.size(), held as u64);
            prop_assert_eq!(hasher.clone().finish(), blob_id(&bytes[..held]));
            for part in bytes[held..].chunks(length / parts + 1) {
                hasher.update(part);
            }
            prop_assert_eq!(hasher.finish(), blob_id(&bytes));
        }
    }
}
