//! From a body to events that can be published.

use axum::body::Bytes;
use axum::http::HeaderMap;
use domain::{Channel, EventId, partition_of};
use protocol::{EVENT_ARRAY_MAX, EVENT_BYTES_MAX, FieldError, decode_external};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::body::Media;
use super::cloudevents::{self, Unwrapped};
use crate::broker::Partition;
use crate::problem::Refused;

/// The longest idempotency key or `event_id`, in characters.
const KEY_CHARS_MAX: usize = 255;

/// An event, decoded, with its id and its way.
#[derive(Clone, Debug)]
pub(super) struct Posted {
    pub(super) id: EventId,
    /// Its `type`.
    pub(super) kind: String,
    /// The ordering key: its interaction, or its own id.
    pub(super) key: String,
    pub(super) to: Partition,
    /// As posted.
    pub(super) body: Bytes,
    /// What a CloudEvent says of its trace.
    pub(super) trace: Option<String>,
}

/// What a body holds.
#[derive(Debug)]
pub(super) enum Batch {
    One(Posted),
    Many(Vec<Result<Posted, Refused>>),
}

/// Reads the events of one request.
pub(super) struct Reader<'a> {
    pub(super) channel: Channel,
    /// The integration's name.
    pub(super) integration: &'a str,
    pub(super) partitions: u32,
    pub(super) idempotency_key: Option<&'a str>,
}

/// The header, if there is a good one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut values = headers.get_all("idempotency-key").iter();
    let key = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    };
    let fits = |key: &&str| {
        (1..=KEY_CHARS_MAX).contains(&key.len()) && key.bytes().all(|b| (b' '..=b'~').contains(&b))
    };
    key.filter(fits)
        .map(Some)
        .ok_or_else(|| Refused::bad("Idempotency-Key must be 1 to 255 printable ASCII characters"))
}

impl Reader<'_> {
    /// Decodes a whole body; each event of an array has a result of its own.
    pub(super) fn read(
        &self,
        media: Media,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Batch, Refused> {
        let text = std::str::from_utf8(body).map_err(|_| Refused::bad("not JSON: not UTF-8"))?;
        let array = text.trim_start().starts_with('[');
        match media {
            Media::Binary => {
                let unwrapped = cloudevents::binary(headers, parse(text)?)?;
                self.unwrapped(unwrapped, None).map_err(Refused::shape).map(Batch::One)
            }
            Media::Structured => self.structured(&parse(text)?, None).map(Batch::One),
            Media::Json if !array => {
                let event = self.posted(&parse(text)?, body.clone(), None, None);
                event.map_err(Refused::shape).map(Batch::One)
            }
            Media::Batch if !array => {
                parse(text)?;
                Err(Refused::at("", "must be an array of CloudEvents"))
            }
            Media::Json | Media::Batch => self.array(media, text).map(Batch::Many),
        }
    }

    fn array(&self, media: Media, text: &str) -> Result<Vec<Result<Posted, Refused>>, Refused> {
        let Items(items) = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        if items.is_empty() || items.len() > EVENT_ARRAY_MAX {
            return Err(Refused::at("", format!("must have 1 to {EVENT_ARRAY_MAX} events")));
        }
        let one = |index: usize, item: &RawValue| {
            if item.get().len() > EVENT_BYTES_MAX {
                return Err(Refused::too_large(EVENT_BYTES_MAX, "one event"));
            }
            let value = parse(item.get())?;
            if media == Media::Batch {
                return self.structured(&value, Some(index));
            }
            let body = Bytes::copy_from_slice(item.get().as_bytes());
            self.posted(&value, body, Some(index), None).map_err(Refused::shape)
        };
        let items = items.into_iter().enumerate();
        Ok(items
            .map(|(index, item)| {
                one(index, item).map_err(|refused| refused.below(&format!("/{index}")))
            })
            .collect())
    }

    fn structured(&self, value: &Value, index: Option<usize>) -> Result<Posted, Refused> {
        let unwrapped = cloudevents::structured(value)?;
        let timed = unwrapped.timed;
        self.unwrapped(unwrapped, index).map_err(|mut errors| {
            for error in &mut errors {
                error.pointer = cloudevents::place(&error.pointer, timed);
            }
            Refused::shape(errors)
        })
    }

    fn unwrapped(
        &self,
        unwrapped: Unwrapped,
        index: Option<usize>,
    ) -> Result<Posted, Vec<FieldError>> {
        let Unwrapped { event, name, trace, .. } = unwrapped;
        let body = Bytes::from(event.to_string());
        let posted = self.posted(&event, body, index, Some(&name))?;
        Ok(Posted { trace, ..posted })
    }

    /// An event's own `event_id` names it; else the idempotency key, with its
    /// place in an array; else its CloudEvent; else it gets a new id.
    fn posted(
        &self,
        value: &Value,
        body: Bytes,
        index: Option<usize>,
        name: Option<&str>,
    ) -> Result<Posted, Vec<FieldError>> {
        let (own, routed) = (event_id(value), decode_external(self.channel, value));
        let (own, routed) = match (own, routed) {
            (Ok(own), Ok(routed)) => (own, routed),
            (own, routed) => {
                let mut errors = routed.err().unwrap_or_default();
                errors.extend(own.err());
                return Err(errors);
            }
        };
        let derive = |key: &str| EventId::derive(self.integration, key);
        let id = match (own, self.idempotency_key, name) {
            (Some(own), ..) => derive(own),
            (None, Some(key), _) => {
                index.map_or_else(|| derive(key), |index| derive(&format!("{key}/{index}")))
            }
            (None, None, Some(name)) => derive(name),
            (None, None, None) => EventId(Uuid::now_v7()),
        };
        let own_id = id.to_string();
        let interaction = routed.event.interaction_id(self.integration, self.channel, &own_id);
        let key = interaction.map_or(own_id, |interaction| interaction.to_string());
        Ok(Posted {
            id,
            kind: value.get("type").and_then(Value::as_str).unwrap_or_default().to_owned(),
            to: Partition { channel: self.channel, index: partition_of(&key, self.partitions) },
            key,
            body,
            trace: None,
        })
    }
}

