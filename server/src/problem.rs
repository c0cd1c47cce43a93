//! Everything that is refused, as RFC 9457 `application/problem+json`.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::{FieldError, Problem};

use crate::broker::BrokerError;

/// The media type of problems.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
/// Wrong places named in one problem; more are left out.
const ERRORS_MAX: usize = 100;

/// A refusal on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
    pub(crate) errors: Vec<FieldError>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new(), retry_after: None }
    }

    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(crate) fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    pub(crate) fn too_large(bytes_max: usize, what: &str) -> Self {
        let detail = format!("{what} has at most {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    pub(crate) fn shape(mut errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] if one.pointer.is_empty() => one.detail.clone(),
            [one] => format!("{} {}", one.pointer, one.detail),
            several => format!("{} places in the body are wrong", several.len()),
        };
        errors.truncate(ERRORS_MAX);
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// One wrong place.
    pub(crate) fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::shape(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }

    pub(crate) fn too_many(detail: impl Into<String>, retry_after: Duration) -> Self {
        let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, detail);
        Self { retry_after: Some(retry_after), ..refused }
    }

    pub(crate) fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        let refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        Self { retry_after: Some(retry_after), ..refused }
    }

    /// The store's own words stay in the log.
    pub(crate) fn store_down() -> Self {
        Self::unavailable("store unavailable: try again", Duration::from_secs(2))
    }

    pub(crate) fn broker(error: &BrokerError) -> Self {
        let seconds = match error {
            BrokerError::Down(_) | BrokerError::Gone => 2,
            BrokerError::Blocked(_) | BrokerError::Full(_) => 5,
            BrokerError::Unroutable(_) | BrokerError::Misdeclared(_) | BrokerError::Storage(_) => {
                10
            }
        };
        // Addresses and paths stay in the log.
        let detail = match error {
            BrokerError::Down(_) | BrokerError::Gone => "broker down: not accepted".to_owned(),
            BrokerError::Blocked(_) => {
                "broker blocked: it takes nothing for now, not accepted".to_owned()
            }
            BrokerError::Full(_) | BrokerError::Unroutable(_) => format!("{error}: not accepted"),
            BrokerError::Misdeclared(_) => "broker topology differs: not accepted".to_owned(),
            BrokerError::Storage(_) => "broker storage failed: not accepted".to_owned(),
        };
        Self::unavailable(detail, Duration::from_secs(seconds))
    }

    /// Whole seconds, at least one.
    pub(crate) fn retry_after_secs(&self) -> Option<u64> {
        let wait = self.retry_after?;
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    /// The same, with each place moved below `pointer`.
    pub(crate) fn below(mut self, pointer: &str) -> Self {
        for error in &mut self.errors {
            error.pointer.insert_str(0, pointer);
        }
        if let [one] = self.errors.as_slice() {
            self.detail = format!("{} {}", one.pointer, one.detail);
        }
        self
    }

    pub(crate) fn problem(&self) -> Problem {
        Problem {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Refused").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            errors: self.errors.clone(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (
            self.status,
            [(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON))],
            serde_json::to_vec(&self.problem()).unwrap_or_default(),
        )
            .into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_secs() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"warren\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_status_and_how_long_to_wait() {
        let refused = Refused::broker(&BrokerError::Full("warren.in.voice.0".into()));
        let response = refused.clone().into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(refused.problem().detail, "queue warren.in.voice.0 is full: not accepted");
        assert_eq!(refused.problem().title, "Service Unavailable");
    }

    #[test]
    fn waits_are_whole_seconds_and_never_none() {
        for (wait, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (2_500, 3)] {
            let refused = Refused::too_many("slow down", Duration::from_millis(wait));
            assert_eq!(refused.retry_after_secs(), Some(seconds));
        }
        assert_eq!(Refused::bad("no").retry_after_secs(), None);
    }

    #[test]
    fn places_move_below_an_index() {
        let refused = Refused::at("/subject", "is required").below("/3");
        assert_eq!(refused.errors[0].pointer, "/3/subject");
        assert_eq!(refused.detail, "/3/subject is required");
    }
}
