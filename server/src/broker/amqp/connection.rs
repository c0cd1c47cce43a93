//! Keeps one connection to the broker alive, over a list of addresses.
//!
//! lapin's own recovery knows one address and holds confirms back until it is
//! there again, so it isn't used: a connection that fails is dropped, and the
//! next address is tried at once.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::UrlError;
use crate::broker::{BrokerError, BrokerState};

/// Seconds between heartbeats; a frozen broker is noticed after twice that.
const HEARTBEAT_S: u16 = 5;
/// For a TCP connection, which costs nothing when nobody listens.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// For the handshake; what is given up leaves a thread until the peer answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one call to the broker.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between rounds over all addresses, doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often a connection's own idea of its state is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A broker's address, checked.
#[derive(Clone)]
pub(super) struct Target(AMQPUri);

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, UrlError> {
        let refuse = |why: String| UrlError { url: without_secret(url), why };
        let mut uri: AMQPUri = url.parse().map_err(refuse)?;
        if url.split("://").nth(1).is_some_and(|rest| {
            rest.rsplit_once('@').map_or(rest, |(_, host)| host).starts_with('[')
        }) {
            // lapin would connect to localhost instead.
            return Err(refuse("write a host name in place of an IPv6 address".to_owned()));
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        Ok(Self(uri))
    }

    /// Fails fast where nobody listens. A peer that once didn't answer must
    /// say its first word before lapin, and a thread of it, is sent there.
    async fn probe(&self, suspect: bool) -> Result<(), String> {
        let authority = &self.0.authority;
        let work = async {
            let mut peer = TcpStream::connect((authority.host.as_str(), authority.port)).await?;
            if suspect && self.0.scheme == AMQPScheme::AMQP {
                peer.write_all(b"AMQP\x00\x00\x09\x01").await?;
                peer.read_u8().await?;
            }
            Ok::<_, std::io::Error>(())
        };
        match timeout(PROBE_TIMEOUT, work).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

/// The address without user and password.
fn without_secret(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// Why a call to the broker failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection or the channel is of no more use.
    Lost(String),
    /// The broker said no, with a code of AMQP. The channel is closed.
    Refused(u16, String),
}

impl From<lapin::Error> for Fault {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(refusal) => {
                Self::Refused(refusal.get_id(), refusal.get_message().to_string())
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl From<Fault> for BrokerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Lost(why) => Self::Down(why),
            Fault::Refused(404, why) => Self::Unroutable(why),
            Fault::Refused(406, why) => Self::Misdeclared(why),
            Fault::Refused(_, why) => Self::Down(why),
        }
    }
}

/// A connection, while it lasts.
pub(super) struct Live {
    connection: Connection,
    /// Canceled when it is over; cancel it to have it replaced.
    pub(super) gone: CancellationToken,
}

impl Live {
    /// A new channel.
    pub(super) async fn open(&self) -> Result<Channel, Fault> {
        self.call(self.connection.create_channel()).await
    }

    /// Makes a call that ends with the connection, or after a while.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Fault> {
        let outcome = tokio::select! {
            outcome = timeout(CALL_TIMEOUT, call) => outcome,
            () = self.gone.cancelled() => return Err(Fault::Lost("connection lost".to_owned())),
        };
        let fault = match outcome {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Fault::from(error),
            Err(_) => Fault::Lost("no answer".to_owned()),
        };
        if matches!(fault, Fault::Refused(541, _)) {
            // An internal error of the broker: only a new connection is safe.
            self.gone.cancel();
        }
        Err(fault)
    }
}

#[derive(Clone)]
enum Status {
    Down(String),
    Up(Arc<Live>),
}

/// The broker takes nothing more on this connection.
#[derive(Clone)]
pub(super) struct Blocked {
    pub(super) reason: String,
    pub(super) since: Instant,
}

/// What there is of a connection now.
pub(super) struct Link {
    status: watch::Receiver<Status>,
    blocked: watch::Receiver<Option<Blocked>>,
}

impl Link {
    /// Waits for a connection.
    pub(super) async fn live(&self) -> Result<Arc<Live>, BrokerError> {
        let mut status = self.status.clone();
        let found = status.wait_for(|status| matches!(status, Status::Up(_))).await;
        match found.as_deref() {
            Ok(Status::Up(live)) => Ok(Arc::clone(live)),
            _ => Err(BrokerError::Down("closed".to_owned())),
        }
    }

