//! The table of docs/PROTOCOL.md, section 1, as schemas for `/openapi.json`.
//!
//! `protocol::decode_external` is what decides; the tests below hold this
//! table to it.

use domain::{Channel, EndReason, NoticeLevel, Priority};
use protocol::{BODY_CHARS_MAX, LIST_MAX, NAME_CHARS_MAX, SUBJECT_CHARS_MAX, TEXT_CHARS_MAX};
use serde_json::Value;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Schema,
    SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr};

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Holds {
    /// So many characters, at least one.
    Text(usize),
    Phone,
    Login,
    Word(&'static [&'static str]),
    Contact,
    Tags,
}

/// One event of the table.
pub(super) struct EventType {
    /// Its schema's name.
    pub(super) schema: &'static str,
    /// Its `type`.
    pub(super) name: &'static str,
    /// Its channel; any where there is none.
    pub(super) channel: Option<Channel>,
    pub(super) about: &'static str,
    pub(super) required: &'static [(&'static str, Holds)],
    pub(super) optional: &'static [(&'static str, Holds)],
    /// A good one, as JSON.
    pub(super) example: &'static str,
}

const NAME: Holds = Holds::Text(NAME_CHARS_MAX);
const CALL: (&str, Holds) = ("call", NAME);
const CHAT: (&str, Holds) = ("chat", NAME);
const TICKET: (&str, Holds) = ("ticket", NAME);
const QUEUE: (&str, Holds) = ("queue", NAME);
const AGENT: (&str, Holds) = ("agent", Holds::Login);

const fn event(
    channel: Option<Channel>,
    name: &'static str,
    schema: &'static str,
    about: &'static str,
    fields: [&'static [(&'static str, Holds)]; 2],
    example: &'static str,
) -> EventType {
    let [required, optional] = fields;
    EventType { schema, name, channel, about, required, optional, example }
}

/// Those that an event may give: `snoozed` needs a time.
const STATUSES: &[&str] = &["new", "open", "pending", "resolved", "closed"];

const VOICE: Option<Channel> = Some(Channel::Voice);
const ON_CHAT: Option<Channel> = Some(Channel::Chat);
const TICKETS: Option<Channel> = Some(Channel::Tickets);

