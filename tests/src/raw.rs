//! A site made by hand, which can say what a real agent never would.

use std::{fs, time::Duration};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use sheaf_proto::{
    BlobId,
    v1::{
        AgentMessage, BlobRef, Chunk, CoordinatorMessage, EnrolRequest, EnrolResponse, Hello, ResultAck,
        Task, TaskResult, TaskUpdate, UploadHeader, UploadMessage, agent_message, coordinator_message,
        enrolment_client::EnrolmentClient, fleet_client::FleetClient, task_update,
        transfer_client::TransferClient, upload_message,
    },
};
use sheaf_transport::{
    channel::{Caller, CallerChannel, dial},
    digest::blob_id,
    identity::SiteName,
    keys::SecretKey,
    tls::{SwappableCertificate, client_config, enrolment_config},
    token::EnrolmentToken,
    transfer::BlobMover,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use crate::cluster::Cluster;

/// An enrolled certificate and a channel that shows it.
pub struct RawSite {
    /// The site's name.
    pub name: SiteName,
    /// Calls in the site's name.
    pub channel: CallerChannel,
    /// The channel under it, which says no name.
    pub bare: Channel,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The authority's certificate.
    pub ca: CertificateDer<'static>,
}

/// An open session.
pub struct RawSession {
    sender: mpsc::Sender<AgentMessage>,
    inbound: Streaming<CoordinatorMessage>,
}

/// Calls `Enrol` with a token's secret and a request, over a connection that shows no certificate.
pub async fn enrol(token: &EnrolmentToken, secret: &[u8], csr: Vec<u8>) -> Result<EnrolResponse, Status> {
    let tls = enrolment_config(token.ca_fingerprint).unwrap();
    let channel = dial(&token.url, tls).await.unwrap();
    let request = EnrolRequest {
        token_secret: secret.to_vec().into(),
        csr_der: csr.into(),
        agent_version: "raw".to_owned(),
    };
    Ok(EnrolmentClient::new(channel).enrol(request).await?.into_inner())
}

/// Dials with a certificate and its key.
pub async fn dial_with(
    url: &str,
    certificate: &CertificateDer<'static>,
    key: &SecretKey,
    ca: &CertificateDer<'_>,
) -> Result<Channel, sheaf_transport::channel::DialError> {
    let certificate = SwappableCertificate::new(vec![certificate.clone()], &key.to_der()).unwrap();
    dial(url, client_config(certificate, ca).unwrap()).await
}

impl RawSite {
    /// Invites and enrols a site.
    pub async fn enrol(cluster: &Cluster, name: &str) -> Self {
        let token: EnrolmentToken = cluster.operator.invite(name).await.parse().unwrap();
        let key = SecretKey::generate().unwrap();
        let answer = enrol(&token, &token.secret, key.request().unwrap()).await.unwrap();
        let certificate = CertificateDer::from(answer.certificate_der.to_vec());
        let ca = CertificateDer::from(answer.ca_der.to_vec());
        let channel = dial_with(&token.url, &certificate, &key, &ca).await.unwrap();
        Self {
            channel: Caller::site(&token.site).on(channel.clone()),
            bare: channel,
            name: token.site,
            certificate,
            ca,
        }
    }

    /// The Fleet service.
    pub fn fleet(&self) -> FleetClient<CallerChannel> {
        FleetClient::new(self.channel.clone())
    }

    /// Opens a session.
    pub async fn session(&self) -> Result<RawSession, Status> {
        let (sender, receiver) = mpsc::channel(16);
        let hello = agent_message::Body::Hello(Hello::default());
        sender.try_send(AgentMessage { body: Some(hello) }).unwrap();
        let inbound = self.fleet().session(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(RawSession { sender, inbound })
    }

    /// Fetches a blob of a task.
    pub async fn fetch(&self, blob: Option<&BlobRef>) -> Vec<u8> {
        let blob = BlobId::from_wire(blob).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        BlobMover::new(self.channel.clone()).download(blob, &path).await.unwrap();
        fs::read(&path).unwrap()
    }

    /// Uploads bytes as the answer to a task and submits them.
    pub async fn answer(&self, task: &Task, bytes: &[u8]) -> Result<ResultAck, Status> {
        let blob = blob_id(bytes);
        upload(self.channel.clone(), header(blob, task), &[(0, bytes, true)]).await?;
        self.submit(task, blob).await
    }

    /// Says that a blob is the answer to a task.
    pub async fn submit(&self, task: &Task, blob: BlobId) -> Result<ResultAck, Status> {
        let result = TaskResult {
            run_id: task.run_id.clone(),
            key: task.key.clone(),
            result: Some(blob.to_wire()),
            ..TaskResult::default()
        };
        Ok(self.fleet().submit_result(result).await?.into_inner())
    }
}

/// The header of an upload for a task.
pub fn header(blob: BlobId, task: &Task) -> UploadHeader {
    UploadHeader {
        blob: Some(blob.to_wire()),
        offset: 0,
        run_id: task.run_id.clone(),
        task_key: task.key.clone(),
    }
}

/// Sends a header and chunks as they are given: offset, bytes, whether it is the last.
pub async fn upload(
    channel: CallerChannel,
    header: UploadHeader,
    chunks: &[(u64, &[u8], bool)],
) -> Result<u64, Status> {
    let mut messages = vec![UploadMessage { body: Some(upload_message::Body::Header(header)) }];
    for (offset, data, last) in chunks {
        messages.push(UploadMessage {
            body: Some(upload_message::Body::Chunk(Chunk {
                offset: *offset,
                data: Bytes::copy_from_slice(data),
                last: *last,
            })),
        });
    }
    let answer = TransferClient::new(channel).upload(tokio_stream::iter(messages)).await?;
    Ok(answer.into_inner().size)
}

impl RawSession {
    /// The next message, or why there is none; a minute of silence fails the test.
    pub async fn next(&mut self) -> Result<Option<CoordinatorMessage>, Status> {
        tokio::time::timeout(Duration::from_secs(60), self.inbound.message())
            .await
            .expect("the coordinator says nothing")
    }

    /// The next task of a phase; other messages are passed over.
    pub async fn task(&mut self, phase: &str) -> Task {
        loop {
            let message = self.next().await.unwrap().expect("the session goes on");
            match message.body {
                Some(coordinator_message::Body::Task(task)) if task.phase == phase => return task,
                _ => {}
            }
        }
    }

    /// Says how a task is getting on.
    pub async fn update(&self, task: &Task, state: task_update::State, reason: &str) {
        let update = TaskUpdate {
            run_id: task.run_id.clone(),
            key: task.key.clone(),
            state: state.into(),
            reason: reason.to_owned(),
            percent: 0,
        };
        self.say(AgentMessage { body: Some(agent_message::Body::Update(update)) }).await;
    }

    /// Says anything.
    pub async fn say(&self, message: AgentMessage) {
        self.sender.send(message).await.unwrap();
    }
}
