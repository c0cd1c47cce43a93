//! The files: opening them, and reading what a queue no longer has in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::{Channel, Timestamp};
use futures::TryStreamExt;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row, SqliteConnection, SqlitePool};

use super::queues::{Page, WINDOW, WINDOW_BYTES, Waiting};
use crate::broker::{BrokerError, DeadLetter, Message, Partition};

/// The version of these tables; a file with a higher one is refused.
const VERSION: i64 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// A broker of this process that was just dropped may still be finishing.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);
/// Up to this size a file is looked through for damage when it is opened:
/// that takes a tenth of a second at most. A larger one tells when it is read.
const CHECKED_BYTES_MAX: u64 = 64 * 1_048_576;

const INBOUND: &str = "
CREATE TABLE IF NOT EXISTS topology (one INTEGER PRIMARY KEY CHECK (one = 1), partitions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS inbound (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    part INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    message TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS inbound_queue ON inbound (channel, part, seq);
CREATE INDEX IF NOT EXISTS inbound_expiry ON inbound (expires_at);
CREATE TABLE IF NOT EXISTS dead (
    seq INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,
    part INTEGER NOT NULL,
    id TEXT NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    message TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS dead_id ON dead (channel, id);
";

const OUTBOUND: &str = "
CREATE TABLE IF NOT EXISTS log (
    pos INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    at INTEGER NOT NULL,
    message TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS log_channel ON log (channel, pos);
DROP INDEX IF EXISTS log_at;
";

/// What of a message isn't its body.
#[derive(serde::Serialize)]
struct EnvelopeRef<'a> {
    id: &'a str,
    kind: &'a str,
    app_id: &'a str,
    at: i64,
    headers: &'a BTreeMap<String, String>,
    reply_to: Option<&'a str>,
}

/// As [`EnvelopeRef`], read back.
#[derive(serde::Deserialize)]
struct Envelope {
    id: String,
    kind: String,
    app_id: String,
    at: i64,
    headers: BTreeMap<String, String>,
    reply_to: Option<String>,
}

pub(super) fn envelope(message: &Message) -> String {
    let envelope = EnvelopeRef {
        id: &message.id,
        kind: &message.kind,
        app_id: &message.app_id,
        at: message.at.as_millis(),
        headers: &message.headers,
        reply_to: message.reply_to.as_deref(),
    };
    // Texts and numbers: this can't fail.
    serde_json::to_string(&envelope).unwrap_or_default()
}

pub(super) fn message(row: &SqliteRow) -> Result<Message, BrokerError> {
    let text: &str = row.try_get("message").map_err(storage)?;
    let envelope: Envelope = serde_json::from_str(text)
        .map_err(|error| BrokerError::Storage(format!("a message is damaged: {error}")))?;
    let body: Vec<u8> = row.try_get("body").map_err(storage)?;
    Ok(Message {
        id: envelope.id,
        kind: envelope.kind,
        app_id: envelope.app_id,
        at: Timestamp::from_millis(envelope.at),
        headers: envelope.headers,
        reply_to: envelope.reply_to,
        body: Bytes::from(body),
    })
}

pub(super) fn storage(error: sqlx::Error) -> BrokerError {
    let text = error.to_string().replace('\n', " ");
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0);
            match code & 0xff {
                // Full, I/O error, busy: it may pass.
                13 => BrokerError::Blocked(format!("disk full: {text}")),
                5 | 6 | 10 => BrokerError::Blocked(text),
                _ => BrokerError::Storage(text),
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => BrokerError::Storage(text),
        _ => BrokerError::Down(text),
    }
}

/// Held by each task that writes; the system lets go of it when the last one
/// does, or when the process dies.
pub(super) type Lock = Arc<std::fs::File>;

/// The two files and who may write them: this process, as long as it lives.
#[derive(Clone)]
pub(super) struct Files {
    folder: PathBuf,
    read: SqlitePool,
    lock: Lock,
}

impl Files {
    pub(super) async fn open(folder: &Path) -> Result<Self, BrokerError> {
        let named = |error: String| BrokerError::Storage(format!("{}: {error}", folder.display()));
        tokio::fs::create_dir_all(folder).await.map_err(|error| named(error.to_string()))?;
        let lock = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("lock"))
            .map_err(|error| named(error.to_string()))?;
        let mut left = LOCK_ATTEMPTS;
        while lock.try_lock().is_err() {
            if left == 0 {
                return Err(named("in use by another process".to_owned()));
            }
            left -= 1;
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        let read = SqlitePoolOptions::new()
            .max_connections(2)
            .min_connections(0)
            .connect_lazy_with(options(&folder.join("inbound.db"), SqliteSynchronous::Full)?);
        Ok(Self { folder: folder.to_owned(), read, lock: Arc::new(lock) })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn lock(&self) -> Lock {
        self.lock.clone()
    }

    pub(super) async fn inbound_writer(&self) -> Result<SqliteConnection, BrokerError> {
        self.connect("inbound.db", SqliteSynchronous::Full, INBOUND).await
    }

    pub(super) async fn outbound_writer(&self) -> Result<SqliteConnection, BrokerError> {
        self.connect("outbound.db", SqliteSynchronous::Normal, OUTBOUND).await
    }

    pub(super) fn outbound_reader(&self) -> Result<SqlitePool, BrokerError> {
        let options = options(&self.folder.join("outbound.db"), SqliteSynchronous::Normal)?;
        Ok(SqlitePoolOptions::new()
            .max_connections(2)
            .min_connections(0)
            .connect_lazy_with(options))
    }

    async fn connect(
        &self,
        file: &str,
        synchronous: SqliteSynchronous,
        tables: &str,
    ) -> Result<SqliteConnection, BrokerError> {
        let path = self.folder.join(file);
        let named = |error: sqlx::Error| {
            let text = error.to_string().replace('\n', " ");
            BrokerError::Storage(format!("{}: {text}", path.display()))
        };
        let mut connection = options(&path, synchronous)?.connect().await.map_err(named)?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut connection)
            .await
            .map_err(named)?;
        if version > VERSION {
            return Err(BrokerError::Storage(format!(
                "{}: version {version} is newer than this program",
                path.display()
            )));
        }
        let bytes = tokio::fs::metadata(&path).await.map_or(0, |about| about.len());
        if bytes <= CHECKED_BYTES_MAX {
            let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
                .fetch_one(&mut connection)
                .await
                .map_err(named)?;
            if found != "ok" {
                let found = found.replace('\n', " ");
                return Err(BrokerError::Storage(format!("{}: damaged: {found}", path.display())));
            }
        }
        let set_version = format!("PRAGMA user_version = {VERSION}");
        for statement in tables.split(';').map(str::trim).chain([set_version.as_str()]) {
            if !statement.is_empty() {
                sqlx::query(statement).execute(&mut connection).await.map_err(named)?;
            }
        }
        Ok(connection)
    }

    /// How many partitions were declared; none before the first declare.
    pub(super) async fn partitions(&self) -> Result<Option<u32>, BrokerError> {
        let found: Option<i64> = sqlx::query_scalar("SELECT partitions FROM topology")
            .fetch_optional(&self.read)
            .await
            .map_err(storage)?;
        Ok(found.and_then(|count| u32::try_from(count).ok()))
    }

    /// The number of the next message.
    pub(super) async fn next(&self) -> Result<i64, BrokerError> {
        let last: Option<i64> =
            sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'inbound'")
                .fetch_optional(&self.read)
                .await
                .map_err(storage)?;
        Ok(last.unwrap_or(0) + 1)
    }

    /// The last message of a queue and how many there are.
    pub(super) async fn extent(&self, of: Partition) -> Result<(i64, u64), BrokerError> {
        let row = sqlx::query(
            "SELECT COALESCE(MAX(seq), 0) AS last, COUNT(*) AS count FROM inbound \
             WHERE channel = ? AND part = ?",
        )
        .bind(of.channel.as_str())
        .bind(i64::from(of.index))
        .fetch_one(&self.read)
        .await
        .map_err(storage)?;
        let count: i64 = row.try_get("count").map_err(storage)?;
        Ok((row.try_get("last").map_err(storage)?, u64::try_from(count).unwrap_or(0)))
    }

    /// The next messages of a queue, no more than its window takes; and
    /// whether these are all.
    pub(super) async fn waiting(
        &self,
        of: Partition,
        page: Page,
    ) -> Result<(Vec<Waiting>, bool), BrokerError> {
        let mut rows = sqlx::query(
            "SELECT seq, expires_at, message, body FROM inbound \
             WHERE channel = ? AND part = ? AND seq > ? AND seq <= ? ORDER BY seq",
        )
        .bind(of.channel.as_str())
        .bind(i64::from(of.index))
        .bind(page.after)
        .bind(page.last)
        .fetch(&self.read);
        let (mut read, mut bytes) = (Vec::new(), 0);
        while read.len() < WINDOW && bytes < WINDOW_BYTES {
            let Some(row) = rows.try_next().await.map_err(storage)? else {
                return Ok((read, true));
            };
            let expires_at = row.try_get("expires_at").map_err(storage)?;
            let waiting = Waiting::new(
                row.try_get("seq").map_err(storage)?,
                Timestamp::from_millis(expires_at),
                message(&row)?,
            );
            bytes += waiting.bytes();
            read.push(waiting);
        }
        Ok((read, false))
    }

    /// Some of the messages after `after` that have expired.
    pub(super) async fn expired(
        &self,
        now: Timestamp,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(Partition, i64)>, BrokerError> {
        let rows = sqlx::query(
            "SELECT seq, channel, part FROM inbound WHERE expires_at <= ? AND seq > ? \
             ORDER BY seq LIMIT ?",
        )
        .bind(now.as_millis())
        .bind(after)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.read)
        .await
        .map_err(storage)?;
        rows.iter().map(|row| Ok((partition(row)?, row.try_get("seq").map_err(storage)?))).collect()
    }

    pub(super) async fn dead(
        &self,
        channel: Channel,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, BrokerError> {
        let rows = sqlx::query("SELECT * FROM dead WHERE channel = ? ORDER BY at, seq LIMIT ?")
            .bind(channel.as_str())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.read)
            .await
            .map_err(storage)?;
        rows.iter().map(dead_letter).collect()
    }

    pub(super) async fn find_dead(
        &self,
        channel: Channel,
        id: &str,
    ) -> Result<Option<(i64, DeadLetter)>, BrokerError> {
        let row =
            sqlx::query("SELECT * FROM dead WHERE channel = ? AND id = ? ORDER BY seq LIMIT 1")
                .bind(channel.as_str())
                .bind(id)
                .fetch_optional(&self.read)
                .await
                .map_err(storage)?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((row.try_get("seq").map_err(storage)?, dead_letter(&row)?)))
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        // Whoever opens the files next needn't wait for the last clone.
        let _ = self.lock.unlock();
    }
}

pub(super) fn options(
    path: &Path,
    synchronous: SqliteSynchronous,
) -> Result<SqliteConnectOptions, BrokerError> {
    Ok(SqliteConnectOptions::from_str("sqlite://")
        .map_err(storage)?
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("cache_size", "-512")
        .disable_statement_logging())
}

fn partition(row: &SqliteRow) -> Result<Partition, BrokerError> {
    let channel: &str = row.try_get("channel").map_err(storage)?;
    let index: i64 = row.try_get("part").map_err(storage)?;
    Ok(Partition {
        channel: channel.parse().map_err(BrokerError::Storage)?,
        index: u32::try_from(index).unwrap_or(0),
    })
}

fn dead_letter(row: &SqliteRow) -> Result<DeadLetter, BrokerError> {
    Ok(DeadLetter {
        message: message(row)?,
        reason: row.try_get("reason").map_err(storage)?,
        at: Some(Timestamp::from_millis(row.try_get("at").map_err(storage)?)),
        partition: Some(partition(row)?),
    })
}
