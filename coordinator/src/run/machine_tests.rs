//! Tests of the run machine. [`Book`] is a journal with the state it folds to; every event that goes through it
//! is followed by a check of what must hold of any state a driver can reach.

mod journal;
mod operator;
mod rounds;
mod simulation;
mod transitions;

use std::collections::{BTreeMap, BTreeSet};

use sheaf_proto::BlobId;
use sheaf_transport::{digest::blob_id, identity::SiteName};

use super::{
    event::{Delivery, Entry, Event, Next, PhaseSpec},
    machine::{Admission, Membership, Run, Stage, Status},
};

/// A journal and the state it has led to.
#[derive(Clone)]
struct Book {
    entries: Vec<Entry>,
    run: Run,
}

impl Book {
    /// A run that goes on with this many sites.
    fn open(sites: &[&str], quorum: usize) -> Self {
        Self::submit(sites, Some(quorum))
    }

    fn submit(sites: &[&str], quorum: Option<usize>) -> Self {
        let first = Entry { seq: 0, at: 1000, event: submitted(sites, quorum) };
        let run = Run::replay(std::slice::from_ref(&first)).unwrap();
        Self { entries: vec![first], run }
    }

    /// Journals an event that a driver may journal in this state.
    fn push(&mut self, event: Event) -> &mut Self {
        self.note(event);
        check(&self.run);
        self
    }

    /// Journals any event.
    fn note(&mut self, event: Event) {
        let entry = Entry { seq: self.run.events, at: 1000 + 10 * self.run.events, event };
        self.run.apply(&entry);
        self.entries.push(entry);
    }

    fn collect(&mut self, name: &str) -> &mut Self {
        self.push(collect(name))
    }

    fn deliver(&mut self, names: &[&str], key: &str) -> &mut Self {
        for name in names {
            self.push(delivered(name, key));
        }
        self
    }

    fn reduce(&mut self, key: &str) -> &mut Self {
        self.push(reduced(key))
    }

    /// Through survey and sums to the evaluation, which waits for everyone.
    fn up_to_evaluation(&mut self, names: &[&str]) -> &mut Self {
        self.collect("survey").deliver(names, "survey").reduce("survey");
        self.collect("sums").deliver(names, "sums").reduce("sums");
        self.collect("evaluate")
    }

    /// To the end.
    fn up_to_done(&mut self, names: &[&str]) -> &mut Self {
        self.up_to_evaluation(names).deliver(names, "evaluate").reduce("evaluate");
        self.push(publish()).push(published())
    }

    /// Names of the members that take part.
    fn names(&self) -> Vec<&str> {
        self.run.members_in().map(SiteName::as_str).collect()
    }

    /// The name of what the run does, and the key it does it for.
    fn stage(&self) -> (&'static str, &str) {
        match &self.run.stage {
            Stage::Deciding => ("deciding", ""),
            Stage::Collecting(phase) => ("collecting", &phase.key),
            Stage::Reducing(phase) => ("reducing", &phase.key),
            Stage::Publishing => ("publishing", ""),
        }
    }

    fn failure(&self) -> &str {
        match &self.run.status {
            Status::Failed(reason) => reason,
            other => panic!("the run has not failed but is {other:?}"),
        }
    }
}

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

fn blob(text: &str) -> BlobId {
    blob_id(text.as_bytes())
}

fn submitted(sites: &[&str], quorum: Option<usize>) -> Event {
    Event::Submitted {
        name: "a run".to_owned(),
        workload: "afl".to_owned(),
        plan_sha256: "00".repeat(32),
        sites: sites.iter().map(|name| site(name)).collect(),
        quorum,
    }
}

/// A phase; all but one called "evaluate" define the model.
fn phase(name: &str, key: &str) -> PhaseSpec {
    PhaseSpec {
        name: name.to_owned(),
        key: key.to_owned(),
        spec: blob(key),
        inputs: Vec::new(),
        releases: vec!["sums".to_owned()],
        defines_model: name != "evaluate",
        max_result_bytes: 1000,
        may_miss: name.starts_with("round"),
        sites: None,
        site_inputs: BTreeMap::new(),
    }
}

/// A phase whose key is its name.
fn collect(name: &str) -> Event {
    Event::Decided { next: Next::Collect(phase(name, name)) }
}

fn publish() -> Event {
    Event::Decided { next: Next::Publish }
}

fn published() -> Event {
    Event::Published { publication: blob("publication") }
}

fn answer(blob: BlobId) -> Delivery {
    Delivery { blob, bytes_up: blob.size(), bytes_down: 10, seconds: 0.1, spend: None }
}

fn delivered(name: &str, key: &str) -> Event {
    Event::Delivered {
        site: site(name),
        key: key.to_owned(),
        delivery: answer(blob(&format!("{name} {key}"))),
    }
}

fn declined(name: &str) -> Event {
    Event::Declined { site: site(name), reason: format!("{name} will not") }
}

fn deadline(key: &str) -> Event {
    Event::DeadlinePassed { key: key.to_owned() }
}

fn reduced(key: &str) -> Event {
    Event::Reduced { key: key.to_owned(), output: blob(&format!("output {key}")) }
}

/// What holds of every state that a driver can reach.
fn check(run: &Run) {
    let awaited = run.awaited();
    let asked: Vec<_> = run.members.keys().filter(|site| run.task_for(site).is_some()).cloned().collect();
    assert_eq!(awaited, asked, "who is awaited is who has a task");
    let members: BTreeSet<_> = run.members_in().collect();
    match (&run.status, &run.stage) {
        (Status::Running, Stage::Collecting(phase)) => {
            assert_eq!(run.outstanding, awaited.len(), "the count and the list agree");
            assert!(!awaited.is_empty(), "a phase that waits for nobody is closed");
            for site in run.members.keys() {
                let taken = run.admit(site, &phase.key) == Admission::Accept;
                // Of an excused site see `an_excused_site_that_answers_after_all_...`.
                assert!(
                    taken == awaited.contains(site) || run.excused.contains(site),
                    "an answer of {site} is taken if and only if it is awaited"
                );
            }
        }
        _ => assert!(awaited.is_empty(), "nobody is awaited"),
    }
    let collecting = run.status == Status::Running && matches!(run.stage, Stage::Collecting(_));
    let open = run.spans.iter().filter(|span| span.closed_at.is_none()).count();
    if run.status == Status::Running {
        assert_eq!(open, usize::from(collecting), "the open phase's time runs, no other's");
    }
    for (site, membership) in &run.members {
        let held = run.deliveries.values().any(|answers| answers.contains_key(site));
        assert!(*membership != Membership::Withdrawn || !held, "nothing of {site} is left");
    }
    for key in run.deliveries.keys() {
        for (site, _) in run.contributions(key) {
            assert!(members.contains(&site), "{site} counts but takes no part");
        }
    }
    if run.status == Status::Running || run.status == Status::Done {
        for output in &run.outputs {
            let counted: BTreeSet<_> = output.members.iter().collect();
            assert!(counted.is_subset(&members), "{} has a ghost in it", output.name);
            assert!(
                run.in_rounds() || output.name == "evaluate" || counted == members,
                "{} is without a member",
                output.name
            );
        }
    }
    assert_eq!(run.status == Status::Done, run.finished_at.is_some());
    assert!(run.status != Status::Done || run.publications.contains_key(&run.version));
}
