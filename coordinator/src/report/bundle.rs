//! Puts a report together from the run's state, its publication and what the operator attached.

use std::collections::BTreeMap;

use serde::Serialize;
use sheaf_privacy::Epsilon;
use sheaf_proto::BlobId;
use sheaf_transport::identity::SiteName;

use super::{
    AttachedEvaluation, Environment, Metrics, MissedRound, ModelInfo, PhaseTiming, Report, RewardReport,
    RoundReport, RunInfo, RunPrivacy, SCHEMA, SitePrivacy, SiteReport, Timing, TransferReport, render,
};
use crate::{
    VERSION,
    clock::rfc3339,
    error::Error,
    hub::Hub,
    identity::signer::Signature,
    privacy::{Privacy, SignedStatement},
    rpc::operator::{membership_words, status_word},
    run::{
        event::Entry,
        handle::RunHandle,
        machine::{Membership, Run, Status},
    },
    workload::{Publication, RoundPublication},
};

/// The file a model is in.
pub const MODEL_FILE: &str = "model.safetensors";

/// `manifest.json`: the other files' hashes, signed.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
pub struct Manifest {
    /// What is signed: the canonical JSON text of [`ManifestBody`].
    pub signed: String,
    /// The coordinator's signature over it.
    pub signature: Signature,
}

/// The signed part of a manifest.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
pub struct ManifestBody {
    /// Which run.
    pub run: String,
    /// Which version of it.
    pub version: u32,
    /// SHA-256 by file name.
    pub files: BTreeMap<String, String>,
}

/// Bytes a site sent and fetched for all its answers in this run's present version.
pub fn traffic(run: &Run, site: &SiteName) -> (u64, u64) {
    run.spans
        .iter()
        .map(|span| &span.key)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .filter_map(|key| run.deliveries.get(key)?.get(site))
        .fold((0, 0), |(up, down), delivery| (up + delivery.bytes_up, down + delivery.bytes_down))
}

/// Makes every file of a report and stores it as a blob. `version` is the latest when absent.
///
/// # Errors
/// [`crate::error::Class::Conflict`] while there is no model, [`crate::error::Class::NotFound`] for a version that is not.
pub fn make(hub: &Hub, handle: &RunHandle, version: Option<u32>) -> Result<Vec<(String, BlobId)>, Error> {
    let journal = hub.database.journal(&handle.id)?;
    let run = state_of(&journal, version)?;
    let publication = if let Some(blob) = run.publications.get(&run.version) {
        serde_json::from_slice::<Publication>(&hub.blobs.get(blob)?)?
    } else {
        let why = match &run.status {
            Status::Failed(reason) => format!("it failed: {reason}"),
            Status::Aborted => "it was aborted".to_owned(),
            _ => "it is still running; follow it with `sheaf run watch`".to_owned(),
        };
        return Err(Error::conflict(format!("run {} has no model yet: {why}", handle.id)));
    };
    let attached = match hub.database.attachment(&handle.id, run.version)? {
        Some(text) => serde_json::from_str(&text)?,
        None => AttachedEvaluation::default(),
    };
    let report = report(handle, &run, &publication, attached, hub.desk.authority.certificate());
    let mut files = vec![
        ("report.json".to_owned(), hub.blobs.put(&serde_json::to_vec_pretty(&report)?)?),
        ("report.html".to_owned(), hub.blobs.put(render(&report).as_bytes())?),
        (model_file(&publication), publication.model),
        (publication.card_file.clone().unwrap_or_else(|| "model.json".to_owned()), publication.card),
        ("events.jsonl".to_owned(), hub.blobs.put(&events(&journal, run.events)?)?),
    ];
    for (site, answers) in receipts(&run) {
        // Beside what the site has sent.
        let receipt = if publication.files.contains_key(&format!("synthetic/{site}.jsonl")) {
            format!("synthetic/{site}.receipt.json")
        } else if publication.reward.is_some() {
            format!("proxies/{site}/receipt.json")
        } else {
            continue;
        };
        files.push((receipt, hub.blobs.put(&serde_json::to_vec_pretty(&answers)?)?));
    }
    files.extend(publication.files.clone());
    let body = ManifestBody {
        run: handle.id.to_string(),
        version: run.version,
        files: files.iter().map(|(name, blob)| (name.clone(), blob.hex())).collect(),
    };
    let signed = serde_json::to_string(&body)?;
    let manifest = Manifest { signature: hub.signer.sign(signed.as_bytes())?, signed };
    files.push(("manifest.json".to_owned(), hub.blobs.put(&serde_json::to_vec_pretty(&manifest)?)?));
    Ok(files)
}

