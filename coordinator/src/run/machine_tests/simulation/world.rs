//! The sites, the operator and the workload of a simulated run, as they really are.

use std::collections::BTreeMap;

use super::*;

/// The federation as it really is, beside the run's idea of it.
pub(super) struct World {
    pub(super) book: Book,
    /// Whether the question for sums is the same whatever the survey gave.
    same_question: bool,
    /// Makes every answer different.
    nonce: u64,
    on_the_way: Vec<(SiteName, String, BlobId)>,
    /// Answers that were acknowledged and are not withdrawn.
    acknowledged: BTreeMap<(SiteName, String), BlobId>,
    /// Taken out by the operator and not taken in again.
    withdrawn: BTreeSet<SiteName>,
    publications: BTreeMap<u32, BlobId>,
}

fn nth(sites: &[SiteName], n: usize) -> Option<&SiteName> {
    sites.get(n % sites.len().max(1))
}

/// What a site's answers are worth.
fn worth(site: &SiteName) -> u64 {
    let index = SITES.iter().position(|name| *name == site.as_str()).unwrap();
    1 << index
}

impl World {
    pub(super) fn new(quorum: Option<usize>, same_question: bool) -> Self {
        Self {
            book: Book::submit(&SITES[..INVITED], quorum),
            same_question,
            nonce: 0,
            on_the_way: Vec::new(),
            acknowledged: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            publications: BTreeMap::new(),
        }
    }

    fn run(&self) -> &Run {
        &self.book.run
    }

    fn answer_of(&mut self, site: &SiteName, key: &str) -> BlobId {
        self.nonce += 1;
        BlobId::new(*blob(&format!("{site} {key} {}", self.nonce)).sha256(), worth(site))
    }

    fn deliver(&mut self, site: &SiteName) {
        self.send(site);
        self.arrive(self.on_the_way.len() - 1);
    }

    pub(super) fn act(&mut self, op: &Op) {
        match op {
            Op::Job => self.job(),
            Op::Jobs => self.jobs(),
            Op::JobFails => {
                if self.run().status == Status::Running && self.book.stage().0 != "collecting" {
                    self.book.push(Event::Failed { reason: "a job failed".into() });
                }
            }
            Op::MostDeliver(n) => {
                let awaited = self.run().awaited();
                for other in awaited.iter().filter(|other| Some(*other) != nth(&awaited, *n)) {
                    self.deliver(other);
                }
            }
            Op::Deliver(n) => {
                if let Some(site) = nth(&self.run().awaited(), *n) {
                    self.deliver(site);
                }
            }
            Op::Send(n) => {
                if let Some(site) = nth(&self.run().awaited(), *n) {
                    self.send(site);
                }
            }
            Op::Arrive(n) => {
                // What comes back to front is no worse than what comes in order.
                let n = self.on_the_way.len().saturating_sub(1 + n);
                self.arrive(n);
            }
            Op::Again(n) => self.again(&site(SITES[*n])),
            Op::Decline(n) => {
                if let Some(site) = nth(&self.run().awaited(), *n) {
                    self.book.push(declined(site.as_str()));
                }
            }
            Op::Deadline => {
                if let ("collecting", key) = self.book.stage()
                    && self.run().status == Status::Running
                {
                    let event = deadline(key);
                    self.book.push(event);
                }
            }
            Op::Abort => {
                if self.run().status == Status::Running {
                    self.book.push(Event::Aborted);
                }
            }
            Op::Resume => {
                if matches!(self.run().status, Status::Failed(_) | Status::Aborted) {
                    self.book.push(Event::Resumed);
                }
            }
            Op::Withdraw(n) => self.withdraw(site(SITES[*n])),
            Op::Add(n) => {
                let site = site(SITES[*n]);
                if self.run().can_add(&site).is_ok() {
                    self.withdrawn.remove(&site);
                    self.book.push(Event::Added { site });
                }
            }
            Op::Restart => self.restart(),
            Op::Stray(n) => self.stray(*n),
        }
    }

    /// The first check of an answer, as `RunHandle::deliver` makes it.
    fn send(&mut self, site: &SiteName) {
        let key = self.run().task_for(site).unwrap().key.clone();
        assert_eq!(self.run().admit(site, &key), Admission::Accept);
        let blob = self.answer_of(site, &key);
        self.on_the_way.push((site.clone(), key, blob));
    }

    /// The second, as the driver makes it; in between anything may have happened.
    fn arrive(&mut self, n: usize) {
        if n >= self.on_the_way.len() {
            return;
        }
        let (site, key, blob) = self.on_the_way.remove(n);
        if self.run().admit(&site, &key) != Admission::Accept {
            return;
        }
        self.book.push(Event::Delivered { site: site.clone(), key: key.clone(), delivery: answer(blob) });
        let before = self.acknowledged.insert((site, key), blob);
        assert_eq!(before, None, "an answer was taken twice");
    }

