//! The queues' live side: what waits, who consumes, what is unsettled.
//!
//! A queue keeps its next messages in memory, a window at most, and knows up
//! to where the disk has more. One consumer is active, the others wait. The
//! writer tells it what has reached the disk, in that order, so that memory
//! never holds what the disk doesn't.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{Channel, Timestamp};
use tokio::sync::Notify;

use super::handed::Handed;
use crate::broker::{BrokerError, Message, Partition};

/// The most messages of a queue in memory, beside those that are unsettled.
pub(super) const WINDOW: usize = 512;
/// The most bytes of a queue's messages in memory, the last one's excess aside.
pub(super) const WINDOW_BYTES: usize = 1_048_576;

/// A message that waits, or is unsettled.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) seq: i64,
    pub(super) expires_at: Timestamp,
    pub(super) message: Message,
    pub(super) redelivered: bool,
}

impl Waiting {
    pub(super) fn new(seq: i64, expires_at: Timestamp, message: Message) -> Self {
        Self { seq, expires_at, message, redelivered: false }
    }

    pub(super) fn bytes(&self) -> usize {
        let headers = &self.message.headers;
        self.message.body.len() + headers.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>()
    }
}

/// One queue's live side.
#[derive(Default)]
pub(super) struct Queue {
    /// In order.
    ready: BTreeMap<i64, Waiting>,
    ready_bytes: usize,
    /// Given to a consumer, by number; with the consumer's.
    pub(super) unsettled: BTreeMap<i64, (u64, Waiting)>,
    /// On their way to the dead letters.
    withdrawn: BTreeSet<i64>,
    /// Rises when something that may not be in memory leaves the disk.
    left: u64,
    /// Everything up to here is in memory or settled.
    pub(super) loaded: i64,
    /// The last message there is.
    pub(super) last: i64,
    /// What was there already when the file was opened.
    old: i64,
    /// Up to where messages were handed out in this life.
    handed: i64,
    /// How many there are, those on their way to the disk included.
    count: u64,
    /// The first is active.
    pub(super) consumers: VecDeque<u64>,
    next_consumer: u64,
    /// Deleted.
    gone: bool,
}

impl Queue {
    fn insert(&mut self, waiting: Waiting) {
        self.ready_bytes += waiting.bytes();
        self.ready.insert(waiting.seq, waiting);
    }

    fn remove(&mut self, seq: i64) -> Option<Waiting> {
        let waiting = self.ready.remove(&seq)?;
        self.ready_bytes = self.ready_bytes.saturating_sub(waiting.bytes());
        Some(waiting)
    }

    /// The first that has not expired at `now`.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Waiting> {
        let seq = *self.ready.iter().find(|(_, waiting)| waiting.expires_at > now)?.0;
        self.remove(seq)
    }

    /// Where the disk has more than memory: after which number, and what
    /// [`Queue::fill`] must be told.
    pub(super) fn more(&self) -> Option<Page> {
        (self.loaded < self.last).then_some(Page {
            after: self.loaded,
            last: self.last,
            left: self.left,
        })
    }

    /// Takes in what the disk had; in vain if things have changed since.
    pub(super) fn fill(&mut self, page: Page, rows: Vec<Waiting>, complete: bool) {
        if self.loaded != page.after || self.left != page.left || self.gone {
            return;
        }
        self.loaded = if complete { page.last } else { rows.last().map_or(page.last, |it| it.seq) };
        for mut row in rows {
            let held = self.unsettled.contains_key(&row.seq) || self.withdrawn.contains(&row.seq);
            if !held && !self.ready.contains_key(&row.seq) {
                row.redelivered = row.seq <= self.old;
                self.insert(row);
            }
        }
    }

    /// Puts what a consumer had back to its place.
    pub(super) fn give_back(&mut self, seq: i64) {
        if let Some((_, mut waiting)) = self.unsettled.remove(&seq) {
            waiting.redelivered = true;
            self.insert(waiting);
        }
    }
}

/// What to read from the disk.
#[derive(Clone, Copy)]
pub(super) struct Page {
    pub(super) after: i64,
    pub(super) last: i64,
    left: u64,
}

/// One queue, shared by its consumers and their deliveries.
pub(super) struct Shared {
    pub(super) partition: Partition,
    queue: Mutex<Queue>,
    /// Something waits, or somebody else's turn has come.
    pub(super) news: Notify,
    slot: usize,
    handed: Arc<Handed>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(&self) -> u64 {
        let mut queue = self.lock();
        queue.next_consumer += 1;
        let id = queue.next_consumer;
        queue.consumers.push_back(id);
        id
    }

    /// Hands `waiting` out to consumer `to`.
    pub(super) fn hand_out(&self, queue: &mut Queue, to: u64, waiting: Waiting) {
        if waiting.seq > queue.handed {
            queue.handed = waiting.seq;
            self.handed.note(self.slot, waiting.seq);
        }
        queue.unsettled.insert(waiting.seq, (to, waiting));
    }

