//! What waits to be written to one client: bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use protocol::CloseCode;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ring::Frame;

/// So much is written to a client at one go, or one frame more. It is what a
/// connection buffers, so it stays small.
pub(super) const BATCH_BYTES: usize = 32 * 1024;

/// One frame that waits.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    /// An event, shared with every other client that gets it.
    Event(Arc<Frame>),
    /// Anything else.
    Text(Utf8Bytes),
}

impl Outgoing {
    pub(super) fn text(&self) -> &Utf8Bytes {
        match self {
            Self::Event(frame) => &frame.text,
            Self::Text(text) => text,
        }
    }
}

/// How many of these are written at one go.
pub(super) fn one_go<'a>(waiting: impl IntoIterator<Item = &'a Outgoing>) -> usize {
    let mut bytes = 0;
    let fits = |outgoing: &&Outgoing| {
        let fits = bytes < BATCH_BYTES;
        bytes += outgoing.text().len();
        fits
    };
    waiting.into_iter().take_while(fits).count()
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

impl Queue {
    /// The oldest, as many as are written at one go.
    fn batch(&mut self) -> Vec<Outgoing> {
        let batch: Vec<_> = self.waiting.drain(..one_go(&self.waiting)).collect();
        self.bytes -= batch.iter().map(|outgoing| outgoing.text().len()).sum::<usize>();
        batch
    }
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
        let bytes = outgoing.text().len();
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

    /// Waits for something, and takes what is written at one go; the rest stays
    /// and counts.
    pub(super) async fn take(&self) -> Vec<Outgoing> {
        loop {
            let batch = self.queue().batch();
            if !batch.is_empty() {
                return batch;
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

    #[tokio::test]
    async fn what_is_more_than_one_go_is_taken_in_order_and_counts_until_then() {
        let outbox = Outbox::new(3 * BATCH_BYTES);
        let lengths = [BATCH_BYTES - 1, 2, BATCH_BYTES, 3];
        for bytes in lengths {
            outbox.push(text(bytes));
        }
        let mut taken = Vec::new();
        for (count, left) in [(2, BATCH_BYTES + 3), (1, 3), (1, 0)] {
            let batch = outbox.take().await;
            assert_eq!((batch.len(), outbox.queue().bytes), (count, left));
            taken.extend(batch.iter().map(|outgoing| outgoing.text().len()));
        }
        assert_eq!(taken, lengths);
    }
}
