//! Runs of many rounds: who misses one is back in the next, and a finished round is decided anew by a withdrawal alone.

use proptest::{collection::vec, prelude::*};

use super::*;

const ABC: [&str; 3] = ["a", "b", "c"];

/// Through the survey to the first round, which waits for everyone.
fn in_round_one(quorum: Option<usize>) -> Book {
    let mut book = Book::submit(&ABC, quorum);
    book.collect("survey").deliver(&ABC, "survey").reduce("survey").collect("round-1");
    book
}

fn drawn(name: &str, sites: &[&str]) -> Event {
    let sites = Some(sites.iter().map(|name| site(name)).collect());
    Event::Decided { next: Next::Collect(PhaseSpec { sites, ..phase(name, name) }) }
}

fn missed<'a>(book: &'a Book, key: &str, name: &str) -> &'a str {
    book.run.missed.get(key).and_then(|missed| missed.get(&site(name))).map_or("", String::as_str)
}

#[test]
fn a_site_that_misses_a_round_is_back_in_the_next() {
    for leave in [declined("c"), deadline("round-1")] {
        let mut book = in_round_one(Some(2));
        book.deliver(&["a", "b"], "round-1").push(leave);
        assert_eq!(book.stage(), ("reducing", "round-1"));
        assert_eq!(book.names(), ABC, "nobody has left the run");
        assert!(!missed(&book, "round-1", "c").is_empty());
        book.reduce("round-1");
        assert_eq!(book.run.outputs.len(), 2, "the survey is not decided anew");
        assert_eq!(book.run.outputs[1].members, [site("a"), site("b")]);
        book.collect("round-2");
        assert_eq!(book.run.awaited(), ABC.map(site));
        book.deliver(&ABC, "round-2").reduce("round-2");
        assert_eq!(missed(&book, "round-2", "c"), "");
    }
}

#[test]
fn an_answer_to_a_round_that_is_over_is_late() {
    let mut book = in_round_one(Some(2));
    book.deliver(&["a", "b"], "round-1").push(deadline("round-1")).reduce("round-1").collect("round-2");
    assert!(matches!(book.run.admit(&site("c"), "round-1"), Admission::Late(_)));
    assert_eq!(book.run.admit(&site("c"), "round-2"), Admission::Accept);
}

#[test]
fn below_the_quorum_the_run_fails_and_goes_on_with_the_same_round() {
    let mut book = in_round_one(Some(2));
    book.deliver(&ABC, "round-1").reduce("round-1").collect("round-2");
    book.deliver(&["a"], "round-2").push(declined("b")).push(deadline("round-2"));
    for part in ["round-2", "1 sites answered", "2 are needed", "b: b will not", "c: no answer", "resume"] {
        assert!(book.failure().contains(part), "{part} in {}", book.failure());
    }
    book.push(Event::Resumed);
    assert_eq!((book.stage(), book.run.outputs.len()), (("deciding", ""), 2), "round 1 stays");
    book.collect("round-2");
    assert_eq!(book.run.awaited(), [site("b"), site("c")], "a has answered");
    book.deliver(&["c"], "round-2").push(declined("b"));
    assert_eq!(book.stage(), ("reducing", "round-2"));
}

#[test]
fn without_a_quorum_a_round_needs_everyone() {
    let mut book = in_round_one(None);
    book.deliver(&["a", "b"], "round-1").push(declined("c"));
    assert!(book.failure().contains("3 are needed"), "{}", book.failure());
}

#[test]
fn a_late_site_joins_at_the_next_round() {
    for quorum in [Some(2), None] {
        late(in_round_one(quorum));
    }
}

fn late(mut book: Book) {
    book.deliver(&ABC, "round-1").reduce("round-1").collect("round-2").deliver(&["a"], "round-2");
    book.push(Event::Added { site: site("d") });
    assert_eq!(book.stage(), ("collecting", "round-2"), "the open round is not disturbed");
    assert_eq!(book.run.version, 1);
    assert!(book.run.task_for(&site("d")).is_none());
    book.deliver(&["b", "c"], "round-2").reduce("round-2").collect("round-3");
    assert_eq!(book.run.awaited(), ["a", "b", "c", "d"].map(site));
}

