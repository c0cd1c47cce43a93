//! The outbound logs: appended in groups, read live from memory and, by who is
//! behind, from the disk.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Channel, Timestamp};
use futures::future::BoxFuture;
use sqlx::{Connection, Row, SqliteConnection, SqlitePool};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::batch::{self, piece, times};
use super::tables::{Files, Lock, envelope, message, storage};
use crate::broker::{BrokerError, LogReader, LogStart, Message};

/// How many jobs may wait; whoever comes later waits for room.
const JOBS_MAX: usize = 2_048;
const BATCH_MAX: usize = 512;
/// A follower that is further behind than this reads from the disk.
const LIVE_MAX: usize = 512;
const PAGE: i64 = 256;
/// How long a log is kept.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How many bytes of all logs together are kept.
const KEPT_BYTES: i64 = 1_073_741_824;
/// How many messages are deleted at a time, so that appends needn't wait long.
const PRUNED_AT_ONCE: i64 = 1_000;

type Done = oneshot::Sender<Result<(), BrokerError>>;

struct Append {
    channel: Channel,
    message: Message,
    /// The message without its body, encoded.
    envelope: String,
    at: Timestamp,
}

/// One write. `done` hears of it when it is done.
enum Job {
    Append(Box<Append>, Done),
    /// Deletes some of the oldest, as long as there is too much.
    Prune(Timestamp),
    Clear(Done),
    Close(Done),
}

type Live = broadcast::Sender<Arc<(u64, Message)>>;

pub(super) struct Logs {
    jobs: mpsc::Sender<Job>,
    live: [Live; 3],
    read: SqlitePool,
}

impl Logs {
    pub(super) async fn open(files: &Files) -> Result<Self, BrokerError> {
        let connection = files.outbound_writer().await?;
        let read = files.outbound_reader()?;
        let last = last(&read).await?;
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let live = [(); 3].map(|()| broadcast::channel(LIVE_MAX).0);
        let again = jobs.downgrade();
        let task = Task { connection, live: live.clone(), last, again, _lock: files.lock() };
        tokio::spawn(task.run(waiting));
        Ok(Self { jobs, live, read })
    }

    async fn ask(&self, job: impl FnOnce(Done) -> Job) -> Result<(), BrokerError> {
        let (done, answer) = oneshot::channel();
        let closed = || BrokerError::Down("closed".into());
        // At the first poll, so that one task's calls stay in order though it
        // makes them together: as many as there is room for, that is.
        if let Err(refused) = self.jobs.try_send(job(done)) {
            self.jobs.send(refused.into_inner()).await.map_err(|_| closed())?;
        }
        answer.await.map_err(|_| closed())?
    }

    pub(super) async fn append(
        &self,
        channel: Channel,
        message: Message,
        at: Timestamp,
    ) -> Result<(), BrokerError> {
        let envelope = envelope(&message);
        let append = Box::new(Append { channel, message, envelope, at });
        self.ask(|done| Job::Append(append, done)).await
    }

    async fn last(&self, channel: Channel) -> Result<u64, BrokerError> {
        let last: i64 =
            sqlx::query_scalar("SELECT COALESCE(MAX(pos), 0) FROM log WHERE channel = ?")
                .bind(channel.as_str())
                .fetch_one(&self.read)
                .await
                .map_err(storage)?;
        Ok(u64::try_from(last).unwrap_or(0))
    }

    pub(super) async fn follow(
        &self,
        channel: Channel,
        from: LogStart,
    ) -> Result<Box<dyn LogReader>, BrokerError> {
        let live = self.live[channel.index()].subscribe();
        let after = match from {
            LogStart::First => 0,
            LogStart::Next => self.last(channel).await?,
            LogStart::Offset(offset) => offset.saturating_sub(1),
        };
        Ok(Box::new(Follower {
            channel,
            live,
            read: self.read.clone(),
            after,
            page: Vec::new().into_iter(),
            behind: from != LogStart::Next,
        }))
    }

    pub(super) fn prune(&self, now: Timestamp) {
        // In time: if there is no room now, there is the next time.
        let _ = self.jobs.try_send(Job::Prune(now));
    }

    pub(super) async fn clear(&self) -> Result<(), BrokerError> {
        self.ask(Job::Clear).await
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        // Closed already is closed.
        let _ = self.ask(Job::Close).await;
    }
}

/// The last number that was given.
async fn last(read: &SqlitePool) -> Result<i64, BrokerError> {
    let last: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'log'")
            .fetch_optional(read)
            .await
            .map_err(storage)?;
    Ok(last.unwrap_or(0))
}

/// Owns the outbound file and writes what waits together.
struct Task {
    connection: SqliteConnection,
    live: [Live; 3],
    last: i64,
    again: mpsc::WeakSender<Job>,
    /// Nobody else opens the files while this task lives.
    _lock: Lock,
}

