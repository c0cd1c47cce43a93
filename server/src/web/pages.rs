//! Pages rendered on the server, and the server functions behind them.

use std::net::SocketAddr;
use std::sync::Arc;

use app::desk::Desk;
use app::{App, shell};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use leptos::config::LeptosOptions;
use leptos::nonce::use_nonce;
use leptos::prelude::{provide_context, use_context};
use leptos_axum::ResponseOptions;

use super::Web;
use super::assets;
use super::desk::RequestDesk;

/// Every page's path, as the router has them.
pub(super) fn paths() -> Vec<String> {
    let mut paths: Vec<_> =
        leptos_axum::generate_route_list(App).iter().map(|route| route.path().to_owned()).collect();
    paths.sort();
    paths.dedup();
    paths
}

fn address(request: &Request) -> String {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or_else(String::new, |peer| peer.0.ip().to_string())
}

/// Gives the request's desk to whatever renders or answers it.
fn provide_desk(web: Web, request: &Request) -> impl Fn() + Clone + Send + Sync + 'static {
    let (headers, address) = (request.headers().clone(), address(request));
    move || {
        let answer = use_context::<ResponseOptions>().unwrap_or_default();
        let desk = RequestDesk::new(web.clone(), &headers, address.clone(), answer);
        provide_context::<Arc<dyn Desk>>(Arc::new(desk));
    }
}

/// A server function.
pub(super) async fn function(State(web): State<Web>, request: Request) -> Response {
    let context = provide_desk(web, &request);
    leptos_axum::handle_server_fns_with_context(context, request).await.into_response()
}

/// A page.
pub(super) async fn page(State(web): State<Web>, request: Request) -> Response {
    if !assets::is_built() {
        let text = "The front end isn't built: run `cargo xtask front`.\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let context = provide_desk(web, &request);
    let options = LeptosOptions::builder().output_name("warren").build();
    let render = leptos_axum::render_app_async_with_context(context, move || {
        let nonce = use_nonce().map(|nonce| nonce.to_string()).unwrap_or_default();
        if let (Some(answer), Ok(policy)) =
            (use_context::<ResponseOptions>(), HeaderValue::from_str(&policy(&nonce)))
        {
            answer.insert_header(header::CONTENT_SECURITY_POLICY, policy);
        }
        shell(options.clone(), assets::head(&nonce))
    });
    render(request).await
}

/// A page that there is none of.
pub(super) async fn lost(web: Web, request: Request<Body>) -> Response {
    let mut answer = page(State(web), request).await;
    if answer.status() == StatusCode::OK {
        *answer.status_mut() = StatusCode::NOT_FOUND;
    }
    answer
}

/// Scripts by nonce alone; sockets anywhere, because any aggregator of the
/// cluster may be the next one.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic' 'wasm-unsafe-eval'; \
         style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; font-src 'self'; \
         connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'; manifest-src 'self'"
    )
}
