//! Makes a topology anew that was deleted under us: queues, bindings,
//! exchanges. What was in them is gone; what comes from now on isn't.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::connection::Link;
use super::topology;
use crate::broker::{BrokerError, Config};

/// The least time between two declares.
const PAUSE: Duration = Duration::from_secs(1);
/// What nobody stumbles over, such as a dead-letter queue's binding, is
/// declared again this often.
const ROUND: Duration = Duration::from_secs(60);

/// Hears of what is missing.
pub(super) struct Mender(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Only what was there once is made anew.
    kept: AtomicBool,
    missing: Notify,
}

impl Mender {
    pub(super) fn start(link: Arc<Link>, config: Config, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared::default());
        let task = mend(link, config, shared.clone());
        tokio::spawn(async move { stop.run_until_cancelled(task).await });
        Self(shared)
    }

    /// From here on the topology is to be there, or not.
    pub(super) fn keep(&self, kept: bool) {
        self.0.kept.store(kept, Ordering::Relaxed);
    }

    /// Passes an outcome on, having looked whether something is missing.
    pub(super) fn look<T>(&self, outcome: Result<T, BrokerError>) -> Result<T, BrokerError> {
        if matches!(outcome, Err(BrokerError::Unroutable(_))) {
            self.0.missing.notify_one();
        }
        outcome
    }
}

async fn mend(link: Arc<Link>, config: Config, shared: Arc<Shared>) {
    loop {
        let told = tokio::select! {
            () = shared.missing.notified() => true,
            () = sleep(ROUND) => false,
        };
        if shared.kept.load(Ordering::Relaxed) {
            let declared = match link.live().await {
                Ok(live) => topology::declare(&live, &config).await,
                Err(error) => Err(error),
            };
            match declared {
                Ok(()) if told => tracing::warn!("topology was missing in part: declared again"),
                Ok(()) => {}
                Err(error @ BrokerError::Misdeclared(_)) => {
                    tracing::error!(%error, "topology differs");
                }
                Err(error) => tracing::debug!(%error, "topology not declared again yet"),
            }
        }
        sleep(PAUSE).await;
    }
}
