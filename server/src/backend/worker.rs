//! One partition's work: take a batch, decide, commit, announce, reply, ack.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use domain::{Channel, Command, Contact, Distribution, InteractionId};
use futures::future::{join_all, try_join_all};
use protocol::{Outcome, Signal, names};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Backend;
use super::decode::{Item, decode};
use super::plan::Plan;
use crate::broker::{BrokerError, Consumer, Delivery, Message, Partition, Settle};
use crate::members::SignalTo;
use crate::store::{Due, NewEvent, StoreError};

/// The most deliveries in one transaction.
const BATCH_MAX: usize = 64;
/// The most deliveries that wait here unsettled.
const PREFETCH: u16 = 256;
/// The most events announced at once when a partition is taken over.
const OUTBOX_MAX: u32 = 500;
/// How long to wait before the broker or the store is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// How often a batch may find that somebody else decided first.
const STALE_MAX: u32 = 20;
/// A partition at rest looks this often for what was committed and not announced.
const REST: Duration = Duration::from_secs(5);

pub(super) struct Worker {
    backend: Backend,
    partition: Partition,
    due: mpsc::Receiver<Due>,
    marks: mpsc::Sender<(Channel, u64)>,
}

/// A batch could not be finished; what it holds comes again.
enum Unfinished {
    Broker(BrokerError),
    Store(StoreError),
    Stopped,
}

impl From<BrokerError> for Unfinished {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl From<StoreError> for Unfinished {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Worker {
    pub(super) fn new(
        backend: Backend,
        partition: Partition,
        due: mpsc::Receiver<Due>,
        marks: mpsc::Sender<(Channel, u64)>,
    ) -> Self {
        Self { backend, partition, due, marks }
    }

    /// Works until `stop`; finishes and acks the batch in hand. After any
    /// trouble it takes the partition anew.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        tracing::debug!(partition = %self.partition, "partition taken");
        while !stop.is_cancelled() {
            let outcome = self.consume(&stop).await;
            match outcome {
                Ok(()) | Err(Unfinished::Stopped) => {}
                Err(Unfinished::Broker(error)) => {
                    tracing::warn!(partition = %self.partition, %error, "partition interrupted");
                }
                Err(Unfinished::Store(error)) => {
                    tracing::warn!(partition = %self.partition, %error, "partition interrupted");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
        tracing::debug!(partition = %self.partition, "partition left");
    }

    async fn consume(&mut self, stop: &CancellationToken) -> Result<(), Unfinished> {
        let mut consumer = tokio::select! {
            () = stop.cancelled() => return Err(Unfinished::Stopped),
            consumer = self.backend.broker.consume(self.partition, PREFETCH) => consumer?,
        };
        self.announce_leftovers(stop).await?;
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                delivery = consumer.recv() => {
                    let Some(first) = delivery else { break Ok(()) };
                    let batch = self.gather(first, consumer.as_mut());
                    if let Err(unfinished) = self.work(batch, stop).await {
                        break Err(unfinished);
                    }
                }
                () = tokio::time::sleep(REST) => {
                    if let Err(unfinished) = self.announce_leftovers(stop).await {
                        break Err(unfinished);
                    }
                }
                Some(due) = self.due.recv() => {
                    if let Err(unfinished) = self.finish(&[self.overdue(&due)], stop).await {
                        break Err(unfinished);
                    }
                }
            }
        };
        consumer.cancel().await;
        ended
    }

    /// What the last owner committed and may not have announced.
    async fn announce_leftovers(&self, stop: &CancellationToken) -> Result<(), Unfinished> {
        let Partition { channel, index } = self.partition;
        loop {
            let rows = self.backend.store.outbox(channel, &[index], OUTBOX_MAX).await?;
            if rows.is_empty() {
                return Ok(());
            }
            tracing::info!(partition = %self.partition, events = rows.len(), "announcing what was left");
            let messages = rows.iter().map(|row| Announcement {
                offset: row.offset,
                id: row.id.to_string(),
                kind: row.kind.clone(),
                cause: row.cause,
                interaction: row.interaction_id,
                distribution: &row.distribution,
                body: Bytes::from(row.body.clone()),
                at: row.at,
            });
            self.announce(messages.collect(), stop).await?;
            let offsets: Vec<u64> = rows.iter().map(|row| row.offset).collect();
            self.backend.store.announced(channel, &offsets).await?;
        }
    }

