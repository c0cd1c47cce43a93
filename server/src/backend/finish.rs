//! What is recorded goes out: announced, told, replied to, acked. Batch after
//! batch, in order, while the worker decides the next one.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use domain::{Channel, Distribution, EventId, InteractionId};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Fuse, FusedFuture as _, join_all, try_join_all};
use protocol::{Outcome, Signal, names};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Backend;
use super::decode::Item;
use super::plan::Plan;
use super::worker::{RETRY_AFTER, Unfinished};
use crate::broker::{BrokerError, Message, Partition, Settle};
use crate::members::SignalTo;
use crate::store::{NewEvent, StoreError};

/// How many recorded batches may wait; then the worker waits.
const WAITING_MAX: usize = 2;
/// The most events announced at once when a partition is taken over.
const OUTBOX_MAX: u32 = 500;
/// How long what is finished gathers: each ack is an entry in its queue's log.
const ACK_AFTER: Duration = Duration::from_millis(20);
/// A partition at rest looks this often for what was committed and not announced.
const REST: Duration = Duration::from_secs(5);

/// A batch that is committed.
pub(super) struct Recorded {
    plan: Plan,
    offsets: Vec<u64>,
    replies: Vec<Reply>,
    settles: Vec<Box<dyn Settle>>,
}

struct Reply {
    member: String,
    id: Uuid,
    outcome: Outcome,
}

impl Recorded {
    pub(super) fn new(
        plan: Plan,
        offsets: Vec<u64>,
        items: &[Item],
        settles: Vec<Box<dyn Settle>>,
    ) -> Self {
        let reply = |item: &Item| {
            let (member, outcome) = (item.reply_to.clone()?, plan.outcome(item.id)?.clone());
            Some(Reply { member, id: item.id, outcome })
        };
        Self { replies: items.iter().filter_map(reply).collect(), plan, offsets, settles }
    }
}

/// A partition's finisher at work. It ends when something can't be finished:
/// what it has not acked then comes again.
pub(super) struct Finisher {
    batches: mpsc::Sender<Recorded>,
    task: JoinHandle<Result<(), Unfinished>>,
}

impl Finisher {
    pub(super) fn start(
        backend: Backend,
        partition: Partition,
        marks: mpsc::Sender<(Channel, u64)>,
        stop: CancellationToken,
    ) -> Self {
        let (batches, waiting) = mpsc::channel(WAITING_MAX);
        let task = Task { backend, partition, marks, stop };
        Self { batches, task: tokio::spawn(task.run(waiting)) }
    }

    /// Takes a batch; waits while there are enough. One that comes too late
    /// is dropped unacked.
    pub(super) async fn finish(&self, recorded: Recorded) {
        let _ = self.batches.send(recorded).await;
    }

    /// Waits until it can't go on.
    pub(super) async fn ended(&self) {
        self.batches.closed().await;
    }

    /// Finishes what it has.
    pub(super) async fn end(self) -> Result<(), Unfinished> {
        drop(self.batches);
        // It panics only where this program is wrong; then all comes again.
        self.task.await.unwrap_or(Err(Unfinished::Stopped))
    }
}

/// Acks them as one, after those before them; terminated if there are none.
fn ack(mut settles: Vec<Box<dyn Settle>>) -> Fuse<BoxFuture<'static, Result<(), BrokerError>>> {
    settles.pop().map_or_else(Fuse::terminated, |last| last.ack_with(settles).fuse())
}

struct Task {
    backend: Backend,
    partition: Partition,
    marks: mpsc::Sender<(Channel, u64)>,
    stop: CancellationToken,
}

impl Task {
    async fn run(self, mut waiting: mpsc::Receiver<Recorded>) -> Result<(), Unfinished> {
        self.announce_leftovers().await?;
        let mut done = Vec::new();
        let mut acks = Fuse::terminated();
        let mut gathered = std::pin::pin!(Fuse::terminated());
        loop {
            tokio::select! {
                biased;
                acked = &mut acks, if !acks.is_terminated() => acked?,
                () = &mut gathered, if acks.is_terminated() && !gathered.is_terminated() => {
                    acks = ack(std::mem::take(&mut done));
                }
                recorded = timeout(REST, waiting.recv()) => match recorded {
                    Ok(Some(recorded)) => {
                        if done.is_empty() {
                            gathered.set(sleep(ACK_AFTER).fuse());
                        }
                        done.extend(self.finish(recorded).await?);
                    }
                    Ok(None) => break,
                    Err(_) => self.announce_leftovers().await?,
                },
            }
        }
        if !acks.is_terminated() {
            acks.await?;
        }
        if let Some(last) = done.pop() {
            last.ack_with(done).await?;
        }
        Ok(())
    }

