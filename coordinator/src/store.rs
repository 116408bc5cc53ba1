//! What the coordinator keeps: a SQLite database (WAL, synchronous FULL) for small facts and the
//! journal, and a folder of content-addressed blobs for everything large.

pub mod blobs;
pub mod journal;
pub mod registry;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use crate::error::Error;

const MIGRATIONS: &[M<'_>] = &[
    M::up(include_str!("../migrations/0001_start.sql")),
    M::up(include_str!("../migrations/0002_ledger_heads.sql")),
];

/// The database. Calls block for a disk write at most; async callers go through [`Database::run`].
#[derive(Clone)]
pub struct Database(Arc<Mutex<Connection>>);

impl Database {
    /// Opens or creates the database and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened, is damaged, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Migrations::from_slice(MIGRATIONS).to_latest(&mut connection).map_err(|e| {
            Error::corrupt(format!(
                "{}: the database schema cannot be brought to this version ({e}); was it written by a newer sheaf?",
                path.display()
            ))
        })?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// The connection, from a thread that may block. A panic in another holder leaves SQLite consistent
    /// (its transaction rolls back), so a poisoned lock is taken over.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs blocking work on the database off the async threads.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let database = self.clone();
        tokio::task::spawn_blocking(move || work(&database)).await.map_err(|e| Error::bug(e.to_string()))?
    }
}
