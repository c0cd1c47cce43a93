//! Facts: what has happened, as it is written into the journal and onto the wire.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Assignee, CommandId, ContactId, Distribution, EndReason, EventId, InteractionId, Login,
    NoticeLevel, Priority, TicketStatus, Timestamp, from_fields, from_type, from_word,
};

/// The person on the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Our id of the person, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ContactId>,
    /// The name as the person gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address as the person gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// E.164.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

from_fields!(Contact { id, name, email, phone });

impl Contact {
    /// What to call the person: the name, else the address, else the number.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.name.as_deref().or(self.email.as_deref()).or(self.phone.as_deref())
    }

    /// True if nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.id.is_none() && self.label().is_none()
    }
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the customer.
    Inbound,
    /// From an agent.
    Outbound,
}

from_word!(Direction { "inbound" => Inbound, "outbound" => Outbound });

/// An event with its place: the `event` object of a frame, a row of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// UUIDv7.
    pub id: EventId,
    /// The id of the external event or command that brought it about.
    pub cause: Uuid,
    /// When it was decided.
    pub at: Timestamp,
    /// When it happened, if the sender said so: the `at` of its event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Timestamp>,
    /// The interaction that it belongs to; none for a notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interaction_id: Option<InteractionId>,
    /// Counts the interaction's events from 1 without holes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// W3C `traceparent` of the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The integration that the interaction came from; on its first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<String>,
    /// Who sees the interaction from here on; on its first event and when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

from_fields!(Recorded {
    id, cause, at, occurred_at, interaction_id, version, trace, integration, distribution, event [*]
});

