//! The socket in the data folder by which the command line reaches a running
//! service: whoever may open it, may use it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where it is.
pub(crate) fn path(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// Serves `router` there. A service that can't (its folder's path may be too
/// long for a socket) does without.
pub(crate) fn serve(tracker: &TaskTracker, data: &Path, router: Router, stop: CancellationToken) {
    let listener = match bind(data) {
        Ok(listener) => listener,
        Err(error) => {
            return tracing::warn!(%error, path = %path(data).display(), "no control socket");
        }
    };
    let path = path(data);
    tracker.spawn(async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = server.await {
            tracing::error!(%error, "control socket failed");
        }
        let _ = std::fs::remove_file(path);
    });
}

/// Under another name first, so that nobody else can open it in between.
fn bind(data: &Path) -> std::io::Result<UnixListener> {
    let draft = data.join("control.tmp");
    if let Err(error) = std::fs::remove_file(&draft)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&draft)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))?;
    // What a killed process left there is replaced.
    std::fs::rename(draft, path(data))?;
    Ok(listener)
}

/// Why there is no answer.
pub(crate) type AskError = Box<dyn std::error::Error + Send + Sync>;

/// A line to the running service; none if none runs on this folder.
pub(crate) async fn connect(data: &Path) -> Option<UnixStream> {
    UnixStream::connect(path(data)).await.ok()
}

/// One request over a fresh line.
pub(crate) async fn ask(
    line: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    method: Method,
    path: &str,
) -> Result<(StatusCode, Bytes), AskError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(line)).await?;
    tokio::spawn(connection);
    let request =
        Request::builder().method(method).uri(path).header("host", host).body(Body::empty())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX).await?;
    Ok((status, body))
}
