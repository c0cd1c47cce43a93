//! CloudEvents 1.0 in their JSON formats and in HTTP's binary mode.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>.
//! `type` is ours with a prefix, `data` is the event's other fields, `time`
//! stands in for `at`; source and id together name the event.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::FieldError;
use serde_json::{Map, Value};

use crate::problem::Refused;

/// Before our types.
const PREFIX: &str = "warren.";

/// A CloudEvent, turned into one of our events.
#[derive(Debug, PartialEq)]
pub(super) struct Unwrapped {
    /// Our event.
    pub(super) event: Value,
    /// Source and id: the same ones name the same event.
    pub(super) name: String,
    /// The distributed tracing extension.
    pub(super) trace: Option<String>,
    /// True if `at` is the CloudEvent's `time`.
    pub(super) timed: bool,
}

/// Structured mode, or one of a batch.
pub(super) fn structured(value: &Value) -> Result<Unwrapped, Refused> {
    let Value::Object(attributes) = value else {
        return Err(Refused::at("", "must be a CloudEvent: an object"));
    };
    let mut errors = Vec::new();
    let mut text = |name: &str, required: bool| match attributes.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.as_str()),
        None | Some(Value::Null) if !required => None,
        found => {
            let detail = if found.is_none() { "is required" } else { "must be a string" };
            errors.push(FieldError { pointer: format!("/{name}"), detail: detail.into() });
            None
        }
    };
    let (version, id, source) = (text("specversion", true), text("id", true), text("source", true));
    let (kind, time) = (text("type", true), text("time", false));
    let (media, trace) = (text("datacontenttype", false), text("traceparent", false));
    let mut wrong = |pointer: &str, detail: &str| {
        errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
    };
    if version.is_some_and(|version| version != "1.0") {
        wrong("/specversion", "must be 1.0");
    }
    if media.is_some_and(|media| !is_json(media)) {
        wrong("/datacontenttype", "must be application/json");
    }
    let kind = kind.and_then(|kind| {
        let stripped = kind.strip_prefix(PREFIX);
        if stripped.is_none() {
            wrong("/type", "must be one of our types with the prefix \"warren.\"");
        }
        stripped
    });
    let data = match (attributes.get("data"), attributes.get("data_base64")) {
        (Some(Value::Object(data)), None) => Some(data.clone()),
        (None, Some(Value::String(text))) => {
            let decoded = STANDARD.decode(text).ok();
            let data = decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if data.is_none() {
                wrong("/data_base64", "must be a JSON object in base64");
            }
            data
        }
        _ => {
            wrong("/data", "must be an object with the event's fields");
            None
        }
    };
    match (kind, source, id, data) {
        (Some(kind), Some(source), Some(id), Some(data)) if errors.is_empty() => {
            Ok(unwrap(kind, source, id, time, trace, data))
        }
        _ => Err(Refused::shape(errors)),
    }
}

/// Binary mode: attributes in `ce-*` headers, `data` in the body.
pub(super) fn binary(headers: &HeaderMap, value: Value) -> Result<Unwrapped, Refused> {
    let optional = |name: &str| -> Result<Option<String>, Refused> {
        let Some(value) = headers.get(name) else { return Ok(None) };
        let text = percent_decoded(value.as_bytes()).filter(|text| !text.is_empty());
        text.map(Some).ok_or_else(|| Refused::bad(format!("header {name} can't be read")))
    };
    let required = |name: &str| {
        optional(name)?.ok_or_else(|| Refused::bad(format!("header {name} is required")))
    };
    if required("ce-specversion")? != "1.0" {
        return Err(Refused::bad("header ce-specversion must be 1.0"));
    }
    let (id, source, kind) = (required("ce-id")?, required("ce-source")?, required("ce-type")?);
    let Some(kind) = kind.strip_prefix(PREFIX) else {
        return Err(Refused::bad("header ce-type must be our type with the prefix \"warren.\""));
    };
    let Value::Object(data) = value else {
        return Err(Refused::at("", "must be an object with the event's fields"));
    };
    let (time, trace) = (optional("ce-time")?, optional("ce-traceparent")?);
    Ok(unwrap(kind, &source, &id, time.as_deref(), trace.as_deref(), data))
}

/// Where a place of our event is in a structured CloudEvent.
pub(super) fn place(pointer: &str, timed: bool) -> String {
    match pointer {
        "/type" => "/type".to_owned(),
        "/at" if timed => "/time".to_owned(),
        other => format!("/data{other}"),
    }
}

fn unwrap(
    kind: &str,
    source: &str,
    id: &str,
    time: Option<&str>,
    trace: Option<&str>,
    mut data: Map<String, Value>,
) -> Unwrapped {
    data.insert("type".to_owned(), kind.into());
    let timed = !data.contains_key("at") && time.is_some();
    if let (true, Some(time)) = (timed, time) {
        data.insert("at".to_owned(), time.into());
    }
    Unwrapped {
        event: Value::Object(data),
        // An idempotency key has no line break: they never meet.
        name: format!("{source}\n{id}"),
        trace: trace.map(str::to_owned),
        timed,
    }
}

fn is_json(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// `%C3%A4` is `ä`, as the HTTP binding has it; anything else stands for itself.
fn percent_decoded(bytes: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, more @ ..] = rest {
        let hex = more.get(..2).filter(|_| *first == b'%').and_then(|two| {
            let two = std::str::from_utf8(two).ok().filter(|two| !two.starts_with('+'))?;
            u8::from_str_radix(two, 16).ok()
        });
        match hex {
            Some(byte) => {
                decoded.push(byte);
                rest = &more[2..];
            }
            None => {
                decoded.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event() -> Value {
        json!({
            "specversion": "1.0", "id": "7", "source": "/pbx", "type": "warren.call.held",
            "time": "2026-01-31T12:00:00Z", "data": {"call": "c-1"},
        })
    }

    #[test]
    fn a_structured_one_becomes_our_event() {
        let unwrapped = structured(&event()).expect("good");
        let ours = json!({"type": "call.held", "call": "c-1", "at": "2026-01-31T12:00:00Z"});
        assert_eq!(unwrapped.event, ours);
        assert_eq!(unwrapped.name, "/pbx\n7");
        let mut encoded = event();
        let object = encoded.as_object_mut().expect("an object");
        object.remove("data");
        object.insert("data_base64".into(), STANDARD.encode(r#"{"call":"c-1"}"#).into());
        assert_eq!(structured(&encoded).expect("good"), unwrapped);
    }

    #[test]
    fn every_wrong_attribute_is_named() {
        let refused = structured(&json!({
            "specversion": "0.3", "id": "", "type": "call.held", "datacontenttype": "text/xml",
        }))
        .expect_err("bad");
        let places: Vec<_> = refused.errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(
            places,
            ["/id", "/source", "/specversion", "/datacontenttype", "/type", "/data"]
        );
        assert_eq!(structured(&json!([])).expect_err("bad").errors[0].pointer, "");
    }

    #[test]
    fn a_binary_one_has_its_attributes_in_the_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/b%C3%BCro%2"),
            ("ce-type", "warren.notice"),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        let unwrapped = binary(&headers, json!({"text": "n"})).expect("good");
        assert_eq!(unwrapped.event, json!({"type": "notice", "text": "n"}));
        assert_eq!(unwrapped.name, "/büro%2\n7");
        for name in ["ce-specversion", "ce-id", "ce-source", "ce-type"] {
            let mut less = headers.clone();
            less.remove(name);
            let refused = binary(&less, json!({})).expect_err("bad");
            assert!(refused.detail.contains(name), "{}", refused.detail);
        }
    }
}
