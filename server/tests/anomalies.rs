//! Days that nobody plans: everything comes twice and in a wrong order, the
//! clock jumps. A whole desk in one process, over a broker that misbehaves.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use domain::{Channel, Role, Timestamp};
use futures::{SinkExt, StreamExt};
use protocol::{AuditView, Difference, Hop, MemberRole, Principal, Urls, mark};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;
use uuid::Uuid;
use warren::aggregator::{self, Aggregator};
use warren::audit::Audit;
use warren::auth::Secret;
use warren::backend::{self, Backend};
use warren::broker::{
    Broker, BrokerError, BrokerState, Config, Consumer, DeadLetter, LogReader, LogStart, Message,
    Partition, TopologyItem, embedded,
};
use warren::clock::Clock;
use warren::external_api::{self, Api};
use warren::members::Members;
use warren::receipts::Receipts;
use warren::shutdown::Shutdown;
use warren::store::{self, AgentRecord, Integration, Store};

const PATIENCE: Duration = Duration::from_secs(60);
const BEGIN_MS: i64 = 1_790_000_000_000;
const DAY_MS: i64 = 86_400_000;

fn begin() -> Timestamp {
    Timestamp::from_millis(BEGIN_MS)
}

/// A broker that does everything twice and hands its logs out in disorder; it
/// may spoil what is announced.
struct Twice(Arc<dyn Broker>, fn(&mut Message));

/// Holds a few messages back and gives the last one of them first.
struct Disorder {
    inner: Box<dyn LogReader>,
    held: VecDeque<(u64, Message)>,
}

const HELD: usize = 5;

#[async_trait]
impl LogReader for Disorder {
    async fn recv(&mut self) -> Option<(u64, Message)> {
        while self.held.len() < HELD {
            match timeout(Duration::from_millis(5), self.inner.recv()).await {
                Ok(Some(next)) => self.held.push_back(next),
                Ok(None) => break,
                Err(_) if self.held.is_empty() => {}
                Err(_) => break,
            }
        }
        self.held.pop_back()
    }
}

