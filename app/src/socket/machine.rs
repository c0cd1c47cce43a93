//! What the client does when something happens: no socket, no clock, no
//! browser in here. Times are milliseconds of one steady clock.
//!
//! The cursors begin with a snapshot's `streams` and live as long as the page:
//! what they vouch for, the page's state, lives no longer either.

use std::collections::BTreeMap;

use domain::{Channel, CommandId, Login, Recorded, Timestamp};
use protocol::{
    Account, AckStage, ClientFrame, CloseCode, Cursor, CursorReport, Digest, ReplyError,
    ServerFrame, Signal, mark,
};
use serde_json::Value;

use super::candidates::{Candidates, Dice};
use super::cursors::begin_at;
use super::outbox::{Outbox, Settled};

/// A socket has this long to open and to be welcomed, in milliseconds.
const OPEN_TIMEOUT_MS: u64 = 10_000;
/// Until the welcome says otherwise, in milliseconds.
const HEARTBEAT_MS: u64 = 15_000;

/// One socket, by number.
pub type LinkId = u32;

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// Begin.
    Start,
    /// A socket is open.
    Opened(LinkId),
    /// A socket brings a frame.
    Frame(LinkId, Box<ServerFrame>),
    /// A socket is closed, or could not be opened.
    Closed(LinkId, u16),
    /// Time passes; four times a second.
    Tick,
    /// The tab is visible again, or the network is back: don't wait.
    Wake,
    /// The network is gone.
    Offline,
    /// A command is given, or found from an earlier page.
    Command {
        /// Its id.
        id: CommandId,
        /// Its body.
        command: Value,
        /// Don't do it later than this from when it was given.
        deadline_ms: Option<u64>,
        /// How long ago that was.
        age_ms: u64,
    },
    /// A failed command is wanted after all.
    Retry(CommandId),
    /// A failed command is not wanted any more.
    Dismiss(CommandId),
    /// Fire and forget.
    Signal(Signal),
    /// What was drawn on a visible screen, up to these offsets.
    Rendered(BTreeMap<Channel, u64>),
    /// The snapshot that was asked for has been taken in.
    Snapshotted(u64),
    /// End.
    Stop,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Open a socket.
    Open(LinkId, String),
    /// Close a socket; nothing of it counts any more.
    Close(LinkId),
    /// Send.
    Send(LinkId, Box<ClientFrame>),
    /// An event, once and in order.
    Event(Box<Recorded>),
    /// A signal.
    Signal(Signal),
    /// A command's answer.
    Answered(CommandId, Option<ReplyError>),
    /// A command is on its way again.
    Resent(CommandId),
    /// A command need not be kept any more.
    Forget(CommandId),
    /// The journal is another one: what is known is no longer so.
    Anew,
    /// Read a snapshot, then say [`Input::Snapshotted`] with this number.
    Snapshot(u64),
    /// The server's time.
    Time(Timestamp),
    /// Signed out: to the sign-in page.
    SignIn,
    /// What the pill says.
    Status(Status),
}

/// How the connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// For the first time.
    #[default]
    Connecting,
    /// Everything is here; the last round trip took so many milliseconds.
    Live(Option<u64>),
    /// As live, but the broker takes nothing for now: what is given waits.
    Blocked,
    /// Not connected; trying.
    Reconnecting,
    /// As before: the last aggregator has no broker.
    BrokerLost,
    /// Connected; so many events are still to come.
    CatchingUp(u64),
    /// No network, or told to stay away.
    Offline,
}

struct Link {
    id: LinkId,
    url: String,
    begun_at: u64,
    heard_at: u64,
    welcomed: bool,
    received: BTreeMap<Channel, Digest>,
    replaying: u64,
    /// What was told before of what was repeated and shown twice.
    told: (u64, u64),
}

#[derive(Clone, Copy, Default)]
struct Acked {
    received: u64,
    rendered: u64,
}

enum Phase {
    Idle,
    Waiting { until: u64 },
    Linked,
    Stopped,
}

