//! Secure sums through the real run machine, with real sites at the other end.

pub(in crate::workload) mod party;

use tempfile::TempDir;

use super::*;
use crate::{
    error::Class,
    identity::authority::Authority,
    run::{
        event::{Delivery, Entry, Event, Next},
        machine::{Run, Stage as RunStage, Status},
        plan::Plan,
    },
    store::blobs::BlobStore,
};
use party::Party;
use sheaf_proto::secure::{Introduction, STAGES};
use sheaf_secagg::UnmaskShares;

const LENGTH: usize = 5;
/// The phase after the sum.
const AFTER: &str = "evaluate";

/// A run that makes one secure sum.
struct World {
    _folder: TempDir,
    plan: Plan,
    blobs: BlobStore,
    authority: Authority,
    parties: Vec<Party>,
    run: Run,
}

impl World {
    /// A run of so many sites that goes on with `quorum` of them.
    fn new(sites: usize, quorum: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(&folder.path().join("ca")).unwrap();
        let parties: Vec<_> = (0..sites).map(|n| Party::new(folder.path(), &authority, n, LENGTH)).collect();
        let plan = Plan::parse("[run]\nname='x'\nworkload='afl'\n").unwrap();
        let submitted = Event::Submitted {
            name: "x".to_owned(),
            workload: "afl".to_owned(),
            plan_sha256: plan.sha256(),
            sites: parties.iter().map(|party| party.name.clone()).collect(),
            quorum: Some(quorum),
        };
        Self {
            plan,
            blobs: BlobStore::open(&folder.path().join("blobs")).unwrap(),
            authority,
            parties,
            run: Run::replay(&[Entry { seq: 0, at: 0, event: submitted }]).unwrap(),
            _folder: folder,
        }
    }

    fn happen(&mut self, event: Event) {
        let entry = Entry { seq: self.run.events, at: 0, event };
        // What goes through a journal is what goes on.
        let entry: Entry = serde_json::from_str(&serde_json::to_string(&entry).unwrap()).unwrap();
        self.run.apply(&entry);
    }

    fn with<T>(&self, ask: impl FnOnce(&Context<'_>) -> T) -> T {
        let members: Vec<_> = self.run.members_in().cloned().collect();
        ask(&Context {
            plan: &self.plan,
            blobs: &self.blobs,
            members: &members,
            run_id: "x-1",
            version: self.run.version,
            authority: self.authority.certificate(),
            tools: None,
        })
    }

    fn next(&self) -> Result<Progress, Error> {
        let needed = self.run.needed() as u32;
        let sum = SecureSum {
            base: "sums",
            spec: &serde_json::json!({ "what": "numbers" }),
            release: "sums",
            length: LENGTH as u64,
            max_abs: 1000,
            min_cohort: needed,
            min_survivors: needed,
            round: 1,
            inputs: &[],
            sites: None,
        };
        self.with(|context| sum.next(context, &self.run.outputs))
    }

    fn phase(&self) -> PhaseSpec {
        match &self.run.stage {
            RunStage::Collecting(phase) => phase.clone(),
            other => panic!("nothing is asked, the run is at {other:?}: {:?}", self.run.status),
        }
    }

    fn answer(&mut self, site: &SiteName, phase: &PhaseSpec) -> Result<Vec<u8>, String> {
        let Self { parties, blobs, .. } = self;
        parties.iter_mut().find(|party| party.name == *site).unwrap().answer(blobs, phase)
    }

    fn check(&self, phase: &PhaseSpec, site: &SiteName, bytes: &[u8]) -> Result<(), Error> {
        self.with(|context| check_result(context, phase, site, bytes))
    }

    /// Asks for the next stage.
    fn decide(&mut self) {
        let Progress::Ask(phase) = self.next().unwrap() else { panic!("nothing is left to ask") };
        self.happen(Event::Decided { next: Next::Collect(phase) });
    }

    /// Lets everyone who is asked answer, but those that `missing` names.
    fn collect(&mut self, missing: &[&str]) {
        let phase = self.phase();
        for site in self.run.awaited() {
            if missing.contains(&site.as_str()) {
                continue;
            }
            match self.answer(&site, &phase) {
                Ok(bytes) => {
                    assert!(bytes.len() as u64 <= phase.max_result_bytes);
                    self.check(&phase, &site, &bytes).unwrap();
                    let blob = self.blobs.put(&bytes).unwrap();
                    let delivery = Delivery { blob, bytes_up: 0, bytes_down: 0, seconds: 0.0, spend: None };
                    self.happen(Event::Delivered { site, key: phase.key.clone(), delivery });
                }
                Err(reason) => self.happen(Event::Declined { site, reason }),
            }
        }
        if self.run.status == Status::Running && self.run.stage == RunStage::Collecting(phase.clone()) {
            self.happen(Event::DeadlinePassed { key: phase.key });
        }
    }

    /// Merges, as the driver does.
    fn reduce(&mut self) {
        let RunStage::Reducing(phase) = self.run.stage.clone() else { return };
        let contributions = self.run.contributions(&phase.key);
        let answers = Answers {
            phase: &phase,
            contributions: &contributions,
            outputs: &self.run.outputs,
            previous: None,
        };
        match self.with(|context| reduce(context, &answers)) {
            Ok(outcome) => {
                let output = self.blobs.put(&serde_json::to_vec(&outcome).unwrap()).unwrap();
                self.happen(Event::Reduced { key: phase.key, output });
            }
            Err(error) => self.happen(Event::Failed { reason: error.message }),
        }
    }

    /// All stages; whom each misses is what `missing` says.
    fn sum(&mut self, missing: impl Fn(Stage) -> Vec<&'static str>) {
        for stage in STAGES {
            self.decide();
            assert_eq!(self.phase().name, phase("sums", stage));
            self.collect(&missing(stage));
            self.reduce();
            assert_eq!(self.run.status, Status::Running, "after {stage}");
        }
    }

    fn opened(&self) -> Opened {
        match self.next().unwrap() {
            Progress::Done(opened) => opened,
            Progress::Ask(phase) => panic!("{} is still to be asked", phase.name),
        }
    }

    /// The sum in plain sight, over all sites but these.
    fn plain(&self, without: &[&str]) -> Opened {
        let in_it = self.parties.iter().filter(|party| !without.contains(&party.name.as_str()));
        let mut sum = Opened { values: vec![0; LENGTH], sites: Vec::new() };
        for party in in_it {
            sum.values.iter_mut().zip(&party.values).for_each(|(sum, value)| *sum += value);
            sum.sites.push(party.name.clone());
        }
        sum
    }
}

fn none(_: Stage) -> Vec<&'static str> {
    Vec::new()
}