/// What happened. Where an agent did it, `by` is the agent's login.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
#[allow(missing_docs, reason = "the fields are those of the table in docs/PROTOCOL.md")]
pub enum Event {
    #[serde(rename = "call.queued")]
    CallQueued {
        call: String,
        from: String,
        to: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contact: Option<Contact>,
    },
    /// With an `agent` it is an offer to that agent until `deadline`.
    #[serde(rename = "call.ringing")]
    CallRinging {
        call: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Login>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
    },
    #[serde(rename = "call.answered")]
    CallAnswered { call: String, agent: Login },
    #[serde(rename = "call.held")]
    CallHeld {
        call: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    #[serde(rename = "call.resumed")]
    CallResumed {
        call: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    /// To an `agent` it is an offer until `deadline`.
    #[serde(rename = "call.transferred")]
    CallTransferred {
        call: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Login>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    /// With `wrap_up_until` the agent has until then for the paperwork.
    #[serde(rename = "call.ended")]
    CallEnded {
        call: String,
        reason: EndReason,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hung_up_by: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recording_url: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wrap_up_until: Option<Timestamp>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    /// With an `agent` it is an offer to that agent until `deadline`.
    #[serde(rename = "chat.started")]
    ChatStarted {
        chat: String,
        contact: Contact,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Login>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
    },
    /// `by` writes it if it is outbound; the customer if it is inbound.
    #[serde(rename = "chat.message")]
    ChatMessage {
        chat: String,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        direction: Direction,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    /// With `until` it comes back by itself then.
    #[serde(rename = "chat.held")]
    ChatHeld { chat: String, until: Timestamp, by: Login },
    #[serde(rename = "chat.resumed")]
    ChatResumed {
        chat: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    /// With `wrap_up_until` the agent has until then for the paperwork.
    #[serde(rename = "chat.ended")]
    ChatEnded {
        chat: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wrap_up_until: Option<Timestamp>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    #[serde(rename = "ticket.opened")]
    TicketOpened {
        ticket: String,
        subject: String,
        body: String,
        priority: Priority,
        requester: Contact,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tags: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    /// `by` writes it, or `author` in the outside system.
    #[serde(rename = "ticket.commented")]
    TicketCommented {
        ticket: String,
        body: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        author: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    #[serde(rename = "ticket.updated")]
    TicketUpdated {
        ticket: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<TicketStatus>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        priority: Option<Priority>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tags: Option<Vec<String>>,
        #[serde(default, skip_serializing_if = "Assignee::is_unchanged")]
        assignee: Assignee,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    #[serde(rename = "ticket.snoozed")]
    TicketSnoozed { ticket: String, until: Timestamp, by: Login },
    /// The time for paperwork is over: the call is ended, the chat closed.
    #[serde(rename = "interaction.wrapped_up")]
    WrappedUp {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Login>,
    },
    /// To an agent, or back to everybody.
    #[serde(rename = "interaction.assigned")]
    Assigned {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Login>,
        by: Login,
    },
    #[serde(rename = "interaction.noted")]
    Noted { text: String, by: Login },
    #[serde(rename = "interaction.tagged")]
    Tagged { tag: String, by: Login },
    #[serde(rename = "interaction.untagged")]
    Untagged { tag: String, by: Login },
    #[serde(rename = "interaction.contact_linked")]
    ContactLinked { contact: Contact, by: Login },
    #[serde(rename = "offer.accepted")]
    OfferAccepted { agent: Login },
    #[serde(rename = "offer.rejected")]
    OfferRejected { agent: Login },
    /// The agent let it lapse: a missed call or chat.
    #[serde(rename = "offer.timed_out")]
    OfferTimedOut { agent: Login },
    #[serde(rename = "notice")]
    Notice { text: String, level: NoticeLevel },
}

from_type!(Event {
    "call.queued" => CallQueued { call, from, to, queue, contact },
    "call.ringing" => CallRinging { call, agent, deadline },
    "call.answered" => CallAnswered { call, agent },
    "call.held" => CallHeld { call, by },
    "call.resumed" => CallResumed { call, by },
    "call.transferred" => CallTransferred { call, queue, agent, deadline, by },
    "call.ended" => CallEnded { call, reason, hung_up_by, recording_url, wrap_up_until, by },
    "chat.started" => ChatStarted { chat, contact, queue, text, agent, deadline },
    "chat.message" => ChatMessage { chat, text, message, direction, by },
    "chat.held" => ChatHeld { chat, until, by },
    "chat.resumed" => ChatResumed { chat, by },
    "chat.ended" => ChatEnded { chat, reason, wrap_up_until, by },
    "ticket.opened" => TicketOpened { ticket, subject, body, priority, requester, queue, tags [?], by },
    "ticket.commented" => TicketCommented { ticket, body, author, by },
    "ticket.updated" => TicketUpdated { ticket, status, priority, subject, tags, assignee, by },
    "ticket.snoozed" => TicketSnoozed { ticket, until, by },
    "interaction.wrapped_up" => WrappedUp { by },
    "interaction.assigned" => Assigned { agent, by },
    "interaction.noted" => Noted { text, by },
    "interaction.tagged" => Tagged { tag, by },
    "interaction.untagged" => Untagged { tag, by },
    "interaction.contact_linked" => ContactLinked { contact, by },
    "offer.accepted" => OfferAccepted { agent },
    "offer.rejected" => OfferRejected { agent },
    "offer.timed_out" => OfferTimedOut { agent },
    "notice" => Notice { text, level },
});

impl Event {
    /// The `type` on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CallQueued { .. } => "call.queued",
            Self::CallRinging { .. } => "call.ringing",
            Self::CallAnswered { .. } => "call.answered",
            Self::CallHeld { .. } => "call.held",
            Self::CallResumed { .. } => "call.resumed",
            Self::CallTransferred { .. } => "call.transferred",
            Self::CallEnded { .. } => "call.ended",
            Self::ChatStarted { .. } => "chat.started",
            Self::ChatMessage { .. } => "chat.message",
            Self::ChatHeld { .. } => "chat.held",
            Self::ChatResumed { .. } => "chat.resumed",
            Self::ChatEnded { .. } => "chat.ended",
            Self::TicketOpened { .. } => "ticket.opened",
            Self::TicketCommented { .. } => "ticket.commented",
            Self::TicketUpdated { .. } => "ticket.updated",
            Self::TicketSnoozed { .. } => "ticket.snoozed",
            Self::WrappedUp { .. } => "interaction.wrapped_up",
            Self::Assigned { .. } => "interaction.assigned",
            Self::Noted { .. } => "interaction.noted",
            Self::Tagged { .. } => "interaction.tagged",
            Self::Untagged { .. } => "interaction.untagged",
            Self::ContactLinked { .. } => "interaction.contact_linked",
            Self::OfferAccepted { .. } => "offer.accepted",
            Self::OfferRejected { .. } => "offer.rejected",
            Self::OfferTimedOut { .. } => "offer.timed_out",
            Self::Notice { .. } => "notice",
        }
    }
}

impl From<CommandId> for EventId {
    fn from(id: CommandId) -> Self {
        Self(id.0)
    }
}
