//! A client written from docs/PROTOCOL.md: resumes by cursor, repeats its
//! commands until their reply, and writes down what it saw.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use crate::journal::{Journal, Saw, roll};
use crate::{Position, Run};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const REPLY_PATIENCE: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    channel: Option<String>,
    offset: Option<u64>,
    #[serde(borrow)]
    event: Option<EventFields<'a>>,
}

#[derive(Deserialize)]
struct EventFields<'a> {
    id: Uuid,
    interaction_id: Option<&'a str>,
}

/// Consecutive events that are not written down yet.
struct Stretch {
    first: u64,
    last: u64,
    hash: u64,
}

/// Where a client stands in one channel.
#[derive(Default)]
struct Lane {
    /// The last offset it has; none until the first welcome.
    at: Option<u64>,
    /// Where the channel was when it was resumed.
    head: u64,
    epoch: String,
    stretch: Option<Stretch>,
    /// Event frames that came on this connection.
    received: u64,
}

/// How a client behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Habits {
    pub(crate) channels: Vec<&'static str>,
    /// Sends a command this often.
    pub(crate) commands_every: Option<Duration>,
    /// Reads nothing for a while, now and then.
    pub(crate) stalls: bool,
}

pub(crate) struct Client {
    run: Arc<Run>,
    number: usize,
    habits: Habits,
    token: String,
    journal: Journal,
    random: StdRng,
    lanes: BTreeMap<String, Lane>,
    peers: Vec<String>,
    turn: usize,
    pending: BTreeMap<String, Value>,
    interaction: Option<String>,
    /// Since when it doesn't have everything.
    behind_since: Option<Instant>,
}

