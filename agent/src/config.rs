//! `agent.toml`: the coordinator, the data sets, the policy. Unknown keys are refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use sheaf_data::{Source, catalogue::Catalogue};
use sheaf_models::DeviceChoice;
use sheaf_transport::identity::SiteName;

use crate::error::AgentError;

/// In `[policy] models`: every model of the catalogue.
pub const ANY_MODEL: &str = "any";

/// A checked configuration. Relative paths in it are relative to the file.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where keys, outbox and database live.
    pub home: PathBuf,
    /// The coordinator, when it is not the one of the enrolment token.
    pub url: Option<String>,
    /// Where what was computed from the site's records is kept for the next time; it never leaves the site.
    pub cache: PathBuf,
    /// Whether other agents of this machine use the cache too, as in a simulation: then nothing in it is dropped.
    pub cache_shared: bool,
    /// What to compute on.
    pub device: DeviceChoice,
    /// How long a stopping agent waits for its tasks.
    pub stop_grace: Duration,
    /// Whether state must survive a power cut; a simulation's need not.
    pub durable: bool,
    /// Data sets by name.
    pub data: BTreeMap<String, Source>,
    /// What the site allows.
    pub policy: Policy,
}

/// `[policy]`: the site's own rules. They win over anything the coordinator asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Workloads that may run here; none unless named.
    #[serde(default)]
    pub workloads: BTreeSet<String>,
    /// Data sets that may be used; all configured ones when absent.
    #[serde(default)]
    pub datasets: Option<BTreeSet<String>>,
    /// Pre-trained models that may run on the records, by their ids; "any" for every one of the catalogue; none unless
    /// named.
    #[serde(default)]
    pub models: BTreeSet<String>,
    /// Columns that may be read, by data set; all of a data set that is not listed.
    #[serde(default)]
    pub columns: BTreeMap<String, BTreeSet<String>>,
    /// Kinds of output that may leave: "statistics", "sums", "updates", "synthetic", "proxies",
    /// "metrics"; none unless named.
    #[serde(default)]
    pub release: BTreeSet<String>,
    /// Smallest number of sites in a run.
    #[serde(default = "default_cohort")]
    pub min_cohort: u32,
    /// Whether sums and updates leave as masked vectors of secure sums alone. A coordinator that asks for them in plain
    /// sight is refused, whatever its plan says.
    #[serde(default)]
    pub require_secure_aggregation: bool,
    /// In secure sums: two sets of sites over the same records must be equal or differ by so many sites.
    #[serde(default = "default_difference")]
    pub min_difference: u32,
    /// In secure sums: the sites that may take part beside this one, with their signing keys. When empty, any site of the
    /// authority, with the key that it had the first time.
    #[serde(default)]
    pub peers: BTreeMap<SiteName, Fingerprint>,
    /// Smallest number of training rows an output may be made of.
    #[serde(default = "default_rows")]
    pub min_rows: u64,
    /// Whether a person must say yes to each run.
    #[serde(default)]
    pub approve: Approve,
    /// Whether nothing made from records may leave without noise that the ledger was charged for.
    #[serde(default)]
    pub require_dp: bool,
}

/// SHA-256 of a signing key, 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(#[serde(with = "hex::serde")] pub [u8; 32]);

/// Who says yes to a run that the policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Approve {
    /// The policy is enough.
    Auto,
    /// A person, with `sheaf-agent approve RUN`.
    #[default]
    Ask,
}

