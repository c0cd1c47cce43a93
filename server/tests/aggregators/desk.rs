//! A desk in this process: a backend, an external API, and as many
//! aggregators as a test starts, over one broker.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use domain::{Channel, Role, Timestamp};
use futures::{SinkExt, StreamExt};
use protocol::{MemberRole, Principal, Urls};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;
use uuid::Uuid;
use warren::aggregator::{self, Aggregator};
use warren::auth::Secret;
use warren::backend::{self, Backend};
use warren::broker::{self, Broker, embedded};
use warren::clock::Clock;
use warren::external_api::{self, Api};
use warren::members::Members;
use warren::receipts::Receipts;
use warren::shutdown::Shutdown;
use warren::store::{self, AgentRecord, Integration, Store};

use crate::bench::Bench;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const BEGIN_MS: i64 = 1_790_000_000_000;
const DAY_MS: i64 = 86_400_000;
/// Socket buffers of this size, so that a client that doesn't read is felt soon.
const SMALL: u32 = 4_096;

pub(crate) fn begin() -> Timestamp {
    Timestamp::from_millis(BEGIN_MS)
}

pub(crate) struct Desk {
    pub(crate) broker: Arc<Bench>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) database: String,
    pub(crate) clock: Clock,
    api: Router,
    key: String,
    /// Tokens of ana, ben and cem.
    pub(crate) tokens: [String; 3],
    receipts: Receipts,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Desk {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::given(begin());
        let config = embedded::Config {
            path: folder.path().join("broker"),
            topology: broker::Config { partitions: 1, ..broker::Config::default() },
            clock: clock.clone(),
        };
        let bench = Bench::new(embedded::open(config).await.expect("a broker"));
        let broker: Arc<dyn Broker> = bench.clone();
        broker.declare().await.expect("declared");
        let database = format!("sqlite://{}", folder.path().join("warren.db").display());
        let config = store::Config { url: database.clone(), max_connections: 4 };
        let store = store::open(&config).await.expect("a store");
        let stop = CancellationToken::new();
        let receipts = Receipts::start(store.clone(), clock.clone(), &Shutdown::default());
        let (members, beating) = Members::join(
            broker.clone(),
            clock.clone(),
            vec![MemberRole::Backend],
            Urls::default(),
            stop.clone(),
        );
        tokio::spawn(beating);
        let backend = Backend {
            broker: broker.clone(),
            store: store.clone(),
            members,
            receipts: receipts.clone(),
            clock: clock.clone(),
            config: backend::Config::default(),
        };
        tokio::spawn(backend.run(stop.clone()));
        let key = integration(&*store).await;
        let mut tokens = [const { String::new() }; 3];
        for (token, login) in tokens.iter_mut().zip(["ana", "ben", "cem"]) {
            *token = agent(&*store, login).await;
        }
        let api = external_api::router(Api::new(
            broker,
            store.clone(),
            receipts.clone(),
            clock.clone(),
            external_api::Config { events_per_second: 1_000_000, ..Default::default() },
            stop.clone(),
        ));
        let _stop = stop.drop_guard();
        Self {
            broker: bench,
            store,
            database,
            clock,
            api,
            key,
            tokens,
            receipts,
            _folder: folder,
            _stop,
        }
    }

    /// One more aggregator, with a web listener.
    pub(crate) async fn aggregator(&self, config: aggregator::Config) -> Node {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_send_buffer_size(SMALL).expect("set");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let listener = socket.listen(1_024).expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let base = format!("ws://{address}/ws");
        let channels = Channel::ALL.iter().map(|one| (*one, format!("{base}/{one}"))).collect();
        let urls = Urls { all: Some(base), channels, ..Urls::default() };
        let broker: Arc<dyn Broker> = self.broker.clone();
        let (stop, beats) = (CancellationToken::new(), CancellationToken::new());
        let roles = vec![MemberRole::Aggregator];
        let (members, beating) =
            Members::join(broker.clone(), self.clock.clone(), roles, urls, beats.clone());
        tokio::spawn(beating);
        let aggregator = Aggregator::new(
            broker,
            self.store.clone(),
            members.clone(),
            self.receipts.clone(),
            self.clock.clone(),
            config,
        );
        tokio::spawn(aggregator.clone().run(stop.clone()));
        serve(listener, aggregator::web_router(aggregator.clone()));
        aggregator.ready().await;
        Node { address, aggregator, members, stop, _beats: beats.drop_guard() }
    }

    /// Posts an event, or an array of them.
    pub(crate) async fn post(&self, channel: &str, body: &Value) -> Value {
        let request = Request::post(format!("/external/{channel}"))
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .expect("a request");
        let answer = self.api.clone().oneshot(request).await.expect("an answer");
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
        assert_eq!(status, StatusCode::ACCEPTED, "{body:?}");
        serde_json::from_slice(&body).expect("json")
    }

    pub(crate) async fn notices(&self, channel: &str, count: usize, text: &str) {
        let one = json!({ "type": "notice", "text": text });
        self.post(channel, &Value::Array(vec![one; count])).await;
    }
}

