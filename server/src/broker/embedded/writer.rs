//! Group commit: one task owns the inbound file and commits what waits together.
//!
//! It takes whatever is there, never waits for more, and answers all when the
//! disk has it. If the disk takes nothing, everybody hears so, the state says
//! so, and a probe finds out when it is over. Acks are tried again without
//! the publishes: what is settled makes room.

use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use futures::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::batch::{self, Outcome, Row};
use super::queues::{Place, Queues, Shared, Waiting};
use super::tables::{Lock, storage};
use crate::broker::{BrokerError, BrokerState, Message};

/// How many jobs may wait; whoever comes later waits for room.
const JOBS_MAX: usize = 2_048;
/// The most jobs in one transaction.
const BATCH_MAX: usize = 512;
/// How often a disk that took nothing is tried.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// True if there was such a one.
type Done = oneshot::Sender<Result<bool, BrokerError>>;

/// What becomes of a message.
pub(super) enum Fate {
    Ack,
    /// At the limit it is dead.
    Retry,
    /// Dead, with this reason.
    Bury(String),
}

/// A message on its way into a queue.
pub(super) struct Publish {
    pub(super) place: Place,
    pub(super) message: Message,
    /// The message without its body, encoded.
    pub(super) envelope: String,
    pub(super) expires_at: Timestamp,
}

/// What is done in a transaction of its own.
pub(super) enum Order {
    Declare {
        partitions: u32,
    },
    Delete,
    /// Puts the dead letter with this number back into its queue.
    Replay {
        dead: i64,
        publish: Box<Publish>,
    },
    DropDead {
        dead: i64,
    },
    /// Answers when everything before it is written; the task ends.
    Close,
}

/// One write. `done` hears of it when it is on the disk.
pub(super) enum Job {
    Publish(Box<Publish>, Done),
    Settle { queue: Arc<Shared>, seq: i64, fate: Fate, at: Timestamp, done: Done },
    Order(Order, Done),
}

/// Gives jobs to the task that writes. Clones share it.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Job>);

impl Writer {
    /// `next` is the number of the next message.
    pub(super) fn start(
        connection: SqliteConnection,
        next: i64,
        lock: Lock,
        queues: Arc<Queues>,
        state: watch::Sender<BrokerState>,
    ) -> Self {
        let (sender, jobs) = mpsc::channel(JOBS_MAX);
        let task = Task { connection, next, queues, state, _lock: lock };
        tokio::spawn(task.run(jobs));
        Self(sender)
    }

    pub(super) async fn ask(&self, job: impl FnOnce(Done) -> Job) -> Result<bool, BrokerError> {
        let (done, answer) = oneshot::channel();
        let closed = || BrokerError::Down("closed".into());
        // At the first poll, so that one task's calls stay in order though it
        // makes them together: as many as there is room for, that is.
        if let Err(refused) = self.0.try_send(job(done)) {
            self.0.send(refused.into_inner()).await.map_err(|_| closed())?;
        }
        answer.await.map_err(|_| closed())?
    }

    pub(super) async fn close(&self) {
        // Closed already is closed.
        let _ = self.ask(|done| Job::Order(Order::Close, done)).await;
    }
}

struct Settle {
    queue: Arc<Shared>,
    row: Row,
    done: Done,
}

struct Task {
    connection: SqliteConnection,
    next: i64,
    queues: Arc<Queues>,
    state: watch::Sender<BrokerState>,
    /// Nobody else opens the files while this task lives.
    _lock: Lock,
}

