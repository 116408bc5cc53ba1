//! What must survive a crash of secure sums. The database holds secrets of open rounds: its folder is the agent's alone.

use rusqlite::{OptionalExtension as _, params};

use super::{State, now_ms};
use crate::error::AgentError;

/// The state of a round that nothing was asked of for so long goes, milliseconds: 30 days. The run is long over, and the
/// history keeps the site from beginning the round again.
const FORGOTTEN: i64 = 30 * 24 * 3600 * 1000;

/// A round's state as it is kept.
pub struct SecureRound<'a> {
    /// The run.
    pub run_id: &'a str,
    /// The round's number in it.
    pub round: u32,
    /// `sheaf_secagg::Site` in its byte form.
    pub site: &'a [u8],
}

impl State {
    /// Saves a round, the history over all rounds (`sheaf_secagg::History` in its byte form) and the peers met, name and
    /// fingerprint, in one transaction. On return they survive a power cut.
    ///
    /// # Errors
    /// [`AgentError::State`]; nothing is saved then.
    pub fn save_secure_round(
        &self,
        round: &SecureRound<'_>,
        history: &[u8],
        met: &[(String, String)],
    ) -> Result<(), AgentError> {
        let mut connection = self.lock();
        let now = now_ms();
        let transaction = connection.transaction()?;
        transaction.execute("DELETE FROM secure_rounds WHERE at < ?1", [now - FORGOTTEN])?;
        transaction.execute(
            "INSERT OR REPLACE INTO secure_rounds (run_id, round, at, state) VALUES (?1, ?2, ?3, ?4)",
            params![round.run_id, round.round, now, round.site],
        )?;
        transaction.execute("INSERT OR REPLACE INTO secure_history (id, state) VALUES (1, ?1)", [history])?;
        for (name, fingerprint) in met {
            transaction.execute(
                "INSERT OR REPLACE INTO peers (name, fingerprint, at) VALUES (?1, ?2, ?3)",
                params![name, fingerprint, now],
            )?;
        }
        Ok(transaction.commit()?)
    }

    /// The state of a round, if it has begun here.
    ///
    /// # Errors
    /// [`AgentError::State`].
    pub fn secure_round(&self, run_id: &str, round: u32) -> Result<Option<Vec<u8>>, AgentError> {
        let mine = params![run_id, round];
        Ok(self
            .lock()
            .query_row("SELECT state FROM secure_rounds WHERE run_id = ?1 AND round = ?2", mine, |row| {
                row.get(0)
            })
            .optional()?)
    }

    /// The history over all rounds, once there is any.
    ///
    /// # Errors
    /// [`AgentError::State`].
    pub fn secure_history(&self) -> Result<Option<Vec<u8>>, AgentError> {
        Ok(self
            .lock()
            .query_row("SELECT state FROM secure_history WHERE id = 1", [], |row| row.get(0))
            .optional()?)
    }

    /// The fingerprint of a peer's signing key, hexadecimal, as it was when the site last accepted it.
    ///
    /// # Errors
    /// [`AgentError::State`].
    pub fn peer(&self, name: &str) -> Result<Option<String>, AgentError> {
        Ok(self
            .lock()
            .query_row("SELECT fingerprint FROM peers WHERE name = ?1", [name], |row| row.get(0))
            .optional()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_history_and_peers_are_kept_over_a_restart_and_old_rounds_go() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), false).unwrap();
        assert_eq!((state.secure_round("run", 1).unwrap(), state.secure_history().unwrap()), (None, None));
        let round = |round, site| SecureRound { run_id: "run", round, site };
        let met = [("b".to_owned(), "00".to_owned())];
        state.save_secure_round(&round(1, b"one"), b"h1", &[]).unwrap();
        state.save_secure_round(&round(2, b"two"), b"h2", &met).unwrap();
        state.lock().execute("UPDATE secure_rounds SET at = 0 WHERE round = 1", []).unwrap();
        drop(state);
        let state = State::open(folder.path(), false).unwrap();
        assert_eq!(state.secure_round("run", 1).unwrap(), Some(b"one".to_vec()));
        assert_eq!(state.secure_history().unwrap(), Some(b"h2".to_vec()));
        assert_eq!((state.peer("b").unwrap().as_deref(), state.peer("c").unwrap()), (Some("00"), None));
        state.save_secure_round(&round(2, b"later"), b"h3", &[]).unwrap();
        assert_eq!(state.secure_round("run", 1).unwrap(), None, "nothing was asked of it for long");
        assert_eq!(state.secure_history().unwrap(), Some(b"h3".to_vec()));
        assert_eq!(state.secure_round("run", 2).unwrap(), Some(b"later".to_vec()));
    }
}
