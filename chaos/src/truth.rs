//! What the desk has: its journal, read from the store behind the back of
//! everything that is under test.

use std::collections::BTreeMap;
use std::io;

use sqlx::any::install_default_drivers;
use sqlx::{AnyConnection, Connection, Row};
use uuid::Uuid;

/// An event, as much of it as the checker wants.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) cause: Uuid,
    pub(crate) kind: String,
    /// Its interaction and the version that it brings about.
    pub(crate) version: Option<(String, u64)>,
    /// As long as its body is.
    pub(crate) bytes: u64,
}

/// Every event there is, by channel and offset.
pub(crate) type Truth = BTreeMap<String, BTreeMap<u64, Event>>;

/// Reads the journal of the store at `url`.
pub(crate) async fn read(url: &str) -> io::Result<Truth> {
    install_default_drivers();
    let mut store = AnyConnection::connect(url).await.map_err(io::Error::other)?;
    let all = "SELECT channel, pos, id, cause, kind, interaction_id, version, LENGTH(body) AS bytes \
               FROM journal";
    let rows = sqlx::query(all).fetch_all(&mut store).await.map_err(io::Error::other)?;
    let mut truth = Truth::new();
    for row in rows {
        let text = |name: &str| row.try_get::<String, _>(name).map_err(io::Error::other);
        let number = |name: &str| row.try_get::<i64, _>(name).map_err(io::Error::other);
        let interaction = row.try_get::<Option<String>, _>("interaction_id");
        let version = match interaction.map_err(io::Error::other)? {
            Some(interaction) => Some((interaction, number("version")?.unsigned_abs())),
            None => None,
        };
        let event = Event {
            id: text("id")?.parse().map_err(io::Error::other)?,
            cause: text("cause")?.parse().map_err(io::Error::other)?,
            kind: text("kind")?,
            version,
            bytes: number("bytes")?.unsigned_abs(),
        };
        truth.entry(text("channel")?).or_default().insert(number("pos")?.unsigned_abs(), event);
    }
    Ok(truth)
}

/// What waits in the embedded broker's queues, in its file at `url`.
pub(crate) async fn left(url: &str) -> io::Result<Vec<String>> {
    install_default_drivers();
    let mut file = AnyConnection::connect(url).await.map_err(io::Error::other)?;
    let all = "SELECT channel, part, COUNT(*) AS messages FROM inbound GROUP BY channel, part";
    let rows = sqlx::query(all).fetch_all(&mut file).await.map_err(io::Error::other)?;
    let left = rows.iter().map(|row| {
        let channel: String = row.try_get("channel")?;
        let (part, messages): (i64, i64) = (row.try_get("part")?, row.try_get("messages")?);
        Ok(format!("{channel}.{part}: {messages}"))
    });
    left.collect::<Result<_, sqlx::Error>>().map_err(io::Error::other)
}
