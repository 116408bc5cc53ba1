//! What each event does to the state.

use sheaf_proto::BlobId;
use sheaf_transport::identity::SiteName;

use super::{Admission, Membership, PhaseSpan, Run, Stage, Status};
use crate::run::event::{Delivery, Next, PhaseOutput};

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

    /// Back to the first decision; everything delivered stays.
    fn restart(&mut self, at: i64) {
        self.close_span(at);
        self.status = Status::Running;
        self.finished_at = None;
        self.outputs.clear();
        self.enter(Stage::Deciding);
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
            Next::Collect(phase) => {
                self.spans.push(PhaseSpan {
                    name: phase.name.clone(),
                    key: phase.key.clone(),
                    opened_at: at,
                    closed_at: None,
                });
                self.enter(Stage::Collecting(phase.clone()));
                self.excused.clear();
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
        let (counted, defines_model) = match &self.stage {
            Stage::Collecting(phase) => {
                (self.deliveries.get(&phase.key).is_some_and(|a| a.contains_key(site)), phase.defines_model)
            }
            // Merging is under way: what was delivered stays in.
            _ => return,
        };
        if counted {
            return;
        }
        if !defines_model {
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
        let (name, defines_model) = (phase.name.clone(), phase.defines_model);
        let missing = self.awaited();
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

    fn close_if_complete(&mut self, at: i64) {
        if self.outstanding == 0
            && matches!(self.stage, Stage::Collecting(_))
            && self.status == Status::Running
        {
            self.reduce(at);
        }
    }

    fn reduce(&mut self, at: i64) {
        if let Stage::Collecting(phase) = &self.stage {
            let phase = phase.clone();
            self.close_span(at);
            self.enter(Stage::Reducing(phase));
        }
    }

    pub(super) fn reduced(&mut self, key: &str, output: &BlobId) {
        let Stage::Reducing(phase) = &self.stage else {
            return;
        };
        if self.status != Status::Running || phase.key != key {
            return;
        }
        let output = PhaseOutput {
            name: phase.name.clone(),
            key: key.to_owned(),
            output: *output,
            members: self.contributions(key).into_iter().map(|(site, _)| site).collect(),
        };
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