    fn again(&mut self, site: &SiteName) {
        let answered = self.acknowledged.keys().find(|(who, _)| who == site).cloned();
        if let Some((site, key)) = answered {
            assert_eq!(self.run().admit(&site, &key), Admission::Duplicate);
            let blob = self.answer_of(&site, &key);
            self.unchanged(Event::Delivered { site, key, delivery: answer(blob) });
        }
    }

    fn withdraw(&mut self, site: SiteName) {
        if self.run().can_withdraw(&site).is_err() {
            return;
        }
        self.acknowledged.retain(|(who, _), _| *who != site);
        self.book.push(Event::Withdrawn { site: site.clone() });
        assert!(self.run().task_for(&site).is_none());
        self.withdrawn.insert(site);
    }

    /// What is in the memory is what the journal's text says, wherever the coordinator dies.
    pub(super) fn restart(&mut self) {
        let text: Vec<_> =
            self.book.entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        let entries: Vec<Entry> = text.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let run = Run::replay(&entries).unwrap();
        assert_eq!(run, self.book.run);
        self.book.run = run;
        // Calls that were open are lost with the process.
        self.on_the_way.clear();
    }

    fn stray(&mut self, n: usize) {
        let stage = self.book.stage().0;
        let running = self.run().status == Status::Running;
        let event = match n {
            0 if !(running && stage == "deciding") => collect("survey"),
            1 if !(running && stage == "deciding") => publish(),
            2 if !(running && stage == "publishing") => published(),
            3 => deadline("another"),
            4 => reduced("another"),
            5 => delivered("stranger", "survey"),
            _ => declined("stranger"),
        };
        self.unchanged(event);
    }

    fn unchanged(&mut self, event: Event) {
        let mut before = self.run().clone();
        before.events += 1;
        self.book.push(event);
        assert_eq!(*self.run(), before);
    }

    /// What the workload does in this stage, if it has anything to do.
    fn job(&mut self) {
        if self.run().status != Status::Running {
            return;
        }
        let event = match self.run().stage.clone() {
            Stage::Collecting(_) => return,
            Stage::Deciding => Event::Decided { next: self.decide() },
            Stage::Reducing(phase) => self.merge(&phase),
            Stage::Publishing => Event::Published { publication: self.run().outputs[1].output },
        };
        self.book.push(event);
        if self.run().status == Status::Done {
            self.settle();
        }
    }

    fn jobs(&mut self) {
        while self.run().status == Status::Running && self.book.stage().0 != "collecting" {
            self.job();
        }
    }

    fn decide(&self) -> Next {
        let (name, key) = match self.run().outputs.as_slice() {
            [] => ("survey", "survey".to_owned()),
            [_] if self.same_question => ("sums", "sums".to_owned()),
            [survey] => ("sums", format!("sums-{}", survey.output.size())),
            [_, sums] => ("evaluate", format!("evaluate-{}", sums.output.size())),
            _ => return Next::Publish,
        };
        Next::Collect(phase(name, &key))
    }

    fn merge(&self, phase: &PhaseSpec) -> Event {
        let contributions = self.run().contributions(&phase.key);
        for (site, blob) in &contributions {
            let current = self.acknowledged.get(&(site.clone(), phase.key.clone()));
            assert_eq!(current, Some(blob), "an answer of {site} that was not acknowledged, or withdrawn");
        }
        if phase.defines_model {
            let invited = self.run().members.keys();
            let wanted = invited.filter(|site| !self.withdrawn.contains(*site)).count();
            let needed = self.run().quorum.unwrap_or(wanted);
            assert!(contributions.len() >= needed.max(1), "the quorum was undercut");
        }
        let sum = contributions.iter().map(|(_, blob)| blob.size()).sum();
        Event::Reduced {
            key: phase.key.clone(),
            output: BlobId::new(*blob(&format!("{contributions:?}")).sha256(), sum),
        }
    }

    /// The sum is that of the members, each once, and earlier publications are as they were.
    fn settle(&mut self) {
        let run = &self.book.run;
        assert!(run.members_in().all(|site| !self.withdrawn.contains(site)), "a withdrawn site is back");
        let expected: u64 = run.members_in().map(worth).sum();
        let publication = run.publications[&run.version];
        assert_eq!(publication.size(), expected, "double or missing: {:b}", publication.size() ^ expected);
        for (version, before) in &self.publications {
            assert_eq!(run.publications.get(version), Some(before), "version {version} has changed");
        }
        self.publications.clone_from(&run.publications);
    }

    /// Some phases without an accident, so that the late ones see as many as the early ones.
    pub(super) fn advance(&mut self, phases: usize) {
        for _ in 0..phases {
            self.jobs();
            for site in self.run().awaited() {
                self.deliver(&site);
            }
        }
        self.jobs();
    }

    /// Everybody does what is asked: from wherever the run is, it comes to its end.
    pub(super) fn finish(&mut self) {
        for _ in 0..20 {
            if self.run().status == Status::Done {
                return self.settle();
            }
            self.act(&Op::Resume);
            self.jobs();
            for site in self.run().awaited() {
                self.deliver(&site);
            }
        }
        panic!("the run does not come to its end: {:?}", self.run());
    }
}
