//! From a delivery to a command of the domain.

use domain::{
    Actor, AgentCommand, Channel, Command, Contact, EventId, InteractionId, Kind, Timestamp,
};
use protocol::{FieldError, Principal, decode_command, decode_external, names};
use serde_json::Value;
use uuid::Uuid;

use crate::broker::Message;

/// Integration's name where a foreign AMQP client gives no `app_id`.
const FOREIGN: &str = "amqp";
/// Under which agents' own tickets are named.
const OWN: &str = "";

/// A delivery, understood.
pub(super) struct Item {
    /// The external event's or command's id: one effect.
    pub(super) id: Uuid,
    /// The interaction that it is about; none for a notice or a presence.
    pub(super) target: Option<InteractionId>,
    /// What is to be decided.
    pub(super) command: Command,
    /// Where the interaction comes from.
    pub(super) integration: String,
    /// The contact that it brings along or names.
    pub(super) contact: Option<Contact>,
    /// W3C trace context.
    pub(super) trace: Option<String>,
    /// Not to be decided later than this.
    pub(super) deadline: Option<Timestamp>,
    /// The member that waits for a reply.
    pub(super) reply_to: Option<String>,
}

/// Understands a message.
///
/// # Errors
/// The reason for its grave.
pub(super) fn decode(channel: Channel, message: &Message) -> Result<Item, String> {
    let body: Value =
        serde_json::from_slice(&message.body).map_err(|error| format!("not json: {error}"))?;
    let kind = body.get("type").and_then(Value::as_str).unwrap_or(&message.kind).to_owned();
    let integration = if message.app_id.is_empty() { FOREIGN } else { &message.app_id };
    let id = message_id(integration, &message.id);
    let header = |name: &str| message.header(name);
    let item = Item {
        id,
        target: None,
        command: Command::Due,
        integration: integration.to_owned(),
        contact: None,
        trace: header(names::TRACEPARENT).map(str::to_owned),
        deadline: header(names::X_DEADLINE).and_then(|text| text.parse().ok()),
        reply_to: message.reply_to.clone(),
    };
    match header(names::X_PRINCIPAL) {
        Some(principal) => {
            let principal: Principal = serde_json::from_str(principal)
                .map_err(|error| format!("{} is no principal: {error}", names::X_PRINCIPAL))?;
            let (command, expect_version) = decode_command(&body, "").map_err(|e| sentence(&e))?;
            Ok(agent(item, &principal, command, expect_version))
        }
        None => {
            let body = with_type(body, kind);
            let routed = decode_external(channel, &body).map_err(|errors| sentence(&errors))?;
            let own_id = EventId(id).to_string();
            Ok(Item {
                target: routed.event.interaction_id(integration, channel, &own_id),
                contact: routed
                    .event
                    .contact()
                    .filter(|contact| !contact.is_empty())
                    .cloned()
                    .or_else(|| match &routed.event {
                        domain::ExternalEvent::CallQueued { from, .. } => {
                            Some(Contact { phone: Some(from.clone()), ..Contact::default() })
                        }
                        _ => None,
                    }),
                command: Command::External { integration: integration.to_owned(), routed },
                ..item
            })
        }
    }
}

fn agent(
    item: Item,
    principal: &Principal,
    command: AgentCommand,
    expect_version: Option<u64>,
) -> Item {
    let target = match &command {
        AgentCommand::OpenTicket { .. } => {
            Some(InteractionId::derive(OWN, Kind::Ticket, &item.id.to_string()))
        }
        other => other.interaction_id(),
    };
    let contact = command.contact_id().map(|id| Contact { id: Some(id), ..Contact::default() });
    let actor = Actor { login: principal.login.clone(), role: principal.role };
    Item {
        target,
        contact,
        integration: OWN.to_owned(),
        command: Command::Agent { actor, command, expect_version },
        ..item
    }
}

/// A UUID as it is; anything else becomes one, the same one each time; nothing
/// becomes a new one.
fn message_id(integration: &str, text: &str) -> Uuid {
    match Uuid::parse_str(text) {
        Ok(id) => id,
        Err(_) if text.is_empty() => Uuid::now_v7(),
        Err(_) => EventId::derive(integration, text).0,
    }
}

fn with_type(mut body: Value, kind: String) -> Value {
    if let Value::Object(map) = &mut body {
        map.entry("type").or_insert(Value::String(kind));
    }
    body
}

fn sentence(errors: &[FieldError]) -> String {
    let parts: Vec<_> =
        errors.iter().take(5).map(|error| format!("{} {}", error.pointer, error.detail)).collect();
    format!("invalid: {}", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::collections::BTreeMap;

    fn message(id: &str, kind: &str, body: &str) -> Message {
        Message {
            id: id.into(),
            kind: kind.into(),
            app_id: String::new(),
            at: Timestamp::from_millis(0),
            headers: BTreeMap::new(),
            reply_to: None,
            body: Bytes::from(body.to_owned()),
        }
    }

    #[test]
    fn a_foreign_message_needs_only_a_type_and_a_body() {
        let item = decode(
            Channel::Tickets,
            &message("", "ticket.opened", r#"{"subject":"s","body":"b","requester":{}}"#),
        )
        .expect("understood");
        assert_eq!(item.integration, "amqp");
        assert_eq!(
            item.target,
            Some(InteractionId::derive("amqp", Kind::Ticket, &item.id.to_string()))
        );
        let same = |id: &str| {
            decode(Channel::Chat, &message(id, "", r#"{"type":"notice","text":"n"}"#))
                .expect("ok")
                .id
        };
        assert_eq!(same("order-7"), same("order-7"));
    }

    #[test]
    fn what_makes_no_sense_says_where() {
        let reason = decode(Channel::Tickets, &message("", "ticket.opened", r#"{"subject":""}"#))
            .err()
            .expect("bad");
        assert!(reason.contains("/subject"), "{reason}");
        let reason = decode(Channel::Tickets, &message("", "", "nonsense")).err().expect("bad");
        assert!(reason.starts_with("not json"), "{reason}");
    }
}
