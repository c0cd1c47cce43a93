//! What waits to be written to one client: bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use protocol::CloseCode;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::hub::Frame;

/// One frame that waits.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    /// An event, shared with every other client that gets it.
    Event(Arc<Frame>),
    /// Anything else.
    Text(Utf8Bytes),
}

impl Outgoing {
    fn bytes(&self) -> usize {
        match self {
            Self::Event(frame) => frame.text.len(),
            Self::Text(text) => text.len(),
        }
    }
}

/// A client's outbox. When it is full the client reads too slowly: the
/// outbox empties, stays shut and says [`CloseCode::SlowReader`].
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    ready: Notify,
    shut: CancellationToken,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Outgoing>,
    bytes: usize,
    code: Option<CloseCode>,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            ready: Notify::new(),
            shut: CancellationToken::new(),
            bytes_max,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, outgoing: Outgoing) {
        let bytes = outgoing.bytes();
        {
            let mut queue = self.queue();
            if queue.code.is_some() {
                return;
            }
            if queue.bytes + bytes <= self.bytes_max {
                queue.bytes += bytes;
                queue.waiting.push_back(outgoing);
                drop(queue);
                return self.ready.notify_one();
            }
        }
        self.shut(CloseCode::SlowReader);
    }

    /// Shuts it; the first code counts.
    pub(super) fn shut(&self, code: CloseCode) {
        let mut queue = self.queue();
        queue.code.get_or_insert(code);
        queue.waiting = VecDeque::new();
        queue.bytes = 0;
        drop(queue);
        self.shut.cancel();
    }

    /// Waits until it is shut, and says why.
    pub(super) async fn shut_with(&self) -> CloseCode {
        self.shut.cancelled().await;
        self.queue().code.unwrap_or(CloseCode::Draining)
    }

    /// Waits for something, and takes all that waits.
    pub(super) async fn take(&self) -> VecDeque<Outgoing> {
        loop {
            {
                let mut queue = self.queue();
                if !queue.waiting.is_empty() {
                    queue.bytes = 0;
                    return std::mem::take(&mut queue.waiting);
                }
            }
            self.ready.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Outgoing {
        Outgoing::Text("x".repeat(bytes).into())
    }

    #[tokio::test]
    async fn a_reader_that_never_reads_costs_what_the_bound_says() {
        let outbox = Outbox::new(100);
        outbox.push(text(60));
        outbox.push(text(40));
        assert_eq!(outbox.queue().bytes, 100);
        outbox.push(text(1));
        assert_eq!(outbox.shut_with().await, CloseCode::SlowReader);
        assert_eq!(outbox.queue().bytes, 0);
        outbox.push(text(1));
        assert!(outbox.queue().waiting.is_empty(), "a shut outbox takes nothing");
    }

    #[tokio::test]
    async fn what_is_taken_makes_room() {
        let outbox = Outbox::new(100);
        outbox.push(text(100));
        assert_eq!(outbox.take().await.len(), 1);
        outbox.push(text(100));
        assert_eq!(outbox.take().await.len(), 1);
    }
}
