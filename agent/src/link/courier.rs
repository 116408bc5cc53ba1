//! Carries the outbox to the coordinator: upload, then say which task it answers, until there is a verdict.

use std::time::Duration;

use sheaf_proto::v1::{
    SpendStatement, TaskResult, Verdict, fleet_client::FleetClient, task_update::State as TaskState,
};
use sheaf_transport::{
    channel::CallerChannel,
    digest::BlobHasher,
    retry::is_transient,
    transfer::{BlobMover, TransferError, UploadPurpose},
};
use tonic::{Code, Status};

use super::Link;
use crate::{
    error::AgentError,
    identity::Identity,
    state::{Pending, State},
};

/// An answer the coordinator could not take (its disk is full, say) waits so long; others go on meanwhile.
const LATER: Duration = Duration::from_secs(5);

/// What became of one delivery.
enum Outcome {
    /// The coordinator decided; the answer can go.
    Verdict(Verdict, String),
    /// The coordinator could not decide; the answer stays.
    Later(String),
    /// The bytes on this disk are not what they were; the task must be done again.
    Damaged(String),
}

/// Delivers what is there, then whatever is posted, until the link breaks.
pub(super) async fn deliver_all(
    channel: CallerChannel,
    identity: &Identity,
    link: &Link,
    state: &State,
) -> Result<(), AgentError> {
    loop {
        let mut again = false;
        for pending in state.pending()? {
            let (run, task) = (&pending.run_id, &pending.key);
            match deliver(&channel, identity, &pending).await? {
                Outcome::Verdict(verdict, words) => {
                    tracing::info!(run, task, words, bytes = pending.blob.size(), "delivered");
                    state.delivered(&pending, &words)?;
                    if verdict == Verdict::Refused {
                        // The run need not wait for this site until its deadline.
                        link.say(run, task, TaskState::Failed, "the coordinator refused the answer").await;
                    }
                }
                Outcome::Later(why) => {
                    tracing::warn!(run, task, "not delivered yet: {why}");
                    again = true;
                }
                Outcome::Damaged(why) => {
                    state.discard(&pending)?;
                    // The coordinator offers the task again when this site reconnects.
                    return Err(AgentError::Link(format!(
                        "an answer was damaged on this disk, doing it again: {why}"
                    )));
                }
            }
        }
        let later = async {
            if again {
                tokio::time::sleep(LATER).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = link.post.notified() => {}
            () = later => {}
        }
    }
}

/// Delivers one answer. An error means that the link broke.
async fn deliver(
    channel: &CallerChannel,
    identity: &Identity,
    pending: &Pending,
) -> Result<Outcome, AgentError> {
    let purpose = UploadPurpose { run_id: pending.run_id.clone(), task_key: pending.key.clone() };
    match BlobMover::new(channel.clone()).upload(pending.blob, &pending.path, &purpose).await {
        Ok(()) => {}
        Err(error @ (TransferError::File { .. } | TransferError::Corrupt { .. })) => {
            return Ok(Outcome::Damaged(error.to_string()));
        }
        Err(TransferError::Rpc { status, .. })
            if status.code() == Code::DataLoss && !is_whole(pending).await =>
        {
            return Ok(Outcome::Damaged(status.message().to_owned()));
        }
        Err(TransferError::Rpc { status, .. }) => return not_taken(&status),
    }
    let result = TaskResult {
        run_id: pending.run_id.clone(),
        key: pending.key.clone(),
        result: Some(pending.blob.to_wire()),
        seconds: pending.seconds,
        attempt: 1,
        spend: pending.spend.as_deref().map(|statement| signed(identity, statement)).transpose()?,
    };
    match FleetClient::new(channel.clone()).submit_result(result).await {
        Ok(ack) => {
            let ack = ack.into_inner();
            let words = match ack.verdict() {
                Verdict::Accepted => "accepted".to_owned(),
                Verdict::Duplicate => "duplicate".to_owned(),
                Verdict::Late => format!("late: {}", ack.reason),
                Verdict::Refused => format!("refused: {}", ack.reason),
                // A verdict of a newer coordinator: it was heard, and saying it again would not help.
                Verdict::Unspecified => format!("answered: {}", ack.reason),
            };
            Ok(Outcome::Verdict(ack.verdict(), words))
        }
        Err(status) => not_taken(&status),
    }
}

/// A statement of what a run has cost, signed by the site.
fn signed(identity: &Identity, statement: &[u8]) -> Result<SpendStatement, AgentError> {
    let signature = identity.signing().sign(statement).map_err(|e| AgentError::Identity(e.to_string()))?;
    let credentials =
        serde_json::to_vec(&identity.credentials()?).map_err(|e| AgentError::Identity(e.to_string()))?;
    Ok(SpendStatement {
        statement: statement.to_vec().into(),
        signature: signature.into(),
        credentials: credentials.into(),
    })
}

/// What a failed call means for the answer: only a refusal of this very answer lets it go.
fn not_taken(status: &Status) -> Result<Outcome, AgentError> {
    if is_transient(status) {
        return Err(AgentError::Link(status.message().to_owned()));
    }
    Ok(match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied => {
            Outcome::Verdict(Verdict::Late, format!("not wanted: {}", status.message()))
        }
        _ => Outcome::Later(status.message().to_owned()),
    })
}

/// Whether the answer's file is still what its name says.
async fn is_whole(pending: &Pending) -> bool {
    let (path, blob) = (pending.path.clone(), pending.blob);
    let digest = tokio::task::spawn_blocking(move || BlobHasher::of_prefix(&path, u64::MAX)).await;
    digest.is_ok_and(|read| read.is_ok_and(|hasher| hasher.finish() == blob))
}
