//! `GET /openapi.json`: what docs/PROTOCOL.md says, for machines.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use domain::Channel;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, RefOr};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi, PartialSchema, ToSchema};

use super::schemas::{
    EVENTS, body_schema, contact_schema, distribution_schema, event_schema, reference,
};
use super::wire::{
    Accepted, CloudEvent, CloudEvents, FieldError, Journey, JourneyEvent, JourneyStage, Outcome,
    Problem, ReplyError, Stage,
};
use super::{events, health, journey};
use crate::problem::PROBLEM_JSON;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Warren's external API",
        description = "Post events of voice, chat and tickets; ask where they have got to. \
                       202 means that the broker holds the event durably.",
    ),
    paths(
        events::voice,
        events::chat,
        events::tickets,
        journey::journey,
        openapi,
        health::healthz,
        health::readyz
    ),
    components(schemas(
        Accepted,
        Problem,
        FieldError,
        Journey,
        JourneyStage,
        JourneyEvent,
        Outcome,
        ReplyError,
        CloudEvent,
        CloudEvents,
        crate::readiness::Readiness
    )),
    tags((name = "events"), (name = "health")),
    modifiers(&Additions)
)]
pub(super) struct Document;

#[utoipa::path(get, path = "/openapi.json", tag = "health", security(()),
    responses((status = 200, description = "This document", body = serde_json::Value)))]
/// This document.
pub(super) async fn openapi() -> Response {
    Json(Document::openapi()).into_response()
}

/// The key, and the schemas of the events.
struct Additions;

impl Modify for Additions {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("wk_…")
            .description(Some("An integration's key; scopes: voice, chat, tickets"));
        components.add_security_scheme("key", SecurityScheme::Http(key.build()));
        let schemas = &mut components.schemas;
        schemas.insert("Contact".to_owned(), contact_schema());
        schemas.insert("Distribution".to_owned(), distribution_schema());
        for event in EVENTS {
            schemas.insert(event.schema.to_owned(), event_schema(event));
        }
    }
}

macro_rules! bodies {
    ($($name:ident: $channel:ident),+) => {
        $(
            /// One event of the channel, or an array of them.
            pub(super) struct $name;
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    body_schema(Channel::$channel)
                }
            }
            impl ToSchema for $name {}
        )+
    };
}
bodies!(VoiceBody: Voice, ChatBody: Chat, TicketsBody: Tickets);

fn refusal(status: &str, about: &str) -> (String, RefOr<utoipa::openapi::Response>) {
    let content = ContentBuilder::new().schema(Some(reference("Problem"))).build();
    let mut response = ResponseBuilder::new().description(about).content(PROBLEM_JSON, content);
    let mut header = |name: &str, about: &str| {
        let header = HeaderBuilder::new().description(Some(about));
        response = std::mem::take(&mut response).header(name, header.build());
    };
    match status {
        "401" => header("WWW-Authenticate", "Bearer"),
        "429" | "503" => header("Retry-After", "Seconds"),
        _ => {}
    }
    (status.to_owned(), response.into())
}

fn answer(
    status: &str,
    about: &str,
    schema: RefOr<Schema>,
) -> (String, RefOr<utoipa::openapi::Response>) {
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new().description(about).content("application/json", content);
    (status.to_owned(), response.into())
}

/// Answers to a POST.
pub(super) struct Posts;

impl IntoResponses for Posts {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let either = OneOfBuilder::new().item(reference("Accepted")).item(reference("Problem"));
        let either = RefOr::T(Schema::from(either.build()));
        let list =
            |items: RefOr<Schema>| RefOr::T(Schema::from(ArrayBuilder::new().items(items).build()));
        let accepted =
            OneOfBuilder::new().item(reference("Accepted")).item(list(reference("Accepted")));
        BTreeMap::from([
            answer(
                "202",
                "The broker holds it durably. An array has a result for each event, in order",
                accepted.into(),
            ),
            answer("207", "Some of an array are accepted; results in order", list(either)),
            refusal("400", "Not JSON, or a header that can't be read"),
            refusal("401", "No key, an unknown or revoked one, or a signature that doesn't hold"),
            refusal("403", "The key has no scope for this channel"),
            refusal("408", "The body took too long to arrive"),
            refusal("413", "More than 256 KiB for one event, or 4 MiB for an array"),
            refusal("415", "Another content type"),
            refusal("422", "Wrong fields, each named by a JSON pointer"),
            refusal("429", "Too much from this integration"),
            refusal("503", "Broker or store down, blocked or full: try again, under the same key"),
        ])
    }
}

/// Answers to a question for a journey.
pub(super) struct Journeys;