/// Why a connection is over.
enum Over {
    Stop,
    Lost(String),
    Move(String),
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Client {
    pub(crate) fn new(
        run: Arc<Run>,
        number: usize,
        journal: PathBuf,
        habits: Habits,
    ) -> io::Result<Self> {
        let lanes = habits.channels.iter().map(|name| ((*name).to_owned(), Lane::default()));
        Ok(Self {
            token: run.tokens[number % run.tokens.len()].clone(),
            journal: Journal::create(&journal, run.begun)?,
            random: StdRng::seed_from_u64(run.seed ^ (number as u64) << 20),
            lanes: lanes.collect(),
            peers: run.sockets.clone(),
            turn: number,
            pending: BTreeMap::new(),
            interaction: None,
            behind_since: None,
            habits,
            number,
            run,
        })
    }

    /// Runs until the end of the run.
    pub(crate) async fn work(mut self) -> io::Result<()> {
        let mut down_since: Option<Instant> = None;
        let mut failures = 0;
        let mut target: Option<String> = None;
        loop {
            if self.run.over.is_cancelled() {
                break;
            }
            let url = target.take().unwrap_or_else(|| self.next_peer());
            let socket = match self.connect(&url).await {
                Ok(socket) => socket,
                Err(_) => {
                    down_since = down_since.or(Some(Instant::now()));
                    self.back_off(&mut failures).await;
                    continue;
                }
            };
            if let Some(since) = down_since.take() {
                let after_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.journal.write(Saw::Back { after_ms })?;
                self.level()?;
            }
            failures = 0;
            let mut socket = socket;
            let over = loop {
                match self.talk(&mut socket).await? {
                    Over::Move(to) => match self.connect(&to).await {
                        // The old one is closed when the new one is up.
                        Ok(next) => {
                            let mut old = std::mem::replace(&mut socket, next);
                            let _ = old.close(None).await;
                            self.journal.write(Saw::Moved)?;
                        }
                        Err(error) => break Over::Lost(error.to_string()),
                    },
                    over => break over,
                }
            };
            self.settle()?;
            match over {
                Over::Stop => {
                    let _ = socket.close(None).await;
                    break;
                }
                Over::Lost(why) => {
                    self.journal.write(Saw::Down { why })?;
                    let now = Instant::now();
                    down_since = Some(now);
                    self.behind_since.get_or_insert(now);
                    self.back_off(&mut failures).await;
                }
                Over::Move(to) => target = Some(to),
            }
        }
        self.settle()?;
        self.journal.flush()
    }

    fn next_peer(&mut self) -> String {
        self.turn += 1;
        self.peers[self.turn % self.peers.len()].clone()
    }

    /// Full jitter, doubling.
    async fn back_off(&mut self, failures: &mut u32) {
        let most = BACKOFF_FIRST.saturating_mul(1 << (*failures).min(6)).min(BACKOFF_MAX);
        *failures += 1;
        let wait = most.mul_f64(self.random.random());
        tokio::select! {
            () = self.run.over.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }

    /// Opens a socket and resumes: returns when the welcome is there.
    async fn connect(&mut self, url: &str) -> io::Result<Socket> {
        let opening = tokio_tungstenite::connect_async(url);
        let (mut socket, _) =
            tokio::time::timeout(CONNECT_PATIENCE, opening).await.map_err(other)?.map_err(other)?;
        let resume: BTreeMap<_, _> = self
            .lanes
            .iter()
            .filter_map(|(name, lane)| {
                Some((name.clone(), json!({"epoch": lane.epoch, "offset": lane.at?})))
            })
            .collect();
        let mut hello =
            json!({"type": "hello", "token": self.token, "channels": self.habits.channels});
        if !resume.is_empty() {
            hello["resume"] = json!(resume);
        }
        socket.send(Message::text(hello.to_string())).await.map_err(other)?;
        let deadline = Instant::now() + CONNECT_PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, socket.next()).await.map_err(other)?;
            let text = match next {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(close))) => return Err(other(format!("closed: {close:?}"))),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(other(error)),
                None => return Err(other("closed")),
            };
            let frame: Value = serde_json::from_str(&text)?;
            if frame["type"] == "welcome" {
                self.settle()?;
                self.welcome(&frame)?;
                for command in self.pending.values() {
                    socket.send(Message::text(command.to_string())).await.map_err(other)?;
                }
                return Ok(socket);
            }
        }
    }

    fn welcome(&mut self, frame: &Value) -> io::Result<()> {
        self.learn_peers(&frame["peers"]);
        for (name, lane) in &mut self.lanes {
            let stream = &frame["streams"][name];
            let offset = stream["offset"].as_u64().unwrap_or(0);
            let recovered = stream["recovered"].as_bool().unwrap_or(false);
            let fresh = lane.at.is_none();
            lane.received = 0;
            lane.head = offset;
            lane.epoch = stream["epoch"].as_str().unwrap_or_default().to_owned();
            if !recovered || fresh {
                lane.at = Some(offset);
            }
            let channel = name.clone();
            self.journal.write(Saw::Welcome { channel, offset, recovered, fresh })?;
        }
        Ok(())
    }

    fn learn_peers(&mut self, urls: &Value) {
        let urls: Vec<String> = urls
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        // Those it was started with stay: a list may be of a bad moment.
        let known = self.run.sockets.iter().filter(|url| !urls.contains(url)).cloned();
        let known: Vec<String> = known.collect();
        self.peers = urls.into_iter().chain(known).collect();
    }

    async fn talk(&mut self, socket: &mut Socket) -> io::Result<Over> {
        // Two heartbeats of the configuration that the run gives.
        let silence = crate::HEARTBEAT * 5 / 2;
        let mut commands =
            tokio::time::interval(self.habits.commands_every.unwrap_or(crate::PATIENCE));
        commands.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut repeat = tokio::time::interval(REPLY_PATIENCE);
        let mut flush = tokio::time::interval(Duration::from_secs(1));
        let mut heard = Instant::now();
        let over = self.run.over.clone();
        loop {
            tokio::select! {
                () = over.cancelled() => return Ok(Over::Stop),
                next = socket.next() => {
                    heard = Instant::now();
                    match next {
                        Some(Ok(Message::Text(text))) => {
                            match self.hear(&text, socket).await? {
                                None => {}
                                Some(over) => return Ok(over),
                            }
                        }
                        Some(Ok(Message::Close(close))) => {
                            let code = close.map_or(0, |close| u16::from(close.code));
                            return Ok(Over::Lost(code.to_string()));
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Ok(Over::Lost(error.to_string())),
                        None => return Ok(Over::Lost("closed".to_owned())),
                    }
                }
                () = tokio::time::sleep_until(heard + silence) => {
                    return Ok(Over::Lost("silence".to_owned()));
                }
                _ = commands.tick() => {
                    if let Some(command) = self.command()
                        && let Err(error) = socket.send(Message::text(command)).await
                    {
                        return Ok(Over::Lost(error.to_string()));
                    }
                }
                _ = repeat.tick() => {
                    for command in self.pending.values() {
                        if let Err(error) = socket.send(Message::text(command.to_string())).await {
                            return Ok(Over::Lost(error.to_string()));
                        }
                    }
                }
                _ = flush.tick() => {
                    self.settle()?;
                    self.journal.flush()?;
                    self.tell_position();
                    if self.habits.stalls && self.random.random_ratio(1, 30) {
                        tokio::time::sleep(Duration::from_secs(8)).await;
                    }
                }
            }
        }
    }

    /// A new command, or none if it is not the time for one.
    fn command(&mut self) -> Option<String> {
        self.habits.commands_every?;
        if self.run.publishing_over.is_cancelled() || self.pending.len() >= 16 {
            return None;
        }
        let id = Uuid::now_v7();
        let command = match self.interaction.take() {
            Some(interaction) => {
                json!({"type": "add_note", "interaction_id": interaction, "text": "Noted."})
            }
            None => json!({"type": "open_ticket", "subject": "Asked", "body": "By phone."}),
        };
        let frame = json!({"type": "command", "id": id, "command": command});
        self.journal.write(Saw::Command { id }).ok()?;
        self.pending.insert(id.to_string(), frame.clone());
        Some(frame.to_string())
    }

    async fn hear(&mut self, text: &str, socket: &mut Socket) -> io::Result<Option<Over>> {
        let frame: Frame<'_> = serde_json::from_str(text)?;
        match (frame.kind, frame.channel, frame.offset, frame.event) {
            ("event", Some(channel), Some(offset), Some(event)) => {
                self.event(&channel, offset, &event)?;
                return Ok(None);
            }
            ("event", ..) => return Err(other(format!("not an event: {text}"))),
            _ => {}
        }
        let frame: Value = serde_json::from_str(text)?;
        match frame["type"].as_str().unwrap_or_default() {
            "ping" => {
                for (name, lane) in &self.lanes {
                    let sent = frame["sent"][name].as_u64().unwrap_or(0);
                    if sent != lane.received {
                        let (channel, received) = (name.clone(), lane.received);
                        self.journal.write(Saw::Miscounted { channel, sent, received })?;
                    }
                }
                let positions: BTreeMap<_, _> =
                    self.lanes.iter().map(|(name, lane)| (name, lane.at)).collect();
                let pong = json!({"type": "pong", "positions": positions}).to_string();
                if let Err(error) = socket.send(Message::text(pong)).await {
                    return Ok(Some(Over::Lost(error.to_string())));
                }
            }
            "reply" => {
                let id = frame["id"].as_str().unwrap_or_default();
                let error = frame["error"]["code"].as_str().map(str::to_owned);
                let temporary = frame["error"]["temporary"].as_bool().unwrap_or(false);
                if temporary {
                    return Ok(None);
                }
                self.pending.remove(id);
                if let Ok(id) = id.parse() {
                    self.journal.write(Saw::Reply { id, error })?;
                }
            }
            "gap" => {
                let channel = frame["channel"].as_str().unwrap_or_default().to_owned();
                let offset = frame["offset"].as_u64().unwrap_or(0);
                self.settle()?;
                if let Some(lane) = self.lanes.get_mut(&channel) {
                    lane.at = Some(offset);
                }
                self.journal.write(Saw::Gap { channel, offset })?;
            }
            "peers" => self.learn_peers(&frame["urls"]),
            "migrate" => {
                if let Some(to) = frame["to"].as_str() {
                    return Ok(Some(Over::Move(to.to_owned())));
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn event(&mut self, channel: &str, offset: u64, event: &EventFields<'_>) -> io::Result<()> {
        if channel == "chat" {
            self.interaction = event.interaction_id.map(str::to_owned);
        }
        let Some(lane) = self.lanes.get_mut(channel) else {
            return Err(other(format!("an event of {channel}, which was not asked for")));
        };
        lane.received += 1;
        if lane.at.is_some_and(|at| offset <= at) {
            return self.journal.write(Saw::Repeated { channel: channel.to_owned(), offset });
        }
        lane.at = Some(offset);
        let arrived = offset >= lane.head;
        match &mut lane.stretch {
            Some(stretch) if stretch.last + 1 == offset => {
                stretch.last = offset;
                stretch.hash = roll(stretch.hash, offset, event.id);
            }
            _ => {
                let stretch =
                    Stretch { first: offset, last: offset, hash: roll(0, offset, event.id) };
                if let Some(before) = lane.stretch.replace(stretch) {
                    self.journal.write(told(channel, &before))?;
                }
            }
        }
        if arrived { self.level() } else { Ok(()) }
    }

    /// Writes down that everything is there that was missed, once it is.
    fn level(&mut self) -> io::Result<()> {
        if self.behind_since.is_none() || self.lanes.values().any(|lane| lane.at < Some(lane.head))
        {
            return Ok(());
        }
        let Some(since) = self.behind_since.take() else { return Ok(()) };
        let after_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.journal.write(Saw::Level { after_ms })
    }

    /// Writes down what has come.
    fn settle(&mut self) -> io::Result<()> {
        for (name, lane) in &mut self.lanes {
            if let Some(stretch) = lane.stretch.take() {
                self.journal.write(told(name, &stretch))?;
            }
        }
        Ok(())
    }

    fn tell_position(&self) {
        let at = self.lanes.iter().filter_map(|(name, lane)| Some((name.clone(), lane.at?)));
        let position = Position { at: at.collect(), waiting: self.pending.len() };
        let mut positions = self.run.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.insert(self.number, position);
    }
}

fn told(channel: &str, stretch: &Stretch) -> Saw {
    let Stretch { first, last, hash } = *stretch;
    Saw::Run { channel: channel.to_owned(), first, last, hash }
}
