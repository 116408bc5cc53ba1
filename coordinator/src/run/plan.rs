//! Plans: what an operator writes to start a run. TOML, unknown keys refused, checked as a whole before
//! anything happens.

use std::{path::Path, time::Duration};

use serde::Deserialize;
use sheaf_data::{Partition, Schema, Source, catalogue::Catalogue};
use sheaf_transport::{digest::sha256_hex, identity::SiteName};

use crate::{
    error::Error,
    llm::config::LlmConfig,
    privacy::{Privacy, PrivacySection},
    workload,
};

/// A checked plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What to run, with whom.
    pub run: RunSection,
    /// Where the records are, for a simulation or a central test set; agents have their own sources.
    pub data: Option<Source>,
    /// How records are to be read, at every site alike.
    pub schema: Schema,
    /// How a simulation spreads the records.
    pub partition: Option<Partition>,
    /// What is measured.
    pub evaluate: EvaluateSection,
    /// How a simulation is run.
    pub simulate: SimulateSection,
    /// What the sites may lose, with the noise that follows; none: answers are exact.
    pub privacy: Option<Privacy>,
    /// The table named like the workload.
    pub options: toml::Table,
    /// The text it was read from.
    pub text: String,
}

/// `[run]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// For people; also the beginning of the run's id.
    pub name: String,
    /// Which workload: "afl".
    pub workload: String,
    /// The data set's name in the agents' configuration.
    #[serde(default = "default_dataset")]
    pub dataset: String,
    /// Sites to invite; all enrolled ones when absent.
    #[serde(default)]
    pub sites: Option<Vec<SiteName>>,
    /// Go on with this many sites at a phase's deadline; all invited ones when absent.
    #[serde(default)]
    pub quorum: Option<usize>,
    /// How long a phase may wait for answers.
    #[serde(default = "default_deadline", deserialize_with = "duration")]
    pub deadline: Duration,
    /// Let the coordinator learn the sum of the sites' sums alone (docs/secure-aggregation.md).
    #[serde(default)]
    pub secure_aggregation: bool,
    /// With secure aggregation: most training rows of a site. It bounds the numbers that are added, and so the bytes
    /// of each.
    #[serde(default = "default_site_rows")]
    pub max_site_rows: u64,
}

/// `[evaluate]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSection {
    /// Train a model at each site on its own rows alone, to compare with.
    #[serde(default = "yes")]
    pub local_baseline: bool,
    /// With a central test set: how many sites' local models are measured (the first so many of a seeded
    /// draw when there are more).
    #[serde(default = "default_local_sites")]
    pub local_sites: usize,
    /// In a simulation: whether test rows are held centrally; when absent, where the source has test files of its own.
    #[serde(default)]
    pub central: Option<bool>,
}

/// `[simulate]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulateSection {
    /// "process" or "inline"; by the number of sites when absent.
    #[serde(default)]
    pub agents: Option<AgentKind>,
    /// Most training rows that a site gets, drawn by the partition's rule; the others are nobody's.
    #[serde(default)]
    pub rows_per_site: Option<usize>,
    /// Invented sentences with a secret, each in the place of one of a site's training records: what is released is searched for
    /// their secrets. For workloads that release texts.
    #[serde(default)]
    pub canaries: usize,
    /// Leave out training rows whose text a test row has too, or nearly.
    #[serde(default)]
    pub deduplicate: bool,
    /// The `[llm]` of the simulation's coordinator; the embedded model when absent.
    #[serde(default)]
    pub llm: LlmConfig,
}

/// What an agent of a simulation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentKind {
    /// A process of its own.
    Process,
    /// A task of the simulator, over the same services.
    Inline,
}

impl Default for EvaluateSection {
    fn default() -> Self {
        Self { local_baseline: true, local_sites: default_local_sites(), central: None }
    }
}

const fn yes() -> bool {
    true
}

fn default_dataset() -> String {
    "data".to_owned()
}

const fn default_deadline() -> Duration {
    Duration::from_hours(1)
}

const fn default_site_rows() -> u64 {
    1_000_000
}

