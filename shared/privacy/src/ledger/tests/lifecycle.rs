use super::{
    super::{
        Digest, Head, Ledger, LedgerError, MemoryStore, PrivacyUnit, Released, Rule, RunId, Standing,
        Statement, Store as _, verify,
    },
    cap, dataset, gaussian, ledger, open, request, run, training,
};
use crate::{Epsilon, Event};

fn standing(ledger: &Ledger, reservation: u64) -> Standing {
    let pages = ledger.show().unwrap();
    pages[0].charges.iter().find(|c| c.reservation == reservation).unwrap().standing
}

#[test]
fn draws_one_by_one_leave_none_behind() {
    let (ledger, store) = ledger(10.0);
    let mut reservation = ledger.reserve(request("a", gaussian(50.0, 40))).unwrap().one_by_one();
    for _ in 0..3 {
        drop(reservation.token().unwrap());
    }
    let id = reservation.id();
    std::mem::forget(reservation);
    let resumed = open(&store).resume(id).unwrap();
    assert_eq!((resumed.issued(), resumed.remaining()), (3, 37));
}

#[test]
fn a_settled_run_is_charged_what_it_did() {
    let (ledger, store) = ledger(10.0);
    let mut reservation = ledger.reserve(request("a", gaussian(50.0, 40))).unwrap();
    let steps: Vec<u64> = (0..20).map(|_| reservation.token().unwrap().step()).collect();
    assert_eq!(steps, (1..=20).collect::<Vec<_>>());
    let id = reservation.id();
    assert_eq!((reservation.issued(), reservation.remaining()), (20, 20));
    reservation.settle().unwrap();
    assert_eq!(standing(&ledger, id), Standing::Settled(20));
    // cap, reserve, two blocks of draws, settle
    assert_eq!(store.rows().unwrap().len(), 5);
    assert_eq!(ledger.verify().unwrap(), ledger.head());
}

#[test]
fn a_dropped_reservation_settles_to_its_tokens() {
    let (ledger, _) = ledger(10.0);
    let mut reservation = ledger.reserve(request("a", gaussian(50.0, 40))).unwrap();
    let id = reservation.id();
    drop((reservation.token().unwrap(), reservation.token().unwrap()));
    drop(reservation);
    assert_eq!(standing(&ledger, id), Standing::Settled(2));
    let untouched = ledger.reserve(request("b", gaussian(50.0, 40))).unwrap();
    let id = untouched.id();
    drop(untouched);
    assert_eq!(standing(&ledger, id), Standing::Void);
}

#[test]
fn a_panic_in_the_training_settles() {
    let (ledger, _) = ledger(10.0);
    let shared = ledger.clone();
    let result = std::thread::spawn(move || {
        let mut reservation = shared.reserve(request("a", gaussian(50.0, 40))).unwrap();
        drop(reservation.token().unwrap());
        panic!("out of memory, say");
    })
    .join();
    assert!(result.is_err());
    assert_eq!(standing(&ledger, 2), Standing::Settled(1));
}

#[test]
fn there_are_as_many_tokens_as_steps_reserved() {
    let (ledger, _) = ledger(10.0);
    let mut reservation = ledger.reserve(request("a", gaussian(50.0, 17))).unwrap();
    for _ in 0..17 {
        drop(reservation.token().unwrap());
    }
    assert!(matches!(reservation.token(), Err(LedgerError::UsedUp { reserved: 17, .. })));
    reservation.settle().unwrap();
    let pure = Event::Pure { epsilon: Epsilon::new(0.1).unwrap() };
    let mut reservation = ledger.reserve(request("b", pure)).unwrap();
    assert_eq!(reservation.token().unwrap().event(), pure);
    assert!(reservation.token().is_err());
}

#[test]
fn only_what_was_not_drawn_from_can_be_voided() {
    let (ledger, _) = ledger(10.0);
    let reservation = ledger.reserve(request("a", gaussian(50.0, 17))).unwrap();
    let id = reservation.id();
    reservation.void().unwrap();
    assert_eq!(standing(&ledger, id), Standing::Void);
    let mut reservation = ledger.reserve(request("b", gaussian(50.0, 17))).unwrap();
    let id = reservation.id();
    drop(reservation.token().unwrap());
    assert!(matches!(reservation.void(), Err(LedgerError::Rule(Rule::Drawn(_)))));
    assert_eq!(standing(&ledger, id), Standing::Settled(1));
}

