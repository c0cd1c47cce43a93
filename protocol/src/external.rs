//! Decodes the events of the external API; docs/PROTOCOL.md has their table.

use domain::{Assignee, Channel, Distribution, ExternalEvent, NoticeLevel, Routed, TicketStatus};
use serde_json::Value;

use crate::fields::Fields;
use crate::{BODY_CHARS_MAX, FieldError, SUBJECT_CHARS_MAX, TEXT_CHARS_MAX};

/// The `type`s of each channel, as the table has them.
const TYPES: [(Channel, &[&str]); 3] = [
    (
        Channel::Voice,
        &[
            "call.queued",
            "call.ringing",
            "call.answered",
            "call.held",
            "call.resumed",
            "call.transferred",
            "call.ended",
            "notice",
        ],
    ),
    (Channel::Chat, &["chat.started", "chat.message", "chat.typing", "chat.ended", "notice"]),
    (Channel::Tickets, &["ticket.opened", "ticket.commented", "ticket.updated", "notice"]),
];

/// Decodes one event that was sent to `channel`.
///
/// # Errors
/// Every field that is wrong, with its JSON pointer.
pub fn decode_external(channel: Channel, body: &Value) -> Result<Routed, Vec<FieldError>> {
    let mut fields = Fields::new(body, "")?;
    let kind = fields.name("type");
    let Some(event) = decode_event(channel, &kind, &mut fields) else {
        if fields.has("type") {
            let known = TYPES[channel.index()].1.join(", ");
            fields
                .wrong("type", format!("unknown type \"{kind}\" on {channel}; known are {known}"));
        }
        return Err(fields.done(()).err().unwrap_or_default());
    };
    let at = fields.optional("at");
    let distribution = fields.nested("distribution", distribution).flatten().unwrap_or_default();
    match event {
        Some(event) => fields.done(Routed { event, at, distribution }),
        None => Err(fields.done(()).err().unwrap_or_default()),
    }
}

fn distribution(fields: &mut Fields<'_>) -> Option<Distribution> {
    let named = ["broadcast", "multicast", "direct"].iter().filter(|name| fields.has(name)).count();
    if named != 1 {
        fields.wrong("broadcast", "name exactly one of broadcast, multicast, direct");
        return None;
    }
    if fields.is_true("broadcast") {
        return Some(Distribution::Broadcast);
    }
    if let Some(logins) = fields.optional_logins("multicast") {
        return Some(Distribution::Multicast(logins));
    }
    fields.optional("direct").map(Distribution::Direct)
}