    fn gather(&self, first: Delivery, consumer: &mut dyn Consumer) -> Vec<Delivery> {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX {
            match consumer.try_recv() {
                Some(delivery) => batch.push(delivery),
                None => break,
            }
        }
        batch
    }

    async fn work(&self, batch: Vec<Delivery>, stop: &CancellationToken) -> Result<(), Unfinished> {
        let mut items = Vec::with_capacity(batch.len());
        let mut settles = Vec::with_capacity(batch.len());
        for Delivery { message, settle, .. } in batch {
            match decode(self.partition.channel, &message) {
                Ok(item) => {
                    items.push(item);
                    settles.push(settle);
                }
                Err(reason) => {
                    tracing::warn!(partition = %self.partition, reason, "message buried");
                    settle.bury(&reason).await?;
                }
            }
        }
        if !items.is_empty() {
            self.finish(&items, stop).await?;
        }
        try_join_all(settles.into_iter().map(Settle::ack)).await?;
        Ok(())
    }

    /// The deadline of an interaction, as something to decide.
    fn overdue(&self, due: &Due) -> Item {
        Item {
            id: Uuid::now_v7(),
            target: Some(due.interaction_id),
            command: Command::Due,
            integration: String::new(),
            contact: None,
            trace: None,
            deadline: None,
            reply_to: None,
        }
    }

    async fn finish(&self, items: &[Item], stop: &CancellationToken) -> Result<(), Unfinished> {
        let (plan, offsets) = self.record(items, stop).await?;
        let commit = &plan.commit;
        if plan.repeats() {
            // Somebody decided it and died: perhaps before it was announced.
            self.announce_leftovers(stop).await?;
        }
        let announcements = commit
            .events
            .iter()
            .zip(&offsets)
            .map(|(event, offset)| Announcement::of(event, *offset));
        self.announce(announcements.collect(), stop).await?;
        for (event, offset) in commit.events.iter().zip(&offsets) {
            // Marking lags behind rather than holding up the work: what is
            // not marked is announced once more after a restart.
            // The mark is the journey's word for `announced` as well.
            let _ = self.marks.try_send((event.channel, *offset));
        }
        if let Some(last) = offsets.last() {
            let channel = self.partition.channel;
            self.backend.members.say(|own| {
                let position = own.positions.entry(channel).or_default();
                *position = (*position).max(*last);
            });
        }
        for change in &commit.presences {
            let signal = Signal::Presence {
                agent: change.login.clone(),
                presence: change.presence,
                reason: change.reason.clone(),
                since: change.since,
            };
            self.backend
                .members
                .signal(&SignalTo { signal, distribution: Distribution::Broadcast })
                .await;
        }
        for (interaction_id, distribution) in &plan.typing {
            let signal = Signal::Typing { interaction_id: *interaction_id, agent: None };
            let distribution = distribution.clone();
            self.backend.members.signal(&SignalTo { signal, distribution }).await;
        }
        join_all(items.iter().map(|item| self.reply(item, plan.outcome(item.id)))).await;
        Ok(())
    }

