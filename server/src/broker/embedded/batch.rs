//! What the writer does inside its transactions.
//!
//! Rows go in and out many at a time: each statement costs a walk to the
//! thread that SQLite lives in and back.

use domain::Timestamp;
use sqlx::sqlite::SqliteTransactionManager;
use sqlx::{Connection, Executor, Sqlite, SqliteConnection, Transaction, TransactionManager};

use super::writer::{Fate, Publish};
use crate::broker::DELIVERY_LIMIT;

/// How many rows a statement takes. A few sizes, so that statements are kept.
const SIZES: [usize; 4] = [64, 16, 4, 1];

/// A message to settle.
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) fate: Fate,
    pub(super) at: Timestamp,
}

/// What came of it.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// It is out of its queue.
    Left,
    /// It waits again.
    Waits,
}

/// Cuts the next piece off, of a size that has its statement.
pub(super) fn piece<'a, T>(rest: &mut &'a [T]) -> Option<&'a [T]> {
    let size = SIZES.into_iter().find(|size| *size <= rest.len())?;
    let (piece, later) = rest.split_at(size);
    *rest = later;
    Some(piece)
}

/// `one` as often as there are rows, with commas.
pub(super) fn times(one: &str, rows: usize) -> String {
    let mut text = String::with_capacity((one.len() + 1) * rows);
    for row in 0..rows {
        if row > 0 {
            text.push(',');
        }
        text.push_str(one);
    }
    text
}

/// Writes messages under the numbers from `first` on.
pub(super) async fn insert(
    tx: &mut SqliteConnection,
    first: i64,
    publishes: &[Publish],
) -> Result<(), sqlx::Error> {
    let mut seq = first;
    let mut rest = publishes;
    while let Some(piece) = piece(&mut rest) {
        let text = format!(
            "INSERT INTO inbound (seq, channel, part, expires_at, message, body) VALUES {}",
            times("(?,?,?,?,?,?)", piece.len())
        );
        let mut query = sqlx::query(&text);
        for publish in piece {
            let to = publish.place.shared().partition;
            query = query
                .bind(seq)
                .bind(to.channel.as_str())
                .bind(i64::from(to.index))
                .bind(publish.expires_at.as_millis())
                .bind(publish.envelope.as_str())
                .bind(publish.message.body.as_ref());
            seq += 1;
        }
        query.execute(&mut *tx).await?;
    }
    Ok(())
}

/// Settles messages; answers in their order.
pub(super) async fn settle(
    tx: &mut SqliteConnection,
    rows: &[Row],
) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(rows.len());
    let mut acked = Vec::with_capacity(rows.len());
    for row in rows {
        outcomes.push(match &row.fate {
            Fate::Ack => {
                acked.push(row.seq);
                Outcome::Left
            }
            Fate::Bury(reason) => {
                bury(tx, row.seq, reason, row.at).await?;
                Outcome::Left
            }
            Fate::Retry => retry(tx, row.seq, row.at).await?,
        });
    }
    let mut rest = acked.as_slice();
    while let Some(piece) = piece(&mut rest) {
        let text = format!("DELETE FROM inbound WHERE seq IN ({})", times("?", piece.len()));
        let mut query = sqlx::query(&text);
        for seq in piece {
            query = query.bind(seq);
        }
        query.execute(&mut *tx).await?;
    }
    Ok(outcomes)
}

async fn retry(tx: &mut SqliteConnection, seq: i64, at: Timestamp) -> Result<Outcome, sqlx::Error> {
    let tries: Option<i64> =
        sqlx::query_scalar("UPDATE inbound SET tries = tries + 1 WHERE seq = ? RETURNING tries")
            .bind(seq)
            .fetch_optional(&mut *tx)
            .await?;
    if tries.is_some_and(|tries| tries < i64::from(DELIVERY_LIMIT)) {
        return Ok(Outcome::Waits);
    }
    bury(tx, seq, "delivery_limit", at).await?;
    Ok(Outcome::Left)
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

pub(super) async fn declare(
    tx: &mut SqliteConnection,
    partitions: u32,
) -> Result<bool, sqlx::Error> {
    sqlx::query("INSERT INTO topology (one, partitions) VALUES (1, ?) ON CONFLICT DO NOTHING")
        .bind(i64::from(partitions))
        .execute(tx)
        .await?;
    Ok(true)
}

pub(super) async fn delete(tx: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    for table in ["DELETE FROM topology", "DELETE FROM inbound", "DELETE FROM dead"] {
        sqlx::query(table).execute(&mut *tx).await?;
    }
    Ok(true)
}

/// False if there is no such dead letter.
pub(super) async fn drop_dead(tx: &mut SqliteConnection, seq: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("DELETE FROM dead WHERE seq = ?").bind(seq).execute(tx).await?;
    Ok(done.rows_affected() > 0)
}

/// Begins a transaction, and ends one that only sqlx still counts: SQLite ends
/// a transaction by itself when the disk is full, and then refuses to roll it
/// back. Counted on, the next one would be nested in nothing, and never written.
pub(super) async fn begin(
    connection: &mut SqliteConnection,
) -> Result<Transaction<'_, Sqlite>, sqlx::Error> {
    if connection.is_in_transaction() {
        // A rollback may be under way.
        connection.ping().await?;
    }
    if connection.is_in_transaction() {
        // It fails if SQLite is in one after all.
        let _ = connection.execute("BEGIN").await;
        SqliteTransactionManager::rollback(connection).await?;
    }
    connection.begin().await
}

/// Counts a failure for what a queue had handed out when the process died,
/// and buries what has failed too often.
pub(super) async fn count_crash(
    connection: &mut SqliteConnection,
    (channel, part): (&str, u32),
    handed: i64,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut tx = begin(connection).await?;
    let failed: Vec<(i64, i64)> = sqlx::query_as(
        "UPDATE inbound SET tries = tries + 1 WHERE channel = ? AND part = ? AND seq <= ? \
         RETURNING seq, tries",
    )
    .bind(channel)
    .bind(i64::from(part))
    .bind(handed)
    .fetch_all(&mut *tx)
    .await?;
    for (seq, tries) in failed {
        if tries >= i64::from(DELIVERY_LIMIT) {
            bury(&mut tx, seq, "delivery_limit", at).await?;
        }
    }
    tx.commit().await
}

/// Writes something that needs new pages and takes it away again.
pub(super) async fn probe(connection: &mut SqliteConnection, seq: i64) -> Result<(), sqlx::Error> {
    let mut tx = begin(connection).await?;
    sqlx::query(
        "INSERT INTO inbound (seq, channel, part, expires_at, message, body) \
         VALUES (?, 'probe', 0, 0, '', zeroblob(65536))",
    )
    .bind(seq)
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM inbound WHERE seq = ?").bind(seq).execute(&mut *tx).await?;
    tx.commit().await
}