pub(crate) fn serve(listener: TcpListener, router: Router) {
    tokio::spawn(async move { axum::serve(listener, router).await });
}

async fn integration(store: &dyn Store) -> String {
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
    key.expose().to_owned()
}

async fn agent(store: &dyn Store, login: &str) -> String {
    let name = login.to_owned();
    let login: domain::Login = login.parse().expect("a login");
    let principal = Principal { id: Uuid::now_v7(), login: login.clone(), name, role: Role::Agent };
    let agent = AgentRecord { principal, password_hash: String::new(), disabled: false };
    store.add_agent(&agent, begin()).await.expect("added");
    let token = Secret::token();
    let late = Timestamp::from_millis(BEGIN_MS + 1_000 * DAY_MS);
    store.add_session(token.hash(), &login, begin(), late).await.expect("added");
    token.expose().to_owned()
}

/// One aggregator.
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) aggregator: Aggregator,
    pub(crate) members: Members,
    pub(crate) stop: CancellationToken,
    _beats: DropGuard,
}

impl Node {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// A client that has been welcomed, and the welcome.
    pub(crate) async fn client(&self, path: &str, token: &str, more: Value) -> (Client, Value) {
        let mut client = Client::open(&self.url(path)).await;
        let welcome = client.hello(token, more).await;
        (client, welcome)
    }
}

/// A client that remembers what it read on the way to something else.
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    pub(crate) passed: Vec<Value>,
    /// Where a read came to the end of the connection.
    code: Option<u16>,
}

impl Client {
    pub(crate) async fn open(url: &str) -> Self {
        Self::try_open(url).await.expect("a socket")
    }

    pub(crate) async fn try_open(url: &str) -> Result<Self, tokio_tungstenite::tungstenite::Error> {
        let address = url.trim_start_matches("ws://").split('/').next().expect("an address");
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(SMALL)?;
        let stream = socket.connect(address.parse().expect("an address")).await?;
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await?;
        Ok(Self { socket, passed: Vec::new(), code: None })
    }

    pub(crate) async fn hello(&mut self, token: &str, more: Value) -> Value {
        let mut hello = json!({ "type": "hello", "token": token });
        for (name, value) in more.as_object().expect("fields") {
            hello[name] = value.clone();
        }
        self.send(&hello).await;
        self.until("a welcome", |frame| frame["type"] == "welcome").await
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.socket.send(Frame::text(frame.to_string())).await.expect("sent");
    }

    /// Sends as fast as it goes; a socket that was closed meanwhile is no matter.
    pub(crate) async fn flood(&mut self, frame: &Value, count: usize) {
        for _ in 0..count {
            if self.socket.feed(Frame::text(frame.to_string())).await.is_err() {
                return;
            }
        }
        let _ = self.socket.flush().await;
    }

    pub(crate) async fn command(&mut self, id: &Uuid, command: &Value, deadline_ms: Option<u64>) {
        let mut frame = json!({ "type": "command", "id": id, "command": command });
        if let Some(ms) = deadline_ms {
            frame["deadline_ms"] = json!(ms);
        }
        self.send(&frame).await;
    }

    pub(crate) async fn reply(&mut self, id: &Uuid) -> Value {
        let id = json!(id);
        self.until("a reply", |frame| frame["type"] == "reply" && frame["id"] == id).await
    }

    pub(crate) async fn next(&mut self, kind: &str) -> Value {
        self.until(kind, |frame| frame["type"] == kind).await
    }

    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.passed.iter().position(&wanted) {
            return self.passed.remove(at);
        }
        let read = async {
            loop {
                let Some(frame) = self.frame().await else {
                    panic!("closed with {:?} instead of {what}", self.code)
                };
                if wanted(&frame) {
                    return frame;
                }
                self.passed.push(frame);
            }
        };
        timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("no {what}"))
    }

    /// Reads to the end and gives the close code.
    pub(crate) async fn code(&mut self) -> u16 {
        let read = async {
            while let Some(frame) = self.frame().await {
                self.passed.push(frame);
            }
        };
        timeout(PATIENCE, read).await.expect("the socket closes");
        self.code.expect("a close frame")
    }

    /// The next frame; none at the end. Answers pings.
    async fn frame(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await? {
                Ok(Frame::Text(text)) => {
                    let frame: Value = serde_json::from_str(&text).expect("json");
                    if frame["type"] == "ping" {
                        let pong = json!({ "type": "pong" }).to_string();
                        let _ = self.socket.send(Frame::text(pong)).await;
                    }
                    return Some(frame);
                }
                Ok(Frame::Close(frame)) => self.code = frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}
