//! The external API through its router, over a scripted broker and store.

mod doubles;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::{Channel, EventId, InteractionId, Kind, Timestamp, partition_of};
use futures::FutureExt as _;
use hmac::{Hmac, Mac as _};
use protocol::{
    EVENT_ARRAY_BYTES_MAX, EVENT_BYTES_MAX, Journey, Outcome, Problem, ReplyError, Stage, names,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;
use warren::auth;
use warren::broker::{BrokerError, BrokerState};
use warren::clock::Clock;
use warren::external_api::{Api, Config, router};
use warren::receipts::Receipts;
use warren::shutdown::Shutdown;
use warren::store::{Integration, Receipt};

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
        let request = Request::get(path).header("authorization", format!("Bearer {KEY}"));
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

#[tokio::test]
async fn every_event_of_the_table_is_accepted_and_goes_on_as_it_came() {
    let world = World::new();
    for (count, (channel, body)) in table().into_iter().enumerate() {
        let text = body.to_string();
        let answer = world.post(&format!("/external/{channel}"), text.clone()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{body}: {}", answer.body);
        assert_eq!(answer.body["channel"], channel.as_str());
        let id = answer.id();
        assert_eq!(answer.body["status_url"], format!("/external/events/{id}"));
        let (to, message) = world.broker.published()[count].clone();
        assert_eq!(message.body, text);
        assert_eq!(message.id, id.to_string());
        assert_eq!(Value::from(message.kind.clone()), body["type"]);
        assert_eq!(message.app_id, "all");
        assert_eq!(message.header(names::X_CHANNEL), Some(channel.as_str()));
        let external = ["call", "chat", "ticket"].iter().find_map(|name| body[*name].as_str());
        let key = if message.kind == "notice" {
            id.to_string()
        } else {
            let own = id.to_string();
            InteractionId::derive("all", channel.kind(), external.unwrap_or(&own)).to_string()
        };
        assert_eq!(message.header(names::X_KEY), Some(key.as_str()));
        assert_eq!((to.channel, to.index), (channel, partition_of(&key, 4)));
        assert!(message.header(names::TRACEPARENT).is_some_and(|trace| trace.len() == 55));
    }
}

#[tokio::test]
async fn nothing_is_answered_before_the_broker_has_confirmed() {
    let world = World::new();
    world.broker.shut();
    let mut answer = Box::pin(world.post("/external/chat", NOTICE));
    let arrived = world.broker.arrived(1);
    tokio::select! {
        _ = &mut answer => panic!("answered without a confirm"),
        () = arrived => {}
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!((&mut answer).now_or_never().is_none());
    }
    world.broker.open();
    assert_eq!(answer.await.status, StatusCode::ACCEPTED);
    assert_eq!(world.broker.published().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_confirm_that_never_comes_is_a_503() {
    let world = World::new();
    world.broker.shut();
    world.post("/external/chat", NOTICE).await.problem(503);
}

#[tokio::test]
async fn what_the_broker_does_not_take_is_a_503_that_says_why() {
    let world = World::new();
    for (error, word) in [
        (BrokerError::Down("10.0.0.1".into()), "down"),
        (BrokerError::Blocked("memory".into()), "blocked"),
        (BrokerError::Full("warren.in.chat.0".into()), "full"),
        (BrokerError::Unroutable("chat.0".into()), "topology"),
        (BrokerError::Storage("/secret/path".into()), "storage"),
    ] {
        world.broker.answer(move |_| Err(error.clone()));
        for body in [NOTICE.to_owned(), format!("[{NOTICE},{NOTICE}]")] {
            let problem = world.post("/external/chat", body).await.problem(503);
            assert!(problem.detail.contains(word), "{}", problem.detail);
            assert!(!problem.detail.contains("10.0.0.1") && !problem.detail.contains("secret"));
        }
    }
    world.broker.answer(|_| Ok(()));
    for (state, word) in [
        (BrokerState::Down("gone".into()), "down"),
        (BrokerState::Blocked("disk".into()), "blocked"),
    ] {
        world.broker.set_state(state);
        let problem = world.post("/external/chat", NOTICE).await.problem(503);
        assert!(problem.detail.contains(word), "{}", problem.detail);
    }
    assert!(world.broker.published().is_empty());
    world.broker.set_state(BrokerState::Up);
    assert_eq!(world.post("/external/chat", NOTICE).await.status, StatusCode::ACCEPTED);
    world.store.down.store(true, Ordering::SeqCst);
    let unknown = [("authorization", "Bearer wk_unknown")];
    let problem = world.post_with("/external/chat", &unknown, NOTICE).await.problem(503);
    assert!(problem.detail.contains("store"));
}

#[tokio::test]
async fn every_refusal_of_the_page_is_a_problem() {
    let world = World::new();
    let large = format!(r#"{{"type":"notice","text":"{}"}}"#, "x".repeat(EVENT_BYTES_MAX));
    let larger = format!("[{}]", " ".repeat(EVENT_ARRAY_BYTES_MAX));
    let long_key = "x".repeat(256);
    let chat = "/external/chat";
    for (status, path, headers, body) in [
        (400, chat, &[][..], "{"),
        (400, chat, &[], ""),
        (400, chat, &[("idempotency-key", long_key.as_str())], NOTICE),
        (401, chat, &[("authorization", "")], NOTICE),
        (401, chat, &[("authorization", "Basic abc")], NOTICE),
        (401, chat, &[("authorization", "Bearer wk_unknown")], NOTICE),
        (403, chat, &[("authorization", "Bearer wk_voice")], NOTICE),
        (403, chat, &[("authorization", "Bearer wk_voice")], "[]"),
        (404, "/external/fax", &[], NOTICE),
        (404, "/", &[], NOTICE),
        (405, "/external/events/x", &[], NOTICE),
        (405, "/healthz", &[], NOTICE),
        (413, chat, &[], &large),
        (413, chat, &[], &larger),
        (415, chat, &[("content-type", "")], NOTICE),
        (415, chat, &[("content-type", "text/plain")], NOTICE),
        (415, chat, &[("content-encoding", "gzip")], NOTICE),
        (422, chat, &[], "7"),
        (422, chat, &[], "[]"),
        (422, chat, &[], r#"{"type":"chat.shouted"}"#),
        (422, chat, &[], r#"{"type":"call.held","call":"1"}"#),
    ] {
        world.post_with(path, headers, body.to_owned()).await.problem(status);
    }
    let answer = world.get("/external/chat").await;
    answer.problem(405);
    assert_eq!(answer.header("allow"), "POST");
    world.get("/external/events/nonsense").await.problem(404);
    world.get(&format!("/external/events/{}", Uuid::from_u128(1))).await.problem(404);
    assert!(world.broker.published().is_empty());
}

#[tokio::test]
async fn wrong_fields_are_named_by_their_pointers() {
    let world = World::new();
    let bad = json!({"type":"ticket.opened","subject":"","body":"b","priority":"soon",
        "requester":{"email":"nobody"},"event_id":7});
    let pointers = |problem: Problem| -> Vec<String> {
        problem.errors.into_iter().map(|error| error.pointer).collect()
    };
    let problem = world.post("/external/tickets", bad.to_string()).await.problem(422);
    assert_eq!(pointers(problem), ["/subject", "/priority", "/requester/email", "/event_id"]);
    let all_bad = json!([{"type":"notice"}, {"type":"notice","text":7}]);
    let problem = world.post("/external/tickets", all_bad.to_string()).await.problem(422);
    assert_eq!(pointers(problem), ["/0/text", "/1/text"]);
    let cloud = json!({"specversion":"1.0","id":"1","source":"s","type":"warren.notice",
        "time":"noon","data":{}});
    let structured = [("content-type", "application/cloudevents+json")];
    let problem =
        world.post_with("/external/chat", &structured, cloud.to_string()).await.problem(422);
    assert_eq!(pointers(problem), ["/data/text", "/time"]);
}

#[tokio::test]
async fn a_repeat_has_the_same_id() {
    let world = World::new();
    let key = [("idempotency-key", "order 7")];
    let first = world.post_with("/external/chat", &key, NOTICE).await.id();
    assert_eq!(first, EventId::derive("all", "order 7"));
    assert_eq!(world.post_with("/external/chat", &key, NOTICE).await.id(), first);
    let named = r#"{"type":"notice","text":"n","event_id":"order 7"}"#;
    assert_eq!(world.post("/external/chat", named).await.id(), first);
    assert_ne!(world.post("/external/chat", NOTICE).await.id(), first);
    let array = format!("[{NOTICE},{NOTICE}]");
    let twice = [
        world.post_with("/external/chat", &key, array.clone()).await.body,
        world.post_with("/external/chat", &key, array).await.body,
    ];
    assert_eq!(twice[0], twice[1]);
    assert_eq!(twice[0][1]["id"], EventId::derive("all", "order 7/1").to_string());
}

#[tokio::test]
async fn an_array_keeps_the_order_of_each_interaction() {
    let world = World::new();
    let events: Vec<Value> = (0..1_000)
        .map(|n| json!({"type":"chat.message","chat":format!("c-{}", n % 7),"text":n.to_string()}))
        .collect();
    let answer = world.post("/external/chat", Value::from(events.clone()).to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let results = answer.body.as_array().expect("an array");
    assert_eq!(results.len(), 1_000);
    let published = world.broker.published();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for (_, message) in &published {
        let body: Value = serde_json::from_slice(&message.body).expect("json");
        let n: usize = body["text"].as_str().and_then(|text| text.parse().ok()).expect("a number");
        assert_eq!(results[n]["id"], message.id, "results are in the array's order");
        let key = message.header(names::X_KEY).expect("a key").to_owned();
        let n = i64::try_from(n).expect("small");
        assert!(last.insert(key, n).is_none_or(|before| before < n), "in order");
    }
    assert_eq!((published.len(), last.len()), (1_000, 7));
    let one_too_many = format!("[{}]", vec![NOTICE; 1_001].join(","));
    world.post("/external/chat", one_too_many).await.problem(422);
}

#[tokio::test]
async fn a_mixed_array_has_a_result_for_each_and_nothing_overtakes() {
    let world = World::new();
    let message = |chat: &str, text: &str| json!({"type":"chat.message","chat":chat,"text":text});
    world.broker.answer(|message| {
        if String::from_utf8_lossy(&message.body).contains("jam") {
            return Err(BrokerError::Full("warren.in.chat.1".into()));
        }
        Ok(())
    });
    let body = json!([
        message("a", "1"),
        message("a", "jam"),
        message("a", "2"),
        message("b", "3"),
        {"type": "chat.message", "chat": "b"},
    ]);
    let answer = world.post("/external/chat", body.to_string()).await;
    assert_eq!(answer.status, StatusCode::MULTI_STATUS);
    assert_eq!(answer.header("retry-after"), "5");
    let results = answer.body.as_array().expect("an array");
    let kinds: Vec<_> = results.iter().map(|one| one["status"].as_u64()).collect();
    assert_eq!(kinds, [None, Some(503), Some(503), None, Some(422)]);
    assert_eq!(results[4]["errors"][0]["pointer"], "/4/text");
    assert_eq!(world.broker.published().len(), 2);
}

#[tokio::test]
async fn cloudevents_come_in_both_modes_and_in_batches() {
    let world = World::new();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let cloud = json!({"specversion":"1.0","id":"7","source":"/pbx","type":"warren.call.held",
        "time":"2026-01-31T12:00:00Z","traceparent":trace,"data":{"call":"c-1"}});
    let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
    let first = world.post_with("/external/voice", &structured, cloud.to_string()).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.body);
    assert_eq!(
        world.post_with("/external/voice", &structured, cloud.to_string()).await.id(),
        first.id()
    );
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/pbx"),
        ("ce-type", "warren.call.held"),
        ("ce-time", "2026-01-31T12:00:00Z"),
    ];
    let same = world.post_with("/external/voice", &binary, r#"{"call":"c-1"}"#).await;
    assert_eq!(same.id(), first.id(), "the mode makes no difference");
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let other = json!({"specversion":"1.0","id":"8","source":"/pbx","type":"warren.call.held",
        "data":{"call":"c-1"}});
    let body = json!([cloud, other]).to_string();
    let answer = world.post_with("/external/voice", &batch, body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.body[0]["id"], first.id().to_string());
    let published = world.broker.published();
    assert_eq!(published.len(), 5);
    let ours = json!({"type":"call.held","call":"c-1","at":"2026-01-31T12:00:00Z"});
    for (_, message) in &published[..4] {
        assert_eq!(serde_json::from_slice::<Value>(&message.body).expect("json"), ours);
        assert_eq!(message.kind, "call.held");
    }
    assert_eq!(published[0].1.header(names::TRACEPARENT), Some(trace));
    world.post_with("/external/voice", &batch, cloud.to_string()).await.problem(422);
    world.post_with("/external/voice", &binary[..3], "{}").await.problem(400);
}

#[tokio::test]
async fn a_valid_trace_is_carried_and_an_invalid_one_replaced() {
    let world = World::new();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for given in [trace, "00-nonsense"] {
        world.post_with("/external/chat", &[("traceparent", given)], NOTICE).await;
    }
    let published = world.broker.published();
    assert_eq!(published[0].1.header(names::TRACEPARENT), Some(trace));
    let made = published[1].1.header(names::TRACEPARENT).expect("a trace");
    assert!(made.starts_with("00-") && made.len() == 55 && made != trace);
}

fn signature(key: &str, seconds: i64, body: &str) -> (String, String) {
    // As a sender does it: from the secret that it was given.
    let secret = auth::webhook_secret(&auth::hash(key));
    let secret = STANDARD.decode(secret.strip_prefix("whsec_").expect("prefix")).expect("base64");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&secret).expect("any length");
    mac.update(format!("msg_1.{seconds}.{body}").as_bytes());
    (seconds.to_string(), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[tokio::test]
async fn signatures_hold_or_the_request_is_refused() {
    let world = World::new();
    for (key, signed_with, seconds, status) in [
        ("wk_signs", Some("wk_signs"), NOW, 202),
        ("wk_signs", Some("wk_signs"), NOW - 299, 202),
        ("wk_signs", Some(KEY), NOW, 401),
        ("wk_signs", Some("wk_signs"), NOW - 301, 401),
        ("wk_signs", Some("wk_signs"), NOW + 301, 401),
        ("wk_signs", None, NOW, 401),
        (KEY, None, NOW, 202),
        (KEY, Some(KEY), NOW, 202),
        (KEY, Some("wk_signs"), NOW, 401),
    ] {
        let bearer = format!("Bearer {key}");
        let mut headers = vec![("authorization", bearer.as_str())];
        let made = signed_with.map(|key| signature(key, seconds, NOTICE));
        if let Some((stamp, signature)) = &made {
            headers.push(("webhook-id", "msg_1"));
            headers.push(("webhook-timestamp", stamp));
            headers.push(("webhook-signature", signature));
        }
        let answer = world.post_with("/external/chat", &headers, NOTICE).await;
        assert_eq!(answer.status.as_u16(), status, "{key} {signed_with:?} {seconds}");
        if status == 401 {
            answer.problem(401);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_integration_is_held_to_its_rate() {
    let world = World::with(Config { events_per_second: 10, burst: 20, ..Config::default() });
    let ten = format!("[{}]", [NOTICE; 10].join(","));
    for _ in 0..2 {
        assert_eq!(world.post("/external/chat", ten.clone()).await.status, StatusCode::ACCEPTED);
    }
    let answer = world.post("/external/chat", NOTICE).await;
    answer.problem(429);
    assert_eq!(answer.header("retry-after"), "1");
    let other = [("authorization", "Bearer wk_voice")];
    let accepted = world.post_with("/external/voice", &other, NOTICE).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(world.post("/external/chat", NOTICE).await.status, StatusCode::ACCEPTED);
    world.post("/external/chat", ten).await.problem(429);
}

#[tokio::test]
async fn requests_under_way_are_bounded() {
    let world = World::with(Config { in_flight_max: 1, ..Config::default() });
    world.broker.shut();
    let mut first = Box::pin(world.post("/external/chat", NOTICE));
    tokio::select! {
        _ = &mut first => panic!("answered without a confirm"),
        () = world.broker.arrived(1) => {}
    }
    world.post("/external/chat", NOTICE).await.problem(429);
    world.broker.open();
    assert_eq!(first.await.status, StatusCode::ACCEPTED);
    assert_eq!(world.post("/external/chat", NOTICE).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_works_for_a_few_seconds_at_most() {
    let world = World::new();
    for _ in 0..3 {
        assert_eq!(world.post("/external/chat", NOTICE).await.status, StatusCode::ACCEPTED);
    }
    assert_eq!(world.store.lookups.load(Ordering::SeqCst), 1);
    world.store.revoke("all");
    tokio::time::advance(Duration::from_secs(5)).await;
    world.post("/external/chat", NOTICE).await.problem(401);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_dawdles_is_given_up() {
    let world = World::new();
    let body = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    world.post("/external/chat", body).await.problem(408);
}

#[tokio::test]
async fn a_sender_of_too_much_gets_to_read_why() {
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/external/chat", listener.local_addr().expect("bound"));
    let serve = tokio::spawn(axum::serve(listener, world.router.clone()).into_future());
    let client = reqwest::Client::new();
    for (key, len, status) in [
        (KEY, EVENT_BYTES_MAX + 1, 413),
        (KEY, EVENT_ARRAY_BYTES_MAX + 1, 413),
        ("wk_unknown", 1_000_000, 401),
        ("wk_voice", 1_000_000, 403),
    ] {
        let request = client.post(&url).bearer_auth(key).header("content-type", "application/json");
        let answer = request.body("x".repeat(len)).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{key} {len}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    serve.abort();
}

#[tokio::test(start_paused = true)]
async fn a_journey_is_told_before_it_is_decided() {
    let world = World::new();
    let id = world.post("/external/chat", NOTICE).await.id();
    let answer = world.get(&format!("/external/events/{id}")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let journey: Journey = serde_json::from_value(answer.body).expect("a journey");
    assert_eq!(journey.status, Stage::Brokered);
    let stages: Vec<_> = journey.stages.iter().map(|one| one.stage).collect();
    assert_eq!(stages, [Stage::Accepted, Stage::Brokered]);
    let mut stored = world.store.recorded();
    stored.wait_for(|all| all.len() == 2).await.expect("written");
    world.receipts.drain().await;
    let answer = world.get(&format!("/external/events/{id}")).await;
    assert_eq!(answer.body["status"], "brokered", "told by the store now");
    world.get("/external/events/x?wait=soon").await.problem(400);
    world.get(&format!("/external/events/{id}?wait=sent&timeout_ms=x")).await.problem(400);
    let request = Request::get(format!("/external/events/{id}")).body(Body::empty());
    world.ask(request.expect("a request")).await.problem(401);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_stage_is_reached_here_or_elsewhere() {
    let world = World::new();
    let id = world.post("/external/chat", NOTICE).await.id();
    let url = format!("/external/events/{id}?wait=rendered&timeout_ms=20000");
    let begun = tokio::time::Instant::now();
    let tell = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let at = Timestamp::from_millis(NOW * 1_000 + 5);
        world.receipts.note(Receipt {
            cause: id.0,
            stage: Stage::Received,
            at,
            agent: None,
            count: 1,
        });
        world.receipts.note(Receipt {
            cause: id.0,
            stage: Stage::Rendered,
            at,
            agent: None,
            count: 1,
        });
    };
    let (answer, ()) = tokio::join!(world.get(&url), tell);
    assert_eq!(answer.body["status"], "rendered");
    assert!(begun.elapsed() < Duration::from_millis(25), "told by the receipt, not by a poll");

    let other = Uuid::from_u128(9);
    let tell = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.store.set_journey(other, &[Stage::Accepted, Stage::Decided], None);
    };
    let url = format!("/external/events/{other}?wait=decided");
    let (answer, ()) = tokio::join!(world.get(&url), tell);
    assert_eq!(answer.body["status"], "decided");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_time_is_up_or_nothing_more_will_come() {
    let world = World::new();
    let id = world.post("/external/chat", NOTICE).await.id();
    let begun = tokio::time::Instant::now();
    let answer = world.get(&format!("/external/events/{id}?wait=sent&timeout_ms=700")).await;
    assert_eq!((answer.status, &answer.body["status"]), (StatusCode::OK, &json!("brokered")));
    assert_eq!(begun.elapsed().as_millis(), 700);
    let unknown = Uuid::from_u128(3);
    world
        .get(&format!("/external/events/{unknown}?wait=sent&timeout_ms=99999999"))
        .await
        .problem(404);
    assert!(begun.elapsed() < Duration::from_secs(31));
    let refused = ReplyError {
        code: "not_found".into(),
        message: "no".into(),
        temporary: false,
        pointer: None,
    };
    world.store.set_journey(id.0, &[Stage::Decided], Some(Outcome::Error(refused)));
    let begun = tokio::time::Instant::now();
    let answer = world.get(&format!("/external/events/{id}?wait=sent")).await;
    assert_eq!(answer.body["outcome"]["error"]["code"], "not_found");
    assert!(begun.elapsed().is_zero());
    world.stopping.cancel();
    let answer = world.get(&format!("/external/events/{}?wait=sent", Uuid::from_u128(4))).await;
    answer.problem(404);
    assert!(begun.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_bounded() {
    let world = World::with(Config { waiters_max: 1, ..Config::default() });
    let id = world.post("/external/chat", NOTICE).await.id();
    let url = format!("/external/events/{id}?wait=sent&timeout_ms=1000");
    let (first, second) = tokio::join!(world.get(&url), world.get(&url));
    assert_eq!(first.status, StatusCode::OK);
    second.problem(429);
}

#[tokio::test]
async fn health_tells_what_is_down() {
    let world = World::new();
    assert_eq!(world.get("/readyz").await.body, json!({"ready":true,"broker":"up","store":"up"}));
    world.broker.set_state(BrokerState::Blocked("disk".into()));
    world.store.down.store(true, Ordering::SeqCst);
    let answer = world.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body, json!({"ready":false,"broker":"blocked","store":"down"}));
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_document_and_the_router_agree_on_every_method() {
    let world = World::new();
    let document = world.get("/openapi.json").await.body;
    let paths = document["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let described = operations.get(method.to_lowercase()).is_some();
            let request = Request::builder()
                .method(Method::from_bytes(method.as_bytes()).expect("a method"))
                .uri(path.replace("{id}", &Uuid::nil().to_string()));
            let answer = world.ask(request.body(Body::empty()).expect("a request")).await;
            let served = answer.status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(served, described, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_document_is_whole_and_its_examples_are_accepted() {
    let world = World::new();
    let document = world.get("/openapi.json").await.body;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("inside the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let mut kinds = Vec::new();
    for channel in Channel::ALL {
        let operation = &document["paths"][format!("/external/{channel}")]["post"];
        for status in ["202", "207", "400", "401", "403", "408", "413", "415", "422", "429", "503"]
        {
            assert!(!operation["responses"][status].is_null(), "{channel} {status}");
        }
        let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let name = body.as_str().and_then(|text| text.rsplit('/').next()).expect("a schema");
        let events = schemas[name]["oneOf"][0]["oneOf"].as_array().expect("events");
        for event in events {
            let name = event["$ref"].as_str().and_then(|text| text.rsplit('/').next());
            let schema = &schemas[name.expect("a name")];
            let example = &schema["examples"][0];
            let answer = world.post(&format!("/external/{channel}"), example.to_string()).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{example}: {}", answer.body);
            kinds.push(example["type"].as_str().expect("a type").to_owned());
        }
    }
    kinds.sort();
    kinds.dedup();
    let mut known: Vec<String> =
        table().iter().filter_map(|(_, body)| body["type"].as_str().map(str::to_owned)).collect();
    known.sort();
    known.dedup();
    assert_eq!(kinds, known, "every type of the table is described");
    assert_eq!(Kind::ALL.len(), Channel::ALL.len());
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value.as_str() {
                    Some(text) if name == "$ref" => references.push(text.to_owned()),
                    _ => collect(value, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}