#[test]
fn the_same_bytes_leave_twice_for_one_charge() {
    let (ledger, store) = ledger(10.0);
    let mut reservation = ledger.reserve(request("a", gaussian(50.0, 2))).unwrap();
    let bytes = Digest::of(b"noised sums");
    assert!(matches!(reservation.release(bytes), Err(LedgerError::Rule(Rule::NotOpen(_)))));
    drop(reservation.token().unwrap());
    assert_eq!(reservation.release(bytes).unwrap(), Released::Now);
    let entries = store.rows().unwrap().len() as u64;
    assert_eq!(reservation.release(bytes).unwrap(), Released::Before(entries));
    reservation.settle().unwrap();
    assert_eq!(ledger.released(&bytes), Some(entries));
    assert_eq!(open(&store).released(&bytes), Some(entries));
    assert_eq!(ledger.released(&Digest::of(b"noised again")), None);
}

#[test]
fn there_is_no_spending_without_a_cap_or_for_another_unit() {
    let store = MemoryStore::default();
    let ledger = open(&store);
    let refused = ledger.reserve(request("a", gaussian(50.0, 2)));
    assert!(matches!(refused, Err(LedgerError::Rule(Rule::NoCap { .. }))));
    ledger.set_cap(cap(5.0)).unwrap();
    let mut rows = request("a", gaussian(50.0, 2));
    rows.privacy_unit = PrivacyUnit::new("row").unwrap();
    assert!(matches!(ledger.reserve(rows.clone()), Err(LedgerError::Rule(Rule::OtherUnit { .. }))));
    assert!(matches!(ledger.reserve(request("a", gaussian(50.0, 0))), Err(LedgerError::Rule(Rule::Nothing))));
    // Nothing is charged, so the unit may still be set right.
    let mut by_row = cap(5.0);
    by_row.privacy_unit = rows.privacy_unit.clone();
    ledger.set_cap(by_row).unwrap();
    let mut reservation = ledger.reserve(rows).unwrap();
    drop(reservation.token().unwrap());
    reservation.settle().unwrap();
    assert!(matches!(ledger.set_cap(cap(5.0)), Err(LedgerError::Rule(Rule::OtherUnit { .. }))));
}

#[test]
fn another_data_set_has_a_budget_of_its_own() {
    let (ledger, _) = ledger(1.0);
    let mut first = ledger.reserve(request("a", gaussian(6.0, 1))).unwrap();
    drop(first.token().unwrap());
    first.settle().unwrap();
    assert!(ledger.reserve(request("b", gaussian(6.0, 1))).is_err());
    let mut other = cap(1.0);
    other.dataset = Digest::of(b"other rows");
    ledger.set_cap(other.clone()).unwrap();
    let mut asked = request("b", gaussian(6.0, 1));
    asked.dataset = other.dataset;
    ledger.reserve(asked).unwrap().settle().unwrap();
    assert_eq!(ledger.show().unwrap().len(), 2);
}

