//! The time, as an argument: the real one in production, a set one in tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Tells Unix milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// A clock that stands where it is set.
    pub fn set(at_ms: i64) -> Self {
        Self(Some(Arc::new(AtomicI64::new(at_ms))))
    }

    /// Moves a set clock on; the real one moves by itself.
    pub fn advance(&self, by_ms: i64) {
        if let Some(at) = &self.0 {
            at.fetch_add(by_ms, Ordering::Relaxed);
        }
    }

    /// Now, Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.0.as_ref().map_or_else(
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64),
            |at| at.load(Ordering::Relaxed),
        )
    }
}

/// A time for people and machines: RFC 3339, UTC, whole seconds; empty for none.
pub fn rfc3339(at_ms: impl Into<Option<i64>>) -> String {
    at_ms
        .into()
        .and_then(|ms| OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}
