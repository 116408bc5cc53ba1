//! What this agent can do, one file a workload.

pub mod afl;

use sheaf_data::{AssetStore, Source};

use crate::{egress::Answer, error::AgentError};

/// Workloads of this build.
pub const WORKLOADS: &[&str] = &[sheaf_proto::afl::WORKLOAD];

/// A task with everything it needs but the records.
pub struct Assignment {
    /// The phase's name.
    pub phase: String,
    /// The specification, a JSON document of the workload.
    pub spec: Vec<u8>,
    /// The inputs, in the task's order.
    pub inputs: Vec<Vec<u8>>,
    /// Figures about fewer records than this are not made at all.
    pub min_rows: u64,
}

/// The site's side of a workload. Blocks; `cancelled` is asked between blocks of records.
pub trait Workload: Send + Sync {
    /// The columns of the site's records that the task would read, for the policy and for people.
    fn columns(&self, assignment: &Assignment) -> Result<Vec<String>, AgentError>;

    /// Answers one task from the site's records.
    fn perform(
        &self,
        assignment: &Assignment,
        source: &Source,
        assets: &AssetStore,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Answer, AgentError>;
}

/// The registry.
pub fn named(name: &str) -> Result<&'static dyn Workload, AgentError> {
    match name {
        sheaf_proto::afl::WORKLOAD => Ok(&afl::Afl),
        _ => Err(AgentError::Denied(format!(
            "this agent does not know the workload \"{name}\"; a newer version may"
        ))),
    }
}
