//! Bodies of the HTTP APIs.

use std::collections::BTreeMap;

use domain::{
    Channel, EventId, Fields, FromJson, Interaction, Login, Presence, Recorded, Role, Timestamp,
    from_fields, from_word,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Cursor, Principal, ReplyError};

/// One place in a body that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The place, as a JSON pointer.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// RFC 9457 `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`, or a place in docs/PROTOCOL.md.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every problem of this type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The places in the body that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// Answers a POST: the broker holds the event durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The event's id; `cause` of what it brings about.
    pub id: EventId,
    /// Where it went.
    pub channel: Channel,
    /// Where its journey is told.
    pub status_url: String,
}

/// A step of an event's journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The external API, or an aggregator, has decoded and authorised it.
    Accepted,
    /// The broker has confirmed it.
    Brokered,
    /// The backend has committed its outcome.
    Decided,
    /// The outbound stream has confirmed its events.
    Announced,
    /// An aggregator has written it to a client's socket.
    Sent,
    /// A client has it.
    Received,
    /// A client has had it on the screen.
    Rendered,
    /// An agent has acted on the interaction.
    Acted,
}

from_word!(Stage {
    "accepted" => Accepted,
    "brokered" => Brokered,
    "decided" => Decided,
    "announced" => Announced,
    "sent" => Sent,
    "received" => Received,
    "rendered" => Rendered,
    "acted" => Acted,
});

impl Stage {
    /// In the order of the journey.
    pub const ALL: &'static [Self] = &[
        Self::Accepted,
        Self::Brokered,
        Self::Decided,
        Self::Announced,
        Self::Sent,
        Self::Received,
        Self::Rendered,
        Self::Acted,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Brokered => "brokered",
            Self::Decided => "decided",
            Self::Announced => "announced",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Rendered => "rendered",
            Self::Acted => "acted",
        }
    }
}

/// When a step was reached: the first time, by how many, by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JourneyStage {
    /// Which step.
    pub stage: Stage,
    /// The first time.
    pub at: Timestamp,
    /// How many clients, from `sent` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// For direct and multicast events: which agents, and when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<Login, Timestamp>,
}

from_fields!(JourneyStage { stage, at, count, agents [?] });

/// An event that was brought about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JourneyEvent {
    /// Its id.
    pub id: EventId,
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its channel.
    pub channel: Channel,
    /// Its offset there.
    pub offset: u64,
}

from_fields!(JourneyEvent { id, kind ["type"], channel, offset });

/// What the backend made of an event or command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done: the body of the reply.
    Ok(serde_json::Value),
    /// It was refused, and changed nothing.
    Error(ReplyError),
}

impl FromJson for Outcome {
    fn from_json(json: serde_json::Value) -> Option<Self> {
        let mut fields = Fields::of(json)?;
        match fields.take::<Option<_>>("error")? {
            Some(error) => Some(Self::Error(error)),
            None => fields.take("ok").map(Self::Ok),
        }
    }
}

/// `GET /external/events/{id}`: where an event has got to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Journey {
    /// The event's id.
    pub id: EventId,
    /// The furthest step that it has reached.
    pub status: Stage,
    /// Each step that it has reached, in order.
    pub stages: Vec<JourneyStage>,
    /// What the backend made of it, once decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What it brought about.
    pub events: Vec<JourneyEvent>,
}

from_fields!(Journey { id, status, stages, outcome, events });

/// Which interactions a list holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// Assigned or offered to me, and not over.
    Mine,
    /// Nobody's, and not over.
    Unassigned,
    /// Not over.
    Open,
    /// Over.
    Closed,
    /// Everything.
    #[default]
    All,
}

/// `GET /api/v1/interactions`: newest change first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InteractionList {
    /// One page.
    pub interactions: Vec<Interaction>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Where each channel stood as of the read: go on from here.
    pub streams: BTreeMap<Channel, Cursor>,
}

from_fields!(InteractionList { interactions, next_cursor, streams });

/// `GET /api/v1/interactions/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InteractionDetail {
    /// How it stands.
    #[serde(flatten)]
    pub interaction: Interaction,
    /// Its events, oldest first; the last 500.
    pub timeline: Vec<Recorded>,
    /// The contact's other interactions, newest first; the last 20.
    #[serde(default)]
    pub related: Vec<Interaction>,
    /// Where each channel stood as of the read: go on from here.
    pub streams: BTreeMap<Channel, Cursor>,
}

from_fields!(InteractionDetail { timeline, related [?], streams, interaction [*] });

/// `GET /api/v1/me`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Me {
    /// Who is signed in.
    pub principal: Principal,
    /// Live aggregators, least loaded first: WebSocket addresses.
    pub aggregators: Vec<String>,
}

from_fields!(Me { principal, aggregators });

/// An agent, as colleagues see one: `GET /api/v1/agents`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// The agent's id.
    pub id: Uuid,
    /// The agent's login.
    pub login: Login,
    /// The agent's name.
    pub name: String,
    /// What the agent may do.
    pub role: Role,
    /// Whether the agent can be given work.
    pub presence: Presence,
    /// Why away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

from_fields!(AgentView { id, login, name, role, presence, reason, since });

/// One death of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// `expired`, `delivery_limit`, or what was wrong with it.
    pub reason: String,
    /// When, if the broker tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

from_fields!(Death { reason, at });

/// A message that nobody could do: `GET /api/v1/dead` and, with its body,
/// `GET /api/v1/dead/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// The id of the event or command.
    pub id: String,
    /// Its channel.
    pub channel: Channel,
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The integration, or the member, that sent it.
    pub app_id: String,
    /// When it was made.
    pub at: Timestamp,
    /// The partition it came from, and is replayed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// How it died, the last time last: more than once if it was replayed.
    pub deaths: Vec<Death>,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its body's length.
    pub bytes: usize,
    /// Its body: JSON, or text if it is none. Absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
}

from_fields!(DeadLetterView {
    id, channel, kind ["type"], app_id, at, partition, deaths, headers, bytes, body
});

/// `GET /api/v1/dead`: the oldest of each channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterList {
    /// Without their bodies.
    pub dead: Vec<DeadLetterView>,
    /// True if there may be more than were asked for.
    pub more: bool,
}

from_fields!(DeadLetterList { dead, more });
