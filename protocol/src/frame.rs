//! Frames of the WebSocket, one JSON object each.

use std::collections::BTreeMap;

use domain::{
    Channel, CommandId, InteractionId, Login, Presence, Recorded, Refusal, RefusalCode, Role,
    SessionId, Timestamp, from_fields, from_type,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::digest::Digest;

/// A place in one channel's events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which journal. Offsets of different epochs have nothing to do with each other.
    pub epoch: String,
    /// The last offset that is known.
    pub offset: u64,
}

from_fields!(Cursor { epoch, offset });

/// Where a channel stands after the hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorReport {
    /// Which journal.
    pub epoch: String,
    /// The last offset after the replay; live events follow.
    pub offset: u64,
    /// True if the client has everything once the replay is read. False if
    /// what it missed can't be replayed, or if it named no place: read a snapshot.
    pub recovered: bool,
    /// How many event frames of this channel follow as replay.
    pub replayed: u64,
}

from_fields!(CursorReport { epoch, offset, recovered, replayed });

/// How far an ack goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckStage {
    /// The client has it.
    #[default]
    Received,
    /// It has been on the screen.
    Rendered,
}

/// What is passed on to who is there, and never stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Signal {
    /// Somebody writes. No agent: the customer.
    Typing {
        /// Where.
        interaction_id: InteractionId,
        /// Who; filled in by the aggregator.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Login>,
    },
    /// Somebody looks at it, or has stopped looking.
    Viewing {
        /// What.
        interaction_id: InteractionId,
        /// Who; filled in by the aggregator.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Login>,
        /// False when the agent has gone on.
        #[serde(default = "yes")]
        viewing: bool,
    },
    /// An agent's presence has changed. From the server only.
    Presence {
        /// Who.
        agent: Login,
        /// What now.
        presence: Presence,
        /// Why away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Since when.
        since: Timestamp,
    },
}

from_type!(Signal {
    "typing" => Typing { interaction_id, agent },
    "viewing" => Viewing { interaction_id, agent, viewing [= true] },
    "presence" => Presence { agent, presence, reason, since },
});

fn yes() -> bool {
    true
}

/// `null` is what is said by leaving the field out.
fn null_is_none<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// From a client to an aggregator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// First, within 10 s.
    Hello {
        /// A bearer token; else the session cookie counts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        /// Default: all that the socket carries.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channels: Option<Vec<Channel>>,
        /// The last place that the client has, for each channel.
        #[serde(
            default,
            deserialize_with = "null_is_none",
            skip_serializing_if = "BTreeMap::is_empty"
        )]
        resume: BTreeMap<Channel, Cursor>,
        /// A name for logs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
    },
    /// Asks for something; answered by [`ServerFrame::Reply`].
    Command {
        /// The same id again has one effect and gets the first reply.
        id: CommandId,
        /// See [`crate::decode_command`]. May carry `expect_version`.
        command: Value,
        /// Don't do it later than this from now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
    },
    /// The client has everything up to here.
    Ack {
        /// Of this channel.
        channel: Channel,
        /// Cumulative.
        offset: u64,
        /// How far it got.
        #[serde(default, deserialize_with = "null_is_none")]
        stage: AckStage,
    },
    /// Fire and forget.
    Signal {
        /// What.
        signal: Signal,
    },
    /// More channels.
    Subscribe {
        /// Which.
        channels: Vec<Channel>,
    },
    /// Fewer channels.
    Unsubscribe {
        /// Which.
        channels: Vec<Channel>,
    },
    /// Answers a ping.
    Pong {
        /// The last offset that the client has, for each channel.
        #[serde(
            default,
            deserialize_with = "null_is_none",
            skip_serializing_if = "BTreeMap::is_empty"
        )]
        positions: BTreeMap<Channel, u64>,
        /// What came by this connection, if the client keeps account.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<Account>,
    },
}

/// A client's account of one connection, up to the ping that it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Event frames of each channel, repeated ones too.
    pub received: BTreeMap<Channel, Digest>,
    /// Event frames that it had already, and dropped.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeated: u64,
    /// Events that came onto its screen twice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shown_twice: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Who is signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The agent's id.
    pub id: Uuid,
    /// The agent's login, as `distribution` and `assignee` use it.
    pub login: Login,
    /// The agent's name, for people.
    pub name: String,
    /// What the agent may do.
    pub role: Role,
}

from_fields!(Principal { id, login, name, role });

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyError {
    /// `conflict`, `not_found`, `forbidden`, `invalid`, `deadline_exceeded`,
    /// `unavailable` or `busy`.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
    /// True if the same command may succeed later.
    pub temporary: bool,
    /// The place in the frame, as a JSON pointer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
}

from_fields!(ReplyError { code, message, temporary, pointer });

