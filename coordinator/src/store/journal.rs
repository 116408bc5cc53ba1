//! Runs and their journals.

use rusqlite::{OptionalExtension as _, params};

use super::Database;
use crate::{
    error::Error,
    run::event::{Entry, Event},
};

/// A run as it was submitted.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// Unique id, a safe file name.
    pub id: String,
    /// The plan as the operator wrote it.
    pub plan_toml: String,
    /// Unix milliseconds.
    pub created_at: i64,
}

impl Database {
    /// Records a new run with its first event in one transaction.
    ///
    /// # Errors
    /// [`crate::error::Class::Conflict`] when the id is taken.
    pub fn create_run(&self, run: &RunRecord, first: &Event) -> Result<(), Error> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let inserted = transaction.execute(
            "INSERT OR IGNORE INTO runs (id, plan_toml, created_at) VALUES (?1, ?2, ?3)",
            params![run.id, run.plan_toml, run.created_at],
        )?;
        if inserted == 0 {
            return Err(Error::conflict(format!("there is a run `{}` already; choose another id", run.id)));
        }
        transaction.execute(
            "INSERT INTO events (run_id, seq, at, event) VALUES (?1, 0, ?2, ?3)",
            params![run.id, run.created_at, serde_json::to_string(first)?],
        )?;
        Ok(transaction.commit()?)
    }

    /// Appends events; when this returns they survive a power cut. One transaction for the batch.
    pub fn append(&self, run_id: &str, entries: &[Entry]) -> Result<(), Error> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO events (run_id, seq, at, event) VALUES (?1, ?2, ?3, ?4)")?;
            for entry in entries {
                let text = serde_json::to_string(&entry.event)?;
                insert.execute(params![run_id, entry.seq, entry.at, text])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// The whole journal of a run, oldest first.
    pub fn journal(&self, run_id: &str) -> Result<Vec<Entry>, Error> {
        let connection = self.lock();
        let mut query =
            connection.prepare("SELECT seq, at, event FROM events WHERE run_id = ?1 ORDER BY seq")?;
        let rows = query.query_map([run_id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
        })?;
        rows.map(|row| {
            let (seq, at, text) = row?;
            let event = serde_json::from_str(&text).map_err(|e| {
                Error::corrupt(format!("run {run_id}: event {seq} of the journal cannot be read: {e}"))
            })?;
            Ok(Entry { seq, at, event })
        })
        .collect()
    }

    /// Every run, newest first.
    pub fn runs(&self) -> Result<Vec<RunRecord>, Error> {
        let connection = self.lock();
        let mut query = connection
            .prepare("SELECT id, plan_toml, created_at FROM runs ORDER BY created_at DESC, id DESC")?;
        let rows = query.query_map([], |row| {
            Ok(RunRecord { id: row.get(0)?, plan_toml: row.get(1)?, created_at: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps figures measured by the operator for a version of a run, replacing earlier ones.
    pub fn attach(&self, run_id: &str, version: u32, evaluation: &str) -> Result<(), Error> {
        self.lock().execute(
            "INSERT OR REPLACE INTO attachments (run_id, version, evaluation) VALUES (?1, ?2, ?3)",
            params![run_id, version, evaluation],
        )?;
        Ok(())
    }

    /// The figures attached to a version of a run.
    pub fn attachment(&self, run_id: &str, version: u32) -> Result<Option<String>, Error> {
        Ok(self
            .lock()
            .query_row(
                "SELECT evaluation FROM attachments WHERE run_id = ?1 AND version = ?2",
                params![run_id, version],
                |row| row.get(0),
            )
            .optional()?)
    }
}
