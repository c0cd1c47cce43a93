//! What a body is, how large it may be, and how long it may take.

use std::time::Duration;

use axum::body::{BodyDataStream, Bytes, HttpBody as _};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::BytesMut;
use futures::StreamExt as _;
use protocol::{EVENT_ARRAY_BYTES_MAX, EVENT_BYTES_MAX};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::problem::Refused;

/// What is read and thrown away after a refusal, so that the sender gets to
/// read the answer: it may not look for one before it has written everything.
const DISCARD_BYTES_MAX: usize = 2 * EVENT_ARRAY_BYTES_MAX;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a large body waits for its turn.
const LARGE_WAIT: Duration = Duration::from_secs(2);

/// What the content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// One of our events, or an array of them.
    Json,
    /// One CloudEvent, attributes in the headers.
    Binary,
    /// One CloudEvent, attributes in the body.
    Structured,
    /// An array of CloudEvents.
    Batch,
}

impl Media {
    /// By `content-type` and `ce-*`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refused> {
        let supported = "send application/json, application/cloudevents+json or \
                         application/cloudevents-batch+json";
        let encoded = headers.get(header::CONTENT_ENCODING);
        if encoded.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Refused::unsupported("send the body without a content encoding"));
        }
        let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let Some(text) = text else { return Err(Refused::unsupported(supported)) };
        let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
        let essence = parts.next().unwrap_or_default();
        for parameter in parts {
            let charset = parameter.strip_prefix("charset=").map(|name| name.trim_matches('"'));
            if charset.is_some_and(|name| !matches!(name, "utf-8" | "utf8" | "us-ascii")) {
                return Err(Refused::unsupported("send UTF-8"));
            }
        }
        match essence.as_str() {
            "application/json" if headers.contains_key("ce-specversion") => Ok(Self::Binary),
            "application/json" => Ok(Self::Json),
            "application/cloudevents+json" => Ok(Self::Structured),
            "application/cloudevents-batch+json" => Ok(Self::Batch),
            _ => Err(Refused::unsupported(supported)),
        }
    }

    /// The most bytes, once the first byte that isn't blank is known.
    fn bytes_max(self, first: Option<u8>) -> usize {
        match (self, first) {
            (Self::Batch, _) | (Self::Json, None | Some(b'[')) => EVENT_ARRAY_BYTES_MAX,
            _ => EVENT_BYTES_MAX,
        }
    }
}

/// Reads a whole body. Bodies larger than one event take turns; the turn is
/// given back by dropping.
pub(super) async fn read<'a>(
    body: &mut BodyDataStream,
    media: Media,
    time: Duration,
    large: &'a Semaphore,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), Refused> {
    if stated(body) > EVENT_ARRAY_BYTES_MAX {
        return Err(too_large(EVENT_ARRAY_BYTES_MAX));
    }
    let slow = || {
        let detail = format!("the body did not arrive within {} s", time.as_secs_f32());
        Refused::new(StatusCode::REQUEST_TIMEOUT, detail)
    };
    timeout(time, collect(body, media, large)).await.map_err(|_| slow())?
}

/// Throws away what is left of a refused body, within bounds.
pub(super) async fn discard(body: &mut BodyDataStream) {
    if stated(body) > DISCARD_BYTES_MAX {
        return;
    }
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = body.next().await {
            bytes += chunk.len();
            if bytes > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    // Whether it ends in time makes no difference to the answer.
    let _ = timeout(DISCARD_TIMEOUT, rest).await;
}

/// What is still to come, as far as the sender has said.
fn stated(body: &BodyDataStream) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

async fn collect<'a>(
    body: &mut BodyDataStream,
    media: Media,
    large: &'a Semaphore,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), Refused> {
    let (mut whole, mut first, mut turn) = (BytesMut::new(), None, None);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Refused::bad("the body broke off"))?;
        first = first.or_else(|| chunk.iter().copied().find(|byte| !byte.is_ascii_whitespace()));
        let bytes_max = media.bytes_max(first);
        if whole.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        if whole.len() + chunk.len() > EVENT_BYTES_MAX && turn.is_none() {
            let Ok(Ok(permit)) = timeout(LARGE_WAIT, large.acquire()).await else {
                let detail = "too many large bodies at once";
                return Err(Refused::unavailable(detail, Duration::from_secs(1)));
            };
            turn = Some(permit);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok((whole.freeze(), turn))
}

fn too_large(bytes_max: usize) -> Refused {
    let what = if bytes_max == EVENT_BYTES_MAX { "one event" } else { "an array of events" };
    Refused::too_large(bytes_max, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn media(content_type: &str, more: &[(&'static str, &str)]) -> Option<Media> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().expect("a value"));
        for (name, value) in more {
            headers.insert(*name, value.parse().expect("a value"));
        }
        Media::of(&headers).ok()
    }

    #[test]
    fn the_content_type_tells_the_mode() {
        let binary = [("ce-specversion", "1.0")];
        for (text, more, expected) in [
            ("application/json", &[][..], Some(Media::Json)),
            ("Application/JSON; charset=UTF-8", &[], Some(Media::Json)),
            ("application/json;charset=latin1", &[], None),
            ("application/json", &binary, Some(Media::Binary)),
            ("application/cloudevents+json; charset=utf-8", &[], Some(Media::Structured)),
            ("application/cloudevents-batch+json", &[], Some(Media::Batch)),
            ("text/plain", &[], None),
            ("application/xml", &binary, None),
            ("application/json", &[("content-encoding", "gzip")], None),
        ] {
            assert_eq!(media(text, more), expected, "{text}");
        }
        assert!(Media::of(&HeaderMap::new()).is_err());
    }

    async fn status(bytes: Vec<u8>, media: Media) -> Option<StatusCode> {
        let large = Semaphore::new(1);
        let mut body = Body::from(bytes).into_data_stream();
        let read = read(&mut body, media, Duration::from_secs(10), &large).await;
        read.err().map(|refused| refused.status)
    }

    #[tokio::test]
    async fn one_event_is_smaller_than_an_array_of_them() {
        let large = StatusCode::PAYLOAD_TOO_LARGE;
        let body = |first: u8, len: usize| {
            let mut bytes = vec![b' '; len];
            bytes[1] = first;
            bytes
        };
        for (first, len, mode, expected) in [
            (b'{', EVENT_BYTES_MAX, Media::Json, None),
            (b'{', EVENT_BYTES_MAX + 1, Media::Json, Some(large)),
            (b'[', EVENT_BYTES_MAX + 1, Media::Json, None),
            (b'[', EVENT_ARRAY_BYTES_MAX, Media::Json, None),
            (b'[', EVENT_ARRAY_BYTES_MAX + 1, Media::Json, Some(large)),
            (b'[', EVENT_BYTES_MAX + 1, Media::Structured, Some(large)),
            (b'[', EVENT_BYTES_MAX + 1, Media::Batch, None),
        ] {
            assert_eq!(status(body(first, len), mode).await, expected, "{len} {mode:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let (large, mut body) = (Semaphore::new(1), body.into_data_stream());
        let refused = read(&mut body, Media::Json, Duration::from_secs(10), &large).await;
        assert_eq!(refused.expect_err("slow").status, StatusCode::REQUEST_TIMEOUT);
    }
}
