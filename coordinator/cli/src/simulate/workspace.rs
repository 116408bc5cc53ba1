//! Where a simulation keeps its things: `OUT/work` while it runs, the report in `OUT`.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sheaf_coordinator::run::plan::Plan;
use sheaf_data::AssetStore;

use super::absolute;

/// What a later command needs to go on with an interrupted simulation.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    run_id: String,
    plan_sha256: String,
    port: u16,
}

/// The folders of one simulation.
pub(super) struct Workspace {
    out: PathBuf,
    marker: Marker,
    resumed: bool,
}

impl Workspace {
    /// A new one, or the interrupted one that lies in `out`.
    pub(super) fn open(plan: &Plan, out: Option<&Path>) -> Result<Self> {
        let run_id = run_id(plan);
        let out = absolute(&out.map_or_else(|| Path::new("runs").join(&run_id), Path::to_owned))?;
        let file = marker_file(&out);
        if file.exists() {
            let text = fs::read(&file).with_context(|| file.display().to_string())?;
            let marker: Marker = serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
            if marker.plan_sha256 != plan.sha256() {
                bail!(
                    "{} holds an interrupted simulation of another plan; choose another --out or delete it",
                    out.display()
                );
            }
            return Ok(Self { out, marker, resumed: true });
        }
        if out.join("report.json").exists() {
            bail!("{} holds the report of an earlier run; choose another --out or delete it", out.display());
        }
        // A half-made work folder without its marker is from before anything of worth.
        let work = out.join("work");
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
        }
        fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
        let port = free_port()?;
        Ok(Self { out, marker: Marker { run_id, plan_sha256: plan.sha256(), port }, resumed: false })
    }

    /// From now on the simulation can be gone on with.
    pub(super) fn mark(&self) -> Result<()> {
        let file = marker_file(&self.out);
        fs::write(&file, serde_json::to_vec(&self.marker)?).with_context(|| file.display().to_string())
    }

    pub(super) fn out(&self) -> &Path {
        &self.out
    }
    pub(super) fn work(&self) -> PathBuf {
        self.out.join("work")
    }
    pub(super) fn home(&self) -> PathBuf {
        self.work().join("coordinator")
    }
    pub(super) fn site(&self, name: &str) -> PathBuf {
        self.work().join("sites").join(name)
    }
    pub(super) fn run_id(&self) -> &str {
        &self.marker.run_id
    }
    pub(super) fn port(&self) -> u16 {
        self.marker.port
    }
    /// Whether an interrupted simulation goes on here.
    pub(super) fn resumed(&self) -> bool {
        self.resumed
    }

    /// Removes the work folder; the report stays.
    pub(super) fn clean(&self) -> Result<()> {
        let work = self.work();
        fs::remove_dir_all(&work).with_context(|| work.display().to_string())
    }
}

/// Where features of public data are kept from one simulation to the next: the simulator and its agents share it.
pub(super) fn cache(assets: &AssetStore) -> PathBuf {
    assets.cache().join("simulations")
}

fn marker_file(out: &Path) -> PathBuf {
    out.join("work").join("simulation.json")
}

fn run_id(plan: &Plan) -> String {
    let slug: String = plan
        .run
        .name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(40)
        .collect();
    let stamp: String = humantime::format_rfc3339_seconds(std::time::SystemTime::now())
        .to_string()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let slug = slug.trim_matches('-');
    format!("{}-{stamp}", if slug.is_empty() { "run" } else { slug })
}

/// A port nobody listens on now. Kept for the life of the simulation, so that agents find a restarted
/// coordinator where it was.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
