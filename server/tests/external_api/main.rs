//! The external API through its router, over a scripted broker and store.

mod document;
#[path = "../doubles/mod.rs"]
mod doubles;
mod journeys;
mod posts;
mod refusals;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use domain::{Channel, EventId, Timestamp};
use protocol::Problem;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;
use warren::auth;
use warren::clock::Clock;
use warren::external_api::{Api, Config, router};
use warren::receipts::Receipts;
use warren::shutdown::Shutdown;
use warren::store::Integration;

use doubles::{FakeBroker, FakeStore};

const KEY: &str = "wk_all";
const NOW: i64 = 1_769_860_800;
const NOTICE: &str = r#"{"type":"notice","text":"n"}"#;

struct World {
    broker: Arc<FakeBroker>,
    store: Arc<FakeStore>,
    receipts: Receipts,
    stopping: CancellationToken,
    router: Router,
    _shutdown: Shutdown,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Every refusal of the page has this form.
    fn problem(&self, status: u16) -> Problem {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem: Problem = serde_json::from_value(self.body.clone()).expect("a problem");
        assert_eq!(problem.status, status);
        assert!(
            !problem.title.is_empty() && !problem.detail.is_empty() && !problem.kind.is_empty()
        );
        if status == 429 || status == 503 {
            let seconds: u64 = self.header("retry-after").parse().expect("whole seconds");
            assert!((1..=60).contains(&seconds));
        }
        if status == 401 {
            assert!(self.header("www-authenticate").starts_with("Bearer"));
        }
        problem
    }

    fn id(&self) -> EventId {
        serde_json::from_value(self.body["id"].clone()).expect("an id")
    }
}

fn integration(name: &str, key: &str, scopes: &[Channel], signature_required: bool) -> Integration {
    Integration {
        id: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        key_hash: auth::hash(key),
        signature_required,
        created_at: Timestamp::from_millis(0),
        revoked_at: None,
    }
}

impl World {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let (broker, store) = (FakeBroker::new(), FakeStore::new());
        store.add(integration("all", KEY, Channel::ALL, false));
        store.add(integration("signs", "wk_signs", Channel::ALL, true));
        store.add(integration("voice-only", "wk_voice", &[Channel::Voice], false));
        let (shutdown, stopping) = (Shutdown::default(), CancellationToken::new());
        let clock = Clock::given(Timestamp::from_millis(NOW * 1_000));
        let receipts = Receipts::start(store.clone(), clock.clone(), &shutdown);
        let api = Api::new(
            broker.clone(),
            store.clone(),
            receipts.clone(),
            clock,
            config,
            stopping.clone(),
        );
        Self { broker, store, receipts, stopping, router: router(api), _shutdown: shutdown }
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        assert!(parts.headers.contains_key(header::CONTENT_TYPE), "{}", parts.status);
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_by(KEY, path).await
    }

    async fn get_by(&self, key: &str, path: &str) -> Answer {
        let request = Request::get(path).header("authorization", format!("Bearer {key}"));
        self.ask(request.body(Body::empty()).expect("a request")).await
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.post_with(path, &[], body).await
    }

    async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        self.ask(request(path, headers, body)).await
    }
}

/// A POST with a key and JSON's content type, unless `headers` says otherwise;
/// an empty value leaves the header out.
fn request(path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let bearer = format!("Bearer {KEY}");
    let mut all: BTreeMap<&str, &str> =
        BTreeMap::from([("authorization", bearer.as_str()), ("content-type", "application/json")]);
    all.extend(headers.iter().copied());
    let mut request = Request::post(path);
    for (name, value) in all.into_iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(name, value);
    }
    request.body(body.into()).expect("a request")
}

fn table() -> Vec<(Channel, Value)> {
    let on = |channel: Channel, kinds: &[Value]| -> Vec<_> {
        kinds.iter().map(|body| (channel, body.clone())).collect()
    };
    let contact = json!({"name": "Ada", "email": "ada@example.com", "phone": "+4930123456"});
    [
        on(
            Channel::Voice,
            &[
                json!({"type":"call.queued","call":"1","from":"+4930123456","to":"+4930999",
                    "queue":"sales","contact":contact}),
                json!({"type":"call.ringing","call":"1","agent":"ana"}),
                json!({"type":"call.answered","call":"1","agent":"ana"}),
                json!({"type":"call.held","call":"1"}),
                json!({"type":"call.resumed","call":"1"}),
                json!({"type":"call.transferred","call":"1","queue":"support"}),
                json!({"type":"call.transferred","call":"1","agent":"ben"}),
                json!({"type":"call.ended","call":"1","reason":"completed","hung_up_by":"caller",
                    "recording_url":"https://pbx.example/1"}),
                json!({"type":"notice","text":"n","level":"critical"}),
            ],
        ),
        on(
            Channel::Chat,
            &[
                json!({"type":"chat.started","chat":"1","contact":contact,"queue":"web","text":"hi"}),
                json!({"type":"chat.message","chat":"1","text":"hello","message":"m"}),
                json!({"type":"chat.typing","chat":"1"}),
                json!({"type":"chat.ended","chat":"1","reason":"left"}),
                json!({"type":"notice","text":"n"}),
            ],
        ),
        on(
            Channel::Tickets,
            &[
                json!({"type":"ticket.opened","ticket":"1","subject":"s","body":"b","priority":"high",
                    "requester":contact,"queue":"q","tags":["a"]}),
                json!({"type":"ticket.opened","subject":"s","body":"b","requester":{}}),
                json!({"type":"ticket.commented","ticket":"1","body":"b","author":"Ada"}),
                json!({"type":"ticket.updated","ticket":"1","status":"open","priority":"low",
                    "subject":"s","tags":["b"],"assignee":"ana"}),
                json!({"type":"notice","text":"n","at":"2026-01-31T12:00:00Z",
                    "distribution":{"direct":"ana"}}),
            ],
        ),
    ]
    .concat()
}
