//! Whatever is drawn is on record: 500 crashes at random points of random trainings.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use super::{
    super::{Charge, Digest, Ledger, LedgerError, Reservation, Row, Standing, chain::replay},
    cap,
    fault::{Fault, FaultStore},
    gaussian, request, run,
};

const CRASHES: u64 = 500;

/// Steps that were really taken, by reservation.
type Truth = BTreeMap<u64, u64>;

struct Site {
    disk: Arc<Mutex<Vec<Row>>>,
    truth: Truth,
    dice: ChaCha20Rng,
}

impl Site {
    fn new(seed: u64) -> Self {
        let dice = ChaCha20Rng::seed_from_u64(seed);
        Self { disk: Arc::default(), truth: Truth::new(), dice }
    }

    /// One life of the process: until the disk fails, or until it is killed between two appends.
    fn live(&mut self) -> Result<(), LedgerError> {
        let appends = self.dice.random_range(0..30);
        let left = Arc::new(Mutex::new(Some(appends)));
        let fault = if self.dice.random() { Fault::Lost } else { Fault::Kept };
        let store = FaultStore { disk: self.disk.clone(), left: left.clone(), fault };
        let killed_after = self.dice.random_range(1..200);
        let ledger = Ledger::open(store, || 0, None)?;
        let result = self.work(&ledger, killed_after);
        // A killed process runs no destructors: its disk is gone before they could write.
        *left.lock().unwrap() = None;
        result
    }