/// None for an unknown type; `Some(None)` where a field is wrong.
fn decode_event(
    channel: Channel,
    kind: &str,
    fields: &mut Fields<'_>,
) -> Option<Option<ExternalEvent>> {
    if !TYPES[channel.index()].1.contains(&kind) {
        return None;
    }
    Some(match kind {
        "call.queued" => Some(ExternalEvent::CallQueued {
            call: fields.name("call"),
            from: {
                if !fields.has("from") {
                    fields.wrong("from", "is required");
                }
                fields.phone("from").unwrap_or_default()
            },
            to: fields.name("to"),
            queue: fields.optional_name("queue"),
            contact: fields.contact("contact"),
        }),
        "call.ringing" => Some(ExternalEvent::CallRinging {
            call: fields.name("call"),
            agent: fields.optional("agent"),
        }),
        "call.answered" => {
            let call = fields.name("call");
            fields.required("agent").map(|agent| ExternalEvent::CallAnswered { call, agent })
        }
        "call.held" => Some(ExternalEvent::CallHeld { call: fields.name("call") }),
        "call.resumed" => Some(ExternalEvent::CallResumed { call: fields.name("call") }),
        "call.transferred" => {
            let (queue, agent) = if fields.has("queue") || fields.has("agent") {
                target(fields)
            } else {
                // Back to where it waited.
                (None, None)
            };
            Some(ExternalEvent::CallTransferred { call: fields.name("call"), queue, agent })
        }
        "call.ended" => {
            let call = fields.name("call");
            let hung_up_by = fields.optional_name("hung_up_by");
            let recording_url = fields.optional_text("recording_url", 2_000);
            fields.required("reason").map(|reason| ExternalEvent::CallEnded {
                call,
                reason,
                hung_up_by,
                recording_url,
            })
        }
        "chat.started" => Some(ExternalEvent::ChatStarted {
            chat: fields.name("chat"),
            contact: fields.required_contact("contact"),
            queue: fields.optional_name("queue"),
            text: fields.optional_text("text", TEXT_CHARS_MAX),
        }),
        "chat.message" => Some(ExternalEvent::ChatMessage {
            chat: fields.name("chat"),
            text: fields.text("text", TEXT_CHARS_MAX),
            message: fields.optional_name("message"),
        }),
        "chat.typing" => Some(ExternalEvent::ChatTyping { chat: fields.name("chat") }),
        "chat.ended" => Some(ExternalEvent::ChatEnded {
            chat: fields.name("chat"),
            reason: fields.optional_name("reason"),
        }),
        "ticket.opened" => Some(ExternalEvent::TicketOpened {
            ticket: fields.optional_name("ticket"),
            subject: fields.text("subject", SUBJECT_CHARS_MAX),
            body: fields.text("body", BODY_CHARS_MAX),
            priority: fields.optional("priority"),
            requester: fields.required_contact("requester"),
            queue: fields.optional_name("queue"),
            tags: fields.optional_list("tags").unwrap_or_default(),
        }),
        "ticket.commented" => Some(ExternalEvent::TicketCommented {
            ticket: fields.name("ticket"),
            body: fields.text("body", BODY_CHARS_MAX),
            author: fields.optional_name("author"),
        }),
        "ticket.updated" => {
            let any = ["status", "priority", "subject", "tags", "assignee"];
            if !any.iter().any(|name| fields.has(name)) && !fields.is_null("assignee") {
                fields.wrong(
                    "status",
                    "give at least one of status, priority, subject, tags, assignee",
                );
            }
            Some(ExternalEvent::TicketUpdated {
                ticket: fields.name("ticket"),
                status: status(fields),
                priority: fields.optional("priority"),
                subject: fields.optional_text("subject", SUBJECT_CHARS_MAX),
                tags: fields.optional_list("tags"),
                assignee: assignee(fields),
            })
        }
        _ => Some(ExternalEvent::Notice {
            text: fields.text("text", TEXT_CHARS_MAX),
            level: fields.optional("level").unwrap_or(NoticeLevel::Info),
        }),
    })
}

/// A ticket's status; one that is snoozed needs a time, which no event has.
fn status(fields: &mut Fields<'_>) -> Option<TicketStatus> {
    let status = fields.optional("status");
    if status == Some(TicketStatus::Snoozed) {
        fields.wrong("status", "an agent snoozes a ticket, until a time; give another status");
        return None;
    }
    status
}

/// Here `null` says something: that it is to be nobody's.
fn assignee(fields: &mut Fields<'_>) -> Assignee {
    if fields.is_null("assignee") {
        return Assignee::Nobody;
    }
    fields.optional("assignee").map_or(Assignee::Unchanged, Assignee::Agent)
}

