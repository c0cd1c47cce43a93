//! What the bodies look like on the wire, for `/openapi.json`: `protocol` has
//! the types that are used, and a test of `openapi` compares the two.
#![allow(dead_code, reason = "described here, never built")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Channel {
    Voice,
    Chat,
    Tickets,
}

/// A step of a journey, in their order.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    Accepted,
    Brokered,
    Decided,
    Announced,
    Sent,
    Received,
    Rendered,
    Acted,
}

/// The broker holds the event durably.
#[derive(ToSchema)]
pub(super) struct Accepted {
    /// The event's id.
    #[schema(format = "uuid")]
    id: String,
    #[schema(inline)]
    channel: Channel,
    /// Where its journey is told.
    #[schema(format = "uri-reference")]
    status_url: String,
}

/// RFC 9457.
#[derive(ToSchema)]
pub(super) struct Problem {
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    #[schema(required = false)]
    errors: Vec<FieldError>,
}

/// One place in a body that is wrong.
#[derive(ToSchema)]
pub(super) struct FieldError {
    /// A JSON pointer.
    #[schema(format = "json-pointer")]
    pointer: String,
    detail: String,
}

/// Where an event has got to.
#[derive(ToSchema)]
pub(super) struct Journey {
    #[schema(format = "uuid")]
    id: String,
    #[schema(inline)]
    status: Stage,
    stages: Vec<JourneyStage>,
    #[schema(nullable = false)]
    outcome: Option<Outcome>,
    events: Vec<JourneyEvent>,
}

/// A step that was reached: the first time, by how many, by whom.
#[derive(ToSchema)]
pub(super) struct JourneyStage {
    #[schema(inline)]
    stage: Stage,
    #[schema(format = "date-time")]
    at: String,
    #[schema(nullable = false)]
    count: Option<u64>,
    #[schema(required = false)]
    agents: BTreeMap<String, String>,
}

/// An event that was brought about.
#[derive(ToSchema)]
pub(super) struct JourneyEvent {
    #[schema(format = "uuid")]
    id: String,
    r#type: String,
    #[schema(inline)]
    channel: Channel,
    offset: u64,
}

/// What was made of it.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Ok(Value),
    Error(ReplyError),
}

/// Why it was not done.
#[derive(ToSchema)]
pub(super) struct ReplyError {
    code: String,
    message: String,
    temporary: bool,
    #[schema(nullable = false)]
    pointer: Option<String>,
}

/// A CloudEvent 1.0.
#[derive(ToSchema)]
pub(super) struct CloudEvent {
    #[schema(pattern = "^1\\.0$")]
    specversion: String,
    /// With `source`, names the event.
    #[schema(min_length = 1)]
    id: String,
    #[schema(min_length = 1)]
    source: String,
    /// One of our types with the prefix `warren.`.
    #[schema(pattern = "^warren\\.")]
    r#type: String,
    /// Stands in for `at`.
    #[schema(format = "date-time", nullable = false)]
    time: Option<String>,
    /// The event's other fields; or the same in `data_base64`.
    data: Option<Value>,
    #[schema(nullable = false)]
    data_base64: Option<String>,
}

/// A batch.
#[derive(ToSchema)]
pub(super) struct CloudEvents(Vec<CloudEvent>);
