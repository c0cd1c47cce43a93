//! The WebSocket as clients meet it: the real binary on a private port.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection, Executor};
use testkit::warren::Warren;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

const WARREN: &str = env!("CARGO_BIN_EXE_warren");
const PATIENCE: Duration = Duration::from_secs(30);

/// A `warren up` with the agents ana and ben and an integration.
struct Desk {
    service: Option<Warren>,
    settings: Vec<(String, String)>,
    folder: tempfile::TempDir,
    key: String,
    ana: String,
    ben: String,
}

impl Desk {
    fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut desk = Self {
            service: None,
            settings: settings.iter().map(own).collect(),
            folder,
            key: String::new(),
            ana: String::new(),
            ben: String::new(),
        };
        desk.begin();
        for login in ["ana", "ben"] {
            desk.warren(&["user", "add", login, "--password-stdin"], "correct horse battery");
        }
        desk.key = desk.warren(&["key", "add", "test", "--scopes", "voice,chat,tickets"], "");
        desk.ana = desk.warren(&["token", "ana"], "");
        desk.ben = desk.warren(&["token", "ben"], "");
        desk
    }

    fn data(&self) -> &str {
        self.folder.path().to_str().expect("a path")
    }

    /// Starts the service on what is in the folder.
    fn begin(&mut self) {
        let ports = ["--web", "127.0.0.1:0", "--external", "127.0.0.1:0"];
        let mut command = Warren::command(WARREN).args(["up", "--data", self.data()]).args(ports);
        for (name, value) in &self.settings {
            command = command.env(name, value);
        }
        self.service = Some(command.start());
    }

    fn service(&self) -> &Warren {
        self.service.as_ref().expect("a running service")
    }

    fn kill(&mut self) {
        self.service.take().expect("a running service").kill();
    }

    /// Runs `warren` beside the service, as an operator does.
    fn warren(&self, arguments: &[&str], stdin: &str) -> String {
        Warren::command(WARREN).args(arguments).args(["--data", self.data()]).say(stdin)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.service().web().replacen("http", "ws", 1))
    }

    async fn open(&self, path: &str) -> Client {
        let (socket, _) = tokio_tungstenite::connect_async(self.url(path)).await.expect("a socket");
        Client { socket, passed: Vec::new() }
    }

    async fn hello(&self, token: &str, more: Value) -> Client {
        let mut client = self.open("/ws").await;
        let mut hello = json!({ "type": "hello", "token": token });
        for (name, value) in more.as_object().expect("fields") {
            hello[name] = value.clone();
        }
        client.send(&hello).await;
        client
    }

    /// Posts one event and gives its id.
    async fn post(&self, channel: &str, event: &Value) -> String {
        let url = format!("{}/external/{channel}", self.service().external());
        let client = reqwest::Client::new();
        let answer = client.post(url).bearer_auth(&self.key).json(event).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status().as_u16(), 202);
        let accepted: Value = answer.json().await.expect("json");
        accepted["id"].as_str().expect("an id").to_owned()
    }

    /// Posts many events at once and gives their ids.
    async fn post_all(&self, channel: &str, events: &[Value]) -> Vec<String> {
        let url = format!("{}/external/{channel}", self.service().external());
        let request = reqwest::Client::new().post(url).bearer_auth(&self.key).json(events);
        let answers: Vec<Value> =
            request.send().await.expect("an answer").json().await.expect("json");
        answers.iter().map(|answer| answer["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// Posts a hundred notices as long as can be, and waits until `reader` has them.
    async fn post_hundred(&self, letter: &str, reader: &mut Client) {
        let notice = json!({ "type": "notice", "text": letter.repeat(8_000) });
        for id in self.post_all("chat", &vec![notice; 100]).await {
            reader.event(&id).await;
        }
    }
}

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that were read on the way to another one.
    passed: Vec<Value>,
}

impl Client {
    async fn send(&mut self, frame: &Value) {
        self.socket.send(Message::text(frame.to_string())).await.expect("sent");
    }

    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.passed.iter().position(&wanted) {
            return self.passed.remove(at);
        }
        let read = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text).expect("json");
                        if frame["type"] == "ping" {
                            self.send(&json!({ "type": "pong" })).await;
                        }
                        if wanted(&frame) {
                            return frame;
                        }
                        self.passed.push(frame);
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("instead of a frame: {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the frame comes")
    }

    async fn welcome(&mut self) -> Value {
        self.until(|frame| frame["type"] == "welcome").await
    }

    async fn event(&mut self, cause: &str) -> Value {
        self.until(|frame| frame["type"] == "event" && frame["event"]["cause"] == cause).await
    }

    /// Reads to the end, answering nothing, and gives the close code.
    async fn code(&mut self) -> u16 {
        let read = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                    Some(Ok(_)) => {}
                    other => panic!("instead of a close frame: {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the socket closes")
    }

    async fn command(&mut self, id: &str, command: Value) -> Value {
        self.send(&json!({ "type": "command", "id": id, "command": command })).await;
        self.until(|frame| frame["type"] == "reply" && frame["id"] == id).await
    }
}

