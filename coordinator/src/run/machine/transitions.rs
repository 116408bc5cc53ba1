//! What each event does to the state.

use std::collections::BTreeSet;

use sheaf_proto::BlobId;
use sheaf_transport::identity::SiteName;

use super::{Admission, Membership, PhaseSpan, Run, Stage, Status};
use crate::run::event::{Delivery, Next, PhaseOutput, PhaseSpec};

impl Run {
    pub(super) fn set_member(&mut self, site: &SiteName, membership: Membership) {
        self.members.insert(site.clone(), membership);
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.stage_id += 1;
    }

    pub(super) fn stop(&mut self, status: Status) {
        self.status = status;
        self.stage_id += 1;
    }

    pub(super) fn begin_version(&mut self, at: i64) {
        self.version += 1;
        self.started_at = at;
        let aborted = self.status == Status::Aborted;
        self.restart(at);
        self.spans.clear();
        if aborted {
            // The operator stopped it; `resume` goes on with the members there are then.
            self.stop(Status::Aborted);
        }
    }

    /// Back to the first decision, or to the one after the last finished round; everything delivered stays.
    fn restart(&mut self, at: i64) {
        self.close_span(at);
        self.status = Status::Running;
        self.finished_at = None;
        let rounds = self.outputs.iter().rposition(|output| output.round).map_or(0, |last| last + 1);
        self.outputs.truncate(rounds);
        self.enter(Stage::Deciding);
    }

    /// A late site: before the first round is over it is part of the question, after that it joins at the next round.
    pub(super) fn added(&mut self, site: &SiteName, at: i64) {
        if self.members.get(site) == Some(&Membership::In)
            || (self.in_rounds() && self.status == Status::Done)
        {
            return;
        }
        self.set_member(site, Membership::In);
        if !self.in_rounds() {
            return self.begin_version(at);
        }
        if let Stage::Collecting(_) = &self.stage {
            self.excused.insert(site.clone());
        }
    }

    pub(super) fn resume(&mut self, at: i64) {
        for membership in self.members.values_mut() {
            if matches!(membership, Membership::Dropped(_) | Membership::Declined(_)) {
                *membership = Membership::In;
            }
        }
        self.restart(at);
    }

    pub(super) fn decided(&mut self, next: &Next, at: i64) {
        if self.status != Status::Running || self.stage != Stage::Deciding {
            return;
        }
        match next {
            Next::Publish => self.enter(Stage::Publishing),
            Next::Collect(phase) if phase.defines_model && self.members_in().count() < self.needed() => {
                self.fail_below_quorum(at);
            }
            Next::Collect(phase) if phase.may_miss && !self.members_in().any(|site| phase.asks(site)) => {
                self.fail_below_quorum(at);
            }
            Next::Collect(phase) => {
                self.spans.push(PhaseSpan {
                    name: phase.name.clone(),
                    key: phase.key.clone(),
                    opened_at: at,
                    closed_at: None,
                });
                self.enter(Stage::Collecting(phase.clone()));
                self.excused.clear();
                if phase.may_miss {
                    let asked = self.members_in().filter(|site| phase.asks(site)).cloned().collect();
                    self.asked.insert(phase.key.clone(), asked);
                    self.missed.remove(&phase.key);
                }
                self.outstanding = self.awaited().len();
                self.close_if_complete(at);
            }
        }
    }

    pub(super) fn delivered(&mut self, site: &SiteName, key: &str, delivery: &Delivery, at: i64) {
        if self.admit(site, key) != Admission::Accept {
            return;
        }
        self.deliveries.entry(key.to_owned()).or_default().insert(site.clone(), delivery.clone());
        self.outstanding = self.outstanding.saturating_sub(1);
        self.close_if_complete(at);
    }

    pub(super) fn leave(&mut self, site: &SiteName, how: Membership, at: i64) {
        if self.members.get(site) != Some(&Membership::In) || self.status != Status::Running {
            return;
        }
        let phase = match &self.stage {
            Stage::Collecting(phase) => phase.clone(),
            // Merging is under way: what was delivered stays in.
            _ => return,
        };
        if self.deliveries.get(&phase.key).is_some_and(|answers| answers.contains_key(site))
            || !phase.asks(site)
        {
            return;
        }
        if phase.may_miss {
            if !self.excused.contains(site) {
                let (Membership::Declined(reason) | Membership::Dropped(reason)) = how else { return };
                self.miss(&phase, site, reason);
                self.close_round_if_complete(&phase, at);
            }
            return;
        }
        if !phase.defines_model {
            // The model stands without this answer; the site stays a member whose answer is missing.
            if self.excused.insert(site.clone()) {
                self.outstanding = self.outstanding.saturating_sub(1);
                self.close_if_complete(at);
            }
            return;
        }
        self.set_member(site, how);
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.members_in().count() < self.needed() {
            self.fail_below_quorum(at);
        } else if self.outputs.iter().any(|output| output.members.contains(site)) {
            // What was decided from its earlier answers is decided anew without them.
            self.restart(at);
        } else {
            self.close_if_complete(at);
        }
    }

