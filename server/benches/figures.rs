//! Figures that the README reports: `cargo xtask bench`.
//!
//! Starts the real binary on private ports in a temporary folder, sends events
//! on a fixed schedule (late sends count as late), and takes the time from the
//! planned POST to the frame on a WebSocket. Beside each figure stands a floor
//! of the same run: this machine's fdatasync and a bare HTTP round trip.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::EventId;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use testkit::rabbit::Cluster;
use testkit::warren::Warren;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

const WARREN: &str = env!("CARGO_BIN_EXE_warren");
const RATES: [u64; 2] = [200, 1_000];
const SECONDS: u64 = 15;
const WARM_UP_SECONDS: u64 = 3;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    // `cargo bench --bench figures -- rabbitmq` measures that alone.
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    println!("floor: fdatasync of 4 KiB {}", told(&mut floor_of_disk()));
    if wanted("start") {
        start_and_idle();
    }
    for rate in RATES.into_iter().filter(|_| wanted("embedded")) {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().to_str().expect("a path").to_owned();
        runtime.block_on(latency("embedded", &["--data", &data], rate));
    }
    if !wanted("rabbitmq") {
        return;
    }
    let cluster = Cluster::start(1).expect("a node");
    for rate in RATES {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("warren.toml");
        let url = cluster.url(0);
        let settings = format!("[profile.rabbit]\nbroker.publish_urls = [{url:?}]\n");
        std::fs::write(&config, settings).expect("written");
        let data = folder.path().to_str().expect("a path").to_owned();
        let config = config.to_str().expect("a path").to_owned();
        let common = ["--profile", "rabbit", "--config", &config, "--data", &data];
        runtime.block_on(latency("rabbitmq", &common, rate));
    }
}

fn told(took: &mut [Duration]) -> String {
    took.sort();
    let at = |share: f64| {
        let index = ((took.len() as f64 - 1.0) * share).round() as usize;
        took.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(0.5), at(0.99), at(1.0))
}

fn floor_of_disk() -> Vec<Duration> {
    let mut file = tempfile::tempfile().expect("a file");
    (0..500)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[7; 4096]).expect("written");
            file.sync_data().expect("synced");
            begun.elapsed()
        })
        .collect()
}

fn up(common: &[&str]) -> Warren {
    Warren::command(WARREN)
        .args(["up", "--web", "127.0.0.1:0", "--external", "127.0.0.1:0"])
        .args(common)
        .start()
}

fn start_and_idle() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("a path");
    let mut took = Vec::new();
    for _ in 0..10 {
        let begun = Instant::now();
        let service = up(&["--data", data]);
        took.push(begun.elapsed());
        assert_eq!(service.term(), Some(0));
    }
    println!(
        "start of `warren up` to ready: first {:.0} ms, then {}",
        took[0].as_secs_f64() * 1e3,
        told(&mut took[1..])
    );
    let service = up(&["--data", data]);
    std::thread::park_timeout(Duration::from_secs(5));
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid()));
    let resident = status
        .expect("a process")
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:").map(|rest| rest.trim().to_owned()))
        .unwrap_or_default();
    println!("resident memory of `warren up`, idle: {resident}");
}

fn run(arguments: &[&str], common: &[&str], stdin: &str) -> String {
    Warren::command(WARREN).args(arguments).args(common).say(stdin)
}

type Planned = Arc<Mutex<HashMap<String, Instant>>>;

async fn latency(name: &str, common: &[&str], rate: u64) {
    let service = up(common);
    run(&["user", "add", "ana", "--password-stdin"], common, "correct horse battery");
    let token = run(&["token", "ana"], common, "");
    let key = run(&["key", "add", "bench", "--scopes", "voice,chat,tickets"], common, "");
    let planned: Planned = Planned::default();
    let total = rate * SECONDS;
    let socket = format!("{}/ws", service.web().replacen("http", "ws", 1));
    let reading = tokio::spawn(read(socket, token, planned.clone(), total));
    let client = reqwest::Client::builder().build().expect("a client");
    // The reader is there before the first event is.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    let mut posts = Vec::new();
    let mut floor = Vec::new();
    for turn in 0..total {
        let at = begun + Duration::from_micros(turn * 1_000_000 / rate);
        tokio::time::sleep_until(at).await;
        let id = Uuid::now_v7().to_string();
        // The event's own id, as the integration `bench` makes it.
        let cause = EventId::derive("bench", &id).to_string();
        planned.lock().expect("a lock").insert(cause, at);
        let request = client
            .post(format!(
                "{}/external/{}",
                service.external(),
                ["voice", "chat", "tickets"][turn as usize % 3]
            ))
            .bearer_auth(&key)
            .json(&event(turn, &id));
        posts.push(tokio::spawn(async move {
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), 202);
            at.elapsed()
        }));
        if turn % rate == 0 {
            let bare = client.get(format!("{}/healthz", service.external()));
            floor.push(tokio::spawn(async move {
                let begun = Instant::now();
                bare.send().await.expect("an answer");
                begun.elapsed()
            }));
        }
    }
    let skip = (rate * WARM_UP_SECONDS) as usize;
    let mut accepted = Vec::new();
    for post in posts {
        accepted.push(post.await.expect("accepted"));
    }
    let mut bare = Vec::new();
    for one in floor {
        bare.push(one.await.expect("answered"));
    }
    let seen = tokio::time::timeout(Duration::from_secs(30), reading).await;
    let seen = seen.expect("every event arrives").expect("read");
    println!("{name}, {rate} events/s for {SECONDS} s:");
    println!("  POST to WebSocket frame: {}", told(&mut seen[skip..].to_vec()));
    println!("  POST to 202:             {}", told(&mut accepted[skip..].to_vec()));
    println!("  floor, bare HTTP:        {}", told(&mut bare));
    assert_eq!(service.term(), Some(0));
}

fn event(turn: u64, id: &str) -> Value {
    match turn % 3 {
        0 => json!({ "type": "call.ringing", "call": format!("c-{turn}"), "event_id": id }),
        1 => json!({ "type": "chat.message", "chat": format!("s-{}", turn % 300),
            "text": "Is anybody there? I have been waiting for a while.", "event_id": id }),
        _ => json!({ "type": "ticket.opened", "subject": "Broken", "body": "It is broken.",
            "requester": { "email": format!("c{}@example.com", turn % 100) }, "event_id": id }),
    }
}

/// Reads until `total` events have come; the times in the order of arrival.
async fn read(socket: String, token: String, planned: Planned, total: u64) -> Vec<Duration> {
    let (stream, _) = tokio_tungstenite::connect_async(socket).await.expect("a socket");
    let (mut sink, mut stream) = stream.split();
    let hello = json!({ "type": "hello", "token": token }).to_string();
    sink.send(Message::text(hello)).await.expect("sent");
    let mut took = Vec::new();
    while let Some(Ok(message)) = stream.next().await {
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).expect("json");
        match frame["type"].as_str() {
            Some("ping") => {
                sink.send(Message::text(r#"{"type":"pong"}"#)).await.expect("sent");
            }
            Some("event") => {
                let cause = frame["event"]["cause"].as_str().unwrap_or_default();
                if let Some(at) = planned.lock().expect("a lock").remove(cause) {
                    took.push(at.elapsed());
                }
                if took.len() as u64 == total {
                    return took;
                }
            }
            _ => {}
        }
    }
    panic!("the socket closed after {} events", took.len());
}
