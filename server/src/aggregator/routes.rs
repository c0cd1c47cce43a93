//! Where clients knock: `/ws` for all channels, `/ws/CHANNEL` for one.

use std::collections::HashMap;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use domain::Channel;
use protocol::{CLIENT_FRAME_BYTES_MAX, SUBPROTOCOL};

use super::Aggregator;
use super::connection::serve;
use super::opening::{Opening, Origin};
use crate::auth;
use crate::readiness::{Readiness, readiness};

/// The transport's own limit; a frame between ours and this one gets its
/// close code, a larger one is cut off.
const TRANSPORT_BYTES_MAX: usize = 16 * CLIENT_FRAME_BYTES_MAX;

/// `/ws`, and a channel each under `/ws/`: beside a web listener's pages.
pub fn web_router(aggregator: Aggregator) -> Router {
    let mut router = Router::new().route("/ws", get(all));
    for channel in Channel::ALL {
        router = router.route(&format!("/ws/{channel}"), one(*channel));
    }
    router.with_state(aggregator)
}

/// The port of one channel: `/` and `/ws`, and every channel at `/ws/all`.
pub fn channel_router(aggregator: Aggregator, channel: Channel) -> Router {
    Router::new()
        .route("/", one(channel))
        .route("/ws", one(channel))
        .route(&format!("/ws/{channel}"), one(channel))
        .route("/ws/all", get(all))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(aggregator)
}

async fn readyz(State(aggregator): State<Aggregator>) -> Readiness {
    let broker = aggregator.broker.state().borrow().clone();
    let heard = *aggregator.members.heard().borrow();
    readiness(aggregator.store.as_ref(), &broker, heard).await
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

fn one(channel: Channel) -> axum::routing::MethodRouter<Aggregator> {
    get(
        move |State(aggregator): State<Aggregator>, headers: HeaderMap, upgrade: Upgrade| async move {
            accept(aggregator, vec![channel], &headers, upgrade)
        },
    )
}

async fn all(
    State(aggregator): State<Aggregator>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    accept(aggregator, Channel::ALL.to_vec(), &headers, upgrade)
}

fn accept(
    aggregator: Aggregator,
    carries: Vec<Channel>,
    headers: &HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    // Taken before the socket is, and given back by dropping.
    let Ok(permit) = aggregator.permits.clone().try_acquire_owned() else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1")],
            "too many clients\n",
        )
            .into_response();
    };
    let value =
        |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    let origin =
        headers.contains_key(header::ORIGIN).then(|| value(header::ORIGIN).unwrap_or_default());
    let listed = origin_allowed(origin, value(header::HOST), &aggregator.config.allowed_origins);
    let pages = aggregator.members.roster().borrow().origins.clone();
    let opening = Opening {
        carries,
        origin: match origin {
            Some(origin) if !listed && !pages.contains(origin) => {
                // Pages that outlived our last process must not be sent away
                // before their server was heard of.
                let early = pages.is_empty() && !aggregator.members.knows_all();
                if early { Origin::Unknown } else { Origin::Foreign }
            }
            _ => Origin::Allowed,
        },
        cookie: value(header::COOKIE).and_then(session_cookie),
    };
    upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(TRANSPORT_BYTES_MAX)
        .max_frame_size(TRANSPORT_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            serve(aggregator, socket, opening).await;
            drop(permit);
        })
}

/// The secret in a `Cookie` header.
fn session_cookie(header: &str) -> Option<String> {
    let cookies: HashMap<&str, &str> =
        header.split(';').filter_map(|pair| pair.trim().split_once('=')).collect();
    cookies.get(auth::SESSION_COOKIE).map(|secret| (*secret).to_owned())
}

/// None is no browser. A browser comes from the host that it asks, from a
/// listed origin (`*` lists them all), or from a member's pages.
fn origin_allowed(origin: Option<&str>, host: Option<&str>, allowed: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    let same = host.is_some_and(|host| {
        origin == format!("http://{host}") || origin == format!("https://{host}")
    });
    same || allowed.iter().any(|one| one == "*" || one.trim_end_matches('/') == origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_the_host_itself_or_listed() {
        let listed = ["https://desk.example.com".to_owned()];
        let allowed = |origin| origin_allowed(origin, Some("127.0.0.1:3000"), &listed);
        assert!(allowed(None));
        assert!(allowed(Some("http://127.0.0.1:3000")));
        assert!(allowed(Some("https://desk.example.com")));
        for foreign in [
            "http://evil.example",
            "null",
            "",
            "http://127.0.0.1:3001",
            "https://desk.example.com.evil",
        ] {
            assert!(!allowed(Some(foreign)), "{foreign}");
        }
    }
}
