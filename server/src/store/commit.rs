//! The one transaction: outcomes, states, events, offsets.

use std::collections::BTreeMap;

use domain::{Channel, Distribution, Interaction};
use sqlx::{AnyConnection, AnyPool};

use super::sql::{Arg, Columns, Sql};
use super::{Changed, Commit, NewEvent, PresenceChange, StoreError};

/// How many rows a statement takes: a few sizes, so that prepared ones are kept.
const SIZES: [usize; 11] = [64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1];
/// A deadlock is tried again this often.
const ATTEMPTS: u32 = 3;

/// A batch, encoded: ready to be written beside others.
pub(super) struct Rows {
    decided: Vec<[Arg; 4]>,
    states: Vec<[Arg; 14]>,
    viewers: Vec<[Arg; 2]>,
    presences: Vec<PresenceChange>,
    /// Their offsets are filled in when they are written.
    events: Vec<(Channel, [Arg; 12])>,
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Broken(error.to_string()))
}

impl Rows {
    pub(super) fn encode(commit: &Commit) -> Result<Self, StoreError> {
        let decided = commit.decided.iter().map(|one| {
            Ok([
                one.id.to_string().into(),
                one.integration.as_str().into(),
                json(&one.outcome)?.into(),
                one.at.as_millis().into(),
            ])
        });
        let viewers = commit.changed.iter().flat_map(|one| {
            let named = match &one.interaction.distribution {
                Distribution::Broadcast => &[][..],
                Distribution::Multicast(logins) => logins.as_slice(),
                Distribution::Direct(login) => std::slice::from_ref(login),
            };
            let id = one.interaction.id.to_string();
            named.iter().map(move |login| [id.clone().into(), login.as_str().into()])
        });
        Ok(Self {
            decided: decided.collect::<Result<_, StoreError>>()?,
            states: commit.changed.iter().map(state_row).collect::<Result<_, _>>()?,
            viewers: viewers.collect(),
            presences: commit.presences.clone(),
            events: commit
                .events
                .iter()
                .map(|event| Ok((event.channel, event_row(event)?)))
                .collect::<Result<_, StoreError>>()?,
        })
    }

    /// What only one batch of a transaction may touch: messages and interactions.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let ids = self.decided.iter().map(|row| &row[0]);
        ids.chain(self.states.iter().map(|row| &row[0])).filter_map(Arg::as_text)
    }
}

fn state_row(one: &Changed) -> Result<[Arg; 14], StoreError> {
    let state: &Interaction = &one.interaction;
    let contact = state.contact.as_ref().and_then(|contact| contact.id);
    Ok([
        state.id.to_string().into(),
        state.stage.kind().channel().as_str().into(),
        one.partition.into(),
        state.version.into(),
        one.from_version.into(),
        state.stage.is_over().into(),
        (state.distribution == Distribution::Broadcast).into(),
        state.assignee.as_ref().map(ToString::to_string).into(),
        state.pending_offer().map(|offer| offer.agent.to_string()).into(),
        state.queue.clone().into(),
        contact.map(|id| id.to_string()).into(),
        state.due_at().map(|due| due.as_millis()).into(),
        state.updated_at.as_millis().into(),
        json(state)?.into(),
    ])
}

fn event_row(event: &NewEvent) -> Result<[Arg; 12], StoreError> {
    Ok([
        event.channel.as_str().into(),
        Arg::Int(0),
        event.id.to_string().into(),
        event.kind.into(),
        event.cause.to_string().into(),
        event.partition.into(),
        event.interaction.map(|(id, _)| id.to_string()).into(),
        event.interaction.and_then(|(_, version)| i64::try_from(version).ok()).into(),
        json(&event.distribution)?.into(),
        event.body.clone().into(),
        event.at.as_millis().into(),
        event.by_agent.into(),
    ])
}

/// Cuts rows into pieces that have their statement.
pub(super) fn pieces<'a, const N: usize>(
    rows: impl Iterator<Item = &'a [Arg; N]>,
) -> impl Iterator<Item = Vec<&'a [Arg; N]>> {
    let mut rest: std::collections::VecDeque<_> = rows.collect();
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rest.len())?;
        Some(rest.drain(..size).collect())
    })
}

