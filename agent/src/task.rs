//! What this agent can do, one file a workload.

pub mod afl;
pub mod fdkt;
pub mod fedavg;
pub mod parameters;
pub mod rewardds;
mod secure_round;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};
use sheaf_data::{AssetStore, Schema, Source};
use sheaf_models::{Compute, DeviceChoice};
use sheaf_proto::privacy::{Priced, PrivacySpec};

use crate::{budget::Purse, device, egress::Answer, error::AgentError, secure::SecureRounds};

/// Workloads of this build.
pub const WORKLOADS: &[&str] = &[
    sheaf_proto::afl::WORKLOAD,
    sheaf_proto::fedavg::WORKLOAD,
    sheaf_proto::fdkt::WORKLOAD,
    sheaf_proto::rewardds::WORKLOAD,
];

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

/// What the site lends to a task.
pub struct Resources<'a> {
    /// Public data sets and models.
    pub assets: &'a AssetStore,
    /// The site's folder for what was computed from its records and may serve again; it need not exist yet.
    pub cache: &'a Path,
    /// The data set that the cache is for: what is no longer in it goes from the cache too. None where agents of a
    /// simulation share one cache, from which nothing goes.
    pub owner: Option<&'a str>,
    device: DeviceChoice,
    /// The right to draw noise, for a task whose answer must be paid for; whoever draws takes it.
    purse: Mutex<Option<Purse>>,
    secure: Option<SecureRounds<'a>>,
    /// The site's own folder of the run; it need not exist yet.
    kept: Option<PathBuf>,
    /// Hears where long work is.
    told: Option<&'a (dyn Fn(&str) + Sync)>,
}

impl<'a> Resources<'a> {
    /// What a site with this configuration lends.
    pub const fn new(
        assets: &'a AssetStore,
        cache: &'a Path,
        owner: Option<&'a str>,
        device: DeviceChoice,
    ) -> Self {
        Self { assets, cache, owner, device, purse: Mutex::new(None), secure: None, kept: None, told: None }
    }

    /// The same for a task that must pay.
    #[must_use]
    pub fn with_purse(self, purse: Option<Purse>) -> Self {
        Self { purse: Mutex::new(purse), ..self }
    }

    /// Takes the right to draw noise.
    ///
    /// # Errors
    /// [`AgentError::Task`] where the task did not say what it pays.
    pub fn purse(&self) -> Result<Purse, AgentError> {
        let mut purse = self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        purse.take().ok_or_else(|| AgentError::Task("noise is asked for, but no budget was named".to_owned()))
    }

    /// With somebody who hears where long work is, and tells the coordinator.
    #[must_use]
    pub fn with_told(self, told: Option<&'a (dyn Fn(&str) + Sync)>) -> Self {
        Self { told, ..self }
    }

    /// Says where long work is. Nothing of records, and nothing while noised steps are made: how long one takes tells how many
    /// records were drawn for it, which the privacy of the steps rests on.
    pub fn tell(&self, what: &str) {
        if let Some(told) = self.told {
            told(what);
        }
    }

    /// With a folder for what a run leaves at the site, for the site alone.
    #[must_use]
    pub fn with_kept(self, kept: Option<PathBuf>) -> Self {
        Self { kept, ..self }
    }

    /// The site's folder of the run for files of this name, made where it is missing. None outside of an agent's tasks.
    ///
    /// # Errors
    /// [`AgentError::File`] where it cannot be made.
    pub fn kept(&self, name: &str) -> Result<Option<PathBuf>, AgentError> {
        let Some(kept) = &self.kept else { return Ok(None) };
        std::fs::create_dir_all(kept).map_err(AgentError::file(kept))?;
        Ok(Some(kept.join(name)))
    }

    /// Writes a file that stays at the site, in the place of an older one of its name.
    ///
    /// # Errors
    /// [`AgentError::File`].
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), AgentError> {
        let Some(path) = self.kept(name)? else { return Ok(()) };
        std::fs::write(&path, bytes).map_err(AgentError::file(&path))
    }

    /// With what secure sums need.
    #[must_use]
    pub fn with_secure(self, secure: Option<SecureRounds<'a>>) -> Self {
        Self { secure, ..self }
    }

    /// What secure sums need.
    ///
    /// # Errors
    /// [`AgentError::Task`] where there is none: outside of an enrolled agent's tasks.
    pub fn secure(&self) -> Result<&SecureRounds<'a>, AgentError> {
        self.secure.as_ref().ok_or_else(|| {
            AgentError::Task("secure aggregation needs an enrolled site with its signing key".to_owned())
        })
    }

    /// The device to compute on, opened by the first task of the process that asks.
    pub fn compute(&self) -> Result<Compute, AgentError> {
        device::lease(self.device)
    }
}

/// The site's side of a workload. Blocks; `cancelled` is asked between blocks of records.
pub trait Workload: Send + Sync {
    /// The columns of the site's records that the task would read, for the policy and for people.
    fn columns(&self, assignment: &Assignment) -> Result<Vec<String>, AgentError>;

    /// The pre-trained models that the task would run, for the policy: those that the specification's schema names.
    fn models(&self, assignment: &Assignment) -> Result<Vec<String>, AgentError> {
        #[derive(serde::Deserialize)]
        struct Reading {
            schema: Schema,
        }
        let Reading { schema } = parse(&assignment.spec)?;
        Ok(schema.backbone.map(|backbone| backbone.model).into_iter().collect())
    }

    /// Whether the answer is of records at all. One that is not needs no noise, wherever noise is asked for.
    fn reads_records(&self, _assignment: &Assignment) -> bool {
        true
    }

    /// What the answer must be paid for with, which every specification carries under one name; none for an exact one.
    fn privacy(&self, assignment: &Assignment) -> Result<Option<PrivacySpec>, AgentError> {
        let Priced { privacy } = parse(&assignment.spec)?;
        Ok(privacy)
    }

    /// Answers one task from the site's records.
    fn perform(
        &self,
        assignment: &Assignment,
        source: &Source,
        resources: &Resources<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Answer, AgentError>;
}

/// A specification as the document that the phase has it in.
///
/// # Errors
/// [`AgentError::Task`] for another one.
pub(crate) fn parse<T: DeserializeOwned>(spec: &[u8]) -> Result<T, AgentError> {
    serde_json::from_slice(spec)
        .map_err(|e| AgentError::Task(format!("the specification cannot be read: {e}")))
}

fn to_json(document: &impl Serialize) -> Result<Vec<u8>, AgentError> {
    serde_json::to_vec(document).map_err(|e| AgentError::Task(e.to_string()))
}

/// The registry.
pub fn named(name: &str) -> Result<&'static dyn Workload, AgentError> {
    match name {
        sheaf_proto::afl::WORKLOAD => Ok(&afl::Afl),
        sheaf_proto::fedavg::WORKLOAD => Ok(&fedavg::Fedavg),
        sheaf_proto::fdkt::WORKLOAD => Ok(&fdkt::Fdkt),
        sheaf_proto::rewardds::WORKLOAD => Ok(&rewardds::Rewardds),
        _ => Err(AgentError::Denied(format!(
            "this agent does not know the workload \"{name}\"; a newer version may"
        ))),
    }
}
