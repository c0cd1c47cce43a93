//! Commands upward and replies downward.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use domain::{AgentCommand, Channel, CommandId, InteractionId, Kind, partition_of};
use protocol::{Outcome, Principal, ReplyError, ServerFrame, Stage, decode_command, names};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Aggregator;
use super::hub::Place;
use super::outbox::{Outbox, Outgoing};
use crate::broker::{Message, Partition};
use crate::trace;

/// How many commands may wait for their replies, all clients together.
const PENDING_MAX: usize = 100_000;
/// After this time nobody waits any more.
const FORGET_AFTER: Duration = Duration::from_secs(600);
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Who waits for which reply.
#[derive(Default)]
pub(super) struct Pending(Mutex<HashMap<CommandId, Vec<Waiting>>>);

struct Waiting {
    outbox: Weak<Outbox>,
    since: Instant,
}

impl Waiting {
    fn is(&self, outbox: &Arc<Outbox>) -> bool {
        std::ptr::eq(self.outbox.as_ptr(), Arc::as_ptr(outbox))
    }
}

/// What became of a wish to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// It waits from now on.
    Begun,
    /// It waits since an earlier time the command came, and gets one reply.
    Already,
    /// Too many wait.
    Full,
}

impl Pending {
    fn wait(&self, id: CommandId, outbox: &Arc<Outbox>) -> Wait {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() >= PENDING_MAX {
            pending.retain(|_, waiting| {
                waiting.retain(|one| {
                    one.since.elapsed() < FORGET_AFTER && one.outbox.strong_count() > 0
                });
                !waiting.is_empty()
            });
        }
        if pending.len() >= PENDING_MAX {
            return Wait::Full;
        }
        let waiting = pending.entry(id).or_default();
        waiting.retain(|one| one.outbox.strong_count() > 0);
        if let Some(known) = waiting.iter_mut().find(|one| one.is(outbox)) {
            known.since = Instant::now();
            return Wait::Already;
        }
        waiting.push(Waiting { outbox: Arc::downgrade(outbox), since: Instant::now() });
        Wait::Begun
    }

    /// This one waits no longer; the others do.
    fn forget(&self, id: CommandId, outbox: &Arc<Outbox>) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = pending.get_mut(&id) {
            waiting.retain(|one| !one.is(outbox));
            if waiting.is_empty() {
                pending.remove(&id);
            }
        }
    }

    fn take(&self, id: CommandId) -> Vec<Arc<Outbox>> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = pending.remove(&id).unwrap_or_default();
        waiting.into_iter().filter_map(|one| one.outbox.upgrade()).collect()
    }
}

/// A command as a client gave it.
pub(super) struct Given {
    pub(super) id: CommandId,
    pub(super) command: Value,
    pub(super) deadline_ms: Option<u64>,
}

impl Aggregator {
    /// Publishes a command; its reply comes into `outbox`, now if it can't be
    /// published, else when the backend has decided.
    pub(super) async fn command(&self, given: Given, principal: &Principal, outbox: &Arc<Outbox>) {
        let id = given.id;
        if let Err(error) = self.publish(given, principal, outbox).await {
            reply(outbox, id, Outcome::Error(error));
        }
    }

    async fn publish(
        &self,
        given: Given,
        principal: &Principal,
        outbox: &Arc<Outbox>,
    ) -> Result<(), ReplyError> {
        let (command, expect_version) =
            decode_command(&given.command, "/command").map_err(|errors| {
                let first = errors.into_iter().next();
                ReplyError {
                    code: "invalid".into(),
                    message: first.as_ref().map_or_else(String::new, |error| error.detail.clone()),
                    temporary: false,
                    pointer: first.map(|error| error.pointer),
                }
            })?;
        let (channel, key) = self.route(&command, given.id, principal).await?;
        let wait = self.pending.wait(given.id, outbox);
        if wait == Wait::Full {
            return Err(temporary("busy", "too many commands wait for their replies"));
        }
        let mut headers = BTreeMap::from([
            (names::X_CHANNEL.to_owned(), channel.to_string()),
            (names::X_KEY.to_owned(), key.clone()),
            (names::X_PRINCIPAL.to_owned(), serde_json::to_string(principal).unwrap_or_default()),
            (names::TRACEPARENT.to_owned(), trace::begin()),
        ]);
        if let Some(version) = expect_version {
            headers.insert(names::X_EXPECT_VERSION.to_owned(), version.to_string());
        }
        let now = self.clock.now();
        if let Some(ms) = given.deadline_ms {
            let deadline = now.plus(Duration::from_millis(ms));
            headers.insert(names::X_DEADLINE.to_owned(), deadline.to_string());
        }
        let message = Message {
            id: given.id.to_string(),
            kind: given.command.get("type").and_then(Value::as_str).unwrap_or_default().to_owned(),
            app_id: self.members.id().to_owned(),
            at: now,
            headers,
            reply_to: Some(self.members.id().to_owned()),
            body: Bytes::from(given.command.to_string()),
        };
        let index = partition_of(&key, self.broker.config().partitions);
        self.receipts.reached(given.id.0, Stage::Accepted);
        self.broker.publish(Partition { channel, index }, message).await.map_err(|error| {
            tracing::warn!(%error, "command not published");
            if wait == Wait::Begun {
                self.pending.forget(given.id, outbox);
            }
            temporary("unavailable", "the broker is gone for now; nothing was lost, try again")
        })?;
        self.receipts.reached(given.id.0, Stage::Brokered);
        Ok(())
    }

