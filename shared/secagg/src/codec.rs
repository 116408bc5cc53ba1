//! The compact byte form of messages and states: postcard, binary, without field names, the same on every machine.
//!
//! The form is part of the protocol: a field that is added, moved or removed makes another form.

use serde::{Serialize, de::DeserializeOwned};

use crate::error::SecAggError;
use crate::history::History;
use crate::message::{
    Advert, Inbox, KeyShares, MaskedInput, Roster, UnmaskRequest, UnmaskShares, Uploaded, Vote,
};
use crate::server::Server;
use crate::site::Site;

/// What has a byte form.
pub trait Wire: Serialize + DeserializeOwned {
    /// For error messages: "a vote".
    const NAME: &'static str;

    /// The bytes.
    ///
    /// # Errors
    /// [`SecAggError::Encoding`] without memory.
    fn to_bytes(&self) -> Result<Vec<u8>, SecAggError> {
        postcard::to_allocvec(self).map_err(|e| encoding(Self::NAME, e.to_string()))
    }

    /// Reads bytes that may come from anybody. Form only: whether the content can be is for whoever takes it.
    ///
    /// # Errors
    /// [`SecAggError::Encoding`] for bytes that are too short, too long or damaged.
    fn from_bytes(bytes: &[u8]) -> Result<Self, SecAggError> {
        let (value, rest) =
            postcard::take_from_bytes(bytes).map_err(|e| encoding(Self::NAME, e.to_string()))?;
        if rest.is_empty() {
            return Ok(value);
        }
        Err(encoding(Self::NAME, format!("{} bytes follow its end", rest.len())))
    }
}

fn encoding(what: &'static str, reason: String) -> SecAggError {
    SecAggError::Encoding { what, reason }
}

macro_rules! wire {
    ($($type:ty: $name:literal),* $(,)?) => { $(
        impl Wire for $type {
            const NAME: &'static str = $name;
        }
    )* };
}

wire! {
    Advert: "an advert",
    Roster: "a roster",
    KeyShares: "a set of sealed shares",
    Inbox: "an inbox",
    MaskedInput: "a masked vector",
    Uploaded: "a set of uploads",
    Vote: "a vote",
    UnmaskRequest: "a request to unmask",
    UnmaskShares: "a set of open shares",
    Server: "the coordinator's state of a round",
    Site: "a site's state of a round",
    History: "a site's history",
}
