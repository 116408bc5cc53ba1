//! An operator, as the command line is one.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use sheaf_coordinator::home::{Home, Profile};
use sheaf_proto::{
    BlobId,
    v1::{
        InviteSiteRequest, ListSitesRequest, ReportFile, ReportRequest, RunDetail, RunRef, RunSite,
        RunSummary, Site, SubmitRunRequest, operator_client::OperatorClient,
    },
};
use sheaf_transport::{
    channel::{Caller, CallerChannel, DialError, dial},
    keys::{SecretKey, load_certificates},
    retry::is_transient,
    tls::{SwappableCertificate, client_config},
    transfer::BlobMover,
};

/// No test waits longer for one thing.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A connected operator.
#[derive(Clone)]
pub struct Operator {
    /// The service.
    pub rpc: OperatorClient<CallerChannel>,
    /// Blobs.
    pub blobs: BlobMover,
    /// The channel under both.
    pub channel: CallerChannel,
}

impl Operator {
    /// Dials with the certificate that `sheaf init` made, to `url` or to the profile's address.
    pub async fn connect(home: &Home, url: Option<&str>) -> Result<Self, DialError> {
        let folder = home.operator();
        let profile = fs::read_to_string(folder.join("profile.toml")).unwrap();
        let profile: Profile = toml::from_str(&profile).unwrap();
        let key = SecretKey::load(&folder.join("key.pem")).unwrap();
        let chain = load_certificates(&folder.join("cert.pem")).unwrap();
        let ca = load_certificates(&folder.join("ca.pem")).unwrap().remove(0);
        let certificate = SwappableCertificate::new(chain, &key.to_der()).unwrap();
        let tls = client_config(certificate, &ca).unwrap();
        let channel = Caller::default().on(dial(url.unwrap_or(&profile.url), tls).await?);
        Ok(Self {
            rpc: OperatorClient::new(channel.clone()).max_decoding_message_size(64 << 20),
            blobs: BlobMover::new(channel.clone()),
            channel,
        })
    }

