//! Stopping: one token, one tracker, one deadline. A second signal quits.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the work in hand may take after the signal, unless configured.
pub const GRACE: Duration = Duration::from_secs(20);

/// Tells every room to stop and waits until it has. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Shutdown {
    /// Cancelled when the stop begins.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs a task that the stop waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Begins the stop.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Waits for SIGTERM or SIGINT, or until somebody begins the stop.
    pub async fn requested(&self) {
        let (terminate, interrupt) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
            tracing::error!("signals can't be heard");
            return self.token.cancelled().await;
        };
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping on sigterm"),
            _ = interrupt.recv() => tracing::info!("stopping on sigint"),
            () = self.token.cancelled() => {}
        }
    }

    /// Begins the stop and waits for every task, at most `grace`, less on a
    /// second signal. False if something was left undone.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.begin();
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => true,
            () = tokio::time::sleep(grace) => false,
            () = second_signal() => false,
        }
    }
}

/// Waits for one more SIGTERM or SIGINT.
pub async fn second_signal() {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    if let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    } else {
        std::future::pending().await
    }
}