/// The client's state.
pub struct Machine {
    dice: Dice,
    candidates: Candidates,
    login: Option<Login>,
    phase: Phase,
    attempt: u32,
    last_link: LinkId,
    link: Option<Link>,
    /// The one to move to, until it is welcomed.
    next: Option<Link>,
    cursors: BTreeMap<Channel, Cursor>,
    acked: BTreeMap<Channel, Acked>,
    rendered: BTreeMap<Channel, u64>,
    /// Event frames that were here already, and events that were shown twice.
    repeated: u64,
    shown_twice: u64,
    /// What pongs have told of both.
    told: (u64, u64),
    outbox: Outbox,
    heartbeat_ms: u64,
    latency_ms: Option<u64>,
    online: bool,
    was_live: bool,
    blocked: bool,
    broker_lost: bool,
    snapshots: u64,
    snapshot_wanted: bool,
    status: Option<Status>,
}

impl Machine {
    /// `cursors` are the `streams` of the snapshot that the page begins with.
    #[must_use]
    pub fn new(seed: u64, candidates: Candidates, cursors: BTreeMap<Channel, Cursor>) -> Self {
        Self {
            dice: Dice::new(seed),
            candidates,
            login: None,
            phase: Phase::Idle,
            attempt: 0,
            last_link: 0,
            link: None,
            next: None,
            cursors,
            acked: BTreeMap::new(),
            rendered: BTreeMap::new(),
            repeated: 0,
            shown_twice: 0,
            told: (0, 0),
            outbox: Outbox::default(),
            heartbeat_ms: HEARTBEAT_MS,
            latency_ms: None,
            online: true,
            was_live: false,
            blocked: false,
            broker_lost: false,
            snapshots: 0,
            snapshot_wanted: false,
            status: None,
        }
    }

