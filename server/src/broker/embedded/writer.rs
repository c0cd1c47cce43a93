//! Group commit: one task owns the inbound file and commits what waits together.

use std::sync::Arc;

use domain::Timestamp;
use futures::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};

use super::queues::{Queues, Waiting};
use super::tables::{envelope, storage};
use crate::broker::{BrokerError, BrokerState, DELIVERY_LIMIT, Message, Partition};

/// How many jobs may wait; whoever comes later waits for room.
const JOBS_MAX: usize = 2_048;
/// The most jobs in one transaction.
const BATCH_MAX: usize = 512;

type Done = oneshot::Sender<Result<i64, BrokerError>>;

/// One write. `done` hears of it when it is on the disk.
pub(super) enum Job {
    /// Answers the message's number.
    Publish {
        to: Partition,
        message: Box<Message>,
        expires_at: Timestamp,
        done: Done,
    },
    Ack {
        seq: i64,
        done: Done,
    },
    /// Answers how often it was tried; at the limit it is dead.
    Retry {
        seq: i64,
        at: Timestamp,
        done: Done,
    },
    Bury {
        seq: i64,
        reason: String,
        at: Timestamp,
        done: Done,
    },
    DropDead {
        seq: i64,
        done: Done,
    },
    Declare {
        partitions: u32,
        done: Done,
    },
    Delete {
        done: Done,
    },
    /// Answers when everything before it is written; the task ends.
    Close {
        done: Done,
    },
}

/// Gives jobs to the task that writes. Clones share it.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Job>);

impl Writer {
    pub(super) fn start(
        connection: SqliteConnection,
        queues: Arc<Queues>,
        state: watch::Sender<BrokerState>,
    ) -> Self {
        let (sender, jobs) = mpsc::channel(JOBS_MAX);
        tokio::spawn(write(connection, jobs, queues, state));
        Self(sender)
    }

    pub(super) async fn ask(&self, job: impl FnOnce(Done) -> Job) -> Result<i64, BrokerError> {
        let (done, answer) = oneshot::channel();
        let closed = || BrokerError::Down("closed".into());
        // At the first poll where there is room, so that one task's calls stay in order.
        if let Err(refused) = self.0.try_send(job(done)) {
            self.0.send(refused.into_inner()).await.map_err(|_| closed())?;
        }
        answer.await.map_err(|_| closed())?
    }

    pub(super) async fn close(&self) {
        // Closed already is closed.
        let _ = self.ask(|done| Job::Close { done }).await;
    }
}

async fn write(
    mut connection: SqliteConnection,
    mut jobs: mpsc::Receiver<Job>,
    queues: Arc<Queues>,
    state: watch::Sender<BrokerState>,
) {
    let mut batch = Vec::new();
    let mut closing = Vec::new();
    while closing.is_empty() && jobs.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let written = commit(&mut connection, &batch).await;
        let now = match &written {
            Ok(_) => BrokerState::Up,
            Err(BrokerError::Blocked(reason)) => BrokerState::Blocked(reason.clone()),
            Err(error) => BrokerState::Down(error.to_string()),
        };
        state.send_if_modified(|state| {
            let changed = *state != now;
            if changed {
                tracing::warn!(state = ?now, "embedded broker");
            }
            *state = now;
            changed
        });
        for (index, job) in batch.drain(..).enumerate() {
            let answer = match &written {
                Ok(answers) => Ok(answers.get(index).copied().unwrap_or_default()),
                Err(error) => Err(error.clone()),
            };
            match job {
                Job::Close { done } => closing.push(done),
                Job::Publish { to, message, expires_at, done } => {
                    // Here, so that consumers get them in the order of their numbers.
                    if let Ok(seq) = &answer {
                        queues.published(to, Waiting::new(*seq, expires_at, *message));
                    }
                    let _ = done.send(answer);
                }
                Job::Ack { done, .. }
                | Job::Retry { done, .. }
                | Job::Bury { done, .. }
                | Job::DropDead { done, .. }
                | Job::Declare { done, .. }
                | Job::Delete { done } => {
                    // Whoever asked may have gone; the work is done all the same.
                    let _ = done.send(answer);
                }
            }
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "inbound file not closed");
    }
    for done in closing {
        let _ = done.send(Ok(0));
    }
}

/// All of it or nothing.
fn commit<'a>(
    connection: &'a mut SqliteConnection,
    batch: &'a [Job],
) -> BoxFuture<'a, Result<Vec<i64>, BrokerError>> {
    Box::pin(async move {
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(storage)?;
        let mut answers = Vec::with_capacity(batch.len());
        for job in batch {
            answers.push(apply(&mut tx, job).await.map_err(storage)?);
        }
        tx.commit().await.map_err(storage)?;
        Ok(answers)
    })
}

fn apply<'a>(
    tx: &'a mut SqliteConnection,
    job: &'a Job,
) -> BoxFuture<'a, Result<i64, sqlx::Error>> {
    Box::pin(run(tx, job))
}

async fn run(tx: &mut SqliteConnection, job: &Job) -> Result<i64, sqlx::Error> {
    match job {
        Job::Publish { to, message, expires_at, .. } => {
            let done = sqlx::query(
                "INSERT INTO inbound (channel, part, expires_at, message, body) \
                 VALUES (?, ?, ?, ?, ?)",
            )
            .bind(to.channel.as_str())
            .bind(i64::from(to.index))
            .bind(expires_at.as_millis())
            .bind(envelope(message))
            .bind(message.body.as_ref())
            .execute(tx)
            .await?;
            Ok(done.last_insert_rowid())
        }
        Job::Ack { seq, .. } => {
            sqlx::query("DELETE FROM inbound WHERE seq = ?").bind(seq).execute(tx).await?;
            Ok(0)
        }
        Job::Retry { seq, at, .. } => {
            let tries: Option<i64> = sqlx::query_scalar(
                "UPDATE inbound SET tries = tries + 1 WHERE seq = ? RETURNING tries",
            )
            .bind(seq)
            .fetch_optional(&mut *tx)
            .await?;
            let tries = tries.unwrap_or(0);
            if tries >= i64::from(DELIVERY_LIMIT) {
                bury(tx, *seq, "delivery_limit", *at).await?;
            }
            Ok(tries)
        }
        Job::Bury { seq, reason, at, .. } => {
            bury(tx, *seq, reason, *at).await?;
            Ok(0)
        }
        Job::DropDead { seq, .. } => {
            sqlx::query("DELETE FROM dead WHERE seq = ?").bind(seq).execute(tx).await?;
            Ok(0)
        }
        Job::Declare { partitions, .. } => {
            sqlx::query(
                "INSERT INTO topology (one, partitions) VALUES (1, ?) ON CONFLICT DO NOTHING",
            )
            .bind(i64::from(*partitions))
            .execute(tx)
            .await?;
            Ok(0)
        }
        Job::Delete { .. } => {
            for table in ["DELETE FROM topology", "DELETE FROM inbound", "DELETE FROM dead"] {
                sqlx::query(table).execute(&mut *tx).await?;
            }
            Ok(0)
        }
        Job::Close { .. } => Ok(0),
    }
}

async fn bury(
    tx: &mut SqliteConnection,
    seq: i64,
    reason: &str,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO dead (seq, channel, part, id, reason, at, message, body) \
         SELECT seq, channel, part, COALESCE(json_extract(message, '$.id'), ''), ?, ?, message, body \
         FROM inbound WHERE seq = ?",
    )
    .bind(reason)
    .bind(at.as_millis())
    .bind(seq)
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM inbound WHERE seq = ?").bind(seq).execute(tx).await?;
    Ok(())
}