    fn work(&mut self, ledger: &Ledger, killed_after: u64) -> Result<(), LedgerError> {
        if ledger.head().counter == 0 {
            ledger.set_cap(cap(1e4))?;
        }
        let mut steps = 0;
        for charge in ledger.open_reservations() {
            if self.dice.random() {
                let reservation = ledger.resume(charge.reservation)?;
                if !self.train(reservation, &mut steps, killed_after)? {
                    return Ok(());
                }
            }
        }
        ledger.recover(&[])?;
        while steps < killed_after {
            let count = self.dice.random_range(1..80);
            let name = format!("run-{count}");
            let reservation = ledger.reserve(request(&name, gaussian(200.0, count)))?;
            if !self.train(reservation, &mut steps, killed_after)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes steps; ends in one of the four ways a reservation can. False when killed meanwhile.
    fn train(
        &mut self,
        mut reservation: Reservation,
        steps: &mut u64,
        killed_after: u64,
    ) -> Result<bool, LedgerError> {
        let planned = self.dice.random_range(0..=reservation.remaining());
        for _ in 0..planned {
            if *steps >= killed_after {
                // Held back from its destructor, as by a kill.
                std::mem::forget(reservation);
                return Ok(false);
            }
            let token = reservation.token()?;
            *self.truth.entry(token.reservation()).or_default() += 1;
            *steps += 1;
        }
        if planned > 0 && self.dice.random() {
            reservation.release(Digest::of(&self.dice.random::<[u8; 8]>()))?;
        }
        match (self.dice.random_range(0..3), reservation.issued()) {
            (0, _) => drop(reservation),
            (1, 0) => drop(reservation.void()?),
            _ => drop(reservation.settle()?),
        }
        Ok(true)
    }

    /// The promise.
    fn check(&self, seed: u64) {
        let books = replay(&self.disk.lock().unwrap()).unwrap();
        for (reservation, taken) in &self.truth {
            let charge =
                books.charge(*reservation).expect("every reservation that gave a token is on record");
            let recorded = charge.event().map_or(0, |event| event.count());
            assert!(recorded >= *taken, "seed {seed}: {taken} steps of {charge:?}");
            assert!(charge.drawn >= *taken, "seed {seed}: {taken} steps of {charge:?}");
        }
    }
}

#[test]
fn the_record_is_never_under_the_truth() {
    let mut crashes = 0;
    let mut wasted = 0;
    let mut taken = 0;
    for seed in 0..CRASHES / 5 {
        let mut site = Site::new(seed);
        for _ in 0..5 {
            match site.live() {
                Ok(()) | Err(LedgerError::Store(_) | LedgerError::Uncertain) => crashes += 1,
                Err(other) => panic!("seed {seed}: {other}"),
            }
            site.check(seed);
        }
        let books = replay(&site.disk.lock().unwrap()).unwrap();
        let recorded: u64 = books.charges().filter_map(Charge::event).map(|event| event.count()).sum();
        let truth: u64 = site.truth.values().sum();
        (wasted, taken) = (wasted + recorded - truth, taken + truth);
    }
    assert_eq!(crashes, CRASHES);
    assert!(taken > 10_000, "only {taken} steps were taken: the test tests little");
    println!("{crashes} crashes: {taken} steps taken, {wasted} recorded beyond that");
}

#[test]
fn after_a_failed_write_nothing_is_issued_until_it_is_opened_again() {
    for fault in [Fault::Lost, Fault::Kept] {
        let disk = Arc::<Mutex<Vec<Row>>>::default();
        let left = Arc::new(Mutex::new(Some(2)));
        let store = FaultStore { disk: disk.clone(), left, fault };
        let ledger = Ledger::open(store, || 0, None).unwrap();
        ledger.set_cap(cap(10.0)).unwrap();
        let mut reservation = ledger.reserve(request("a", gaussian(50.0, 20))).unwrap();
        // The draw cannot be written, so there is no token; and it is not known whether it was written.
        assert!(matches!(reservation.token(), Err(LedgerError::Store(_))));
        assert!(matches!(reservation.token(), Err(LedgerError::Uncertain)));
        let again = ledger.reserve(request("b", gaussian(50.0, 1)));
        assert!(matches!(again, Err(LedgerError::Uncertain)));
        drop((reservation, again, ledger));
        let store = FaultStore { disk: disk.clone(), left: Arc::new(Mutex::new(Some(100))), fault };
        let ledger = Ledger::open(store, || 0, None).unwrap();
        let reservation = ledger.resume(2).unwrap();
        let drawn = if fault == Fault::Kept { 16 } else { 0 };
        assert_eq!(reservation.issued(), drawn, "{fault:?}");
        assert_eq!(reservation.remaining(), 20 - drawn);
    }
}

#[test]
fn recovery_settles_whole_or_void_and_spares_what_is_resumed() {
    let (ledger, store) = super::ledger(1e3);
    let mut drawn = ledger.reserve(request("drawn", gaussian(50.0, 100))).unwrap();
    let untouched = ledger.reserve(request("untouched", gaussian(50.0, 100))).unwrap();
    let mut resumed = ledger.reserve(request("resumed", gaussian(50.0, 100))).unwrap();
    for _ in 0..3 {
        drop((drawn.token().unwrap(), resumed.token().unwrap()));
    }
    let names = [drawn.id(), untouched.id(), resumed.id()];
    std::mem::forget((drawn, untouched, resumed));
    let ledger = super::open(&store);
    assert_eq!(ledger.recover(&[run("resumed")]).unwrap(), names[..2]);
    let standing = |name: u64| replay_standing(&store, name);
    assert_eq!(standing(names[0]), Standing::Settled(100));
    assert_eq!(standing(names[1]), Standing::Void);
    assert_eq!(standing(names[2]), Standing::Open);
    let mut reservation = ledger.resume(names[2]).unwrap();
    assert!(matches!(ledger.resume(names[2]), Err(LedgerError::InUse(_))));
    assert_eq!(reservation.token().unwrap().step(), 17);
    // What this process uses is not recovered under its hands.
    assert_eq!(ledger.recover(&[]).unwrap(), [0_u64; 0]);
    reservation.settle().unwrap();
    assert_eq!(standing(names[2]), Standing::Settled(17));
}

fn replay_standing(store: &super::MemoryStore, reservation: u64) -> Standing {
    use super::super::Store as _;
    replay(&store.rows().unwrap()).unwrap().charge(reservation).unwrap().standing
}
