//! What the desk knows, and how everything that arrives changes it: one pure function.

mod actions;
mod describe;
mod list;
mod outgoing;
mod presence;
mod reduce;

use std::collections::{BTreeMap, VecDeque};

use domain::{EventId, Interaction, InteractionId, Login, Recorded, Role, Timestamp};
use protocol::{AgentView, Principal};

pub use actions::{Action, actions};
pub use describe::{Tone, Words, describe, duration, title};
pub use list::{Counts, Filter, ListView, attention, counts, select};
pub use outgoing::{Outgoing, Progress, superseded, text_of};
pub use presence::{TYPING_MS, VIEWING_MS};
pub use reduce::{Effect, Input, reduce};

/// The most interactions that are kept.
pub const ROWS_MAX: usize = 500;
/// The most entries of one timeline that are kept.
pub const ENTRIES_MAX: usize = 500;
/// The most timelines that are kept.
pub const THREADS_MAX: usize = 6;
/// The most notices that are kept.
pub const NOTICES_MAX: usize = 20;
/// The most commands that are shown as under way or failed.
pub const OUTGOING_MAX: usize = 200;

/// Of so many events it is remembered that they were taken in.
const TAKEN_MAX: usize = 256;

/// One interaction's timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Thread {
    /// Whose.
    pub id: InteractionId,
    /// The version of its last event.
    pub version: u64,
    /// Oldest first.
    pub entries: VecDeque<Recorded>,
    /// The contact's other interactions, newest first.
    pub related: Vec<Interaction>,
}

/// Somebody who writes or looks, until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passing {
    /// Where.
    pub interaction: InteractionId,
    /// Who; none is the customer.
    pub agent: Option<Login>,
    /// Not longer than this without hearing of it again.
    pub until: Timestamp,
}

/// What the desk knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desk {
    /// Who is signed in.
    pub me: Option<Principal>,
    /// Interactions by id, at most [`ROWS_MAX`].
    pub rows: BTreeMap<InteractionId, Interaction>,
    /// Everybody.
    pub agents: Vec<AgentView>,
    /// The one on the screen.
    pub open: Option<InteractionId>,
    /// Timelines, last opened first, at most [`THREADS_MAX`].
    pub threads: VecDeque<Thread>,
    /// Commands without an answer, or with a bad one.
    pub outgoing: Vec<Outgoing>,
    /// Who writes.
    pub typing: Vec<Passing>,
    /// Who looks.
    pub viewing: Vec<Passing>,
    /// Notices, newest first.
    pub notices: VecDeque<Recorded>,
    /// Interactions that do not exist, or not for this agent.
    pub missing: Option<InteractionId>,
    /// How many events have changed a row or a timeline twice: none should.
    pub shown_twice: u64,
    /// The last events that changed a row or were told as notices.
    taken: VecDeque<EventId>,
}

impl Desk {
    /// The login of who is signed in.
    #[must_use]
    pub fn login(&self) -> Option<&Login> {
        self.me.as_ref().map(|me| &me.login)
    }

    /// The role of who is signed in.
    #[must_use]
    pub fn role(&self) -> Role {
        self.me.as_ref().map_or(Role::Agent, |me| me.role)
    }

    /// An interaction's timeline, if it has been read.
    #[must_use]
    pub fn thread(&self, id: InteractionId) -> Option<&Thread> {
        self.threads.iter().find(|thread| thread.id == id)
    }

    /// An agent's name, else the login.
    #[must_use]
    pub fn name_of(&self, login: &Login) -> String {
        self.agent(login).map_or_else(|| login.to_string(), |agent| agent.name.clone())
    }

    /// The queues that are heard of, by name.
    #[must_use]
    pub fn queues(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.rows.values().filter_map(|row| row.queue.as_ref()) {
            if let Err(at) = names.binary_search(name) {
                names.insert(at, name.clone());
            }
        }
        names
    }

    /// An agent, as colleagues see one.
    #[must_use]
    pub fn agent(&self, login: &Login) -> Option<&AgentView> {
        self.agents.iter().find(|agent| &agent.login == login)
    }

    /// What is offered to me, the most urgent first.
    #[must_use]
    pub fn offers(&self, now: Timestamp) -> Vec<&Interaction> {
        let Some(me) = self.login() else { return Vec::new() };
        let mut offers: Vec<_> = self
            .rows
            .values()
            .filter(|row| {
                row.pending_offer().is_some_and(|offer| &offer.agent == me && offer.deadline > now)
            })
            .collect();
        offers.sort_by_key(|row| row.pending_offer().map(|offer| offer.deadline));
        offers
    }

    /// The calls that I have: talking, on hold, or in wrap-up.
    #[must_use]
    pub fn my_calls(&self) -> Vec<&Interaction> {
        use domain::{CallState, Stage};
        self.rows
            .values()
            .filter(|row| {
                row.assignee.as_ref() == self.login()
                    && row.assignee.is_some()
                    && matches!(
                        row.stage,
                        Stage::Call(CallState::InProgress | CallState::OnHold | CallState::WrapUp)
                    )
            })
            .collect()
    }
}
