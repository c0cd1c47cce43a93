//! What other systems tell us: the events of the external API, decoded.

use crate::{
    Assignee, Channel, Contact, Distribution, EndReason, InteractionId, Kind, Login, NoticeLevel,
    Priority, TicketStatus, Timestamp,
};

/// One external event with what every event may carry.
#[derive(Clone, Debug, PartialEq)]
pub struct Routed {
    /// The event itself.
    pub event: ExternalEvent,
    /// When it happened, if the sender said so.
    pub at: Option<Timestamp>,
    /// Who sees the interaction, or the notice, that it brings about.
    pub distribution: Distribution,
}

/// A fact that a PBX, a site or a form reports. `call`, `chat` and `ticket`
/// are the sender's own ids.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of the table in docs/PROTOCOL.md")]
pub enum ExternalEvent {
    CallQueued {
        call: String,
        from: String,
        to: String,
        queue: Option<String>,
        contact: Option<Contact>,
    },
    CallRinging {
        call: String,
        agent: Option<Login>,
    },
    CallAnswered {
        call: String,
        agent: Login,
    },
    CallHeld {
        call: String,
    },
    CallResumed {
        call: String,
    },
    CallTransferred {
        call: String,
        queue: Option<String>,
        agent: Option<Login>,
    },
    CallEnded {
        call: String,
        reason: EndReason,
        hung_up_by: Option<String>,
        recording_url: Option<String>,
    },
    ChatStarted {
        chat: String,
        contact: Contact,
        queue: Option<String>,
        text: Option<String>,
    },
    ChatMessage {
        chat: String,
        text: String,
        message: Option<String>,
    },
    ChatTyping {
        chat: String,
    },
    ChatEnded {
        chat: String,
        reason: Option<String>,
    },
    TicketOpened {
        /// The sender's own id; the event's id where there is none.
        ticket: Option<String>,
        subject: String,
        body: String,
        priority: Option<Priority>,
        requester: Contact,
        queue: Option<String>,
        tags: Vec<String>,
    },
    TicketCommented {
        ticket: String,
        body: String,
        author: Option<String>,
    },
    TicketUpdated {
        ticket: String,
        status: Option<TicketStatus>,
        priority: Option<Priority>,
        subject: Option<String>,
        tags: Option<Vec<String>>,
        assignee: Assignee,
    },
    Notice {
        text: String,
        level: NoticeLevel,
    },
}

impl ExternalEvent {
    /// The sender's id of the interaction that it is about; none for a notice
    /// or for a ticket that the sender gave no id.
    #[must_use]
    pub fn external_id(&self) -> Option<&str> {
        match self {
            Self::CallQueued { call, .. }
            | Self::CallRinging { call, .. }
            | Self::CallAnswered { call, .. }
            | Self::CallHeld { call }
            | Self::CallResumed { call }
            | Self::CallTransferred { call, .. }
            | Self::CallEnded { call, .. } => Some(call),
            Self::ChatStarted { chat, .. }
            | Self::ChatMessage { chat, .. }
            | Self::ChatTyping { chat }
            | Self::ChatEnded { chat, .. } => Some(chat),
            Self::TicketOpened { ticket, .. } => ticket.as_deref(),
            Self::TicketCommented { ticket, .. } | Self::TicketUpdated { ticket, .. } => {
                Some(ticket)
            }
            Self::Notice { .. } => None,
        }
    }

    /// The interaction that it is about; none for a notice. `event_id` stands
    /// in where the sender gave a ticket no id of its own.
    #[must_use]
    pub fn interaction_id(
        &self,
        integration: &str,
        channel: Channel,
        event_id: &str,
    ) -> Option<InteractionId> {
        if matches!(self, Self::Notice { .. }) {
            return None;
        }
        let kind: Kind = channel.kind();
        Some(InteractionId::derive(integration, kind, self.external_id().unwrap_or(event_id)))
    }

    /// The contact that it brings along.
    #[must_use]
    pub fn contact(&self) -> Option<&Contact> {
        match self {
            Self::CallQueued { contact, .. } => contact.as_ref(),
            Self::ChatStarted { contact, .. } => Some(contact),
            Self::TicketOpened { requester, .. } => Some(requester),
            _ => None,
        }
    }

    /// True for what is passed on to who is there and never stored.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        matches!(self, Self::ChatTyping { .. })
    }
}
