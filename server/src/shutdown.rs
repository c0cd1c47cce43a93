//! Stopping: one token, one tracker, one deadline. A second signal quits.

use std::future::ready;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the work in hand may take after the signal, unless configured.
pub const GRACE: Duration = Duration::from_secs(20);

/// Tells every room to stop and waits until it has. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Shutdown {
    /// Cancelled when the stop begins.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs a task that the stop waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Begins the stop.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Waits for SIGTERM or SIGINT, or until somebody begins the stop.
    pub async fn requested(&self) {
        let (terminate, interrupt) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
            tracing::error!("signals can't be heard");
            return self.token.cancelled().await;
        };
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping on sigterm"),
            _ = interrupt.recv() => tracing::info!("stopping on sigint"),
            () = self.token.cancelled() => {}
        }
    }

    /// Begins the stop and waits for every task, at most `grace`, less on a
    /// second signal. False if something was left undone.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.begin();
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => true,
            () = tokio::time::sleep(grace) => false,
            () = second_signal() => false,
        }
    }
}

/// From the stop on, answers ask their callers to come by another connection.
/// One that is closed while a request is on its way to it looks like a failure.
pub fn farewell(router: Router, stop: CancellationToken) -> Router {
    router.layer(map_response(move |mut response: Response| {
        if stop.is_cancelled() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        ready(response)
    }))
}

/// Waits for one more SIGTERM or SIGINT.
pub async fn second_signal() {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    if let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    } else {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use axum::routing::get;
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn answers_say_goodbye_from_the_stop_on() {
        let stop = CancellationToken::new();
        let router = farewell(Router::new().route("/", get(|| ready("here"))), stop.clone());
        let ask = async || {
            let answer = router.clone().oneshot(Request::new(Body::empty())).await;
            answer.expect("an answer").headers().get(header::CONNECTION).cloned()
        };
        assert_eq!(ask().await, None);
        stop.cancel();
        assert_eq!(ask().await, Some(HeaderValue::from_static("close")));
    }
}
