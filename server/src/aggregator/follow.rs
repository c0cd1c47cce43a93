//! Follows one channel's outbound log and keeps the hub's lane whole: drops
//! what it has, waits briefly over a hole, then reads the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::Channel;
use protocol::{CloseCode, names};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Aggregator;
use super::ring::Frame;
use crate::broker::{LogReader, LogStart, Message};
use crate::store::{JournalRow, StoreError};

/// Events of different partitions overtake each other by about this much.
const HOLE_PATIENCE: Duration = Duration::from_millis(10);
/// At most this many events wait behind a hole.
const WAITING_MAX: usize = 4_096;
/// How many rows of the journal are read at once.
const PAGE: u32 = 500;
/// How often the others' positions are compared with ours.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(500);

impl Frame {
    fn from_log(channel: Channel, message: &Message) -> Option<Self> {
        let offset = message.header(names::X_OFFSET)?.parse().ok()?;
        let cause = message.header(names::X_CAUSE)?.parse().ok()?;
        let distribution = serde_json::from_str(message.header(names::X_DISTRIBUTION)?).ok()?;
        let interaction = message.header(names::X_KEY).filter(|key| **key != message.id);
        let body = std::str::from_utf8(&message.body).ok()?;
        let interaction = interaction.and_then(|key| key.parse().ok());
        Some(Self::new(channel, offset, cause, interaction, distribution, body))
    }

    pub(super) fn from_journal(channel: Channel, row: JournalRow) -> Self {
        let JournalRow { offset, cause, interaction_id, distribution, body, .. } = row;
        Self::new(channel, offset, cause, interaction_id, distribution, &body)
    }
}

/// One channel's follower.
pub(super) struct Follower {
    aggregator: Aggregator,
    channel: Channel,
    /// Events that came before those ahead of them, by offset.
    waiting: BTreeMap<u64, Frame>,
    begun: bool,
}

impl Follower {
    pub(super) fn new(aggregator: Aggregator, channel: Channel) -> Self {
        Self { aggregator, channel, waiting: BTreeMap::new(), begun: false }
    }

    /// Follows until `stop`, through every loss of broker and store.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow_forever() => {}
        }
    }

    async fn follow_forever(&mut self) {
        loop {
            match self.aggregator.broker.follow(self.channel, LogStart::Next).await {
                Ok(mut reader) => {
                    if let Err(error) = self.follow(reader.as_mut()).await {
                        tracing::warn!(channel = %self.channel, %error, "journal not read");
                    }
                }
                Err(error) => {
                    tracing::debug!(channel = %self.channel, %error, "log not followed");
                    // The journal has what the log can't bring for now.
                    if self.begun
                        && let Err(error) = self.catch_up().await
                    {
                        tracing::debug!(channel = %self.channel, %error, "journal not read");
                    }
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Reads until the reader is gone. What came before it began, and what
    /// was lost with the last reader, is in the journal.
    async fn follow(&mut self, reader: &mut dyn LogReader) -> Result<(), StoreError> {
        if self.begun {
            self.catch_up().await?;
        } else {
            self.begin().await?;
        }
        let mut compare = tokio::time::interval(COMPARE_EVERY);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hole_since: Option<Instant> = None;
        loop {
            let patience = hole_since.map(|since| since + HOLE_PATIENCE);
            tokio::select! {
                received = reader.recv() => {
                    let Some((_, message)) = received else { return Ok(()) };
                    if let Some(frame) = Frame::from_log(self.channel, &message) {
                        self.take(frame);
                    }
                }
                () = until(patience) => self.catch_up().await?,
                _ = compare.tick() => {
                    let furthest = self.aggregator.members.roster().borrow().position(self.channel);
                    if furthest > self.aggregator.hub.head(self.channel) && self.waiting.is_empty() {
                        self.catch_up().await?;
                    }
                }
            }
            if self.waiting.len() > WAITING_MAX {
                self.catch_up().await?;
            }
            hole_since =
                if self.waiting.is_empty() { None } else { hole_since.or(Some(Instant::now())) };
        }
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        let heads = self.aggregator.store.heads().await?;
        let head = heads.get(&self.channel).map_or(0, |cursor| cursor.offset);
        self.aggregator.hub.begin(self.channel, head);
        self.fill(head).await?;
        self.aggregator.began(self.channel);
        self.begun = true;
        Ok(())
    }

    /// Reads into the ring what came before. After an outage everybody comes
    /// back at once for the same events: they are read once, not by each.
    async fn fill(&self, head: u64) -> Result<(), StoreError> {
        let mut end = head;
        while end > 0 {
            let after = end.saturating_sub(PAGE.into());
            let rows = self.aggregator.store.journal(self.channel, after, PAGE).await?;
            let rows = rows.into_iter().filter(|row| row.offset <= end);
            let frames = rows.map(|row| Frame::from_journal(self.channel, row)).collect::<Vec<_>>();
            if frames.is_empty() || !self.aggregator.hub.backfill(self.channel, frames) {
                break;
            }
            end = after;
        }
        Ok(())
    }

    fn take(&mut self, frame: Frame) {
        let head = self.aggregator.hub.head(self.channel);
        if frame.offset == head + 1 {
            self.aggregator.hub.deliver(frame);
            self.release();
        } else if frame.offset > head {
            self.waiting.insert(frame.offset, frame);
        }
    }

    /// Delivers what no hole holds back any more.
    fn release(&mut self) {
        while let Some(entry) = self.waiting.first_entry() {
            let head = self.aggregator.hub.head(self.channel);
            match *entry.key() {
                offset if offset <= head => drop(entry.remove()),
                offset if offset == head + 1 => drop(self.aggregator.hub.deliver(entry.remove())),
                _ => break,
            }
        }
        let position = self.aggregator.hub.head(self.channel);
        self.aggregator.members.say(|own| {
            own.positions.insert(self.channel, position);
        });
    }

    /// Reads the journal to its end. What the log brought is in there by
    /// then, so nothing waits any more afterwards.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        loop {
            let head = self.aggregator.hub.head(self.channel);
            let rows = self.aggregator.store.journal(self.channel, head, PAGE).await?;
            let full = rows.len() == PAGE as usize;
            if !rows.is_empty() {
                tracing::debug!(channel = %self.channel, events = rows.len(), "read from the journal");
            }
            for row in rows {
                if row.offset > self.aggregator.hub.head(self.channel) + 1 {
                    self.give_up_before(row.offset);
                }
                self.aggregator.hub.deliver(Frame::from_journal(self.channel, row));
            }
            self.release();
            if !full {
                if !self.waiting.is_empty() {
                    // A log that knows more than its journal is another journal's.
                    tracing::warn!(channel = %self.channel, events = self.waiting.len(), "not in the journal, dropped");
                    self.waiting.clear();
                }
                return Ok(());
            }
        }
    }

    /// The journal has a hole before `offset`: goes on behind it. Clients
    /// can't go on, and come back for a snapshot.
    fn give_up_before(&self, offset: u64) {
        let Aggregator { hub, .. } = &self.aggregator;
        let head = hub.head(self.channel);
        tracing::warn!(channel = %self.channel, head, offset, "a hole in the journal, clients sent for snapshots");
        hub.begin(self.channel, offset - 1);
        hub.shut(self.channel, CloseCode::ContinuityLost);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
