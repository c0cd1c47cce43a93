//! The queues' live side: what waits, who consumes, what is unsettled.
//!
//! A queue keeps its next messages in memory, a window at most, and knows up
//! to where the disk has more. One consumer is active, the others wait.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use domain::{Channel, Timestamp};
use tokio::sync::Notify;

use super::tables::Files;
use super::writer::{Job, Writer};
use crate::broker::{BrokerError, Consumer, DELIVERY_LIMIT, Delivery, Message, Partition, Settle};
use crate::clock::Clock;

/// The most messages of a queue in memory, beside those that are unsettled.
const WINDOW: usize = 512;

/// A message that waits, or is unsettled.
#[derive(Clone)]
pub(super) struct Waiting {
    seq: i64,
    expires_at: Timestamp,
    message: Message,
    pub(super) redelivered: bool,
    pub(super) tries: u32,
}

impl Waiting {
    pub(super) fn new(seq: i64, expires_at: Timestamp, message: Message) -> Self {
        Self { seq, expires_at, message, redelivered: false, tries: 0 }
    }
}

#[derive(Default)]
struct Queue {
    /// In order.
    ready: BTreeMap<i64, Waiting>,
    /// Given to a consumer, by number; with the consumer's.
    unsettled: BTreeMap<i64, (u64, Waiting)>,
    /// Everything up to here is in memory or settled.
    loaded: i64,
    /// The last message there is.
    last: i64,
    /// How many there are, those on their way to the disk included.
    count: u64,
    /// The first is active.
    consumers: VecDeque<u64>,
    next_consumer: u64,
}

/// One queue, shared by its consumers and their deliveries.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something waits, or somebody else's turn has come.
    news: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every declared queue.
pub(super) struct Queues {
    partitions: u32,
    all: Mutex<HashMap<Partition, Arc<Shared>>>,
}

impl Queues {
    pub(super) fn new(partitions: u32) -> Self {
        Self { partitions, all: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Partition, Arc<Shared>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, partition: Partition) -> Result<Arc<Shared>, BrokerError> {
        let found = self.all().get(&partition).cloned();
        found
            .filter(|_| partition.index < self.partitions)
            .ok_or_else(|| BrokerError::Unroutable(partition.to_string()))
    }

    pub(super) fn declare(&self, partition: Partition, last: i64, count: u64) {
        self.all().entry(partition).or_insert_with(|| {
            let queue = Queue { last, count, ..Queue::default() };
            Arc::new(Shared { queue: Mutex::new(queue), news: Notify::new() })
        });
    }

    /// # Errors
    /// [`BrokerError::Unroutable`] before the first declare.
    pub(super) fn declared(&self, channel: Channel) -> Result<(), BrokerError> {
        self.find(Partition { channel, index: 0 }).map(|_| ())
    }

    /// Deletes every queue; its consumers end.
    pub(super) fn clear(&self) {
        for (_, shared) in self.all().drain() {
            shared.lock().consumers.clear();
            shared.news.notify_waiters();
        }
    }

    /// Takes a place for a message that is about to be written.
    pub(super) fn reserve(&self, to: Partition, bound: u64) -> Result<(), BrokerError> {
        let shared = self.find(to)?;
        let mut queue = shared.lock();
        if queue.count >= bound {
            return Err(BrokerError::Full(to.to_string()));
        }
        queue.count += 1;
        Ok(())
    }

    /// Gives a place back.
    pub(super) fn release(&self, to: Partition) {
        if let Ok(shared) = self.find(to) {
            let mut queue = shared.lock();
            queue.count = queue.count.saturating_sub(1);
        }
    }

    /// It is on the disk. Comes in the order of the numbers.
    pub(super) fn published(&self, to: Partition, waiting: Waiting) {
        let Ok(shared) = self.find(to) else { return };
        {
            let mut queue = shared.lock();
            let seq = waiting.seq;
            if queue.loaded == queue.last && queue.ready.len() < WINDOW {
                queue.ready.insert(seq, waiting);
                queue.loaded = seq;
            }
            queue.last = seq;
        }
        shared.news.notify_waiters();
    }

    /// Takes a message that has expired out of what can be delivered. False
    /// if a consumer has it.
    pub(super) fn withdraw(&self, from: Partition, seq: i64) -> bool {
        let Ok(shared) = self.find(from) else { return false };
        let mut queue = shared.lock();
        if queue.unsettled.contains_key(&seq) {
            return false;
        }
        queue.ready.remove(&seq);
        true
    }

    /// It is gone from the disk.
    pub(super) fn settled(&self, from: Partition, seq: i64) {
        if let Ok(shared) = self.find(from) {
            let mut queue = shared.lock();
            queue.unsettled.remove(&seq);
            queue.count = queue.count.saturating_sub(1);
        }
    }

    pub(super) fn consume(
        &self,
        from: Partition,
        prefetch: u16,
        files: Files,
        writer: Writer,
        clock: &Clock,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        let shared = self.find(from)?;
        let id = {
            let mut queue = shared.lock();
            queue.next_consumer += 1;
            let id = queue.next_consumer;
            queue.consumers.push_back(id);
            id
        };
        let holder = Arc::new(Holder { id, shared, writer, clock: clock.clone() });
        let prefetch = usize::from(prefetch.max(1));
        Ok(Box::new(Reader { holder, partition: from, prefetch, files, cancelled: false }))
    }
}

/// Held by a consumer and by each of its deliveries: when the last of them is
/// dropped, what is unsettled goes back to its place, for the next consumer.
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
            let mine: Vec<i64> = queue
                .unsettled
                .iter()
                .filter(|(_, (holder, _))| *holder == self.id)
                .map(|(seq, _)| *seq)
                .collect();
            for seq in mine {
                if let Some((_, mut waiting)) = queue.unsettled.remove(&seq) {
                    waiting.redelivered = true;
                    queue.ready.insert(seq, waiting);
                }
            }
        }
        self.shared.news.notify_waiters();
    }
}

