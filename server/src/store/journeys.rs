//! Receipts, journeys, and what is old enough to go.

use std::collections::BTreeMap;

use domain::{EventId, Login, Timestamp};
use protocol::{Journey, JourneyEvent, JourneyStage, Outcome, Stage};
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::commit::pieces;
use super::database::Database;
use super::sql::{Arg, Columns, Sql, damaged};
use super::{Receipt, StoreError};

/// Rows deleted at once: nobody waits long behind it.
const PRUNE_ROWS: u32 = 1_000;

impl Database {
    pub(super) async fn write_receipts(&self, receipts: &[Receipt]) -> Result<(), StoreError> {
        // One statement must not touch a row twice, and the order of rows is
        // the same everywhere, so that two writers don't lock each other out.
        let mut merged: BTreeMap<(Uuid, &str, String), Receipt> = BTreeMap::new();
        for one in receipts {
            let agent = one.agent.as_ref().map(ToString::to_string).unwrap_or_default();
            merged
                .entry((one.cause, one.stage.as_str(), agent))
                .and_modify(|known| known.add(one))
                .or_insert_with(|| one.clone());
        }
        let rows: Vec<[Arg; 6]> = merged
            .into_iter()
            .map(|((cause, stage, agent), Receipt { at, count, integration, .. })| {
                let (cause, at) = (cause.to_string().into(), at.as_millis().into());
                [cause, stage.into(), agent.into(), at, count.into(), integration.into()]
            })
            .collect();
        let mut tx = self.write.begin().await?;
        for some in pieces(rows.iter()) {
            Sql::new("INSERT INTO receipts (cause, stage, agent, at, count, integration) VALUES ")
                .rows(some)
                .and(
                    " ON CONFLICT (cause, stage, agent) DO UPDATE SET \
                     at = CASE WHEN excluded.at < receipts.at THEN excluded.at ELSE receipts.at END, \
                     count = receipts.count + excluded.count, \
                     integration = COALESCE(receipts.integration, excluded.integration)",
                )
                .run(&mut tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    pub(super) async fn read_journey(
        &self,
        id: Uuid,
    ) -> Result<Option<(Journey, Option<String>)>, StoreError> {
        let key = id.to_string();
        let decided = Sql::new("SELECT outcome, at, integration FROM decided WHERE id = ")
            .arg(key.as_str())
            .one_in(&self.read)
            .await?;
        let journal = Sql::new(
            "SELECT channel, pos, id, kind, announced_at, interaction_id, version FROM journal \
             WHERE cause = ",
        )
        .arg(key.as_str())
        .and(" ORDER BY channel, pos")
        .all_in(&self.read)
        .await?;
        let receipts =
            Sql::new("SELECT stage, agent, at, count, integration FROM receipts WHERE cause = ")
                .arg(key.as_str())
                .all_in(&self.read)
                .await?;

        let mut stages: BTreeMap<Stage, JourneyStage> = BTreeMap::new();
        let mut reach = |stage: Stage, at: i64, count: u64, agent: Option<Login>| {
            let at = Timestamp::from_millis(at);
            let entry = stages.entry(stage).or_insert_with(|| JourneyStage {
                stage,
                at,
                count: None,
                agents: BTreeMap::new(),
            });
            entry.at = entry.at.min(at);
            if count > 0 {
                entry.count = Some(entry.count.unwrap_or(0) + count);
            }
            if let Some(agent) = agent {
                entry.agents.insert(agent, at);
            }
        };
        let (mut outcome, mut sender): (Option<Outcome>, Option<String>) = (None, None);
        if let Some(row) = decided {
            outcome = Some(row.json("outcome")?);
            sender = row.maybe_text("integration")?;
            reach(Stage::Decided, row.int("at")?, 0, None);
        }
        let mut events = Vec::new();
        let mut announced: Option<i64> = None;
        let mut all_announced = !journal.is_empty();
        for row in &journal {
            events.push(JourneyEvent {
                id: row.parsed::<EventId>("id")?,
                kind: row.text("kind")?,
                channel: row.parsed("channel")?,
                offset: row.count("pos")?,
            });
            let at = row.maybe_int("announced_at")?;
            all_announced &= at.is_some();
            announced = announced.max(at);
        }
        if let Some(at) = self.acted_after(&journal).await? {
            reach(Stage::Acted, at, 0, None);
        }
        let mut told = false;
        for row in &receipts {
            let word = row.text("stage")?;
            let stage = Stage::ALL.iter().find(|stage| stage.as_str() == word);
            let stage = *stage.ok_or_else(|| damaged("stage"))?;
            told |= stage == Stage::Announced;
            let agent = match row.text("agent")?.as_str() {
                "" => None,
                login => Some(login.parse().map_err(|_| damaged("agent"))?),
            };
            reach(stage, row.int("at")?, row.count("count")?, agent);
            sender = sender.or(row.maybe_text("integration")?);
        }
        if let (Some(at), true, false) = (announced, all_announced, told) {
            reach(Stage::Announced, at, 0, None);
        }
        let Some(status) = stages.keys().next_back().copied() else { return Ok(None) };
        let stages = stages.into_values().collect();
        Ok(Some((Journey { id: EventId(id), status, stages, outcome, events }, sender)))
    }

    /// When an agent first acted on an interaction after one of these events.
    async fn acted_after(&self, journal: &[AnyRow]) -> Result<Option<i64>, StoreError> {
        let mut first: Option<i64> = None;
        for row in journal {
            let (Some(interaction), Some(version)) =
                (row.maybe_text("interaction_id")?, row.maybe_int("version")?)
            else {
                continue;
            };
            let acted = Sql::new("SELECT at FROM journal WHERE by_agent = 1 AND interaction_id = ")
                .arg(interaction)
                .and(" AND version > ")
                .arg(version)
                .and(" ORDER BY version LIMIT 1")
                .one_in(&self.read)
                .await?;
            if let Some(row) = acted {
                let at = row.int("at")?;
                first = Some(first.map_or(at, |known| known.min(at)));
            }
        }
        Ok(first)
    }

    pub(super) async fn delete_old(&self, before: Timestamp) -> Result<(), StoreError> {
        for (table, key, column) in [
            ("decided", "id", "at"),
            ("receipts", "cause", "at"),
            ("sessions", "hash", "expires_at"),
        ] {
            let sql = Sql::new(&format!(
                "DELETE FROM {table} WHERE {column} < {} AND {key} IN \
                 (SELECT {key} FROM {table} WHERE {column} < {} LIMIT {PRUNE_ROWS})",
                before.as_millis(),
                before.as_millis()
            ));
            while sql.run_in(&self.write).await? > 0 {}
        }
        Ok(())
    }
}
