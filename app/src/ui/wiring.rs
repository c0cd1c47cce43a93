//! What every part of the desk shares: the signals that the socket feeds, and
//! the way back to it.

use std::collections::BTreeSet;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use domain::{AgentCommand, Channel, CommandId, Interaction, InteractionId, Timestamp};
use leptos::prelude::*;
use protocol::Signal;

use crate::api::Boot;
use crate::browser;
use crate::socket::Status;
use crate::state::{self, Desk, Filter, Input, ListView, Progress, reduce};

/// The shared signals. Copies share.
#[derive(Clone, Copy)]
pub(super) struct Wiring {
    pub(super) desk: RwSignal<Desk>,
    pub(super) status: RwSignal<Status>,
    /// The server's time, by the second.
    pub(super) now: RwSignal<Timestamp>,
    skew_ms: RwSignal<i64>,
    /// False if what waits for its answer is lost with the page.
    pub(super) keeps: RwSignal<bool>,
    /// True once the browser's own clock and storage may show.
    pub(super) alive: RwSignal<bool>,
    /// Which interaction the address names.
    pub(super) selected: Memo<Option<InteractionId>>,
    /// What the list is narrowed to.
    pub(super) filter: Memo<Filter>,
    pub(super) search: RwSignal<String>,
    /// What the list shows, in its order.
    pub(super) shown: RwSignal<Vec<InteractionId>>,
    /// The composer writes notes.
    pub(super) noting: RwSignal<bool>,
    /// The entry whose journey is shown.
    pub(super) entry: RwSignal<Option<domain::EventId>>,
    /// The call that is to be transferred.
    pub(super) handing: RwSignal<Option<InteractionId>>,
    /// What waits for me and hasn't been looked at since.
    pub(super) unread: RwSignal<BTreeSet<InteractionId>>,
    /// `g` was the last key: the next one names a room.
    pub(super) going: StoredValue<bool>,
    /// The context panel is open, where it is a drawer.
    pub(super) drawer: RwSignal<bool>,
    #[cfg(feature = "browser")]
    handle: StoredValue<Option<crate::socket::Handle>>,
}

impl Wiring {
    pub(super) fn new(
        boot: &Boot,
        selected: Memo<Option<InteractionId>>,
        filter: Memo<Filter>,
        search: RwSignal<String>,
    ) -> Self {
        let mut desk = Desk::default();
        let open = selected.get_untracked();
        let mut rows = boot.open.interactions.clone();
        rows.extend(boot.closed.iter().flat_map(|list| list.interactions.clone()));
        let mut inputs = vec![
            Input::Me(boot.me.principal.clone()),
            Input::Agents(boot.agents.clone()),
            Input::Show(open),
            Input::List(rows),
        ];
        match (&boot.detail, open) {
            (Some(detail), _) => inputs.push(Input::Detail(Box::new(detail.clone()))),
            (None, Some(id)) => inputs.push(Input::Missing(id)),
            (None, None) => {}
        }
        for input in inputs {
            // A snapshot has no holes.
            let _ = reduce(&mut desk, input);
        }
        Self {
            desk: RwSignal::new(desk),
            status: RwSignal::new(Status::default()),
            now: RwSignal::new(boot.now),
            skew_ms: RwSignal::new(0),
            keeps: RwSignal::new(true),
            alive: RwSignal::new(false),
            selected,
            filter,
            search,
            shown: RwSignal::new(Vec::new()),
            noting: RwSignal::new(false),
            entry: RwSignal::new(None),
            handing: RwSignal::new(None),
            unread: RwSignal::new(BTreeSet::new()),
            going: StoredValue::new(false),
            drawer: RwSignal::new(false),
            #[cfg(feature = "browser")]
            handle: StoredValue::new(None),
        }
    }

    /// Connects. For effects: only browsers come here.
    #[cfg(feature = "browser")]
    pub(super) fn start(self, boot: &Boot) {
        let feed = crate::socket::Feed {
            desk: self.desk,
            status: self.status,
            skew_ms: self.skew_ms,
            keeps: self.keeps,
        };
        self.skew_ms.set(boot.now.as_millis() - browser::now().as_millis());
        self.handle.set_value(Some(crate::socket::start(feed, boot)));
        self.alive.set(true);
        self.tick();
    }

    #[cfg(not(feature = "browser"))]
    pub(super) fn start(self, _boot: &Boot) {}

