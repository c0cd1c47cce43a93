//! Consumers and their deliveries.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{try_join, try_join_all};

use super::queues::{Page, Shared};
use super::tables::Files;
use super::writer::{Fate, Job, Writer};
use crate::broker::{BrokerError, Consumer, Delivery, Settle};
use crate::clock::Clock;

/// Makes a consumer; it waits its turn.
pub(super) fn consume(
    shared: Arc<Shared>,
    prefetch: u16,
    files: Files,
    writer: Writer,
    clock: Clock,
) -> Box<dyn Consumer> {
    let id = shared.join();
    let holder = Arc::new(Holder { id, shared, writer, clock });
    let prefetch = usize::from(prefetch.max(1));
    Box::new(Reader { holder, prefetch, files, cancelled: false })
}

/// Held by a consumer and by each of its deliveries: when the last of them is
/// dropped, what is unsettled goes back to its place, for the next consumer.
/// That alone doesn't count as a failure.
struct Holder {
    id: u64,
    shared: Arc<Shared>,
    writer: Writer,
    clock: Clock,
}

impl Drop for Holder {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.lock();
            queue.consumers.retain(|id| *id != self.id);
            let mine = queue.unsettled.iter().filter(|(_, (holder, _))| *holder == self.id);
            let mine: Vec<i64> = mine.map(|(seq, _)| *seq).collect();
            for seq in mine {
                queue.give_back(seq);
            }
        }
        self.shared.news.notify_waiters();
    }
}

struct Reader {
    holder: Arc<Holder>,
    prefetch: usize,
    files: Files,
    cancelled: bool,
}

/// What a look at the queue came to.
enum Look {
    Delivery(Delivery),
    Load(Page),
    Wait,
    Ended,
}

impl Reader {
    fn look(&self) -> Look {
        let holder = &self.holder;
        let mut queue = holder.shared.lock();
        if self.cancelled || !queue.consumers.contains(&holder.id) {
            return Look::Ended;
        }
        let full = queue.unsettled.len() >= self.prefetch;
        if queue.consumers.front() != Some(&holder.id) || full {
            return Look::Wait;
        }
        let Some(waiting) = queue.take(holder.clock.now()) else {
            return queue.more().map_or(Look::Wait, Look::Load);
        };
        let (seq, message) = (waiting.seq, waiting.message.clone());
        let redelivered = waiting.redelivered;
        holder.shared.hand_out(&mut queue, holder.id, waiting);
        let settle = Box::new(Unsettled { holder: holder.clone(), seq });
        Look::Delivery(Delivery { message, redelivered, settle })
    }

    /// Fills the window from the disk; false if the disk can't be read now.
    async fn load(&self, page: Page) -> bool {
        let shared = &self.holder.shared;
        match self.files.waiting(shared.partition, page).await {
            Ok((rows, complete)) => {
                shared.lock().fill(page, rows, complete);
                true
            }
            Err(error) => {
                tracing::warn!(partition = %shared.partition, %error, "queue not read");
                false
            }
        }
    }
}

#[async_trait]
impl Consumer for Reader {
    async fn recv(&mut self) -> Option<Delivery> {
        loop {
            let shared = self.holder.shared.clone();
            let news = shared.news.notified();
            tokio::pin!(news);
            // Heard from here on, so that nothing falls between look and wait.
            news.as_mut().enable();
            match self.look() {
                Look::Delivery(delivery) => return Some(delivery),
                Look::Load(page) => {
                    if !self.load(page).await {
                        return None;
                    }
                }
                Look::Wait => news.await,
                Look::Ended => return None,
            }
        }
    }

    fn try_recv(&mut self) -> Option<Delivery> {
        match self.look() {
            Look::Delivery(delivery) => Some(delivery),
            _ => None,
        }
    }

    async fn cancel(&mut self) {
        self.cancelled = true;
    }
}

struct Unsettled {
    holder: Arc<Holder>,
    seq: i64,
}

impl Unsettled {
    /// Still this consumer's, and the queue is still there.
    fn held(&self) -> Result<(), BrokerError> {
        let queue = self.holder.shared.lock();
        let held = queue.unsettled.get(&self.seq).is_some_and(|(id, _)| *id == self.holder.id);
        let there = queue.consumers.contains(&self.holder.id);
        if held && there { Ok(()) } else { Err(BrokerError::Gone) }
    }

    async fn settle(&self, fate: Fate) -> Result<(), BrokerError> {
        self.held()?;
        let holder = &self.holder;
        let (queue, seq, at) = (holder.shared.clone(), self.seq, holder.clock.now());
        holder.writer.ask(|done| Job::Settle { queue, seq, fate, at, done }).await?;
        Ok(())
    }
}

#[async_trait]
impl Settle for Unsettled {
    async fn ack(self: Box<Self>) -> Result<(), BrokerError> {
        self.settle(Fate::Ack).await
    }

    async fn ack_with(self: Box<Self>, earlier: Vec<Box<dyn Settle>>) -> Result<(), BrokerError> {
        let earlier = try_join_all(earlier.into_iter().map(Settle::ack));
        try_join(earlier, self.ack()).await.map(drop)
    }

    async fn retry(self: Box<Self>) -> Result<(), BrokerError> {
        self.settle(Fate::Retry).await
    }

    async fn bury(self: Box<Self>, reason: &str) -> Result<(), BrokerError> {
        self.settle(Fate::Bury(reason.to_owned())).await
    }
}
