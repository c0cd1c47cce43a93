//! The external API: other systems post events, and ask where they have got to.
//!
//! docs/PROTOCOL.md has the contract. An event is answered with 202 only
//! after the broker has confirmed that it holds it durably; everything else
//! is a problem that says whether and when to try again. Keeps no state but
//! caches: any number of them may run.

mod body;
mod cloudevents;
mod decode;
mod events;
mod health;
mod journey;
mod keys;
mod openapi;
mod rate;
mod schemas;
mod signature;
mod wire;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::broker::Broker;
use crate::clock::Clock;
use crate::problem::Refused;
use crate::receipts::Receipts;
use crate::store::Store;
use keys::Keys;
use rate::Rates;

/// Bodies larger than one event that are in hand at once: 4 MiB each.
const LARGE_MAX: usize = 32;

/// Limits and times of the external API.
#[derive(Clone, Debug)]
pub struct Config {
    /// Before `/external/events/…` in `status_url`, without a slash at the
    /// end. Default empty: a relative reference.
    pub public_url: String,
    /// Events a second from one integration. Default 2,000.
    pub events_per_second: u32,
    /// Events in a burst from one integration. Default 4,000.
    pub burst: u32,
    /// Requests of one integration under way at once. Default 512.
    pub in_flight_max: usize,
    /// Requests that wait for a stage of a journey at once. Default 256.
    pub waiters_max: usize,
    /// How long a valid key is known, and a revoked one still works. Default 3 s.
    pub key_ttl: Duration,
    /// How long a body may take to arrive. Default 10 s.
    pub body_timeout: Duration,
    /// How long the broker may take to confirm. Default 20 s.
    pub publish_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: String::new(),
            events_per_second: 2_000,
            burst: 4_000,
            in_flight_max: 512,
            waiters_max: 256,
            key_ttl: Duration::from_secs(3),
            body_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(20),
        }
    }
}

/// An external API. Clones share it.
#[derive(Clone)]
pub struct Api {
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    receipts: Receipts,
    clock: Clock,
    config: Arc<Config>,
    keys: Arc<Keys>,
    rates: Arc<Rates>,
    large: Arc<Semaphore>,
    waiters: Arc<Semaphore>,
    stopping: CancellationToken,
    heard: Option<watch::Receiver<bool>>,
}

impl Api {
    /// An API over these. When `stopping` is cancelled, who waits for a
    /// journey is answered at once.
    #[must_use]
    pub fn new(
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        receipts: Receipts,
        clock: Clock,
        config: Config,
        stopping: CancellationToken,
    ) -> Self {
        let rates = Rates::new(config.events_per_second, config.burst, config.in_flight_max);
        Self {
            keys: Arc::new(Keys::new(store.clone(), config.key_ttl)),
            rates: Arc::new(rates),
            large: Arc::new(Semaphore::new(LARGE_MAX)),
            waiters: Arc::new(Semaphore::new(config.waiters_max)),
            broker,
            store,
            receipts,
            clock,
            config: Arc::new(config),
            stopping,
            heard: None,
        }
    }

    /// Not ready while this says that the member doesn't hear itself.
    #[must_use]
    pub fn hearing(self, heard: watch::Receiver<bool>) -> Self {
        Self { heard: Some(heard), ..self }
    }
}

/// Every route, under the path that `/openapi.json` gives it.
fn routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        ("/external/voice", post(events::voice)),
        ("/external/chat", post(events::chat)),
        ("/external/tickets", post(events::tickets)),
        ("/external/events/{id}", get(journey::journey)),
        ("/openapi.json", get(openapi::openapi)),
        ("/healthz", get(health::healthz)),
        ("/readyz", get(health::readyz)),
    ]
}

/// The routes of docs/PROTOCOL.md, section 1. There is no CORS: callers are servers.
pub fn router(api: Api) -> Router {
    let mut router = Router::new();
    for (path, methods) in routes() {
        router = router.route(path, methods);
    }
    let nosniff = HeaderValue::from_static("nosniff");
    router
        .fallback(|| async { Refused::new(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            Refused::new(StatusCode::METHOD_NOT_ALLOWED, "see the Allow header")
        })
        .layer(SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, nosniff))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(api)
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("request panicked");
    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of ours: try again").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use utoipa::OpenApi as _;

    /// tests/external_api asks each path for each method.
    #[test]
    fn the_document_has_the_routes_paths_and_no_others() {
        let document = openapi::Document::openapi();
        let described: BTreeSet<&str> = document.paths.paths.keys().map(String::as_str).collect();
        let served: BTreeSet<&str> = routes().into_iter().map(|(path, _)| path).collect();
        assert_eq!(described, served);
    }
}
