//! The link to the coordinator: dialled from here, kept for ever, with everything important on the disk so that
//! a broken link loses nothing.

mod courier;
mod session;

use std::{sync::Arc, time::Duration};

use sheaf_proto::v1::{AgentMessage, TaskUpdate, agent_message::Body, task_update::State as TaskState};
use sheaf_transport::{
    channel::{Caller, CallerChannel, dial},
    retry,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{error::AgentError, identity::Identity, state::State, worker::Worker};

/// How often to look whether the certificate wants renewing.
const RENEWAL_CHECK: Duration = Duration::from_secs(1);
/// A session that lasted so long was a good one: the next failure begins with a short wait again.
const GOOD_SESSION: Duration = Duration::from_secs(3);

/// What the rest of the agent sees of the link.
#[derive(Clone)]
pub struct Link {
    channel: watch::Sender<Option<CallerChannel>>,
    outbound: watch::Sender<Option<mpsc::Sender<AgentMessage>>>,
    post: Arc<Notify>,
}

impl Default for Link {
    fn default() -> Self {
        Self { channel: watch::Sender::new(None), outbound: watch::Sender::new(None), post: Arc::default() }
    }
}

impl Link {
    /// A channel to the coordinator, as soon as there is one.
    pub async fn channel(&self) -> Result<CallerChannel, AgentError> {
        let mut watch = self.channel.subscribe();
        let channel = watch.wait_for(Option::is_some).await.map_err(|_| AgentError::Cancelled)?;
        channel.clone().ok_or(AgentError::Cancelled)
    }

    /// Tells the coordinator about a task, if it is listening; it asks again when it reconnects.
    pub async fn say(&self, run_id: &str, key: &str, state: TaskState, reason: &str) {
        let sender = self.outbound.borrow().clone();
        if let Some(sender) = sender {
            let update = TaskUpdate {
                run_id: run_id.to_owned(),
                key: key.to_owned(),
                state: state.into(),
                reason: reason.to_owned(),
                percent: 0,
            };
            drop(sender.send(AgentMessage { body: Some(Body::Update(update)) }).await);
        }
    }

    /// Something new lies in the outbox.
    pub fn posted(&self) {
        self.post.notify_one();
    }

    /// Whether the coordinator is connected.
    pub fn connected(&self) -> bool {
        self.outbound.borrow().is_some()
    }
}

/// Keeps the link up until `stop`: dial, session, courier; on failure wait and dial again, for ever.
pub async fn keep(
    identity: Arc<Identity>,
    link: Link,
    worker: Worker,
    state: State,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let tls = identity.tls()?;
    let mut waits = retry::reconnect();
    loop {
        let began = std::time::Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = attend(&identity, Arc::clone(&tls), &link, &worker, &state, &stop) => ended,
        };
        link.channel.send_replace(None);
        link.outbound.send_replace(None);
        if stop.is_cancelled() {
            return Ok(());
        }
        if began.elapsed() > GOOD_SESSION {
            waits = retry::reconnect();
        }
        let wait = waits.next().unwrap_or(GOOD_SESSION);
        if let Err(error) = &ended {
            tracing::warn!("no link to the coordinator, next try in {:.1} s: {error}", wait.as_secs_f32());
            note(&state, "link", &format!("down: {error}"));
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One connection from dialling to its end.
async fn attend(
    identity: &Arc<Identity>,
    tls: Arc<rustls::ClientConfig>,
    link: &Link,
    worker: &Worker,
    state: &State,
    stop: &CancellationToken,
) -> Result<(), AgentError> {
    let expired = identity.certificate()?.not_after < unix_seconds();
    if expired {
        return Err(AgentError::Identity(
            "this site's certificate has run out; have the operator revoke the site and invite it again, then enrol anew"
                .to_owned(),
        ));
    }
    let channel = dial(&identity.profile.url, tls).await.map_err(|e| AgentError::Link(e.to_string()))?;
    let channel = Caller::site(&identity.profile.site).on(channel);
    link.channel.send_replace(Some(channel.clone()));
    tokio::select! {
        ended = session::hold(channel.clone(), link, worker, state, stop) => ended,
        ended = courier::deliver_all(channel.clone(), identity, link, state) => ended,
        ended = renew_in_time(identity, channel) => ended,
    }
}

async fn renew_in_time(identity: &Identity, channel: CallerChannel) -> Result<(), AgentError> {
    let mut renew_at = identity.certificate()?.renew_at();
    loop {
        tokio::time::sleep(RENEWAL_CHECK).await;
        if unix_seconds() >= renew_at {
            match identity.renew(channel.clone()).await {
                Ok(()) => {
                    tracing::info!("certificate renewed");
                    renew_at = identity.certificate()?.renew_at();
                }
                Err(error) => {
                    tracing::warn!("{error}; trying again in a minute");
                    tokio::time::sleep(Duration::from_mins(1)).await;
                }
            }
        }
    }
}

fn unix_seconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

fn note(state: &State, name: &str, value: &str) {
    if let Err(error) = state.note_status(name, value) {
        tracing::warn!("the status cannot be noted: {error}");
    }
}