/// Every event of the table, in its order.
pub(super) const EVENTS: &[EventType] = &[
    event(
        VOICE,
        "call.queued",
        "CallQueued",
        "A call waits for an agent. `call` is the PBX's own id.",
        [&[CALL, ("from", Holds::Phone), ("to", NAME)], &[QUEUE, ("contact", Holds::Contact)]],
        r#"{"type":"call.queued","call":"pbx-4711","from":"+4930123456","to":"+4930999","queue":"sales","contact":{"name":"Grace Hopper"}}"#,
    ),
    event(
        VOICE,
        "call.ringing",
        "CallRinging",
        "It rings, at one agent's or at everybody's.",
        [&[CALL], &[AGENT]],
        r#"{"type":"call.ringing","call":"pbx-4711","agent":"ana"}"#,
    ),
    event(
        VOICE,
        "call.answered",
        "CallAnswered",
        "An agent has picked up.",
        [&[CALL, AGENT], &[]],
        r#"{"type":"call.answered","call":"pbx-4711","agent":"ana"}"#,
    ),
    event(
        VOICE,
        "call.held",
        "CallHeld",
        "The caller waits on hold.",
        [&[CALL], &[]],
        r#"{"type":"call.held","call":"pbx-4711"}"#,
    ),
    event(
        VOICE,
        "call.resumed",
        "CallResumed",
        "Agent and caller talk again.",
        [&[CALL], &[]],
        r#"{"type":"call.resumed","call":"pbx-4711"}"#,
    ),
    event(
        VOICE,
        "call.transferred",
        "CallTransferred",
        "It goes to another queue or agent, not both; or back to where it waited.",
        [&[CALL], &[QUEUE, AGENT]],
        r#"{"type":"call.transferred","call":"pbx-4711","queue":"support"}"#,
    ),
    event(
        VOICE,
        "call.ended",
        "CallEnded",
        "It is over.",
        [
            &[CALL, ("reason", Holds::Word(EndReason::WORDS))],
            &[("hung_up_by", NAME), ("recording_url", Holds::Text(2_000))],
        ],
        r#"{"type":"call.ended","call":"pbx-4711","reason":"completed","hung_up_by":"caller","recording_url":"https://pbx.example/r/4711"}"#,
    ),
    event(
        ON_CHAT,
        "chat.started",
        "ChatStarted",
        "Somebody opens a chat. `chat` is the site's own id.",
        [&[CHAT, ("contact", Holds::Contact)], &[QUEUE, ("text", Holds::Text(TEXT_CHARS_MAX))]],
        r#"{"type":"chat.started","chat":"c-1","contact":{"name":"Ada","email":"ada@example.com"},"text":"Hello?"}"#,
    ),
    event(
        ON_CHAT,
        "chat.message",
        "ChatMessage",
        "The customer writes. `message` is the sender's own id.",
        [&[CHAT, ("text", Holds::Text(TEXT_CHARS_MAX))], &[("message", NAME)]],
        r#"{"type":"chat.message","chat":"c-1","text":"Where is my order?","message":"m-7"}"#,
    ),
    event(
        ON_CHAT,
        "chat.typing",
        "ChatTyping",
        "The customer is writing. Passed on, never stored.",
        [&[CHAT], &[]],
        r#"{"type":"chat.typing","chat":"c-1"}"#,
    ),
    event(
        ON_CHAT,
        "chat.ended",
        "ChatEnded",
        "The customer has left.",
        [&[CHAT], &[("reason", NAME)]],
        r#"{"type":"chat.ended","chat":"c-1","reason":"closed the page"}"#,
    ),
    event(
        TICKETS,
        "ticket.opened",
        "TicketOpened",
        "A new case. Without `ticket`, the event's id stands for it.",
        [
            &[
                ("subject", Holds::Text(SUBJECT_CHARS_MAX)),
                ("body", Holds::Text(BODY_CHARS_MAX)),
                ("requester", Holds::Contact),
            ],
            &[TICKET, ("priority", Holds::Word(Priority::WORDS)), QUEUE, ("tags", Holds::Tags)],
        ],
        r#"{"type":"ticket.opened","ticket":"T-1","subject":"Printer on fire","body":"It burns.","priority":"urgent","requester":{"email":"ada@example.com"},"tags":["fire"]}"#,
    ),
    event(
        TICKETS,
        "ticket.commented",
        "TicketCommented",
        "The requester, or `author`, adds something.",
        [&[TICKET, ("body", Holds::Text(BODY_CHARS_MAX))], &[("author", NAME)]],
        r#"{"type":"ticket.commented","ticket":"T-1","body":"Still burning."}"#,
    ),
    event(
        TICKETS,
        "ticket.updated",
        "TicketUpdated",
        "At least one of the optional fields has changed. Without `assignee` it stays whose it is; with null it is nobody's.",
        [
            &[TICKET],
            &[
                ("status", Holds::Word(STATUSES)),
                ("priority", Holds::Word(Priority::WORDS)),
                ("subject", Holds::Text(SUBJECT_CHARS_MAX)),
                ("tags", Holds::Tags),
                ("assignee", Holds::Login),
            ],
        ],
        r#"{"type":"ticket.updated","ticket":"T-1","priority":"low","assignee":"ana"}"#,
    ),
    event(
        None,
        "notice",
        "Notice",
        "A word to the agents.",
        [&[("text", Holds::Text(TEXT_CHARS_MAX))], &[("level", Holds::Word(NoticeLevel::WORDS))]],
        r#"{"type":"notice","text":"The telephone system restarts at noon","level":"warning"}"#,
    ),
];

/// Whether `channel` takes it.
pub(super) fn is_on(event: &EventType, channel: Channel) -> bool {
    event.channel.is_none_or(|own| own == channel)
}

/// The schema of one event.
pub(super) fn event_schema(event: &EventType) -> RefOr<Schema> {
    let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([event.name]));
    let mut object =
        ObjectBuilder::new().description(Some(event.about)).property("type", kind).required("type");
    for (name, holds) in event.required {
        object = object.property(*name, holds_schema(*holds)).required(*name);
    }
    for (name, holds) in event.optional {
        object = object.property(*name, optional(*holds));
    }
    let time = blank(255).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let event_id = blank(255)
        .min_length(Some(1))
        .description(Some("Names the event: a repeat has no second effect"));
    let example: Option<Value> = serde_json::from_str(event.example).ok();
    object
        .property("at", time.description(Some("When it happened")))
        .property("event_id", event_id)
        .property("distribution", or_null(reference("Distribution")))
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .examples(example)
        .into()
}

