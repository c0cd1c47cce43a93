//! Runs the machine in a browser: sockets, the clock, the screen, the database.

use std::collections::{HashMap, HashSet};

use domain::{AgentCommand, CommandId, FromJson, Interaction, InteractionId};
use futures::channel::mpsc;
use futures::future::{Either, poll_fn, select};
use futures::{SinkExt, StreamExt};
use gloo_net::websocket::futures::WebSocket;
use gloo_net::websocket::{Message, WebSocketError};
use gloo_timers::future::TimeoutFuture;
use leptos::prelude::*;
use leptos::task::spawn_local;
use protocol::{ClientFrame, SUBPROTOCOL, ServerFrame, Signal, View, decode_command};

use super::Candidates;
use super::machine::{Input, LinkId, Machine, Output, Status};
use super::store::{Kept, Store};
use crate::api::{self, Boot};
use crate::desk::{DeskError, ListRequest};
use crate::state::{self, Desk, Effect, Outgoing, Progress};
use crate::{browser, state::ROWS_MAX};

/// How many arrivals may wait to be taken in.
const ARRIVALS_MAX: usize = 4_096;
/// How many are taken in before the screen is told.
const BATCH_MAX: usize = 1_024;
/// The least time between two changes of the screen.
const FRAME_MS: u32 = 33;
/// How many frames may wait to be written.
const FRAMES_MAX: usize = 1_024;
const TICK_MS: u32 = 250;
/// How long a snapshot that could not be read waits to be read again.
const AGAIN_MS: u32 = 1_000;
/// A database that doesn't open in this time is done without.
const STORE_MS_MAX: u32 = 3_000;

/// Where what arrives shows.
#[derive(Clone, Copy)]
pub struct Feed {
    /// What the desk knows.
    pub desk: RwSignal<Desk>,
    /// What the pill says.
    pub status: RwSignal<Status>,
    /// The server's clock less this computer's, in milliseconds.
    pub skew_ms: RwSignal<i64>,
    /// False if what waits for its answer is lost with the page.
    pub keeps: RwSignal<bool>,
}

enum Arrival {
    Machine(Input),
    Desk(state::Input),
    Give(Outgoing),
    Load(InteractionId),
    Loaded(InteractionId),
}

/// The pages' way to the driver.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Arrival>);

impl Handle {
    fn say(&self, arrival: Arrival) {
        // Every new sender has a place of its own: nothing is turned away
        // while the driver runs.
        let _ = self.0.clone().try_send(arrival);
    }

    /// Gives a command, now or when the line is back. Gives its id.
    pub fn give(&self, command: AgentCommand) -> CommandId {
        let id = browser::new_command_id();
        let at = browser::now();
        self.say(Arrival::Give(Outgoing { id, command, at, progress: Progress::Pending }));
        id
    }

    /// The same command again.
    pub fn retry(&self, id: CommandId) {
        self.say(Arrival::Machine(Input::Retry(id)));
    }

    /// A failed command is not wanted any more.
    pub fn dismiss(&self, id: CommandId) {
        self.say(Arrival::Desk(state::Input::Dismiss(id)));
        self.say(Arrival::Machine(Input::Dismiss(id)));
    }

    /// Fire and forget.
    pub fn signal(&self, signal: Signal) {
        self.say(Arrival::Machine(Input::Signal(signal)));
    }

    /// Reads an interaction's snapshot.
    pub fn load(&self, id: InteractionId) {
        self.say(Arrival::Load(id));
    }

    /// This one is on the screen from here on.
    pub fn show(&self, id: Option<InteractionId>) {
        self.say(Arrival::Desk(state::Input::Show(id)));
        if let Some(id) = id {
            self.load(id);
        }
    }

    /// Time has passed: signals fade.
    pub fn tick(&self) {
        self.say(Arrival::Desk(state::Input::Tick(browser::now())));
    }

    /// Takes rows in that were read elsewhere.
    pub fn rows(&self, rows: Vec<Interaction>) {
        self.say(Arrival::Desk(state::Input::List(rows)));
    }

    /// The tab is visible again, or the network is back.
    pub fn wake(&self) {
        self.say(Arrival::Machine(Input::Wake));
    }

    /// The network is gone.
    pub fn offline(&self) {
        self.say(Arrival::Machine(Input::Offline));
    }

    /// Ends the connection.
    pub fn stop(&self) {
        self.say(Arrival::Machine(Input::Stop));
    }
}

