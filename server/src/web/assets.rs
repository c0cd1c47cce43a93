//! What Trunk has built: scripts, styles, WebAssembly, and the head of a page.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::Web;
use super::pages;

/// In a release the files are part of the program; in a debug build they are
/// read from the folder.
#[derive(RustEmbed)]
#[folder = "../dist"]
#[allow_missing = true]
struct Dist;

/// What Trunk leaves for each answer's own nonce.
const NONCE: &str = "{{__TRUNK_NONCE__}}";
const INDEX: &str = "index.html";

pub(super) fn is_built() -> bool {
    Dist::get(INDEX).is_some()
}

/// The links and scripts of the built page, for this answer.
pub(super) fn head(nonce: &str) -> String {
    let Some(index) = Dist::get(INDEX) else { return String::new() };
    let html = String::from_utf8_lossy(&index.data);
    let head = html.split_once("<head>").and_then(|(_, rest)| rest.split_once("</head>"));
    head.map_or_else(String::new, |(head, _)| head.replace(NONCE, nonce))
}

/// A built file; else a page that says there is none.
pub(super) async fn asset_or_lost(State(web): State<Web>, request: Request<Body>) -> Response {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let compressed = path.ends_with(".br") || path.ends_with(".gz");
    match Dist::get(&path) {
        Some(file) if get && path != INDEX && !compressed => serve(&path, file, request.headers()),
        _ if !get => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        _ if path.contains('.') => (StatusCode::NOT_FOUND, "no such file\n").into_response(),
        _ => pages::lost(web, request).await,
    }
}

fn serve(path: &str, file: EmbeddedFile, headers: &HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let accepted = text(header::ACCEPT_ENCODING).unwrap_or_default();
    let accepts = |coding: &str| {
        accepted.split(',').any(|one| {
            let mut parts = one.split(';').map(str::trim);
            parts.next() == Some(coding) && parts.next() != Some("q=0")
        })
    };
    let etag: String =
        file.metadata.sha256_hash().iter().take(16).map(|b| format!("{b:02x}")).collect();
    let (file, coding) = [("br", "br"), ("gz", "gzip")]
        .into_iter()
        .filter(|(_, coding)| accepts(coding))
        .find_map(|(ending, coding)| Some((Dist::get(&format!("{path}.{ending}"))?, Some(coding))))
        .unwrap_or((file, None));
    let etag = format!("\"{etag}{}\"", coding.map(|one| format!("-{one}")).unwrap_or_default());
    let unchanged = text(header::IF_NONE_MATCH)
        .is_some_and(|known| known.split(',').any(|one| one.trim() == etag || one.trim() == "*"));
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let mut answer = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(file.data.into_owned()).into_response()
    };
    let mut say = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(name, value);
        }
    };
    say(header::CONTENT_TYPE, kind.as_ref());
    say(header::ETAG, &etag);
    say(header::VARY, "accept-encoding");
    // Trunk puts a hash into each name: a file never changes under it.
    say(header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    if let Some(coding) = coding.filter(|_| !unchanged) {
        say(header::CONTENT_ENCODING, coding);
    }
    answer
}