#[test]
fn the_sum_is_the_plain_one_and_nothing_else_is_left_of_the_vectors() {
    let mut world = World::new(4, 4);
    world.sum(none);
    assert_eq!(world.opened(), world.plain(&[]));
    // Whatever the coordinator stores goes when a member is withdrawn.
    let outputs = world.run.outputs.clone();
    for output in &outputs {
        let blobs = world.with(|context| merged_blobs(context, output)).unwrap();
        assert!(blobs.len() >= 2 && blobs.iter().all(|blob| world.blobs.contains(blob)));
    }
}

#[test]
fn a_site_that_drops_out_of_a_stage_is_counted_out_of_it() {
    for dropped in STAGES {
        let mut world = World::new(6, 4);
        world.sum(|stage| if stage == dropped { vec!["s2"] } else { Vec::new() });
        // Once its vector is there it is in the sum, whether or not the site helps to open it.
        let without: &[&str] = if dropped <= Stage::MaskedInput { &["s2"] } else { &[] };
        assert_eq!(world.opened(), world.plain(without), "dropped out of {dropped}");
    }
}

#[test]
fn an_answer_that_cannot_be_is_refused_and_the_right_one_is_taken_after_it() {
    let mut world = World::new(4, 4);
    for stage in STAGES {
        world.decide();
        let (phase, site) = (world.phase(), world.parties[1].name.clone());
        let right = world.answer(&site, &phase).unwrap();
        let refused = |world: &World, bytes: &[u8], why: &str| {
            let error = world.check(&phase, &site, bytes).unwrap_err();
            assert_eq!(error.class, Class::Invalid, "{stage}, {why}: {error}");
        };
        refused(&world, &right[..right.len() - 1], "cut off");
        refused(&world, &[right.as_slice(), &[0]].concat(), "with a tail");
        refused(&world, b"", "nothing");
        // The last bytes are those of credentials, of a share's size and number, of a signature.
        if matches!(stage, Stage::Advertise | Stage::Consistency) {
            let mut swapped = right.clone();
            *swapped.last_mut().unwrap() ^= 1;
            refused(&world, &swapped, "with another signature");
        }
        let other = world.parties[2].name.clone();
        // Masked vectors and shares of the same secrets look alike, whoever sends them; see the next test.
        if !matches!(stage, Stage::MaskedInput | Stage::Unmask) {
            let foreign = world.answer(&other, &phase).unwrap();
            refused(&world, &foreign, "of another site");
        }
        world.check(&phase, &site, &right).unwrap();
        world.collect(&[]);
        world.reduce();
    }
    assert_eq!(world.opened(), world.plain(&[]));
}

