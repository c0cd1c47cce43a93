//! What is posted, and what the broker is given.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use domain::{EventId, InteractionId, partition_of};
use futures::FutureExt as _;
use protocol::names;
use serde_json::{Value, json};
use warren::broker::{BrokerError, BrokerState};

use crate::{NOTICE, World, table};

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
