//! Steps of journeys on their way into the store.
//!
//! Noting one never waits: it goes into a bounded map, merged with what is
//! there already, and a task writes the map to the store in batches. While
//! the store is away the map fills up to [`ENTRIES_MAX`]; after that new
//! entries are dropped and counted. Receipts tell a story and carry no work,
//! so losing some harms nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::Stage;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::clock::Clock;
use crate::shutdown::Shutdown;
use crate::store::{Receipt, Store};

/// Entries, distinct by cause, stage and agent, that may wait for the store.
pub const ENTRIES_MAX: usize = 50_000;
/// How often the map is written.
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// After a failure the wait doubles up to this.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The most entries in one write: commits of events must not wait long behind it.
const BATCH_MAX: usize = 64;
/// How often the last flush is tried.
const DRAIN_TRIES: u32 = 3;
/// And how long it may take: work in hand mustn't wait behind it.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// Takes receipts and never blocks. Clones share it.
#[derive(Clone)]
pub struct Receipts {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    clock: Clock,
    map: Mutex<Map>,
    /// Held by whoever writes.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Map {
    waiting: HashMap<Uuid, Vec<Receipt>>,
    /// What is being written just now.
    underway: HashMap<Uuid, Vec<Receipt>>,
    entries: usize,
    /// Entries under way; they count against the bound as they may come back.
    entries_underway: usize,
    dropped: u64,
    /// And those that were told of already.
    dropped_before: u64,
    /// Rises with each batch that was written.
    written: u64,
    watched: HashMap<Uuid, (usize, Arc<Notify>)>,
}

impl Map {
    /// Merges: keeps the first time, adds up the counts. False if it is new
    /// and there is no room.
    fn add(&mut self, receipt: Receipt) -> bool {
        let full = self.entries + self.entries_underway >= ENTRIES_MAX;
        if full && !self.waiting.contains_key(&receipt.cause) {
            return false;
        }
        let known = self.waiting.entry(receipt.cause).or_default();
        if merge(known, &receipt) {
            return true;
        }
        if full {
            return false;
        }
        known.push(receipt);
        self.entries += 1;
        true
    }

    /// Puts whole causes under way until there are enough.
    fn take(&mut self) -> Vec<Receipt> {
        let mut batch = Vec::new();
        let mut causes = Vec::new();
        for (cause, receipts) in &self.waiting {
            if batch.len() >= BATCH_MAX {
                break;
            }
            batch.extend(receipts.iter().cloned());
            causes.push(*cause);
        }
        for cause in causes {
            if let Some(receipts) = self.waiting.remove(&cause) {
                self.underway.insert(cause, receipts);
            }
        }
        self.entries -= batch.len();
        self.entries_underway = batch.len();
        batch
    }

    /// The batch under way is in the store.
    fn settle(&mut self) {
        self.underway.clear();
        self.entries_underway = 0;
        self.written += 1;
    }

    /// The batch under way waits again.
    fn abandon(&mut self) {
        let underway = std::mem::take(&mut self.underway);
        self.entries_underway = 0;
        for receipt in underway.into_values().flatten() {
            if !self.add(receipt) {
                self.dropped += 1;
            }
        }
    }
}

/// True if there was one of the same cause, stage and agent.
fn merge(known: &mut [Receipt], new: &Receipt) -> bool {
    let same = known.iter_mut().find(|one| one.stage == new.stage && one.agent == new.agent);
    if let Some(one) = same {
        one.add(new);
        true
    } else {
        false
    }
}

impl Receipts {
    /// Starts writing to `store`. The task ends, after a last flush, when the
    /// stop begins; what is noted later goes with [`Receipts::drain`].
    #[must_use]
    pub fn start(store: Arc<dyn Store>, clock: Clock, shutdown: &Shutdown) -> Self {
        let receipts = Self {
            shared: Arc::new(Shared {
                store,
                clock,
                map: Mutex::default(),
                writing: tokio::sync::Mutex::default(),
            }),
        };
        shutdown.spawn(receipts.clone().run(shutdown.token()));
        receipts
    }

