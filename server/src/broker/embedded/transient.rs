//! Broadcasts and replies: in memory, bounded, the oldest dropped when full.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::broker::{Message, TRANSIENT_MAX};

pub(super) struct Transient {
    members: broadcast::Sender<Message>,
    replies: Mutex<HashMap<String, broadcast::Sender<Message>>>,
}

impl Default for Transient {
    fn default() -> Self {
        Self { members: broadcast::channel(TRANSIENT_MAX).0, replies: Mutex::default() }
    }
}

impl Transient {
    pub(super) fn broadcast(&self, message: &Message) {
        // Nobody may be listening.
        let _ = self.members.send(message.clone());
    }

    pub(super) fn listen(&self, stop: &CancellationToken) -> mpsc::Receiver<Message> {
        pass_on(self.members.subscribe(), stop.clone())
    }

    pub(super) fn reply(&self, member: &str, message: Message) {
        let replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = replies.get(member) {
            let _ = sender.send(message);
        }
    }

    pub(super) fn replies(
        &self,
        member: &str,
        stop: &CancellationToken,
    ) -> mpsc::Receiver<Message> {
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        replies.retain(|_, sender| sender.receiver_count() > 0);
        let sender =
            replies.entry(member.to_owned()).or_insert_with(|| broadcast::channel(TRANSIENT_MAX).0);
        pass_on(sender.subscribe(), stop.clone())
    }
}

/// From a channel that drops the oldest to one that ends with its receiver.
fn pass_on(
    mut from: broadcast::Receiver<Message>,
    stop: CancellationToken,
) -> mpsc::Receiver<Message> {
    let (to, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                () = to.closed() => return,
                received = from.recv() => received,
            };
            match received {
                Ok(message) => {
                    if to.send(message).await.is_err() {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "transient messages dropped");
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
    receiver
}
