//! The aggregator: WebSockets on one side, the outbound log on the other.
//!
//! Keeps no durable state: every aggregator may die at once. A [`hub`] holds
//! recent frames and the outboxes of who listens; a [`follow`]er for each
//! channel keeps it whole; a [`connection`] owns one socket.

mod commands;
mod connection;
mod follow;
mod heal;
mod hub;
mod opening;
mod outbox;
mod rate;
mod replay;
mod ring;
mod routes;
mod sent;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use domain::Channel;
use protocol::{CloseCode, ServerFrame};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::clock::Clock;
use crate::members::{Members, Roster};
use crate::receipts::Receipts;
use crate::store::Store;
use commands::Pending;
use follow::Follower;
use hub::Hub;

pub use routes::{channel_router, web_router};

/// Limits and times of an aggregator.
#[derive(Clone, Debug)]
pub struct Config {
    /// A ping comes this often. Default 5 s.
    pub heartbeat: Duration,
    /// What may wait for one client, in bytes. Default 1 MiB.
    pub outbox_bytes_max: usize,
    /// WebSockets at once; more are turned away with 503. Default 20,000.
    pub connections_max: usize,
    /// Frames a second from one client, and three times that in a burst. Default 100.
    pub frames_per_second: u32,
    /// Browsers' origins that may connect, besides the host that is asked.
    pub allowed_origins: Vec<String>,
    /// How long clients may take to move when this aggregator stops. Default 5 s.
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            outbox_bytes_max: 1024 * 1024,
            connections_max: 20_000,
            frames_per_second: 100,
            allowed_origins: Vec::new(),
            drain: Duration::from_secs(5),
        }
    }
}

/// How long close frames may take to be written.
const CLOSING: Duration = Duration::from_secs(1);
/// How many clients may read the journal at once.
const REPLAYS_MAX: usize = 16;
/// Clients are told to move in so many batches,
const BATCHES: usize = 10;
/// of at least so many.
const BATCH_MIN: usize = 100;

/// An aggregator. Clones share it.
#[derive(Clone)]
pub struct Aggregator {
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    members: Members,
    receipts: Receipts,
    clock: Clock,
    config: Arc<Config>,
    hub: Arc<Hub>,
    pending: Arc<Pending>,
    begun: Arc<watch::Sender<[bool; 3]>>,
    connections: Arc<AtomicU64>,
    permits: Arc<Semaphore>,
    replays: Arc<Semaphore>,
    draining: CancellationToken,
}

impl Aggregator {
    /// An aggregator that doesn't run yet.
    #[must_use]
    pub fn new(
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        members: Members,
        receipts: Receipts,
        clock: Clock,
        config: Config,
    ) -> Self {
        Self {
            hub: Arc::new(Hub::new(members.audit().clone())),
            broker,
            store,
            members,
            receipts,
            clock,
            permits: Arc::new(Semaphore::new(config.connections_max)),
            config: Arc::new(config),
            pending: Arc::default(),
            begun: Arc::new(watch::channel([false; 3]).0),
            connections: Arc::default(),
            replays: Arc::new(Semaphore::new(REPLAYS_MAX)),
            draining: CancellationToken::new(),
        }
    }

    /// Follows the logs and serves until `stop`, then moves the clients elsewhere.
    pub async fn run(self, stop: CancellationToken) {
        let tracker = TaskTracker::new();
        let inner = CancellationToken::new();
        for channel in Channel::ALL {
            tracker.spawn(Follower::new(self.clone(), *channel).run(inner.clone()));
        }
        tracker.spawn(self.clone().hear_replies(inner.clone()));
        tracker.spawn(self.clone().hear_signals(inner.clone()));
        tracker.spawn(self.clone().watch_members(inner.clone()));
        tracker.spawn(self.clone().heal(inner.clone()));
        stop.cancelled().await;
        self.drain().await;
        inner.cancel();
        tracker.close();
        tracker.wait().await;
    }

    /// Ready to serve: every channel's head is known.
    pub async fn ready(&self) {
        let mut begun = self.begun.subscribe();
        // The sender lives as long as `self`.
        let _ = begun.wait_for(|begun| begun.iter().all(|channel| *channel)).await;
    }

    fn began(&self, channel: Channel) {
        self.begun.send_modify(|begun| begun[channel.index()] = true);
    }

    fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Says how many clients there are, for the next heartbeat.
    fn count(&self) {
        let clients = self.hub.connections();
        self.members.say(|own| own.clients = clients);
    }

