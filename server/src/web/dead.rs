//! `/api/v1/dead`: dead letters, for admins by their session or token, and
//! for the command line by a socket in the service's own folder.

use std::collections::HashMap;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use domain::{Channel, Role};
use protocol::DeadLetterView;

use super::Web;
use super::api::only;
use crate::dead_letters::{DeadLetterError, DeadLetters, Deed, LIST_MAX};
use crate::problem::Refused;

/// In whose name something is done.
#[derive(Clone)]
struct Actor(String);

/// Named so in the record.
const COMMAND_LINE: &str = "command line";

/// For signed-in admins.
pub(super) fn router(web: &Web) -> Router<Web> {
    routes()
        .route_layer(middleware::from_fn_with_state(web.clone(), admins_only))
        .with_state(web.state.dead_letters.clone())
}

/// For whoever may open the socket that this is served on: the folder's owner.
pub fn control_router(dead_letters: DeadLetters) -> Router {
    routes().layer(Extension(Actor(COMMAND_LINE.to_owned()))).with_state(dead_letters)
}

fn routes() -> Router<DeadLetters> {
    Router::new()
        .route("/api/v1/dead", only("GET, HEAD", get(list)))
        .route("/api/v1/dead/{id}", only("GET, HEAD, DELETE", get(show).delete(drop_one)))
        .route("/api/v1/dead/{id}/replay", only("POST", post(replay)))
}

async fn admins_only(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    match web.caller(request.headers()).await {
        Ok(caller) if caller.role == Role::Admin => {
            request.extensions_mut().insert(Actor(caller.login.to_string()));
            next.run(request).await
        }
        Ok(_) => {
            Refused::new(StatusCode::FORBIDDEN, "only admins see to dead letters").into_response()
        }
        Err(refused) => refused.into_response(),
    }
}

fn refused(error: DeadLetterError) -> Refused {
    match error {
        DeadLetterError::Unknown => Refused::new(StatusCode::NOT_FOUND, error.to_string()),
        DeadLetterError::Broker(error) => {
            tracing::warn!(%error, "dead letters not reached");
            Refused::broker(&error)
        }
        DeadLetterError::Store(error) => {
            tracing::warn!(%error, "store not written");
            Refused::store_down()
        }
    }
}

async fn list(
    State(letters): State<DeadLetters>,
    Query(given): Query<HashMap<String, String>>,
) -> Result<Response, Refused> {
    let value = |name: &str| given.get(name).filter(|value| !value.is_empty());
    let channel = value("channel")
        .map(|text| text.parse::<Channel>())
        .transpose()
        .map_err(|error| Refused::bad(format!("channel {error}")))?;
    let limit = match value("limit") {
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIST_MAX).contains(limit))
            .ok_or_else(|| Refused::bad(format!("limit must be 1 to {LIST_MAX}")))?,
        None => LIST_MAX,
    };
    Ok(Json(letters.list(channel, limit).await.map_err(refused)?).into_response())
}

async fn show(
    State(letters): State<DeadLetters>,
    Path(id): Path<String>,
) -> Result<Json<DeadLetterView>, Refused> {
    letters.show(&id).await.map(Json).map_err(refused)
}

async fn replay(
    State(letters): State<DeadLetters>,
    Extension(Actor(who)): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<Json<DeadLetterView>, Refused> {
    letters.settle(&id, Deed::Replay, &who).await.map(Json).map_err(refused)
}

async fn drop_one(
    State(letters): State<DeadLetters>,
    Extension(Actor(who)): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<Json<DeadLetterView>, Refused> {
    letters.settle(&id, Deed::Drop, &who).await.map(Json).map_err(refused)
}
