//! A training process killed with SIGKILL, over and over: its ledger never says less than it did.
//!
//! The process is this program again. In place of drawing noise it writes a line to a file, which a kill does not take away:
//! that file is the truth.

#![expect(clippy::unwrap_used, reason = "a test, though without the harness that the lint knows")]

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use sheaf_privacy::{
    Delta, Epsilon, Event, Sigma,
    ledger::{Cap, Digest, Ledger, PrivacyUnit, Request, RunId, SqliteStore, Store as _, verify},
};

const KILLS: u64 = 40;
const FOLDER: &str = "SHEAF_KILL_TEST_FOLDER";

fn open(folder: &Path) -> Ledger {
    Ledger::open(SqliteStore::open(&folder.join("ledger.db")).unwrap(), || 0, None).unwrap()
}

fn request() -> Request {
    Request {
        run: RunId::new("run").unwrap(),
        plan: Digest::of(b"plan"),
        dataset: Digest::of(b"rows"),
        privacy_unit: PrivacyUnit::new("row").unwrap(),
        event: Event::Gaussian { sigma: Sigma::new(500.0).unwrap(), count: 50 },
        delta: Delta::new(1e-5).unwrap(),
    }
}

/// Trains for ever: resumes what is open, then reserves anew.
fn train(folder: &Path) {
    let ledger = open(folder);
    if ledger.head().counter == 0 {
        let Request { dataset, privacy_unit, delta, .. } = request();
        let epsilon = Epsilon::new(1e4).unwrap();
        ledger.set_cap(Cap { dataset, privacy_unit, epsilon, delta }).unwrap();
    }
    let mut truth = OpenOptions::new().create(true).append(true).open(folder.join("truth")).unwrap();
    let open: Vec<u64> = ledger.open_reservations().iter().map(|charge| charge.reservation).collect();
    let mut waiting = open.into_iter();
    loop {
        let mut reservation = match waiting.next() {
            Some(open) => ledger.resume(open).unwrap(),
            None => ledger.reserve(request()).unwrap(),
        };
        while reservation.remaining() > 0 {
            let token = reservation.token().unwrap();
            truth.write_all(format!("{}\n", token.reservation()).as_bytes()).unwrap();
        }
        reservation.settle().unwrap();
    }
}

fn main() {
    if let Some(folder) = env::var_os(FOLDER) {
        return train(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let program = env::current_exe().unwrap();
    for kill in 0..KILLS {
        let mut child =
            Command::new(&program).env(FOLDER, folder.path()).stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(20 + (kill * 37) % 113));
        assert!(child.try_wait().unwrap().is_none(), "the training ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        check(folder.path());
    }
    let steps = fs::read_to_string(folder.path().join("truth")).unwrap().lines().count();
    let rows = SqliteStore::open_to_read(&folder.path().join("ledger.db")).unwrap().rows().unwrap().len();
    assert!(steps > 1000, "only {steps} steps: the test tests little");
    println!("{KILLS} kills: {steps} steps, {rows} entries, record never under the truth");
}

fn check(folder: &Path) {
    let Ok(truth) = fs::read_to_string(folder.join("truth")) else { return };
    let store = SqliteStore::open(&folder.join("ledger.db")).unwrap();
    verify(&store.rows().unwrap()).unwrap();
    let charges = open(folder).charges();
    for charge in charges {
        let name = charge.reservation.to_string();
        let taken = truth.lines().filter(|line| **line == *name).count() as u64;
        let recorded = charge.event().map_or(0, |event| event.count());
        assert!(recorded >= taken && charge.drawn >= taken, "{taken} steps of {charge:?}");
    }
}