#[test]
fn before_the_first_round_is_over_a_late_site_is_surveyed() {
    let mut book = in_round_one(Some(2));
    book.push(Event::Added { site: site("d") });
    assert_eq!((book.stage(), book.run.version), (("deciding", ""), 2));
    book.collect("survey");
    assert_eq!(book.run.awaited(), [site("d")]);
}

#[test]
fn a_withdrawal_goes_through_all_rounds_anew() {
    let mut book = in_round_one(Some(2));
    book.deliver(&ABC, "round-1").reduce("round-1").collect("round-2").deliver(&ABC, "round-2");
    book.reduce("round-2").push(publish()).push(published());
    assert!(book.run.can_add(&site("d")).is_err(), "no round is left to train in");
    assert!(book.run.can_withdraw(&site("b")).is_ok());
    book.push(Event::Withdrawn { site: site("b") });
    assert!(book.run.outputs.is_empty());
    book.collect("survey").reduce("survey").collect("round-1");
    assert_eq!(book.stage(), ("reducing", "round-1"), "the first round's question is the same, and answered");
    book.reduce("round-1");
    assert_eq!(book.run.outputs[1].members, [site("a"), site("c")]);
}

#[test]
fn a_draw_asks_only_those_drawn_and_scales_the_quorum() {
    let mut book = Book::submit(&["a", "b", "c", "d"], Some(2));
    book.collect("survey").deliver(&["a", "b", "c", "d"], "survey").reduce("survey");
    book.push(drawn("round-1", &["b", "d"]));
    assert_eq!(book.run.awaited(), [site("b"), site("d")]);
    assert!(matches!(book.run.admit(&site("a"), "round-1"), Admission::Late(_)));
    book.push(declined("b")).deliver(&["d"], "round-1");
    assert_eq!(book.stage(), ("reducing", "round-1"), "half of the sites, half of the quorum");
    let asked: Vec<_> = book.run.asked["round-1"].iter().cloned().collect();
    assert_eq!(asked, [site("b"), site("d")]);
    book.reduce("round-1").push(drawn("round-2", &["z"]));
    assert!(matches!(book.run.status, Status::Failed(_)), "nobody to ask");
}

#[test]
fn the_text_of_a_round_names_what_is_new_and_of_another_phase_does_not() {
    let text = serde_json::to_string(&drawn("round-1", &["a"])).unwrap();
    assert!(text.contains(r#""may_miss":true,"sites":["a"]"#), "{text}");
    let text = serde_json::to_string(&collect("sums")).unwrap();
    assert!(!text.contains("may_miss") && !text.contains("sites"), "{text}");
}

const SITES: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];
const ROUNDS: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    Job,
    Deliver(usize),
    Decline(usize),
    Deadline,
    Abort,
    Resume,
    Fail,
    Withdraw(usize),
    Add(usize),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let site = 0..SITES.len();
    prop_oneof![
        30 => Just(Op::Job),
        40 => site.clone().prop_map(Op::Deliver),
        6 => site.clone().prop_map(Op::Decline),
        4 => Just(Op::Deadline),
        1 => Just(Op::Abort),
        8 => Just(Op::Resume),
        1 => Just(Op::Fail),
        1 => site.clone().prop_map(Op::Withdraw),
        2 => site.prop_map(Op::Add),
        3 => Just(Op::Restart),
    ]
}

/// A workload of three rounds, each round's question holding what the last one gave.
fn decide(run: &Run) -> Event {
    let done = run.outputs.iter().filter(|output| output.round).count();
    let Some(last) = run.outputs.last() else { return collect("survey") };
    let name = match done {
        0..ROUNDS => format!("round-{}", done + 1),
        _ if last.round => "evaluate".to_owned(),
        _ => return publish(),
    };
    let spec = phase(&name, &format!("{name} {}", last.output));
    // Every other round is asked of all but one.
    let members: Vec<_> = run.members_in().cloned().collect();
    let sites = (spec.may_miss && done == 1 && members.len() > 1).then(|| members[1..].to_vec());
    Event::Decided { next: Next::Collect(PhaseSpec { sites, ..spec }) }
}