impl Task {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut waiting = Vec::new();
        let mut closing = Vec::new();
        let mut probe = tokio::time::interval(PROBE_EVERY);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while closing.is_empty() {
            let up = *self.state.borrow() == BrokerState::Up;
            let taken = tokio::select! {
                taken = jobs.recv_many(&mut waiting, BATCH_MAX) => taken,
                _ = probe.tick(), if !up => {
                    let probed = batch::probe(&mut self.connection, self.next).await;
                    self.note(probed.map_err(storage).err().as_ref());
                    continue;
                }
            };
            if taken == 0 {
                break;
            }
            let (mut publishes, mut settles, mut orders) = (Vec::new(), Vec::new(), Vec::new());
            for job in waiting.drain(..) {
                match job {
                    Job::Publish(publish, done) => publishes.push((*publish, done)),
                    Job::Settle { queue, seq, fate, at, done } => {
                        settles.push(Settle { queue, row: Row { seq, fate, at }, done });
                    }
                    Job::Order(Order::Close, done) => closing.push(done),
                    Job::Order(order, done) => orders.push((order, done)),
                }
            }
            self.group(publishes, settles).await;
            for (order, done) in orders {
                let answer = self.order(order).await;
                if let Err(error @ (BrokerError::Blocked(_) | BrokerError::Down(_))) = &answer {
                    self.note(Some(error));
                }
                // Whoever asked may have gone; the work is done all the same.
                let _ = done.send(answer);
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "inbound file not closed");
        }
        for done in closing {
            let _ = done.send(Ok(true));
        }
    }

    /// Says how the disk is.
    fn note(&self, error: Option<&BrokerError>) {
        let now = match error {
            None => BrokerState::Up,
            Some(BrokerError::Blocked(reason)) => BrokerState::Blocked(reason.clone()),
            Some(error) => BrokerState::Down(error.to_string()),
        };
        self.state.send_if_modified(|state| {
            let changed = *state != now;
            if changed {
                match &now {
                    BrokerState::Up => tracing::info!("inbound file takes messages again"),
                    now => tracing::warn!(state = ?now, "inbound file takes nothing"),
                }
                *state = now;
            }
            changed
        });
    }

    async fn group(&mut self, publishes: Vec<(Publish, Done)>, settles: Vec<Settle>) {
        let (publishes, astray): (Vec<_>, Vec<_>) =
            publishes.into_iter().partition(|(publish, _)| !publish.place.shared().gone());
        for (publish, done) in astray {
            let partition = publish.place.shared().partition.to_string();
            let _ = done.send(Err(BrokerError::Unroutable(partition)));
        }
        let (publishes, answers): (Vec<_>, Vec<_>) = publishes.into_iter().unzip();
        let (rows, settles): (Vec<_>, Vec<_>) =
            settles.into_iter().map(|it| (it.row, (it.queue, it.done))).unzip();
        if publishes.is_empty() && rows.is_empty() {
            return;
        }
        let mut written = self.commit(&publishes, &rows).await;
        let mut refused = written.as_ref().err().cloned();
        if refused.is_some() && !publishes.is_empty() && !rows.is_empty() {
            written = self.commit(&[], &rows).await;
            refused = refused.or_else(|| written.as_ref().err().cloned());
        }
        // That acks get through doesn't mean that publishes do: the probe tells.
        if refused.is_some() || !publishes.is_empty() {
            self.note(refused.as_ref());
        }
        for (publish, done) in publishes.into_iter().zip(answers) {
            if let Some(error) = &refused {
                let _ = done.send(Err(error.clone()));
                continue;
            }
            let seq = self.next;
            self.next += 1;
            publish.place.fill(Waiting::new(seq, publish.expires_at, publish.message));
            let _ = done.send(Ok(true));
        }
        match written {
            Ok(outcomes) => {
                for ((row, (queue, done)), outcome) in rows.iter().zip(settles).zip(outcomes) {
                    match outcome {
                        Outcome::Left => queue.settled(row.seq),
                        Outcome::Waits => queue.returned(row.seq),
                    }
                    let _ = done.send(Ok(true));
                }
            }
            Err(error) => {
                for (_, done) in settles {
                    let _ = done.send(Err(error.clone()));
                }
            }
        }
    }

    /// All of it or nothing. Boxed, as the compiler can't tell otherwise that
    /// it may move between threads.
    fn commit<'a>(
        &'a mut self,
        publishes: &'a [Publish],
        rows: &'a [Row],
    ) -> BoxFuture<'a, Result<Vec<Outcome>, BrokerError>> {
        Box::pin(async move {
            if let ([publish], []) = (publishes, rows) {
                // One statement is a transaction.
                let publish = std::slice::from_ref(publish);
                batch::insert(&mut self.connection, self.next, publish).await.map_err(storage)?;
                return Ok(Vec::new());
            }
            if let ([], [Row { fate: Fate::Ack, .. }]) = (publishes, rows) {
                return batch::settle(&mut self.connection, rows).await.map_err(storage);
            }
            let mut tx = batch::begin(&mut self.connection).await.map_err(storage)?;
            batch::insert(&mut tx, self.next, publishes).await.map_err(storage)?;
            let outcomes = batch::settle(&mut tx, rows).await.map_err(storage)?;
            tx.commit().await.map_err(storage)?;
            Ok(outcomes)
        })
    }

    fn order(&mut self, order: Order) -> BoxFuture<'_, Result<bool, BrokerError>> {
        Box::pin(async move {
            let mut tx = batch::begin(&mut self.connection).await.map_err(storage)?;
            let found = match &order {
                Order::Declare { partitions } => {
                    batch::declare(&mut tx, *partitions).await.map_err(storage)?
                }
                Order::Delete => batch::delete(&mut tx).await.map_err(storage)?,
                Order::DropDead { dead } | Order::Replay { dead, .. } => {
                    batch::drop_dead(&mut tx, *dead).await.map_err(storage)?
                }
                Order::Close => true,
            };
            if let (true, Order::Replay { publish, .. }) = (found, &order) {
                if publish.place.shared().gone() {
                    let partition = publish.place.shared().partition.to_string();
                    return Err(BrokerError::Unroutable(partition));
                }
                let publish = std::slice::from_ref(&**publish);
                batch::insert(&mut tx, self.next, publish).await.map_err(storage)?;
            }
            tx.commit().await.map_err(storage)?;
            match order {
                // Here, so that nothing is published into what was deleted.
                Order::Delete => self.queues.clear(),
                Order::Replay { publish, .. } if found => {
                    let Publish { place, message, expires_at, .. } = *publish;
                    place.fill(Waiting::new(self.next, expires_at, message));
                    self.next += 1;
                }
                _ => {}
            }
            Ok(found)
        })
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