fn ringing(call: &str) -> Value {
    json!({ "type": "call.ringing", "call": call })
}

#[tokio::test]
async fn whoever_breaks_the_rules_gets_the_pages_code_and_costs_the_others_nothing() {
    let desk = Desk::start(&[]);
    let mut good = desk.hello(&desk.ana, json!({})).await;
    good.welcome().await;

    for (frame, code) in [
        ("not json".to_owned(), 4500),
        (json!({ "type": "dance" }).to_string(), 4500),
        (json!({ "type": "pong" }).to_string(), 4505),
        (json!({ "type": "hello" }).to_string(), 4501),
        (json!({ "type": "hello", "token": "wt_nobody" }).to_string(), 4501),
        (format!("{{\"type\":\"pong\",\"x\":\"{}\"}}", "x".repeat(65_537 - 22)), 4504),
        ("x".repeat(3 * 1024 * 1024), 4504),
    ] {
        let mut client = desk.open("/ws").await;
        // A socket that is closed under the write has its code all the same.
        let _ = client.socket.send(Message::text(frame.clone())).await;
        assert_eq!(client.code().await, code, "{:.80}", frame);
    }

    let mut binary = desk.open("/ws").await;
    binary.socket.send(Message::Binary(Bytes::from_static(b"{}"))).await.expect("sent");
    assert_eq!(binary.code().await, 4500);

    let mut request = desk.url("/ws").into_client_request().expect("a request");
    request.headers_mut().insert("origin", "http://evil.example".parse().expect("a value"));
    let (socket, _) = tokio_tungstenite::connect_async(request).await.expect("upgraded");
    assert_eq!(Client { socket, passed: Vec::new() }.code().await, 4502);

    let mut elsewhere = desk.open("/ws/voice").await;
    elsewhere.send(&json!({ "type": "hello", "token": desk.ana, "channels": ["chat"] })).await;
    assert_eq!(elsewhere.code().await, 4502);

    let brief = desk.warren(&["token", "ana", "--ttl", "1ms"], "");
    assert_eq!(desk.hello(&brief, json!({})).await.code().await, 4503);

    let mut hasty = desk.hello(&desk.ana, json!({})).await;
    for _ in 0..2_000 {
        let frame = json!({ "type": "ack", "channel": "voice", "offset": 0 }).to_string();
        if hasty.socket.feed(Message::text(frame)).await.is_err() {
            break;
        }
    }
    let _ = hasty.socket.flush().await;
    assert_eq!(hasty.code().await, 4506);

    let cause = desk.post("voice", &ringing("c-1")).await;
    good.event(&cause).await;
}

#[tokio::test]
async fn who_says_nothing_is_closed_after_ten_seconds() {
    let desk = Desk::start(&[]);
    assert_eq!(desk.open("/ws").await.code().await, 4505);
}

#[tokio::test]
async fn who_answers_no_ping_is_closed() {
    let desk = Desk::start(&[("WARREN_AGGREGATOR__HEARTBEAT_MS", "300")]);
    let mut silent = desk.hello(&desk.ana, json!({})).await;
    assert_eq!(silent.code().await, 4002);
}

