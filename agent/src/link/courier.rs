//! Carries the outbox to the coordinator: upload, then say which task it answers, until there is a verdict.

use sheaf_proto::v1::{TaskResult, Verdict, fleet_client::FleetClient};
use sheaf_transport::{
    channel::CallerChannel,
    retry::is_transient,
    transfer::{BlobMover, TransferError, UploadPurpose},
};
use tonic::Code;

use super::Link;
use crate::{
    error::AgentError,
    state::{Pending, State},
};

/// Delivers what is there, then whatever is posted, until the link breaks.
pub(super) async fn deliver_all(
    channel: CallerChannel,
    link: &Link,
    state: &State,
) -> Result<(), AgentError> {
    loop {
        for pending in state.pending()? {
            let verdict = deliver(&channel, &pending).await?;
            tracing::info!(
                run = pending.run_id,
                task = pending.key,
                verdict,
                bytes = pending.blob.size(),
                "delivered"
            );
            state.delivered(&pending, &verdict)?;
        }
        link.post.notified().await;
    }
}

/// Delivers one answer. An error means: try again on another link. A refusal is a verdict.
async fn deliver(channel: &CallerChannel, pending: &Pending) -> Result<String, AgentError> {
    let purpose = UploadPurpose {
        run_id: pending.run_id.clone(),
        task_key: pending.key.clone(),
    };
    let mover = BlobMover::new(channel.clone());
    match mover.upload(pending.blob, &pending.path, &purpose).await {
        Ok(()) => {}
        Err(error) if error.is_transient() => return Err(AgentError::Link(error.to_string())),
        Err(TransferError::Rpc { status, .. }) => match status.code() {
            // The file on the disk or on the way was not what it should be; the next try starts afresh.
            Code::DataLoss | Code::OutOfRange => return Err(AgentError::Link(status.message().to_owned())),
            _ => return Ok(format!("refused: {}", status.message())),
        },
        Err(error) => return Ok(format!("lost: {error}")),
    }
    let result = TaskResult {
        run_id: pending.run_id.clone(),
        key: pending.key.clone(),
        result: Some(pending.blob.to_wire()),
        seconds: pending.seconds,
        attempt: 1,
    };
    match FleetClient::new(channel.clone()).submit_result(result).await {
        Ok(ack) => {
            let ack = ack.into_inner();
            Ok(match ack.verdict() {
                Verdict::Accepted => "accepted".to_owned(),
                Verdict::Duplicate => "duplicate".to_owned(),
                Verdict::Late => format!("late: {}", ack.reason),
                Verdict::Refused => format!("refused: {}", ack.reason),
                // A verdict of a newer coordinator: it was heard, and saying it again would not help.
                Verdict::Unspecified => format!("answered: {}", ack.reason),
            })
        }
        Err(status) if is_transient(&status) => Err(AgentError::Link(status.message().to_owned())),
        Err(status) => Ok(format!("refused: {}", status.message())),
    }
}