#[test]
fn an_older_copy_refuses_to_spend() {
    let (ledger, store) = ledger(10.0);
    let backup = store.rows().unwrap();
    let mut reservation = ledger.reserve(request("a", gaussian(50.0, 2))).unwrap();
    drop(reservation.token().unwrap());
    reservation.settle().unwrap();
    let remembered = ledger.head();
    let mut old = MemoryStore::default();
    backup.iter().for_each(|row| super::super::Store::append(&mut old, row).unwrap());

    let restored = Ledger::open(old.clone(), || 0, Some(remembered)).unwrap();
    let stale = |result: Result<(), LedgerError>| matches!(result, Err(LedgerError::Stale { .. }));
    assert!(stale(restored.reserve(request("b", gaussian(50.0, 1))).map(drop)));
    assert!(stale(restored.set_cap(cap(20.0)).map(drop)));
    assert!(stale(restored.recover(&[]).map(drop).and_then(|()| restored.resume(2).map(drop))));
    assert_eq!(restored.show().unwrap().len(), 1);

    // Spent on before the coordinator was heard: long enough, but another history.
    let forked = open(&old);
    let mut held = forked.reserve(request("c", gaussian(50.0, 40))).unwrap();
    drop(held.token().unwrap());
    for _ in 0..3 {
        forked.set_cap(cap(9.0)).unwrap();
    }
    assert!(forked.head().counter > remembered.counter);
    assert!(stale(forked.compare(remembered)));
    assert!(stale(forked.reserve(request("d", gaussian(50.0, 1))).map(drop)));
    // Not even the steps that the draw on record would cover.
    assert!(stale(held.token().map(drop)));
    drop(held);

    // The true one has gone on since.
    ledger.compare(remembered).unwrap();
    ledger.compare(Head::EMPTY).unwrap();
    ledger.reserve(request("e", gaussian(50.0, 1))).unwrap().settle().unwrap();
    ledger.compare(remembered).unwrap();
    let reopened = Ledger::open(store.clone(), || 0, Some(remembered)).unwrap();
    reopened.reserve(request("f", gaussian(50.0, 1))).unwrap().settle().unwrap();
}

#[test]
fn two_processes_cannot_spend_the_same_budget() {
    let (first, store) = ledger(10.0);
    let second = open(&store);
    let held = first.reserve(request("a", gaussian(50.0, 2))).unwrap();
    assert!(matches!(second.reserve(request("b", gaussian(50.0, 2))), Err(LedgerError::Store(_))));
    assert!(matches!(second.reserve(request("b", gaussian(50.0, 2))), Err(LedgerError::Uncertain)));
    held.settle().unwrap();
    verify(&store.rows().unwrap()).unwrap();
}

#[test]
fn a_statement_says_what_a_run_cost() {
    let (ledger, _) = ledger(10.0);
    let mut counts = ledger.reserve(request("a", gaussian(20.0, 1))).unwrap();
    drop(counts.token().unwrap());
    counts.settle().unwrap();
    let mut steps = ledger.reserve(request("a", training(1.2421, 157))).unwrap();
    for _ in 0..157 {
        drop(steps.token().unwrap());
    }
    steps.settle().unwrap();
    let mut later = ledger.reserve(request("b", gaussian(5.0, 1))).unwrap();
    drop(later.token().unwrap());
    later.settle().unwrap();

    let statement = ledger.statement(&run("a"), &dataset()).unwrap().unwrap();
    assert_eq!(statement.events, [gaussian(20.0, 1), training(1.2421, 157)]);
    // The training alone is 1.76 by loss distribution and 2.0035 by Renyi.
    assert!(statement.epsilon_pld.get() > 1.76 && statement.epsilon_pld.get() < 1.9, "{statement:?}");
    assert!(statement.epsilon_rdp.get() > 2.0035 && statement.epsilon_rdp.get() < 2.1, "{statement:?}");
    assert!(statement.epsilon_total > statement.epsilon_pld);
    assert!(statement.epsilon_replace_one > statement.epsilon_pld);
    assert_eq!((statement.head, statement.at), (ledger.head(), 1_700_000_000));
    let bytes = statement.to_bytes().unwrap();
    let json = bytes.strip_prefix(b"sheaf-spend-statement-1\n").unwrap();
    assert_eq!(serde_json::from_slice::<Statement>(json).unwrap(), statement);
    assert_eq!(ledger.statement(&run("never"), &dataset()).unwrap(), None);
}

#[test]
fn names_are_checked() {
    for bad in ["", "a\nb", &"x".repeat(201)] {
        assert!(RunId::new(bad).is_err(), "{bad:?}");
        assert!(serde_json::from_value::<PrivacyUnit>(serde_json::json!(bad)).is_err());
    }
    assert!(Digest::try_from("00".repeat(31)).is_err());
    assert!(Digest::try_from("zz".repeat(32)).is_err());
    assert_eq!(Digest::try_from("ab".repeat(32)).unwrap().to_string(), "ab".repeat(32));
}