/// One event of a channel, or an array of them.
pub(super) fn body_schema(channel: Channel) -> RefOr<Schema> {
    let mut one = OneOfBuilder::new();
    for event in EVENTS.iter().filter(|event| is_on(event, channel)) {
        one = one.item(reference(event.schema));
    }
    let one = Schema::from(one.build());
    let many = ArrayBuilder::new()
        .items(RefOr::T(one.clone()))
        .min_items(Some(1))
        .max_items(Some(protocol::EVENT_ARRAY_MAX));
    OneOfBuilder::new().item(one).item(many).into()
}

/// Who a customer is.
pub(super) fn contact_schema() -> RefOr<Schema> {
    let email = blank(NAME_CHARS_MAX).format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)));
    ObjectBuilder::new()
        .property("name", optional(NAME))
        .property("email", email)
        .property("phone", optional(Holds::Phone))
        .into()
}

/// Who sees it: exactly one of three.
pub(super) fn distribution_schema() -> RefOr<Schema> {
    let one = |name: &str, schema: RefOr<Schema>| {
        ObjectBuilder::new().property(name, schema).required(name).build()
    };
    let yes = ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true])).into();
    let logins = ArrayBuilder::new()
        .items(holds_schema(Holds::Login))
        .min_items(Some(1))
        .max_items(Some(LIST_MAX))
        .into();
    OneOfBuilder::new()
        .description(Some("Who sees it. Everybody, if absent"))
        .item(one("broadcast", yes))
        .item(one("multicast", logins))
        .item(one("direct", holds_schema(Holds::Login)))
        .into()
}

