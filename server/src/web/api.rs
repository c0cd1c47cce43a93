//! `/api/v1`: snapshots for whoever follows the WebSocket.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use domain::{Channel, InteractionId};
use protocol::{Me, Principal, View};

use super::Web;
use super::session;
use crate::problem::Refused;
use crate::store::{ListQuery, StoreError};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;
const READ: &str = "GET, HEAD";
const VIEWS: &str = "mine, unassigned, open, closed, all";

pub(super) fn router() -> Router<Web> {
    Router::new()
        .route("/api/v1/interactions", only(READ, get(interactions)))
        .route("/api/v1/interactions/{id}", only(READ, get(interaction)))
        .route("/api/v1/agents", only(READ, get(agents)))
        .route("/api/v1/me", only(READ, get(me)))
}

/// Refuses all other methods by naming these.
pub(super) fn only<S>(methods: &'static str, route: MethodRouter<S>) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    route.fallback(move || async move {
        let refused = Refused::new(StatusCode::METHOD_NOT_ALLOWED, format!("only {methods}"));
        let mut refused = refused.into_response();
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(methods));
        refused
    })
}

pub(super) async fn unknown() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "there is nothing here")
}

fn unavailable(error: StoreError) -> Refused {
    tracing::warn!(%error, "store not read");
    Refused::store_down()
}

impl Web {
    pub(super) async fn caller(&self, headers: &HeaderMap) -> Result<Principal, Refused> {
        let found = self.principal(session::secret(headers).as_deref()).await?;
        found.ok_or_else(|| Refused::unauthenticated("no valid session or token"))
    }
}

async fn interactions(
    State(web): State<Web>,
    headers: HeaderMap,
    Query(given): Query<HashMap<String, String>>,
) -> Result<Response, Refused> {
    let viewer = web.caller(&headers).await?.login;
    let value = |name: &str| given.get(name).filter(|value| !value.is_empty());
    let channel = match value("channel") {
        Some(text) => Some(
            text.parse::<Channel>().map_err(|error| Refused::bad(format!("channel {error}")))?,
        ),
        None => None,
    };
    let view = match value("view") {
        Some(text) => serde_json::from_value::<View>(serde_json::Value::String(text.clone()))
            .map_err(|_| Refused::bad(format!("view must be one of {VIEWS}")))?,
        None => View::default(),
    };
    let limit = match value("limit") {
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| Refused::bad(format!("limit must be 1 to {LIMIT_MAX}")))?,
        None => LIMIT_DEFAULT,
    };
    let cursor = match value("cursor") {
        Some(text) => Some(text.parse().map_err(|error| Refused::bad(format!("cursor {error}")))?),
        None => None,
    };
    let query = ListQuery { viewer, channel, view, queue: value("queue").cloned(), cursor, limit };
    Ok(Json(web.state.store.interactions(&query).await.map_err(unavailable)?).into_response())
}

async fn interaction(
    State(web): State<Web>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let viewer = web.caller(&headers).await?.login;
    let missing = || Refused::new(StatusCode::NOT_FOUND, "there is no such interaction");
    let id: InteractionId = id.parse().map_err(|_| missing())?;
    let found = web.state.store.interaction(id, &viewer).await.map_err(unavailable)?;
    Ok(Json(found.ok_or_else(missing)?).into_response())
}

async fn agents(State(web): State<Web>, headers: HeaderMap) -> Result<Response, Refused> {
    web.caller(&headers).await?;
    Ok(Json(web.state.store.agents().await.map_err(unavailable)?).into_response())
}

async fn me(State(web): State<Web>, headers: HeaderMap) -> Result<Response, Refused> {
    let principal = web.caller(&headers).await?;
    let aggregators = web.state.aggregators.borrow().clone();
    Ok(Json(Me { principal, aggregators }).into_response())
}
