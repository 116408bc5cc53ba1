//! What an answer must be paid for with: part of every specification under a plan's `[privacy]`, and what a site says
//! of it afterwards.

use serde::{Deserialize, Serialize};
use sheaf_privacy::{Delta, Event};

/// Differential privacy of an answer: add or remove one unit. The site charges the event to its ledger before it draws
/// any noise, or declines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacySpec {
    /// Whose presence is protected: `row`, or the column whose equal values are one unit.
    pub unit: String,
    /// The delta that the run's epsilon is stated at.
    pub delta: Delta,
    /// The mechanism, for the whole run.
    pub event: Event,
    /// What the run will ask for afterwards on the same records: a site that could not pay for that declines before it has paid
    /// for this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<Event>,
    /// Of training with noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<NoisyTraining>,
}

/// DP-SGD beside its event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoisyTraining {
    /// The most that one unit's gradient may weigh, L2 over all tensors.
    pub clip: f64,
    /// A public stand-in for a site's number of units, which itself is private: sums are divided by it times the rate.
    pub units: u64,
    /// Noised steps of this round.
    pub steps: u64,
    /// Noised steps of this round and all after it: what a site that joins now reserves.
    pub rest: u64,
}

/// The specification of any workload, as far as privacy goes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Priced {
    /// None: the answer is not noised.
    #[serde(default)]
    pub privacy: Option<PrivacySpec>,
}