const fn default_cohort() -> u32 {
    3
}
const fn default_difference() -> u32 {
    3
}
const fn default_rows() -> u64 {
    10
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            workloads: BTreeSet::new(),
            datasets: None,
            models: BTreeSet::new(),
            columns: BTreeMap::new(),
            release: BTreeSet::new(),
            min_cohort: default_cohort(),
            require_secure_aggregation: false,
            min_difference: default_difference(),
            peers: BTreeMap::new(),
            min_rows: default_rows(),
            approve: Approve::Ask,
            require_dp: false,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    agent: AgentSection,
    #[serde(default)]
    data: BTreeMap<String, Source>,
    #[serde(default)]
    policy: Policy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AgentSection {
    home: PathBuf,
    url: Option<String>,
    cache: Option<PathBuf>,
    cache_shared: bool,
    device: DeviceChoice,
    stop_grace: String,
    durable: bool,
}

impl Default for AgentSection {
    fn default() -> Self {
        Self {
            home: PathBuf::from("agent-home"),
            url: None,
            cache: None,
            cache_shared: false,
            device: DeviceChoice::Auto,
            stop_grace: "30s".to_owned(),
            durable: true,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, AgentError> {
        let bad = |reason: String| AgentError::Config { path: path.to_owned(), reason };
        let text = fs::read_to_string(path).map_err(|e| {
            bad(format!(
                "{e}; name the file with --config, or let `sheaf-agent enroll TOKEN` write a first one"
            ))
        })?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::parse(&text, folder).map_err(|e| match e {
            AgentError::Config { reason, .. } => bad(reason),
            other => other,
        })
    }

    /// Reads and checks a text whose relative paths are relative to `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, AgentError> {
        let bad = |reason: String| AgentError::Config { path: folder.to_owned(), reason };
        let mut file: File = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        for source in file.data.values_mut() {
            source.resolve_paths(folder);
        }
        if let Some(unknown) =
            file.policy.datasets.iter().flatten().find(|name| !file.data.contains_key(*name))
        {
            return Err(bad(format!(
                "[policy] datasets names `{unknown}`, but there is no [data.{unknown}]"
            )));
        }
        if let Some(unknown) = file.policy.columns.keys().find(|name| !file.data.contains_key(*name)) {
            return Err(bad(format!("[policy] columns names `{unknown}`, but there is no [data.{unknown}]")));
        }
        let catalogue = Catalogue::known()?;
        if let Some(unknown) =
            file.policy.models.iter().find(|id| *id != ANY_MODEL && catalogue.model(id).is_err())
        {
            let known: Vec<_> = catalogue.models().map(|model| model.id.as_str()).collect();
            return Err(bad(format!(
                "[policy] models names `{unknown}`; known are {}, any",
                known.join(", ")
            )));
        }
        let kinds = ["statistics", "sums", "updates", "synthetic", "proxies", "metrics"];
        if let Some(unknown) = file.policy.release.iter().find(|kind| !kinds.contains(&kind.as_str())) {
            return Err(bad(format!("[policy] release names `{unknown}`; known are {}", kinds.join(", "))));
        }
        let stop_grace = humantime::parse_duration(&file.agent.stop_grace)
            .map_err(|e| bad(format!("[agent] stop_grace: {e}; write \"30s\" or \"2m\"")))?;
        let home = folder.join(file.agent.home);
        Ok(Self {
            cache: file.agent.cache.map_or_else(|| home.join("cache"), |cache| folder.join(cache)),
            cache_shared: file.agent.cache_shared,
            home,
            url: file.agent.url,
            device: file.agent.device,
            stop_grace,
            durable: file.agent.durable,
            data: file.data,
            policy: file.policy,
        })
    }
}

/// A first configuration, which takes part in nothing until someone says so.
pub const TEMPLATE: &str = r#"# Configuration of this site's Sheaf agent. Check it: sheaf-agent policy check

[agent]
home = "agent-home"        # keys, outbox and database; relative to this file
device = "auto"            # or "cpu", "cuda:0", "vulkan:0", "wgpu:0"; `sheaf-agent devices` lists what there is
stop_grace = "30s"         # how long a stopping agent waits for its tasks

# Data sets, by the name that plans use. kind: table, features, images, idx, cifar or text.
# [data.heart]
# kind = "table"
# path = "heart.csv"       # .csv, .csv.gz or .parquet

[policy]                   # the site's own rules; they win over anything the coordinator asks
workloads = []             # for example ["afl"]
# datasets = ["heart"]     # all of the above when absent
models = []                # pre-trained models that may run on the records: ids of `sheaf-agent model list`, or ["any"]
# columns = { heart = ["age", "sex", "chol"] }   # may be read; all of a data set that is not listed
release = []               # what may leave: "statistics", "sums", "updates", "synthetic", "proxies", "metrics"
min_cohort = 3             # smallest number of sites in a run, and in a secure sum
# require_secure_aggregation = true   # sums and updates leave masked alone: the coordinator gets totals over the sites
min_difference = 3         # secure sums over the same records are of the same sites, or of so many others at least
# peers = { clinic-b = "3f…" }   # secure sums with these sites alone: all of them, with the signing keys that
                           # `sheaf-agent status` shows there; compare them by telephone, not through the coordinator
min_rows = 10              # smallest number of records an output may be made of
approve = "ask"            # "ask": a person runs `sheaf-agent approve RUN`; "auto": this policy is enough
require_dp = false         # true: nothing leaves without noise paid for in the ledger; `sheaf-agent ledger cap` sets the budget
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_configuration_that_allows_nothing() {
        let config = Config::parse(TEMPLATE, Path::new("/site")).unwrap();
        assert_eq!(config.home, Path::new("/site/agent-home"));
        assert!(config.policy.workloads.is_empty() && config.policy.release.is_empty());
        assert_eq!(config.policy.approve, Approve::Ask);
    }

    #[test]
    fn devices_and_the_cache_are_read() {
        let config = Config::parse("[agent]\ndevice = 'cuda:1'\ncache = 'kept'", Path::new("/site")).unwrap();
        assert_eq!(config.device, DeviceChoice::Cuda(1));
        assert_eq!(config.cache, Path::new("/site/kept"));
        let config = Config::parse("", Path::new("/site")).unwrap();
        assert_eq!(config.device, DeviceChoice::Auto);
        assert_eq!(config.cache, Path::new("/site/agent-home/cache"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("[agent]\nhom = 'x'", "hom"),
            ("[policy]\nrelease = ['everything']", "everything"),
            ("[policy]\ndatasets = ['x']", "[data.x]"),
            ("[policy]\nmodels = ['x']", "efficientnet-lite0"),
            ("[policy]\npeers = { b = 'zz' }", "peers"),
            ("[policy]\npeers = { b = '00' }", "peers"),
            ("[data.x]\nkind = 'tabel'\npath = 'x'", "tabel"),
            ("[agent]\nstop_grace = 'soon'", "stop_grace"),
            ("[agent]\ndevice = 'gpu'", "vulkan:0"),
        ] {
            let error = Config::parse(text, Path::new(".")).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
