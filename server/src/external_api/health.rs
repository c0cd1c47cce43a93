//! Whether it lives, and whether it can do its work.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Api;
use crate::readiness::{Readiness, readiness};

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
    let broker = api.broker.state().borrow().clone();
    let heard = api.heard.as_ref().is_none_or(|heard| *heard.borrow());
    readiness(api.store.as_ref(), &broker, heard).await.into_response()
}
