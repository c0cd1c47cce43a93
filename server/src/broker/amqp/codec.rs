//! Between a [`Message`] and the properties of AMQP.

use bytes::Bytes;
use domain::{Channel, Timestamp};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use uuid::Uuid;

use crate::broker::{BrokerError, DeadLetter, Message, Partition};
use crate::clock::Clock;

/// Milliseconds: AMQP's own time stamp has seconds only.
const AT_MS: &str = "timestamp_in_ms";
/// On a buried message: why, from which queue, and when.
pub(super) const REASON: &str = "x-reason";
const QUEUE: &str = "x-queue";
const DIED_AT_MS: &str = "x-died-at-ms";
/// Headers that the broker adds, or that are ours alone.
const NOT_OURS: [&str; 8] = [
    AT_MS,
    REASON,
    QUEUE,
    DIED_AT_MS,
    "x-death",
    "x-delivery-count",
    "x-acquired-count",
    "x-stream-offset",
];
const NOT_OURS_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;

/// A name of at most 255 bytes, as AMQP wants it.
pub(super) fn short(text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text)
        .map_err(|_| BrokerError::Unroutable("a name of more than 255 bytes".to_owned()))
}

/// The properties that carry `message`.
///
/// # Errors
/// [`BrokerError::Unroutable`] when an id, a name or a header's name has more
/// than 255 bytes.
pub(super) fn encode(message: &Message, durable: bool) -> Result<BasicProperties, BrokerError> {
    let ms = message.at.as_millis();
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(short(name)?, AMQPValue::LongString(value.as_str().into()));
    }
    headers.insert(AT_MS.into(), AMQPValue::LongLongInt(ms));
    let mut properties = BasicProperties::default()
        .with_message_id(short(&message.id)?)
        .with_type(short(&message.kind)?)
        .with_timestamp(u64::try_from(ms / 1_000).unwrap_or(0))
        .with_content_type("application/json".into())
        .with_delivery_mode(if durable { PERSISTENT } else { TRANSIENT })
        .with_headers(headers);
    if !message.app_id.is_empty() {
        properties = properties.with_app_id(short(&message.app_id)?);
    }
    if let Some(member) = &message.reply_to {
        properties = properties.with_reply_to(short(member)?);
    }
    Ok(properties)
}

/// The properties of a message that is buried.
pub(super) fn encode_buried(
    message: &Message,
    from: Partition,
    reason: &str,
) -> Result<BasicProperties, BrokerError> {
    let properties = encode(message, true)?;
    let mut headers = properties.headers().clone().unwrap_or_default();
    let queue = protocol::names::in_queue(from.channel, from.index);
    headers.insert(REASON.into(), AMQPValue::LongString(reason.into()));
    headers.insert(QUEUE.into(), AMQPValue::LongString(queue.into()));
    let now = Clock::default().now().as_millis();
    headers.insert(DIED_AT_MS.into(), AMQPValue::LongLongInt(now));
    Ok(properties.with_headers(headers))
}

/// A message that came. Whatever a foreign client left out is filled in.
pub(super) fn decode(properties: &BasicProperties, body: Vec<u8>) -> Message {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    let headers = properties.headers().as_ref();
    let at = headers
        .and_then(|headers| headers.inner().get(AT_MS))
        .and_then(AMQPValue::as_long_long_int)
        .or_else(|| {
            let seconds = i64::try_from((*properties.timestamp())?).ok()?;
            seconds.checked_mul(1_000)
        })
        .map_or_else(|| Clock::default().now(), Timestamp::from_millis);
    let own_headers = headers
        .into_iter()
        .flat_map(|headers| headers.inner())
        .filter(|(name, _)| {
            let name = name.as_str();
            !NOT_OURS.contains(&name)
                && !NOT_OURS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
        .filter_map(|(name, value)| Some((name.to_string(), plain(value)?)))
        .collect();
    let mut message = Message {
        id: text(properties.message_id()).unwrap_or_default(),
        kind: text(properties.kind()).unwrap_or_default(),
        app_id: text(properties.app_id()).unwrap_or_default(),
        at,
        headers: own_headers,
        reply_to: text(properties.reply_to()),
        body: Bytes::from(body),
    };
    if message.id.is_empty() {
        message.id = likeness(&message, *properties.timestamp()).to_string();
    }
    message
}

/// An id for a message without one: the same whenever it is delivered, so it
/// is made of what its sender gave it and of nothing that the broker adds.
fn likeness(message: &Message, seconds: Option<u64>) -> Uuid {
    let of = (&message.kind, &message.app_id, seconds, &message.headers);
    let mut bytes = format!("{of:?}").into_bytes();
    bytes.extend_from_slice(&message.body);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &bytes)
}

/// The place of a message in a stream.
pub(super) fn stream_offset(properties: &BasicProperties) -> Option<u64> {
    let offset = properties.headers().as_ref()?.inner().get("x-stream-offset")?;
    u64::try_from(offset.as_long_long_int()?).ok()
}

/// A dead letter, whether the broker or [`encode_buried`] made it one.
pub(super) fn decode_dead(properties: &BasicProperties, body: Vec<u8>) -> DeadLetter {
    let message = decode(properties, body);
    let header = |name: &str| properties.headers().as_ref()?.inner().get(name).cloned();
    // The newest death comes first.
    let death = header("x-death")
        .and_then(|deaths| deaths.as_array()?.as_slice().first()?.as_field_table().cloned());
    let of_death = |name: &str| death.as_ref()?.inner().get(name).cloned();
    let queue = header(QUEUE).or_else(|| of_death("queue")).as_ref().and_then(plain);
    let reason = header(REASON).or_else(|| of_death("reason")).as_ref().and_then(plain);
    let at = match (header(DIED_AT_MS), of_death("time")) {
        (Some(AMQPValue::LongLongInt(ms)), _) => Some(ms),
        (_, Some(AMQPValue::Timestamp(seconds))) => {
            i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000))
        }
        _ => None,
    };
    DeadLetter {
        message,
        reason: reason.unwrap_or_else(|| "unknown".to_owned()),
        at: at.map(Timestamp::from_millis),
        partition: queue.as_deref().and_then(partition),
    }
}

