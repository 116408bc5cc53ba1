//! The egress gate: the one place where something private becomes something that may be sent.
//!
//! Records and what is computed from them are [`Private`], which cannot be printed, serialised or sent. The
//! outbox takes [`Released`], which only [`release`] makes, from a [`crate::policy::Permit`]; what leaves is recorded.

use std::time::Instant;

use sheaf_proto::BlobId;
use sheaf_transport::digest::blob_id;

use crate::{
    budget::{Charge, Paid},
    error::AgentError,
    policy::Permit,
    state::State,
};

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
    /// What the answer was made of.
    pub made: Made,
    /// Computing time, seconds; 0 where it would tell about records that noise protects.
    pub seconds: f64,
}

/// What an answer was made of, and so what lets it out.
pub enum Made {
    /// So many records, exactly as they are: the site's `min_rows` decides.
    OfRows(u64),
    /// Nothing of records: a key, a share of one, a signature.
    Protocol,
    /// Noise that the ledger was charged for: whatever the number of records, which must not show.
    WithNoise(Charge),
}

impl Made {
    /// The computing time that may be told: none of work whose length noise should hide.
    pub fn seconds(&self, began: Instant) -> f64 {
        match self {
            Self::OfRows(_) | Self::Protocol => began.elapsed().as_secs_f64(),
            Self::WithNoise(_) => 0.0,
        }
    }
}

/// An answer that may leave.
pub struct Released {
    bytes: Vec<u8>,
    blob: BlobId,
    seconds: f64,
    paid: Option<Paid>,
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

    /// What paid for it, where it has noise.
    pub const fn paid(&self) -> Option<&Paid> {
        self.paid.as_ref()
    }
}

/// Lets an answer out if the permit covers it, after recording that it leaves.
///
/// # Errors
/// [`AgentError::Denied`] for a kind the permit does not cover, for too few rows or no noise where the site asks for them,
/// or for more bytes than were agreed; [`AgentError::Ledger`] where what leaves cannot be written down.
pub fn release(answer: Answer, permit: &Permit, state: &State) -> Result<Released, AgentError> {
    let bytes = answer.bytes.0;
    if !permit.covers(answer.kind) {
        return Err(AgentError::Denied(format!(
            "output of kind \"{}\" may not leave this site",
            answer.kind
        )));
    }
    match &answer.made {
        Made::OfRows(_) if permit.requires_noise() => {
            return Err(AgentError::Denied(
                "this site lets nothing out that has no noise on it (require_dp)".to_owned(),
            ));
        }
        // The number itself stays here.
        Made::OfRows(rows) if *rows < permit.min_rows() => {
            return Err(AgentError::Denied(format!(
                "this site holds fewer than the {} training rows its policy asks for",
                permit.min_rows()
            )));
        }
        Made::OfRows(_) | Made::Protocol | Made::WithNoise(_) => {}
    }
    if bytes.len() as u64 > permit.max_bytes() {
        return Err(AgentError::Denied(format!(
            "the answer would be larger than the {} bytes the task allows",
            permit.max_bytes()
        )));
    }
    let blob = blob_id(&bytes);
    let paid = match answer.made {
        Made::OfRows(_) | Made::Protocol => None,
        Made::WithNoise(charge) => Some(charge.release(&bytes)?),
    };
    state.record_release(permit.run_id(), permit.key(), answer.kind, &blob)?;
    Ok(Released { bytes, blob, seconds: answer.seconds, paid })
}
