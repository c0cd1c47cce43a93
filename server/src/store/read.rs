//! Reading states, the journal, lists and threads.

use std::collections::BTreeMap;

use domain::{Channel, Interaction, InteractionId, Login, Recorded, Timestamp};
use protocol::{Cursor, InteractionDetail, InteractionList, Outcome, View};
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, Transaction};
use uuid::Uuid;

use super::database::Database;
use super::sql::{Columns, Sql, damaged};
use super::{Due, JournalId, JournalRow, ListQuery, Place, Store, StoreError};

/// The most events of a thread; the latest.
const TIMELINE_MAX: u32 = 500;
/// The most other interactions of a contact; the latest.
const RELATED_MAX: u32 = 20;

const JOURNAL_COLUMNS: &str =
    "SELECT pos, id, kind, cause, part, interaction_id, distribution, body, at FROM journal";

fn journal_row(row: &AnyRow) -> Result<JournalRow, StoreError> {
    let interaction_id = match row.maybe_text("interaction_id")? {
        Some(text) => Some(text.parse().map_err(|_| damaged("interaction_id"))?),
        None => None,
    };
    Ok(JournalRow {
        offset: row.count("pos")?,
        id: row.parsed("id")?,
        kind: row.text("kind")?,
        cause: row.parsed("cause")?,
        partition: u32::try_from(row.int("part")?).map_err(|_| damaged("part"))?,
        interaction_id,
        distribution: row.json("distribution")?,
        body: row.text("body")?,
        at: Timestamp::from_millis(row.int("at")?),
    })
}

/// Adds what an agent may see; `i` is the interaction.
fn seen_by(sql: Sql, viewer: &Login) -> Sql {
    sql.and(
        "(i.is_public = 1 OR EXISTS (SELECT 1 FROM interaction_viewers v \
         WHERE v.interaction_id = i.id AND v.login = ",
    )
    .arg(viewer.as_str())
    .and("))")
}

