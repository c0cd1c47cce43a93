//! The store: interactions, the journal, agents, keys, receipts.
//!
//! SQLite by default, PostgreSQL by URL; one trait, one set of migrations,
//! one set of queries.
//!
//! **The journal** holds every event under a dense offset for each channel.
//! Offsets are given out inside the transaction that writes the events, under
//! a lock on the channel's head: whoever can read offset N can read all
//! before it. The **epoch** names the journal; offsets of different epochs
//! have nothing to do with each other.

mod backup;
mod checkpoint;
mod commit;
mod database;
mod group;
mod journeys;
mod people;
mod place;
mod read;
mod sql;

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::{
    Channel, Contact, ContactId, Distribution, EventId, Interaction, InteractionId, Login,
    Presence, Timestamp,
};
use protocol::{
    AgentView, Cursor, InteractionDetail, InteractionList, Journey, Outcome, Principal, Stage, View,
};
use uuid::Uuid;

pub use backup::back_up;
pub use database::{Config, open};
pub use place::Place;

/// What went wrong, by what the caller would do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else has decided in the meantime: load again, decide again.
    #[error("stale: decided elsewhere in the meantime")]
    Stale,
    /// There is one already.
    #[error("{0} exists already")]
    Exists(String),
    /// Gone, locked or overloaded: try again.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// Damaged, newer than this program, or not what it should be.
    #[error("{0}")]
    Broken(String),
}

/// What a delivery came to.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The message's id.
    pub id: Uuid,
    /// The integration that sent it; empty for an agent's command.
    pub integration: String,
    /// The reply.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
}

/// An event on its way into the journal.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// Its `type`.
    pub kind: &'static str,
    /// Its channel.
    pub channel: Channel,
    /// The partition that it was decided in.
    pub partition: u32,
    /// What brought it about.
    pub cause: Uuid,
    /// True if an agent's command did.
    pub by_agent: bool,
    /// Its interaction, and its version there.
    pub interaction: Option<(InteractionId, u64)>,
    /// Who sees it.
    pub distribution: Distribution,
    /// W3C trace context.
    pub trace: Option<String>,
    /// The `event` object, encoded once.
    pub body: String,
    /// When it was decided.
    pub at: Timestamp,
}

/// An interaction's new state.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The new state.
    pub interaction: Interaction,
    /// The partition whose consumer owns it.
    pub partition: u32,
    /// The version that it was decided at; 0 for a new one.
    pub from_version: u64,
}

/// An agent's new presence.
#[derive(Clone, Debug)]
pub struct PresenceChange {
    /// Who.
    pub login: Login,
    /// What now.
    pub presence: Presence,
    /// Why away.
    pub reason: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// What a batch of deliveries came to: all of it is written, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Outcomes, by message.
    pub decided: Vec<Decided>,
    /// New states; each interaction once.
    pub changed: Vec<Changed>,
    /// Events, in order.
    pub events: Vec<NewEvent>,
    /// New presences.
    pub presences: Vec<PresenceChange>,
}

/// An event of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// Its place in the channel.
    pub offset: u64,
    /// Its id.
    pub id: EventId,
    /// Its `type`.
    pub kind: String,
    /// What brought it about.
    pub cause: Uuid,
    /// The partition that it was decided in.
    pub partition: u32,
    /// Its interaction.
    pub interaction_id: Option<InteractionId>,
    /// Who sees it.
    pub distribution: Distribution,
    /// The `event` object.
    pub body: String,
    /// When it was decided.
    pub at: Timestamp,
}

/// What an event of the journal is compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalId {
    /// Its place in the channel.
    pub offset: u64,
    /// Its id.
    pub id: EventId,
    /// The partition that it was decided in.
    pub partition: u32,
}

/// An interaction whose deadline has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub interaction_id: InteractionId,
    /// Its channel.
    pub channel: Channel,
    /// The partition that decides it.
    pub partition: u32,
    /// Its version when the deadline was set.
    pub version: u64,
}

/// Which interactions to list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Only what this agent may see.
    pub viewer: Login,
    /// Only of this channel.
    pub channel: Option<Channel>,
    /// Which of them.
    pub view: View,
    /// Only of this queue.
    pub queue: Option<String>,
    /// Where the last page ended.
    pub cursor: Option<Place>,
    /// 1 to 200.
    pub limit: u32,
}

/// An agent with the password's hash.
#[derive(Clone, Debug)]
pub struct AgentRecord {
    /// Who.
    pub principal: Principal,
    /// PHC string, argon2id.
    pub password_hash: String,
    /// True if the agent may no longer sign in.
    pub disabled: bool,
}

/// An external system with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integration {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique; part of the ids of what it sends.
    pub name: String,
    /// The channels it may send to.
    pub scopes: Vec<Channel>,
    /// SHA-256 of the key; the secret of webhook signatures as well.
    pub key_hash: [u8; 32],
    /// True if every request must be signed.
    pub signature_required: bool,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A step of an event's journey, on its way into the store.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The external event or command.
    pub cause: Uuid,
    /// Which step.
    pub stage: Stage,
    /// When.
    pub at: Timestamp,
    /// The integration that posted it, where the step is `accepted`.
    pub integration: Option<String>,
    /// By whom: for direct and multicast events from `sent` on.
    pub agent: Option<Login>,
    /// How many clients this stands for; 0 before `sent`.
    pub count: u64,
}

impl Receipt {
    /// Takes in another one of the same step: keeps the first time, adds up the counts.
    pub fn add(&mut self, other: &Self) {
        self.at = self.at.min(other.at);
        self.count = self.count.saturating_add(other.count);
        self.integration = self.integration.take().or_else(|| other.integration.clone());
    }
}

