//! The browser's decoders read what serde writes, and what serde reads: for
//! every variant and every field, there and left out.
//!
//! Values are made by construction. A struct literal without one of its fields,
//! a match without one of the variants and a field whose type has no sample
//! don't compile; so whatever is new comes here as well.

use std::collections::BTreeMap;
use std::fmt::Debug;

use domain::{
    Assignee, CallState, Channel, ChatState, CommandId, Contact, ContactId, Direction,
    Distribution, EndReason, Event, EventId, FromJson, Interaction, InteractionId, Kind, Login,
    NoticeLevel, Offer, OfferState, Presence, Priority, Recorded, Role, SessionId, Stage,
    TicketStatus, Timestamp,
};
use protocol::{
    AgentView, Alert, AuditMember, AuditReport, AuditTotals, AuditView, Block, Cursor,
    CursorReport, DeadLetterList, DeadLetterView, Death, Difference, Digest, Hop, HopReport,
    InteractionDetail, InteractionList, Journey, JourneyEvent, JourneyStage, Me, Outcome,
    Principal, ReplyError, ServerFrame, Signal, Stage as JourneyStep,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

/// Values of a type, one for each number. Nothing in them is empty; every
/// variant comes as the numbers go on.
trait Sample: Sized {
    fn nth(n: usize) -> Self;
}

/// A struct, by all its fields.
macro_rules! filled {
    ($($type:ident { $($field:ident),+ $(,)? })+) => {$(
        impl Sample for $type {
            fn nth(n: usize) -> Self {
                Self { $($field: Sample::nth(n)),+ }
            }
        }
    )+};
}

/// An enum, by all its variants and all their fields.
macro_rules! one_of {
    ($($type:ident { $($variant:ident { $($field:tt),* $(,)? }),+ $(,)? })+) => {$(
        impl Sample for $type {
            fn nth(n: usize) -> Self {
                let made: &[fn(usize) -> Self] = &[$(|_n| {
                    Self::$variant { $($field: Sample::nth(_n)),* }
                }),+];
                let one = made[n % made.len()](n / made.len());
                match one { $(Self::$variant { .. } => one),+ }
            }
        }
    )+};
}

/// An enum of words that lists itself.
macro_rules! words {
    ($($type:ident),+) => {$(
        impl Sample for $type {
            fn nth(n: usize) -> Self {
                Self::ALL[n % Self::ALL.len()]
            }
        }
    )+};
}

macro_rules! numbers {
    ($($type:ident),+) => {$(
        impl Sample for $type {
            fn nth(n: usize) -> Self {
                Self::try_from(n % 1_000 + 1).expect("small")
            }
        }
    )+};
}

macro_rules! ids {
    ($($type:ident),+) => {$(
        impl Sample for $type {
            fn nth(n: usize) -> Self {
                Self(Sample::nth(n))
            }
        }
    )+};
}

numbers!(u32, u64, usize);
ids!(EventId, CommandId, InteractionId, ContactId, SessionId);
words!(
    Channel,
    Kind,
    CallState,
    ChatState,
    TicketStatus,
    Priority,
    EndReason,
    Presence,
    Role,
    NoticeLevel,
    JourneyStep
);

impl Sample for bool {
    fn nth(n: usize) -> Self {
        n.is_multiple_of(2)
    }
}

impl Sample for String {
    fn nth(n: usize) -> Self {
        format!("\"word\" {n} \u{1f407}")
    }
}

impl Sample for Uuid {
    fn nth(n: usize) -> Self {
        Self::from_u128(u128::MAX - n as u128)
    }
}

impl Sample for Timestamp {
    fn nth(n: usize) -> Self {
        Self::from_millis(1_769_860_800_007 + i64::try_from(n).expect("small") * 86_400_001)
    }
}

impl Sample for Login {
    fn nth(n: usize) -> Self {
        format!("agent-{n}").parse().expect("a login")
    }
}

impl Sample for Value {
    fn nth(n: usize) -> Self {
        json!({ "any": [n, true, "text"] })
    }
}

/// There; that it may be absent is seen by leaving it out.
impl<T: Sample> Sample for Option<T> {
    fn nth(n: usize) -> Self {
        Some(T::nth(n))
    }
}

impl<T: Sample> Sample for Box<T> {
    fn nth(n: usize) -> Self {
        Self::new(T::nth(n))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn nth(n: usize) -> Self {
        vec![T::nth(n), T::nth(n + 1)]
    }
}

impl<K: Sample + Ord, V: Sample> Sample for BTreeMap<K, V> {
    fn nth(n: usize) -> Self {
        [n, n + 1].map(|n| (K::nth(n), V::nth(n))).into()
    }
}

one_of! {
    Assignee { Agent { 0 }, Nobody {}, Unchanged {} }
    Direction { Inbound {}, Outbound {} }
    Distribution { Broadcast {}, Multicast { 0 }, Direct { 0 } }
    OfferState { Pending {}, Accepted {}, Rejected {}, TimedOut {}, Rescinded {} }
    Stage { Call { 0 }, Chat { 0 }, Ticket { 0 } }
    Event {
        CallQueued { call, from, to, queue, contact },
        CallRinging { call, agent, deadline },
        CallAnswered { call, agent },
        CallHeld { call, by },
        CallResumed { call, by },
        CallTransferred { call, queue, agent, deadline, by },
        CallEnded { call, reason, hung_up_by, recording_url, wrap_up_until, by },
        ChatStarted { chat, contact, queue, text, agent, deadline },
        ChatMessage { chat, text, message, direction, by },
        ChatHeld { chat, until, by },
        ChatResumed { chat, by },
        ChatEnded { chat, reason, wrap_up_until, by },
        TicketOpened { ticket, subject, body, priority, requester, queue, tags, by },
        TicketCommented { ticket, body, author, by },
        TicketUpdated { ticket, status, priority, subject, tags, assignee, by },
        TicketSnoozed { ticket, until, by },
        WrappedUp { by },
        Assigned { agent, by },
        Noted { text, by },
        Tagged { tag, by },
        Untagged { tag, by },
        ContactLinked { contact, by },
        OfferAccepted { agent },
        OfferRejected { agent },
        OfferTimedOut { agent },
        Notice { text, level },
    }
    Signal {
        Typing { interaction_id, agent },
        Viewing { interaction_id, agent, viewing },
        Presence { agent, presence, reason, since },
    }
    ServerFrame {
        Welcome { session, aggregator, principal, heartbeat_ms, streams, peers },
        Event { channel, offset, event },
        Reply { id, ok, error },
        Signal { signal },
        Gap { channel, epoch, offset },
        Peers { urls },
        Migrate { to, deadline_ms },
        Ping { at, sent, blocked },
    }
    Outcome { Ok { 0 }, Error { 0 } }
    Hop { Announced {}, Delivered {}, Client {} }
    Difference { Missing {}, Altered {}, Unknown {}, Stalled {}, Disputed {}, ShownTwice {} }
}

filled! {
    Contact { id, name, email, phone }
    Recorded {
        id, cause, at, occurred_at, interaction_id, version, trace, integration, distribution,
        event,
    }
    Offer { agent, deadline, state }
    Interaction {
        id, stage, version, integration, external_id, distribution, assignee, offer, contact,
        queue, subject, priority, tags, from, to, end_reason, recording_url, preview,
        waiting_since, answered_at, until, ended_at, created_at, updated_at,
    }
    Cursor { epoch, offset }
    CursorReport { epoch, offset, recovered, replayed }
    Principal { id, login, name, role }
    ReplyError { code, message, temporary, pointer }
    JourneyStage { stage, at, count, agents }
    JourneyEvent { id, kind, channel, offset }
    Journey { id, status, stages, outcome, events }
    InteractionList { interactions, next_cursor, streams }
    InteractionDetail { interaction, timeline, related, streams }
    Me { principal, aggregators }
    AgentView { id, login, name, role, presence, reason, since }
    Death { reason, at }
    DeadLetterView {
        id, channel, kind, app_id, at, partition, deaths, headers, bytes, body,
    }
    DeadLetterList { dead, more }
    Digest { count, hash }
    Alert { at, member, hop, channel, block, offset, partition, difference, events }
    Block { block, partitions }
    HopReport { head, verified, blocks, partitions, last }
    AuditTotals { missing, altered, repeated, shown_twice, answers, unverified, alerts }
    AuditReport { totals, hops, alerts }
    AuditMember { member, report }
    AuditView { totals, heads, members, alerts }
}

/// The places in a value, as JSON pointers, those within included.
fn places(json: &Value, at: &str, found: &mut Vec<String>) {
    let mut inside = |name: &str, json: &Value| {
        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        places(json, &at, found);
        found.push(at);
    };
    match json {
        Value::Object(fields) => fields.iter().for_each(|(name, json)| inside(name, json)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, json)| inside(&at.to_string(), json));
        }
        _ => {}
    }
}

