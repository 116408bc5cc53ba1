//! When to try again, and which failures are worth it.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tonic::{Code, Status};

/// Waits between attempts to reach the coordinator: 0.2 s growing to 30 s with jitter, for ever. Jitter
/// keeps a thousand agents from returning in one instant after a restart.
pub fn reconnect() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(30))
        .with_factor(1.7)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Whether the same call may succeed later. `Cancelled` and a transport error without a code come from a
/// peer that is draining or gone.
pub fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted => true,
        Code::Unknown | Code::Internal => {
            // tonic reports a broken connection as Unknown or Internal with a transport source
            let text = status.message();
            [
                "transport error",
                "h2 protocol error",
                "connection",
                "broken pipe",
                "stream closed",
                "error reading",
            ]
            .iter()
            .any(|part| text.contains(part))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
