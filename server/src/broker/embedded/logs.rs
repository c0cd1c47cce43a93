//! The outbound logs: appended in groups, read live from memory and, by who is
//! behind, from the disk.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Channel, Timestamp};
use sqlx::{Connection, Row, SqliteConnection, SqlitePool};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::tables::{Files, envelope, message, storage};
use crate::broker::{BrokerError, LogReader, LogStart, Message};

/// How many appends may wait; whoever comes later waits for room.
const APPENDS_MAX: usize = 2_048;
const BATCH_MAX: usize = 512;
/// A follower that is further behind than this reads from the disk.
const LIVE_MAX: usize = 1_024;
const PAGE: i64 = 256;
/// How long a log is kept.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How many messages of all logs together are kept.
const KEPT_MESSAGES: i64 = 1_000_000;

struct Append {
    channel: Channel,
    message: Message,
    at: Timestamp,
    done: oneshot::Sender<Result<(), BrokerError>>,
}

type Live = broadcast::Sender<Arc<(u64, Message)>>;

pub(super) struct Logs {
    appends: mpsc::Sender<Append>,
    live: [Live; 3],
    read: SqlitePool,
}

impl Logs {
    pub(super) async fn open(files: &Files) -> Result<Self, BrokerError> {
        let connection = files.outbound_writer().await?;
        let read = files.outbound_reader()?;
        let (appends, waiting) = mpsc::channel(APPENDS_MAX);
        let live = [(); 3].map(|()| broadcast::channel(LIVE_MAX).0);
        tokio::spawn(write(connection, waiting, live.clone()));
        Ok(Self { appends, live, read })
    }

    pub(super) async fn append(
        &self,
        channel: Channel,
        message: Message,
        at: Timestamp,
    ) -> Result<(), BrokerError> {
        let (done, answer) = oneshot::channel();
        let closed = || BrokerError::Down("closed".into());
        let append = Append { channel, message, at, done };
        // At the first poll where there is room, so that one task's calls stay in order.
        if let Err(refused) = self.appends.try_send(append) {
            self.appends.send(refused.into_inner()).await.map_err(|_| closed())?;
        }
        answer.await.map_err(|_| closed())?
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

    pub(super) async fn prune(&self, now: Timestamp) -> Result<(), BrokerError> {
        let old = now.as_millis() - i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        sqlx::query(
            "DELETE FROM log WHERE at < ? OR pos <= (SELECT COALESCE(MAX(pos), 0) FROM log) - ?",
        )
        .bind(old)
        .bind(KEPT_MESSAGES)
        .execute(&self.read)
        .await
        .map_err(storage)?;
        Ok(())
    }

    pub(super) async fn clear(&self) -> Result<(), BrokerError> {
        sqlx::query("DELETE FROM log").execute(&self.read).await.map_err(storage)?;
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
    }
}

async fn write(
    mut connection: SqliteConnection,
    mut waiting: mpsc::Receiver<Append>,
    live: [Live; 3],
) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let written = commit(&mut connection, &batch).await;
        if let Err(error) = &written {
            tracing::warn!(%error, "log not written");
        }
        for (index, append) in batch.drain(..).enumerate() {
            let answer = match &written {
                Ok(places) => {
                    let pos = places.get(index).copied().unwrap_or_default();
                    // Nobody may be following.
                    let _ = live[append.channel.index()].send(Arc::new((pos, append.message)));
                    Ok(())
                }
                Err(error) => Err(error.clone()),
            };
            let _ = append.done.send(answer);
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "outbound file not closed");
    }
}

async fn commit(
    connection: &mut SqliteConnection,
    batch: &[Append],
) -> Result<Vec<u64>, BrokerError> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(storage)?;
    let mut places = Vec::with_capacity(batch.len());
    for append in batch {
        let done = sqlx::query("INSERT INTO log (channel, at, message, body) VALUES (?, ?, ?, ?)")
            .bind(append.channel.as_str())
            .bind(append.at.as_millis())
            .bind(envelope(&append.message))
            .bind(append.message.body.as_ref())
            .execute(&mut *tx)
            .await
            .map_err(storage)?;
        places.push(u64::try_from(done.last_insert_rowid()).unwrap_or(0));
    }
    tx.commit().await.map_err(storage)?;
    Ok(places)
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