impl Task {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        let mut closing = None;
        while closing.is_none() && jobs.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let (mut appends, mut answers) = (Vec::new(), Vec::new());
            let mut others = Vec::new();
            for job in batch.drain(..) {
                match job {
                    Job::Append(append, done) => {
                        appends.push(*append);
                        answers.push(done);
                    }
                    other => others.push(other),
                }
            }
            if !appends.is_empty() {
                self.append(appends, answers).await;
            }
            for job in others {
                match job {
                    Job::Append(..) => {}
                    Job::Prune(now) => self.prune(now).await,
                    Job::Clear(done) => {
                        let clear = sqlx::query("DELETE FROM log").execute(&mut self.connection);
                        let _ = done.send(clear.await.map(drop).map_err(storage));
                    }
                    Job::Close(done) => closing = Some(done),
                }
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "outbound file not closed");
        }
        if let Some(done) = closing {
            let _ = done.send(Ok(()));
        }
    }

    async fn append(&mut self, appends: Vec<Append>, answers: Vec<Done>) {
        let written = commit(&mut self.connection, self.last + 1, &appends).await;
        if let Err(error) = written {
            let error = storage(error);
            tracing::warn!(%error, "log not written");
            for done in answers {
                let _ = done.send(Err(error.clone()));
            }
            return;
        }
        for (append, done) in appends.into_iter().zip(answers) {
            self.last += 1;
            let pos = u64::try_from(self.last).unwrap_or(0);
            // Nobody may be following.
            let _ = self.live[append.channel.index()].send(Arc::new((pos, append.message)));
            let _ = done.send(Ok(()));
        }
    }

    async fn prune(&mut self, now: Timestamp) {
        let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        let old = now.as_millis().saturating_sub(kept);
        match prune(&mut self.connection, old, KEPT_BYTES).await {
            Ok(true) => {
                // There may be more: what waits goes first.
                if let Some(again) = self.again.upgrade() {
                    let _ = again.try_send(Job::Prune(now));
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "logs not pruned"),
        }
    }
}

fn commit<'a>(
    connection: &'a mut SqliteConnection,
    first: i64,
    appends: &'a [Append],
) -> BoxFuture<'a, Result<(), sqlx::Error>> {
    Box::pin(async move {
        let mut tx = batch::begin(connection).await?;
        let mut pos = first;
        let mut rest = appends;
        while let Some(piece) = piece(&mut rest) {
            let text = format!(
                "INSERT INTO log (pos, channel, at, message, body) VALUES {}",
                times("(?,?,?,?,?)", piece.len())
            );
            let mut query = sqlx::query(&text);
            for append in piece {
                query = query
                    .bind(pos)
                    .bind(append.channel.as_str())
                    .bind(append.at.as_millis())
                    .bind(append.envelope.as_str())
                    .bind(append.message.body.as_ref());
                pos += 1;
            }
            query.execute(&mut *tx).await?;
        }
        tx.commit().await
    })
}

/// Deletes some of the oldest messages: those from before `old`, and whatever
/// they are from while the file holds more than `bytes_max`. True if it did.
fn prune(
    connection: &mut SqliteConnection,
    old: i64,
    bytes_max: i64,
) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
    Box::pin(async move {
        let held: i64 = sqlx::query_scalar(
            "SELECT (page_count - freelist_count) * page_size \
             FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()",
        )
        .fetch_one(&mut *connection)
        .await?;
        let old = if held > bytes_max { i64::MAX } else { old };
        let done = sqlx::query(
            "DELETE FROM log WHERE pos IN (SELECT pos FROM log ORDER BY pos LIMIT ?) AND at < ?",
        )
        .bind(PRUNED_AT_ONCE)
        .bind(old)
        .execute(connection)
        .await?;
        Ok(done.rows_affected() > 0)
    })
}

struct Follower {
    channel: Channel,
    live: broadcast::Receiver<Arc<(u64, Message)>>,
    read: SqlitePool,
    /// The last one given.
    after: u64,
    page: std::vec::IntoIter<(u64, Message)>,
    /// True while the disk may have more than memory has.
    behind: bool,
}

impl Follower {
    async fn turn_page(&mut self) -> Result<(), BrokerError> {
        let rows = sqlx::query(
            "SELECT pos, message, body FROM log WHERE channel = ? AND pos > ? ORDER BY pos LIMIT ?",
        )
        .bind(self.channel.as_str())
        .bind(i64::try_from(self.after).unwrap_or(i64::MAX))
        .bind(PAGE)
        .fetch_all(&self.read)
        .await
        .map_err(storage)?;
        self.behind = !rows.is_empty();
        let page: Result<Vec<_>, BrokerError> = rows
            .iter()
            .map(|row| {
                let pos: i64 = row.try_get("pos").map_err(storage)?;
                Ok((u64::try_from(pos).unwrap_or(0), message(row)?))
            })
            .collect();
        self.page = page?.into_iter();
        Ok(())
    }
}

#[async_trait]
impl LogReader for Follower {
    async fn recv(&mut self) -> Option<(u64, Message)> {
        loop {
            if let Some((pos, message)) = self.page.next() {
                self.after = pos;
                return Some((pos, message));
            }
            if self.behind {
                if let Err(error) = self.turn_page().await {
                    tracing::warn!(channel = %self.channel, %error, "log not read");
                    return None;
                }
                continue;
            }
            match self.live.recv().await {
                Ok(next) if next.0 > self.after => {
                    self.after = next.0;
                    return Some((next.0, next.1.clone()));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => self.behind = true,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