impl From<Refusal> for ReplyError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.code {
            RefusalCode::NotFound => "not_found",
            RefusalCode::Conflict => "conflict",
            RefusalCode::Forbidden => "forbidden",
            RefusalCode::Invalid => "invalid",
            RefusalCode::DeadlineExceeded => "deadline_exceeded",
        };
        Self { code: code.into(), message: refusal.message, temporary: false, pointer: None }
    }
}

/// From an aggregator to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// Answers the hello.
    Welcome {
        /// This connection.
        session: SessionId,
        /// The aggregator's member id.
        aggregator: String,
        /// Who is signed in.
        principal: Principal,
        /// A ping comes this often.
        heartbeat_ms: u64,
        /// Where each channel stands.
        streams: BTreeMap<Channel, CursorReport>,
        /// Live aggregators, least loaded first.
        peers: Vec<String>,
    },
    /// Something happened.
    Event {
        /// Of this channel.
        channel: Channel,
        /// Rises strictly; skips what isn't addressed to this client.
        offset: u64,
        /// What. The same bytes for every client.
        event: Box<Recorded>,
    },
    /// Answers a command.
    Reply {
        /// The command's id.
        id: CommandId,
        /// It was done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ok: Option<Value>,
        /// It was not done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ReplyError>,
    },
    /// Passed on, never stored.
    Signal {
        /// What.
        signal: Signal,
    },
    /// Continuity is lost: read a snapshot, go on from here.
    Gap {
        /// Of this channel.
        channel: Channel,
        /// Which journal.
        epoch: String,
        /// Go on after this one.
        offset: u64,
    },
    /// Live aggregators, least loaded first.
    Peers {
        /// Where.
        urls: Vec<String>,
    },
    /// Open the new socket first, then close this one.
    Migrate {
        /// Where to.
        to: String,
        /// This one closes after that.
        deadline_ms: u64,
    },
    /// Answer with a pong.
    Ping {
        /// Now, here.
        at: Timestamp,
        /// Event frames of this connection so far, for each channel.
        sent: BTreeMap<Channel, u64>,
        /// True while the broker takes nothing new: commands are refused as
        /// temporary, events go on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        blocked: bool,
    },
}

from_type!(ServerFrame {
    "welcome" => Welcome { session, aggregator, principal, heartbeat_ms, streams, peers },
    "event" => Event { channel, offset, event },
    "reply" => Reply { id, ok, error },
    "signal" => Signal { signal },
    "gap" => Gap { channel, epoch, offset },
    "peers" => Peers { urls },
    "migrate" => Migrate { to, deadline_ms },
    "ping" => Ping { at, sent, blocked [?] },
});

/// An event frame around an event that is encoded already: the same bytes
/// for every client that gets it.
#[must_use]
pub fn event_frame(channel: Channel, offset: u64, event_json: &str) -> String {
    format!(r#"{{"type":"event","channel":"{channel}","offset":{offset},"event":{event_json}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Event, EventId, NoticeLevel};

    #[test]
    fn the_frame_around_encoded_bytes_is_the_frame() {
        let recorded = Recorded {
            id: EventId(Uuid::nil()),
            cause: Uuid::nil(),
            at: Timestamp::from_millis(0),
            interaction_id: None,
            version: None,
            trace: None,
            occurred_at: None,
            integration: None,
            distribution: None,
            event: Event::Notice { text: "a \"b\"".into(), level: NoticeLevel::Info },
        };
        let json = serde_json::to_string(&recorded).expect("json");
        let frame = event_frame(Channel::Chat, 7, &json);
        let read: ServerFrame = serde_json::from_str(&frame).expect("a frame");
        let expected =
            ServerFrame::Event { channel: Channel::Chat, offset: 7, event: Box::new(recorded) };
        assert_eq!(read, expected);
        assert_eq!(serde_json::to_string(&expected).expect("json"), frame);
    }

    #[test]
    fn null_is_as_good_as_nothing() {
        for (given, same) in [
            (
                r#"{"type":"hello","token":null,"channels":null,"resume":null,"client":null}"#,
                r#"{"type":"hello"}"#,
            ),
            (r#"{"type":"pong","positions":null}"#, r#"{"type":"pong"}"#),
            (
                r#"{"type":"ack","channel":"chat","offset":1,"stage":null}"#,
                r#"{"type":"ack","channel":"chat","offset":1}"#,
            ),
        ] {
            let read = |text| serde_json::from_str::<ClientFrame>(text).expect("a frame");
            assert_eq!(read(given), read(same), "{given}");
        }
    }

    #[test]
    fn an_unknown_type_is_named() {
        let error =
            serde_json::from_str::<ClientFrame>(r#"{"type":"dance"}"#).expect_err("unknown");
        assert!(error.to_string().contains("dance"), "{error}");
    }
}