/// Writes the batches in one transaction, and gives each one's offsets.
///
/// # Errors
/// [`StoreError::Stale`] if one of them was decided on what is no longer so:
/// nothing was written.
pub(super) async fn write(pool: &AnyPool, all: &[&Rows]) -> Result<Vec<Vec<u64>>, StoreError> {
    let mut attempt = 1;
    loop {
        match try_write(pool, all).await {
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
async fn try_write(pool: &AnyPool, all: &[&Rows]) -> Result<Vec<Vec<u64>>, StoreError> {
    let mut tx = pool.begin().await?;
    for piece in pieces(all.iter().flat_map(|rows| &rows.decided)) {
        let written = Sql::new("INSERT INTO decided (id, integration, outcome, at) VALUES ")
            .rows(piece.iter().copied())
            .and(" ON CONFLICT (id) DO NOTHING")
            .run(&mut tx)
            .await?;
        if written != piece.len() as u64 {
            return Err(StoreError::Stale);
        }
    }
    states(&mut tx, all).await?;
    for change in all.iter().flat_map(|rows| &rows.presences) {
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
    let offsets = events(&mut tx, all).await?;
    tx.commit().await?;
    Ok(offsets)
}

/// New ones and changed ones in one statement: a row is written only over the
/// version that it was decided at.
async fn states(tx: &mut AnyConnection, all: &[&Rows]) -> Result<(), StoreError> {
    for piece in pieces(all.iter().flat_map(|rows| &rows.states)) {
        let written = Sql::new(
            "INSERT INTO interactions (id, channel, part, version, prior, is_over, is_public, \
             assignee, offered_to, queue, contact_id, due_at, updated_at, body) VALUES ",
        )
        .rows(piece.iter().copied())
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
        if written != piece.len() as u64 {
            return Err(StoreError::Stale);
        }
    }
    for piece in pieces(all.iter().flat_map(|rows| &rows.viewers)) {
        Sql::new("INSERT INTO interaction_viewers (interaction_id, login) VALUES ")
            .rows(piece)
            .and(" ON CONFLICT (interaction_id, login) DO NOTHING")
            .run(tx)
            .await?;
    }
    Ok(())
}

/// Takes as many offsets of each channel as it has events, and gives the last
/// one before them; the rows stay locked until the end.
async fn take_offsets(
    tx: &mut AnyConnection,
    counts: &BTreeMap<Channel, u64>,
) -> Result<BTreeMap<Channel, u64>, StoreError> {
    let mut sql = Sql::new("UPDATE heads SET last = last + CASE channel");
    for (channel, count) in counts {
        sql = sql.and(&format!(" WHEN '{channel}' THEN ")).arg(*count);
    }
    let rows = sql
        .and(" ELSE 0 END WHERE channel IN ")
        .any_of(counts.keys().map(|channel| channel.as_str()))
        .and(" RETURNING channel, last")
        .all(tx)
        .await?;
    let mut before = BTreeMap::new();
    for row in &rows {
        let channel: Channel = row.parsed("channel")?;
        let count = counts.get(&channel).copied().unwrap_or(0);
        before.insert(channel, row.count("last")?.saturating_sub(count));
    }
    match counts.keys().find(|channel| !before.contains_key(channel)) {
        Some(channel) => Err(StoreError::Broken(format!("the head of {channel} is gone"))),
        None => Ok(before),
    }
}

async fn events(tx: &mut AnyConnection, all: &[&Rows]) -> Result<Vec<Vec<u64>>, StoreError> {
    let mut counts: BTreeMap<Channel, u64> = BTreeMap::new();
    for (channel, _) in all.iter().flat_map(|rows| &rows.events) {
        *counts.entry(*channel).or_default() += 1;
    }
    if counts.is_empty() {
        return Ok(vec![Vec::new(); all.len()]);
    }
    let mut last = take_offsets(tx, &counts).await?;
    let mut journal: Vec<[Arg; 12]> = Vec::new();
    let mut offsets = Vec::with_capacity(all.len());
    for rows in all {
        let mut own = Vec::with_capacity(rows.events.len());
        for (channel, row) in &rows.events {
            let last = last.entry(*channel).or_default();
            *last += 1;
            own.push(*last);
            let mut row = row.clone();
            row[1] = (*last).into();
            journal.push(row);
        }
        offsets.push(own);
    }
    for piece in pieces(journal.iter()) {
        Sql::new(
            "INSERT INTO journal (channel, pos, id, kind, cause, part, interaction_id, \
             version, distribution, body, at, by_agent) VALUES ",
        )
        .rows(piece)
        .run(tx)
        .await?;
    }
    Ok(offsets)
}
