//! RabbitMQ goes and comes back under a whole desk.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::rabbit::Cluster;
use tokio_tungstenite::tungstenite::Message;

use crate::desk::{Desk, PATIENCE, answering, ping, until};

/// What the broker is made to suffer, and what ends that.
const ALARMS: [[[&str; 2]; 2]; 2] = [
    [["set_vm_memory_high_watermark", "0.00001"], ["set_vm_memory_high_watermark", "0.9"]],
    [["set_disk_free_limit", "9000GB"], ["set_disk_free_limit", "50MB"]],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_takes_nothing_is_told_everywhere_and_heals() {
    let cluster = Arc::new(Cluster::start(1).expect("a node"));
    let desk = Desk::start(&cluster, "", "1000");
    let ctl = async |words: [&'static str; 2]| {
        let cluster = cluster.clone();
        tokio::task::spawn_blocking(move || cluster.ctl(0, &words)).await.expect("an end")
    };
    let mut stream = desk.hello(json!({})).await;
    ping(&mut stream, false).await;
    assert_eq!(desk.ready("broker").await, (StatusCode::OK, json!("up")));
    for [alarm, calm] in ALARMS {
        answering(&mut stream, ctl(alarm)).await.expect("an alarm");
        let refused = answering(&mut stream, desk.refused()).await;
        assert!(refused.headers().contains_key("retry-after"));
        // Longer than a member may be silent: nobody is sent away.
        for _ in 0..6 {
            ping(&mut stream, true).await;
        }
        let said = desk.ready("broker").await;
        assert_eq!(said, (StatusCode::SERVICE_UNAVAILABLE, json!("blocked")));
        answering(&mut stream, ctl(calm)).await.expect("no alarm");
        answering(&mut stream, desk.taken()).await;
        ping(&mut stream, false).await;
        assert_eq!(desk.ready("broker").await, (StatusCode::OK, json!("up")));
    }
    assert_eq!(desk.service.term(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_dies_and_comes_back_under_a_desk() {
    let (kill, start) =
        (|cluster: &mut Cluster| cluster.kill(0), |cluster: &mut Cluster| cluster.start_node(0));
    // RabbitMQ 3.10 can lose a queue that all its replicas die within moments
    // of declaring; that isn't what this is about.
    goes_and_comes_back(Duration::from_secs(5), kill, start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_freezes_and_thaws_under_a_desk() {
    let (pause, resume) =
        (|cluster: &mut Cluster| cluster.pause(0), |cluster: &mut Cluster| cluster.resume(0));
    goes_and_comes_back(Duration::ZERO, pause, resume).await;
}

type Change = fn(&mut Cluster) -> std::io::Result<()>;

async fn goes_and_comes_back(age: Duration, go: Change, come_back: Change) {
    let mut cluster = Cluster::start(1).expect("a node");
    let desk = Desk::start(&cluster, "", "15000");
    let mut stream = desk.hello(json!({})).await;
    assert_eq!(desk.post("before").await.status(), StatusCode::ACCEPTED);
    let mut place = json!({});
    while let Some(Ok(message)) = stream.next().await {
        let frame: Value = serde_json::from_str(message.to_text().expect("text")).expect("json");
        if frame["type"] == "welcome" {
            place = frame["streams"]["voice"].clone();
        }
        if frame["type"] == "event" {
            place["offset"] = frame["offset"].clone();
            break;
        }
    }

    tokio::time::sleep(age).await;
    go(&mut cluster).expect("gone");
    // Refused with a word on when to come back; clients are sent elsewhere.
    let refused = desk.refused().await;
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = refused.json().await.expect("json");
    assert_eq!(problem["status"], 503);
    let external = desk.service.external();
    until("the external API not to be ready", async || {
        let readyz = desk.client.get(format!("{external}/readyz")).send().await.expect("an answer");
        (readyz.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    desk.answers_soon().await;
    let closed = async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                Some(Ok(_)) => {}
                other => panic!("instead of a close frame: {other:?}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, closed).await.expect("closed"), 4003);

    come_back(&mut cluster).expect("back");
    desk.taken().await;
    assert_eq!(desk.post("after").await.status(), StatusCode::ACCEPTED);
    // Resumed where it was: what came meanwhile, in order, once.
    let calls = until("a socket that stays", async || {
        let mut stream = desk
            .hello(json!({ "voice": { "epoch": place["epoch"], "offset": place["offset"] } }))
            .await;
        let mut calls = Vec::new();
        while let Ok(Some(Ok(message))) = tokio::time::timeout(PATIENCE, stream.next()).await {
            let Message::Text(text) = message else { return None };
            let frame: Value = serde_json::from_str(&text).expect("json");
            if frame["type"] == "event" {
                calls.push(frame["event"]["call"].as_str().unwrap_or_default().to_owned());
            }
            if calls.last().is_some_and(|call| call == "after") {
                return Some(calls);
            }
        }
        None
    })
    .await;
    let mut sorted = calls.clone();
    sorted.sort();
    assert_eq!(sorted, ["after", "during"], "each once");
    assert_eq!(desk.service.term(), Some(0));
}
