//! The agent as a long-running process, or as a task of a simulation.

use std::{sync::Arc, time::Duration};

use sheaf_data::AssetStore;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    budget::Budget,
    config::Config,
    device,
    error::AgentError,
    identity::Identity,
    link::{self, Link},
    state::State,
    worker::Worker,
};

const STOP_POLL: Duration = Duration::from_millis(50);
/// How often a running daemon notes that it is alive.
const ALIVE: Duration = Duration::from_secs(10);

/// Runs until `stop`, then finishes or hands back what it is doing. `turns` bounds how many tasks compute at
/// the same time, over all agents that share it.
pub async fn run(
    config: Config,
    assets: AssetStore,
    turns: Arc<Semaphore>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let identity = Arc::new(Identity::load(&config)?);
    let state = State::open(&config.home, config.durable)?;
    state.forget_requests(None)?;
    let choice = config.device;
    tokio::task::spawn_blocking(move || device::announce(choice))
        .await
        .map_err(|e| AgentError::Device(e.to_string()))??;
    let link = Link::default();
    let grace = config.stop_grace;
    let home = config.home.clone();
    let budget = tokio::task::spawn_blocking(move || Budget::open(&home))
        .await
        .map_err(|e| AgentError::Ledger(e.to_string()))??;
    let worker =
        Worker::new(config, state.clone(), budget, link.clone(), assets, turns, Some(Arc::clone(&identity)));
    let hang_up = CancellationToken::new();
    let mut kept =
        tokio::spawn(link::keep(identity, link.clone(), worker.clone(), state.clone(), hang_up.clone()));
    let mut alive = tokio::time::interval(ALIVE);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = alive.tick() => state.note_status("alive", &std::process::id().to_string())?,
            ended = &mut kept => return ended.map_err(|e| AgentError::Link(e.to_string()))?,
        }
    }
    worker.close();
    finish(&worker, &link, &state, grace).await;
    hang_up.cancel();
    kept.await.map_err(|e| AgentError::Link(e.to_string()))??;
    state.note_status("link", "stopped")
}

/// Waits for open tasks and undelivered answers; after the grace, tasks go back to the coordinator.
async fn finish(worker: &Worker, link: &Link, state: &State, grace: Duration) {
    let wait = async {
        while worker.busy() > 0 || (link.connected() && state.pending().is_ok_and(|p| !p.is_empty())) {
            tokio::time::sleep(STOP_POLL).await;
        }
    };
    if tokio::time::timeout(grace, wait).await.is_err() {
        tracing::info!("handing {} open tasks back to the coordinator", worker.busy());
        worker.hand_back().await;
        // Time for the message to leave; the answers stay in the outbox.
        tokio::time::sleep(STOP_POLL * 4).await;
    }
}
