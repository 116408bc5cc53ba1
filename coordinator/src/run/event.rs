//! What can happen to a run. Events are the journal: their JSON form is kept for ever, so variants and
//! fields are only added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_proto::BlobId;
use sheaf_transport::identity::SiteName;

use crate::privacy::SignedStatement;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Position, from 0 without gaps.
    pub seq: i64,
    /// Unix milliseconds.
    pub at: i64,
    /// What happened.
    pub event: Event,
}

/// What a phase asks of every member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseSpec {
    /// For people: "survey", "sums", "evaluate".
    pub name: String,
    /// Names the question by content: equal keys are the same task.
    pub key: String,
    /// The specification, a JSON document of the workload.
    pub spec: BlobId,
    /// Blobs a site needs to answer.
    pub inputs: Vec<BlobId>,
    /// Kinds of output the answer consists of, for the site's policy.
    pub releases: Vec<String>,
    /// Whether the model depends on the answers. If so, a member without one leaves the run and earlier
    /// phases are decided anew without it; if not, its answer is merely missing.
    pub defines_model: bool,
    /// Larger answers are refused, bytes.
    pub max_result_bytes: u64,
    /// A round of many: a member without an answer is counted out of this round alone and asked again in the
    /// next, and what a finished round gave is never decided anew but by a withdrawal.
    #[serde(default, skip_serializing_if = "is_false")]
    pub may_miss: bool,
    /// Whom it is asked of; every member when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<Vec<SiteName>>,
    /// Blobs that single sites need beside those of all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub site_inputs: BTreeMap<SiteName, Vec<BlobId>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl PhaseSpec {
    /// Blobs that a site needs: those of all, then its own.
    pub fn inputs_of(&self, site: &SiteName) -> impl Iterator<Item = &BlobId> {
        self.inputs.iter().chain(self.site_inputs.get(site).into_iter().flatten())
    }

    /// Whether no site is asked: the coordinator alone makes the output, of the outputs before it.
    pub fn asks_nobody(&self) -> bool {
        self.sites.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether a member is asked.
    pub fn asks(&self, site: &SiteName) -> bool {
        self.sites.as_ref().is_none_or(|sites| sites.contains(site))
    }
}

/// A finished phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseOutput {
    /// The phase's name.
    pub name: String,
    /// The phase's key.
    pub key: String,
    /// What the workload made of the answers, a JSON document.
    pub output: BlobId,
    /// Whose answers are in it.
    pub members: Vec<SiteName>,
    /// A finished round: only a withdrawal decides it anew.
    #[serde(default)]
    pub round: bool,
}

/// What comes next, as the workload decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// Ask the members.
    Collect(PhaseSpec),
    /// All is known.
    Publish,
}

/// A site's answer to a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The answer.
    pub blob: BlobId,
    /// Bytes the site sent for it.
    pub bytes_up: u64,
    /// Bytes the site fetched for it.
    pub bytes_down: u64,
    /// Computing time at the site.
    pub seconds: f64,
    /// What the run has cost the site so far, where it was paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend: Option<SignedStatement>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The operator submitted the plan.
    Submitted {
        /// The run's name for people.
        name: String,
        /// The workload.
        workload: String,
        /// SHA-256 of the plan's text.
        plan_sha256: String,
        /// Invited sites.
        sites: Vec<SiteName>,
        /// Smallest number of sites to go on with; none: all that were not withdrawn.
        quorum: Option<usize>,
    },
    /// The workload decided what comes next.
    Decided {
        /// What.
        next: Next,
    },
    /// A site's answer arrived and passed every check.
    Delivered {
        /// From.
        site: SiteName,
        /// To which task.
        key: String,
        /// The answer.
        delivery: Delivery,
    },
    /// A site will not or cannot take part.
    Declined {
        /// Who.
        site: SiteName,
        /// Its words.
        reason: String,
    },
    /// The time for a phase is over.
    DeadlinePassed {
        /// Of which task.
        key: String,
    },
    /// The answers were merged.
    Reduced {
        /// Of which task.
        key: String,
        /// The result.
        output: BlobId,
    },
    /// The model is out.
    Published {
        /// The publication document.
        publication: BlobId,
    },
    /// The run cannot go on as it is.
    Failed {
        /// Why and what to do.
        reason: String,
    },
    /// The operator stopped the run.
    Aborted,
    /// The operator started it again.
    Resumed,
    /// The operator took a site's contribution out.
    Withdrawn {
        /// Whose.
        site: SiteName,
    },
    /// The operator took a late site in.
    Added {
        /// Whom.
        site: SiteName,
    },
}
