//! A socket's first moments: from the first byte to who it is.

use std::collections::BTreeMap;
use std::fmt::Display;

use axum::extract::ws::Message;
use domain::{Channel, Timestamp};
use futures::{Stream, StreamExt};
use protocol::{CLIENT_FRAME_BYTES_MAX, ClientFrame, CloseCode, Cursor, HELLO_TIMEOUT, Principal};

use super::Aggregator;
use super::connection::End;
use crate::auth;

/// Where a page comes from that wants to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From ours, or from no page at all.
    Allowed,
    /// It can't be told yet: it may come back.
    Unknown,
    /// From elsewhere.
    Foreign,
}

/// What is known before the first frame.
pub(super) struct Opening {
    /// The channels that this socket may carry.
    pub(super) carries: Vec<Channel>,
    /// Where it comes from.
    pub(super) origin: Origin,
    /// The secret in the session cookie.
    pub(super) cookie: Option<String>,
}

/// What a client asks for.
pub(super) struct Hello {
    pub(super) secret: String,
    pub(super) channels: Vec<Channel>,
    pub(super) resume: BTreeMap<Channel, Cursor>,
}

/// From the first byte to who it is.
pub(super) async fn open<S, E>(
    aggregator: &Aggregator,
    socket: &mut S,
    opening: &Opening,
) -> Result<(Hello, Principal, Timestamp), End>
where
    S: Stream<Item = Result<Message, E>> + Unpin,
    E: Display,
{
    match opening.origin {
        Origin::Allowed => {}
        Origin::Unknown => {
            return Err(End::Close(CloseCode::BrokerLost, Some("no pages are known yet".into())));
        }
        Origin::Foreign => {
            return Err(End::Close(CloseCode::Forbidden, Some("origin not allowed".into())));
        }
    }
    if aggregator.draining.is_cancelled() {
        return Err(CloseCode::Draining.into());
    }
    let hello = tokio::time::timeout(HELLO_TIMEOUT, hear_hello(socket, opening))
        .await
        .map_err(|_| End::from(CloseCode::NoHello))??;
    if !*aggregator.members.heard().borrow() {
        return Err(CloseCode::BrokerLost.into());
    }
    let (principal, expires_at) = authenticate(aggregator, &hello.secret).await?;
    Ok((hello, principal, expires_at))
}

async fn hear_hello<S, E>(socket: &mut S, opening: &Opening) -> Result<Hello, End>
where
    S: Stream<Item = Result<Message, E>> + Unpin,
    E: Display,
{
    loop {
        match decode(socket.next().await)? {
            None => {}
            Some(ClientFrame::Hello { token, channels, resume, client }) => {
                tracing::debug!(client = client.as_deref().unwrap_or_default(), "hello");
                let mut channels = channels.unwrap_or_else(|| opening.carries.clone());
                channels.sort();
                channels.dedup();
                if let Some(other) =
                    channels.iter().find(|channel| !opening.carries.contains(channel))
                {
                    return Err(End::Close(
                        CloseCode::Forbidden,
                        Some(format!("{other} is not carried here")),
                    ));
                }
                let secret =
                    token.or_else(|| opening.cookie.clone()).ok_or(CloseCode::Unauthenticated)?;
                return Ok(Hello { secret, channels, resume });
            }
            Some(_) => {
                return Err(End::Close(CloseCode::NoHello, Some("hello comes first".into())));
            }
        }
    }
}

async fn authenticate(
    aggregator: &Aggregator,
    secret: &str,
) -> Result<(Principal, Timestamp), End> {
    let hash = auth::hash(secret);
    // Asked as of the beginning of time, so that an expired session is told
    // from one that never was.
    match aggregator.store.session(hash, Timestamp::from_millis(0)).await {
        Ok(Some((_, expires_at))) if expires_at <= aggregator.clock.now() => {
            Err(CloseCode::TokenExpired.into())
        }
        Ok(Some(known)) => Ok(known),
        Ok(None) => Err(CloseCode::Unauthenticated.into()),
        Err(error) => {
            tracing::warn!(%error, "session not read");
            Err(End::Close(CloseCode::BrokerLost, Some("store unavailable".into())))
        }
    }
}

/// A frame; none for what the WebSocket itself says.
pub(super) fn decode<E: Display>(
    received: Option<Result<Message, E>>,
) -> Result<Option<ClientFrame>, End> {
    let text = match received {
        None => return Err(End::Gone),
        Some(Err(error)) => return Err(refused_by_transport(&error.to_string())),
        Some(Ok(Message::Close(_))) => return Err(End::Gone),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(None),
        Some(Ok(Message::Binary(_))) => {
            return Err(End::Close(CloseCode::Malformed, Some("text frames only".into())));
        }
        Some(Ok(Message::Text(text))) => text,
    };
    if text.len() > CLIENT_FRAME_BYTES_MAX {
        return Err(CloseCode::FrameTooBig.into());
    }
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| End::Close(CloseCode::Malformed, Some(error.to_string())))
}

/// What the transport didn't let through: a frame over its own, larger limit,
/// or one that is no text. The rest is the network's.
fn refused_by_transport(error: &str) -> End {
    if error.contains("too long") {
        CloseCode::FrameTooBig.into()
    } else if error.contains("UTF-8") {
        End::Close(CloseCode::Malformed, Some("not utf-8".into()))
    } else {
        End::Gone
    }
}
