//! Runs through random histories. Sites deliver, deliver twice, too late, decline or are silent; the operator
//! aborts, resumes, withdraws and adds; the coordinator dies and replays its journal. A site's answer is worth a
//! power of two of its own and merging adds, so at the end the sum shows whose answers are in it and how often.

mod world;

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use self::world::World;
use super::*;

const SITES: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];
/// Of these the first so many are invited.
const INVITED: usize = 4;

/// Something that happens. A number chooses among those it can happen to, if there are any.
#[derive(Debug, Clone)]
enum Op {
    /// The workload's job of the stage ends.
    Job,
    /// Its jobs end until sites are waited for.
    Jobs,
    /// All who are asked deliver, but one.
    MostDeliver(usize),
    /// The workload's job fails.
    JobFails,
    /// A site delivers.
    Deliver(usize),
    /// A site's answer passes the first check and is then on its way.
    Send(usize),
    /// An answer on its way arrives.
    Arrive(usize),
    /// A site delivers another answer to what it has answered.
    Again(usize),
    /// A site says no to what it is asked.
    Decline(usize),
    /// The phase's time is over.
    Deadline,
    Abort,
    Resume,
    Withdraw(usize),
    Add(usize),
    /// The coordinator is killed and started again.
    Restart,
    /// An event of a stage that is over, or of nobody.
    Stray(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let site = 0..SITES.len();
    prop_oneof![
        10 => Just(Op::Job),
        25 => Just(Op::Jobs),
        1 => Just(Op::JobFails),
        25 => site.clone().prop_map(Op::MostDeliver),
        15 => site.clone().prop_map(Op::Deliver),
        20 => site.clone().prop_map(Op::Send),
        20 => site.clone().prop_map(Op::Arrive),
        3 => site.clone().prop_map(Op::Again),
        8 => site.clone().prop_map(Op::Decline),
        3 => Just(Op::Deadline),
        1 => Just(Op::Abort),
        10 => Just(Op::Resume),
        2 => site.clone().prop_map(Op::Withdraw),
        2 => site.prop_map(Op::Add),
        1 => Just(Op::Restart),
        3 => (0..7usize).prop_map(Op::Stray),
    ]
}

fn histories(quorum: impl Strategy<Value = Option<usize>>, wanted: impl Fn(&Op) -> bool) {
    let strategy = (quorum, any::<bool>(), 0..=3usize, vec(op(), 0..=200));
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |(quorum, same_question, phases, ops)| {
            let mut world = World::new(quorum, same_question);
            world.advance(phases);
            for op in ops.iter().filter(|op| wanted(op)) {
                world.act(op);
            }
            world.restart();
            world.finish();
            world.restart();
            for end in (1..=world.book.entries.len()).step_by(7) {
                Run::replay(&world.book.entries[..end]).unwrap();
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_happens_every_member_counts_once() {
    histories((1..=INVITED).prop_map(Some), |op| !matches!(op, Op::Send(_)));
}

#[test]
fn whatever_happens_while_answers_are_on_their_way_every_member_counts_once() {
    histories((1..=INVITED).prop_map(Some), |_| true);
}

#[test]
fn whatever_happens_a_plan_without_a_quorum_goes_on_with_everyone() {
    histories(Just(None), |op| !matches!(op, Op::Send(_)));
}

/// Events in any order, fitting or not: what a damaged or foreign journal could hold.
fn any_event() -> impl Strategy<Value = Event> {
    let name = proptest::sample::select(SITES.to_vec());
    let key = proptest::sample::select(vec!["survey", "sums", "evaluate"]);
    prop_oneof![
        4 => key.clone().prop_map(collect),
        1 => Just(publish()),
        8 => (name.clone(), key.clone()).prop_map(|(name, key)| delivered(name, key)),
        2 => name.clone().prop_map(declined),
        1 => key.clone().prop_map(deadline),
        4 => key.prop_map(reduced),
        1 => Just(published()),
        1 => Just(Event::Failed { reason: "x".into() }),
        1 => Just(Event::Aborted),
        1 => Just(Event::Resumed),
        1 => name.clone().prop_map(|name| Event::Withdrawn { site: site(name) }),
        1 => name.prop_map(|name| Event::Added { site: site(name) }),
        1 => Just(submitted(&["z"], Some(1))),
    ]
}

proptest! {
    #[test]
    fn any_journal_replays_to_the_same_state(events in vec(any_event(), 0..120)) {
        let mut book = Book::open(&SITES[..INVITED], 2);
        for event in events {
            book.note(event);
            let run = &book.run;
            for (site, membership) in &run.members {
                if *membership == Membership::Withdrawn {
                    prop_assert!(run.task_for(site).is_none());
                    prop_assert!(run.deliveries.values().all(|answers| !answers.contains_key(site)));
                }
            }
        }
        prop_assert_eq!(book.run.events as usize, book.entries.len());
        prop_assert_eq!(&Run::replay(&book.entries).unwrap(), &book.run);
    }
}