/// What each site says that its answers have cost it, as it signed it.
fn receipts(run: &Run) -> BTreeMap<String, Vec<&SignedStatement>> {
    let mut receipts: BTreeMap<String, Vec<&SignedStatement>> = BTreeMap::new();
    for (site, delivery) in run.deliveries.values().flatten() {
        if let Some(spend) = &delivery.spend {
            receipts.entry(site.to_string()).or_default().push(spend);
        }
    }
    receipts
}

fn model_file(publication: &Publication) -> String {
    publication.model_file.clone().unwrap_or_else(|| MODEL_FILE.to_owned())
}

/// The state at the end of a version: the journal folded until that version was published.
fn state_of(journal: &[Entry], version: Option<u32>) -> Result<Run, Error> {
    let Some(version) = version else {
        return Run::replay(journal);
    };
    for end in 1..=journal.len() {
        let run = Run::replay(&journal[..end])?;
        if run.publications.contains_key(&version) {
            return Ok(run);
        }
    }
    Err(Error::not_found(format!("this run has no published version {version}")))
}

fn events(journal: &[Entry], up_to: i64) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    for entry in journal.iter().filter(|entry| entry.seq < up_to) {
        serde_json::to_writer(&mut text, entry)?;
        text.push(b'\n');
    }
    Ok(text)
}