    /// Waits for a connection, but not longer than `patience`.
    pub(super) async fn live_within(&self, patience: Duration) -> Result<Arc<Live>, BrokerError> {
        match timeout(patience, self.live()).await {
            Ok(live) => live,
            Err(_) => Err(BrokerError::Down(self.down().unwrap_or_default())),
        }
    }

    /// Why there is no connection, if there is none.
    pub(super) fn down(&self) -> Option<String> {
        match &*self.status.borrow() {
            Status::Down(reason) => Some(reason.clone()),
            Status::Up(_) => None,
        }
    }

    /// Why the broker takes nothing more, if that is so.
    pub(super) fn blocked(&self) -> Option<Blocked> {
        self.blocked.borrow().clone()
    }

    /// Returns when the broker has taken nothing for longer than `grace`.
    pub(super) async fn blocked_longer_than(&self, grace: Duration) -> String {
        let mut blocked = self.blocked.clone();
        loop {
            let Ok(Some(now)) = blocked.wait_for(Option::is_some).await.map(|now| now.clone())
            else {
                return std::future::pending().await;
            };
            tokio::select! {
                () = tokio::time::sleep_until(now.since + grace) => return now.reason,
                _ = blocked.wait_for(Option::is_none) => {}
            }
        }
    }

    /// Waits until the supervisor has said goodbye.
    pub(super) async fn closed(&self) {
        let mut status = self.status.clone();
        while status.changed().await.is_ok() {}
    }

    /// Waits until the first round over all addresses is over, or `patience`.
    pub(super) async fn settled(&self, patience: Duration) {
        let mut status = self.status.clone();
        let _ = timeout(patience, status.changed()).await;
    }
}

/// What both connections together mean for whoever uses the broker.
pub(super) struct Health {
    state: watch::Sender<BrokerState>,
    parts: Mutex<[BrokerState; 2]>,
}

impl Health {
    pub(super) fn new() -> Self {
        let down = BrokerState::Down("connecting".to_owned());
        Self { state: watch::Sender::new(down.clone()), parts: Mutex::new([down.clone(), down]) }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BrokerState> {
        self.state.subscribe()
    }

    fn set(&self, part: Part, state: BrokerState) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts[part as usize] = state;
        let [publishing, consuming] = &*parts;
        let whole = match (publishing, consuming) {
            (down @ BrokerState::Down(_), _) | (_, down @ BrokerState::Down(_)) => down,
            (blocked @ BrokerState::Blocked(_), _) | (_, blocked @ BrokerState::Blocked(_)) => {
                blocked
            }
            (up, _) => up,
        };
        self.state.send_if_modified(|state| {
            let changed = state != whole;
            if changed {
                state.clone_from(whole);
            }
            changed
        });
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Publish = 0,
    Consume = 1,
}

/// Makes connections, one after the other, until `stop`.
pub(super) struct Supervisor {
    pub(super) part: Part,
    pub(super) targets: Vec<Target>,
    pub(super) health: Arc<Health>,
    pub(super) stop: CancellationToken,
}

impl Supervisor {
    /// Starts it on a task of its own.
    pub(super) fn start(self) -> Link {
        let (status, status_seen) = watch::channel(Status::Down("connecting".to_owned()));
        let (blocked, blocked_seen) = watch::channel(None);
        tokio::spawn(async move {
            let stop = self.stop.clone();
            let _ = stop.run_until_cancelled(self.run(&status, &blocked)).await;
            self.health.set(self.part, BrokerState::Down("closed".to_owned()));
            let last = status.send_replace(Status::Down("closed".to_owned()));
            if let Status::Up(live) = last {
                live.gone.cancel();
                let goodbye = live.connection.close(200, "closed".into());
                let _ = timeout(PROBE_TIMEOUT, goodbye).await;
            }
            // Dropping the senders tells whoever waits for a connection.
        });
        Link { status: status_seen, blocked: blocked_seen }
    }

