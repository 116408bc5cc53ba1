//! The Fleet service: sessions, results, renewals.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use sheaf_proto::{
    BlobId,
    v1::{
        AgentMessage, CoordinatorMessage, Heartbeat, Hello, LedgerHead, RenewRequest, RenewResponse,
        ResultAck, TaskResult, TaskUpdate, Welcome, agent_message, coordinator_message::Body,
        fleet_server::Fleet,
    },
};
use sheaf_transport::identity::SiteName;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::authz::Caller;
use crate::{
    VERSION,
    fleet::{OpenSession, SESSION_QUEUE},
    hub::Hub,
    privacy::Spend,
    run::handle::printable,
};

/// A session on which nothing was heard for so long is over; agents send a heartbeat every 20 s.
const SILENCE: Duration = Duration::from_secs(90);

pub(super) struct FleetService(pub(super) Arc<Hub>);

#[tonic::async_trait]
impl Fleet for FleetService {
    type SessionStream = ReceiverStream<Result<CoordinatorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let site = Caller::site(request.extensions())?;
        let mut inbound = request.into_inner();
        let Some(AgentMessage { body: Some(agent_message::Body::Hello(hello)) }) = inbound.message().await?
        else {
            return Err(Status::invalid_argument("the first message of a session must be Hello"));
        };
        let hello = Hello {
            agent_version: printable(&hello.agent_version),
            device: printable(&hello.device),
            workloads: hello.workloads,
        };
        let name = site.clone();
        let ledger_head = self.0.database.run(move |database| database.ledger_head(&name)).await?;
        let ledger_head = ledger_head.map(|(counter, hash)| LedgerHead { counter, hash: hash.into() });
        let (tasks, mut offered) = mpsc::channel(SESSION_QUEUE);
        let (outbound, stream) = mpsc::channel(SESSION_QUEUE);
        let session = self.0.fleet.open(&site, tasks, &self.0.shutdown);
        tracing::info!(%site, agent = %hello.agent_version, device = %hello.device, "connected");
        let hub = Arc::clone(&self.0);
        tokio::spawn(async move {
            let welcome =
                Welcome { coordinator_version: VERSION.to_owned(), site: site.to_string(), ledger_head };
            drop(outbound.send(Ok(CoordinatorMessage { body: Some(Body::Welcome(welcome)) })).await);
            let end = session.end.clone();
            tokio::select! {
                () = end.cancelled() => {
                    // Said only when this side ends the session: the agent dials again, or learns why not.
                    drop(outbound.send(Err(Status::unavailable("the session was ended by the coordinator"))).await);
                }
                () = listen(&hub, &site, &mut inbound) => {}
                () = forward(&mut offered, &outbound) => {}
                () = call_up(&hub, &site, &hello) => {}
            }
            farewell(&hub, &site, &hello, &session).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn submit_result(&self, request: Request<TaskResult>) -> Result<Response<ResultAck>, Status> {
        let site = Caller::site(request.extensions())?;
        let result = request.into_inner();
        let overhead = result.encoded_len() as u64;
        let blob = BlobId::from_wire(result.result.as_ref()).map_err(crate::error::Error::from)?;
        let run = self.0.run(&result.run_id)?;
        let spend = match &result.spend {
            Some(message) => {
                let authority = self.0.desk.authority.certificate();
                let spend = Spend::read(message, &result.run_id, &site, authority)?;
                let (name, head) = (site.clone(), spend.head());
                self.0.database.run(move |database| database.remember_head(&name, head)).await?;
                Some(spend.signed)
            }
            None => None,
        };
        let (verdict, reason) =
            run.deliver(site.clone(), result.key.clone(), blob, result.seconds, overhead, spend).await?;
        tracing::info!(%site, run = %run.id, key = result.key, ?verdict, reason, "result");
        Ok(Response::new(ResultAck { verdict: verdict.into(), reason }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let site = Caller::site(request.extensions())?;
        let (desk, name) = (self.0.desk.clone(), site.clone());
        let certificate = self.0.database.run(move |_| desk.renew(name, &request.get_ref().csr_der)).await?;
        tracing::info!(%site, "certificate renewed");
        Ok(Response::new(RenewResponse { certificate_der: certificate.into() }))
    }
}

/// Notes the visit and has every run say what it asks of this site; ends with the session.
async fn call_up(hub: &Hub, site: &SiteName, hello: &Hello) {
    seen(hub, site, hello).await;
    for run in hub.runs() {
        run.connected(site.clone()).await;
    }
    std::future::pending::<()>().await;
}

async fn farewell(hub: &Hub, site: &SiteName, hello: &Hello, session: &OpenSession) {
    hub.fleet.close(site, session.id);
    seen(hub, site, hello).await;
    tracing::info!(%site, "disconnected");
}

async fn seen(hub: &Hub, site: &SiteName, hello: &Hello) {
    let (now, name, version, device) =
        (hub.clock.now_ms(), site.clone(), hello.agent_version.clone(), hello.device.clone());
    let noted = hub.database.run(move |database| database.seen(&name, now, &version, &device)).await;
    if let Err(error) = noted {
        tracing::warn!(%site, "the visit could not be noted: {error}");
    }
}

/// Passes offers on, with a heartbeat when there are none, until the agent is gone.
async fn forward(
    offered: &mut mpsc::Receiver<CoordinatorMessage>,
    outbound: &mpsc::Sender<Result<CoordinatorMessage, Status>>,
) {
    loop {
        let message = match tokio::time::timeout(SILENCE / 4, offered.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(_) => CoordinatorMessage { body: Some(Body::Heartbeat(Heartbeat {})) },
        };
        if outbound.send(Ok(message)).await.is_err() {
            return;
        }
    }
}

/// Takes what the agent says until it stops saying anything.
async fn listen(hub: &Hub, site: &SiteName, inbound: &mut Streaming<AgentMessage>) {
    while let Ok(Ok(Some(message))) = tokio::time::timeout(SILENCE, inbound.message()).await {
        // Other bodies are heartbeats, or of a newer version and not for this one.
        if let Some(agent_message::Body::Update(update)) = message.body {
            take_update(hub, site, update).await;
        }
    }
}

async fn take_update(hub: &Hub, site: &SiteName, update: TaskUpdate) {
    let state = update.state();
    match hub.run(&update.run_id) {
        Ok(run) => run.update(site.clone(), update.key, state, update.reason).await,
        Err(error) => tracing::warn!(%site, "update about an unknown run: {error}"),
    }
}
