//! What is asked of the domain: an external event, an agent's command, or a
//! deadline that has passed.

use serde::Serialize;

use crate::{
    ContactId, InteractionId, Login, Presence, Priority, Role, Routed, TicketStatus, Timestamp,
};

/// Who gives a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The agent's login.
    pub login: Login,
    /// What the agent may do.
    pub role: Role,
}

/// One thing to decide.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// An event from outside.
    External {
        /// The integration that sent it.
        integration: String,
        /// What it says.
        routed: Routed,
    },
    /// An agent's command.
    Agent {
        /// Who gives it.
        actor: Actor,
        /// What is to be done.
        command: AgentCommand,
        /// Refuse it if the interaction is at another version.
        expect_version: Option<u64>,
    },
    /// The interaction's deadline has passed.
    Due,
}

/// What an agent can ask for. Written `{"type":"take","interaction_id":"…"}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the table in docs/PROTOCOL.md")]
pub enum AgentCommand {
    /// Take an interaction from the queue by hand.
    Take {
        interaction_id: InteractionId,
    },
    AcceptOffer {
        interaction_id: InteractionId,
    },
    RejectOffer {
        interaction_id: InteractionId,
    },
    AnswerCall {
        interaction_id: InteractionId,
    },
    HoldCall {
        interaction_id: InteractionId,
    },
    ResumeCall {
        interaction_id: InteractionId,
    },
    /// To a queue or to an agent: one of the two.
    TransferCall {
        interaction_id: InteractionId,
        #[serde(skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        agent: Option<Login>,
    },
    /// Hang up; given again in wrap-up, it ends that too.
    EndCall {
        interaction_id: InteractionId,
    },
    SendMessage {
        interaction_id: InteractionId,
        text: String,
    },
    AddNote {
        interaction_id: InteractionId,
        text: String,
    },
    /// End the chat; given again in wrap-up, it ends that too.
    EndChat {
        interaction_id: InteractionId,
    },
    OpenTicket {
        subject: String,
        body: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<Priority>,
        #[serde(skip_serializing_if = "Option::is_none")]
        contact_id: Option<ContactId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tags: Vec<String>,
    },
    CommentTicket {
        interaction_id: InteractionId,
        body: String,
    },
    SetStatus {
        interaction_id: InteractionId,
        status: TicketStatus,
    },
    SetPriority {
        interaction_id: InteractionId,
        priority: Priority,
    },
    /// To an agent, or to nobody.
    Assign {
        interaction_id: InteractionId,
        agent: Option<Login>,
    },
    Tag {
        interaction_id: InteractionId,
        tag: String,
    },
    Untag {
        interaction_id: InteractionId,
        tag: String,
    },
    /// Put a ticket or a chat aside until a time.
    Snooze {
        interaction_id: InteractionId,
        until: Timestamp,
    },
    Reopen {
        interaction_id: InteractionId,
    },
    SetPresence {
        presence: Presence,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    LinkContact {
        interaction_id: InteractionId,
        contact_id: ContactId,
    },
}

impl AgentCommand {
    /// The interaction that it names; none for `open_ticket` and `set_presence`.
    #[must_use]
    pub fn interaction_id(&self) -> Option<InteractionId> {
        match self {
            Self::Take { interaction_id }
            | Self::AcceptOffer { interaction_id }
            | Self::RejectOffer { interaction_id }
            | Self::AnswerCall { interaction_id }
            | Self::HoldCall { interaction_id }
            | Self::ResumeCall { interaction_id }
            | Self::TransferCall { interaction_id, .. }
            | Self::EndCall { interaction_id }
            | Self::SendMessage { interaction_id, .. }
            | Self::AddNote { interaction_id, .. }
            | Self::EndChat { interaction_id }
            | Self::CommentTicket { interaction_id, .. }
            | Self::SetStatus { interaction_id, .. }
            | Self::SetPriority { interaction_id, .. }
            | Self::Assign { interaction_id, .. }
            | Self::Tag { interaction_id, .. }
            | Self::Untag { interaction_id, .. }
            | Self::Snooze { interaction_id, .. }
            | Self::Reopen { interaction_id }
            | Self::LinkContact { interaction_id, .. } => Some(*interaction_id),
            Self::OpenTicket { .. } | Self::SetPresence { .. } => None,
        }
    }

    /// The contact that it names.
    #[must_use]
    pub fn contact_id(&self) -> Option<ContactId> {
        match self {
            Self::OpenTicket { contact_id, .. } => *contact_id,
            Self::LinkContact { contact_id, .. } => Some(*contact_id),
            _ => None,
        }
    }
}