/// What waits longer than this for its answer is told as failed; words wait for ever.
fn deadline_ms(command: &AgentCommand) -> Option<u64> {
    state::text_of(command).is_none().then_some(20_000)
}

/// Connects, and keeps the desk fed until it is stopped.
#[must_use]
pub fn start(feed: Feed, boot: &Boot) -> Handle {
    let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
    let own = browser::own_socket().into_iter();
    let mut base: Vec<String> = own.chain(boot.me.aggregators.clone()).collect();
    base.dedup();
    let machine = Machine::new(browser::seed(), Candidates::new(base), boot.open.streams.clone());
    let handle = Handle(sender.clone());
    let login = boot.me.principal.login.clone();
    let more = boot.open.next_cursor.clone();
    let driver_sender = sender.clone();
    spawn_local(async move {
        let (store, kept) = kept(&login).await;
        feed.keeps.set(store.keeps());
        let mut driver = Driver {
            feed,
            machine,
            store,
            login,
            sender: driver_sender,
            links: HashMap::new(),
            loading: HashSet::new(),
            again: HashSet::new(),
            stopped: false,
        };
        for kept in kept {
            driver.restore(kept);
        }
        let _ = driver.take(vec![Arrival::Machine(Input::Start)]);
        driver.run(arrivals).await;
    });
    spawn_local(tick(sender.clone()));
    spawn_local(rest_of_open(sender, more));
    handle
}

/// What was given before and has no answer. A browser whose database hangs
/// connects all the same.
async fn kept(login: &domain::Login) -> (Store, Vec<Kept>) {
    let read = Box::pin(async {
        let store = Store::open().await;
        let kept = store.all(login).await;
        (store, kept)
    });
    match select(read, TimeoutFuture::new(STORE_MS_MAX)).await {
        Either::Left((read, _)) => read,
        Either::Right(_) => (Store::none(), Vec::new()),
    }
}

async fn tick(mut sender: mpsc::Sender<Arrival>) {
    loop {
        TimeoutFuture::new(TICK_MS).await;
        if sender.send(Arrival::Machine(Input::Tick)).await.is_err() {
            return;
        }
    }
}

/// The further pages of what is open, up to the bound.
async fn rest_of_open(mut sender: mpsc::Sender<Arrival>, cursor: Option<String>) {
    let mut rows = Vec::new();
    if cursor.is_some() && pages(cursor, &mut rows).await.is_ok() {
        let _ = sender.send(Arrival::Desk(state::Input::List(rows))).await;
    }
}

/// Reads from `cursor` on. True if that was the end, and not the bound.
async fn pages(mut cursor: Option<String>, rows: &mut Vec<Interaction>) -> Result<bool, DeskError> {
    loop {
        let request = ListRequest { view: View::Open, cursor, ..ListRequest::default() };
        let list = api::interactions(request).await?;
        rows.extend(list.interactions);
        cursor = list.next_cursor;
        if cursor.is_none() || rows.len() >= ROWS_MAX {
            return Ok(cursor.is_none());
        }
    }
}

struct Driver {
    feed: Feed,
    machine: Machine,
    store: Store,
    login: domain::Login,
    sender: mpsc::Sender<Arrival>,
    links: HashMap<LinkId, mpsc::Sender<String>>,
    loading: HashSet<InteractionId>,
    again: HashSet<InteractionId>,
    stopped: bool,
}