const fn default_local_sites() -> usize {
    32
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

const SECTIONS: [&str; 7] = ["run", "data", "schema", "partition", "evaluate", "simulate", "privacy"];

impl Plan {
    /// Reads and checks a plan's text. With `[privacy]` it takes a second: the noise is sought.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] with the place and the cause.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (mut plan, privacy) = Self::read(text)?;
        if let Some(section) = privacy {
            let schedule = workload::named(&plan.run.workload)?.schedule(&plan)?;
            plan.privacy = Some(Privacy::resolve(section, schedule)?);
        }
        plan.check()?;
        Ok(plan)
    }

    /// Reads a plan's text without a look at what it asks for: the plan has no `privacy` yet, the section is beside it.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] with the place and the cause.
    pub fn read(text: &str) -> Result<(Self, Option<PrivacySection>), Error> {
        let mut table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| Error::invalid(format!("the plan is not TOML: {e}")))?;
        let run: RunSection = section(&mut table, "run")?
            .ok_or_else(|| Error::invalid("the plan has no [run] section; it needs name and workload"))?;
        let mut schema = section(&mut table, "schema")?.unwrap_or_default();
        pin_backbone(&mut schema)?;
        let privacy = section(&mut table, "privacy")?;
        let plan = Self {
            data: section(&mut table, "data")?,
            schema,
            partition: section(&mut table, "partition")?,
            evaluate: section(&mut table, "evaluate")?.unwrap_or_default(),
            simulate: section(&mut table, "simulate")?.unwrap_or_default(),
            privacy: None,
            options: section(&mut table, &run.workload)?.unwrap_or_default(),
            run,
            text: text.to_owned(),
        };
        if let Some(unknown) = table.keys().next() {
            return Err(Error::invalid(format!(
                "the plan has an unknown section [{unknown}]; known are {} and [{}]",
                SECTIONS.map(|s| format!("[{s}]")).join(", "),
                plan.run.workload,
            )));
        }
        Ok((plan, privacy))
    }

    fn check(&self) -> Result<(), Error> {
        let run = &self.run;
        if run.name.is_empty() || run.name.len() > 100 || run.name.chars().any(char::is_control) {
            return Err(Error::invalid("[run] name must have 1 to 100 printable characters"));
        }
        if run.quorum == Some(0) {
            return Err(Error::invalid("[run] quorum must be at least 1"));
        }
        if let Some(sites) = &run.sites {
            let different: std::collections::BTreeSet<_> = sites.iter().collect();
            if sites.is_empty() || different.len() != sites.len() {
                return Err(Error::invalid("[run] sites must name at least one site, and each once"));
            }
        }
        if let (Some(sites), Some(quorum)) = (&run.sites, run.quorum)
            && quorum > sites.len()
        {
            return Err(Error::invalid(format!(
                "[run] quorum is {quorum}, but only {} sites are invited",
                sites.len()
            )));
        }
        if self.simulate.rows_per_site == Some(0) {
            return Err(Error::invalid("[simulate] rows_per_site must be at least 1"));
        }
        self.simulate.llm.check().map_err(|e| Error::invalid(format!("[simulate] {e}")))?;
        self.schema.validate().map_err(|e| Error::invalid(format!("[schema] {e}")))?;
        workload::named(&run.workload)?.check_plan(self)
    }

    /// SHA-256 of the text, 64 hexadecimal digits.
    pub fn sha256(&self) -> String {
        sha256_hex(self.text.as_bytes())
    }

    /// Makes relative paths of the data relative to `folder`, the plan's own.
    pub fn resolve_paths(&mut self, folder: &Path) {
        if let Some(data) = &mut self.data {
            data.resolve_paths(folder);
        }
    }

    /// Applies `key.path=value` overrides to a plan's text and gives back the new text. A value is TOML if
    /// it reads as TOML, else a string: `--set partition.kind=iid` needs no quotes.
    pub fn with_overrides(text: &str, overrides: &[String]) -> Result<String, Error> {
        if overrides.is_empty() {
            return Ok(text.to_owned());
        }
        let mut table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| Error::invalid(format!("the plan is not TOML: {e}")))?;
        // The kind of a section decides which other keys it takes, so it is set first.
        let mut overrides: Vec<&String> = overrides.iter().collect();
        let sets_kind = |one: &str| {
            one.split('=').next().is_some_and(|path| path.trim().rsplit('.').next() == Some("kind"))
        };
        overrides.sort_by_key(|one| u8::from(!sets_kind(one)));
        for one in overrides {
            let (path, value) = one
                .split_once('=')
                .ok_or_else(|| Error::invalid(format!("`--set {one}`: write section.key=value")))?;
            let value = value.trim();
            let value = format!("v = {value}")
                .parse::<toml::Table>()
                .ok()
                .and_then(|mut t| t.remove("v"))
                .unwrap_or_else(|| toml::Value::String(value.to_owned()));
            let mut keys: Vec<_> = path.trim().split('.').collect();
            let last = keys
                .pop()
                .filter(|k| !k.is_empty())
                .ok_or_else(|| Error::invalid(format!("`--set {one}`: no key")))?;
            let mut at = &mut table;
            for key in keys {
                at = at
                    .entry(key)
                    .or_insert_with(|| toml::Value::Table(toml::Table::new()))
                    .as_table_mut()
                    .ok_or_else(|| Error::invalid(format!("`--set {one}`: {key} is not a section")))?;
            }
            // A partition of another kind takes other keys: those of the old kind go.
            if last == "kind" && at.get("kind") != Some(&value) && path.trim() == "partition.kind" {
                let by_column = value.as_str() == Some("column");
                at.retain(|key, _| !by_column && (key == "sites" || key == "seed"));
            }
            at.insert(last.to_owned(), value);
        }
        toml::to_string(&table).map_err(|e| Error::invalid(e.to_string()))
    }
}