/// A queue or an agent: exactly one of the two.
pub(crate) fn target(fields: &mut Fields<'_>) -> (Option<String>, Option<domain::Login>) {
    if fields.has("queue") == fields.has("agent") {
        fields.wrong("queue", "give exactly one of queue and agent");
    }
    (fields.optional_name("queue"), fields.optional("agent"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pointers(channel: Channel, body: &Value) -> Vec<String> {
        let errors = decode_external(channel, body).expect_err("it is wrong");
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn every_type_of_the_table_decodes_in_its_smallest_form() {
        for (channel, body) in [
            (
                Channel::Voice,
                json!({"type":"call.queued","call":"1","from":"+4930123","to":"+49301"}),
            ),
            (Channel::Voice, json!({"type":"call.ringing","call":"1"})),
            (Channel::Voice, json!({"type":"call.answered","call":"1","agent":"ana"})),
            (Channel::Voice, json!({"type":"call.held","call":"1"})),
            (Channel::Voice, json!({"type":"call.resumed","call":"1"})),
            (Channel::Voice, json!({"type":"call.transferred","call":"1","queue":"sales"})),
            (Channel::Voice, json!({"type":"call.transferred","call":"1"})),
            (Channel::Voice, json!({"type":"call.ended","call":"1","reason":"completed"})),
            (Channel::Chat, json!({"type":"chat.started","chat":"1","contact":{}})),
            (Channel::Chat, json!({"type":"chat.message","chat":"1","text":"hi"})),
            (Channel::Chat, json!({"type":"chat.typing","chat":"1"})),
            (Channel::Chat, json!({"type":"chat.ended","chat":"1"})),
            (
                Channel::Tickets,
                json!({"type":"ticket.opened","subject":"s","body":"b","requester":{}}),
            ),
            (Channel::Tickets, json!({"type":"ticket.commented","ticket":"1","body":"b"})),
            (Channel::Tickets, json!({"type":"ticket.updated","ticket":"1","status":"open"})),
            (Channel::Chat, json!({"type":"notice","text":"n"})),
        ] {
            assert!(decode_external(channel, &body).is_ok(), "{body}");
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let body = json!({
            "type": "ticket.opened", "subject": "", "priority": "soon",
            "requester": {"email": "nobody"}, "tags": ["a", 7],
            "distribution": {"multicast": ["Ana"]}, "at": "noon",
        });
        assert_eq!(
            pointers(Channel::Tickets, &body),
            [
                "/subject",
                "/body",
                "/priority",
                "/requester/email",
                "/tags/1",
                "/at",
                "/distribution/multicast/0"
            ]
        );
    }

    #[test]
    fn an_unknown_type_is_named_and_a_wrong_channel_is_unknown() {
        let errors =
            decode_external(Channel::Voice, &json!({"type":"chat.message"})).expect_err("wrong");
        assert_eq!(errors[0].pointer, "/type");
        assert!(errors[0].detail.contains("chat.message"));
        assert_eq!(pointers(Channel::Voice, &json!({})), ["/type"]);
        assert_eq!(pointers(Channel::Voice, &json!([])), [""]);
        assert_eq!(pointers(Channel::Voice, &json!({"type": 7}))[0], "/type");
    }

    #[test]
    fn a_transfer_names_one_target_or_none_and_no_event_snoozes() {
        let both = json!({"type":"call.transferred","call":"1","queue":"a","agent":"ana"});
        assert_eq!(pointers(Channel::Voice, &both), ["/queue"]);
        let snoozed = json!({"type":"ticket.updated","ticket":"1","status":"snoozed"});
        assert_eq!(pointers(Channel::Tickets, &snoozed), ["/status"]);
    }

    #[test]
    fn what_was_left_empty_is_absent() {
        let empty = json!({"type":"chat.started","chat":"1","queue":"","text":"","at":"",
            "contact":{"name":"Ines","email":"","phone":""}});
        let same = json!({"type":"chat.started","chat":"1","contact":{"name":"Ines"}});
        let read = |body| decode_external(Channel::Chat, body).expect("understood");
        assert_eq!(read(&empty), read(&same));
        let body = json!({"type":"call.answered","call":"","agent":""});
        assert_eq!(pointers(Channel::Voice, &body), ["/call", "/agent"]);
        let body = json!({"type":"ticket.updated","ticket":"1","subject":""});
        assert_eq!(pointers(Channel::Tickets, &body), ["/status"]);
    }

    #[test]
    fn a_null_assignee_is_nobody_and_an_absent_one_is_unchanged() {
        let assignee = |mut body: Value, value: Option<Value>| {
            body["type"] = json!("ticket.updated");
            body["ticket"] = json!("1");
            if let Some(value) = value {
                body["assignee"] = value;
            }
            match decode_external(Channel::Tickets, &body).expect("understood").event {
                ExternalEvent::TicketUpdated { assignee, .. } => assignee,
                other => panic!("{other:?}"),
            }
        };
        let open = || json!({"status": "open"});
        assert_eq!(assignee(json!({}), Some(Value::Null)), Assignee::Nobody);
        assert_eq!(assignee(open(), Some(Value::Null)), Assignee::Nobody);
        assert_eq!(assignee(open(), Some(json!(""))), Assignee::Unchanged);
        assert_eq!(assignee(open(), None), Assignee::Unchanged);
        let ana = "ana".parse().expect("a login");
        assert_eq!(assignee(json!({}), Some(json!("ana"))), Assignee::Agent(ana));
    }

    #[test]
    fn lengths_are_held_to_the_character() {
        let text =
            |chars: usize| json!({"type":"chat.message","chat":"1","text":"ä".repeat(chars)});
        assert!(decode_external(Channel::Chat, &text(8_000)).is_ok());
        assert_eq!(pointers(Channel::Chat, &text(8_001)), ["/text"]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_in_panics(text in "\\PC{0,200}", n in 0usize..20) {
            let kinds: Vec<&str> = TYPES.iter().flat_map(|(_, kinds)| kinds.iter().copied()).collect();
            let body = json!({"type": kinds[n % kinds.len()], "call": text, "chat": text, "ticket": text,
                "text": text, "body": text, "agent": text, "from": text, "contact": {"phone": text}});
            for channel in Channel::ALL {
                let _ = decode_external(*channel, &body);
            }
        }
    }
}
