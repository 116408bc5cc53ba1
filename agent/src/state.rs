//! What the agent must remember: its outbox, the runs a person approved, what left the site and when.
//! SQLite, WAL, synchronous FULL; the outbox's bytes are files beside it.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OptionalExtension as _, params};
use rusqlite_migration::{M, Migrations};
use sheaf_proto::BlobId;

use crate::{egress::Released, error::AgentError};

const MIGRATIONS: &[M<'_>] = &[
    M::up(
        "CREATE TABLE outbox (
         run_id TEXT NOT NULL, key TEXT NOT NULL, blob TEXT NOT NULL, seconds REAL NOT NULL,
         delivered_at INTEGER, verdict TEXT,
         PRIMARY KEY (run_id, key)) STRICT;
     CREATE TABLE decisions (run_id TEXT PRIMARY KEY, yes INTEGER NOT NULL, at INTEGER NOT NULL) STRICT;
     CREATE TABLE requests (
         run_id TEXT PRIMARY KEY, run_name TEXT NOT NULL, workload TEXT NOT NULL, dataset TEXT NOT NULL,
         columns TEXT NOT NULL, asked_at INTEGER NOT NULL) STRICT;
     CREATE TABLE releases (
         id INTEGER PRIMARY KEY, at INTEGER NOT NULL, run_id TEXT NOT NULL, key TEXT NOT NULL,
         kind TEXT NOT NULL, blob TEXT NOT NULL) STRICT;
     CREATE TABLE status (name TEXT PRIMARY KEY, value TEXT NOT NULL, at INTEGER NOT NULL) STRICT;",
    ),
    // What an answer's run has cost so far: goes out with it.
    M::up("ALTER TABLE outbox ADD COLUMN spend BLOB"),
    M::up(
        "CREATE TABLE secure_rounds (
         run_id TEXT NOT NULL, round INTEGER NOT NULL, at INTEGER NOT NULL, state BLOB NOT NULL,
         PRIMARY KEY (run_id, round)) STRICT;
     CREATE TABLE secure_history (id INTEGER PRIMARY KEY CHECK (id = 1), state BLOB NOT NULL) STRICT;
     CREATE TABLE peers (name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, at INTEGER NOT NULL) STRICT;",
    ),
];

mod secure;

pub use secure::SecureRound;

/// The agent's memory.
#[derive(Clone)]
pub struct State {
    connection: Arc<Mutex<Connection>>,
    outbox: PathBuf,
    durable: bool,
}

/// An answer that waits to be delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// The run.
    pub run_id: String,
    /// The task.
    pub key: String,
    /// The answer's name.
    pub blob: BlobId,
    /// The answer's bytes.
    pub path: PathBuf,
    /// Computing time, seconds.
    pub seconds: f64,
    /// The statement of what the run has cost, not yet signed.
    pub spend: Option<Vec<u8>>,
}

/// What left the site.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Release {
    /// Unix milliseconds.
    pub at: i64,
    /// The run.
    pub run_id: String,
    /// The task.
    pub task: String,
    /// statistics, sums, updates, metrics.
    pub kind: String,
    /// SHA-256 and size.
    pub blob: String,
}

/// A run that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ApprovalRequest {
    /// The run.
    pub run_id: String,
    /// Its name.
    pub run_name: String,
    /// Its workload.
    pub workload: String,
    /// The data set it asks for.
    pub dataset: String,
    /// The columns it would read, separated by commas.
    pub columns: String,
    /// Unix milliseconds.
    pub asked_at: i64,
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

