use super::super::{
    Cap, Digest, Ledger, LedgerError, PrivacyUnit, Request, RunId, SqliteStore, Store, StoreError, verify,
};
use crate::{Delta, Epsilon, Event, Sigma};

fn cap() -> Cap {
    Cap {
        dataset: Digest::of(b"rows"),
        privacy_unit: PrivacyUnit::new("row").unwrap(),
        epsilon: Epsilon::new(10.0).unwrap(),
        delta: Delta::new(1e-5).unwrap(),
    }
}

fn request() -> Request {
    Request {
        run: RunId::new("run").unwrap(),
        plan: Digest::of(b"plan"),
        dataset: Digest::of(b"rows"),
        privacy_unit: PrivacyUnit::new("row").unwrap(),
        event: Event::Gaussian { sigma: Sigma::new(50.0).unwrap(), count: 20 },
        delta: Delta::new(1e-5).unwrap(),
    }
}

#[test]
fn entries_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let open = || Ledger::open(SqliteStore::open(&path).unwrap(), || 7, None).unwrap();
    let ledger = open();
    ledger.set_cap(cap()).unwrap();
    let mut reservation = ledger.reserve(request()).unwrap();
    drop(reservation.token().unwrap());
    let id = reservation.id();
    std::mem::forget(reservation);
    let head = ledger.head();
    drop(ledger);
    let again = open();
    assert_eq!(again.head(), head);
    assert_eq!(again.open_reservations()[0].drawn, 16);
    let resumed = again.resume(id).unwrap();
    assert_eq!(resumed.remaining(), 4);
    resumed.settle().unwrap();
    // Read beside the running agent.
    let reader = SqliteStore::open_to_read(&path).unwrap();
    assert_eq!(verify(&reader.rows().unwrap()).unwrap(), again.head());
    let mut reader = reader;
    let row = reader.rows().unwrap().pop().unwrap();
    assert!(matches!(reader.append(&row), Err(StoreError::Failed(_) | StoreError::Conflict(_))));
}

#[test]
fn two_processes_conflict_and_the_chain_stays_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let open = || Ledger::open(SqliteStore::open(&path).unwrap(), || 7, None).unwrap();
    let (first, second) = (open(), open());
    first.set_cap(cap()).unwrap();
    let refused = second.set_cap(cap());
    assert!(matches!(refused, Err(LedgerError::Store(StoreError::Conflict(1)))));
    assert_eq!(open().head(), first.head());
}

#[test]
fn the_table_refuses_changes_and_the_chain_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let ledger = Ledger::open(SqliteStore::open(&path).unwrap(), || 7, None).unwrap();
    ledger.set_cap(cap()).unwrap();
    let mut raised = cap();
    raised.epsilon = Epsilon::new(11.0).unwrap();
    ledger.set_cap(raised).unwrap();
    let raw = rusqlite::Connection::open(&path).unwrap();
    for change in ["UPDATE entries SET body = '' WHERE counter = 1", "DELETE FROM entries WHERE counter = 2"]
    {
        let error = raw.execute(change, []).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
    raw.execute_batch("DROP TRIGGER entries_are_not_changed").unwrap();
    raw.execute("UPDATE entries SET body = replace(body, '11.0', '99.0') WHERE counter = 2", []).unwrap();
    assert!(matches!(ledger.verify(), Err(LedgerError::Broken(broken)) if broken.counter == 2));
    let reopened = Ledger::open(SqliteStore::open(&path).unwrap(), || 7, None);
    assert!(matches!(reopened, Err(LedgerError::Broken(broken)) if broken.counter == 2));
}

#[test]
fn a_file_of_something_else_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    std::fs::write(&path, [b'x'; 4096]).unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Damaged(_))));
    assert!(SqliteStore::open_to_read(&folder.path().join("absent.db")).is_err());
}

/// The ledger flushes for every reservation and every sixteenth step: this is what it costs.
#[test]
fn commits_are_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("ledger.db")).unwrap();
    let mode: String = store.0.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    let synchronous: i64 = store.0.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", 2));
}

#[test]
fn a_ledger_takes_in_what_another_process_wrote_and_misses_what_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let open = |path: &std::path::Path| Ledger::open(SqliteStore::open(path).unwrap(), || 7, None).unwrap();
    let agent = open(&path);
    open(&path).set_cap(cap()).unwrap();
    assert!(
        matches!(agent.set_cap(cap()), Err(LedgerError::Store(StoreError::Conflict(1)))),
        "it did not look"
    );
    let agent = open(&path);
    open(&path).set_cap(cap()).unwrap();
    agent.refresh().unwrap();
    assert_eq!(agent.set_cap(cap()).unwrap().counter, 3);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch("DROP TRIGGER entries_are_not_removed; DELETE FROM entries WHERE counter > 1")
        .unwrap();
    assert!(matches!(agent.refresh(), Err(LedgerError::Stale { .. })));
    assert!(matches!(agent.set_cap(cap()), Err(LedgerError::Stale { .. })));
}
