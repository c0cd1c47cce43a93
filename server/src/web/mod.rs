//! The pages, their server functions, the snapshot API, and the assets.

mod api;
mod assets;
mod dead;
mod desk;
mod pages;
mod session;
mod throttle;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use crate::broker::BrokerState;
use crate::clock::Clock;
use crate::dead_letters::DeadLetters;
use crate::members::Members;
use crate::problem::Refused;
use crate::readiness::readiness;
use crate::store::Store;
use throttle::Throttle;

pub use dead::control_router;

/// The largest body of a form or server function, in bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How pages are served.
#[derive(Clone, Debug)]
pub struct Config {
    /// What people type to reach it; with `https` the session cookie is `Secure`.
    pub public_url: Option<String>,
    /// How long a session lasts. Default 12 h.
    pub session: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { public_url: None, session: Duration::from_secs(12 * 3_600) }
    }
}

/// What pages are made of. Clones share it.
#[derive(Clone)]
pub struct State {
    /// Where agents, sessions and interactions are.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Clock,
    /// Whether this member is heard, and what the loss auditor says.
    pub members: Members,
    /// WebSocket addresses of live aggregators, least loaded first.
    pub aggregators: watch::Receiver<Vec<String>>,
    /// Whether the broker is up, where this process has one.
    pub broker_state: Option<watch::Receiver<BrokerState>>,
    /// What nobody could do.
    pub dead_letters: DeadLetters,
    /// How pages are served.
    pub config: Config,
}

/// What the handlers share.
#[derive(Clone)]
struct Web {
    state: State,
    throttle: Arc<Throttle>,
}

/// Pages, server functions, API and assets.
pub fn router(state: State) -> Router {
    let web = Web { state, throttle: Arc::default() };
    let mut router = Router::new()
        .merge(api::router())
        .merge(dead::router(&web))
        .route("/api/desk/{*function}", any(pages::function))
        .route("/api/{*rest}", any(api::unknown))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz));
    for path in pages::paths() {
        router = router.route(&path, get(pages::page));
    }
    router
        .fallback(assets::asset_or_lost)
        .layer(middleware::from_fn_with_state(web.clone(), guard))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(|_| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Refused::new(status, "a fault in the server").into_response()
        }))
        .with_state(web)
}

async fn readyz(axum::extract::State(web): axum::extract::State<Web>) -> Response {
    let state = &web.state;
    let broker = state.broker_state.as_ref().map_or(BrokerState::Up, |it| it.borrow().clone());
    let heard = *state.members.heard().borrow();
    readiness(state.store.as_ref(), &broker, heard).await.into_response()
}

/// Refuses what another site's page makes a browser send, and says on each
/// answer what a browser may do with it.
async fn guard(
    axum::extract::State(web): axum::extract::State<Web>,
    request: Request,
    next: Next,
) -> Response {
    let unsafe_method = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let dynamic = !request.uri().path().contains('.');
    if unsafe_method && foreign(&request, web.state.config.public_url.as_deref()) {
        return Refused::new(StatusCode::FORBIDDEN, "the request comes from another site")
            .into_response();
    }
    let answered = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    let mut answer = answered.unwrap_or_else(|_| Refused::store_down().into_response());
    let headers = answer.headers_mut();
    let mut say = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::REFERRER_POLICY, "same-origin");
    say(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    say(
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    );
    if dynamic {
        say(header::CACHE_CONTROL, "no-store");
    }
    answer
}

/// A browser says where a request comes from; a program doesn't, and has no
/// cookie that somebody else could use.
fn foreign(request: &Request, public_url: Option<&str>) -> bool {
    let value = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    match (value("sec-fetch-site"), value("origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, None) => false,
        (None, Some(origin)) => {
            let host = value("host").unwrap_or_default();
            let own = origin == format!("http://{host}") || origin == format!("https://{host}");
            !own && Some(origin) != public_url.map(|url| url.trim_end_matches('/'))
        }
    }
}
