//! When a long-running command ends; the coordinator's `serve` uses it too.

use std::io::Read as _;

use tokio_util::sync::CancellationToken;

/// Cancels on Ctrl-C or SIGTERM.
pub async fn on_signal(stop: CancellationToken) {
    let terminate = async {
        #[cfg(unix)]
        if let Ok(mut signal) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            signal.recv().await;
            return;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
    stop.cancel();
}

/// Cancels when standard input ends, which happens when the process that holds its other end is gone.
pub fn on_end_of_stdin(stop: CancellationToken) {
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        while std::io::stdin().read(&mut sink).is_ok_and(|n| n > 0) {}
        stop.cancel();
    });
}