/// The partition that a queue's name stands for.
fn partition(queue: &str) -> Option<Partition> {
    let (channel, index) = queue.strip_prefix("warren.in.")?.rsplit_once('.')?;
    Some(Partition { channel: channel.parse::<Channel>().ok()?, index: index.parse().ok()? })
}

/// A header's value as text, if it is one that can be written so.
fn plain(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(it) => it.to_string(),
        AMQPValue::ShortShortInt(it) => it.to_string(),
        AMQPValue::ShortShortUInt(it) => it.to_string(),
        AMQPValue::ShortInt(it) => it.to_string(),
        AMQPValue::ShortUInt(it) => it.to_string(),
        AMQPValue::LongInt(it) => it.to_string(),
        AMQPValue::LongUInt(it) => it.to_string(),
        AMQPValue::LongLongInt(it) => it.to_string(),
        AMQPValue::Float(it) => it.to_string(),
        AMQPValue::Double(it) => it.to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        (
            "[a-z0-9-]{1,40}",
            "[a-z_.]{0,40}",
            ("\\PC{0,60}", 0..4_102_444_800_000_i64),
            proptest::collection::btree_map("x-k[a-z]{1,10}", "\\PC{0,40}", 0..6),
            proptest::option::of("[a-z0-9-]{1,40}"),
            proptest::collection::vec(any::<u8>(), 0..200),
        )
            .prop_map(|(id, kind, (app_id, at), headers, reply_to, body)| Message {
                id,
                kind,
                app_id,
                at: Timestamp::from_millis(at),
                headers,
                reply_to,
                body: body.into(),
            })
    }

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_was(message in message()) {
            let properties = encode(&message, true).unwrap();
            prop_assert_eq!(decode(&properties, message.body.to_vec()), message);
        }

        #[test]
        fn a_buried_message_keeps_itself_its_reason_and_its_origin(
            message in message(), reason in "\\PC{0,80}", index in 0..64_u32,
        ) {
            let from = Partition { channel: Channel::Chat, index };
            let properties = encode_buried(&message, from, &reason).unwrap();
            let dead = decode_dead(&properties, message.body.to_vec());
            prop_assert_eq!(dead.message, message);
            prop_assert_eq!(dead.reason, reason);
            prop_assert_eq!(dead.partition, Some(from));
            prop_assert!(dead.at.is_some());
        }
    }

    #[test]
    fn a_bare_message_of_a_foreign_client_is_filled_in() {
        let mut headers = FieldTable::default();
        headers.insert("x-expect-version".into(), AMQPValue::LongInt(7));
        headers.insert("x-death".into(), AMQPValue::FieldArray(vec![].into()));
        let properties = BasicProperties::default().with_headers(headers).with_timestamp(12);
        let first = decode(&properties, b"{}".to_vec());
        assert_eq!(first, decode(&properties, b"{}".to_vec()));
        assert_eq!(first.at.as_millis(), 12_000);
        let wanted = BTreeMap::from([("x-expect-version".to_owned(), "7".to_owned())]);
        assert_eq!(first.headers, wanted);
        assert!(first.id.parse::<Uuid>().is_ok());
    }

    #[test]
    fn without_an_id_a_redelivery_is_the_same_message_and_a_later_one_is_not() {
        let given = |name: &str, value: &str, seconds| {
            let mut headers = FieldTable::default();
            headers.insert(short(name).unwrap(), AMQPValue::LongString(value.into()));
            let properties = BasicProperties::default().with_headers(headers);
            decode(&properties.with_timestamp(seconds), b"{}".to_vec()).id
        };
        let first = given("x-delivery-count", "1", 12);
        assert_eq!(first, given("x-delivery-count", "2", 12));
        assert_ne!(first, given("x-delivery-count", "1", 13));
        assert_ne!(first, given("x-key", "1", 12));
        let empty = BasicProperties::default().with_message_id("".into()).with_timestamp(12);
        assert_eq!(first, decode(&empty, b"{}".to_vec()).id);
    }

    #[test]
    fn what_is_too_long_for_amqp_is_refused_without_a_panic() {
        let mut long = decode(&BasicProperties::default(), Vec::new());
        long.id = "x".repeat(256);
        assert!(matches!(encode(&long, true), Err(BrokerError::Unroutable(_))));
    }
}