#[tokio::test]
async fn a_frame_of_the_largest_size_is_taken() {
    let desk = Desk::start(&[]);
    let mut client = desk.open("/ws").await;
    let mut hello = json!({ "type": "hello", "token": desk.ana, "client": "" });
    let room = 64 * 1024 - hello.to_string().len();
    hello["client"] = json!("x".repeat(room));
    assert_eq!(hello.to_string().len(), 64 * 1024);
    client.send(&hello).await;
    client.welcome().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_closed_and_the_others_go_on() {
    let desk = Desk::start(&[("WARREN_AGGREGATOR__OUTBOX_BYTES_MAX", "2097152")]);
    let mut slow = desk.hello(&desk.ana, json!({})).await;
    slow.welcome().await;
    let mut good = desk.hello(&desk.ben, json!({})).await;
    good.welcome().await;
    // More than the kernel's buffers on both sides take.
    for _ in 0..30 {
        desk.post_hundred("x", &mut good).await;
    }
    assert_eq!(slow.code().await, 4001);
}

#[tokio::test]
async fn who_missed_much_and_reads_slowly_gets_all_of_it_while_more_comes() {
    let desk = Desk::start(&[("WARREN_AGGREGATOR__OUTBOX_BYTES_MAX", "2097152")]);
    let mut good = desk.hello(&desk.ana, json!({})).await;
    let start = good.welcome().await["streams"].clone();
    for _ in 0..9 {
        desk.post_hundred("é", &mut good).await;
    }
    let mut slow = desk.hello(&desk.ben, json!({ "resume": start })).await;
    let chat = slow.welcome().await["streams"]["chat"].clone();
    assert_eq!((&chat["recovered"], &chat["replayed"]), (&json!(true), &json!(900)));
    // More than may wait for a client, and enough to drive what it still lacks
    // out of the aggregator's memory.
    for _ in 0..11 {
        desk.post_hundred("é", &mut good).await;
    }
    let last = start["chat"]["offset"].as_u64().expect("an offset") + 2_000;
    slow.until(|frame| frame["type"] == "event" && frame["offset"] == last).await;
    let passed = slow.passed.iter().filter(|frame| frame["type"] == "event");
    let offsets: Vec<_> = passed.filter_map(|frame| frame["offset"].as_u64()).collect();
    assert_eq!(offsets, (last - 1_999..last).collect::<Vec<_>>());
    // And goes on like everybody.
    let now = desk.post("chat", &json!({ "type": "notice", "text": "now" })).await;
    slow.event(&now).await;
}

#[tokio::test]
async fn what_is_direct_is_seen_by_the_one_who_is_named() {
    let desk = Desk::start(&[]);
    let mut ana = desk.hello(&desk.ana, json!({})).await;
    let mut ben = desk.hello(&desk.ben, json!({})).await;
    ana.welcome().await;
    ben.welcome().await;
    let mut direct = ringing("c-1");
    direct["distribution"] = json!({ "direct": "ana" });
    let hidden = desk.post("voice", &direct).await;
    let open = desk.post("voice", &ringing("c-2")).await;
    let seen = ana.event(&hidden).await;
    let seen_by_ben = ben.event(&open).await;
    // Ben's frames of voice so far: the open one alone, at an offset beyond the hidden one.
    assert!(ben.passed.iter().all(|frame| frame["event"]["cause"] != hidden));
    let interaction = &seen["event"]["interaction_id"];
    let take = json!({ "type": "take", "interaction_id": interaction });
    let refused = ben.command(&Uuid::now_v7().to_string(), take).await;
    assert_eq!(refused["error"]["code"], "not_found");
    // The frame is the same, byte for byte, for everybody who gets it.
    assert_eq!(ana.event(&open).await, seen_by_ben);
}

#[tokio::test]
async fn signals_and_presence_reach_the_colleagues() {
    let desk = Desk::start(&[]);
    let mut ana = desk.hello(&desk.ana, json!({})).await;
    let mut ben = desk.hello(&desk.ben, json!({})).await;
    ana.welcome().await;
    ben.welcome().await;
    let started = json!({ "type": "chat.started", "chat": "s-1", "contact": { "name": "Ines" } });
    let cause = desk.post("chat", &started).await;
    let interaction = ana.event(&cause).await["event"]["interaction_id"].clone();
    let typing = json!({ "type": "typing", "interaction_id": interaction });
    ana.send(&json!({ "type": "signal", "signal": typing })).await;
    let signal = ben.until(|frame| frame["type"] == "signal").await;
    assert_eq!(signal["signal"]["agent"], "ana");
    desk.post("chat", &json!({ "type": "chat.typing", "chat": "s-1" })).await;
    let signal = ben.until(|frame| frame["type"] == "signal").await;
    assert_eq!(signal["signal"]["type"], "typing");
    assert_eq!(signal["signal"].get("agent"), None);
    let away = json!({ "type": "set_presence", "presence": "away", "reason": "lunch" });
    let reply = ana.command(&Uuid::now_v7().to_string(), away).await;
    assert!(reply.get("ok").is_some(), "{reply}");
    let signal = ben.until(|frame| frame["signal"]["type"] == "presence").await;
    assert_eq!(signal["signal"]["reason"], "lunch");
}

#[tokio::test]
async fn a_channel_comes_and_goes_with_its_subscription() {
    let desk = Desk::start(&[]);
    let mut ana = desk.hello(&desk.ana, json!({ "channels": ["chat"] })).await;
    ana.welcome().await;
    desk.post("voice", &ringing("c-1")).await;
    ana.send(&json!({ "type": "subscribe", "channels": ["voice"] })).await;
    let gap = ana.until(|frame| frame["type"] == "gap").await;
    assert_eq!(gap["channel"], "voice");
    let cause = desk.post("voice", &ringing("c-2")).await;
    let event = ana.event(&cause).await;
    assert!(event["offset"].as_u64() > gap["offset"].as_u64());
    ana.send(&json!({ "type": "unsubscribe", "channels": ["voice"] })).await;
    // A reply comes after what was sent before it.
    let command = json!({ "type": "set_presence", "presence": "busy" });
    ana.command(&Uuid::now_v7().to_string(), command).await;
    desk.post("voice", &ringing("c-3")).await;
    let after = json!({ "type": "notice", "text": "after" });
    let cause = desk.post("chat", &after).await;
    ana.event(&cause).await;
    assert!(ana.passed.iter().all(|frame| frame["event"]["call"] != "c-3"));
}

#[tokio::test]
async fn killed_at_any_moment_the_desk_goes_on_where_it_was() {
    let mut desk = Desk::start(&[]);
    let mut ana = desk.hello(&desk.ana, json!({})).await;
    let welcome = ana.welcome().await;
    let first = desk.post("voice", &ringing("c-0")).await;
    let interaction = ana.event(&first).await["event"]["interaction_id"].clone();
    let id = Uuid::now_v7().to_string();
    let answer = json!({ "type": "answer_call", "interaction_id": interaction });
    let reply = ana.command(&id, answer.clone()).await;
    assert!(reply.get("ok").is_some(), "{reply}");
    let mut accepted = vec![first, id.clone()];
    for turn in 1..=60 {
        accepted.push(desk.post("voice", &ringing(&format!("c-{turn}"))).await);
    }
    desk.kill();
    desk.begin();
    let epoch = &welcome["streams"]["voice"]["epoch"];
    let resume = json!({ "resume": { "voice": { "epoch": epoch, "offset": 0 } } });
    let mut back = desk.hello(&desk.ana, resume).await;
    let welcome = back.welcome().await;
    assert_eq!(welcome["streams"]["voice"]["recovered"], true, "{welcome}");
    for cause in &accepted {
        back.event(cause).await;
    }
    let double: Vec<_> = back.passed.iter().filter(|frame| frame["type"] == "event").collect();
    assert!(double.is_empty(), "{double:?}");
    // The same command again: the first reply, and no second effect.
    let again = back.command(&id, answer).await;
    assert_eq!(again["ok"], reply["ok"]);
}

#[tokio::test]
async fn the_journey_of_a_command_is_told_as_an_events_is() {
    let desk = Desk::start(&[]);
    let mut ana = desk.hello(&desk.ana, json!({})).await;
    ana.welcome().await;
    let id = Uuid::now_v7().to_string();
    ana.command(&id, json!({ "type": "set_presence", "presence": "busy" })).await;
    let url = format!("{}/external/events/{id}", desk.service().external());
    let client = reqwest::Client::new();
    // That it was brokered may be noted after the reply.
    let told = async {
        loop {
            let answer = client.get(&url).bearer_auth(&desk.key).send().await;
            let journey: Value = answer.expect("an answer").json().await.expect("json");
            let stages = journey["stages"].as_array().expect("stages");
            if stages.iter().map(|one| &one["stage"]).eq(["accepted", "brokered", "decided"]) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("three stages");
}

#[tokio::test]
async fn on_sigterm_clients_are_told_and_the_program_ends_well() {
    let mut desk = Desk::start(&[]);
    let mut ana = desk.hello(&desk.ana, json!({})).await;
    ana.welcome().await;
    let service = desk.service.take().expect("a running service");
    let ended = tokio::task::spawn_blocking(move || service.term());
    assert_eq!(ana.code().await, 4000);
    assert_eq!(ended.await.expect("an end"), Some(0));
}

/// Takes the journal away from a running service, or puts it back.
async fn move_journal(desk: &Desk, from: &str, to: &str) {
    sqlx::any::install_default_drivers();
    let file = format!("sqlite://{}/warren.db", desk.data());
    let mut store = AnyConnection::connect(&file).await.expect("a connection");
    let rename = format!("ALTER TABLE {from} RENAME TO {to}");
    store.execute(rename.as_str()).await.expect("renamed");
}

#[tokio::test]
async fn after_a_start_what_was_missed_comes_from_memory_and_the_journal_is_not_read_again() {
    let mut desk = Desk::start(&[]);
    let mut client = desk.hello(&desk.ana, json!({})).await;
    let welcome = client.welcome().await;
    let resume = json!({ "resume": { "voice": welcome["streams"]["voice"] } });
    let missed = desk.post("voice", &ringing("c-1")).await;
    client.event(&missed).await;
    desk.kill();
    desk.begin();
    move_journal(&desk, "journal", "elsewhere").await;
    let mut client = desk.hello(&desk.ana, resume).await;
    let voice = client.welcome().await["streams"]["voice"].clone();
    assert_eq!((&voice["recovered"], &voice["replayed"]), (&json!(true), &json!(1)));
    client.event(&missed).await;
}

#[tokio::test]
async fn who_comes_back_while_the_journal_cannot_be_read_may_come_again_without_a_gap() {
    let mut desk = Desk::start(&[]);
    let mut client = desk.hello(&desk.ana, json!({})).await;
    let welcome = client.welcome().await;
    let resume = json!({ "resume": { "tickets": welcome["streams"]["tickets"] } });
    let missed = desk.post("tickets", &json!({ "type": "notice", "text": "missed" })).await;
    client.event(&missed).await;
    // More than is kept in memory, for somebody else: the rest has to be read.
    let ticket = json!({
        "type": "ticket.opened", "subject": "s", "body": "x".repeat(60_000),
        "requester": { "name": "Rui" }, "distribution": { "direct": "ben" },
    });
    for _ in 0..5 {
        for id in desk.post_all("tickets", &vec![ticket.clone(); 60]).await {
            let wait = "wait=announced&timeout_ms=30000";
            let url = format!("{}/external/events/{id}?{wait}", desk.service().external());
            let journey = reqwest::Client::new().get(url).bearer_auth(&desk.key).send().await;
            assert!(journey.expect("an answer").status().is_success());
        }
    }
    desk.kill();
    desk.begin();
    move_journal(&desk, "journal", "elsewhere").await;
    assert_eq!(desk.hello(&desk.ana, resume.clone()).await.code().await, 4003);
    move_journal(&desk, "elsewhere", "journal").await;
    let mut client = desk.hello(&desk.ana, resume).await;
    let tickets = client.welcome().await["streams"]["tickets"].clone();
    assert_eq!((&tickets["recovered"], &tickets["replayed"]), (&json!(true), &json!(1)));
    client.event(&missed).await;
}
