//! The operator's connection to the coordinator.

use sheaf_agent::say;
use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::json;
use sheaf_coordinator::home::{Home, Profile};
use sheaf_proto::v1::{InfoRequest, InfoResponse, operator_client::OperatorClient};
use sheaf_transport::{
    channel::{Caller, CallerChannel, dial},
    keys::{SecretKey, load_certificates},
    tls::{SwappableCertificate, client_config},
    transfer::BlobMover,
};

use crate::{Cli, output};

/// Reports may hold a run of a thousand sites.
const ANSWER_BYTES: usize = 64 << 20;

/// An operator who is connected.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) rpc: OperatorClient<CallerChannel>,
    pub(crate) blobs: BlobMover,
}

impl Operator {
    /// Dials with the certificate in a home's `operator` folder.
    pub(crate) async fn connect(home: &Path) -> Result<Self> {
        let folder = Home::at(home).operator();
        let profile_file = folder.join("profile.toml");
        let profile = fs::read_to_string(&profile_file).with_context(|| {
            format!(
                "{}: no operator profile here; make a home with `sheaf init`, or name it with --home or SHEAF_HOME",
                profile_file.display()
            )
        })?;
        let profile: Profile =
            toml::from_str(&profile).with_context(|| profile_file.display().to_string())?;
        let key = SecretKey::load(&folder.join("key.pem"))?;
        let chain = load_certificates(&folder.join("cert.pem"))?;
        let ca = load_certificates(&folder.join("ca.pem"))?.remove(0);
        let tls = client_config(SwappableCertificate::new(chain, &key.to_der())?, &ca)?;
        let channel = Caller::default().on(dial(&profile.url, tls).await?);
        Ok(Self {
            rpc: OperatorClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES),
            blobs: BlobMover::new(channel),
        })
    }

    /// Dials until the coordinator answers or the time is over.
    pub(crate) async fn connect_within(home: &Path, time: Duration) -> Result<Self> {
        let end = tokio::time::Instant::now() + time;
        loop {
            match Self::connect(home).await {
                Ok(operator) => return Ok(operator),
                Err(error) if tokio::time::Instant::now() > end => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub(crate) async fn info(&mut self) -> Result<InfoResponse> {
        Ok(self.rpc.info(InfoRequest {}).await?.into_inner())
    }
}

/// Runs async work of a command.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

/// `sheaf info`
pub(crate) fn info(cli: &Cli) -> Result<ExitCode> {
    let info = block_on(async { Operator::connect(&cli.home).await?.info().await })?;
    if cli.json {
        output::json(&json!({
            "version": info.version, "sites_connected": info.sites_connected, "runs_active": info.runs_active,
            "ca_fingerprint": info.ca_fingerprint, "resident_bytes": info.resident_bytes,
            "peak_resident_bytes": info.peak_resident_bytes, "cpu_seconds": info.cpu_seconds,
        }))?;
    } else {
        say!("version          {}", info.version);
        say!("sites connected  {}", info.sites_connected);
        say!("runs active      {}", info.runs_active);
        say!("authority        {}", info.ca_fingerprint);
        say!(
            "memory           {} (peak {})",
            output::bytes(info.resident_bytes),
            output::bytes(info.peak_resident_bytes)
        );
        say!("processor time   {:.1} s", info.cpu_seconds);
    }
    Ok(ExitCode::SUCCESS)
}