impl Driver {
    async fn run(&mut self, mut arrivals: mpsc::Receiver<Arrival>) {
        while !self.stopped {
            let Some(first) = arrivals.next().await else { return };
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX {
                match arrivals.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            if self.take(batch) {
                // Whatever comes meanwhile is one change of the screen, however
                // much it is: the page stays quick to the hand.
                TimeoutFuture::new(FRAME_MS).await;
            }
        }
    }

    /// Takes a batch in: one change of the screen for all of it. True if there
    /// was one.
    fn take(&mut self, batch: Vec<Arrival>) -> bool {
        let mut inputs = Vec::new();
        let mut drawn = false;
        for arrival in batch {
            match arrival {
                Arrival::Machine(input) => drawn |= self.step(input, &mut inputs),
                Arrival::Desk(input) => inputs.push(input),
                Arrival::Give(command) => drawn |= self.give(command, &mut inputs),
                Arrival::Load(id) => self.load(id),
                Arrival::Loaded(id) => {
                    self.loading.remove(&id);
                    if self.again.remove(&id) {
                        self.load(id);
                    }
                }
            }
        }
        let changed = !inputs.is_empty();
        if changed {
            let mut effects = Vec::new();
            self.feed.desk.update(|desk| {
                for input in inputs {
                    effects.extend(state::reduce(desk, input));
                }
            });
            for Effect::Load(id) in effects {
                self.load(id);
            }
            self.machine.shown_twice(self.feed.desk.with_untracked(|desk| desk.shown_twice));
        }
        if drawn {
            let mut sender = self.sender.clone();
            let positions = self.machine.positions();
            // A frame is drawn only where somebody can see it.
            request_animation_frame(move || {
                let _ = sender.try_send(Arrival::Machine(Input::Rendered(positions)));
            });
        }
        changed
    }

    fn give(&mut self, command: Outgoing, inputs: &mut Vec<state::Input>) -> bool {
        let Ok(body) = serde_json::to_value(&command.command) else { return false };
        let deadline_ms = deadline_ms(&command.command);
        self.store.put(&Kept {
            id: command.id,
            login: self.login.clone(),
            at: command.at,
            command: body.clone(),
            deadline_ms,
        });
        for id in self.feed.desk.with_untracked(|desk| state::superseded(desk, &command)) {
            let _ = self.step(Input::Dismiss(id), inputs);
        }
        let id = command.id;
        inputs.push(state::Input::Given(command));
        self.step(Input::Command { id, command: body, deadline_ms, age_ms: 0 }, inputs)
    }

    /// A command of an earlier page. What had a deadline has what is left of it;
    /// where that is nothing, it shows as not done.
    fn restore(&mut self, kept: Kept) {
        let Kept { id, at, command, deadline_ms, .. } = kept;
        let Ok((decoded, _)) = decode_command(&command, "") else {
            // Kept by another version of this page, which knew more.
            self.store.remove(id);
            return;
        };
        let age_ms = u64::try_from(browser::now().since(at).as_millis()).unwrap_or(u64::MAX);
        let outgoing = Outgoing { id, command: decoded, at, progress: Progress::Pending };
        let mut inputs = vec![state::Input::Given(outgoing)];
        let _ = self.step(Input::Command { id, command, deadline_ms, age_ms }, &mut inputs);
        let _ = self.take(inputs.into_iter().map(Arrival::Desk).collect());
    }

    /// True if there is something new to draw.
    fn step(&mut self, input: Input, inputs: &mut Vec<state::Input>) -> bool {
        let mut drawn = false;
        let mut next = vec![input];
        while let Some(input) = next.pop() {
            drawn |= self.step_once(input, inputs, &mut next);
        }
        drawn
    }

    /// What comes of it at once goes to `next`.
    fn step_once(
        &mut self,
        input: Input,
        inputs: &mut Vec<state::Input>,
        next: &mut Vec<Input>,
    ) -> bool {
        self.stopped |= matches!(input, Input::Stop);
        let mut drawn = false;
        for output in self.machine.step(input, browser::steady_ms()) {
            match output {
                Output::Open(id, url) => {
                    if !self.open(id, &url) {
                        next.push(Input::Closed(id, 1006));
                    }
                }
                Output::Close(id) => {
                    self.links.remove(&id);
                }
                Output::Send(id, frame) => {
                    if !self.send(id, &frame) {
                        next.push(Input::Closed(id, 1006));
                    }
                }
                Output::Event(event) => {
                    drawn = true;
                    inputs.push(state::Input::Event(event));
                }
                Output::Signal(signal) => {
                    inputs.push(state::Input::Signal { signal, now: browser::now() });
                }
                Output::Answered(id, error) => inputs.push(state::Input::Answered { id, error }),
                Output::Resent(id) => inputs.push(state::Input::Resent(id)),
                Output::Forget(id) => self.store.remove(id),
                Output::Anew => inputs.push(state::Input::Anew),
                Output::Snapshot(number) => spawn_local(snapshot(
                    self.sender.clone(),
                    number,
                    self.feed.desk.with_untracked(|desk| {
                        desk.threads.iter().map(|thread| thread.id).collect()
                    }),
                )),
                Output::Time(at) => {
                    self.feed.skew_ms.set(at.as_millis() - browser::now().as_millis());
                }
                Output::SignIn => browser::go("/sign-in"),
                Output::Status(status) => self.show(status),
            }
        }
        drawn
    }

    /// Presence is told by signals, which don't come back: read it again after
    /// every break.
    fn show(&self, status: Status) {
        let live = |status| matches!(status, Status::Live(_) | Status::Blocked);
        if live(status) && !live(self.feed.status.get_untracked()) {
            let mut sender = self.sender.clone();
            spawn_local(async move {
                if let Ok(agents) = api::agents().await {
                    let _ = sender.send(Arrival::Desk(state::Input::Agents(agents))).await;
                }
            });
        }
        self.feed.status.set(status);
    }

    /// False if the line takes no more. It is given up: what waits for an
    /// answer goes out again on the next one.
    fn send(&mut self, id: LinkId, frame: &ClientFrame) -> bool {
        let (Some(link), Ok(text)) = (self.links.get_mut(&id), serde_json::to_string(frame)) else {
            return true;
        };
        let taken = link.try_send(text).is_ok();
        if !taken {
            self.links.remove(&id);
        }
        taken
    }

    /// False if there can't be such a socket.
    fn open(&mut self, id: LinkId, url: &str) -> bool {
        // Trunk's proxy drops the answer to an offered subprotocol.
        let socket = if cfg!(feature = "csr") {
            WebSocket::open(url)
        } else {
            WebSocket::open_with_protocol(url, SUBPROTOCOL)
        };
        let Ok(socket) = socket else { return false };
        let (frames, waiting) = mpsc::channel(FRAMES_MAX);
        self.links.insert(id, frames);
        spawn_local(serve(id, socket, waiting, self.sender.clone()));
        true
    }

    fn load(&mut self, id: InteractionId) {
        if !self.loading.insert(id) {
            self.again.insert(id);
            return;
        }
        let mut sender = self.sender.clone();
        spawn_local(async move {
            let input = detail(id).await;
            let _ = sender.send(Arrival::Desk(input)).await;
            let _ = sender.send(Arrival::Loaded(id)).await;
        });
    }
}

async fn detail(id: InteractionId) -> state::Input {
    loop {
        match api::interaction(id).await {
            Ok(Some(detail)) => return state::Input::Detail(Box::new(detail)),
            Ok(None) => return state::Input::Missing(id),
            Err(_) => TimeoutFuture::new(AGAIN_MS).await,
        }
    }
}

/// Everything that is on the screen, read anew until it could be.
async fn snapshot(mut sender: mpsc::Sender<Arrival>, number: u64, open: Vec<InteractionId>) {
    let (rows, whole) = loop {
        let mut rows = Vec::new();
        match pages(None, &mut rows).await {
            Ok(whole) => break (rows, whole),
            Err(_) => TimeoutFuture::new(AGAIN_MS).await,
        }
    };
    let rows = if whole { state::Input::Open(rows) } else { state::Input::List(rows) };
    let _ = sender.send(Arrival::Desk(rows)).await;
    // The last one opened comes last, and so stays first.
    for id in open.into_iter().rev() {
        let _ = sender.send(Arrival::Desk(detail(id).await)).await;
    }
    let _ = sender.send(Arrival::Machine(Input::Snapshotted(number))).await;
}

/// One socket, until it ends or its frames' sender is dropped.
async fn serve(
    id: LinkId,
    socket: WebSocket,
    mut frames: mpsc::Receiver<String>,
    mut arrivals: mpsc::Sender<Arrival>,
) {
    let (mut sink, mut stream) = socket.split();
    let mut opened = arrivals.clone();
    let write = Box::pin(async move {
        // Given up while it opens, a socket is let go at once: browsers open
        // one at a time, and the next one would wait behind it.
        let open = poll_fn(|cx| sink.poll_ready_unpin(cx));
        let Either::Left((Ok(()), _)) = select(open, frames.next()).await else { return };
        let _ = opened.send(Arrival::Machine(Input::Opened(id))).await;
        while let Some(text) = frames.next().await {
            let _ = sink.send(Message::Text(text)).await;
        }
    });
    let read = Box::pin(async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    if let Some(frame) = ServerFrame::from_text(&text) {
                        let frame = Arrival::Machine(Input::Frame(id, Box::new(frame)));
                        let _ = arrivals.send(frame).await;
                    }
                }
                Some(Ok(Message::Bytes(_))) => {}
                Some(Err(WebSocketError::ConnectionClose(close))) => return close.code,
                Some(Err(_)) | None => return 1006,
            }
        }
    });
    let ended = match select(read, write).await {
        Either::Left((code, _)) => Some(code),
        Either::Right(_) => None,
    };
    if let Some(code) = ended {
        let _ = arrivals.send(Arrival::Machine(Input::Closed(id, code))).await;
    }
}