/// Writes the catalogue's hash of the backbone into the schema, so that every site knows which model is meant.
fn pin_backbone(schema: &mut Schema) -> Result<(), Error> {
    let Some(backbone) = &mut schema.backbone else {
        return Ok(());
    };
    let invalid = |problem: String| Error::invalid(format!("[schema.backbone] {problem}"));
    let catalogue = Catalogue::known()?;
    let known = catalogue.model(&backbone.model).map_err(|e| invalid(e.to_string()))?.sha256();
    if backbone.sha256.as_ref().is_some_and(|asked| *asked != known) {
        return Err(invalid(format!(
            "sha256 is not {known}, which this version knows model {} with; leave the key out or use the version that \
             the plan was written for",
            backbone.model
        )));
    }
    backbone.sha256 = Some(known);
    Ok(())
}

fn section<T: serde::de::DeserializeOwned>(table: &mut toml::Table, name: &str) -> Result<Option<T>, Error> {
    table
        .remove(name)
        .map(|value| {
            value.try_into().map_err(|e: toml::de::Error| Error::invalid(format!("[{name}] {}", e.message())))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "[run]\nname = 'x'\nworkload = 'afl'\n[partition]\nkind = 'dirichlet'\nsites = 3\nalpha = 0.1\nseed = 1\n[afl]\nlambda = 1.0\n";

    #[test]
    fn a_plan_says_what_is_wrong_with_it() {
        assert!(Plan::parse(PLAN).is_ok());
        for (text, part) in [
            ("", "[run]"),
            ("[run]\nname='x'", "workload"),
            ("[run]\nname='x'\nworkload='nope'", "nope"),
            ("[run]\nname='x'\nworkload='afl'\nquorum=0", "quorum"),
            ("[run]\nname='x'\nworkload='afl'\ncolour=1", "colour"),
            ("[run]\nname='x'\nworkload='afl'\n[afl]\nlamda=1", "lamda"),
            ("[run]\nname='x'\nworkload='afl'\n[alf]\nlambda=1", "[alf]"),
            ("[run]\nname='x'\nworkload='afl'\n[afl]\nlambda=-1.0", "lambda"),
            ("[run]\nname='x'\nworkload='afl'\nsites=['a']\nquorum=2", "quorum"),
            ("[run]\nname='x'\nworkload='afl'\ndeadline='soon'", "[run]"),
            ("[run]\nname='x'\nworkload='afl'\n[schema.backbone]\nmodel='vgg'", "efficientnet-lite0"),
            ("[run", "TOML"),
        ] {
            let error = Plan::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn a_backbone_is_pinned_by_the_catalogues_hash() {
        let text = format!("{PLAN}[schema.backbone]\nmodel = 'minilm-l6'\n");
        let plan = Plan::parse(&text).unwrap();
        let hash = plan.schema.backbone.unwrap().sha256.unwrap();
        assert_eq!(hash, Catalogue::known().unwrap().model("minilm-l6").unwrap().sha256());
        assert!(Plan::parse(&format!("{text}sha256 = '{hash}'\n")).is_ok());
        let error = Plan::parse(&format!("{text}sha256 = '{}'\n", "0".repeat(64))).unwrap_err().to_string();
        assert!(error.contains(&hash), "{error}");
    }

    #[test]
    fn overrides_set_any_key() {
        let set = |parts: &[&str]| {
            let parts: Vec<_> = parts.iter().map(|p| (*p).to_owned()).collect();
            Plan::with_overrides(PLAN, &parts)
        };
        let text =
            set(&["partition.sites=1000", "partition.kind=iid", "evaluate.local_baseline=false"]).unwrap();
        let plan = Plan::parse(&text).unwrap();
        assert!(matches!(plan.partition, Some(Partition::Iid { sites: 1000, seed: 1 })));
        assert!(!plan.evaluate.local_baseline);
        let text = set(&["partition.shards=4", "partition.kind=shards"]).unwrap();
        assert!(matches!(Plan::parse(&text).unwrap().partition, Some(Partition::Shards { shards: 4, .. })));
        assert!(Plan::parse(&set(&["partition.kind=column"]).unwrap()).is_ok());
        assert!(set(&["partition"]).is_err());
        assert!(set(&["run.name.x=1"]).is_err());
    }
}