    /// The last offset of each channel that was given out.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<Channel, u64> {
        let mut positions = BTreeMap::new();
        positions.extend(self.cursors.iter().map(|(channel, cursor)| (*channel, cursor.offset)));
        positions
    }

    /// So many events came onto the screen twice since the page began.
    pub fn shown_twice(&mut self, events: u64) {
        self.shown_twice = events;
    }

    /// Takes one input in.
    pub fn step(&mut self, input: Input, now: u64) -> Vec<Output> {
        let mut out = Vec::new();
        if !matches!(self.phase, Phase::Stopped) {
            self.take(input, now, &mut out);
        }
        let status = self.status_now();
        if self.status != Some(status) {
            self.status = Some(status);
            out.push(Output::Status(status));
        }
        out
    }

    fn take(&mut self, input: Input, now: u64, out: &mut Vec<Output>) {
        match input {
            Input::Start => self.connect(now, out),
            Input::Opened(id) => self.hello(id, now, out),
            Input::Frame(id, frame) => self.frame(id, *frame, now, out),
            Input::Closed(id, code) => self.closed(id, code, now, out),
            Input::Tick => self.tick(now, out),
            Input::Wake => {
                self.online = true;
                if let Phase::Waiting { .. } = self.phase {
                    self.connect(now, out);
                }
            }
            Input::Offline => self.online = false,
            Input::Command { id, command, deadline_ms, age_ms } => {
                if self.outbox.put(id, command, deadline_ms, age_ms, now) {
                    self.send_command(id, now, out);
                    self.lapse(now, out);
                } else {
                    // It is not kept, so that there is nothing to try again.
                    let message = "too many changes wait for the connection";
                    let error = ReplyError { temporary: false, ..failure("busy", message) };
                    out.extend([Output::Answered(id, Some(error)), Output::Forget(id)]);
                }
            }
            Input::Retry(id) => {
                if self.outbox.retry(id, now) {
                    out.push(Output::Resent(id));
                    self.send_command(id, now, out);
                }
            }
            Input::Dismiss(id) => {
                self.outbox.remove(id);
                out.push(Output::Forget(id));
            }
            Input::Signal(signal) => self.send(ClientFrame::Signal { signal }, out),
            Input::Rendered(positions) => {
                for (channel, offset) in positions {
                    let known = self.rendered.entry(channel).or_default();
                    *known = (*known).max(offset);
                }
            }
            Input::Snapshotted(number) => {
                if number == self.snapshots {
                    self.snapshot_wanted = false;
                }
            }
            Input::Stop => {
                out.extend(self.link.take().map(|link| Output::Close(link.id)));
                out.extend(self.next.take().map(|link| Output::Close(link.id)));
                self.phase = Phase::Stopped;
            }
        }
    }

    fn status_now(&self) -> Status {
        if matches!(self.phase, Phase::Stopped) || !self.online {
            return Status::Offline;
        }
        match &self.link {
            Some(link) if link.welcomed && link.replaying > 0 => Status::CatchingUp(link.replaying),
            Some(link) if link.welcomed && self.snapshot_wanted => Status::CatchingUp(0),
            Some(link) if link.welcomed && self.blocked => Status::Blocked,
            Some(link) if link.welcomed => Status::Live(self.latency_ms),
            _ if self.broker_lost => Status::BrokerLost,
            _ if self.was_live || self.attempt > 1 => Status::Reconnecting,
            _ => Status::Connecting,
        }
    }

    fn begin(&mut self, url: String, now: u64, out: &mut Vec<Output>) -> Link {
        self.last_link += 1;
        out.push(Output::Open(self.last_link, url.clone()));
        Link {
            id: self.last_link,
            url,
            begun_at: now,
            heard_at: now,
            welcomed: false,
            received: BTreeMap::new(),
            replaying: 0,
            told: (0, 0),
        }
    }

    fn connect(&mut self, now: u64, out: &mut Vec<Output>) {
        if let Some(url) = self.candidates.take_turn() {
            let link = self.begin(url, now, out);
            self.link = Some(link);
            self.phase = Phase::Linked;
        }
    }

    /// Lets the line go and comes back after a wait that is spread.
    fn reconnect(&mut self, now: u64, out: &mut Vec<Output>) {
        out.extend(self.link.take().map(|link| Output::Close(link.id)));
        if let Some(next) = self.next.take() {
            // A move was under way: it goes on as the only line.
            self.link = Some(next);
            self.phase = Phase::Linked;
            return;
        }
        let until = now + self.dice.wait_ms(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        self.phase = Phase::Waiting { until };
    }

    fn hello(&mut self, id: LinkId, now: u64, out: &mut Vec<Output>) {
        let known = [self.link.as_mut(), self.next.as_mut()];
        let Some(link) = known.into_iter().flatten().find(|link| link.id == id) else { return };
        link.begun_at = now;
        link.heard_at = now;
        let hello = ClientFrame::Hello {
            token: None,
            channels: None,
            resume: self.cursors.clone(),
            client: Some("desk".into()),
        };
        out.push(Output::Send(id, Box::new(hello)));
    }

    fn frame(&mut self, id: LinkId, frame: ServerFrame, now: u64, out: &mut Vec<Output>) {
        let known = [self.link.as_mut(), self.next.as_mut()];
        let Some(link) = known.into_iter().flatten().find(|link| link.id == id) else { return };
        link.heard_at = now;
        match frame {
            ServerFrame::Welcome { principal, heartbeat_ms, streams, peers, .. } => {
                if self.login.as_ref().is_some_and(|login| *login != principal.login) {
                    // Somebody else has signed in here: this page is not theirs.
                    self.stay_away(out);
                    out.push(Output::SignIn);
                    return;
                }
                self.login = Some(principal.login);
                self.heartbeat_ms = heartbeat_ms.max(1_000);
                self.candidates.set_peers(peers);
                self.welcome(id, streams, now, out);
            }
            ServerFrame::Event { channel, offset, event } => {
                link.received.entry(channel).or_default().add(mark(offset, event.id.0));
                link.replaying = link.replaying.saturating_sub(1);
                match self.cursors.get_mut(&channel) {
                    Some(cursor) if offset > cursor.offset => {
                        cursor.offset = offset;
                        out.push(Output::Event(event));
                    }
                    _ => self.repeated += 1,
                }
            }
            ServerFrame::Reply { id, error, .. } => self.reply(id, error, now, out),
            ServerFrame::Signal { signal } => out.push(Output::Signal(signal)),
            ServerFrame::Gap { channel, epoch, offset } => {
                begin_at(&mut self.cursors, channel, Cursor { epoch, offset }, out);
                self.want_snapshot(out);
            }
            ServerFrame::Peers { urls } => self.candidates.set_peers(urls),
            ServerFrame::Migrate { to, .. } => {
                if self.next.is_none() && self.link.as_ref().is_some_and(|link| link.id == id) {
                    let next = self.begin(to, now, out);
                    self.next = Some(next);
                }
            }
            ServerFrame::Ping { at, sent, blocked } => {
                let received = link.received.clone();
                let (repeated, shown_twice) = link.told;
                let missed = sent.iter().any(|(channel, count)| {
                    received.get(channel).map_or(0, |digest| digest.count) != *count
                });
                let account = Account {
                    received,
                    repeated: self.repeated - repeated,
                    shown_twice: self.shown_twice - shown_twice,
                };
                self.told = (self.repeated, self.shown_twice);
                self.blocked = blocked;
                out.push(Output::Time(at));
                let positions = self.positions();
                let pong = ClientFrame::Pong { positions, account: Some(account) };
                out.push(Output::Send(id, Box::new(pong)));
                if missed {
                    self.lose(id, now, out);
                }
            }
        }
    }

    /// A line that can't be trusted: what it missed comes by resuming.
    fn lose(&mut self, id: LinkId, now: u64, out: &mut Vec<Output>) {
        if self.link.as_ref().is_some_and(|link| link.id == id) {
            self.reconnect(now, out);
        } else if self.next.as_ref().is_some_and(|link| link.id == id) {
            out.extend(self.next.take().map(|link| Output::Close(link.id)));
        }
    }

    fn welcome(
        &mut self,
        id: LinkId,
        streams: BTreeMap<Channel, CursorReport>,
        now: u64,
        out: &mut Vec<Output>,
    ) {
        let begin = |cursor: &Cursor| Acked { received: cursor.offset, rendered: cursor.offset };
        self.acked.clear();
        self.acked.extend(self.cursors.iter().map(|(channel, cursor)| (*channel, begin(cursor))));
        if let Some(next) = self.next.take_if(|next| next.id == id) {
            // What came by the old socket meanwhile is acknowledged on the new one.
            self.acked.clear();
            // The new socket is there: now the old one may go.
            out.extend(self.link.take().map(|old| Output::Close(old.id)));
            self.candidates.moved_to(next.url.clone());
            self.link = Some(next);
        }
        let Some(link) = self.link.as_mut().filter(|link| link.id == id) else { return };
        link.welcomed = true;
        link.told = self.told;
        self.latency_ms = Some(now.saturating_sub(link.begun_at));
        self.attempt = 0;
        self.online = true;
        self.was_live = true;
        self.blocked = false;
        self.broker_lost = false;
        let mut lost = false;
        for (channel, report) in streams {
            let known = self.cursors.get(&channel);
            let at = Cursor { epoch: report.epoch, offset: report.offset };
            // An offset of another journal says nothing in this one.
            if report.recovered && known.is_none_or(|known| known.epoch == at.epoch) {
                link.replaying += report.replayed;
                self.cursors.entry(channel).or_insert(at);
            } else {
                lost = true;
                begin_at(&mut self.cursors, channel, at, out);
            }
        }
        if lost {
            self.want_snapshot(out);
        }
        for frame in self.outbox.frames(now) {
            out.push(Output::Send(id, Box::new(frame)));
        }
    }

    fn want_snapshot(&mut self, out: &mut Vec<Output>) {
        self.snapshots += 1;
        self.snapshot_wanted = true;
        // Only the last one asked for counts: it was read after every loss.
        out.retain(|one| !matches!(one, Output::Snapshot(_)));
        out.push(Output::Snapshot(self.snapshots));
    }

    fn reply(&mut self, id: CommandId, error: Option<ReplyError>, now: u64, out: &mut Vec<Output>) {
        let Settled::Answered { error, elapsed_ms } = self.outbox.reply(id, error, now) else {
            return;
        };
        self.latency_ms = elapsed_ms.or(self.latency_ms);
        out.extend([Output::Answered(id, error), Output::Forget(id)]);
    }

    /// What was not done in time is told, and waits for a retry.
    fn lapse(&mut self, now: u64, out: &mut Vec<Output>) {
        for (id, refusal) in self.outbox.lapsed(now) {
            let error = refusal.unwrap_or_else(|| failure("no_answer", "no answer came in time"));
            out.push(Output::Answered(id, Some(error)));
        }
    }

    fn closed(&mut self, id: LinkId, code: u16, now: u64, out: &mut Vec<Output>) {
        if self.next.as_ref().is_some_and(|next| next.id == id) {
            self.next = None;
            return;
        }
        if self.link.as_ref().is_none_or(|link| link.id != id) {
            return;
        }
        if CloseCode::comes_back(code) {
            self.broker_lost |= code == CloseCode::BrokerLost.code();
            if code == CloseCode::ContinuityLost.code() {
                // What is here can't be trusted: no place to resume from.
                self.cursors.clear();
            }
            self.link = None;
            self.reconnect(now, out);
            return;
        }
        self.stay_away(out);
        let signed_out = [CloseCode::Unauthenticated, CloseCode::TokenExpired].map(CloseCode::code);
        if signed_out.contains(&code) {
            out.push(Output::SignIn);
        }
    }

    fn stay_away(&mut self, out: &mut Vec<Output>) {
        out.extend(self.link.take().map(|link| Output::Close(link.id)));
        out.extend(self.next.take().map(|link| Output::Close(link.id)));
        self.phase = Phase::Stopped;
    }

    fn tick(&mut self, now: u64, out: &mut Vec<Output>) {
        self.lapse(now, out);
        if let Phase::Waiting { until } = self.phase
            && until <= now
        {
            self.connect(now, out);
            return;
        }
        if self.next.as_ref().is_some_and(|next| now > next.begun_at + OPEN_TIMEOUT_MS) {
            out.extend(self.next.take().map(|next| Output::Close(next.id)));
        }
        let Some(link) = &self.link else { return };
        let patience = if link.welcomed { 2 * self.heartbeat_ms + 500 } else { OPEN_TIMEOUT_MS };
        if now > link.heard_at + patience {
            self.reconnect(now, out);
        } else if link.welcomed {
            self.acknowledge(out);
            for frame in self.outbox.due(now) {
                self.send(frame, out);
            }
        }
    }

    fn acknowledge(&mut self, out: &mut Vec<Output>) {
        for (channel, cursor) in self.cursors.clone() {
            let drawn = self.rendered.get(&channel).copied().unwrap_or(0).min(cursor.offset);
            let acked = self.acked.entry(channel).or_default();
            let mut stages = Vec::new();
            if cursor.offset > acked.received.max(drawn) {
                stages.push((cursor.offset, AckStage::Received));
            }
            if drawn > acked.rendered {
                stages.push((drawn, AckStage::Rendered));
            }
            *acked = Acked { received: cursor.offset, rendered: acked.rendered.max(drawn) };
            for (offset, stage) in stages {
                self.send(ClientFrame::Ack { channel, offset, stage }, out);
            }
        }
    }

    fn send_command(&mut self, id: CommandId, now: u64, out: &mut Vec<Output>) {
        if self.link.as_ref().is_some_and(|link| link.welcomed)
            && let Some(frame) = self.outbox.frame(id, now)
        {
            self.send(frame, out);
        }
    }

    fn send(&self, frame: ClientFrame, out: &mut Vec<Output>) {
        if let Some(link) = self.link.as_ref().filter(|link| link.welcomed) {
            out.push(Output::Send(link.id, Box::new(frame)));
        }
    }
}

fn failure(code: &str, message: &str) -> ReplyError {
    ReplyError { code: code.into(), message: message.into(), temporary: true, pointer: None }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod command_tests;
#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
