//! Sites with texts, for workloads whose models read and write: a query, its class, the answer to it.

use std::{fmt::Write as _, fs, path::Path};

use sheaf_data::Source;

use crate::{cluster::Cluster, process::Process, site::Rules};

/// The sites.
pub const SITES: [&str; 2] = ["north", "south"];
/// Records of a site to learn from.
pub const ROWS: usize = 8;
/// Records of a site to be tested on.
const TESTS: usize = 3;
/// Classes of the records.
pub const CLASSES: [&str; 2] = ["fever", "cough"];
/// The delta of plans and caps.
pub const DELTA: f64 = 1e-3;
/// What all runs together may cost a site: admission counts more than is spent.
const CAP: f64 = 50.0;

/// Writes a site's records; no two of them are equal, nor two sites'.
fn write(folder: &Path, site: &str) -> Source {
    let mut lines = String::new();
    for row in 0..ROWS + TESTS {
        let (label, split) = (CLASSES[row % CLASSES.len()], if row < ROWS { "train" } else { "test" });
        let fields = [
            ("id", format!("{site}-{row}")),
            ("split", split.to_owned()),
            ("label", label.to_owned()),
            ("text", format!("A {label} on day {row} in {site}?")),
            ("answer", format!("Rest for {row} days. Drink water.")),
        ];
        let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key:?}:{value:?}")).collect();
        writeln!(lines, "{{{}}}", fields.join(",")).unwrap();
    }
    fs::create_dir_all(folder).unwrap();
    let path = folder.join("records.jsonl");
    fs::write(&path, lines).unwrap();
    Source::Text { path: Some(path), asset: None }
}

/// What the sites of these tests allow: one workload, what it lets out, and nothing without noise.
pub fn rules(workloads: &'static [&'static str], release: &'static [&'static str]) -> Rules {
    // A configuration is read by the test's process too, which does not know the small models by name.
    Rules { workloads, release, models: &["any"], require_dp: true, ..Rules::default() }
}

/// A coordinator with both sites, enrolled and with a cap; no agent runs yet. All processes know the small models.
pub async fn enrolled(rules: &Rules) -> Cluster {
    let mut cluster = Cluster::with_models().await;
    for name in SITES {
        let source = write(&cluster.folder().join("records").join(name), name);
        cluster.enrol_at(name, &source, rules).await.cap(CAP, DELTA, "row");
    }
    cluster
}

/// The same with agents that run.
pub async fn federation(rules: &Rules) -> (Cluster, Vec<Process>) {
    let cluster = enrolled(rules).await;
    let agents = SITES.map(|name| cluster.start_agent_process(name)).into();
    (cluster, agents)
}