fn merge(run: &Run, phase: &PhaseSpec) -> Event {
    let contributions = run.contributions(&phase.key);
    if phase.may_miss {
        assert!(contributions.len() >= run.needed_for(phase).min(1), "a round without an answer");
        assert!(contributions.len() >= run.needed_for(phase), "the quorum of {} was undercut", phase.name);
    }
    Event::Reduced { key: phase.key.clone(), output: blob(&format!("{} {contributions:?}", phase.name)) }
}

fn job(book: &mut Book) {
    if book.run.status != Status::Running {
        return;
    }
    let event = match book.run.stage.clone() {
        Stage::Collecting(_) => return,
        Stage::Deciding => decide(&book.run),
        Stage::Reducing(phase) => merge(&book.run, &phase),
        Stage::Publishing => published(),
    };
    book.push(event);
}

fn act(book: &mut Book, op: &Op) {
    let awaited = book.run.awaited();
    let nth = |n: usize| awaited.get(n % awaited.len().max(1)).map(|site| site.as_str().to_owned());
    let key = book.stage().1.to_owned();
    let (running, stopped) = match &book.run.status {
        Status::Running => (true, false),
        Status::Done => (false, false),
        _ => (false, true),
    };
    match op {
        Op::Job => job(book),
        Op::Deliver(n) => {
            if let Some(name) = nth(*n) {
                book.push(delivered(&name, &key));
            }
        }
        Op::Decline(n) => {
            if let Some(name) = nth(*n) {
                book.push(declined(&name));
            }
        }
        Op::Deadline if running && book.stage().0 == "collecting" => {
            book.push(deadline(&key));
        }
        Op::Abort if running => {
            book.push(Event::Aborted);
        }
        Op::Resume if stopped => {
            book.push(Event::Resumed);
        }
        Op::Fail if running && book.stage().0 != "collecting" => {
            book.push(Event::Failed { reason: "a job failed".into() });
        }
        Op::Withdraw(n) if book.run.can_withdraw(&site(SITES[*n])).is_ok() => {
            book.push(Event::Withdrawn { site: site(SITES[*n]) });
        }
        Op::Add(n) if book.run.can_add(&site(SITES[*n])).is_ok() => {
            book.push(Event::Added { site: site(SITES[*n]) });
        }
        Op::Restart => {
            let text: Vec<_> =
                book.entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
            let entries: Vec<Entry> = text.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(Run::replay(&entries).unwrap(), book.run);
        }
        _ => {}
    }
}

fn rounds(run: &Run) -> Vec<BlobId> {
    run.outputs.iter().filter(|output| output.round).map(|output| output.output).collect()
}

proptest! {
    #[test]
    fn whatever_happens_finished_rounds_stay_and_the_run_comes_to_its_end(
        quorum in proptest::option::of(1..=3_usize),
        ops in vec(op(), 0..250),
    ) {
        let mut book = Book::submit(&SITES[..4], quorum);
        for op in &ops {
            let before = rounds(&book.run);
            act(&mut book, op);
            if !matches!(op, Op::Withdraw(_)) {
                prop_assert!(rounds(&book.run).starts_with(&before), "{op:?} took a finished round back");
            }
            // A coordinator that dies here finds the same state.
            prop_assert_eq!(&Run::replay(&book.entries).unwrap(), &book.run);
        }
        for _ in 0..200 {
            if book.run.status == Status::Done {
                break;
            }
            act(&mut book, &Op::Resume);
            job(&mut book);
            act(&mut book, &Op::Deliver(0));
        }
        prop_assert_eq!(&book.run.status, &Status::Done);
        prop_assert_eq!(rounds(&book.run).len(), ROUNDS);
    }
}