    /// Notes a step. Never blocks; drops and counts what the bound forbids.
    pub fn note(&self, receipt: Receipt) {
        let cause = receipt.cause;
        let mut map = self.map();
        if !map.add(receipt) {
            map.dropped += 1;
            return;
        }
        if let Some((_, notify)) = map.watched.get(&cause) {
            notify.notify_waiters();
        }
    }

    /// Notes that `cause` has reached `stage` now.
    pub fn reached(&self, cause: Uuid, stage: Stage) {
        let at = self.shared.clock.now();
        self.note(Receipt { cause, stage, at, integration: None, agent: None, count: 0 });
    }

    /// Notes that `cause` was taken from `integration` now.
    pub fn accepted(&self, cause: Uuid, integration: &str) {
        let (at, integration) = (self.shared.clock.now(), Some(integration.to_owned()));
        let stage = Stage::Accepted;
        self.note(Receipt { cause, stage, at, integration, agent: None, count: 0 });
    }

    /// What is noted of `cause` and not known to be in the store.
    #[must_use]
    pub fn pending(&self, cause: Uuid) -> Vec<Receipt> {
        let map = self.map();
        let mut found = map.underway.get(&cause).cloned().unwrap_or_default();
        for receipt in map.waiting.get(&cause).into_iter().flatten() {
            if !merge(&mut found, receipt) {
                found.push(receipt.clone());
            }
        }
        found
    }

    /// How many entries found no room since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let map = self.map();
        map.dropped + map.dropped_before
    }

    /// A number that rises when a batch has moved from here to the store:
    /// whoever reads both reads again when it has changed in between.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.map().written
    }

    /// Tells when something of `cause` is noted, until it is dropped.
    #[must_use]
    pub fn watch(&self, cause: Uuid) -> Watch {
        let mut map = self.map();
        let (watchers, notify) = map.watched.entry(cause).or_default();
        *watchers += 1;
        Watch { receipts: self.clone(), cause, notify: notify.clone() }
    }

    /// Writes all there is; gives up after a few failures, or when it takes too
    /// long. For the end, when every room has stopped and before the store closes.
    pub async fn drain(&self) {
        let tries = async {
            for _ in 0..DRAIN_TRIES {
                if self.flush().await.is_ok() {
                    return;
                }
                tokio::time::sleep(FLUSH_EVERY).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN_MAX, tries).await;
        let lost = {
            let map = self.map();
            map.entries + map.entries_underway
        };
        if lost > 0 {
            tracing::warn!(receipts.lost = lost, "receipts not written");
        }
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        // The map is whole after every statement that changes it.
        self.shared.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self, stop: tokio_util::sync::CancellationToken) {
        let mut wait = FLUSH_EVERY;
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.drain().await,
                () = tokio::time::sleep(wait) => {}
            }
            match self.flush().await {
                Ok(()) if failing => {
                    tracing::info!("receipts written again");
                    (wait, failing) = (FLUSH_EVERY, false);
                }
                Ok(()) => {}
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "receipts not written, trying again");
                    }
                    (wait, failing) = ((wait * 2).min(RETRY_MAX), true);
                }
            }
            let dropped = {
                let mut map = self.map();
                map.dropped_before += map.dropped;
                std::mem::take(&mut map.dropped)
            };
            if dropped > 0 {
                tracing::warn!(receipts.dropped = dropped, "no room for receipts");
            }
        }
    }

    async fn flush(&self) -> Result<(), crate::store::StoreError> {
        let _turn = self.shared.writing.lock().await;
        // Left by a flush that was given up half way.
        self.map().abandon();
        loop {
            let batch = self.map().take();
            if batch.is_empty() {
                return Ok(());
            }
            match self.shared.store.record(&batch).await {
                Ok(()) => self.map().settle(),
                Err(error) => {
                    self.map().abandon();
                    return Err(error);
                }
            }
        }
    }
}

/// Hears of the steps of one cause; see [`Receipts::watch`].
pub struct Watch {
    receipts: Receipts,
    cause: Uuid,
    notify: Arc<Notify>,
}

impl Watch {
    /// Ends at the next step that is noted after this call.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut map = self.receipts.map();
        if let Some((watchers, _)) = map.watched.get_mut(&self.cause) {
            *watchers -= 1;
            if *watchers == 0 {
                map.watched.remove(&self.cause);
            }
        }
    }
}
