use proptest::prelude::*;

use super::{
    super::{Digest, Head, LedgerError, Row, Store as _, verify},
    gaussian, ledger, request,
};

/// cap, reserve, draw, release, settle; reserve, void
fn rows() -> Vec<Row> {
    let (ledger, store) = ledger(10.0);
    let mut reservation = ledger.reserve(request("a", gaussian(50.0, 40))).unwrap();
    drop(reservation.token().unwrap());
    reservation.release(Digest::of(b"out")).unwrap();
    reservation.settle().unwrap();
    ledger.reserve(request("b", gaussian(50.5, 40))).unwrap().void().unwrap();
    store.rows().unwrap()
}

#[test]
fn the_form_on_disk_does_not_change() {
    let rows = rows();
    let bodies: Vec<&str> = rows.iter().map(|row| row.body.as_str()).collect();
    assert_eq!(bodies, include_str!("../../../tests/data/ledger_entries.jsonl").lines().collect::<Vec<_>>());
    // Computed from that file by another program: SHA-256 over "sheaf-ledger-1\n", the hash before and the line.
    let head = verify(&rows).unwrap();
    assert_eq!(head.counter, 7);
    assert_eq!(head.hash.to_string(), include_str!("../../../tests/data/ledger_head.txt").trim());
    assert_eq!(verify(&[]).unwrap(), Head::EMPTY);
}

#[test]
fn every_change_is_found_where_it_is() {
    let good = rows();
    for place in 0..good.len() {
        let broken = |rows: &[Row]| verify(rows).unwrap_err().counter as usize;
        let mut rows = good.clone();
        rows[place].body = rows[place].body.replace("1700000000", "1700000001");
        assert_eq!(broken(&rows), place + 1);
        let mut rows = good.clone();
        rows[place].hash = Digest::of(b"other");
        assert_eq!(broken(&rows), place + 1);
        if place + 1 < good.len() {
            let mut rows = good.clone();
            rows.swap(place, place + 1);
            assert_eq!(broken(&rows), place + 1);
            let mut rows = good.clone();
            rows.remove(place);
            assert_eq!(broken(&rows), place + 1);
        }
    }
}

/// Hashes can be computed again by whoever holds the file; what entries mean still has to fit.
fn forge(good: &[Row], place: usize, change: impl Fn(&str) -> String) -> Vec<Row> {
    let mut head = if place == 0 { Head::EMPTY } else { verify(&good[..place]).unwrap() };
    let mut rows = good[..place].to_vec();
    for row in &good[place..] {
        let body = if row.counter as usize == place + 1 { change(&row.body) } else { row.body.clone() };
        let row = Row { counter: row.counter, hash: row_hash(head, &body), body };
        head = Head { counter: row.counter, hash: row.hash };
        rows.push(row);
    }
    rows
}

fn row_hash(head: Head, body: &str) -> Digest {
    let mut bytes = b"sheaf-ledger-1\n".to_vec();
    bytes.extend(head.hash.as_bytes());
    bytes.extend(body.as_bytes());
    Digest::of(&bytes)
}

#[test]
fn forged_hashes_do_not_make_forged_meaning_good() {
    let good = rows();
    let reason = |rows: &[Row]| {
        let broken = verify(rows).unwrap_err();
        (broken.counter, broken.reason)
    };
    let (counter, why) = reason(&forge(&good, 4, |body| body.replace("\"count\":1", "\"count\":41")));
    assert!(counter == 5 && why.contains("41 does not fit"), "{counter}: {why}");
    let (counter, why) = reason(&forge(&good, 2, |body| body.replace("\"upto\":16", "\"upto\":0")));
    assert!(counter == 3 && why.contains("0 does not fit"), "{counter}: {why}");
    let (counter, why) =
        reason(&forge(&good, 6, |body| body.replace("\"reservation\":6", "\"reservation\":2")));
    assert!(counter == 7 && why.contains("not open"), "{counter}: {why}");
    let (counter, why) = reason(&forge(&good, 1, |body| body.replace("patient", "row")));
    assert!(counter == 2 && why.contains("'patient', not 'row'"), "{counter}: {why}");
    let doubled = forge(&good, 4, |body| body.replace("\"count\":1", "\"count\":1,\"count\":0"));
    let (counter, why) = reason(&doubled);
    assert!(counter == 5 && why.contains("duplicate field"), "{counter}: {why}");
    let unknown = forge(&good, 4, |body| body.replace("\"count\":1", "\"count\":1,\"free\":true"));
    let (counter, why) = reason(&unknown);
    assert!(counter == 5 && why.contains("unknown field"), "{counter}: {why}");
}

#[test]
fn a_store_that_changed_under_an_open_ledger_is_reported() {
    let (ledger, store) = ledger(10.0);
    super::open(&store).set_cap(super::cap(3.0)).unwrap();
    assert!(matches!(ledger.verify(), Err(LedgerError::Broken(broken)) if broken.counter == 2));
}

proptest! {
    #[test]
    fn no_flipped_bit_goes_unseen(place in 0_usize..7, at in any::<prop::sample::Index>(), bit in 0_u32..7) {
        let mut rows = rows();
        let mut bytes = rows[place].body.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(body) = String::from_utf8(bytes) {
            rows[place].body = body;
            prop_assert_eq!(verify(&rows).unwrap_err().counter, place as u64 + 1);
        }
    }
}
