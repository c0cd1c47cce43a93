//! The store goes and comes back under a whole desk: PostgreSQL, or the disk
//! that SQLite writes to.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use testkit::postgres::Postgres;
use testkit::rabbit::Cluster;
use testkit::warren::Warren;
use tokio::time::interval;
use warren::broker::DELIVERY_LIMIT;

use crate::desk::{Desk, WARREN, until};

const CALLS: usize = 24;

/// How often the worker of each partition has found the store away.
fn attempts(desk: &Desk) -> BTreeMap<String, u32> {
    let mut attempts = BTreeMap::new();
    let log = desk.service.log();
    for line in log.lines().filter(|line| line.contains("WARN store unavailable ")) {
        if let Some(partition) = line.split(' ').find_map(|word| word.strip_prefix("partition=")) {
            *attempts.entry(partition.to_owned()).or_default() += 1;
        }
    }
    attempts
}

/// How many messages each of Warren's queues holds.
fn queues(cluster: &Cluster) -> BTreeMap<String, u64> {
    let list = cluster.ctl(0, &["list_queues", "name", "messages"]).expect("a list");
    let queue = |line: &str| {
        let (name, messages) = line.split_once('\t')?;
        Some((name.to_owned(), messages.trim().parse().ok()?))
    };
    list.lines().filter_map(queue).collect()
}

fn at_rest(queues: &BTreeMap<String, u64>, prefix: &str) -> bool {
    let mut found = queues.iter().filter(|(name, _)| name.starts_with(prefix)).peekable();
    assert!(found.peek().is_some(), "{queues:?}");
    found.all(|(_, messages)| *messages == 0)
}

/// Calls in the journal, in no order.
fn ringing(postgres: &Postgres) -> Vec<String> {
    let calls = "SELECT body::json ->> 'call' FROM journal WHERE kind = 'call.ringing'";
    let mut calls: Vec<String> =
        postgres.psql("desk", calls).expect("a list").lines().map(str::to_owned).collect();
    calls.sort();
    calls
}

/// Events are accepted while PostgreSQL is gone, until `enough` has been seen.
async fn outlives_the_store(cluster: &Cluster, enough: impl Fn(&Desk) -> bool) {
    let mut postgres = Postgres::start().expect("a database");
    postgres.create_database("desk").expect("made");
    let desk = Desk::start(cluster, &format!("store.url = {:?}", postgres.url("desk")), "15000");
    // The key is known from here on, for long enough.
    assert_eq!(desk.post("before").await.status(), StatusCode::ACCEPTED);
    until("the first call", async || (ringing(&postgres) == ["before"]).then_some(())).await;
    assert_eq!(desk.post("before").await.status(), StatusCode::ACCEPTED);
    postgres.kill();
    let calls: Vec<String> = (0..CALLS).map(|call| format!("during-{call}")).collect();
    let answers = join_all(calls.iter().map(|call| desk.post(call))).await;
    let mut accepted = vec!["before".to_owned()];
    for (call, answer) in calls.iter().zip(answers) {
        if answer.status() == StatusCode::ACCEPTED {
            accepted.push(call.clone());
        }
    }
    assert!(accepted.len() > CALLS / 2, "accepted: {accepted:?}");
    until("the outage to last", async || enough(&desk).then_some(())).await;
    assert_eq!(desk.ready("store").await, (StatusCode::SERVICE_UNAVAILABLE, json!("down")));

    postgres.start_again().expect("back");
    accepted.sort();
    until("all that was accepted", async || {
        let calls = ringing(&postgres);
        accepted.iter().all(|call| calls.contains(call)).then_some(())
    })
    .await;
    until("the queues to be empty", async || at_rest(&queues(cluster), "warren.in.").then_some(()))
        .await;
    let mut once = ringing(&postgres);
    once.dedup();
    assert_eq!(once, ringing(&postgres), "each once");
    let queues = queues(cluster);
    assert!(at_rest(&queues, "warren.dead."), "{queues:?}");
    assert_eq!(desk.service.term(), Some(0));
}