    async fn hear_signals(self, stop: CancellationToken) {
        let mut signals = self.members.signals();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                signal = signals.recv() => match signal {
                    Ok((channel, to)) => {
                        let frame = ServerFrame::Signal { signal: to.signal.clone() };
                        if let Some(text) = encode(&frame) {
                            self.hub.signal(channel, &to, &text);
                        }
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::debug!(missed, "signals dropped");
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                },
            }
        }
    }

    /// Tells clients which aggregators live, and sends them away when this
    /// one has lost its broker.
    async fn watch_members(self, stop: CancellationToken) {
        let (mut roster, mut heard) = (self.members.roster(), self.members.heard());
        let mut known = Addresses::of(&roster.borrow_and_update());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = roster.changed() => {
                    if changed.is_err() { return }
                    let before = std::mem::replace(&mut known, Addresses::of(&roster.borrow_and_update()));
                    let texts = known.map(|only, urls| {
                        let (mut old, mut new) = (before.get(only).to_vec(), urls.to_vec());
                        old.sort();
                        new.sort();
                        let news = (old != new).then(|| ServerFrame::Peers { urls: urls.to_vec() });
                        news.and_then(|frame| encode(&frame))
                    });
                    self.hub.tell_all(|only| texts.get(only).clone());
                }
                changed = heard.changed() => {
                    if changed.is_err() { return }
                    if !*heard.borrow_and_update() {
                        tracing::warn!(clients = self.hub.connections(), "broker lost, clients sent elsewhere");
                        self.hub.shut_all(CloseCode::BrokerLost);
                    }
                }
            }
        }
    }

    /// Takes no more clients, tells those there are where to go, batch by
    /// batch so that they don't all knock at the same moment, waits for them
    /// to leave, and closes on the rest.
    async fn drain(&self) {
        self.members.say_draining().await;
        self.draining.cancel();
        let others = {
            let roster = self.members.roster();
            let mut others = roster.borrow().clone();
            others.members.remove(self.members.id());
            Addresses::of(&others)
        };
        if others != Addresses::default() {
            let end = Instant::now() + self.config.drain;
            self.migrate(&others, end).await;
            self.until_empty(end).await;
        }
        self.hub.shut_all(CloseCode::Draining);
        self.until_empty(Instant::now() + CLOSING).await;
    }

    /// Tells everybody to move, within the first half of the time; each has
    /// until `end`.
    async fn migrate(&self, others: &Addresses, end: Instant) {
        let everyone = self.hub.everyone();
        let batch = everyone.len().div_ceil(BATCHES).max(BATCH_MIN);
        let pause = self.config.drain / (2 * u32::try_from(BATCHES).unwrap_or(1));
        for (turn, connections) in everyone.chunks(batch).enumerate() {
            if turn > 0 {
                tokio::time::sleep(pause).await;
            }
            let left = end.saturating_duration_since(Instant::now());
            let deadline_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            for (turn, connection) in connections.iter().enumerate() {
                self.hub.tell(*connection, |only| {
                    let urls = others.get(only);
                    let to = urls.get(turn % urls.len().max(1))?.clone();
                    encode(&ServerFrame::Migrate { to, deadline_ms })
                });
            }
        }
    }

    async fn until_empty(&self, deadline: Instant) {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while self.hub.connections() > 0 && Instant::now() < deadline {
            look.tick().await;
        }
    }
}

/// Something for sockets of all channels, and for those of each one.
#[derive(Clone, Debug, Default, PartialEq)]
struct ByShape<T> {
    all: T,
    one: [T; 3],
}

/// Where live aggregators are, least loaded first.
type Addresses = ByShape<Vec<String>>;

impl Addresses {
    fn of(roster: &Roster) -> Self {
        let one = std::array::from_fn(|at| roster.aggregators(Some(Channel::ALL[at])));
        Self { all: roster.aggregators(None), one }
    }
}

impl<T> ByShape<T> {
    fn get(&self, only: Option<Channel>) -> &T {
        only.map_or(&self.all, |channel| &self.one[channel.index()])
    }

    fn map<U>(&self, make: impl Fn(Option<Channel>, &T) -> U) -> ByShape<U> {
        let one = std::array::from_fn(|at| make(Some(Channel::ALL[at]), &self.one[at]));
        ByShape { all: make(None, &self.all), one }
    }
}

fn encode(frame: &ServerFrame) -> Option<Utf8Bytes> {
    serde_json::to_string(frame).ok().map(Utf8Bytes::from)
}