    /// Dials until the coordinator answers.
    pub async fn connect_soon(home: &Home) -> Self {
        let began = Instant::now();
        loop {
            match Self::connect(home, None).await {
                Ok(operator) => return operator,
                Err(error) => assert!(began.elapsed() < PATIENCE, "no coordinator: {error}"),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A token for a site.
    pub async fn invite(&self, name: &str) -> String {
        let request = InviteSiteRequest { name: name.to_owned(), valid_seconds: 0 };
        self.rpc.clone().invite_site(request).await.unwrap().into_inner().token
    }

    /// Submits a plan under an id.
    pub async fn submit(&self, plan: &str, id: &str) -> RunSummary {
        let request = SubmitRunRequest { plan_toml: plan.to_owned(), run_id: id.to_owned() };
        self.rpc.clone().submit_run(request).await.unwrap().into_inner()
    }

    /// A run now, or none while the coordinator is away. One that is there but does not answer fails the test.
    pub async fn show(&self, run: &str) -> Option<RunDetail> {
        let mut rpc = self.rpc.clone();
        let answer = tokio::time::timeout(PATIENCE, rpc.show_run(reference(run))).await;
        match answer.expect("the coordinator is there but does not answer") {
            Ok(detail) => Some(detail.into_inner()),
            Err(status) if is_transient(&status) => None,
            Err(status) => panic!("run {run} cannot be shown: {status}"),
        }
    }

    /// Waits until a run is as `wanted` says; `what` is for the failure's message.
    pub async fn until(&self, run: &str, what: &str, wanted: impl Fn(&RunDetail) -> bool) -> RunDetail {
        let began = Instant::now();
        loop {
            let detail = self.show(run).await;
            match detail {
                Some(detail) if wanted(&detail) => return detail,
                detail => assert!(
                    began.elapsed() < PATIENCE,
                    "run {run} is not {what} after {PATIENCE:?}: {detail:#?}"
                ),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a phase has begun, or the run has ended before it.
    pub async fn begun(&self, run: &str, phase: &str) {
        let there = |detail: &RunDetail| detail.phases.iter().any(|open| open.name == phase);
        self.until(run, phase, |detail| there(detail) || status(detail) != "running").await;
    }

    /// Waits until a run has ended, well or not.
    pub async fn ended(&self, run: &str) -> RunDetail {
        self.until(run, "ended", |detail| status(detail) != "running").await
    }

    /// Waits until a run is done and gives the model's SHA-256.
    pub async fn done(&self, run: &str) -> String {
        let detail = self.ended(run).await;
        let summary = detail.summary.clone().unwrap_or_default();
        assert_eq!(summary.status, "done", "{}: {detail:#?}", summary.reason);
        assert_eq!(summary.model_sha256.len(), 64, "a done run has a model");
        summary.model_sha256
    }

    /// Takes a site out of a run.
    pub async fn withdraw(&self, run: &str, site: &str) {
        self.rpc.clone().withdraw_site(pair(run, site)).await.unwrap();
    }

    /// Takes a site into a run.
    pub async fn add(&self, run: &str, site: &str) {
        self.rpc.clone().add_site(pair(run, site)).await.unwrap();
    }

    /// Stops a run.
    pub async fn abort(&self, run: &str) {
        self.rpc.clone().abort_run(reference(run)).await.unwrap();
    }

    /// Starts a stopped run again.
    pub async fn resume(&self, run: &str) {
        self.rpc.clone().resume_run(reference(run)).await.unwrap();
    }

    /// All sites. A channel whose coordinator was away for a moment says so once before it dials again.
    pub async fn sites(&self) -> Vec<Site> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.rpc.clone().list_sites(ListSitesRequest {}).await {
                Ok(listed) => return listed.into_inner().sites,
                Err(status) if is_transient(&status) && tokio::time::Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(status) => panic!("sites cannot be listed: {status}"),
            }
        }
    }

    /// One site.
    pub async fn site(&self, name: &str) -> Site {
        let sites = self.sites().await;
        sites.into_iter().find(|site| site.name == name).unwrap_or_else(|| panic!("no site {name}"))
    }

    /// Waits until a site is connected or not.
    pub async fn connected(&self, name: &str, wanted: bool) {
        let began = Instant::now();
        while self.site(name).await.connected != wanted {
            assert!(
                began.elapsed() < PATIENCE,
                "{name} is not {}",
                if wanted { "connected" } else { "gone" }
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// The files of a run's report.
    pub async fn report_files(&self, run: &str) -> Vec<ReportFile> {
        let request = ReportRequest { run_id: run.to_owned(), version: 0 };
        self.rpc.clone().report(request).await.unwrap().into_inner().files
    }

    /// Fetches one file of a run's report.
    pub async fn report_file(&self, run: &str, name: &str, folder: &Path) -> Vec<u8> {
        let files = self.report_files(run).await;
        let file = files
            .into_iter()
            .find(|file| file.name == name)
            .unwrap_or_else(|| panic!("no {name} in the report"));
        let path = folder.join(format!("fetched-{}", name.replace('/', "-")));
        let blob = BlobId::from_wire(file.blob.as_ref()).unwrap();
        self.blobs.download(blob, &path).await.unwrap();
        fs::read(&path).unwrap()
    }
}

/// A run's status word.
pub fn status(detail: &RunDetail) -> &str {
    detail.summary.as_ref().map_or("", |summary| summary.status.as_str())
}

/// What a run does now.
pub fn phase(detail: &RunDetail) -> &str {
    detail.summary.as_ref().map_or("", |summary| summary.phase.as_str())
}

/// Answers counted so far in this version.
pub fn delivered(detail: &RunDetail) -> u64 {
    detail.phases.iter().map(|phase| u64::from(phase.delivered)).sum()
}

/// Status and reason of a member.
pub fn member<'a>(detail: &'a RunDetail, site: &str) -> (&'a str, &'a str) {
    detail
        .members
        .iter()
        .find(|member| member.site == site)
        .map_or(("not invited", ""), |m| (m.status.as_str(), m.reason.as_str()))
}

fn reference(run: &str) -> RunRef {
    RunRef { run_id: run.to_owned() }
}

fn pair(run: &str, site: &str) -> RunSite {
    RunSite { run_id: run.to_owned(), site: site.to_owned() }
}
