//! The one transaction: outcomes, states, events, offsets.

use domain::{Channel, Distribution};
use sqlx::AnyConnection;

use super::database::Database;
use super::sql::{Arg, Columns, Sql};
use super::{Changed, Commit, NewEvent, StoreError};

/// Rows in one statement: both databases take this many arguments.
const ROWS_MAX: usize = 64;
/// A deadlock or a lost connection is tried again this often.
const ATTEMPTS: u32 = 3;

impl Database {
    pub(super) async fn write_commit(&self, commit: &Commit) -> Result<Vec<u64>, StoreError> {
        let mut attempt = 1;
        loop {
            match self.try_commit(commit).await {
                // Nothing of a deadlocked transaction was written.
                Err(StoreError::Unavailable(text))
                    if text.contains("deadlock") && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    /// Begins with a write, so that SQLite takes its write lock at once; ends
    /// with the heads, so that a channel is held for as short as can be.
    async fn try_commit(&self, commit: &Commit) -> Result<Vec<u64>, StoreError> {
        let mut tx = self.write.begin().await?;
        outcomes(&mut tx, commit).await?;
        states(&mut tx, &commit.changed).await?;
        for change in &commit.presences {
            Sql::new("UPDATE agents SET presence = ")
                .arg(change.presence.as_str())
                .and(", reason = ")
                .arg(change.reason.clone())
                .and(", since = ")
                .arg(change.since.as_millis())
                .and(" WHERE login = ")
                .arg(change.login.as_str())
                .run(&mut tx)
                .await?;
        }
        let offsets = events(&mut tx, &commit.events).await?;
        tx.commit().await?;
        Ok(offsets)
    }
}

async fn outcomes(tx: &mut AnyConnection, commit: &Commit) -> Result<(), StoreError> {
    for some in commit.decided.chunks(ROWS_MAX) {
        let mut rows: Vec<[Arg; 3]> = Vec::with_capacity(some.len());
        for one in some {
            let outcome = serde_json::to_string(&one.outcome)
                .map_err(|error| StoreError::Broken(error.to_string()))?;
            rows.push([one.id.to_string().into(), outcome.into(), one.at.as_millis().into()]);
        }
        let written = Sql::new("INSERT INTO decided (id, outcome, at) VALUES ")
            .rows(&rows)
            .and(" ON CONFLICT (id) DO NOTHING")
            .run(tx)
            .await?;
        if written != some.len() as u64 {
            return Err(StoreError::Stale);
        }
    }
    Ok(())
}

/// New ones and changed ones in one statement: a row is written only over the
/// version that it was decided at.
async fn states(tx: &mut AnyConnection, changed: &[Changed]) -> Result<(), StoreError> {
    for some in changed.chunks(ROWS_MAX) {
        let mut rows: Vec<[Arg; 14]> = Vec::with_capacity(some.len());
        let mut viewers: Vec<[Arg; 2]> = Vec::new();
        for one in some {
            let state = &one.interaction;
            let id = state.id.to_string();
            let named = match &state.distribution {
                Distribution::Broadcast => &[][..],
                Distribution::Multicast(logins) => logins.as_slice(),
                Distribution::Direct(login) => std::slice::from_ref(login),
            };
            for login in named {
                viewers.push([id.clone().into(), login.as_str().into()]);
            }
            let body = serde_json::to_string(state)
                .map_err(|error| StoreError::Broken(error.to_string()))?;
            let offered_to = state.pending_offer().map(|offer| offer.agent.to_string());
            let contact = state.contact.as_ref().and_then(|contact| contact.id);
            rows.push([
                id.into(),
                state.stage.kind().channel().as_str().into(),
                one.partition.into(),
                state.version.into(),
                one.from_version.into(),
                state.stage.is_over().into(),
                (state.distribution == Distribution::Broadcast).into(),
                state.assignee.as_ref().map(ToString::to_string).into(),
                offered_to.into(),
                state.queue.clone().into(),
                contact.map(|id| id.to_string()).into(),
                state.due_at().map(|due| due.as_millis()).into(),
                state.updated_at.as_millis().into(),
                body.into(),
            ]);
        }
        let written = Sql::new(
            "INSERT INTO interactions (id, channel, part, version, prior, is_over, is_public, \
             assignee, offered_to, queue, contact_id, due_at, updated_at, body) VALUES ",
        )
        .rows(&rows)
        .and(
            " ON CONFLICT (id) DO UPDATE SET version = excluded.version, prior = excluded.prior, \
             is_over = excluded.is_over, is_public = excluded.is_public, \
             assignee = excluded.assignee, offered_to = excluded.offered_to, \
             queue = excluded.queue, contact_id = excluded.contact_id, \
             due_at = excluded.due_at, updated_at = excluded.updated_at, body = excluded.body \
             WHERE interactions.version = excluded.prior",
        )
        .run(tx)
        .await?;
        if written != some.len() as u64 {
            return Err(StoreError::Stale);
        }
        for some in viewers.chunks(ROWS_MAX) {
            Sql::new("INSERT INTO interaction_viewers (interaction_id, login) VALUES ")
                .rows(some)
                .and(" ON CONFLICT (interaction_id, login) DO NOTHING")
                .run(tx)
                .await?;
        }
    }
    Ok(())
}

/// Takes so many offsets of a channel; the row stays locked until the end.
async fn take_offsets(
    tx: &mut AnyConnection,
    channel: Channel,
    count: usize,
) -> Result<u64, StoreError> {
    let row = Sql::new("UPDATE heads SET last = last + ")
        .arg(count as u64)
        .and(" WHERE channel = ")
        .arg(channel.as_str())
        .and(" RETURNING last")
        .one(tx)
        .await?;
    let row = row.ok_or_else(|| StoreError::Broken(format!("the head of {channel} is gone")))?;
    Ok(row.count("last")? - count as u64)
}

async fn events(tx: &mut AnyConnection, events: &[NewEvent]) -> Result<Vec<u64>, StoreError> {
    let mut offsets = vec![0; events.len()];
    for channel in Channel::ALL {
        let count = events.iter().filter(|event| event.channel == *channel).count();
        if count == 0 {
            continue;
        }
        let mut last = take_offsets(tx, *channel, count).await?;
        let mut rows: Vec<[Arg; 12]> = Vec::with_capacity(count);
        for (event, offset) in events.iter().zip(&mut offsets) {
            if event.channel != *channel {
                continue;
            }
            last += 1;
            *offset = last;
            let distribution = serde_json::to_string(&event.distribution)
                .map_err(|error| StoreError::Broken(error.to_string()))?;
            rows.push([
                channel.as_str().into(),
                last.into(),
                event.id.to_string().into(),
                event.kind.into(),
                event.cause.to_string().into(),
                event.partition.into(),
                event.interaction.map(|(id, _)| id.to_string()).into(),
                event.interaction.and_then(|(_, version)| i64::try_from(version).ok()).into(),
                distribution.into(),
                event.body.clone().into(),
                event.at.as_millis().into(),
                event.by_agent.into(),
            ]);
        }
        for some in rows.chunks(ROWS_MAX) {
            Sql::new(
                "INSERT INTO journal (channel, pos, id, kind, cause, part, interaction_id, \
                 version, distribution, body, at, by_agent) VALUES ",
            )
            .rows(some)
            .run(tx)
            .await?;
        }
    }
    Ok(offsets)
}