fn event_id(value: &Value) -> Result<Option<&str>, FieldError> {
    let wrong = || FieldError {
        pointer: "/event_id".to_owned(),
        detail: format!("must be a string of 1 to {KEY_CHARS_MAX} characters"),
    };
    match value.get("event_id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let fits = (1..=KEY_CHARS_MAX).contains(&text.chars().count())
                && !text.chars().any(char::is_control);
            if fits { Ok(Some(text)) } else { Err(wrong()) }
        }
        Some(_) => Err(wrong()),
    }
}

fn parse(text: &str) -> Result<Value, Refused> {
    serde_json::from_str(text).map_err(|error| not_json(&error))
}

fn not_json(error: &serde_json::Error) -> Refused {
    Refused::bad(format!("not JSON: {error}"))
}

/// The items of an array, unparsed; those beyond one too many are not kept.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Items<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl<'de> Visitor<'de> for Take {
            type Value = Vec<&'de RawValue>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of events")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() <= EVENT_ARRAY_MAX {
                    match seq.next_element()? {
                        Some(item) => items.push(item),
                        None => return Ok(items),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(items)
            }
        }
        deserializer.deserialize_seq(Take).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use domain::{InteractionId, Kind};

    fn reader<'a>(idempotency_key: Option<&'a str>) -> Reader<'a> {
        Reader { channel: Channel::Tickets, integration: "form", partitions: 4, idempotency_key }
    }

    fn read(key: Option<&str>, body: &str) -> Result<Batch, Refused> {
        let body = Bytes::from(body.to_owned());
        reader(key).read(Media::Json, &HeaderMap::new(), &body)
    }

    fn one(key: Option<&str>, body: &str) -> Posted {
        match read(key, body) {
            Ok(Batch::One(posted)) => posted,
            other => panic!("{other:?}"),
        }
    }

    const NOTICE: &str = r#" {"type":"notice", "text":"n"} "#;

    #[test]
    fn an_event_goes_on_exactly_as_posted_to_the_partition_of_its_interaction() {
        let body = r#"{"type":"ticket.commented","ticket":"T-1","body":"ok","more":1.50}"#;
        let posted = one(None, body);
        assert_eq!(posted.body, body);
        let interaction = InteractionId::derive("form", Kind::Ticket, "T-1").to_string();
        assert_eq!(posted.key, interaction);
        assert_eq!(posted.to.index, partition_of(&interaction, 4));
        let opened =
            one(None, r#"{"type":"ticket.opened","subject":"s","body":"b","requester":{}}"#);
        let own = InteractionId::derive("form", Kind::Ticket, &opened.id.to_string());
        assert_eq!(opened.key, own.to_string());
        let notice = one(None, NOTICE);
        assert_eq!(notice.key, notice.id.to_string());
    }

    #[test]
    fn the_same_name_gives_the_same_id() {
        assert_eq!(one(Some("k"), NOTICE).id, EventId::derive("form", "k"));
        let named = r#"{"type":"notice","text":"n","event_id":"e"}"#;
        assert_eq!(one(None, named).id, EventId::derive("form", "e"));
        assert_eq!(one(Some("k"), named).id, EventId::derive("form", "e"));
        assert_ne!(one(None, NOTICE).id, one(None, NOTICE).id);
        let Ok(Batch::Many(many)) = read(Some("k"), &format!("[{NOTICE},{NOTICE}]")) else {
            panic!("an array");
        };
        let ids: Vec<_> = many.into_iter().map(|one| one.expect("good").id).collect();
        assert_eq!(ids, [EventId::derive("form", "k/0"), EventId::derive("form", "k/1")]);
    }

    #[test]
    fn each_event_of_an_array_has_its_own_result() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let large = format!(r#"{{"type":"notice","text":"{}"}}"#, "x".repeat(EVENT_BYTES_MAX));
        let body = format!(r#"[{NOTICE},{{"type":"notice"}},{large},{deep},7]"#);
        let Ok(Batch::Many(many)) = read(None, &body) else { panic!("an array") };
        let status = |index: usize| many[index].as_ref().err().map(|refused| refused.status);
        assert_eq!(status(0), None);
        assert_eq!(status(1), Some(StatusCode::UNPROCESSABLE_ENTITY));
        assert_eq!(status(2), Some(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(status(3), Some(StatusCode::BAD_REQUEST));
        let refused = many[1].as_ref().expect_err("no text");
        assert_eq!(refused.errors[0].pointer, "/1/text");
        assert_eq!(many[4].as_ref().expect_err("a number").errors[0].pointer, "/4");
    }

    #[test]
    fn a_body_that_is_wrong_as_a_whole_has_one_problem() {
        let many = format!("[{}]", vec!["0"; EVENT_ARRAY_MAX + 2].join(","));
        for (body, status) in [
            ("", StatusCode::BAD_REQUEST),
            ("{", StatusCode::BAD_REQUEST),
            ("[", StatusCode::BAD_REQUEST),
            ("[0,", StatusCode::BAD_REQUEST),
            ("{} {}", StatusCode::BAD_REQUEST),
            ("[] []", StatusCode::BAD_REQUEST),
            ("[]", StatusCode::UNPROCESSABLE_ENTITY),
            ("7", StatusCode::UNPROCESSABLE_ENTITY),
            (&many, StatusCode::UNPROCESSABLE_ENTITY),
        ] {
            assert_eq!(read(None, body).expect_err("wrong").status, status, "{body:.20}");
        }
    }

    #[test]
    fn keys_are_printable_ascii() {
        let key = |bytes: &[u8]| {
            let mut headers = HeaderMap::new();
            let value = axum::http::HeaderValue::from_bytes(bytes).expect("a value");
            headers.insert("idempotency-key", value);
            idempotency_key(&headers).ok().flatten().map(str::to_owned)
        };
        assert_eq!(key(b"order 7 ~").as_deref(), Some("order 7 ~"));
        assert_eq!(key(&[b'x'; 255]).map(|key| key.len()), Some(255));
        for bad in [&b""[..], &[b'x'; 256], "ä".as_bytes(), b"a\tb"] {
            assert_eq!(key(bad), None, "{bad:?}");
        }
        assert!(idempotency_key(&HeaderMap::new()).expect("none is fine").is_none());
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_in_panics(text in "\\PC{0,200}", media in 0usize..3) {
            let media = [Media::Json, Media::Structured, Media::Batch][media];
            for body in [text.clone(), format!("[{text}]"), format!("{{{text}}}")] {
                let _ = reader(None).read(media, &HeaderMap::new(), &Bytes::from(body));
            }
        }
    }
}
