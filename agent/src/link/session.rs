//! One session: hello, then tasks down and updates up until it ends.

use std::time::Duration;

use sheaf_proto::{
    MESSAGE_BYTES,
    v1::{
        AgentMessage, Heartbeat, Hello, agent_message::Body as Up, coordinator_message::Body as Down,
        fleet_client::FleetClient,
    },
};
use sheaf_transport::channel::CallerChannel;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{Link, note};
use crate::{VERSION, error::AgentError, state::State, task, worker::Worker};

const HEARTBEAT: Duration = Duration::from_secs(20);
/// A coordinator that said nothing for so long is gone; it sends heartbeats.
const SILENCE: Duration = Duration::from_secs(90);
const QUEUE: usize = 64;

pub(super) async fn hold(
    channel: CallerChannel,
    link: &Link,
    worker: &Worker,
    state: &State,
    stop: &CancellationToken,
) -> Result<(), AgentError> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let hello = Hello {
        agent_version: VERSION.to_owned(),
        workloads: task::WORKLOADS.iter().map(|name| (*name).to_owned()).collect(),
        device: worker.device(),
    };
    let full = |_| AgentError::Link("the session's queue is closed".to_owned());
    sender.send(AgentMessage { body: Some(Up::Hello(hello)) }).await.map_err(full)?;
    let refused = |status: tonic::Status| AgentError::Link(format!("session: {}", status.message()));
    let mut client = FleetClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    let mut inbound = client.session(ReceiverStream::new(receiver)).await.map_err(refused)?.into_inner();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    let mut heard = Instant::now();
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = heartbeat.tick() => {
                let beat = AgentMessage { body: Some(Up::Heartbeat(Heartbeat {})) };
                sender.send(beat).await.map_err(full)?;
                continue;
            }
            message = tokio::time::timeout_at(heard + SILENCE, inbound.message()) => message,
        };
        let message = message
            .map_err(|_| AgentError::Link(format!("the coordinator was silent for {SILENCE:?}")))?
            .map_err(refused)?
            .ok_or_else(|| AgentError::Link("the coordinator ended the session".to_owned()))?;
        heard = Instant::now();
        match message.body {
            Some(Down::Welcome(welcome)) => {
                worker.compare_ledger(welcome.ledger_head);
                link.outbound.send_replace(Some(sender.clone()));
                tracing::info!(site = welcome.site, coordinator = welcome.coordinator_version, "connected");
                note(state, "link", "up");
            }
            Some(Down::Task(task)) => worker.take(task),
            Some(Down::Cancel(cancel)) => worker.cancel(&cancel.run_id, &cancel.key, &cancel.reason),
            // Heartbeats, and kinds of message that a newer coordinator may send.
            Some(Down::Heartbeat(_)) | None => {}
        }
    }
}
