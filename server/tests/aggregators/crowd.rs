//! Many clients at once.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tokio_tungstenite::tungstenite::Error;
use warren::aggregator::Config;

use crate::desk::{Client, Desk, PATIENCE};

const CROWD: usize = 1_000;
/// In each go.
const EVENTS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_never_read_are_closed_and_the_others_miss_nothing() {
    let desk = Desk::start().await;
    let node = desk.aggregator(Config::default()).await;
    let (mut good, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(node.client("/ws", &desk.tokens[1], json!({})).await.0);
    }
    let clients = |count: u64| {
        let mut roster = node.members.roster();
        let id = node.members.id().to_owned();
        async move {
            let told = roster.wait_for(|roster| roster.members[&id].clients == count);
            tokio::time::timeout(PATIENCE, told).await.expect("in time").expect("told");
        }
    };
    clients(CROWD as u64 + 1).await;
    // More than an outbox takes; the frames are one for all.
    let (text, mut offset) = ("x".repeat(8_000), 0);
    for _ in 0..3 {
        desk.notices("chat", EVENTS, &text).await;
        for _ in 0..EVENTS {
            offset += 1;
            assert_eq!(good.next("event").await["offset"], offset);
        }
    }
    let codes = join_all(crowd.iter_mut().map(Client::code)).await;
    assert_eq!(codes.iter().filter(|code| **code == 4001).count(), CROWD);
    clients(1).await;
    desk.notices("chat", 1, "after").await;
    assert_eq!(good.next("event").await["offset"], offset + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_when_all_places_are_taken_is_asked_to_wait() {
    let desk = Desk::start().await;
    let node = desk.aggregator(Config { connections_max: 2, ..Config::default() }).await;
    let (first, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    let (_second, _) = node.client("/ws", &desk.tokens[0], json!({})).await;
    let Err(Error::Http(answer)) = Client::try_open(&node.url("/ws")).await else {
        panic!("a third one was let in")
    };
    assert_eq!(answer.status().as_u16(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    // A place comes back when its client goes.
    drop(first);
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let place = async {
        loop {
            look.tick().await;
            if let Ok(client) = Client::try_open(&node.url("/ws")).await {
                return client;
            }
        }
    };
    let mut third = tokio::time::timeout(PATIENCE, place).await.expect("a place");
    third.hello(&desk.tokens[0], json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_are_told_to_move_in_batches_that_share_one_deadline() {
    let desk = Desk::start().await;
    let config = Config { drain: Duration::from_secs(4), ..Config::default() };
    let node = desk.aggregator(config).await;
    let _other = desk.aggregator(Config::default()).await;
    let mut roster = node.members.roster();
    roster.wait_for(|roster| roster.aggregators(None).len() == 2).await.expect("both");
    let mut crowd = Vec::new();
    for _ in 0..250 {
        crowd.push(node.client("/ws", &desk.tokens[0], json!({})).await.0);
    }
    node.stop.cancel();
    let mut deadlines = BTreeSet::new();
    for client in &mut crowd {
        deadlines.insert(client.next("migrate").await["deadline_ms"].as_u64().expect("a number"));
    }
    // Three batches, each told what is left until the one end.
    let deadlines: Vec<u64> = deadlines.into_iter().collect();
    assert_eq!(deadlines.len(), 3, "{deadlines:?}");
    assert!(deadlines[0] <= 3_600 && deadlines[1] <= 3_800 && deadlines[2] <= 4_000);
    assert!(deadlines[0] > 0);
    // Who stays is closed when the time is over.
    let codes = join_all(crowd.iter_mut().map(Client::code)).await;
    assert!(codes.iter().all(|code| *code == 4000), "{codes:?}");
}