    pub(super) fn deadline(&mut self, key: &str, at: i64) {
        let Stage::Collecting(phase) = &self.stage else {
            return;
        };
        if self.status != Status::Running || phase.key != key {
            return;
        }
        let (phase, name, defines_model) = (phase.clone(), phase.name.clone(), phase.defines_model);
        let missing = self.awaited();
        if phase.may_miss {
            for site in missing {
                self.miss(&phase, &site, format!("no answer to {name} by the deadline"));
            }
            self.close_round_if_complete(&phase, at);
            return;
        }
        if !defines_model {
            self.reduce(at);
            return;
        }
        let present = self.members_in().count() - missing.len();
        if present < self.needed() {
            let names: Vec<_> = missing.iter().map(SiteName::as_str).collect();
            self.close_span(at);
            self.stop(Status::Failed(format!(
                "phase {name}: {present} of {} sites answered by the deadline and {} are needed; missing: {}. \
                 Start it again with `sheaf run resume` when they are back, or submit with a smaller quorum",
                present + missing.len(),
                self.needed(),
                abbreviate(&names),
            )));
            return;
        }
        let had_part = missing.iter().any(|s| self.outputs.iter().any(|o| o.members.contains(s)));
        for site in missing {
            self.set_member(&site, Membership::Dropped(format!("no answer to phase {name} by the deadline")));
        }
        self.outstanding = 0;
        if had_part {
            self.restart(at);
        } else {
            self.close_if_complete(at);
        }
    }

    /// Counts a member out of the open round.
    fn miss(&mut self, phase: &PhaseSpec, site: &SiteName, reason: String) {
        if self.excused.insert(site.clone()) {
            self.outstanding = self.outstanding.saturating_sub(1);
            self.missed.entry(phase.key.clone()).or_default().insert(site.clone(), reason);
        }
    }

    /// Ends a round that waits for nobody, with the answers there are or, if they are too few, the run.
    fn close_round_if_complete(&mut self, phase: &PhaseSpec, at: i64) {
        if self.outstanding > 0 {
            return;
        }
        let (present, needed) = (self.contributions(&phase.key).len(), self.needed_for(phase));
        if present >= needed.max(1) {
            return self.reduce(at);
        }
        let missed: Vec<String> = self
            .missed
            .get(&phase.key)
            .map(|missed| missed.iter().map(|(site, reason)| format!("{site}: {reason}")).collect())
            .unwrap_or_default();
        let missed: Vec<&str> = missed.iter().map(String::as_str).collect();
        self.close_span(at);
        self.stop(Status::Failed(format!(
            "{}: {present} sites answered and {needed} are needed; {}. `sheaf run resume` goes on with this round \
             when they are back, or submit with a smaller quorum",
            phase.name,
            abbreviate(&missed),
        )));
    }

    fn close_if_complete(&mut self, at: i64) {
        if self.outstanding > 0 || self.status != Status::Running {
            return;
        }
        if let Stage::Collecting(phase) = &self.stage {
            if phase.may_miss {
                let phase = phase.clone();
                self.close_round_if_complete(&phase, at);
            } else {
                self.reduce(at);
            }
        }
    }

    fn reduce(&mut self, at: i64) {
        if let Stage::Collecting(phase) = &self.stage {
            let phase = phase.clone();
            // What nobody is asked takes its time after this.
            if !phase.asks_nobody() {
                self.close_span(at);
            }
            self.enter(Stage::Reducing(phase));
        }
    }

    pub(super) fn reduced(&mut self, key: &str, output: &BlobId, at: i64) {
        let Stage::Reducing(phase) = &self.stage else {
            return;
        };
        if self.status != Status::Running || phase.key != key {
            return;
        }
        let mut members: Vec<SiteName> = self.contributions(key).into_iter().map(|(site, _)| site).collect();
        if phase.asks_nobody() {
            // It is made of what the phases before it gave.
            let before = self.outputs.iter().flat_map(|output| output.members.iter().cloned());
            members = before.collect::<BTreeSet<_>>().into_iter().collect();
        }
        let output = PhaseOutput {
            name: phase.name.clone(),
            key: key.to_owned(),
            output: *output,
            members,
            round: phase.may_miss,
        };
        self.close_span(at);
        self.archive.insert(key.to_owned(), output.clone());
        self.outputs.push(output);
        self.enter(Stage::Deciding);
    }

    pub(super) fn published(&mut self, publication: &BlobId, at: i64) {
        if self.status == Status::Running && self.stage == Stage::Publishing {
            self.publications.insert(self.version, *publication);
            self.finished_at = Some(at);
            self.stop(Status::Done);
        }
    }

    fn fail_below_quorum(&mut self, at: i64) {
        let gone: Vec<_> = self
            .members
            .iter()
            .filter_map(|(site, m)| match m {
                Membership::Declined(reason) | Membership::Dropped(reason) => {
                    Some(format!("{site}: {reason}"))
                }
                _ => None,
            })
            .collect();
        self.close_span(at);
        let names: Vec<_> = gone.iter().map(String::as_str).collect();
        self.stop(Status::Failed(format!(
            "{} sites are left and {} are needed. {}",
            self.members_in().count(),
            self.needed(),
            abbreviate(&names),
        )));
    }

    fn close_span(&mut self, at: i64) {
        if let Some(span) = self.spans.last_mut()
            && span.closed_at.is_none()
        {
            span.closed_at = Some(at);
        }
    }
}

/// The first few of many names.
fn abbreviate(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    match names.len() {
        0..=SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    }
}