    pub(super) fn gone(&self) -> bool {
        self.lock().gone
    }

    fn end(&self) {
        {
            let mut queue = self.lock();
            queue.gone = true;
            queue.consumers.clear();
        }
        self.news.notify_waiters();
    }

    /// It is on the disk. Comes in the order of the numbers.
    fn published(&self, waiting: Waiting) {
        {
            let mut queue = self.lock();
            let seq = waiting.seq;
            let room = queue.ready.len() < WINDOW && queue.ready_bytes < WINDOW_BYTES;
            if queue.loaded == queue.last && room {
                queue.insert(waiting);
                queue.loaded = seq;
            }
            queue.last = seq;
        }
        self.news.notify_waiters();
    }

    /// It is gone from the queue's table.
    pub(super) fn settled(&self, seq: i64) {
        {
            let mut queue = self.lock();
            let withdrawn = queue.withdrawn.remove(&seq);
            if withdrawn {
                queue.left += 1;
            }
            // Its consumer may have died meanwhile, and it may wait again.
            let held = queue.unsettled.remove(&seq).is_some();
            if queue.remove(seq).is_some() || held || withdrawn {
                queue.count = queue.count.saturating_sub(1);
            }
        }
        self.news.notify_waiters();
    }

    /// Its failure is counted: it waits again.
    pub(super) fn returned(&self, seq: i64) {
        self.lock().give_back(seq);
        self.news.notify_waiters();
    }

    /// Takes a message that has expired out of what can be delivered. False
    /// if a consumer has it, or if it is on its way already.
    pub(super) fn withdraw(&self, seq: i64) -> bool {
        let mut queue = self.lock();
        if queue.unsettled.contains_key(&seq) || !queue.withdrawn.insert(seq) {
            return false;
        }
        queue.remove(seq);
        true
    }

    /// It could not be buried: it is expired still, and found again.
    pub(super) fn stays(&self, seq: i64) {
        self.lock().withdrawn.remove(&seq);
    }
}

/// A place in a queue, for a message that isn't on the disk yet. Dropped, it
/// is free again.
pub(super) struct Place {
    shared: Arc<Shared>,
    taken: bool,
}

impl Place {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Its message is on the disk.
    pub(super) fn fill(mut self, waiting: Waiting) {
        self.taken = true;
        self.shared.published(waiting);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.taken {
            let mut queue = self.shared.lock();
            queue.count = queue.count.saturating_sub(1);
        }
    }
}

/// Every declared queue.
pub(super) struct Queues {
    partitions: u32,
    handed: Arc<Handed>,
    all: Mutex<HashMap<Partition, Arc<Shared>>>,
}

impl Queues {
    pub(super) fn new(partitions: u32, handed: Arc<Handed>) -> Self {
        Self { partitions, handed, all: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Partition, Arc<Shared>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`BrokerError::Unroutable`] if it isn't declared.
    pub(super) fn find(&self, partition: Partition) -> Result<Arc<Shared>, BrokerError> {
        let found = self.all().get(&partition).cloned();
        found
            .filter(|_| partition.index < self.partitions)
            .ok_or_else(|| BrokerError::Unroutable(partition.to_string()))
    }

    /// Which place a queue's mark has.
    pub(super) fn slot(partitions: u32, of: Partition) -> usize {
        of.channel.index() * partitions as usize + of.index as usize
    }

    pub(super) fn declare(&self, partition: Partition, last: i64, count: u64) {
        self.all().entry(partition).or_insert_with(|| {
            Arc::new(Shared {
                partition,
                queue: Mutex::new(Queue { last, old: last, count, ..Queue::default() }),
                news: Notify::new(),
                slot: Self::slot(self.partitions, partition),
                handed: self.handed.clone(),
            })
        });
    }

    /// # Errors
    /// [`BrokerError::Unroutable`] before the first declare.
    pub(super) fn declared(&self, channel: Channel) -> Result<(), BrokerError> {
        self.find(Partition { channel, index: 0 }).map(|_| ())
    }

    /// Forgets every queue; its consumers end.
    pub(super) fn clear(&self) {
        for (_, shared) in self.all().drain() {
            shared.end();
        }
    }

    /// Takes a place for a message that is about to be written.
    ///
    /// # Errors
    /// [`BrokerError::Full`] at the bound.
    pub(super) fn reserve(&self, to: Partition, bound: u64) -> Result<Place, BrokerError> {
        let shared = self.find(to)?;
        {
            let mut queue = shared.lock();
            if queue.count >= bound {
                return Err(BrokerError::Full(to.to_string()));
            }
            queue.count += 1;
        }
        Ok(Place { shared, taken: false })
    }
}