#[test]
fn a_false_share_stops_the_round_and_opens_nothing() {
    let mut world = World::new(4, 4);
    for _ in 0..4 {
        world.decide();
        world.collect(&[]);
        world.reduce();
    }
    world.decide();
    let (phase, site) = (world.phase(), world.parties[1].name.clone());
    let mut shares = UnmaskShares::from_bytes(&world.answer(&site, &phase).unwrap()).unwrap();
    shares.seeds[0].bytes[0] ^= 1;
    let bytes = shares.to_bytes().unwrap();
    world.check(&phase, &site, &bytes).unwrap();
    let delivery = Delivery {
        blob: world.blobs.put(&bytes).unwrap(),
        bytes_up: 0,
        bytes_down: 0,
        seconds: 0.0,
        spend: None,
    };
    world.happen(Event::Delivered { site, key: phase.key, delivery });
    world.collect(&[]);
    world.reduce();
    assert!(matches!(&world.run.status, Status::Failed(reason) if reason.contains("a false one")));
    assert_eq!(world.run.outputs.len(), 4, "the last stage is not over");
}

#[test]
fn keys_under_the_credentials_of_another_site_are_refused() {
    let mut world = World::new(4, 4);
    world.decide();
    let (phase, site) = (world.phase(), world.parties[1].name.clone());
    let own = world.answer(&site, &phase).unwrap();
    let introduction = Introduction::from_bytes(&own).unwrap();
    let swapped = Introduction { credentials: world.parties[2].credentials(), ..introduction };
    let error = world.check(&phase, &site, &swapped.to_bytes().unwrap()).unwrap_err();
    assert!(error.message.contains("credentials of s2"), "{error}");
    // Of another coordinator's authority.
    let elsewhere = World::new(4, 4);
    let stranger = Introduction { credentials: elsewhere.parties[1].credentials(), ..swapped };
    let error = world.check(&phase, &site, &stranger.to_bytes().unwrap()).unwrap_err();
    assert!(error.message.contains("not of this authority"), "{error}");
}

#[test]
fn a_round_that_too_few_answer_goes_on_after_a_resumption() {
    let mut world = World::new(5, 4);
    world.decide();
    world.collect(&[]);
    world.reduce();
    world.decide();
    world.collect(&[]);
    world.reduce();
    world.decide();
    let key = world.phase().key;
    world.collect(&["s0", "s4"]);
    assert!(matches!(&world.run.status, Status::Failed(reason) if reason.contains("3 sites answered")));
    world.happen(Event::Resumed);
    world.decide();
    assert_eq!(world.phase().key, key, "it is the same question");
    assert_eq!(world.run.awaited().len(), 2, "of those that have not answered");
    world.collect(&[]);
    world.reduce();
    world.decide();
    world.collect(&[]);
    world.reduce();
    world.decide();
    world.collect(&[]);
    world.reduce();
    assert_eq!(world.opened(), world.plain(&[]));
}

#[test]
fn an_open_sum_outlives_a_resumption_of_what_follows() {
    let mut world = World::new(4, 4);
    world.sum(none);
    let asked = world.with(|context| question(context, AFTER, &(), Vec::new(), "metrics", 10)).unwrap();
    world.happen(Event::Decided { next: Next::Collect(asked) });
    world.happen(Event::Aborted);
    world.happen(Event::Resumed);
    assert_eq!(world.opened(), world.plain(&[]));
}

#[test]
fn a_withdrawal_begins_a_round_of_its_own_with_other_keys() {
    let mut world = World::new(5, 3);
    world.sum(none);
    let first = world.run.outputs.clone();
    world.happen(Event::Withdrawn { site: world.parties[4].name.clone() });
    assert!(world.run.outputs.is_empty());
    world.sum(none);
    assert_eq!(world.opened(), world.plain(&["s4"]));
    let terms = |output: &PhaseOutput| world.with(|context| outcome(context, output)).unwrap().terms;
    assert_eq!(terms(&first[0]).round / 1_000_000, 1);
    assert_eq!(terms(&world.run.outputs[0]).round / 1_000_000, 2);
    assert_ne!(first[0].key, world.run.outputs[0].key);
}

#[test]
fn sites_do_not_open_a_sum_that_would_single_out_the_withdrawn() {
    let mut world = World::new(5, 3);
    world.parties.iter_mut().for_each(|party| party.compare_cohorts(3));
    world.sum(none);
    world.happen(Event::Withdrawn { site: world.parties[4].name.clone() });
    for _ in 0..3 {
        world.decide();
        world.collect(&[]);
        world.reduce();
    }
    world.decide();
    world.collect(&[]);
    assert!(matches!(&world.run.status, Status::Failed(reason) if reason.contains("single them out")));
}

#[test]
fn a_sum_of_a_single_site_is_not_asked_for() {
    let world = World::new(1, 1);
    let error = world.next().unwrap_err();
    assert!(error.class == Class::Invalid && error.message.contains("min_cohort"), "{error}");
}
