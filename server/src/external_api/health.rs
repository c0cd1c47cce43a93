//! Whether it lives, and whether it can do its work.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::timeout;

use super::Api;
use crate::broker::BrokerState;

/// How long the store may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// What the work needs: `up`, `blocked` or `down` each.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Readiness {
    /// True if both are up.
    ready: bool,
    /// The broker.
    broker: &'static str,
    /// The store.
    store: &'static str,
}

#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It serves", body = String, content_type = "text/plain")))]
/// Answers as long as it serves.
pub(super) async fn healthz() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "ok\n").into_response()
}

#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "Events are accepted", body = Readiness),
    (status = 503, description = "What is down", body = Readiness)))]
/// Answers whether broker and store do their work.
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let store = match timeout(PING_TIMEOUT, api.store.ping()).await {
        Ok(Ok(())) => "up",
        Ok(Err(_)) | Err(_) => "down",
    };
    let broker = match &*api.broker.state().borrow() {
        BrokerState::Up => "up",
        BrokerState::Blocked(_) => "blocked",
        BrokerState::Down(_) => "down",
    };
    let ready = store == "up" && broker == "up";
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, broker, store })).into_response()
}
