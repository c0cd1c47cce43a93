//! RabbitMQ goes and comes back under a whole desk: nothing that was accepted
//! is lost, everybody is told, and all of it heals by itself.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::rabbit::Cluster;
use testkit::warren::Warren;
use tokio_tungstenite::tungstenite::Message;

const WARREN: &str = env!("CARGO_BIN_EXE_warren");
const PATIENCE: Duration = Duration::from_secs(60);

fn warren(arguments: &[&str], common: &[&str], stdin: &str) -> String {
    let mut child = Command::new(WARREN)
        .args(arguments)
        .args(common)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("warren runs");
    child.stdin.take().expect("stdin").write_all(stdin.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let found = async {
        loop {
            tick.tick().await;
            if let Some(found) = attempt().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

/// A whole desk on one RabbitMQ node.
struct Desk {
    cluster: Cluster,
    service: Warren,
    token: String,
    key: String,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

impl Desk {
    fn start(heartbeat_ms: &str) -> Self {
        let cluster = Cluster::start(1).expect("a node");
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("warren.toml");
        let settings = format!("[profile.one]\nbroker.publish_urls = [{:?}]\n", cluster.url(0));
        std::fs::write(&config, settings).expect("written");
        let (config, data) =
            (config.to_str().expect("a path"), folder.path().to_str().expect("a path"));
        let common = ["--profile", "one", "--config", config, "--data", data];
        let service = Warren::command(WARREN)
            .args(["up", "--web", "127.0.0.1:0", "--external", "127.0.0.1:0"])
            .args(common)
            .env("WARREN_AGGREGATOR__HEARTBEAT_MS", heartbeat_ms)
            .start();
        warren(&["user", "add", "ana", "--password-stdin"], &common, "correct horse battery");
        let token = warren(&["token", "ana"], &common, "");
        let key = warren(&["key", "add", "pbx", "--scopes", "voice"], &common, "");
        Self { cluster, service, token, key, client: reqwest::Client::new(), _folder: folder }
    }

    async fn post(&self, call: &str) -> reqwest::Response {
        self.client
            .post(format!("{}/external/voice", self.service.external()))
            .bearer_auth(&self.key)
            .json(&json!({ "type": "call.ringing", "call": call, "event_id": call }))
            .send()
            .await
            .expect("an answer")
    }

    /// What `/readyz` of the pages says of the broker.
    async fn broker(&self) -> (StatusCode, Value) {
        let url = format!("{}/readyz", self.service.web());
        let answer = self.client.get(url).send().await.expect("an answer");
        let status = answer.status();
        (status, answer.json::<Value>().await.expect("json")["broker"].take())
    }

    async fn hello(&self, resume: Value) -> Socket {
        let url = format!("{}/ws", self.service.web().replacen("http", "ws", 1));
        let (mut stream, _) = tokio_tungstenite::connect_async(url).await.expect("a socket");
        let hello = json!({ "type": "hello", "token": self.token, "resume": resume });
        stream.send(Message::text(hello.to_string())).await.expect("sent");
        stream
    }
}

/// Waits for a ping that says so; answers all of them.
async fn ping(stream: &mut Socket, blocked: bool) {
    let read = async {
        loop {
            let message = stream.next().await.expect("a frame").expect("a good one");
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).expect("json");
            if frame["type"] == "ping" {
                let pong = json!({ "type": "pong" }).to_string();
                stream.send(Message::text(pong)).await.expect("sent");
                if frame["blocked"].as_bool().unwrap_or(false) == blocked {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a ping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_takes_nothing_is_told_everywhere_and_heals() {
    let desk = Desk::start("1000");
    let mut stream = desk.hello(json!({})).await;
    ping(&mut stream, false).await;
    assert_eq!(desk.broker().await, (StatusCode::OK, json!("up")));
    desk.cluster.ctl(0, &["set_vm_memory_high_watermark", "0.00001"]).expect("an alarm");
    let refused = until("a refusal", async || {
        let answer = desk.post("during").await;
        (answer.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await;
    assert!(refused.headers().contains_key("retry-after"));
    // Longer than a member may be silent: nobody is sent away.
    for _ in 0..6 {
        ping(&mut stream, true).await;
    }
    assert_eq!(desk.broker().await, (StatusCode::SERVICE_UNAVAILABLE, json!("blocked")));
    desk.cluster.ctl(0, &["set_vm_memory_high_watermark", "0.9"]).expect("no alarm");
    until("events to be taken again", async || {
        (desk.post("during").await.status() == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    ping(&mut stream, false).await;
    assert_eq!(desk.broker().await, (StatusCode::OK, json!("up")));
    assert_eq!(desk.service.term(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_dies_and_comes_back_under_a_desk() {
    let mut desk = Desk::start("15000");
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

    // RabbitMQ 3.10 can lose a queue that all its replicas die within moments
    // of declaring; that isn't what this is about.
    tokio::time::sleep(Duration::from_secs(5)).await;
    desk.cluster.kill(0).expect("killed");
    // Refused with a word on when to come back; clients are sent elsewhere.
    let refused = until("a refusal", async || {
        let answer = desk.post("during").await;
        (answer.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await;
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = refused.json().await.expect("json");
    assert_eq!(problem["status"], 503);
    let external = desk.service.external();
    let readyz = desk.client.get(format!("{external}/readyz")).send().await.expect("an answer");
    assert_eq!(readyz.status(), StatusCode::SERVICE_UNAVAILABLE);
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

    desk.cluster.start_node(0).expect("back");
    until("events to be taken again", async || {
        (desk.post("during").await.status() == StatusCode::ACCEPTED).then_some(())
    })
    .await;
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