    async fn run(&self, status: &watch::Sender<Status>, blocked: &watch::Sender<Option<Blocked>>) {
        let count = self.targets.len();
        let mut suspects = vec![false; count];
        let (mut first, mut pause) = (0, PAUSE_MIN);
        loop {
            let mut reason = String::new();
            let mut served = None;
            for step in 0..count {
                let index = (first + step) % count;
                match self.attempt(index, &mut suspects[index]).await {
                    Ok(connection) => {
                        served = Some((index, Instant::now()));
                        reason = self.serve(index, connection, status, blocked).await;
                        break;
                    }
                    Err(why) => {
                        tracing::debug!(
                            broker.part = ?self.part, broker.url = index, error = why,
                            "broker not reached"
                        );
                        reason = why;
                    }
                }
            }
            blocked.send_replace(None);
            self.health.set(self.part, BrokerState::Down(reason.clone()));
            status.send_replace(Status::Down(reason));
            if let Some((index, since)) = served {
                // Another one first: this one may be slow to say that it is gone.
                first = (index + 1) % count;
                if since.elapsed() > PAUSE_MAX {
                    pause = PAUSE_MIN;
                    continue;
                }
            } else {
                first = 0;
            }
            // Up to a half more, so that many clients don't come at once.
            sleep(pause.mul_f64(1.0 + rand::random::<f64>() / 2.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn attempt(&self, index: usize, suspect: &mut bool) -> Result<Connection, String> {
        let target = &self.targets[index];
        target.probe(*suspect).await?;
        let name = format!("warren {:?}", self.part).to_lowercase();
        let properties =
            ConnectionProperties::default().with_connection_name(name.into_bytes().into());
        let connect = Connection::connect_uri(target.0.clone(), properties);
        match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => {
                *suspect = false;
                connected.map_err(|error| error.to_string())
            }
            Err(_) => {
                *suspect = true;
                Err("no answer to the handshake".to_owned())
            }
        }
    }

    /// Watches a connection to its end; returns why it ended.
    async fn serve(
        &self,
        index: usize,
        connection: Connection,
        status: &watch::Sender<Status>,
        blocked: &watch::Sender<Option<Blocked>>,
    ) -> String {
        let mut events = Box::pin(connection.events_listener());
        let live = Arc::new(Live { connection, gone: CancellationToken::new() });
        tracing::info!(broker.part = ?self.part, broker.url = index, "broker connected");
        status.send_replace(Status::Up(Arc::clone(&live)));
        self.health.set(self.part, BrokerState::Up);
        let mut look = tokio::time::interval(LOOK);
        let reason = loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = look.tick() => {
                    if live.connection.status().connected() {
                        continue;
                    }
                    break "connection lost".to_owned();
                }
                () = live.gone.cancelled() => break "given up".to_owned(),
            };
            match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(broker.part = ?self.part, reason, "broker blocked");
                    let since = Instant::now();
                    blocked.send_replace(Some(Blocked { reason: reason.clone(), since }));
                    self.health.set(self.part, BrokerState::Blocked(reason));
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!(broker.part = ?self.part, "broker unblocked");
                    blocked.send_replace(None);
                    self.health.set(self.part, BrokerState::Up);
                }
                Some(Event::Error(error)) if !live.connection.status().connected() => {
                    break error.to_string();
                }
                Some(_) => {}
                None => break "connection lost".to_owned(),
            }
        };
        live.gone.cancel();
        tracing::warn!(broker.part = ?self.part, reason, "broker lost");
        // What it holds goes back now, if the broker hears it.
        let goodbye = live.connection.close(200, "given up".into());
        let _ = timeout(PROBE_TIMEOUT, goodbye).await;
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_address_is_named_without_its_password() {
        for url in ["", "127.0.0.1:5672", "http://u:secret@host", "amqp://u:secret@[::1]:5672"] {
            let error = Target::parse(url).err().map(|error| error.to_string());
            let error = error.unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!error.contains("secret"), "{error}");
        }
        let error = Target::parse("http://u:secret@host").err().map(|error| error.url);
        assert_eq!(error.as_deref(), Some("http://host"));
    }

    #[test]
    fn heartbeats_are_asked_for_unless_the_address_says_how_often() {
        let heartbeat = |url: &str| Target::parse(url).ok().and_then(|it| it.0.query.heartbeat);
        assert_eq!(heartbeat("amqp://localhost"), Some(HEARTBEAT_S));
        assert_eq!(heartbeat("amqp://localhost?heartbeat=30"), Some(30));
    }

    #[test]
    fn the_worse_of_two_connections_counts() {
        let health = Health::new();
        let state = health.subscribe();
        health.set(Part::Publish, BrokerState::Up);
        assert!(matches!(&*state.borrow(), BrokerState::Down(_)));
        health.set(Part::Consume, BrokerState::Up);
        assert_eq!(*state.borrow(), BrokerState::Up);
        health.set(Part::Publish, BrokerState::Blocked("memory".to_owned()));
        assert_eq!(*state.borrow(), BrokerState::Blocked("memory".to_owned()));
        health.set(Part::Consume, BrokerState::Down("cut".to_owned()));
        assert_eq!(*state.borrow(), BrokerState::Down("cut".to_owned()));
    }
}
