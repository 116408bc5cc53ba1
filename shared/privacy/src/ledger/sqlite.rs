//! The ledger's rows in one SQLite file. WAL with synchronous FULL: a committed row was flushed to the disk.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use rusqlite_migration::{M, Migrations};

use super::{
    chain::Row,
    entry::Digest,
    store::{Store, StoreError},
};

/// How long another process may hold the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// The triggers are a guard against mistakes; against intent there is the chain.
const MIGRATIONS: &[M<'_>] = &[M::up(
    "CREATE TABLE entries (counter INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
     CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries
         BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
     CREATE TRIGGER entries_are_not_removed BEFORE DELETE ON entries
         BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;",
)];

/// A ledger's rows in a file.
pub struct SqliteStore(Connection);

impl SqliteStore {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Migrations::from_slice(MIGRATIONS)
            .to_latest(&mut connection)
            .map_err(|e| StoreError::Damaged(format!("{e}; was it written by a newer sheaf-agent?")))?;
        Ok(Self(connection))
    }

    /// Opens the file of a running agent to read it; appending fails.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(PATIENCE)?;
        Ok(Self(connection))
    }
}

impl Store for SqliteStore {
    fn rows(&self) -> Result<Vec<Row>, StoreError> {
        let mut query = self.0.prepare("SELECT counter, body, hash FROM entries ORDER BY counter")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
        rows.map(|row| {
            let (counter, body, hash): (i64, String, String) = row?;
            let bad = |what: String| StoreError::Damaged(format!("entry {counter}: {what}"));
            let hash = Digest::try_from(hash).map_err(bad)?;
            let counter = u64::try_from(counter).map_err(|e| bad(e.to_string()))?;
            Ok(Row { counter, body, hash })
        })
        .collect()
    }

    fn append(&mut self, row: &Row) -> Result<(), StoreError> {
        let counter = i64::try_from(row.counter).map_err(|e| StoreError::Failed(e.to_string()))?;
        // The primary key refuses a counter that another process took; the chain refuses one that skips.
        let inserted = self.0.execute(
            "INSERT INTO entries (counter, body, hash) VALUES (?1, ?2, ?3)",
            params![counter, row.body, row.hash.to_string()],
        );
        match inserted {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Err(StoreError::Conflict(row.counter))
            }
            other => other.map(drop).map_err(StoreError::from),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
