//! What is refused, who is, and how much is too much.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use protocol::{EVENT_ARRAY_BYTES_MAX, EVENT_BYTES_MAX, Problem};
use serde_json::json;
use uuid::Uuid;
use warren::auth;
use warren::external_api::Config;

use crate::{KEY, NOTICE, NOW, World};

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
