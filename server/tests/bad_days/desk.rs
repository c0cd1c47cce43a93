//! The desk that suffers, and what is asked of it.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::rabbit::Cluster;
use testkit::warren::{Warren, WarrenCommand};
use tokio_tungstenite::tungstenite::Message;

pub(crate) const WARREN: &str = env!("CARGO_BIN_EXE_warren");
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Much longer than a member waits for what it stands on, and shorter than
/// whoever watches it would wait.
const SOON: Duration = Duration::from_secs(10);

pub(crate) async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
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

pub(crate) type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A whole desk in one process.
pub(crate) struct Desk {
    pub(crate) service: Warren,
    pub(crate) client: reqwest::Client,
    token: String,
    pub(crate) key: String,
    common: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Desk {
    /// On a RabbitMQ node, with more settings of its profile.
    pub(crate) fn start(cluster: &Cluster, settings: &str, heartbeat_ms: &str) -> Self {
        Self::beside(cluster, Warren::command(WARREN), settings, heartbeat_ms)
    }

    /// The same, with what `command` begins with.
    pub(crate) fn beside(
        cluster: &Cluster,
        command: WarrenCommand,
        settings: &str,
        heartbeat_ms: &str,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("warren.toml");
        let url = cluster.url(0);
        let text = format!("[profile.one]\nbroker.publish_urls = [{url:?}]\n{settings}\n");
        std::fs::write(&config, text).expect("written");
        let config = config.to_str().expect("a path");
        let profile = ["--profile", "one", "--config", config];
        let command = command.env("WARREN_AGGREGATOR__HEARTBEAT_MS", heartbeat_ms);
        Self::from(command, folder, &profile)
    }

    /// With what `command` begins with.
    pub(crate) fn from(command: WarrenCommand, folder: tempfile::TempDir, more: &[&str]) -> Self {
        let data = ["--data", folder.path().to_str().expect("a path")];
        let common: Vec<String> = more.iter().chain(&data).map(|one| (*one).to_owned()).collect();
        let service = command
            .args(["up", "--web", "127.0.0.1:0", "--external", "127.0.0.1:0"])
            .args(&common)
            .start();
        let client = reqwest::Client::new();
        let mut desk = Self {
            service,
            client,
            token: String::new(),
            key: String::new(),
            common,
            _folder: folder,
        };
        desk.warren(&["user", "add", "ana", "--password-stdin"], "correct horse battery");
        desk.token = desk.warren(&["token", "ana"], "");
        desk.key = desk.warren(&["key", "add", "pbx", "--scopes", "voice"], "");
        desk
    }

    /// What it has on the disk, and nothing else.
    pub(crate) fn killed_and_started(self) -> Self {
        self.service.kill();
        Self { service: Self::again(&self.common), ..self }
    }

    /// Told to stop, and started when it has; meanwhile `during` goes on.
    pub(crate) async fn stopped_and_started(self, during: impl Future<Output = ()>) -> Self {
        let service = self.service;
        let ended = tokio::task::spawn_blocking(move || service.term());
        during.await;
        assert_eq!(ended.await.expect("an end"), Some(0));
        Self { service: Self::again(&self.common), ..self }
    }

    fn again(common: &[String]) -> Warren {
        let ports = ["--web", "127.0.0.1:0", "--external", "127.0.0.1:0"];
        Warren::command(WARREN).args(["up"]).args(ports).args(common).start()
    }

    /// Runs `warren` beside the service, as an operator does.
    fn warren(&self, arguments: &[&str], stdin: &str) -> String {
        Warren::command(WARREN).args(arguments).args(&self.common).say(stdin)
    }

    pub(crate) async fn post(&self, call: &str) -> reqwest::Response {
        self.client
            .post(format!("{}/external/voice", self.service.external()))
            .bearer_auth(&self.key)
            .json(&json!({ "type": "call.ringing", "call": call, "event_id": call }))
            .send()
            .await
            .expect("an answer")
    }

    /// Posts until it is refused, and gives the refusal.
    pub(crate) async fn refused(&self) -> reqwest::Response {
        until("a refusal", async || {
            let answer = self.post("during").await;
            (answer.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
        })
        .await
    }

    /// Posts the same until it is taken.
    pub(crate) async fn taken(&self) {
        until("events to be taken again", async || {
            (self.post("during").await.status() == StatusCode::ACCEPTED).then_some(())
        })
        .await;
    }

    /// What `/readyz` of the pages says of the broker or the store.
    pub(crate) async fn ready(&self, part: &str) -> (StatusCode, Value) {
        let url = format!("{}/readyz", self.service.web());
        let answer = self.client.get(url).send().await.expect("an answer");
        let status = answer.status();
        (status, answer.json::<Value>().await.expect("json")[part].take())
    }

    /// Whoever asks how it is hears so soon, while it isn't ready.
    pub(crate) async fn answers_soon(&self) {
        let unready = StatusCode::SERVICE_UNAVAILABLE;
        for listener in [self.service.web(), self.service.external()] {
            for (path, status) in
                [("/healthz", StatusCode::OK), ("/metrics", StatusCode::OK), ("/readyz", unready)]
            {
                let ask = self.client.get(format!("{listener}{path}")).timeout(SOON).send();
                let answer = ask.await.unwrap_or_else(|error| panic!("{path}: {error}"));
                assert_eq!(answer.status(), status, "{path}");
            }
        }
    }

    /// Waits until the desk shows these calls, each once and no other.
    pub(crate) async fn shows(&self, calls: &[&str]) {
        let url = format!("{}/api/v1/interactions?channel=voice&view=all", self.service.web());
        until("the calls", async || {
            let ask = self.client.get(&url).bearer_auth(&self.token);
            let list: Value = ask.send().await.ok()?.json().await.ok()?;
            let mut shown: Vec<&str> = list["interactions"]
                .as_array()?
                .iter()
                .filter_map(|one| one["external_id"].as_str())
                .collect();
            shown.sort_unstable();
            (shown == calls).then_some(())
        })
        .await;
    }

    pub(crate) async fn told(&self, part: &str, status: StatusCode, word: &str) {
        let what = format!("{part} {word}");
        until(&what, async || (self.ready(part).await == (status, json!(word))).then_some(()))
            .await;
    }

    pub(crate) async fn hello(&self, resume: Value) -> Socket {
        let url = format!("{}/ws", self.service.web().replacen("http", "ws", 1));
        let (mut stream, _) = tokio_tungstenite::connect_async(url).await.expect("a socket");
        let hello = json!({ "type": "hello", "token": self.token, "resume": resume });
        stream.send(Message::text(hello.to_string())).await.expect("sent");
        stream
    }
}

/// Answers the next ping, and gives whether it says that the broker is blocked.
async fn pong(stream: &mut Socket) -> bool {
    loop {
        let message = stream.next().await.expect("a frame").expect("a good one");
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).expect("json");
        if frame["type"] == "ping" {
            let pong = json!({ "type": "pong" }).to_string();
            stream.send(Message::text(pong)).await.expect("sent");
            return frame["blocked"].as_bool().unwrap_or(false);
        }
    }
}

/// Waits for a ping that says so; answers all of them.
pub(crate) async fn ping(stream: &mut Socket, blocked: bool) {
    let read = async { while pong(stream).await != blocked {} };
    tokio::time::timeout(PATIENCE, read).await.expect("a ping");
}

/// Answers pings while something else is done.
pub(crate) async fn answering<T>(stream: &mut Socket, doing: impl Future<Output = T>) -> T {
    let mut doing = std::pin::pin!(doing);
    loop {
        tokio::select! {
            done = &mut doing => return done,
            _ = pong(stream) => {}
        }
    }
}