impl IntoResponses for Journeys {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        BTreeMap::from([
            answer("200", "Where the event has got to", reference("Journey")),
            refusal("400", "A bad query"),
            refusal("401", "No key, or an unknown or revoked one"),
            refusal("404", "No such event of this integration"),
            refusal("429", "Too many wait at once"),
            refusal("503", "Store down"),
        ])
    }
}

/// Headers of a POST.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "described here, read from the headers")]
pub(super) struct PostHeaders {
    /// Names the event, 1 to 255 printable ASCII characters: a repeat has the
    /// same id and no second effect. In an array, each event is named by the
    /// key, a slash, and its place.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
    /// Standard Webhooks: the message's id.
    #[param(rename = "webhook-id")]
    webhook_id: Option<String>,
    /// Standard Webhooks: seconds since 1970, at most 5 minutes off.
    #[param(rename = "webhook-timestamp")]
    webhook_timestamp: Option<String>,
    /// Standard Webhooks: `v1,` and the HMAC-SHA256 of id, timestamp and body in base64.
    #[param(rename = "webhook-signature")]
    webhook_signature: Option<String>,
    /// W3C trace context.
    traceparent: Option<String>,
    /// `1.0` says that the attributes of a CloudEvent are in `ce-*` headers
    /// (`ce-id`, `ce-source`, `ce-type`, `ce-time`) and the body is its data.
    #[param(rename = "ce-specversion")]
    ce_specversion: Option<String>,
}

/// Whether to wait.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "described here, read by the handler")]
pub(super) struct WaitParams {
    /// Answer when this stage is reached.
    #[param(inline)]
    wait: Option<Stage>,
    /// Answer after this time in any case: 10,000 by default, 30,000 at most.
    #[param(minimum = 0)]
    timeout_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{EventId, Login, Timestamp};
    use serde_json::Value;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    /// The schema allows what is said, and what it requires is said.
    fn hold(schema: &Value, said: &Value) {
        let properties = schema["properties"].as_object().expect("properties");
        let said: BTreeSet<&String> = said.as_object().expect("an object").keys().collect();
        assert!(said.iter().all(|name| properties.contains_key(*name)), "{said:?}");
        for name in schema["required"].as_array().expect("some are required") {
            assert!(said.iter().any(|one| name == *one), "{name} in {said:?}");
        }
    }

    #[test]
    fn the_schemas_are_those_of_the_answers() {
        let document = serde_json::to_value(Document::openapi()).expect("json");
        let schemas = &document["components"]["schemas"];
        let at = Timestamp::from_millis(0);
        let login: Login = "ana".parse().expect("a login");
        let stage = |count, agents| protocol::JourneyStage {
            stage: protocol::Stage::Sent,
            at,
            count,
            agents,
        };
        let error = protocol::ReplyError {
            code: "conflict".into(),
            message: "m".into(),
            temporary: false,
            pointer: Some("/x".into()),
        };
        let event = protocol::JourneyEvent {
            id: EventId(Uuid::nil()),
            kind: "notice".into(),
            channel: Channel::Chat,
            offset: 1,
        };
        let journey = |outcome| protocol::Journey {
            id: EventId(Uuid::nil()),
            status: protocol::Stage::Sent,
            stages: vec![],
            outcome,
            events: vec![],
        };
        let problem = |errors| protocol::Problem {
            kind: "about:blank".into(),
            title: "t".into(),
            status: 422,
            detail: "d".into(),
            errors,
        };
        let field = protocol::FieldError { pointer: "/x".into(), detail: "d".into() };
        let accepted = protocol::Accepted {
            id: EventId(Uuid::nil()),
            channel: Channel::Chat,
            status_url: "/".into(),
        };
        let refused = protocol::Outcome::Error(error.clone());
        for (name, said) in [
            ("Accepted", serde_json::to_value(accepted)),
            ("Problem", serde_json::to_value(problem(vec![field.clone()]))),
            ("Problem", serde_json::to_value(problem(vec![]))),
            ("FieldError", serde_json::to_value(field)),
            ("Journey", serde_json::to_value(journey(Some(refused)))),
            ("Journey", serde_json::to_value(journey(None))),
            ("JourneyStage", serde_json::to_value(stage(Some(1), [(login, at)].into()))),
            ("JourneyStage", serde_json::to_value(stage(None, BTreeMap::new()))),
            ("JourneyEvent", serde_json::to_value(event)),
            ("ReplyError", serde_json::to_value(error)),
        ] {
            hold(&schemas[name], &said.expect("json"));
        }
        let stages: Vec<&str> = protocol::Stage::ALL.iter().map(|stage| stage.as_str()).collect();
        assert_eq!(schemas["Journey"]["properties"]["status"]["enum"], Value::from(stages));
        let channels = &schemas["Accepted"]["properties"]["channel"]["enum"];
        assert_eq!(*channels, Value::from(Channel::WORDS.to_vec()));
    }
}