struct Reader {
    holder: Arc<Holder>,
    partition: Partition,
    prefetch: usize,
    files: Files,
    cancelled: bool,
}

/// What a look at the queue came to.
enum Look {
    Delivery(Delivery),
    Load { after: i64, last: i64 },
    Wait,
    Ended,
}

impl Reader {
    fn look(&self) -> Look {
        let mut queue = self.holder.shared.lock();
        if !queue.consumers.contains(&self.holder.id) {
            return Look::Ended;
        }
        let full = queue.unsettled.len() >= self.prefetch;
        if queue.consumers.front() != Some(&self.holder.id) || full {
            return Look::Wait;
        }
        let now = self.holder.clock.now();
        let next = queue.ready.iter().find(|(_, waiting)| waiting.expires_at > now);
        let Some(seq) = next.map(|(seq, _)| *seq) else {
            if queue.loaded < queue.last {
                return Look::Load { after: queue.loaded, last: queue.last };
            }
            return Look::Wait;
        };
        let Some(waiting) = queue.ready.remove(&seq) else { return Look::Wait };
        let (message, redelivered) = (waiting.message.clone(), waiting.redelivered);
        queue.unsettled.insert(seq, (self.holder.id, waiting));
        let settle = Unsettled { holder: self.holder.clone(), seq };
        Look::Delivery(Delivery { message, redelivered, settle: Box::new(settle) })
    }

    /// Fills the window from the disk; false if the disk can't be read now.
    async fn load(&self, after: i64, last: i64) -> bool {
        let read = self.files.waiting(self.partition, after, last, WINDOW).await;
        let rows = match read {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(partition = %self.partition, %error, "queue not read");
                return false;
            }
        };
        let mut queue = self.holder.shared.lock();
        if queue.loaded != after {
            return true;
        }
        queue.loaded =
            if rows.len() < WINDOW { last } else { rows.last().map_or(last, |row| row.seq) };
        for row in rows {
            if !queue.unsettled.contains_key(&row.seq) {
                queue.ready.entry(row.seq).or_insert(row);
            }
        }
        true
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
            if self.cancelled {
                return None;
            }
            match self.look() {
                Look::Delivery(delivery) => return Some(delivery),
                Look::Load { after, last } => {
                    if !self.load(after, last).await {
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
            Look::Delivery(delivery) if !self.cancelled => Some(delivery),
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

    fn settled(&self) {
        {
            let mut queue = self.holder.shared.lock();
            queue.unsettled.remove(&self.seq);
            queue.count = queue.count.saturating_sub(1);
        }
        self.holder.shared.news.notify_waiters();
    }
}

#[async_trait]
impl Settle for Unsettled {
    async fn ack(self: Box<Self>) -> Result<(), BrokerError> {
        self.held()?;
        let seq = self.seq;
        self.holder.writer.ask(|done| Job::Ack { seq, done }).await?;
        self.settled();
        Ok(())
    }

    async fn retry(self: Box<Self>) -> Result<(), BrokerError> {
        self.held()?;
        let (seq, at) = (self.seq, self.holder.clock.now());
        let tries = self.holder.writer.ask(|done| Job::Retry { seq, at, done }).await?;
        if tries >= i64::from(DELIVERY_LIMIT) {
            self.settled();
            return Ok(());
        }
        {
            let mut queue = self.holder.shared.lock();
            if let Some((_, mut waiting)) = queue.unsettled.remove(&seq) {
                waiting.redelivered = true;
                waiting.tries = u32::try_from(tries).unwrap_or(0);
                queue.ready.insert(seq, waiting);
            }
        }
        self.holder.shared.news.notify_waiters();
        Ok(())
    }

    async fn bury(self: Box<Self>, reason: &str) -> Result<(), BrokerError> {
        self.held()?;
        let (seq, at, reason) = (self.seq, self.holder.clock.now(), reason.to_owned());
        self.holder.writer.ask(|done| Job::Bury { seq, reason, at, done }).await?;
        self.settled();
        Ok(())
    }
}
