//! The hash chain: each entry's hash covers the one before, so that none can be changed, moved or taken out of the middle.
//! What a chain cannot show is a missing end; for that another party remembers the [`Head`].

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    books::Books,
    entry::{Digest, Entry},
};

/// Keeps these hashes apart from every other use of SHA-256.
const DOMAIN: &[u8] = b"sheaf-ledger-1\n";

/// The newest entry of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Entries so far: it only grows.
    pub counter: u64,
    /// Hash of the newest entry.
    pub hash: Digest,
}

impl Head {
    /// The head of an empty ledger.
    pub const EMPTY: Self = Self { counter: 0, hash: Digest::from_bytes([0; 32]) };
}

/// An entry as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Place in the chain, from 1.
    pub counter: u64,
    /// JSON: fields in declared order, no spaces. The hash is over this text as it was written, so another way to print a
    /// number, in a later version, leaves old entries good. Unknown and doubled fields are refused when it is read.
    pub body: String,
    /// SHA-256 over the hash before and the body.
    pub hash: Digest,
}

/// An entry with its place and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Place in the chain, from 1.
    pub counter: u64,
    /// Unix seconds, by the site's clock. Nothing is decided by it.
    pub at: u64,
    /// What happened.
    pub entry: Entry,
}

/// The first place where a ledger is not what an honest site wrote.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("entry {counter} of the ledger is broken: {reason}; restore the ledger from the newest good copy")]
pub struct Broken {
    /// Its place, from 1.
    pub counter: u64,
    /// What is wrong with it.
    pub reason: String,
}

fn link(previous: &Digest, body: &str) -> Digest {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(previous.as_bytes());
    hash.update(body.as_bytes());
    Digest::from_bytes(hash.finalize().into())
}

/// Makes the next row of a chain.
pub(super) fn seal(previous: Head, record: &Record) -> Result<Row, serde_json::Error> {
    let body = serde_json::to_string(record)?;
    let hash = link(&previous.hash, &body);
    Ok(Row { counter: record.counter, body, hash })
}

/// Reads the row that follows `previous`.
fn unseal(previous: Head, row: &Row) -> Result<Record, String> {
    let counter = previous.counter + 1;
    if row.counter != counter {
        return Err(format!("the next counter in the store is {}", row.counter));
    }
    if link(&previous.hash, &row.body) != row.hash {
        return Err("its hash does not cover its content and the entry before".to_owned());
    }
    let record: Record = serde_json::from_str(&row.body).map_err(|e| format!("it cannot be read: {e}"))?;
    if record.counter != counter {
        return Err(format!("it says it is entry {}", record.counter));
    }
    Ok(record)
}

/// Walks a chain from its start: every hash, and every entry's right to follow those before. Returns its head.
pub fn verify(rows: &[Row]) -> Result<Head, Broken> {
    replay(rows).map(|books| books.head())
}

pub(super) fn replay(rows: &[Row]) -> Result<Books, Broken> {
    let mut books = Books::default();
    for (row, counter) in rows.iter().zip(1..) {
        let broken = |reason| Broken { counter, reason };
        let record = unseal(books.head(), row).map_err(broken)?;
        books.apply(&record, row.hash).map_err(|reason| Broken { counter, reason: reason.to_string() })?;
    }
    Ok(books)
}
