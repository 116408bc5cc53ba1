//! What the operator may do to a run, and what a restarted coordinator makes of the journal.

use super::*;

const ABC: [&str; 3] = ["a", "b", "c"];

fn withdrawn(name: &str) -> Event {
    Event::Withdrawn { site: site(name) }
}

fn added(name: &str) -> Event {
    Event::Added { site: site(name) }
}

#[test]
fn a_withdrawal_makes_a_version_without_the_site_and_keeps_the_old_publication() {
    let mut book = Book::open(&ABC, 2);
    book.up_to_done(&ABC).push(withdrawn("b"));
    assert_eq!((book.run.version, &book.run.status), (2, &Status::Running));
    assert_eq!(book.stage(), ("deciding", ""));
    assert!(book.run.outputs.is_empty() && book.run.spans.is_empty());
    book.collect("survey");
    assert_eq!(book.stage(), ("reducing", "survey"), "nobody is asked again");
    let left: Vec<_> = book.run.contributions("survey").into_iter().map(|c| c.0).collect();
    assert_eq!(left, [site("a"), site("c")]);
    assert!(book.run.archive.contains_key("survey"), "what the merge may start from");
    book.reduce("survey").push(publish()).push(Event::Published { publication: blob("second") });
    assert_eq!(book.run.publications[&1], blob("publication"));
    assert_eq!(book.run.publications[&2], blob("second"));
}

#[test]
fn a_site_that_comes_back_is_asked_for_everything_anew() {
    let mut book = Book::open(&ABC, 2);
    book.up_to_done(&ABC).push(withdrawn("b")).push(added("b"));
    assert_eq!(book.run.version, 3);
    book.collect("survey");
    assert_eq!(book.run.awaited(), [site("b")]);
    assert_eq!(book.run.admit(&site("b"), "survey"), Admission::Accept);
}

#[test]
fn a_site_that_was_late_is_taken_in_with_what_it_had_delivered() {
    let mut book = Book::open(&ABC, 2);
    book.collect("survey").deliver(&ABC, "survey").reduce("survey");
    book.collect("sums").deliver(&["a", "b"], "sums").push(deadline("sums"));
    assert_eq!(book.names(), ["a", "b"]);
    book.push(added("c")).collect("survey");
    assert_eq!(book.stage(), ("reducing", "survey"), "its survey is there");
    book.reduce("survey").collect("sums");
    assert_eq!(book.run.awaited(), [site("c")], "its sums are not");
}

#[test]
fn resuming_asks_the_missing_again_and_leaves_the_withdrawn_out() {
    let mut book = Book::open(&["a", "b", "c", "d"], 2);
    book.collect("survey").deliver(&["a", "b"], "survey").push(declined("c"));
    book.push(withdrawn("d")).collect("survey");
    assert_eq!(book.stage(), ("reducing", "survey"));
    book.push(Event::Failed { reason: "the disk is full".into() });
    assert_eq!(book.failure(), "the disk is full");
    book.push(Event::Resumed);
    assert_eq!(book.run.status, Status::Running);
    assert_eq!(book.names(), ABC, "c is asked once more, d is not");
    assert_eq!(book.run.version, 2, "the version is the same");
    book.collect("survey");
    assert_eq!(book.run.awaited(), [site("c")]);
}

#[test]
fn who_may_be_withdrawn_and_added() {
    let mut book = Book::open(&ABC, 1);
    book.collect("survey").push(declined("c")).push(withdrawn("b"));
    let run = &book.run;
    assert!(run.can_withdraw(&site("z")).is_err(), "a stranger");
    assert!(run.can_withdraw(&site("b")).is_err(), "twice");
    assert!(run.can_withdraw(&site("a")).is_err(), "the last");
    assert!(run.can_withdraw(&site("c")).is_ok(), "one that declined");
    assert!(run.can_add(&site("a")).is_err(), "takes part already");
    for name in ["b", "c", "z"] {
        assert!(run.can_add(&site(name)).is_ok(), "{name}");
    }
}

#[test]
fn a_plan_without_a_quorum_needs_all_that_were_not_withdrawn() {
    let mut book = Book::submit(&["a", "b", "c", "d"], None);
    assert_eq!(book.run.needed(), 4);
    book.up_to_done(&["a", "b", "c", "d"]).push(withdrawn("d"));
    assert_eq!(book.run.needed(), 3);
    book.collect("survey");
    assert_eq!(book.stage(), ("reducing", "survey"));
    book.push(added("e")).collect("survey");
    assert_eq!(book.run.needed(), 4);
    book.push(deadline("survey"));
    assert!(book.failure().contains("3 of 4"), "{}", book.failure());

    let mut book = Book::submit(&ABC, None);
    book.collect("survey").push(declined("c"));
    assert!(book.failure().contains("2 sites are left and 3 are needed"));
    assert!(book.run.can_withdraw(&site("c")).is_ok(), "the operator may do without it");
}

#[test]
fn a_quorum_of_the_plan_holds_for_the_operator_too() {
    let mut book = Book::open(&["a", "b", "c", "d"], 2);
    book.collect("survey").push(declined("d")).push(withdrawn("c"));
    let error = book.run.can_withdraw(&site("b")).unwrap_err().to_string();
    assert!(error.contains("1 sites would be left"), "{error}");
    assert!(book.run.can_withdraw(&site("d")).is_ok(), "it takes no part anyway");
}

#[test]
fn an_aborted_run_stays_aborted_until_it_is_resumed() {
    for event in [withdrawn("b"), added("d")] {
        let mut book = Book::open(&ABC, 2);
        book.collect("survey").push(Event::Aborted).push(event);
        assert_eq!(book.run.status, Status::Aborted);
        book.push(Event::Resumed);
        assert_eq!(book.run.status, Status::Running);
    }
}

/// One site has declined, another is withdrawn or a new one comes: the one that declined is still missing.
#[test]
fn a_new_version_needs_its_quorum_from_the_beginning() {
    for event in [withdrawn("b"), added("e")] {
        let mut book = Book::submit(&["a", "b", "c", "d"], None);
        book.collect("survey").push(declined("d"));
        assert!(book.failure().contains("3 sites are left and 4 are needed"));
        book.push(event).collect("survey");
        assert!(book.failure().contains("d: d will not"), "{}", book.failure());
        book.push(added("d")).collect("survey");
        assert_eq!(book.run.status, Status::Running);
    }
}
