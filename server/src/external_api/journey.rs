//! `GET /external/events/{id}`: where an event has got to.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use domain::EventId;
use protocol::{Journey, JourneyStage, Outcome, Stage};
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::Api;
use crate::problem::Refused;
use crate::receipts::Watch;
use crate::store::Receipt;

/// How long to wait where `timeout_ms` doesn't say; and the longest wait.
const WAIT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));
/// The store is asked this often at first, then less and less often.
const POLL: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(500));
/// Reads of one journey while receipts move into the store.
const READS_MAX: u32 = 3;

#[derive(Debug, Default, Deserialize)]
struct WaitQuery {
    wait: Option<String>,
    timeout_ms: Option<String>,
}

#[utoipa::path(get, path = "/external/events/{id}", tag = "events",
    params(("id" = String, Path, format = "uuid", description = "The event's id"),
        super::openapi::WaitParams),
    responses(super::openapi::Journeys), security(("key" = [])))]
/// Tells an event's journey; with `wait`, when it has got that far or the time is up.
pub(super) async fn journey(State(api): State<Api>, uri: Uri, headers: HeaderMap) -> Response {
    match answer(&api, &uri, &headers).await {
        Ok(journey) => ([(header::CACHE_CONTROL, "no-store")], Json(journey)).into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn answer(api: &Api, uri: &Uri, headers: &HeaderMap) -> Result<Journey, Refused> {
    let reader = api.keys.integration(headers).await?.name.clone();
    let wait = wait(uri)?;
    let unknown = || Refused::new(StatusCode::NOT_FOUND, "no such event");
    let id = uri.path().rsplit('/').next().unwrap_or_default();
    let id = Uuid::parse_str(id).map_err(|_| unknown())?;
    let found = match wait {
        None => read(api, id, &reader).await?,
        Some((stage, time)) => reach(api, id, &reader, stage, time).await?,
    };
    found.ok_or_else(unknown)
}

/// Which stage to wait for and how long, if at all.
fn wait(uri: &Uri) -> Result<Option<(Stage, Duration)>, Refused> {
    let Query(query): Query<WaitQuery> =
        Query::try_from_uri(uri).map_err(|error| Refused::bad(error.body_text()))?;
    let time = match query.timeout_ms {
        None => WAIT.0,
        Some(text) => {
            let ms = text
                .parse()
                .map_err(|_| Refused::bad("timeout_ms must be a whole number of milliseconds"))?;
            Duration::from_millis(ms).min(WAIT.1)
        }
    };
    let Some(word) = query.wait else { return Ok(None) };
    let stage = Stage::ALL.iter().find(|stage| stage.as_str() == word);
    stage.map(|stage| Some((*stage, time))).ok_or_else(|| {
        let words: Vec<_> = Stage::ALL.iter().map(|stage| stage.as_str()).collect();
        Refused::bad(format!("wait must be one of {}", words.join(", ")))
    })
}

/// Waits until the journey has reached `stage` or never will, or for `time`.
async fn reach(
    api: &Api,
    id: Uuid,
    reader: &str,
    stage: Stage,
    time: Duration,
) -> Result<Option<Journey>, Refused> {
    let Ok(_place) = api.waiters.try_acquire() else {
        return Err(Refused::too_many("too many wait at once", Duration::from_secs(1)));
    };
    let deadline = Instant::now() + time;
    let watch = api.receipts.watch(id);
    let mut poll = POLL.0;
    loop {
        let found = read(api, id, reader).await?;
        let over = Instant::now() >= deadline || api.stopping.is_cancelled();
        if over || found.as_ref().is_some_and(|journey| settled(journey, stage)) {
            return Ok(found);
        }
        tokio::select! {
            () = noted(api, &watch, id, stage), if found.is_some() => {}
            () = sleep(poll) => poll = (poll * 2).min(POLL.1),
            () = sleep_until(deadline) => {}
            () = api.stopping.cancelled() => {}
        }
    }
}

fn settled(journey: &Journey, stage: Stage) -> bool {
    // What was refused goes no further.
    journey.status >= stage || matches!(journey.outcome, Some(Outcome::Error(_)))
}

/// Ends when a receipt of this process says so; the store is not asked.
async fn noted(api: &Api, watch: &Watch, id: Uuid, stage: Stage) {
    loop {
        let changed = watch.changed();
        if api.receipts.pending(id).iter().any(|receipt| receipt.stage >= stage) {
            return;
        }
        changed.await;
    }
}

/// What the store has, and what is on its way there; none if another
/// integration sent it. What agents gave was sent by none.
async fn read(api: &Api, id: Uuid, reader: &str) -> Result<Option<Journey>, Refused> {
    let down = |error| {
        tracing::warn!(%error, "journey not read");
        Refused::store_down()
    };
    let mut reads = 0;
    loop {
        let before = api.receipts.written();
        let (stored, sender) = api.store.journey(id).await.map_err(down)?.unzip();
        let sender = sender.flatten();
        let pending = api.receipts.pending(id);
        reads += 1;
        // What moved in between may be in neither of the two.
        if api.receipts.written() == before || reads == READS_MAX {
            let sent = pending.iter().filter_map(|one| one.integration.as_ref()).chain(&sender);
            let others = sent.into_iter().any(|sender| !sender.is_empty() && sender != reader);
            return Ok(if others { None } else { merge(id, stored, &pending) });
        }
    }
}

fn merge(id: Uuid, stored: Option<Journey>, pending: &[Receipt]) -> Option<Journey> {
    if stored.is_none() && pending.is_empty() {
        return None;
    }
    let mut journey = stored.unwrap_or_else(|| Journey {
        id: EventId(id),
        status: Stage::Accepted,
        stages: Vec::new(),
        outcome: None,
        events: Vec::new(),
    });
    for receipt in pending {
        let known = journey.stages.iter().position(|one| one.stage == receipt.stage);
        let place = known.unwrap_or_else(|| {
            journey.stages.push(JourneyStage {
                stage: receipt.stage,
                at: receipt.at,
                count: None,
                agents: std::collections::BTreeMap::new(),
            });
            journey.stages.len() - 1
        });
        let stage = &mut journey.stages[place];
        stage.at = stage.at.min(receipt.at);
        if receipt.count > 0 {
            stage.count = Some(stage.count.unwrap_or(0).saturating_add(receipt.count));
        }
        if let Some(agent) = &receipt.agent {
            let at = stage.agents.entry(agent.clone()).or_insert(receipt.at);
            *at = receipt.at.min(*at);
        }
    }
    journey.stages.sort_by_key(|one| one.stage);
    journey.status =
        journey.stages.last().map_or(journey.status, |one| one.stage.max(journey.status));
    Some(journey)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;

    fn receipt(stage: Stage, ms: i64, agent: Option<&str>, count: u64) -> Receipt {
        Receipt {
            cause: Uuid::from_u128(1),
            stage,
            at: Timestamp::from_millis(ms),
            integration: None,
            agent: agent.map(|login| login.parse().expect("a login")),
            count,
        }
    }

    #[test]
    fn what_is_on_its_way_counts_as_reached() {
        let id = Uuid::from_u128(1);
        assert_eq!(merge(id, None, &[]), None);
        let pending = [receipt(Stage::Brokered, 2, None, 0), receipt(Stage::Accepted, 1, None, 0)];
        let stored = merge(id, None, &pending).expect("known");
        assert_eq!(stored.status, Stage::Brokered);
        assert_eq!(stored.stages[0].stage, Stage::Accepted);
        let pending = [
            receipt(Stage::Sent, 5, Some("ana"), 1),
            receipt(Stage::Sent, 4, Some("ben"), 1),
            receipt(Stage::Accepted, 0, None, 0),
        ];
        let merged = merge(id, Some(stored), &pending).expect("known");
        assert_eq!(merged.status, Stage::Sent);
        assert_eq!(merged.stages[0].at, Timestamp::from_millis(0));
        let sent = &merged.stages[2];
        assert_eq!((sent.at, sent.count), (Timestamp::from_millis(4), Some(2)));
        assert_eq!(sent.agents.len(), 2);
    }

    #[test]
    fn waits_are_read_and_bounded() {
        let wait = |query: &str| wait(&format!("/?{query}").parse().expect("a uri"));
        assert_eq!(wait("").expect("good"), None);
        assert_eq!(wait("wait=sent").expect("good"), Some((Stage::Sent, WAIT.0)));
        let long = wait("timeout_ms=99999999&wait=acted").expect("good");
        assert_eq!(long, Some((Stage::Acted, WAIT.1)));
        for bad in
            ["wait=soon", "wait=", "timeout_ms=-1", "wait=sent&timeout_ms=x", "wait=a&wait=b"]
        {
            assert!(wait(bad).is_err(), "{bad}");
        }
    }
}
