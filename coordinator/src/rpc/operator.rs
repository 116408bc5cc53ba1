//! The Operator service.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use sheaf_proto::v1::{
    self, AttachEvaluationRequest, InfoRequest, InfoResponse, InviteSiteRequest, InviteSiteResponse,
    ListRunsRequest, ListRunsResponse, ListSitesRequest, ListSitesResponse, Member, PhaseProgress,
    ReportFile, ReportRequest, ReportResponse, RevokeSiteRequest, RevokeSiteResponse, RunDetail, RunRef,
    RunSite, RunSummary, Site, SubmitRunRequest, operator_server::Operator,
};
use sheaf_transport::identity::SiteName;
use tonic::{Request, Response, Status};

use crate::{
    VERSION,
    clock::rfc3339,
    error::Error,
    hub::Hub,
    report::{AttachedEvaluation, bundle},
    run::{
        event::Event,
        handle::{Activity, RunHandle},
        machine::{Membership, Run, Stage, Status as RunStatus},
    },
    workload::Publication,
};

/// An invitation is good for this long unless said otherwise.
const INVITATION: Duration = Duration::from_hours(168);
/// Watchers get at most one update in this time.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct OperatorService(pub(super) Arc<Hub>);

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let usage = ProcessUsage::read();
        let active = self.0.runs().iter().filter(|run| run.run().status == RunStatus::Running).count();
        Ok(Response::new(InfoResponse {
            version: VERSION.to_owned(),
            sites_connected: self.0.fleet.len() as u32,
            runs_active: active as u32,
            ca_fingerprint: hex::encode(self.0.desk.authority.fingerprint()),
            resident_bytes: usage.resident,
            peak_resident_bytes: usage.peak,
            cpu_seconds: usage.cpu_seconds,
        }))
    }

    async fn invite_site(
        &self,
        request: Request<InviteSiteRequest>,
    ) -> Result<Response<InviteSiteResponse>, Status> {
        let request = request.into_inner();
        let site: SiteName = request.name.parse().map_err(Error::from)?;
        let valid = match request.valid_seconds {
            0 => INVITATION,
            seconds => Duration::from_secs(seconds),
        };
        let (desk, now, url) = (self.0.desk.clone(), self.0.clock.now_ms(), self.0.config.url.clone());
        let (token, expires_at) = self.0.database.run(move |_| desk.invite(site, url, valid, now)).await?;
        Ok(Response::new(InviteSiteResponse {
            token: token.to_string(),
            expires_at: rfc3339(expires_at),
            ca_fingerprint: hex::encode(token.ca_fingerprint),
        }))
    }

    async fn list_sites(&self, _: Request<ListSitesRequest>) -> Result<Response<ListSitesResponse>, Status> {
        let records = self.0.database.run(crate::store::Database::sites).await?;
        let sites = records
            .into_iter()
            .map(|site| Site {
                connected: site.name.parse().is_ok_and(|name| self.0.fleet.connected(&name)),
                name: site.name,
                status: site.status,
                enrolled_at: rfc3339(site.enrolled_at),
                last_seen: rfc3339(site.last_seen),
                certificate_expires_at: rfc3339(site.certificate_not_after.map(|s| s.saturating_mul(1000))),
                agent_version: site.agent_version,
                device: site.device,
            })
            .collect();
        Ok(Response::new(ListSitesResponse { sites }))
    }

    async fn revoke_site(
        &self,
        request: Request<RevokeSiteRequest>,
    ) -> Result<Response<RevokeSiteResponse>, Status> {
        let site: SiteName = request.into_inner().name.parse().map_err(Error::from)?;
        let (hub, name) = (Arc::clone(&self.0), site.clone());
        let revoked = tokio::spawn(async move { hub.revoke(&name).await }).await;
        revoked.map_err(|e| Error::bug(e.to_string()))??;
        tracing::info!(%site, "revoked");
        Ok(Response::new(RevokeSiteResponse {}))
    }

    async fn submit_run(&self, request: Request<SubmitRunRequest>) -> Result<Response<RunSummary>, Status> {
        let request = request.into_inner();
        let id = (!request.run_id.is_empty()).then_some(request.run_id);
        // On a task of its own: a client that hangs up must not leave a run that nobody drives.
        let hub = Arc::clone(&self.0);
        let submitted = tokio::spawn(async move { hub.submit(&request.plan_toml, id).await }).await;
        let run = submitted.map_err(|e| Error::bug(e.to_string()))??;
        Ok(Response::new(self.summary(&run)))
    }

    async fn list_runs(&self, _: Request<ListRunsRequest>) -> Result<Response<ListRunsResponse>, Status> {
        let mut runs: Vec<_> = self.0.runs().iter().map(|run| self.summary(run)).collect();
        runs.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| b.run_id.cmp(&a.run_id)));
        Ok(Response::new(ListRunsResponse { runs }))
    }

    async fn show_run(&self, request: Request<RunRef>) -> Result<Response<RunDetail>, Status> {
        let run = self.0.run(&request.into_inner().run_id)?;
        Ok(Response::new(self.detail(&run)))
    }

    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<RunDetail, Status>> + Send>>;

    async fn watch_run(&self, request: Request<RunRef>) -> Result<Response<Self::WatchRunStream>, Status> {
        let run = self.0.run(&request.into_inner().run_id)?;
        let hub = Arc::clone(&self.0);
        let stream = futures::stream::unfold((run.changes(), false), move |(mut changes, ended)| {
            let (run, hub) = (run.clone(), Arc::clone(&hub));
            async move {
                if ended {
                    return None;
                }
                changes.mark_unchanged();
                let detail = OperatorService(Arc::clone(&hub)).detail(&run);
                let ended = detail.summary.as_ref().is_some_and(|summary| summary.status != "running");
                if !ended {
                    tokio::select! {
                        () = hub.shutdown.cancelled() => return None,
                        _ = changes.changed() => {}
                    }
                    tokio::time::sleep(WATCH_INTERVAL).await;
                }
                Some((Ok(detail), (changes, ended)))
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn abort_run(&self, request: Request<RunRef>) -> Result<Response<RunSummary>, Status> {
        self.happen(&request.into_inner().run_id, Event::Aborted).await
    }

    async fn resume_run(&self, request: Request<RunRef>) -> Result<Response<RunSummary>, Status> {
        self.happen(&request.into_inner().run_id, Event::Resumed).await
    }

    async fn withdraw_site(&self, request: Request<RunSite>) -> Result<Response<RunSummary>, Status> {
        let request = request.into_inner();
        let site = request.site.parse().map_err(Error::from)?;
        self.happen(&request.run_id, Event::Withdrawn { site }).await
    }

    async fn add_site(&self, request: Request<RunSite>) -> Result<Response<RunSummary>, Status> {
        let request = request.into_inner();
        let run = self.0.run(&request.run_id)?;
        self.0.add_site(&run, request.site.parse().map_err(Error::from)?).await?;
        Ok(Response::new(self.summary(&run)))
    }

    async fn attach_evaluation(
        &self,
        request: Request<AttachEvaluationRequest>,
    ) -> Result<Response<RunSummary>, Status> {
        let request = request.into_inner();
        let run = self.0.run(&request.run_id)?;
        serde_json::from_str::<AttachedEvaluation>(&request.evaluation_json)
            .map_err(|e| Error::invalid(format!("the evaluation cannot be read: {e}")))?;
        let (id, version) = (Arc::clone(&run.id), run.run().version);
        self.0.database.run(move |database| database.attach(&id, version, &request.evaluation_json)).await?;
        Ok(Response::new(self.summary(&run)))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let request = request.into_inner();
        let (hub, run) = (Arc::clone(&self.0), self.0.run(&request.run_id)?);
        let version = (request.version > 0).then_some(request.version);
        let files = tokio::task::spawn_blocking(move || bundle::make(&hub, &run, version))
            .await
            .map_err(|e| Error::bug(e.to_string()))??;
        let files =
            files.into_iter().map(|(name, blob)| ReportFile { name, blob: Some(blob.to_wire()) }).collect();
        Ok(Response::new(ReportResponse { files }))
    }
}

impl OperatorService {
    async fn happen(&self, run_id: &str, event: Event) -> Result<Response<RunSummary>, Status> {
        let run = self.0.run(run_id)?;
        run.happen(event).await?;
        Ok(Response::new(self.summary(&run)))
    }

    fn summary(&self, handle: &RunHandle) -> RunSummary {
        let run = handle.run();
        let model_sha256 = run
            .publications
            .get(&run.version)
            .and_then(|blob| self.0.blobs.get(blob).ok())
            .and_then(|bytes| serde_json::from_slice::<Publication>(&bytes).ok())
            .map(|publication| publication.weight_sha256)
            .unwrap_or_default();
        RunSummary {
            run_id: handle.id.to_string(),
            name: run.name.clone(),
            workload: run.workload.clone(),
            status: status_word(&run.status).to_owned(),
            phase: phase_word(&run),
            version: run.version,
            reason: match &run.status {
                RunStatus::Failed(reason) => reason.clone(),
                _ => String::new(),
            },
            created_at: rfc3339(run.started_at),
            model_sha256,
        }
    }

    fn detail(&self, handle: &RunHandle) -> RunDetail {
        let summary = self.summary(handle);
        let progress = handle.progress();
        let run = handle.run();
        let members = run
            .members
            .iter()
            .map(|(site, membership)| {
                let (status, reason) = membership_words(membership);
                let said = progress.get(site).cloned().unwrap_or_default();
                let (bytes_up, bytes_down) = bundle::traffic(&run, site);
                Member {
                    site: site.to_string(),
                    status: status.to_owned(),
                    reason: if reason.is_empty() { said.reason } else { reason.to_owned() },
                    task: said.state.to_owned(),
                    connected: self.0.fleet.connected(site),
                    bytes_up,
                    bytes_down,
                }
            })
            .collect();
        let now = self.0.clock.now_ms();
        RunDetail {
            summary: Some(summary),
            members,
            phases: phases(&run, now),
            plan_toml: handle.plan.text.clone(),
            activity: Some(handle.activity())
                .filter(|activity| !activity.what.is_empty())
                .map(|Activity { what, done, all }| v1::Activity { what, done, all }),
        }
    }
}

/// running, done, failed, aborted.
pub(crate) const fn status_word(status: &RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Done => "done",
        RunStatus::Failed(_) => "failed",
        RunStatus::Aborted => "aborted",
    }
}

/// in, declined, dropped, withdrawn; and why.
pub(crate) fn membership_words(membership: &Membership) -> (&'static str, &str) {
    match membership {
        Membership::In => ("in", ""),
        Membership::Declined(reason) => ("declined", reason),
        Membership::Dropped(reason) => ("dropped", reason),
        Membership::Withdrawn => ("withdrawn", "taken out by the operator"),
    }
}

fn phase_word(run: &Run) -> String {
    match (&run.status, &run.stage) {
        (RunStatus::Running, Stage::Deciding) => "preparing".to_owned(),
        (RunStatus::Running, Stage::Collecting(phase)) => phase.name.clone(),
        (RunStatus::Running, Stage::Reducing(phase)) => format!("merging {}", phase.name),
        (RunStatus::Running, Stage::Publishing) => "publishing".to_owned(),
        _ => String::new(),
    }
}

fn phases(run: &Run, now: i64) -> Vec<PhaseProgress> {
    run.spans
        .iter()
        .map(|span| {
            let open = matches!(&run.stage, Stage::Collecting(phase) if phase.key == span.key && span.closed_at.is_none());
            let reducing = matches!(&run.stage, Stage::Reducing(phase) if phase.key == span.key);
            let state = match (open, reducing) {
                (true, _) => "collecting",
                (_, true) => "reducing",
                _ => "done",
            };
            PhaseProgress {
                name: span.name.clone(),
                delivered: run.contributions(&span.key).len() as u32,
                expected: run.asked.get(&span.key).map_or_else(|| run.members_in().count(), std::collections::BTreeSet::len) as u32,
                state: state.to_owned(),
                seconds: (span.closed_at.unwrap_or(now) - span.opened_at) as f64 / 1000.0,
            }
        })
        .collect()
}

/// What this process uses, as Linux tells it; zeros elsewhere.
struct ProcessUsage {
    resident: u64,
    peak: u64,
    cpu_seconds: f64,
}

impl ProcessUsage {
    fn read() -> Self {
        /// Clock ticks a second, fixed at 100 on Linux.
        const TICKS: f64 = 100.0;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok())
                .unwrap_or(0)
                * 1024
        };
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<f64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse().ok())
            .collect();
        Self { resident: kib("VmRSS:"), peak: kib("VmHWM:"), cpu_seconds: fields.iter().sum::<f64>() / TICKS }
    }
}
