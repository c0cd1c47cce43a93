//! One client: hello, welcome, then frames both ways until one side ends it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use domain::{Channel, SessionId, Timestamp};
use futures::{Sink, SinkExt, Stream, StreamExt};
use protocol::{Account, ClientFrame, CloseCode, HELLO_TIMEOUT, Principal, ServerFrame, Signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::commands::Given;
use super::opening::{Hello, Opening, decode, open};
use super::outbox::{Outbox, Outgoing, one_go};
use super::rate::Rate;
use super::replay::not_read;
use super::sent::Sent;
use super::{Aggregator, encode};
use crate::auth;
use crate::broker::BrokerState;
use crate::members::SignalTo;

/// How many of one client's commands may wait to be published.
const COMMANDS_MAX: usize = 64;
/// How long a close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a slow reader may take to come to its close frame.
const SLOW_CLOSE_TIMEOUT: Duration = Duration::from_secs(15);
/// A write that takes longer than this is a reader that doesn't read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked whether the session still holds.
const SESSION_CHECK: Duration = Duration::from_secs(30);
/// A ping may go unanswered this often.
const PINGS_UNANSWERED_MAX: u32 = 2;

/// Why a connection ends.
pub(super) enum End {
    /// We close, with this code; `detail` says more than the code.
    Close(CloseCode, Option<String>),
    /// The client has gone.
    Gone,
}

impl From<CloseCode> for End {
    fn from(code: CloseCode) -> Self {
        Self::Close(code, None)
    }
}

/// Serves one socket to its end.
pub(super) async fn serve<S, E>(aggregator: Aggregator, mut socket: S, opening: Opening)
where
    S: Stream<Item = Result<Message, E>> + Sink<Message> + Unpin + Send,
    E: Display + Send,
{
    let id = aggregator.next_connection();
    let end = match open(&aggregator, &mut socket, &opening).await {
        Ok((hello, principal, expires_at)) => {
            let connection = Connection::new(
                aggregator.clone(),
                id,
                opening.carries,
                hello,
                principal,
                expires_at,
            );
            let end = connection.run(&mut socket).await;
            aggregator.hub.leave(id);
            aggregator.count();
            end
        }
        Err(end) => end,
    };
    if let End::Close(code, detail) = end {
        close(&mut socket, code, detail).await;
    }
}

async fn close<S, E>(socket: &mut S, code: CloseCode, detail: Option<String>)
where
    S: Stream<Item = Result<Message, E>> + Sink<Message> + Unpin,
{
    // A reason has at most 123 bytes.
    let mut reason = detail
        .map_or_else(|| code.reason().to_owned(), |detail| format!("{}: {detail}", code.reason()));
    let cut =
        (0..=123.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
    reason.truncate(cut);
    let frame = Message::Close(Some(CloseFrame { code: code.code(), reason: reason.into() }));
    let goodbye = async {
        if socket.send(frame).await.is_ok() {
            // Until the client has answered, its reset could overtake our code.
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A client that doesn't answer is dropped.
    let patience = if code == CloseCode::SlowReader { SLOW_CLOSE_TIMEOUT } else { CLOSE_TIMEOUT };
    let _ = tokio::time::timeout(patience, goodbye).await;
}

struct Connection {
    aggregator: Aggregator,
    id: u64,
    carries: Vec<Channel>,
    hello: Hello,
    principal: Principal,
    expires_at: Timestamp,
    outbox: Arc<Outbox>,
    broker_state: watch::Receiver<BrokerState>,
    sent: Sent,
    unanswered: u32,
    rate: Rate,
    /// The channels of which it hasn't everything yet, and after which offset
    /// it goes on there.
    behind: BTreeMap<Channel, u64>,
    /// A command that found the lane full. While it waits the client isn't
    /// heard, and everything else goes on.
    held: Option<Given>,
}

impl Connection {
    fn new(
        aggregator: Aggregator,
        id: u64,
        carries: Vec<Channel>,
        hello: Hello,
        principal: Principal,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            id,
            carries,
            hello,
            expires_at,
            outbox: Arc::new(Outbox::new(aggregator.config.outbox_bytes_max)),
            broker_state: aggregator.broker.state(),
            sent: Sent::new(principal.login.clone()),
            unanswered: 0,
            rate: Rate::new(aggregator.config.frames_per_second),
            behind: BTreeMap::new(),
            held: None,
            principal,
            aggregator,
        }
    }

    async fn run<S, E>(mut self, socket: &mut S) -> End
    where
        S: Stream<Item = Result<Message, E>> + Sink<Message> + Unpin,
        E: Display,
    {
        let (commands, given) = mpsc::channel(COMMANDS_MAX);
        let publisher =
            publish(self.aggregator.clone(), self.principal.clone(), self.outbox.clone(), given);
        let talk = async {
            match self.welcome(socket).await {
                Ok(()) => self.talk(socket, commands).await,
                Err(end) => end,
            }
        };
        tokio::select! {
            end = talk => end,
            () = publisher => End::Gone,
        }
    }

    /// Says where it goes on. What it missed until then it gets page by page, as
    /// it reads, until it has come to the head of each channel.
    async fn welcome<S, E>(&mut self, socket: &mut S) -> Result<(), End>
    where
        S: Stream<Item = Result<Message, E>> + Sink<Message> + Unpin,
    {
        let ready = tokio::time::timeout(HELLO_TIMEOUT, self.aggregator.ready());
        ready
            .await
            .map_err(|_| End::Close(CloseCode::BrokerLost, Some("store unavailable".into())))?;
        let login = self.principal.login.clone();
        self.aggregator.hub.enter(self.id, &login, self.only(), &self.outbox);
        self.aggregator.count();
        let mut streams = BTreeMap::new();
        for channel in self.hello.channels.clone() {
            self.sent.open(channel);
            let subscribe =
                || self.aggregator.hub.subscribe(channel, self.id, &login, &self.outbox);
            let resume = self.hello.resume.get(&channel);
            let resumed = self.aggregator.resume(channel, resume, &login, subscribe).await;
            let (report, at) = resumed.map_err(|error| not_read(channel, &error))?;
            streams.insert(channel, report);
            if !self.aggregator.hub.join(channel, self.id, at) {
                self.behind.insert(channel, at);
            }
        }
        let frame = ServerFrame::Welcome {
            session: SessionId(Uuid::now_v7()),
            aggregator: self.aggregator.members.id().to_owned(),
            principal: self.principal.clone(),
            heartbeat_ms: u64::try_from(self.aggregator.config.heartbeat.as_millis())
                .unwrap_or(u64::MAX),
            streams,
            peers: self.peers(),
        };
        if let Some(text) = encode(&frame) {
            self.write(socket, text).await?;
        }
        Ok(())
    }

    /// Writes the next page of what was missed.
    async fn catch_up<S>(&mut self, socket: &mut S) -> Result<(), End>
    where
        S: Sink<Message> + Unpin,
    {
        let Some((channel, at)) = self.behind.pop_first() else { return Ok(()) };
        let login = &self.principal.login;
        if let Some(page) = self.aggregator.next(channel, self.id, at, login).await? {
            self.behind.insert(channel, page.upto);
            let frames: Vec<_> = page.frames.into_iter().map(Outgoing::Event).collect();
            self.write_all(socket, &frames).await?;
            // Sockets take much at once: now it is the others' turn.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The one channel that the socket carries, if it is one.
    fn only(&self) -> Option<Channel> {
        match self.carries[..] {
            [channel] => Some(channel),
            _ => None,
        }
    }

    fn peers(&self) -> Vec<String> {
        self.aggregator.members.roster().borrow().aggregators(self.only())
    }

    async fn talk<S, E>(&mut self, socket: &mut S, commands: mpsc::Sender<Given>) -> End
    where
        S: Stream<Item = Result<Message, E>> + Sink<Message> + Unpin,
        E: Display,
    {
        let outbox = self.outbox.clone();
        let mut ping = tokio::time::interval_at(
            Instant::now() + self.aggregator.config.heartbeat,
            self.aggregator.config.heartbeat,
        );
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check = tokio::time::interval_at(Instant::now() + SESSION_CHECK, SESSION_CHECK);
        loop {
            let step = tokio::select! {
                code = outbox.shut_with() => Err(code.into()),
                waiting = outbox.take() => self.write_all(socket, &waiting).await,
                () = std::future::ready(()), if !self.behind.is_empty() => {
                    self.catch_up(socket).await
                }
                lane = commands.reserve(), if self.held.is_some() => match lane {
                    Ok(lane) => {
                        if let Some(given) = self.held.take() {
                            lane.send(given);
                        }
                        Ok(())
                    }
                    Err(_) => Err(End::Gone),
                },
                received = socket.next(), if self.held.is_none() => match decode(received) {
                    Ok(Some(frame)) => self.hear(frame).await,
                    Ok(None) => Ok(()),
                    Err(end) => Err(end),
                },
                _ = ping.tick() => self.ping(socket).await,
                _ = check.tick() => self.check().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Writes as much as is written at one go, flushes once, and so on.
    async fn write_all<S>(&mut self, socket: &mut S, waiting: &[Outgoing]) -> Result<(), End>
    where
        S: Sink<Message> + Unpin,
    {
        let mut rest = waiting;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(one_go(rest));
            let write = async {
                for outgoing in batch {
                    socket.feed(Message::Text(outgoing.text().clone())).await?;
                }
                socket.flush().await
            };
            self.bounded(async { write.await.map_err(|_: S::Error| End::Gone) }).await?;
            let now = self.aggregator.clock.now();
            for outgoing in batch {
                if let Outgoing::Event(frame) = outgoing {
                    self.aggregator.receipts.note(self.sent.wrote(frame, now));
                    self.rate.sent_event();
                }
            }
            rest = later;
        }
        Ok(())
    }

    async fn write<S>(&mut self, socket: &mut S, text: Utf8Bytes) -> Result<(), End>
    where
        S: Sink<Message> + Unpin,
    {
        self.write_all(socket, &[Outgoing::Text(text)]).await
    }

    /// A write ends when it is done, when the outbox overflows behind it, or
    /// when it has taken far too long.
    async fn bounded(&self, write: impl Future<Output = Result<(), End>>) -> Result<(), End> {
        tokio::select! {
            done = write => done,
            code = self.outbox.shut_with() => Err(code.into()),
            () = tokio::time::sleep(WRITE_TIMEOUT) => Err(CloseCode::SlowReader.into()),
        }
    }

    async fn ping<S>(&mut self, socket: &mut S) -> Result<(), End>
    where
        S: Sink<Message> + Unpin,
    {
        if self.held.is_some() || !self.behind.is_empty() {
            // Its pongs wait behind its commands, or behind what it missed, by no
            // fault of its own.
            self.unanswered = 0;
        }
        if self.unanswered >= PINGS_UNANSWERED_MAX {
            return Err(CloseCode::NoPong.into());
        }
        self.unanswered += 1;
        self.rate.sent_ping();
        let blocked = matches!(*self.broker_state.borrow(), BrokerState::Blocked(_));
        let at = self.aggregator.clock.now();
        let frame = ServerFrame::Ping { at, sent: self.sent.pinged(), blocked };
        match encode(&frame) {
            Some(text) => self.write(socket, text).await,
            None => Ok(()),
        }
    }

    /// A session that was ended elsewhere, or whose time is over, ends here.
    async fn check(&mut self) -> Result<(), End> {
        if self.expires_at <= self.aggregator.clock.now() {
            return Err(CloseCode::TokenExpired.into());
        }
        let hash = auth::hash(&self.hello.secret);
        match self.aggregator.store.session(hash, self.aggregator.clock.now()).await {
            Ok(None) => Err(CloseCode::Unauthenticated.into()),
            // A store that is gone for now ends nobody's session.
            Ok(Some(_)) | Err(_) => Ok(()),
        }
    }

    async fn hear(&mut self, frame: ClientFrame) -> Result<(), End> {
        let allowed = match frame {
            ClientFrame::Ack { .. } | ClientFrame::Pong { .. } => self.rate.allows_answer(),
            _ => self.rate.allows(),
        };
        if !allowed {
            return Err(CloseCode::RateExceeded.into());
        }
        match frame {
            ClientFrame::Hello { .. } => {
                return Err(End::Close(CloseCode::Malformed, Some("hello comes once".into())));
            }
            ClientFrame::Command { id, command, deadline_ms } => {
                self.held = Some(Given { id, command, deadline_ms });
            }
            ClientFrame::Ack { channel, offset, stage } => {
                for receipt in self.sent.acked(channel, offset, stage, self.aggregator.clock.now())
                {
                    self.aggregator.receipts.note(receipt);
                }
            }
            ClientFrame::Signal { signal } => self.signal(signal).await,
            ClientFrame::Subscribe { channels } => self.subscribe(&channels)?,
            ClientFrame::Unsubscribe { channels } => {
                for channel in channels {
                    self.aggregator.hub.unsubscribe(channel, self.id);
                }
            }
            ClientFrame::Pong { account, .. } => {
                self.unanswered = 0;
                return account.map_or(Ok(()), |account| self.compare(account));
            }
        }
        Ok(())
    }

    /// Who has received anything else than what was sent begins anew.
    fn compare(&mut self, account: Account) -> Result<(), End> {
        let answer = self.sent.answered(account);
        self.aggregator.members.audit().answered(answer, self.aggregator.clock.now());
        if answer.differs.is_some() {
            tracing::error!(agent = %self.principal.login, "client received what was not sent");
            return Err(CloseCode::ContinuityLost.into());
        }
        Ok(())
    }

    /// A channel that was not carried before begins at its head: the client
    /// reads a snapshot and goes on from there.
    fn subscribe(&mut self, channels: &[Channel]) -> Result<(), End> {
        for channel in channels {
            if !self.carries.contains(channel) {
                return Err(End::Close(
                    CloseCode::Forbidden,
                    Some(format!("{channel} is not carried here")),
                ));
            }
            let hub = &self.aggregator.hub;
            if hub.carries(*channel, self.id) {
                continue;
            }
            self.sent.open(*channel);
            let epoch = self.aggregator.store.epoch().to_owned();
            let gap = |offset| encode(&ServerFrame::Gap { channel: *channel, epoch, offset });
            hub.subscribe_anew(*channel, self.id, &self.principal.login, &self.outbox, gap);
        }
        Ok(())
    }

    /// Passes a signal on under this agent's name, to those who see its interaction.
    async fn signal(&self, signal: Signal) {
        if *self.broker_state.borrow() != BrokerState::Up {
            // It would be lost after a wait.
            return;
        }
        let agent = Some(self.principal.login.clone());
        let (interaction, signal) = match signal {
            Signal::Typing { interaction_id, .. } => {
                (interaction_id, Signal::Typing { interaction_id, agent })
            }
            Signal::Viewing { interaction_id, viewing, .. } => {
                (interaction_id, Signal::Viewing { interaction_id, agent, viewing })
            }
            // Presence is a command.
            Signal::Presence { .. } => return,
        };
        if let Ok(place) = self.aggregator.place(interaction).await
            && place.distribution.includes(&self.principal.login)
        {
            self.aggregator
                .members
                .signal_in(place.channel, &SignalTo { signal, distribution: place.distribution })
                .await;
        }
    }
}

/// One client's commands, in the order it gave them.
async fn publish(
    aggregator: Aggregator,
    principal: Principal,
    outbox: Arc<Outbox>,
    mut given: mpsc::Receiver<Given>,
) {
    while let Some(command) = given.recv().await {
        aggregator.command(command, &principal, &outbox).await;
    }
    std::future::pending::<()>().await;
}