/// Tried by every partition that has something for longer than any message
/// would outlive being given back.
fn long(desk: &Desk) -> bool {
    let attempts = attempts(desk);
    !attempts.is_empty() && attempts.values().all(|count| *count > DELIVERY_LIMIT + 2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_outage_of_the_database_makes_no_dead_letters() {
    let cluster = Cluster::start(1).expect("a node");
    outlives_the_store(&cluster, long).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_longer_than_the_broker_waits_for_acks_makes_none_either() {
    let cluster = Cluster::start(1).expect("a node");
    let patience = "application:set_env(rabbit, consumer_timeout, 4000), \
        application:set_env(rabbit, channel_tick_interval, 1000).";
    cluster.ctl(0, &["eval", patience]).expect("set");
    outlives_the_store(&cluster, |desk| {
        // Each partition's channel is closed once, and not opened again before
        // the store is back: whoever did that would use a delivery up each time.
        let closed = cluster.log(0).matches("delivery acknowledgement on channel").count();
        long(desk) && closed >= attempts(desk).len()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_answers_nothing_is_told_soon_and_its_thaw_loses_nothing() {
    let postgres = Postgres::start().expect("a database");
    postgres.create_database("desk").expect("made");
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("warren.toml");
    let text = format!("store.url = {:?}\n", postgres.url("desk"));
    std::fs::write(&config, text).expect("written");
    let config = config.to_str().expect("a path").to_owned();
    let desk = Desk::from(Warren::command(WARREN), folder, &["--config", &config]);
    assert_eq!(desk.post("before").await.status(), StatusCode::ACCEPTED);
    desk.shows(&["before"]).await;
    postgres.pause().expect("frozen");
    assert_eq!(desk.post("during").await.status(), StatusCode::ACCEPTED);
    desk.answers_soon().await;
    desk.told("store", StatusCode::SERVICE_UNAVAILABLE, "down").await;
    postgres.resume().expect("awake");
    desk.shows(&["before", "during"]).await;
    desk.told("store", StatusCode::OK, "up").await;
    assert_eq!(desk.service.term(), Some(0));
}

/// From here on the process can't write to files: `1`, or again: `unlimited`.
fn file_bytes_max(desk: &Desk, bytes: &str) {
    let pid = desk.service.pid().to_string();
    let mut limit = Command::new("prlimit");
    limit.args(["--pid", &pid]).arg(format!("--fsize={bytes}:unlimited"));
    assert!(limit.status().expect("prlimit runs").success());
}

/// Told by an error rather than by a signal when a file would be too large.
const UNSIGNALED: [&str; 3] = ["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", WARREN];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_accepted_while_the_disk_is_full() {
    let folder = tempfile::tempdir().expect("a folder");
    let desk = Desk::from(Warren::command("sh").args(UNSIGNALED), folder, &[]);
    assert_eq!(desk.post("before").await.status(), StatusCode::ACCEPTED);
    file_bytes_max(&desk, "1");
    assert!(desk.refused().await.headers().contains_key("retry-after"));
    let mut tick = interval(Duration::from_millis(50));
    for number in 0..60 {
        tick.tick().await;
        let answer = desk.post(&format!("full-{number}")).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    desk.told("broker", StatusCode::SERVICE_UNAVAILABLE, "blocked").await;
    file_bytes_max(&desk, "unlimited");
    desk.taken().await;
    desk.told("broker", StatusCode::OK, "up").await;
    desk.told("store", StatusCode::OK, "up").await;
    desk.shows(&["before", "during"]).await;
    let desk = desk.killed_and_started();
    desk.shows(&["before", "during"]).await;
    assert_eq!(desk.service.term(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_waits_until_the_disk_has_room() {
    let cluster = Cluster::start(1).expect("a node");
    let command = Warren::command("sh").args(UNSIGNALED);
    let desk = Desk::beside(&cluster, command, "", "15000");
    assert_eq!(desk.post("before").await.status(), StatusCode::ACCEPTED);
    desk.shows(&["before"]).await;
    file_bytes_max(&desk, "1");
    let accepted = desk.post("during").await.status();
    assert_eq!(accepted, StatusCode::ACCEPTED, "RabbitMQ has it");
    // What reads is well, what writes isn't.
    desk.told("store", StatusCode::SERVICE_UNAVAILABLE, "down").await;
    file_bytes_max(&desk, "unlimited");
    desk.shows(&["before", "during"]).await;
    desk.told("store", StatusCode::OK, "up").await;
    let desk = desk.killed_and_started();
    desk.shows(&["before", "during"]).await;
    until("the queues to be empty", async || {
        at_rest(&queues(&cluster), "warren.in.").then_some(())
    })
    .await;
    let queues = queues(&cluster);
    assert!(at_rest(&queues, "warren.dead."), "{queues:?}");
    assert_eq!(desk.service.term(), Some(0));
}