    /// A second has passed.
    pub(super) fn tick(self) {
        let ms = browser::now().as_millis() + self.skew_ms.get_untracked();
        self.now.set(Timestamp::from_millis(ms));
        let fades =
            self.desk.with_untracked(|desk| !desk.typing.is_empty() || !desk.viewing.is_empty());
        if fades {
            self.tell(Tell::Tick);
        }
    }

    pub(super) fn give(self, command: AgentCommand) {
        let _ = self.follow(command);
    }

    /// Gives a command, and its id to whoever wants to know what becomes of it.
    #[cfg(feature = "browser")]
    pub(super) fn follow(self, command: AgentCommand) -> Option<CommandId> {
        self.handle.with_value(|handle| handle.as_ref().map(|handle| handle.give(command)))
    }

    #[cfg(not(feature = "browser"))]
    pub(super) fn follow(self, _command: AgentCommand) -> Option<CommandId> {
        None
    }

    /// True while a command of this type about this interaction waits for its answer.
    pub(super) fn is_pending(
        self,
        id: Option<InteractionId>,
        kind: Discriminant<AgentCommand>,
    ) -> bool {
        self.desk.with(|desk| {
            desk.outgoing.iter().any(|one| {
                one.progress == Progress::Pending
                    && one.command.interaction_id() == id
                    && discriminant(&one.command) == kind
            })
        })
    }

    pub(super) fn signal(self, signal: Signal) {
        self.tell(Tell::Signal(signal));
    }

    #[cfg(feature = "browser")]
    pub(super) fn tell(self, what: Tell) {
        self.handle.with_value(|handle| {
            let Some(handle) = handle else { return };
            match what {
                Tell::Retry(id) => handle.retry(id),
                Tell::Dismiss(id) => handle.dismiss(id),
                Tell::Signal(signal) => handle.signal(signal),
                Tell::Show(id) => handle.show(id),
                Tell::Rows(rows) => handle.rows(rows),
                Tell::Tick => handle.tick(),
                Tell::Wake => handle.wake(),
                Tell::Offline => handle.offline(),
                Tell::Stop => handle.stop(),
            }
        });
    }

    #[cfg(not(feature = "browser"))]
    pub(super) fn tell(self, _what: Tell) {}

    /// An interaction, as a signal of its own.
    pub(super) fn row(self, id: InteractionId) -> Memo<Option<Interaction>> {
        Memo::new(move |_| self.desk.with(|desk| desk.rows.get(&id).cloned()))
    }

    /// The interaction on the screen.
    pub(super) fn current(self) -> Memo<Option<Interaction>> {
        Memo::new(move |_| {
            let id = self.selected.get()?;
            self.desk.with(|desk| desk.rows.get(&id).cloned())
        })
    }

    /// How long ago, in a word.
    pub(super) fn ago(self, since: Timestamp) -> String {
        state::duration(self.now.get().since(since))
    }

    /// How long until, as minutes and seconds.
    pub(super) fn left(self, until: Timestamp) -> String {
        clock(until.since(self.now.get()))
    }

    /// How long since, as minutes and seconds.
    pub(super) fn elapsed(self, since: Timestamp) -> String {
        clock(self.now.get().since(since))
    }

    /// Hours and minutes: UTC until the browser knows better.
    pub(super) fn clock(self, at: Timestamp) -> String {
        if self.alive.get() {
            browser::local_clock(at)
        } else {
            at.to_string().get(11..16).unwrap_or_default().to_owned()
        }
    }
}

/// What the pages tell the driver.
#[cfg_attr(not(feature = "browser"), allow(dead_code, reason = "nobody listens on a server"))]
pub(super) enum Tell {
    Retry(CommandId),
    Dismiss(CommandId),
    Signal(Signal),
    Show(Option<InteractionId>),
    Rows(Vec<Interaction>),
    Tick,
    Wake,
    Offline,
    Stop,
}

fn clock(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds / 3_600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// The wiring of the desk around.
pub(super) fn wiring() -> Wiring {
    expect_context()
}

/// The address of the list, narrowed, and of an interaction in it.
pub(super) fn address(
    id: Option<InteractionId>,
    view: ListView,
    channel: Option<Channel>,
) -> String {
    let mut address = id.map_or_else(|| "/inbox".to_owned(), |id| format!("/inbox/{id}"));
    let mut query = Vec::new();
    if view != ListView::default() {
        query.push(format!("view={}", view.as_str()));
    }
    if let Some(channel) = channel {
        query.push(format!("channel={channel}"));
    }
    if !query.is_empty() {
        address.push('?');
        address.push_str(&query.join("&"));
    }
    address
}
