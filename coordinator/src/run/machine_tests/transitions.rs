//! Each transition, and that an event changes nothing where it does not fit.

use super::*;

const ABC: [&str; 3] = ["a", "b", "c"];

/// A state of each kind. In the collecting ones `a` has answered, `b` and `c` have not.
fn states() -> Vec<(&'static str, Book)> {
    let open = || Book::open(&ABC, 2);
    let mut survey = open();
    survey.collect("survey").deliver(&["a"], "survey");
    let mut evaluate = open();
    evaluate.up_to_evaluation(&ABC).deliver(&["a"], "evaluate");
    let mut reducing = open();
    reducing.collect("survey").deliver(&ABC, "survey");
    let mut publishing = open();
    publishing.up_to_evaluation(&ABC).deliver(&ABC, "evaluate");
    publishing.reduce("evaluate").push(publish());
    let mut done = open();
    done.up_to_done(&ABC);
    let (mut failed, mut aborted) = (survey.clone(), survey.clone());
    failed.push(Event::Failed { reason: "it broke".into() });
    aborted.push(Event::Aborted);
    vec![
        ("deciding", open()),
        ("survey", survey),
        ("evaluate", evaluate),
        ("reducing", reducing),
        ("publishing", publishing),
        ("done", done),
        ("failed", failed),
        ("aborted", aborted),
    ]
}

#[test]
fn an_event_that_does_not_fit_changes_nothing_but_the_count() {
    let table: Vec<(Event, &[&str])> = vec![
        (submitted(&["z"], Some(1)), &[]),
        (collect("survey"), &["deciding"]),
        (publish(), &["deciding"]),
        (delivered("b", "survey"), &["survey"]),
        (delivered("b", "evaluate"), &["evaluate"]),
        (delivered("a", "survey"), &[]),
        (delivered("a", "evaluate"), &[]),
        (delivered("b", "another"), &[]),
        (delivered("z", "survey"), &[]),
        (declined("b"), &["survey", "evaluate"]),
        (declined("a"), &[]),
        (declined("z"), &[]),
        (deadline("survey"), &["survey"]),
        (deadline("evaluate"), &["evaluate"]),
        (deadline("another"), &[]),
        (reduced("survey"), &["reducing"]),
        (reduced("another"), &[]),
        (published(), &["publishing"]),
    ];
    for (state, book) in states() {
        for (event, fits) in &table {
            let mut after = book.clone();
            after.note(event.clone());
            let mut unchanged = book.run.clone();
            unchanged.events += 1;
            assert_eq!(after.run != unchanged, fits.contains(&state), "{event:?} in state {state}");
            check(&after.run);
        }
    }
}

#[test]
fn a_run_goes_through_its_phases_to_the_end() {
    let mut book = Book::open(&ABC, 3);
    assert_eq!(book.stage(), ("deciding", ""));
    book.collect("survey");
    assert_eq!(book.stage(), ("collecting", "survey"));
    assert_eq!(book.run.awaited(), ABC.map(site));
    book.deliver(&["c", "a"], "survey");
    assert_eq!(book.run.awaited(), [site("b")]);
    book.deliver(&["b"], "survey");
    assert_eq!(book.stage(), ("reducing", "survey"));
    let order: Vec<_> = book.run.contributions("survey").into_iter().map(|c| c.0).collect();
    assert_eq!(order, ABC.map(site), "by name, whoever was first");
    book.reduce("survey");
    assert_eq!(book.stage(), ("deciding", ""));
    assert_eq!(book.run.outputs.len(), 1);
    assert_eq!(book.run.outputs[0].members, ABC.map(site));
    assert_eq!(book.run.archive["survey"], book.run.outputs[0]);
    book.collect("evaluate").deliver(&ABC, "evaluate").reduce("evaluate");
    book.push(publish());
    assert_eq!(book.stage(), ("publishing", ""));
    book.push(published());
    assert_eq!(book.run.status, Status::Done);
    assert_eq!(book.run.publications[&1], blob("publication"));
    assert_eq!(book.run.events, book.entries.len() as i64);
    let names: Vec<_> = book.run.spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["survey", "evaluate"]);
}

#[test]
fn the_stage_number_grows_with_every_stage_and_status_and_with_nothing_else() {
    let mut book = Book::open(&ABC, 2);
    let mut last = book.run.stage_id;
    let mut step = |book: &Book, grows: bool| {
        assert_eq!(book.run.stage_id > last, grows, "at {:?}", book.stage());
        last = book.run.stage_id;
    };
    for (event, grows) in [
        (collect("survey"), true),
        (delivered("a", "survey"), false),
        (delivered("b", "survey"), false),
        (declined("c"), true),
        (reduced("survey"), true),
        (Event::Aborted, true),
        (Event::Resumed, true),
        (collect("survey"), true),
        (Event::Withdrawn { site: site("c") }, true),
        (Event::Added { site: site("d") }, true),
    ] {
        book.push(event);
        step(&book, grows);
    }
}