fn report(
    handle: &RunHandle,
    run: &Run,
    publication: &Publication,
    attached: AttachedEvaluation,
    authority: &[u8],
) -> Report {
    let equal = attached.pooled_sha256.as_ref().map(|pooled| *pooled == publication.weight_sha256);
    Report {
        schema: SCHEMA,
        run: RunInfo {
            id: handle.id.to_string(),
            name: run.name.clone(),
            workload: run.workload.clone(),
            plan_sha256: run.plan_sha256.clone(),
            status: status_word(&run.status).to_owned(),
            version: run.version,
            started_at: rfc3339(run.started_at),
            finished_at: run.finished_at.map(rfc3339),
            plan: handle.plan.text.clone(),
        },
        model: ModelInfo {
            file: model_file(publication),
            sha256: publication.weight_sha256.clone(),
            classes: publication.classes.clone(),
            dim: publication.dim,
            pooled_sha256: attached.pooled_sha256,
            equal_to_pooled: equal,
            backbone: handle.plan.schema.backbone.clone(),
        },
        metrics: Metrics {
            test: attached.test.or_else(|| publication.test.clone()),
            pooled: attached.pooled,
            local: attached.local.or_else(|| publication.local.clone()),
        },
        sites: run.members.iter().map(|member| site_report(run, member, publication, authority)).collect(),
        rounds: publication.rounds.iter().map(|round| round_report(run, round, &attached.rounds)).collect(),
        comparison: attached.comparison,
        samples: attached.samples,
        transfer: publication
            .transfer
            .clone()
            .map(|transfer| TransferReport { judged: attached.judged, ..transfer }),
        reward: publication.reward.clone().map(|reward| RewardReport { judged: attached.reward, ..reward }),
        privacy: handle.plan.privacy.as_ref().map(run_privacy),
        timing: Timing {
            total_s: seconds(run.started_at, run.finished_at.unwrap_or(run.started_at)),
            phases: run
                .spans
                .iter()
                .map(|span| PhaseTiming {
                    name: span.name.clone(),
                    seconds: seconds(span.opened_at, span.closed_at.unwrap_or(span.opened_at)),
                })
                .collect(),
        },
        environment: Environment {
            version: VERSION.to_owned(),
            backend: publication.backend.clone(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        },
    }
}

fn round_report(run: &Run, round: &RoundPublication, measured: &BTreeMap<u32, f64>) -> RoundReport {
    let traffic = round
        .sites
        .iter()
        .filter_map(|site| run.deliveries.get(&round.key)?.get(site))
        .fold((0, 0), |(up, down), delivery| (up + delivery.bytes_up, down + delivery.bytes_down));
    let missed = run.missed.get(&round.key).into_iter().flatten();
    RoundReport {
        round: round.round,
        asked: run
            .asked
            .get(&round.key)
            .map_or(round.sites.len(), |asked| asked.len().max(round.sites.len())),
        sites: round.sites.iter().map(ToString::to_string).collect(),
        missed: missed
            .map(|(site, reason)| MissedRound { site: site.to_string(), reason: reason.clone() })
            .collect(),
        rows: round.rows,
        loss: round.loss,
        accuracy: measured.get(&round.round).copied().or(round.accuracy),
        test_loss: round.test_loss,
        bytes_up: traffic.0,
        bytes_down: traffic.1,
        parameters: round.parameters.to_string(),
    }
}

fn site_report(
    run: &Run,
    (site, membership): (&SiteName, &Membership),
    publication: &Publication,
    authority: &[u8],
) -> SiteReport {
    let (status, reason) = membership_words(membership);
    let (bytes_up, bytes_down) = traffic(run, site);
    let keys: std::collections::BTreeSet<_> = run.spans.iter().map(|span| &span.key).collect();
    let computing = keys
        .iter()
        .filter_map(|key| run.deliveries.get(*key)?.get(site))
        .map(|d| d.seconds)
        .fold(0.0, |sum, seconds| sum + seconds);
    let published = publication.sites.get(site);
    SiteReport {
        name: site.to_string(),
        rows: published.map_or(Some(0), |p| p.rows),
        status: status.to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        bytes_up,
        bytes_down,
        seconds: computing,
        class_counts: published.map(|p| p.class_counts.clone()).unwrap_or_default(),
        metrics: published.map(|p| p.metrics.clone()).unwrap_or_default(),
        privacy: site_privacy(run, site, authority),
    }
}

/// The site's last statement about this run, of any version: what was spent stays spent.
fn site_privacy(run: &Run, site: &SiteName, authority: &[u8]) -> Option<SitePrivacy> {
    let statements = run.deliveries.values().filter_map(|answers| answers.get(site)?.spend.as_ref());
    // They were checked when they came; one that does not hold any more is left out.
    let read = statements.filter_map(|signed| Some((signed.check(site, authority).ok()?, signed)));
    let (statement, signed) = read.max_by_key(|(statement, _)| statement.head.counter)?;
    Some(SitePrivacy {
        epsilon: statement.epsilon_pld.get(),
        epsilon_rdp: statement.epsilon_rdp.get(),
        epsilon_replace_one: statement.epsilon_replace_one.get(),
        delta: statement.delta.get(),
        epsilon_total: statement.epsilon_total.get(),
        cap: statement.cap.get(),
        cap_delta: statement.cap_delta.get(),
        ledger_entries: statement.head.counter,
        statement: signed.clone(),
    })
}

fn run_privacy(privacy: &Privacy) -> RunPrivacy {
    RunPrivacy {
        unit: privacy.section.unit.clone(),
        epsilon: privacy.section.epsilon.get(),
        evaluate: privacy.section.evaluate.map(Epsilon::get),
        delta: privacy.section.delta.get(),
        events: privacy.events(),
    }
}

fn seconds(from: i64, to: i64) -> f64 {
    (to - from) as f64 / 1000.0
}