/// What the rooms above may ask of the store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The journal's epoch.
    fn epoch(&self) -> &str;

    /// Outcomes of those messages that were decided already.
    async fn outcomes(&self, ids: &[Uuid]) -> Result<BTreeMap<Uuid, Outcome>, StoreError>;
    /// Those of the interactions that exist.
    async fn load(
        &self,
        ids: &[InteractionId],
    ) -> Result<BTreeMap<InteractionId, Interaction>, StoreError>;
    /// Writes a batch in one transaction and gives the events' offsets in the
    /// order of `commit.events`.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if a message was decided, or an interaction has
    /// another version than `from_version`: nothing was written.
    async fn commit(&self, commit: &Commit) -> Result<Vec<u64>, StoreError>;
    /// Events that were committed and are not known to be announced, of these
    /// partitions of one channel, in order; at most `limit`.
    async fn outbox(
        &self,
        channel: Channel,
        partitions: &[u32],
        limit: u32,
    ) -> Result<Vec<JournalRow>, StoreError>;
    /// These were announced.
    async fn announced(&self, channel: Channel, offsets: &[u64]) -> Result<(), StoreError>;
    /// Interactions whose `due_at` has passed; at most `limit`.
    async fn due(&self, now: Timestamp, limit: u32) -> Result<Vec<Due>, StoreError>;

    /// The last offset of each channel.
    async fn heads(&self) -> Result<BTreeMap<Channel, Cursor>, StoreError>;
    /// Events after `after`, in order; at most `limit`.
    async fn journal(
        &self,
        channel: Channel,
        after: u64,
        limit: u32,
    ) -> Result<Vec<JournalRow>, StoreError>;
    /// As [`Store::journal`], without what is in the events.
    async fn journal_ids(
        &self,
        channel: Channel,
        after: u64,
        limit: u32,
    ) -> Result<Vec<JournalId>, StoreError> {
        let rows = self.journal(channel, after, limit).await?;
        let id = |row: JournalRow| JournalId {
            offset: row.offset,
            id: row.id,
            partition: row.partition,
        };
        Ok(rows.into_iter().map(id).collect())
    }
    /// A page of interactions, newest change first, and the heads as of the read.
    async fn interactions(&self, query: &ListQuery) -> Result<InteractionList, StoreError>;
    /// One interaction with its timeline, if `viewer` may see it, and the heads as of the read.
    async fn interaction(
        &self,
        id: InteractionId,
        viewer: &Login,
    ) -> Result<Option<InteractionDetail>, StoreError>;

    /// The contact that each of these is: found by address, else by number, else
    /// new. What is known already is kept; what is new is added.
    async fn resolve_contacts(
        &self,
        contacts: &[Contact],
        now: Timestamp,
    ) -> Result<Vec<Contact>, StoreError>;
    /// A contact.
    async fn contact(&self, id: ContactId) -> Result<Option<Contact>, StoreError>;

    /// Adds an agent.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the login is taken.
    async fn add_agent(&self, agent: &AgentRecord, now: Timestamp) -> Result<(), StoreError>;
    /// Adds the very first agent; false, and nothing is written, if there is one.
    async fn add_first_agent(
        &self,
        agent: &AgentRecord,
        now: Timestamp,
    ) -> Result<bool, StoreError>;
    /// An agent by login.
    async fn agent(&self, login: &Login) -> Result<Option<AgentRecord>, StoreError>;
    /// Every agent who isn't disabled, by login.
    async fn agents(&self) -> Result<Vec<AgentView>, StoreError>;
    /// Disables an agent and ends the agent's sessions. False if there is none.
    async fn disable_agent(&self, login: &Login) -> Result<bool, StoreError>;

    /// Opens a session, or a token, under the SHA-256 of its secret.
    async fn add_session(
        &self,
        hash: [u8; 32],
        login: &Login,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError>;
    /// Whose session it is and until when; none if there is none, it has
    /// expired, or its agent is disabled.
    async fn session(
        &self,
        hash: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<(Principal, Timestamp)>, StoreError>;
    /// Ends a session.
    async fn end_session(&self, hash: [u8; 32]) -> Result<(), StoreError>;

    /// Adds an integration.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the name is taken.
    async fn add_integration(&self, integration: &Integration) -> Result<(), StoreError>;
    /// The integration with this key, unless it was revoked.
    async fn integration(&self, key_hash: [u8; 32]) -> Result<Option<Integration>, StoreError>;
    /// Every integration, by name.
    async fn integrations(&self) -> Result<Vec<Integration>, StoreError>;
    /// Revokes a key. False if there is none of that name.
    async fn revoke_integration(&self, name: &str, now: Timestamp) -> Result<bool, StoreError>;

    /// Adds steps of journeys: keeps the first time, adds up the counts.
    async fn record(&self, receipts: &[Receipt]) -> Result<(), StoreError>;
    /// Where an external event or command has got to, and the integration that
    /// sent it, as far as that is known.
    async fn journey(&self, id: Uuid) -> Result<Option<(Journey, Option<String>)>, StoreError>;

    /// Notes who changed what, for the audit.
    async fn audit(
        &self,
        who: &str,
        what: &str,
        subject: &str,
        now: Timestamp,
    ) -> Result<(), StoreError>;
    /// Deletes outcomes, receipts and sessions that ended before `before`.
    async fn prune(&self, before: Timestamp) -> Result<(), StoreError>;
    /// Answers if the store does.
    async fn ping(&self) -> Result<(), StoreError>;
    /// Lets go of everything.
    async fn close(&self);
}
