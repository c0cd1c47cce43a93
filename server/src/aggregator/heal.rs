//! What to do when the loss auditor finds that this aggregator has delivered
//! what is not in the journal.

use protocol::ServerFrame;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Aggregator, encode};

impl Aggregator {
    /// Tells everybody who listens to such a channel that continuity is lost:
    /// they read a snapshot, and what they had wrong is gone.
    pub(super) async fn heal(self, stop: CancellationToken) {
        let mut wrong = self.members.audit().wrong();
        loop {
            let channel = tokio::select! {
                () = stop.cancelled() => return,
                channel = wrong.recv() => match channel {
                    Ok(channel) => channel,
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
            };
            self.hub.begin_anew(channel, |offset| {
                let epoch = self.store.epoch().to_owned();
                encode(&ServerFrame::Gap { channel, epoch, offset })
            });
        }
    }
}