pub(super) fn reference(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

/// As [`holds_schema`], for a field that null or "" leaves out.
fn optional(holds: Holds) -> RefOr<Schema> {
    match holds {
        Holds::Text(chars_max) => blank(chars_max).into(),
        Holds::Phone => blank(16).pattern(Some(r"^(|\+[1-9][0-9]{1,14})$")).into(),
        Holds::Login => blank(64).pattern(Some("^(|[a-z0-9._@-]{1,64})$")).into(),
        Holds::Word(words) => {
            let words = words.iter().map(|word| Value::from(*word));
            let words = words.chain([Value::from(""), Value::Null]);
            blank(NAME_CHARS_MAX).max_length(None).enum_values(Some(words)).into()
        }
        Holds::Contact | Holds::Tags => or_null(holds_schema(holds)),
    }
}

fn or_null(schema: RefOr<Schema>) -> RefOr<Schema> {
    let null = Schema::from(ObjectBuilder::new().schema_type(Type::Null).build());
    OneOfBuilder::new().item(schema).item(RefOr::T(null)).into()
}

/// So many characters, or none, or null.
fn blank(chars_max: usize) -> ObjectBuilder {
    let kind = SchemaType::from_iter([Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(kind).max_length(Some(chars_max))
}

fn text(chars_max: usize) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(chars_max))
}

fn holds_schema(holds: Holds) -> RefOr<Schema> {
    match holds {
        Holds::Text(chars_max) => text(chars_max).into(),
        Holds::Phone => text(16).pattern(Some(r"^\+[1-9][0-9]{1,14}$")).into(),
        Holds::Login => text(64).pattern(Some("^[a-z0-9._@-]{1,64}$")).into(),
        Holds::Word(words) => {
            ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.to_vec())).into()
        }
        Holds::Contact => reference("Contact"),
        Holds::Tags => ArrayBuilder::new()
            .items(RefOr::T(text(NAME_CHARS_MAX).into()))
            .max_items(Some(LIST_MAX))
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::decode_external;

    fn decode(event: &EventType, body: &Value) -> Result<(), Vec<String>> {
        let channel = event.channel.unwrap_or(Channel::Chat);
        decode_external(channel, body)
            .map(drop)
            .map_err(|errors| errors.into_iter().map(|error| error.pointer).collect())
    }

    #[test]
    fn every_example_decodes_on_its_channels_and_on_no_other() {
        for event in EVENTS {
            let body: Value = serde_json::from_str(event.example).expect("json");
            assert_eq!(body["type"], event.name);
            for channel in Channel::ALL {
                let taken = decode_external(*channel, &body).is_ok();
                assert_eq!(taken, is_on(event, *channel), "{} on {channel}", event.name);
            }
        }
    }

    #[test]
    fn what_the_table_requires_is_required_and_nothing_else_is() {
        for event in EVENTS {
            let body: Value = serde_json::from_str(event.example).expect("json");
            for (name, _) in event.required {
                let mut less = body.clone();
                less.as_object_mut().expect("an object").remove(*name);
                assert_eq!(decode(event, &less), Err(vec![format!("/{name}")]), "{}", event.name);
            }
            // This one wants one of its optional fields.
            let wants_one = event.name == "ticket.updated";
            for (name, _) in event.optional.iter().filter(|_| !wants_one) {
                let mut less = body.clone();
                less.as_object_mut().expect("an object").remove(*name);
                assert_eq!(decode(event, &less), Ok(()), "{} without {name}", event.name);
            }
        }
    }

    /// Whether the schema lets it in; of patterns, those that begin so let "" in.
    fn lets_in(schema: &Value, value: &Value) -> bool {
        if let Some(either) = schema["oneOf"].as_array() {
            return either.iter().any(|one| lets_in(one, value));
        }
        let own = if value.is_null() { "null" } else { "string" };
        let of_kind = schema["type"] == own
            || schema["type"].as_array().is_some_and(|all| all.iter().any(|one| one == own));
        let named = schema["enum"].as_array().is_none_or(|all| all.contains(value));
        let short = value == "" && schema["minLength"].as_u64().is_some_and(|least| least > 0);
        let fits = schema["pattern"].as_str().is_none_or(|it| value != "" || it.starts_with("^(|"));
        of_kind && named && !short && fits
    }

    #[test]
    fn what_may_be_null_or_empty_is_said_to_be_so() {
        for event in EVENTS {
            let body: Value = serde_json::from_str(event.example).expect("json");
            let schema = serde_json::to_value(event_schema(event)).expect("json");
            let common = ["at", "event_id", "distribution"].map(|name| (name, Holds::Contact));
            for (name, holds) in event.required.iter().chain(event.optional).chain(&common) {
                let list = matches!(holds, Holds::Contact | Holds::Tags);
                let mut values = vec![Value::Null];
                values.extend((!list).then(|| Value::from("")));
                for value in values {
                    let mut other = body.clone();
                    other[*name] = value.clone();
                    // One that wants one of its optional fields has another one.
                    let spare = if *name == "status" { "priority" } else { "status" };
                    if event.name == "ticket.updated" {
                        other[spare] = if spare == "status" { "open" } else { "low" }.into();
                    }
                    let said = lets_in(&schema["properties"][name], &value);
                    let taken = decode(event, &other).is_ok();
                    assert_eq!(said, taken, "{} {name} {value}", event.name);
                }
            }
        }
    }

    #[test]
    fn every_word_of_the_table_is_taken() {
        for event in EVENTS {
            for (name, holds) in event.required.iter().chain(event.optional) {
                let Holds::Word(words) = *holds else { continue };
                let mut body: Value = serde_json::from_str(event.example).expect("json");
                for word in words {
                    body[*name] = (*word).into();
                    assert_eq!(decode(event, &body), Ok(()), "{} {name} {word}", event.name);
                }
            }
        }
        // And of those of a ticket's status, all but the one.
        assert_eq!(STATUSES.len() + 1, domain::TicketStatus::WORDS.len());
    }

    #[test]
    fn every_field_of_the_table_is_read() {
        for event in EVENTS {
            let body: Value = serde_json::from_str(event.example).expect("json");
            for (name, holds) in event.required.iter().chain(event.optional) {
                let mut wrong = body.clone();
                let object = wrong.as_object_mut().expect("an object");
                object.insert((*name).to_owned(), Value::from(7));
                if event.name == "call.transferred" && *name == "agent" {
                    object.remove("queue");
                }
                let errors = decode(event, &wrong).expect_err("a number fits nowhere");
                assert_eq!(errors, [format!("/{name}")], "{}", event.name);
                let Holds::Text(chars_max) = *holds else { continue };
                for (chars, fits) in [(chars_max, true), (chars_max + 1, false)] {
                    let mut long = body.clone();
                    long.as_object_mut()
                        .expect("an object")
                        .insert((*name).to_owned(), "ä".repeat(chars).into());
                    assert_eq!(decode(event, &long).is_ok(), fits, "{} {name}", event.name);
                }
            }
        }
    }
}
