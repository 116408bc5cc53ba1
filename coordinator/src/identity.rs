//! The coordinator's own certificate authority, and the invitations by which sites come under it.

pub mod authority;
pub mod enrolment;
pub mod signer;

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

/// Serial numbers of the certificates that open a door now; everything else is refused. Kept in memory
/// beside the database so that every call can ask.
#[derive(Debug, Default)]
pub struct Admitted(RwLock<HashSet<String>>);

impl Admitted {
    /// Starts with the serial numbers the database admits.
    pub fn new(serials: impl IntoIterator<Item = String>) -> Self {
        Self(RwLock::new(serials.into_iter().collect()))
    }

    /// Whether a certificate may call.
    pub fn holds(&self, serial: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(serial)
    }

    /// Admits one more.
    pub fn insert(&self, serial: String) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(serial);
    }

    /// Revokes, from the next call on.
    pub fn remove(&self, serials: &[String]) {
        let mut set = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for serial in serials {
            set.remove(serial);
        }
    }
}