#[test]
fn a_site_that_declines_leaves_a_model_phase_and_is_only_missing_from_others() {
    let mut book = Book::open(&ABC, 2);
    book.collect("survey").push(declined("c"));
    assert_eq!(book.run.members[&site("c")], Membership::Declined("c will not".into()));
    assert_eq!(book.stage(), ("collecting", "survey"), "the others are still awaited");
    book.deliver(&["a", "b"], "survey");
    assert_eq!(book.stage(), ("reducing", "survey"));

    let mut book = Book::open(&ABC, 3);
    book.up_to_evaluation(&ABC).push(declined("c")).push(declined("b"));
    assert_eq!(book.names(), ABC, "the model stands without these answers");
    assert_eq!(book.run.awaited(), [site("a")]);
    book.push(declined("a"));
    assert_eq!(book.stage(), ("reducing", "evaluate"), "even without any");
    book.reduce("evaluate");
    assert!(book.run.outputs[2].members.is_empty());
}

#[test]
fn a_site_that_leaves_after_an_earlier_phase_takes_its_earlier_answers_along() {
    for leave in [declined("c"), deadline("sums")] {
        let mut book = Book::open(&ABC, 2);
        book.collect("survey").deliver(&ABC, "survey").reduce("survey");
        book.collect("sums").deliver(&["a", "b"], "sums").push(leave);
        assert_eq!(book.stage(), ("deciding", ""), "back to the first decision");
        assert!(book.run.outputs.is_empty());
        book.collect("survey");
        assert_eq!(book.stage(), ("reducing", "survey"), "what is there is not asked again");
        assert_eq!(book.run.contributions("survey").len(), 2);
        book.reduce("survey").collect("sums");
        assert_eq!(book.stage(), ("reducing", "sums"));
        assert_eq!(book.run.version, 1, "nobody was withdrawn");
    }
}

#[test]
fn a_deadline_goes_on_with_the_quorum_and_not_below_it() {
    let mut book = Book::open(&ABC, 2);
    book.collect("survey").deliver(&["a", "b"], "survey").push(deadline("survey"));
    assert_eq!(book.stage(), ("reducing", "survey"));
    assert!(matches!(book.run.members[&site("c")], Membership::Dropped(_)));

    let mut book = Book::open(&ABC, 2);
    book.collect("survey").deliver(&["a"], "survey").push(deadline("survey"));
    for part in ["survey", "1 of 3", "2 are needed", "b, c", "run resume"] {
        assert!(book.failure().contains(part), "{part} in {}", book.failure());
    }
    assert_eq!(book.names(), ABC, "who was late may still come back");

    let mut book = Book::open(&ABC, 3);
    book.up_to_evaluation(&ABC).deliver(&["b"], "evaluate").push(deadline("evaluate"));
    assert_eq!(book.stage(), ("reducing", "evaluate"), "figures need no quorum");
    assert_eq!(book.names(), ABC);
}

#[test]
fn a_decline_below_the_quorum_fails_and_says_who() {
    let mut book = Book::open(&ABC, 2);
    book.collect("survey").push(declined("b")).push(declined("c"));
    for part in ["1 sites are left", "2 are needed", "b: b will not", "c: c will not"] {
        assert!(book.failure().contains(part), "{part} in {}", book.failure());
    }
    assert!(book.run.spans.iter().all(|span| span.closed_at.is_some()));
}

#[test]
fn a_failure_names_a_few_of_many_sites() {
    let names: Vec<String> = (0..20).map(|n| format!("s{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut book = Book::open(&names, 20);
    book.collect("survey").push(deadline("survey"));
    assert!(book.failure().contains("s07 and 12 more"), "{}", book.failure());
    assert!(!book.failure().contains("s08"));
}

#[test]
fn what_becomes_of_an_answer() {
    let mut book = Book::open(&["a", "b", "c", "d", "e"], 2);
    book.collect("survey").deliver(&["a"], "survey").push(declined("c"));
    book.push(Event::Withdrawn { site: site("e") }).collect("survey");
    let admit = |name: &str, key: &str| book.run.admit(&site(name), key);
    let late = |name: &str, key: &str| match admit(name, key) {
        Admission::Late(reason) => reason,
        other => panic!("{name} {key}: {other:?}"),
    };
    assert_eq!(admit("b", "survey"), Admission::Accept);
    assert_eq!(admit("a", "survey"), Admission::Duplicate);
    assert!(late("b", "sums").contains("closed"));
    assert!(late("c", "survey").contains("run add"));
    assert!(late("e", "survey").contains("withdrawn"));
    assert!(late("z", "survey").contains("not part"));
    for stop in [Event::Aborted, Event::Failed { reason: "x".into() }] {
        let mut book = book.clone();
        book.push(stop);
        assert_eq!(book.run.admit(&site("a"), "survey"), Admission::Duplicate);
        assert!(matches!(book.run.admit(&site("b"), "survey"), Admission::Late(_)));
    }
}

/// A site says that it will not give its figures; an answer of it that was on its way arrives after that.
#[test]
fn an_excused_site_that_answers_after_all_does_not_close_the_phase_early() {
    let mut book = Book::open(&ABC, 3);
    book.up_to_evaluation(&ABC).push(declined("a"));
    assert!(matches!(book.run.admit(&site("a"), "evaluate"), Admission::Late(_)));
    book.note(delivered("a", "evaluate"));
    book.note(delivered("b", "evaluate"));
    assert_eq!(book.stage(), ("collecting", "evaluate"));
    assert_eq!(book.run.awaited(), [site("c")]);
    check(&book.run);
}