#[async_trait]
impl Broker for Twice {
    fn config(&self) -> &Config {
        self.0.config()
    }
    async fn declare(&self) -> Result<(), BrokerError> {
        self.0.declare().await
    }
    async fn topology(&self) -> Result<Vec<TopologyItem>, BrokerError> {
        self.0.topology().await
    }
    async fn delete(&self) -> Result<(), BrokerError> {
        self.0.delete().await
    }
    async fn publish(&self, to: Partition, message: Message) -> Result<(), BrokerError> {
        self.0.publish(to, message.clone()).await?;
        self.0.publish(to, message).await
    }
    async fn consume(
        &self,
        from: Partition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        self.0.consume(from, prefetch).await
    }
    async fn announce(&self, channel: Channel, mut message: Message) -> Result<(), BrokerError> {
        (self.1)(&mut message);
        self.0.announce(channel, message.clone()).await?;
        self.0.announce(channel, message).await
    }
    async fn follow(
        &self,
        channel: Channel,
        from: LogStart,
    ) -> Result<Box<dyn LogReader>, BrokerError> {
        let inner = self.0.follow(channel, from).await?;
        Ok(Box::new(Disorder { inner, held: VecDeque::new() }))
    }
    async fn broadcast(&self, message: Message) -> Result<(), BrokerError> {
        self.0.broadcast(message.clone()).await?;
        self.0.broadcast(message).await
    }
    async fn listen(&self) -> Result<mpsc::Receiver<Message>, BrokerError> {
        self.0.listen().await
    }
    async fn reply(&self, member: &str, message: Message) -> Result<(), BrokerError> {
        self.0.reply(member, message.clone()).await?;
        self.0.reply(member, message).await
    }
    async fn replies(&self, member: &str) -> Result<mpsc::Receiver<Message>, BrokerError> {
        self.0.replies(member).await
    }
    async fn dead(&self, channel: Channel, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.0.dead(channel, limit).await
    }
    async fn find_dead(
        &self,
        channel: Channel,
        id: &str,
    ) -> Result<Option<DeadLetter>, BrokerError> {
        self.0.find_dead(channel, id).await
    }
    async fn replay_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError> {
        self.0.replay_dead(channel, id).await
    }
    async fn drop_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError> {
        self.0.drop_dead(channel, id).await
    }
    fn state(&self) -> watch::Receiver<BrokerState> {
        self.0.state()
    }
    async fn close(&self) {
        self.0.close().await;
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Desk {
    broker: Arc<dyn Broker>,
    audit: Audit,
    api: axum::Router,
    key: String,
    url: String,
    token: String,
    clock: Clock,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Desk {
    async fn start(clock: Clock, mangle: impl FnOnce(Arc<dyn Broker>) -> Arc<dyn Broker>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = embedded::Config {
            path: folder.path().join("broker"),
            topology: Config { partitions: 2, ..Config::default() },
            clock: clock.clone(),
        };
        let broker = mangle(embedded::open(config).await.expect("a broker"));
        broker.declare().await.expect("declared");
        let url = format!("sqlite://{}", folder.path().join("warren.db").display());
        let config = store::Config { url, max_connections: 4 };
        let store = store::open(&config).await.expect("a store");
        let stop = CancellationToken::new();
        let receipts = Receipts::start(store.clone(), clock.clone(), &Shutdown::default());
        let roles = vec![MemberRole::Aggregator, MemberRole::Backend];
        let (members, beating) =
            Members::join(broker.clone(), clock.clone(), roles, Urls::default(), stop.clone());
        tokio::spawn(beating);
        let audit = members.audit().clone();
        tokio::spawn(audit.clone().run(store.clone(), clock.clone(), stop.clone()));
        let backend = Backend {
            broker: broker.clone(),
            store: store.clone(),
            members: members.clone(),
            receipts: receipts.clone(),
            clock: clock.clone(),
            config: backend::Config::default(),
        };
        tokio::spawn(backend.run(stop.clone()));
        let aggregator = Aggregator::new(
            broker.clone(),
            store.clone(),
            members,
            receipts.clone(),
            clock.clone(),
            aggregator::Config::default(),
        );
        tokio::spawn(aggregator.clone().run(stop.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("ws://{}/ws", listener.local_addr().expect("an address"));
        let router = aggregator::web_router(aggregator.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        aggregator.ready().await;
        let (key, token) = accounts(&*store).await;
        let api = external_api::router(Api::new(
            broker.clone(),
            store,
            receipts,
            clock.clone(),
            external_api::Config::default(),
            stop.clone(),
        ));
        let _stop = stop.drop_guard();
        Self { broker, audit, api, key, url, token, clock, _folder: folder, _stop }
    }

    async fn post(&self, body: &Value) {
        let request = Request::post("/external/chat")
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .expect("a request");
        let answer = self.api.clone().oneshot(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }

    async fn say(&self, chat: u64, text: u64) {
        let text = format!("{chat} says {text}");
        self.post(&json!({ "type": "chat.message", "chat": chat.to_string(), "text": text })).await;
    }

    /// A client that has been welcomed, and the welcome.
    async fn client(&self, resume: Value) -> (Socket, Value) {
        let (mut socket, _) = tokio_tungstenite::connect_async(&self.url).await.expect("a socket");
        let hello = json!({ "type": "hello", "token": self.token, "resume": resume });
        say(&mut socket, &hello).await;
        let welcome = next(&mut socket, "welcome").await;
        (socket, welcome)
    }
}

async fn accounts(store: &dyn Store) -> (String, String) {
    let login: domain::Login = "ana".parse().expect("a login");
    let principal = Principal {
        id: Uuid::from_u128(1),
        login: login.clone(),
        name: "Ana".to_owned(),
        role: Role::Agent,
    };
    let agent = AgentRecord { principal, password_hash: String::new(), disabled: false };
    store.add_agent(&agent, begin()).await.expect("added");
    let token = Secret::token();
    let late = Timestamp::from_millis(BEGIN_MS + 1_000 * DAY_MS);
    store.add_session(token.hash(), &login, begin(), late).await.expect("added");
    let key = Secret::key();
    let integration = Integration {
        id: Uuid::from_u128(2),
        name: "site".to_owned(),
        scopes: Channel::ALL.to_vec(),
        key_hash: key.hash(),
        signature_required: false,
        created_at: begin(),
        revoked_at: None,
    };
    store.add_integration(&integration).await.expect("added");
    (key.expose().to_owned(), token.expose().to_owned())
}

async fn say(socket: &mut Socket, frame: &Value) {
    socket.send(Frame::text(frame.to_string())).await.expect("sent");
}

async fn next(socket: &mut Socket, kind: &str) -> Value {
    let read = async {
        loop {
            let frame = socket.next().await.expect("a frame").expect("a good one");
            let Frame::Text(text) = frame else { continue };
            let frame: Value = serde_json::from_str(&text).expect("json");
            if frame["type"] == "ping" && kind != "ping" {
                say(socket, &json!({ "type": "pong" })).await;
            }
            if frame["type"] == kind {
                return frame;
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("no {kind}"))
}

/// What the auditor says, once it says so.
async fn audited(desk: &Desk, wanted: impl Fn(&AuditView) -> bool) -> AuditView {
    let look = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            let view = desk.audit.view();
            if wanted(&view) {
                return view;
            }
        }
    };
    timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{:?}", desk.audit.view()))
}

/// The last offset of chat that was delivered as the journal has it.
fn verified(view: &AuditView) -> u64 {
    let hops = view.members[0].report.hops.get(&Hop::Delivered);
    hops.and_then(|hops| hops.get(&Channel::Chat)).map_or(0, |chat| chat.verified)
}

/// Reads so many chat events and checks that each is there once and in order.
async fn read(socket: &mut Socket, count: u64, after: u64) -> Vec<Value> {
    let (mut seen, mut versions) = (HashSet::new(), BTreeMap::<String, u64>::new());
    let mut events = Vec::new();
    for offset in after + 1..=after + count {
        let frame = next(socket, "event").await;
        assert_eq!(frame["offset"], offset, "{frame}");
        let event = &frame["event"];
        assert!(seen.insert(event["id"].to_string()), "twice: {frame}");
        let interaction = event["interaction_id"].to_string();
        let version = event["version"].as_u64().expect("a version");
        let before = versions.insert(interaction, version);
        assert!(before.is_none_or(|before| version == before + 1), "a hole: {frame}");
        events.push(event.clone());
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_twice_and_in_a_wrong_order_is_seen_once_and_in_order() {
    let desk = Desk::start(Clock::default(), |broker| Arc::new(Twice(broker, |_| ()))).await;
    let (mut socket, _) = desk.client(json!({})).await;
    let (chats, each) = (10, 20);
    for text in 0..each {
        for chat in 0..chats {
            desk.say(chat, text).await;
        }
    }
    let events = read(&mut socket, chats * each, 0).await;
    for chat in 0..chats {
        let own = format!("{chat} says ");
        let said: Vec<&str> = events
            .iter()
            .filter_map(|event| event["text"].as_str()?.strip_prefix(own.as_str()))
            .collect();
        let wanted: Vec<String> = (0..each).map(|text| text.to_string()).collect();
        assert_eq!(said, wanted);
    }
    // A command as well: one effect, one reply.
    let interaction = events[0]["interaction_id"].clone();
    let id = Uuid::now_v7().to_string();
    let command = json!({ "type": "take", "interaction_id": interaction });
    say(&mut socket, &json!({ "type": "command", "id": id, "command": command })).await;
    let (mut replies, mut effects) = (0, 0);
    while replies == 0 || effects == 0 {
        let frame = timeout(PATIENCE, socket.next()).await.expect("a frame");
        let Frame::Text(text) = frame.expect("a frame").expect("a good one") else { continue };
        let frame: Value = serde_json::from_str(&text).expect("json");
        replies += u32::from(frame["type"] == "reply");
        effects += u32::from(frame["type"] == "event" && frame["event"]["cause"] == id.as_str());
    }
    // Whatever would come a second time comes before this.
    desk.say(99, 0).await;
    let last = next(&mut socket, "event").await;
    assert_eq!(last["event"]["text"], "99 says 0");
    assert_eq!((replies, effects), (1, 1));
    // And the auditor has compared all of it, and found nothing wrong.
    let view = audited(&desk, |view| verified(view) > chats * each).await;
    assert_eq!((view.totals.missing, view.totals.altered, view.totals.alerts), (0, 0, 0));
    for channel in Channel::ALL {
        assert!(desk.broker.dead(*channel, 10).await.expect("a list").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_loses_nothing_and_keeps_the_order() {
    let desk = Desk::start(Clock::given(begin()), |broker| broker).await;
    let (mut socket, welcome) = desk.client(json!({})).await;
    let mut said = Vec::new();
    for days in [0, 30, -60, 2, -1, 400] {
        desk.clock.set(Timestamp::from_millis(BEGIN_MS + days * DAY_MS));
        for text in 0..5 {
            desk.say(1, text).await;
        }
        let events = read(&mut socket, 5, said.len() as u64).await;
        said.extend(events.iter().map(|event| event["text"].clone()));
    }
    let wanted = ["1 says 0", "1 says 1", "1 says 2", "1 says 3", "1 says 4"].repeat(6);
    assert_eq!(said, wanted);
    // Who comes back has missed nothing either.
    let epoch = &welcome["streams"]["chat"]["epoch"];
    let (mut back, welcome) = desk.client(json!({ "chat": { "epoch": epoch, "offset": 7 } })).await;
    assert_eq!(welcome["streams"]["chat"]["recovered"], true);
    read(&mut back, 23, 7).await;
    assert!(desk.broker.dead(Channel::Chat, 10).await.expect("a list").is_empty());
}

/// What a welcome says of chat: whether it was recovered, and how much.
fn recovery(welcome: &Value) -> (bool, u64) {
    let chat = &welcome["streams"]["chat"];
    (chat["recovered"].as_bool().expect("a word"), chat["replayed"].as_u64().unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_brings_all_that_came_after_it_or_says_that_it_can_not() {
    let desk = Desk::start(Clock::default(), |broker| broker).await;
    let (mut live, welcome) = desk.client(json!({})).await;
    for text in 0..10 {
        desk.say(1, text).await;
    }
    read(&mut live, 10, 0).await;
    let epoch = welcome["streams"]["chat"]["epoch"].clone();
    let at = |offset: u64| json!({ "chat": { "epoch": epoch, "offset": offset } });

    // Nothing has come since: caught up, and it goes on from there.
    let (mut current, welcome) = desk.client(at(10)).await;
    assert_eq!(recovery(&welcome), (true, 0));
    // A part of it, and all of it.
    for offset in [0, 1, 9] {
        let (mut back, welcome) = desk.client(at(offset)).await;
        assert_eq!(recovery(&welcome), (true, 10 - offset));
        read(&mut back, 10 - offset, offset).await;
    }
    // A place that there isn't yet is not taken for caught up; another
    // journal's place is none, whatever its number.
    let (_, welcome) = desk.client(at(11)).await;
    assert!(!recovery(&welcome).0, "{welcome}");
    for offset in [0, 5, 10] {
        let foreign = json!({ "chat": { "epoch": "another", "offset": offset } });
        let (_, welcome) = desk.client(foreign).await;
        assert_eq!(recovery(&welcome), (false, 0));
        assert_eq!(welcome["streams"]["chat"]["offset"], 10);
        assert_eq!(welcome["streams"]["chat"]["epoch"], epoch);
    }

    // A replay into the middle of what comes live: no gap, no double; and the
    // session before it, still open, gets its own and nothing of that.
    let (mut back, welcome) = {
        let posting = async {
            for text in 10..60 {
                desk.say(1, text).await;
            }
        };
        tokio::join!(desk.client(at(3)), posting).0
    };
    let (recovered, replayed) = recovery(&welcome);
    assert!(recovered && replayed >= 7, "{welcome}");
    read(&mut back, 57, 3).await;
    read(&mut current, 50, 10).await;
    read(&mut live, 50, 10).await;

    // Acks of what was never sent change nothing.
    let ack = json!({ "type": "ack", "channel": "chat", "offset": 9_999_999, "stage": "rendered" });
    say(&mut back, &ack).await;
    desk.say(1, 60).await;
    read(&mut back, 1, 60).await;
}

/// Another id in the second chat event.
fn spoil(message: &mut Message) {
    if message.header("x-offset") == Some("2") && message.header("x-channel") == Some("chat") {
        let mut event: Value = serde_json::from_slice(&message.body).expect("json");
        event["id"] = json!(Uuid::from_u128(7));
        message.body = event.to_string().into();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_altered_on_its_way_is_found_and_its_readers_are_told() {
    let desk = Desk::start(Clock::default(), |broker| Arc::new(Twice(broker, spoil))).await;
    let (mut socket, _) = desk.client(json!({})).await;
    // One after the other: over a hole the journal would be read instead.
    for offset in 0..3 {
        desk.say(1, offset).await;
        let events = read(&mut socket, 1, offset).await;
        assert_eq!(events[0]["id"] == json!(Uuid::from_u128(7)), offset == 1);
    }
    let view = audited(&desk, |view| view.totals.alerts > 0).await;
    let [alert] = &view.alerts[..] else { panic!("{view:?}") };
    assert_eq!((alert.hop, alert.difference), (Hop::Delivered, Difference::Altered));
    assert_eq!((alert.channel, alert.block, alert.offset), (Some(Channel::Chat), 0, 2));
    assert!(alert.partition.is_some());
    assert_eq!((view.totals.missing, view.totals.altered), (0, 1));
    let gap = next(&mut socket, "gap").await;
    assert_eq!((&gap["channel"], &gap["offset"]), (&json!("chat"), &json!(3)));
}

/// Answers the next ping with such an account of chat.
async fn account(socket: &mut Socket, count: u64, hash: u64) {
    next(socket, "ping").await;
    let chat = json!({ "count": count, "hash": format!("{hash:016x}") });
    let account = json!({ "received": { "chat": chat }, "repeated": 3 });
    say(socket, &json!({ "type": "pong", "account": account })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_received_something_else_is_found_and_begins_anew() {
    let desk = Desk::start(Clock::default(), |broker| broker).await;
    for (wrong, difference) in [(0, None), (1, Some(Difference::Altered))] {
        let (mut socket, welcome) = desk.client(json!({})).await;
        let head = welcome["streams"]["chat"]["offset"].as_u64().expect("an offset");
        desk.say(1, 0).await;
        let event = next(&mut socket, "event").await;
        let id = event["event"]["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        account(&mut socket, 1, mark(head + 1, id) ^ wrong).await;
        let answers = 1 + wrong;
        let view = audited(&desk, |view| view.totals.answers == answers).await;
        let found = view.alerts.first().map(|alert| alert.difference);
        assert_eq!((found, view.totals.repeated), (difference, 3 * answers));
        if wrong > 0 {
            let closed = async {
                loop {
                    let frame = socket.next().await.expect("a frame").expect("a good one");
                    if let Frame::Close(Some(close)) = frame {
                        return u16::from(close.code);
                    }
                }
            };
            assert_eq!(timeout(PATIENCE, closed).await.expect("a close"), 4004);
        }
    }
}
