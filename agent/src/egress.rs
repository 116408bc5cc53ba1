//! The egress gate: the one place where something private becomes something that may be sent.
//!
//! Records and what is computed from them are [`Private`], which cannot be printed, serialised or sent. The
//! outbox takes [`Released`], which only [`release`] makes, from a [`crate::policy::Permit`]; what leaves is recorded.

use sheaf_proto::BlobId;
use sheaf_transport::digest::blob_id;

use crate::{error::AgentError, policy::Permit, state::State};

/// Something computed from the site's records. On purpose it has no Debug, Display, Serialize or Clone.
pub struct Private<T>(T);

impl<T> Private<T> {
    /// Marks a value as private.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

/// An answer to a task, not yet allowed out.
pub struct Answer {
    /// What kind of output it is, in the words of the policy.
    pub kind: &'static str,
    /// The bytes as they would be sent.
    pub bytes: Private<Vec<u8>>,
    /// Training rows it was made of; none for a message that holds nothing of records, such as a key.
    pub rows: Option<u64>,
    /// Computing time, seconds.
    pub seconds: f64,
}

/// An answer that may leave.
pub struct Released {
    bytes: Vec<u8>,
    blob: BlobId,
    seconds: f64,
}

impl Released {
    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Their name.
    pub const fn blob(&self) -> BlobId {
        self.blob
    }

    /// Computing time, seconds.
    pub const fn seconds(&self) -> f64 {
        self.seconds
    }
}

/// Lets an answer out if the permit covers it, after recording that it leaves.
///
/// # Errors
/// [`AgentError::Denied`] for a kind the permit does not cover, for too few rows, or for more bytes than were agreed.
pub fn release(answer: Answer, permit: &Permit, state: &State) -> Result<Released, AgentError> {
    let bytes = answer.bytes.0;
    if !permit.covers(answer.kind) {
        return Err(AgentError::Denied(format!(
            "output of kind \"{}\" may not leave this site",
            answer.kind
        )));
    }
    if answer.rows.is_some_and(|rows| rows < permit.min_rows()) {
        // The number itself stays here.
        return Err(AgentError::Denied(format!(
            "this site holds fewer than the {} training rows its policy asks for",
            permit.min_rows()
        )));
    }
    if bytes.len() as u64 > permit.max_bytes() {
        return Err(AgentError::Denied(format!(
            "the answer would be larger than the {} bytes the task allows",
            permit.max_bytes()
        )));
    }
    let blob = blob_id(&bytes);
    state.record_release(permit.run_id(), permit.key(), answer.kind, &blob)?;
    Ok(Released { bytes, blob, seconds: answer.seconds })
}