    /// Where a command goes: its interaction's channel, and its ordering key.
    async fn route(
        &self,
        command: &AgentCommand,
        id: CommandId,
        principal: &Principal,
    ) -> Result<(Channel, String), ReplyError> {
        match command {
            AgentCommand::OpenTicket { .. } => {
                let ticket = InteractionId::derive("", Kind::Ticket, &id.to_string());
                Ok((Channel::Tickets, ticket.to_string()))
            }
            AgentCommand::SetPresence { .. } => Ok((Channel::Voice, principal.login.to_string())),
            command => {
                let Some(interaction) = command.interaction_id() else { return Err(unknown()) };
                let place = self.place(interaction).await?;
                Ok((place.channel, interaction.to_string()))
            }
        }
    }

    /// Where an interaction is and who may see it.
    pub(super) async fn place(&self, id: InteractionId) -> Result<Place, ReplyError> {
        if let Some(place) = self.hub.place(id) {
            return Ok(place);
        }
        let mut states = self.store.load(&[id]).await.map_err(|_| {
            temporary("unavailable", "the store is gone for now; nothing was lost, try again")
        })?;
        let state = states.remove(&id).ok_or_else(unknown)?;
        let place =
            Place { channel: state.stage.kind().channel(), distribution: state.distribution };
        self.hub.remember(id, place.clone());
        Ok(place)
    }

    /// Hears replies until `stop`.
    pub(super) async fn hear_replies(self, stop: CancellationToken) {
        let hear = async {
            loop {
                match self.broker.replies(self.members.id()).await {
                    Ok(mut replies) => {
                        while let Some(message) = replies.recv().await {
                            self.pass_on(&message);
                        }
                    }
                    Err(error) => tracing::debug!(%error, "replies unheard"),
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = hear => {}
        }
    }

    fn pass_on(&self, message: &Message) {
        let Ok(id) = message.id.parse::<CommandId>() else { return };
        let Ok(outcome) = serde_json::from_slice::<Outcome>(&message.body) else { return };
        for outbox in self.pending.take(id) {
            reply(&outbox, id, outcome.clone());
        }
    }
}

fn reply(outbox: &Outbox, id: CommandId, outcome: Outcome) {
    let (ok, error) = match outcome {
        Outcome::Ok(ok) => (Some(ok), None),
        Outcome::Error(error) => (None, Some(error)),
    };
    if let Ok(text) = serde_json::to_string(&ServerFrame::Reply { id, ok, error }) {
        outbox.push(Outgoing::Text(text.into()));
    }
}

fn temporary(code: &str, message: &str) -> ReplyError {
    ReplyError { code: code.into(), message: message.into(), temporary: true, pointer: None }
}

fn unknown() -> ReplyError {
    ReplyError {
        code: "not_found".into(),
        message: "there is no such interaction".into(),
        temporary: false,
        pointer: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn who_asks_again_waits_once_and_a_failure_takes_back_only_its_own() {
        let pending = Pending::default();
        let id = CommandId(Uuid::nil());
        let outboxes = [(); 2].map(|()| Arc::new(Outbox::new(1_000)));
        assert_eq!(pending.wait(id, &outboxes[0]), Wait::Begun);
        assert_eq!(pending.wait(id, &outboxes[0]), Wait::Already);
        assert_eq!(pending.wait(id, &outboxes[1]), Wait::Begun);
        pending.forget(id, &outboxes[1]);
        let told = pending.take(id);
        assert_eq!(told.len(), 1);
        assert!(Arc::ptr_eq(&told[0], &outboxes[0]));
        assert!(pending.take(id).is_empty(), "a second reply finds nobody");
    }
}
