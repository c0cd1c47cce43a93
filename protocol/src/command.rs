//! Decodes the commands of agents; docs/PROTOCOL.md has their table.

use domain::{AgentCommand, InteractionId};
use serde_json::Value;

use crate::external::target;
use crate::fields::Fields;
use crate::{BODY_CHARS_MAX, FieldError, NAME_CHARS_MAX, SUBJECT_CHARS_MAX, TEXT_CHARS_MAX};

const TYPES: &str = "take, accept_offer, reject_offer, answer_call, hold_call, resume_call, \
    transfer_call, end_call, send_message, add_note, end_chat, open_ticket, comment_ticket, \
    set_status, set_priority, assign, tag, untag, snooze, reopen, set_presence, link_contact";

/// Decodes the `command` of a frame, and its `expect_version`. Pointers begin
/// with `at`: `/command` for a frame, nothing for the command alone.
///
/// # Errors
/// Every field that is wrong, with its JSON pointer.
pub fn decode_command(
    body: &Value,
    at: &str,
) -> Result<(AgentCommand, Option<u64>), Vec<FieldError>> {
    let mut fields = Fields::new(body, at)?;
    let kind = fields.name("type");
    let expect_version = fields.optional_count("expect_version");
    let command = match kind.as_str() {
        "open_ticket" => Some(AgentCommand::OpenTicket {
            subject: fields.text("subject", SUBJECT_CHARS_MAX),
            body: fields.text("body", BODY_CHARS_MAX),
            priority: fields.optional("priority"),
            contact_id: fields.optional("contact_id"),
            queue: fields.optional_name("queue"),
            tags: fields.optional_list("tags").unwrap_or_default(),
        }),
        "set_presence" => {
            let reason = fields.optional_name("reason");
            fields
                .required("presence")
                .map(|presence| AgentCommand::SetPresence { presence, reason })
        }
        kind => {
            if fields.has("type") && !TYPES.split(", ").any(|known| known == kind) {
                fields.wrong("type", format!("unknown type \"{kind}\"; known are {TYPES}"));
                return Err(fields.done(()).err().unwrap_or_default());
            }
            let nobody = InteractionId(uuid::Uuid::nil());
            let interaction_id = fields.required("interaction_id").unwrap_or(nobody);
            about(kind, interaction_id, &mut fields)
        }
    };
    match command {
        Some(command) => fields.done((command, expect_version)),
        None => Err(fields.done(()).err().unwrap_or_default()),
    }
}

/// A command about one interaction; none where a field is wrong.
fn about(
    kind: &str,
    interaction_id: InteractionId,
    fields: &mut Fields<'_>,
) -> Option<AgentCommand> {
    match kind {
        "take" => Some(AgentCommand::Take { interaction_id }),
        "accept_offer" => Some(AgentCommand::AcceptOffer { interaction_id }),
        "reject_offer" => Some(AgentCommand::RejectOffer { interaction_id }),
        "answer_call" => Some(AgentCommand::AnswerCall { interaction_id }),
        "hold_call" => Some(AgentCommand::HoldCall { interaction_id }),
        "resume_call" => Some(AgentCommand::ResumeCall { interaction_id }),
        "transfer_call" => {
            let (queue, agent) = target(fields);
            Some(AgentCommand::TransferCall { interaction_id, queue, agent })
        }
        "end_call" => Some(AgentCommand::EndCall { interaction_id }),
        "send_message" => Some(AgentCommand::SendMessage {
            interaction_id,
            text: fields.text_or("text", "body", TEXT_CHARS_MAX),
        }),
        "add_note" => Some(AgentCommand::AddNote {
            interaction_id,
            text: fields.text_or("text", "body", TEXT_CHARS_MAX),
        }),
        "end_chat" => Some(AgentCommand::EndChat { interaction_id }),
        "comment_ticket" => Some(AgentCommand::CommentTicket {
            interaction_id,
            body: fields.text_or("body", "text", BODY_CHARS_MAX),
        }),
        "set_status" => fields
            .required("status")
            .map(|status| AgentCommand::SetStatus { interaction_id, status }),
        "set_priority" => fields
            .required("priority")
            .map(|priority| AgentCommand::SetPriority { interaction_id, priority }),
        "assign" => {
            let name = if fields.has("assignee") { "assignee" } else { "agent" };
            if !fields.has(name) && !fields.is_null("agent") && !fields.is_null("assignee") {
                fields.wrong("agent", "is required; null for nobody");
            }
            Some(AgentCommand::Assign { interaction_id, agent: fields.optional(name) })
        }
        "tag" => {
            Some(AgentCommand::Tag { interaction_id, tag: fields.text("tag", NAME_CHARS_MAX) })
        }
        "untag" => {
            Some(AgentCommand::Untag { interaction_id, tag: fields.text("tag", NAME_CHARS_MAX) })
        }
        "snooze" => {
            fields.required("until").map(|until| AgentCommand::Snooze { interaction_id, until })
        }
        "reopen" => Some(AgentCommand::Reopen { interaction_id }),
        "link_contact" => fields
            .required("contact_id")
            .map(|contact_id| AgentCommand::LinkContact { interaction_id, contact_id }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "0190d9a0-0000-7000-8000-000000000001";

    #[test]
    fn every_command_decodes_and_is_written_back_the_same() {
        for body in [
            json!({"type":"take","interaction_id":ID}),
            json!({"type":"accept_offer","interaction_id":ID}),
            json!({"type":"reject_offer","interaction_id":ID}),
            json!({"type":"answer_call","interaction_id":ID}),
            json!({"type":"hold_call","interaction_id":ID}),
            json!({"type":"resume_call","interaction_id":ID}),
            json!({"type":"transfer_call","interaction_id":ID,"agent":"ana"}),
            json!({"type":"end_call","interaction_id":ID}),
            json!({"type":"send_message","interaction_id":ID,"text":"hi"}),
            json!({"type":"add_note","interaction_id":ID,"text":"hi"}),
            json!({"type":"end_chat","interaction_id":ID}),
            json!({"type":"open_ticket","subject":"s","body":"b","priority":"high","tags":["a"]}),
            json!({"type":"comment_ticket","interaction_id":ID,"body":"b"}),
            json!({"type":"set_status","interaction_id":ID,"status":"pending"}),
            json!({"type":"set_priority","interaction_id":ID,"priority":"low"}),
            json!({"type":"assign","interaction_id":ID,"agent":"ana"}),
            json!({"type":"assign","interaction_id":ID,"agent":null}),
            json!({"type":"tag","interaction_id":ID,"tag":"vip"}),
            json!({"type":"untag","interaction_id":ID,"tag":"vip"}),
            json!({"type":"snooze","interaction_id":ID,"until":"2026-01-31T12:00:00.000Z"}),
            json!({"type":"reopen","interaction_id":ID}),
            json!({"type":"set_presence","presence":"away","reason":"lunch"}),
            json!({"type":"link_contact","interaction_id":ID,"contact_id":ID}),
        ] {
            let (command, _) =
                decode_command(&body, "").unwrap_or_else(|e| panic!("{body}: {e:?}"));
            assert_eq!(serde_json::to_value(&command).expect("json"), body);
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let errors =
            decode_command(&json!({"type":"snooze","until":"x","expect_version":-1}), "/command")
                .expect_err("wrong");
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            ["/command/expect_version", "/command/interaction_id", "/command/until"]
        );
        let errors = decode_command(&json!({"type":"dance"}), "").expect_err("wrong");
        assert!(errors[0].detail.contains("dance"));
    }
}