    /// Decides and commits; where somebody else was first, loads and decides
    /// again; where the store is gone, waits for it.
    async fn record(
        &self,
        items: &[Item],
        stop: &CancellationToken,
    ) -> Result<(Plan<'_>, Vec<u64>), Unfinished> {
        let mut stale = 0;
        loop {
            match self.try_record(items).await {
                Ok(done) => return Ok(done),
                Err(StoreError::Stale) if stale < STALE_MAX => stale += 1,
                Err(StoreError::Unavailable(error)) => {
                    tracing::warn!(partition = %self.partition, %error, "store unavailable");
                    tokio::select! {
                        () = stop.cancelled() => return Err(Unfinished::Stopped),
                        () = tokio::time::sleep(RETRY_AFTER) => {}
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn try_record(&self, items: &[Item]) -> Result<(Plan<'_>, Vec<u64>), StoreError> {
        let store = &self.backend.store;
        let ids: Vec<Uuid> = items.iter().map(|item| item.id).collect();
        let targets: Vec<InteractionId> = items.iter().filter_map(|item| item.target).collect();
        let (known, states) = tokio::try_join!(store.outcomes(&ids), store.load(&targets))?;
        let contacts = self.contacts(items, &known).await?;
        let now = self.backend.clock.now();
        let mut plan = Plan::new(self.partition, &self.backend.config, now, known, states);
        for (index, item) in items.iter().enumerate() {
            plan.add(item, contacts.get(&index).cloned());
        }
        plan.finish();
        let offsets = if plan.commit.decided.is_empty() {
            Vec::new()
        } else {
            store.commit(&plan.commit).await?
        };
        Ok((plan, offsets))
    }

    /// The contacts that the items bring along or name, as the store knows them.
    async fn contacts(
        &self,
        items: &[Item],
        known: &BTreeMap<Uuid, Outcome>,
    ) -> Result<HashMap<usize, Contact>, StoreError> {
        let store = &self.backend.store;
        let mut found = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            let Some(contact) = &item.contact else { continue };
            if known.contains_key(&item.id) {
                continue;
            }
            let resolved = match contact.id {
                Some(id) => store.contact(id).await?,
                None => Some(store.resolve_contact(contact, self.backend.clock.now()).await?),
            };
            if let Some(resolved) = resolved {
                found.insert(index, resolved);
            }
        }
        Ok(found)
    }

    /// Announces all of it, however long the broker takes: what is decided
    /// has to come out, and giving the deliveries back in the meantime would
    /// count as their failure.
    async fn announce(
        &self,
        announcements: Vec<Announcement<'_>>,
        stop: &CancellationToken,
    ) -> Result<(), Unfinished> {
        let channel = self.partition.channel;
        let app_id = self.backend.members.id();
        loop {
            let all = announcements.iter().map(|announcement| {
                self.backend.broker.announce(channel, announcement.message(channel, app_id))
            });
            let Err(error) = try_join_all(all).await else { return Ok(()) };
            tracing::warn!(partition = %self.partition, %error, "not announced");
            tokio::select! {
                () = stop.cancelled() => return Err(error.into()),
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    /// A reply that doesn't arrive is asked for again by its client.
    async fn reply(&self, item: &Item, outcome: Option<&Outcome>) {
        let (Some(member), Some(outcome)) = (&item.reply_to, outcome) else { return };
        let Ok(body) = serde_json::to_vec(outcome) else { return };
        let message = Message {
            id: item.id.to_string(),
            kind: "reply".into(),
            app_id: self.backend.members.id().to_owned(),
            at: self.backend.clock.now(),
            headers: BTreeMap::new(),
            reply_to: None,
            body: Bytes::from(body),
        };
        if let Err(error) = self.backend.broker.reply(member, message).await {
            tracing::warn!(%error, "reply not sent");
        }
    }
}

/// An event on its way out.
struct Announcement<'a> {
    offset: u64,
    id: String,
    kind: String,
    cause: Uuid,
    interaction: Option<InteractionId>,
    distribution: &'a Distribution,
    body: Bytes,
    at: domain::Timestamp,
}

impl<'a> Announcement<'a> {
    fn of(event: &'a NewEvent, offset: u64) -> Self {
        Self {
            offset,
            id: event.id.to_string(),
            kind: event.kind.to_owned(),
            cause: event.cause,
            interaction: event.interaction.map(|(id, _)| id),
            distribution: &event.distribution,
            body: Bytes::from(event.body.clone()),
            at: event.at,
        }
    }

    fn message(&self, channel: Channel, app_id: &str) -> Message {
        let key = self.interaction.map_or_else(|| self.id.clone(), |id| id.to_string());
        let distribution = serde_json::to_string(self.distribution).unwrap_or_default();
        Message {
            headers: BTreeMap::from([
                (names::X_CHANNEL.to_owned(), channel.to_string()),
                (names::X_KEY.to_owned(), key),
                (names::X_OFFSET.to_owned(), self.offset.to_string()),
                (names::X_CAUSE.to_owned(), self.cause.to_string()),
                (names::X_DISTRIBUTION.to_owned(), distribution),
            ]),
            id: self.id.clone(),
            kind: self.kind.clone(),
            app_id: app_id.to_owned(),
            at: self.at,
            reply_to: None,
            body: self.body.clone(),
        }
    }
}
