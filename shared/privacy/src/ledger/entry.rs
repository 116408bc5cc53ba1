//! What a ledger writes down. The JSON form is durable: names, order of fields and meaning do not change.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Delta, Epsilon, Event};

/// A SHA-256: of a data set's content, a plan, a release's bytes or an entry. Hex in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Takes a digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(|e| format!("not a SHA-256 in hex: {e}"))?;
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

const LONGEST_NAME: usize = 200;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Takes 1 to 200 characters without control characters; anything else comes back as the reason.
            pub fn new(name: impl Into<String>) -> Result<Self, String> {
                let name = name.into();
                if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
                    return Err(format!("{} must be 1 to {LONGEST_NAME} printable characters", $what));
                }
                Ok(Self(name))
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(name: String) -> Result<Self, String> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A run's id.
    RunId, "a run id"
}
name! {
    /// Whose presence is protected: the name of the column whose equal values are one unit (patient, customer), or `row`.
    PrivacyUnit, "a privacy unit"
}

/// The most that may be spent on a data set: the site's decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    /// The content of the data set, so that another name does not make it new.
    pub dataset: Digest,
    /// The unit that epsilon is about. It cannot change while anything is charged.
    pub privacy_unit: PrivacyUnit,
    /// The cap.
    pub epsilon: Epsilon,
    /// The delta at which it is judged.
    pub delta: Delta,
}

/// What a run asks for: the whole of what it may do with a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The run.
    pub run: RunId,
    /// The plan it follows.
    pub plan: Digest,
    /// The data set.
    pub dataset: Digest,
    /// The unit its clipping is per.
    pub privacy_unit: PrivacyUnit,
    /// Mechanism, parameters and number of steps or releases.
    pub event: Event,
    /// The delta its report speaks of. Admission goes by the cap's.
    pub delta: Delta,
}

/// Which bound let a reservation in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Rényi filter over everything charged: holds though each run is chosen after seeing the results of the last.
    Renyi,
    /// Privacy-loss distribution of this one event on a data set with nothing charged. Charged whole from then on.
    LossDistribution,
}

/// One entry. Reservations are named by the counter of their `Reserve`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// The site set a cap.
    Cap {
        /// The cap.
        cap: Cap,
    },
    /// All of it is charged from here on.
    Reserve {
        /// The bound that admitted it.
        basis: Basis,
        /// What was asked.
        request: Request,
    },
    /// Up to this many noise draws may have happened.
    Draw {
        /// The reservation.
        reservation: u64,
        /// Draws so far, at most.
        upto: u64,
    },
    /// These bytes left the site. Sent again they cost nothing.
    Release {
        /// The reservation they were computed under.
        reservation: u64,
        /// Digest of the bytes.
        output: Digest,
    },
    /// The reservation ended; this much was done.
    Settle {
        /// The reservation.
        reservation: u64,
        /// Steps or releases, at least as many as happened.
        count: u64,
    },
    /// The reservation ended and nothing had been drawn.
    Void {
        /// The reservation.
        reservation: u64,
    },
}