impl Database {
    pub(super) async fn read_outcomes(
        &self,
        ids: &[Uuid],
    ) -> Result<BTreeMap<Uuid, Outcome>, StoreError> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = Sql::new("SELECT id, outcome FROM decided WHERE id IN ")
            .any_of(ids.iter().map(Uuid::to_string))
            .all_in(&self.read)
            .await?;
        rows.iter().map(|row| Ok((row.parsed("id")?, row.json("outcome")?))).collect()
    }

    pub(super) async fn read_states(
        &self,
        ids: &[InteractionId],
    ) -> Result<BTreeMap<InteractionId, Interaction>, StoreError> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = Sql::new("SELECT body FROM interactions WHERE id IN ")
            .any_of(ids.iter().map(InteractionId::to_string))
            .all_in(&self.read)
            .await?;
        rows.iter()
            .map(|row| {
                let state: Interaction = row.json("body")?;
                Ok((state.id, state))
            })
            .collect()
    }

    pub(super) async fn read_outbox(
        &self,
        channel: Channel,
        partitions: &[u32],
        limit: u32,
    ) -> Result<Vec<JournalRow>, StoreError> {
        let rows = Sql::new(JOURNAL_COLUMNS)
            .and(" WHERE announced_at IS NULL AND channel = ")
            .arg(channel.as_str())
            .and(" AND part IN ")
            .any_of(partitions.iter().copied())
            .and(" ORDER BY pos LIMIT ")
            .arg(limit)
            .all_in(&self.read)
            .await?;
        rows.iter().map(journal_row).collect()
    }

    pub(super) async fn mark_announced(
        &self,
        channel: Channel,
        offsets: &[u64],
    ) -> Result<(), StoreError> {
        let now = crate::clock::Clock::default().now();
        for some in offsets.chunks(500) {
            Sql::new("UPDATE journal SET announced_at = ")
                .arg(now.as_millis())
                .and(" WHERE announced_at IS NULL AND channel = ")
                .arg(channel.as_str())
                .and(" AND pos IN ")
                .any_of(some.iter().copied())
                .run_in(&self.write)
                .await?;
        }
        Ok(())
    }

    pub(super) async fn read_due(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Due>, StoreError> {
        let rows = Sql::new("SELECT id, channel, part, version FROM interactions WHERE due_at <= ")
            .arg(now.as_millis())
            .and(" ORDER BY due_at LIMIT ")
            .arg(limit)
            .all_in(&self.read)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Due {
                    interaction_id: row.parsed("id")?,
                    channel: row.parsed("channel")?,
                    partition: u32::try_from(row.int("part")?).map_err(|_| damaged("part"))?,
                    version: row.count("version")?,
                })
            })
            .collect()
    }

    pub(super) async fn read_heads(&self) -> Result<BTreeMap<Channel, Cursor>, StoreError> {
        let mut connection = self.read.acquire().await?;
        self.heads_on(&mut connection).await
    }

    async fn heads_on(
        &self,
        on: &mut AnyConnection,
    ) -> Result<BTreeMap<Channel, Cursor>, StoreError> {
        let rows = Sql::new("SELECT channel, last FROM heads").all(on).await?;
        rows.iter()
            .map(|row| {
                let cursor = Cursor { epoch: self.epoch().to_owned(), offset: row.count("last")? };
                Ok((row.parsed("channel")?, cursor))
            })
            .collect()
    }

    /// A transaction whose reads are of one moment.
    async fn moment(&self) -> Result<Transaction<'static, Any>, StoreError> {
        let mut tx = self.read.begin().await?;
        if self.postgres {
            Sql::new("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                .run(&mut tx)
                .await?;
        }
        Ok(tx)
    }

    /// Some columns of a channel's events after `after`.
    async fn journal_after(
        &self,
        columns: &str,
        channel: Channel,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AnyRow>, StoreError> {
        Sql::new(columns)
            .and(" WHERE channel = ")
            .arg(channel.as_str())
            .and(" AND pos > ")
            .arg(after)
            .and(" ORDER BY pos LIMIT ")
            .arg(limit)
            .all_in(&self.read)
            .await
    }

    pub(super) async fn read_journal(
        &self,
        channel: Channel,
        after: u64,
        limit: u32,
    ) -> Result<Vec<JournalRow>, StoreError> {
        let rows = self.journal_after(JOURNAL_COLUMNS, channel, after, limit).await?;
        rows.iter().map(journal_row).collect()
    }

    pub(super) async fn read_journal_ids(
        &self,
        channel: Channel,
        after: u64,
        limit: u32,
    ) -> Result<Vec<JournalId>, StoreError> {
        let columns = "SELECT pos, id, part FROM journal";
        let rows = self.journal_after(columns, channel, after, limit).await?;
        let id = |row: &AnyRow| {
            Ok(JournalId {
                offset: row.count("pos")?,
                id: row.parsed("id")?,
                partition: u32::try_from(row.int("part")?).map_err(|_| damaged("part"))?,
            })
        };
        rows.iter().map(id).collect()
    }

    pub(super) async fn read_list(&self, query: &ListQuery) -> Result<InteractionList, StoreError> {
        let mut sql = seen_by(Sql::new("SELECT i.body FROM interactions i WHERE "), &query.viewer);
        if let Some(channel) = query.channel {
            sql = sql.and(" AND i.channel = ").arg(channel.as_str());
        }
        if let Some(queue) = &query.queue {
            sql = sql.and(" AND i.queue = ").arg(queue.as_str());
        }
        let me = query.viewer.as_str();
        sql = match query.view {
            View::Mine => sql
                .and(" AND i.is_over = 0 AND (i.assignee = ")
                .arg(me)
                .and(" OR i.offered_to = ")
                .arg(me)
                .and(")"),
            View::Unassigned => sql.and(" AND i.is_over = 0 AND i.assignee IS NULL"),
            View::Open => sql.and(" AND i.is_over = 0"),
            View::Closed => sql.and(" AND i.is_over = 1"),
            View::All => sql,
        };
        if let Some(Place { updated_at, id }) = &query.cursor {
            let updated_at = updated_at.as_millis();
            sql = sql
                .and(" AND (i.updated_at < ")
                .arg(updated_at)
                .and(" OR (i.updated_at = ")
                .arg(updated_at)
                .and(" AND i.id < ")
                .arg(id.to_string())
                .and("))");
        }
        let limit = query.limit.clamp(1, 200);
        let sql = sql.and(" ORDER BY i.updated_at DESC, i.id DESC LIMIT ").arg(limit + 1);
        let mut tx = self.moment().await?;
        let rows = sql.all(&mut tx).await?;
        let streams = self.heads_on(&mut tx).await?;
        tx.commit().await?;
        let mut interactions: Vec<Interaction> =
            rows.iter().map(|row| row.json("body")).collect::<Result<_, _>>()?;
        let more = interactions.len() > limit as usize;
        interactions.truncate(limit as usize);
        let next_cursor = interactions
            .last()
            .filter(|_| more)
            .map(|last| Place { updated_at: last.updated_at, id: last.id }.to_string());
        Ok(InteractionList { interactions, next_cursor, streams })
    }

    pub(super) async fn read_detail(
        &self,
        id: InteractionId,
        viewer: &Login,
    ) -> Result<Option<InteractionDetail>, StoreError> {
        let mut tx = self.moment().await?;
        let sql = Sql::new("SELECT i.body FROM interactions i WHERE i.id = ").arg(id.to_string());
        let Some(row) = seen_by(sql.and(" AND "), viewer).one(&mut tx).await? else {
            return Ok(None);
        };
        let interaction: Interaction = row.json("body")?;
        let rows = Sql::new("SELECT body FROM journal WHERE interaction_id = ")
            .arg(id.to_string())
            .and(" ORDER BY version DESC LIMIT ")
            .arg(TIMELINE_MAX)
            .all(&mut tx)
            .await?;
        let mut timeline: Vec<Recorded> =
            rows.iter().map(|row| row.json("body")).collect::<Result<_, _>>()?;
        timeline.reverse();
        let mut related = Vec::new();
        if let Some(contact) = interaction.contact.as_ref().and_then(|contact| contact.id) {
            let sql = Sql::new("SELECT i.body FROM interactions i WHERE i.contact_id = ")
                .arg(contact.to_string())
                .and(" AND i.id <> ")
                .arg(id.to_string())
                .and(" AND ");
            let rows = seen_by(sql, viewer)
                .and(" ORDER BY i.updated_at DESC LIMIT ")
                .arg(RELATED_MAX)
                .all(&mut tx)
                .await?;
            related = rows.iter().map(|row| row.json("body")).collect::<Result<_, _>>()?;
        }
        let streams = self.heads_on(&mut tx).await?;
        tx.commit().await?;
        Ok(Some(InteractionDetail { interaction, timeline, related, streams }))
    }
}
