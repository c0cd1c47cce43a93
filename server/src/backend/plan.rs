//! What a batch comes to, decided in memory before anything is written.

use std::collections::{BTreeMap, HashMap};

use domain::{
    AgentCommand, Command, Contact, Context, Distribution, Event, EventId, Interaction,
    InteractionId, Presence, Recorded, Refusal, RefusalCode, Timestamp, apply, decide,
};
use protocol::{Outcome, ReplyError};
use serde_json::json;
use uuid::Uuid;

use super::Config;
use super::decode::Item;
use crate::broker::Partition;
use crate::store::{Changed, Commit, Decided, NewEvent, PresenceChange};

/// A batch's commit, built delivery by delivery.
pub(super) struct Plan {
    partition: Partition,
    config: Config,
    now: Timestamp,
    known: BTreeMap<Uuid, Outcome>,
    states: BTreeMap<InteractionId, Interaction>,
    loaded: HashMap<InteractionId, u64>,
    repeats: bool,
    pub(super) commit: Commit,
    /// Who is told that a customer writes, and where.
    pub(super) typing: Vec<(InteractionId, Distribution)>,
}

impl Plan {
    pub(super) fn new(
        partition: Partition,
        config: Config,
        now: Timestamp,
        known: BTreeMap<Uuid, Outcome>,
        states: BTreeMap<InteractionId, Interaction>,
    ) -> Self {
        let loaded = states.iter().map(|(id, state)| (*id, state.version)).collect();
        Self {
            partition,
            config,
            now,
            known,
            states,
            loaded,
            repeats: false,
            commit: Commit::default(),
            typing: Vec::new(),
        }
    }

    /// Decides one item; one that was decided before keeps its outcome.
    pub(super) fn add(&mut self, item: &Item, contact: Option<Contact>) {
        if self.known.contains_key(&item.id) {
            self.repeats = true;
            return;
        }
        let outcome = match self.decide(item, contact) {
            Ok(body) => Outcome::Ok(body),
            Err(refusal) => Outcome::Error(ReplyError::from(refusal)),
        };
        self.known.insert(item.id, outcome.clone());
        let integration = item.integration.clone();
        self.commit.decided.push(Decided { id: item.id, integration, outcome, at: self.now });
    }

    /// The outcome of an item that was added.
    pub(super) fn outcome(&self, id: Uuid) -> Option<&Outcome> {
        self.known.get(&id)
    }

    /// True if something in the batch was decided before.
    pub(super) fn repeats(&self) -> bool {
        self.repeats
    }

    /// The new states, each interaction once.
    pub(super) fn finish(&mut self) {
        let changed = self.states.values().filter_map(|state| {
            let from_version = self.loaded.get(&state.id).copied().unwrap_or(0);
            (state.version > from_version).then(|| Changed {
                interaction: state.clone(),
                partition: self.partition.index,
                from_version,
            })
        });
        self.commit.changed = changed.collect();
    }

    fn decide(
        &mut self,
        item: &Item,
        contact: Option<Contact>,
    ) -> Result<serde_json::Value, Refusal> {
        if item.deadline.is_some_and(|deadline| deadline < self.now) {
            return Err(Refusal::new(RefusalCode::DeadlineExceeded, "its deadline had passed"));
        }
        if let Command::Agent {
            actor,
            command: AgentCommand::SetPresence { presence, reason },
            ..
        } = &item.command
        {
            let reason = reason.clone().filter(|_| *presence == Presence::Away);
            self.commit.presences.push(PresenceChange {
                login: actor.login.clone(),
                presence: *presence,
                reason,
                since: self.now,
            });
            return Ok(json!({ "presence": presence, "since": self.now }));
        }
        let context = Context {
            now: self.now,
            offer_ttl: self.config.offer_ttl,
            wrap_up: self.config.wrap_up,
            contact,
            own_id: item.id.to_string(),
        };
        let state = item.target.and_then(|target| self.states.get(&target));
        let events = decide(state, &item.command, &context)?;
        for event in events {
            self.record(item, event);
        }
        let state = item.target.and_then(|target| self.states.get(&target));
        if let (Command::External { routed, .. }, Some(state)) = (&item.command, state)
            && routed.event.is_ephemeral()
        {
            self.typing.push((state.id, state.distribution.clone()));
        }
        Ok(match state {
            Some(state) => json!({
                "interaction_id": state.id,
                "version": state.version,
                "state": state.stage.as_str(),
            }),
            None => json!({}),
        })
    }

    fn record(&mut self, item: &Item, event: Event) {
        let state = item.target.and_then(|target| self.states.remove(&target));
        let spoken = item.command.distribution_after(state.as_ref(), &event);
        let version = item.target.map(|_| state.as_ref().map_or(0, |state| state.version) + 1);
        let audience = spoken
            .clone()
            .or_else(|| state.as_ref().map(|state| state.distribution.clone()))
            .unwrap_or_default();
        let kind = event.name();
        let recorded = Recorded {
            id: EventId(Uuid::now_v7()),
            cause: item.id,
            at: self.now,
            occurred_at: item.command.occurred_at(),
            interaction_id: item.target,
            version,
            trace: item.trace.clone(),
            integration: state.is_none().then(|| item.integration.clone()),
            distribution: spoken.filter(|_| item.target.is_some()),
            event,
        };
        // Events are made of strings, numbers and ids: encoding them can't fail.
        let body = serde_json::to_string(&recorded).unwrap_or_default();
        self.commit.events.push(NewEvent {
            id: recorded.id,
            kind,
            channel: self.partition.channel,
            partition: self.partition.index,
            cause: item.id,
            by_agent: matches!(item.command, Command::Agent { .. }),
            interaction: item.target.zip(version),
            distribution: audience,
            trace: item.trace.clone(),
            body,
            at: self.now,
        });
        if let Some(state) = apply(state, &recorded) {
            self.states.insert(state.id, state);
        }
    }
}