    /// Everything but the acks.
    async fn finish(&self, recorded: Recorded) -> Result<Vec<Box<dyn Settle>>, Unfinished> {
        let Recorded { plan, offsets, replies, settles } = recorded;
        if plan.repeats() {
            // Somebody decided it and died: perhaps before it was announced.
            self.announce_leftovers().await?;
        }
        let events = || plan.commit.events.iter().zip(&offsets);
        self.announce(events().map(|(event, offset)| Announcement::of(event, *offset)).collect())
            .await?;
        for (event, offset) in events() {
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
        self.tell(&plan).await;
        join_all(replies.into_iter().map(|reply| self.reply(reply))).await;
        Ok(settles)
    }

    /// What isn't recorded: presences, and that a customer writes.
    async fn tell(&self, plan: &Plan) {
        let presences = plan.commit.presences.iter().map(|change| SignalTo {
            signal: Signal::Presence {
                agent: change.login.clone(),
                presence: change.presence,
                reason: change.reason.clone(),
                since: change.since,
            },
            distribution: Distribution::Broadcast,
        });
        let typing = plan.typing.iter().map(|(interaction_id, distribution)| SignalTo {
            signal: Signal::Typing { interaction_id: *interaction_id, agent: None },
            distribution: distribution.clone(),
        });
        for signal in presences {
            self.backend.members.signal(&signal).await;
        }
        for signal in typing {
            self.backend.members.signal_in(self.partition.channel, &signal).await;
        }
    }

    /// What the last owner committed and may not have announced. Waits for the
    /// store where it is away: giving deliveries back counts as their failure.
    async fn announce_leftovers(&self) -> Result<(), Unfinished> {
        loop {
            match self.try_leftovers().await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(Unfinished::Store(error @ StoreError::Unavailable(_))) => {
                    tracing::warn!(partition = %self.partition, %error, "outbox not read");
                    tokio::select! {
                        () = self.stop.cancelled() => return Err(Unfinished::Stopped),
                        () = tokio::time::sleep(RETRY_AFTER) => {}
                    }
                }
                Err(unfinished) => return Err(unfinished),
            }
        }
    }

    /// False if there was nothing.
    async fn try_leftovers(&self) -> Result<bool, Unfinished> {
        let Partition { channel, index } = self.partition;
        let rows = self.backend.store.outbox(channel, &[index], OUTBOX_MAX).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        tracing::info!(partition = %self.partition, events = rows.len(), "announcing what was left");
        let messages = rows.iter().map(|row| Announcement {
            offset: row.offset,
            id: row.id,
            kind: row.kind.clone(),
            cause: row.cause,
            interaction: row.interaction_id,
            distribution: &row.distribution,
            trace: trace_of(&row.body),
            body: Bytes::from(row.body.clone()),
            at: row.at,
        });
        self.announce(messages.collect()).await?;
        let offsets: Vec<u64> = rows.iter().map(|row| row.offset).collect();
        self.backend.store.announced(channel, &offsets).await?;
        Ok(true)
    }

    /// Announces all of it, however long the broker takes: what is decided
    /// has to come out, and giving the deliveries back in the meantime would
    /// count as their failure.
    async fn announce(&self, announcements: Vec<Announcement<'_>>) -> Result<(), Unfinished> {
        let channel = self.partition.channel;
        let app_id = self.backend.members.id();
        loop {
            let all = announcements.iter().map(|announcement| {
                self.backend.broker.announce(channel, announcement.message(channel, app_id))
            });
            let Err(error) = try_join_all(all).await else {
                self.account(&announcements);
                return Ok(());
            };
            tracing::warn!(partition = %self.partition, %error, "not announced");
            tokio::select! {
                () = self.stop.cancelled() => return Err(error.into()),
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    /// For the loss auditor.
    fn account(&self, announced: &[Announcement<'_>]) {
        let audit = self.backend.members.audit();
        for one in announced {
            let mark = protocol::mark(one.offset, one.id.0);
            audit.announced(self.partition.channel, one.offset, mark);
        }
    }

    /// A reply that doesn't arrive is asked for again by its client.
    async fn reply(&self, reply: Reply) {
        let Ok(body) = serde_json::to_vec(&reply.outcome) else { return };
        let message = Message {
            id: reply.id.to_string(),
            kind: "reply".into(),
            app_id: self.backend.members.id().to_owned(),
            at: self.backend.clock.now(),
            headers: BTreeMap::new(),
            reply_to: None,
            body: Bytes::from(body),
        };
        if let Err(error) = self.backend.broker.reply(&reply.member, message).await {
            tracing::warn!(%error, "reply not sent");
        }
    }
}

/// The trace context in an event of the journal.
fn trace_of(body: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Traced {
        trace: Option<String>,
    }
    serde_json::from_str::<Traced>(body).ok()?.trace
}

/// An event on its way out.
struct Announcement<'a> {
    offset: u64,
    id: EventId,
    kind: String,
    cause: Uuid,
    interaction: Option<InteractionId>,
    distribution: &'a Distribution,
    trace: Option<String>,
    body: Bytes,
    at: domain::Timestamp,
}

impl<'a> Announcement<'a> {
    fn of(event: &'a NewEvent, offset: u64) -> Self {
        Self {
            offset,
            id: event.id,
            kind: event.kind.to_owned(),
            cause: event.cause,
            interaction: event.interaction.map(|(id, _)| id),
            distribution: &event.distribution,
            trace: event.trace.clone(),
            body: Bytes::from(event.body.clone()),
            at: event.at,
        }
    }

    fn message(&self, channel: Channel, app_id: &str) -> Message {
        let key = self.interaction.map_or_else(|| self.id.to_string(), |id| id.to_string());
        let distribution = serde_json::to_string(self.distribution).unwrap_or_default();
        let trace = self.trace.clone().map(|trace| (names::TRACEPARENT.to_owned(), trace));
        Message {
            headers: BTreeMap::from([
                (names::X_CHANNEL.to_owned(), channel.to_string()),
                (names::X_KEY.to_owned(), key),
                (names::X_OFFSET.to_owned(), self.offset.to_string()),
                (names::X_CAUSE.to_owned(), self.cause.to_string()),
                (names::X_DISTRIBUTION.to_owned(), distribution),
            ])
            .into_iter()
            .chain(trace)
            .collect(),
            id: self.id.to_string(),
            kind: self.kind.clone(),
            app_id: app_id.to_owned(),
            at: self.at,
            reply_to: None,
            body: self.body.clone(),
        }
    }
}