impl State {
    /// Opens or creates the state in a home. Without `durable` a power cut may lose the last moments, which
    /// only a simulation can afford.
    pub fn open(home: &Path, durable: bool) -> Result<Self, AgentError> {
        let outbox = home.join("outbox");
        fs::create_dir_all(&outbox).map_err(AgentError::file(&outbox))?;
        let mut connection = Connection::open(home.join("agent.db"))?;
        connection.pragma_update(None, "journal_mode", if durable { "WAL" } else { "MEMORY" })?;
        connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "OFF" })?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Migrations::from_slice(MIGRATIONS)
            .to_latest(&mut connection)
            .map_err(|e| AgentError::State(format!("{e}; was it written by a newer sheaf-agent?")))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), outbox, durable })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an answer until it is delivered. On return it survives a power cut.
    pub fn post(
        &self,
        run_id: &str,
        key: &str,
        released: &Released,
        spend: Option<&[u8]>,
    ) -> Result<(), AgentError> {
        let path = self.outbox.join(released.blob().hex());
        let staged = path.with_extension("new");
        let write = || {
            let mut file = File::create(&staged)?;
            file.write_all(released.bytes())?;
            if self.durable {
                file.sync_all()?;
            }
            fs::rename(&staged, &path)?;
            if self.durable {
                File::open(&self.outbox)?.sync_all()?;
            }
            Ok(())
        };
        // File and row under one lock: another run's equal answer may be leaving just now.
        let connection = self.lock();
        write().map_err(AgentError::file(&path))?;
        connection.execute(
            "INSERT INTO outbox (run_id, key, blob, seconds, spend) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (run_id, key) DO UPDATE SET
                 blob = excluded.blob, seconds = excluded.seconds, spend = excluded.spend,
                 delivered_at = NULL, verdict = NULL",
            params![run_id, key, released.blob().to_string(), released.seconds(), spend],
        )?;
        Ok(())
    }

    /// The answer to a task that waits to be delivered: what is computed once is not computed again.
    pub fn answer(&self, run_id: &str, key: &str) -> Result<Option<Pending>, AgentError> {
        // The bytes go when they are delivered; without them the task is as if never done.
        let mut waiting = self.pending()?.into_iter();
        Ok(waiting.find(|one| one.run_id == run_id && one.key == key && one.path.exists()))
    }

    /// Answers that wait to be delivered, oldest first.
    pub fn pending(&self) -> Result<Vec<Pending>, AgentError> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT run_id, key, blob, seconds, spend FROM outbox WHERE delivered_at IS NULL ORDER BY rowid",
        )?;
        let mut rows = query.query([])?;
        let mut pending = Vec::new();
        while let Some(row) = rows.next()? {
            let blob: BlobId = row
                .get::<_, String>(2)?
                .parse()
                .map_err(|_| AgentError::State("a blob name is damaged".to_owned()))?;
            let path = self.outbox.join(blob.hex());
            let (run_id, key, seconds, spend) = (row.get(0)?, row.get(1)?, row.get(3)?, row.get(4)?);
            pending.push(Pending { run_id, key, blob, path, seconds, spend });
        }
        Ok(pending)
    }

    /// Notes the coordinator's verdict. The bytes go: the coordinator holds them durably, or will not have them.
    pub fn delivered(&self, pending: &Pending, verdict: &str) -> Result<(), AgentError> {
        let connection = self.lock();
        connection.execute(
            "UPDATE outbox SET delivered_at = ?3, verdict = ?4 WHERE run_id = ?1 AND key = ?2",
            params![pending.run_id, pending.key, now_ms(), verdict],
        )?;
        let still_wanted: bool = connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM outbox WHERE blob = ?1 AND delivered_at IS NULL)",
            [pending.blob.to_string()],
            |row| row.get(0),
        )?;
        if !still_wanted && let Err(source) = fs::remove_file(&pending.path) {
            tracing::warn!("a delivered answer stays on the disk: {}: {source}", pending.path.display());
        }
        Ok(())
    }

    /// Drops an answer whose bytes were damaged on the disk: the task is as if never done.
    pub fn discard(&self, pending: &Pending) -> Result<(), AgentError> {
        self.lock()
            .execute("DELETE FROM outbox WHERE run_id = ?1 AND key = ?2", [&pending.run_id, &pending.key])?;
        match fs::remove_file(&pending.path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(AgentError::File { path: pending.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Records that something leaves.
    pub fn record_release(
        &self,
        run_id: &str,
        key: &str,
        kind: &str,
        blob: &BlobId,
    ) -> Result<(), AgentError> {
        self.lock().execute(
            "INSERT INTO releases (at, run_id, key, kind, blob) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![now_ms(), run_id, key, kind, blob.to_string()],
        )?;
        Ok(())
    }

    /// What left the site, newest first, at most `limit`.
    pub fn releases(&self, limit: u32) -> Result<Vec<Release>, AgentError> {
        let connection = self.lock();
        let mut query = connection
            .prepare("SELECT at, run_id, key, kind, blob FROM releases ORDER BY id DESC LIMIT ?1")?;
        let rows = query.query_map([limit], |row| {
            Ok(Release {
                at: row.get(0)?,
                run_id: row.get(1)?,
                task: row.get(2)?,
                kind: row.get(3)?,
                blob: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes that a run waits for a person, with the columns it would read.
    pub fn request_approval(
        &self,
        task: &sheaf_proto::v1::Task,
        columns: &[String],
    ) -> Result<(), AgentError> {
        self.lock().execute(
            "INSERT OR REPLACE INTO requests (run_id, run_name, workload, dataset, columns, asked_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![task.run_id, task.run_name, task.workload, task.dataset, columns.join(", "), now_ms()],
        )?;
        Ok(())
    }

    /// The coordinator no longer asks: `run_id` of one run, or every run when the daemon starts anew (what is
    /// still wanted is asked again).
    pub fn forget_requests(&self, run_id: Option<&str>) -> Result<(), AgentError> {
        self.lock().execute("DELETE FROM requests WHERE ?1 IS NULL OR run_id = ?1", [run_id])?;
        Ok(())
    }

    /// Runs that wait for a person.
    pub fn approval_requests(&self) -> Result<Vec<ApprovalRequest>, AgentError> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT run_id, run_name, workload, dataset, columns, asked_at FROM requests
             WHERE run_id NOT IN (SELECT run_id FROM decisions) ORDER BY asked_at",
        )?;
        let rows = query.query_map([], |row| {
            Ok(ApprovalRequest {
                run_id: row.get(0)?,
                run_name: row.get(1)?,
                workload: row.get(2)?,
                dataset: row.get(3)?,
                columns: row.get(4)?,
                asked_at: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A person says yes or no to a run; the last word counts.
    pub fn decide(&self, run_id: &str, yes: bool) -> Result<(), AgentError> {
        self.lock().execute(
            "INSERT OR REPLACE INTO decisions (run_id, yes, at) VALUES (?1, ?2, ?3)",
            params![run_id, yes, now_ms()],
        )?;
        Ok(())
    }

    /// What a person said of a run, if anything yet.
    pub fn decision(&self, run_id: &str) -> Result<Option<bool>, AgentError> {
        Ok(self
            .lock()
            .query_row("SELECT yes FROM decisions WHERE run_id = ?1", [run_id], |row| row.get(0))
            .optional()?)
    }

    /// Notes how the daemon is doing, for `sheaf-agent status`.
    pub fn note_status(&self, name: &str, value: &str) -> Result<(), AgentError> {
        self.lock().execute(
            "INSERT OR REPLACE INTO status (name, value, at) VALUES (?1, ?2, ?3)",
            params![name, value, now_ms()],
        )?;
        Ok(())
    }

    /// What the daemon last noted: value and Unix milliseconds.
    pub fn status(&self, name: &str) -> Result<Option<(String, i64)>, AgentError> {
        Ok(self
            .lock()
            .query_row("SELECT value, at FROM status WHERE name = ?1", [name], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?)
    }
}