/// The value without what stands at a place; none if that is no field.
fn without(json: &Value, place: &str) -> Option<Value> {
    let (parent, name) = place.rsplit_once('/')?;
    let mut lacking = json.clone();
    lacking.pointer_mut(parent)?.as_object_mut()?.remove(name)?;
    Some(lacking)
}

/// With one more field that nobody knows beside it.
fn with_more(json: &Value, place: &str) -> Option<Value> {
    let (parent, _) = place.rsplit_once('/')?;
    let mut more = json.clone();
    more.pointer_mut(parent)?.as_object_mut()?.insert("later".into(), json!(1));
    Some(more)
}

trait Decoded: Sample + FromJson + Serialize + DeserializeOwned + PartialEq + Debug {}
impl<T: Sample + FromJson + Serialize + DeserializeOwned + PartialEq + Debug> Decoded for T {}

/// So many values of a type: read as they were written, and as serde reads them
/// with each field left out, null, or with an unknown one beside it.
fn agree<T: Decoded>(values: usize) {
    for value in (0..values).map(T::nth) {
        let json = serde_json::to_value(&value).expect("json");
        assert_eq!(T::from_json(json.clone()).as_ref(), Some(&value), "{json}");
        assert_eq!(T::from_text(&json.to_string()).as_ref(), Some(&value), "{json}");
        let mut found = Vec::new();
        places(&json, "", &mut found);
        for place in found {
            if let Some(lacking) = without(&json, &place) {
                let by_serde = serde_json::from_value::<T>(lacking.clone()).ok();
                assert_eq!(T::from_json(lacking), by_serde, "without {place}: {json}");
            }
            let mut null = json.clone();
            *null.pointer_mut(&place).expect("a place") = Value::Null;
            // The browser may take more than serde does; never something else.
            for changed in [Some(null), with_more(&json, &place)].into_iter().flatten() {
                if let Ok(by_serde) = serde_json::from_value::<T>(changed.clone()) {
                    assert_eq!(T::from_json(changed.clone()), Some(by_serde), "{changed}");
                }
            }
        }
    }
}

#[test]
fn the_browser_reads_every_event() {
    // 26 variants, with four values of each of their fields.
    agree::<Recorded>(104);
}

#[test]
fn the_browser_reads_every_server_frame() {
    // Each of 8 with 26 events, or whatever they carry.
    agree::<ServerFrame>(8 * 26);
    assert_eq!(ServerFrame::from_text(r#"{"type":"dance"}"#), None);
    assert_eq!(ServerFrame::from_text("{no json"), None);
}

#[test]
fn the_browser_reads_every_snapshot() {
    // Each kind in each of its states.
    agree::<Interaction>(3 * 7);
    agree::<InteractionList>(4);
    agree::<InteractionDetail>(26);
    agree::<Me>(3);
    agree::<Vec<AgentView>>(5);
}

#[test]
fn the_browser_reads_every_page_of_administration() {
    agree::<Journey>(16);
    agree::<DeadLetterView>(3);
    agree::<DeadLetterList>(3);
    agree::<Alert>(6);
    agree::<AuditView>(6);
}
