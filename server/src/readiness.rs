//! Whether a member can do its work: one answer for every `/readyz`.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::timeout;

use crate::broker::BrokerState;
use crate::store::Store;

/// How long the store may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// What the work needs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Readiness {
    /// True if both are up.
    pub ready: bool,
    /// `up`; `blocked` while it takes nothing new; `down`; or `silent` while it
    /// is connected and this member doesn't hear its own heartbeat.
    pub broker: &'static str,
    /// `up` or `down`.
    pub store: &'static str,
}

/// Asks the store, and adds what is known of the broker.
pub async fn readiness(store: &dyn Store, broker: &BrokerState, heard: bool) -> Readiness {
    let broker = match broker {
        BrokerState::Up if !heard => "silent",
        BrokerState::Up => "up",
        BrokerState::Blocked(_) => "blocked",
        BrokerState::Down(_) => "down",
    };
    let pong = timeout(PING_TIMEOUT, store.ping()).await;
    let store = if matches!(pong, Ok(Ok(()))) { "up" } else { "down" };
    Readiness { ready: store == "up" && broker == "up", broker, store }
}

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        let status = if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(self)).into_response()
    }
}
