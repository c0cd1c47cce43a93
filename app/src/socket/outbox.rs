//! Commands that have no answer yet: sent again under the same id until they have.

use domain::CommandId;
use protocol::{ClientFrame, ReplyError};
use serde_json::Value;

/// The most commands that wait.
pub(super) const OUTBOX_MAX: usize = 200;
/// An answer may come this much later than the deadline, in milliseconds.
const GRACE_MS: u64 = 5_000;
/// A temporary refusal is tried again so often by itself.
const RETRIES_MAX: u32 = 4;

struct Pending {
    id: CommandId,
    command: Value,
    deadline_ms: Option<u64>,
    given_at: u64,
    sent_at: Option<u64>,
    retry_at: Option<u64>,
    retries: u32,
    failed: bool,
}

impl Pending {
    fn frame(&mut self, now: u64) -> ClientFrame {
        self.sent_at = Some(now);
        self.retry_at = None;
        ClientFrame::Command {
            id: self.id,
            command: self.command.clone(),
            deadline_ms: self.deadline_ms,
        }
    }
}

/// What a reply means.
pub(super) enum Settled {
    /// Nobody asked, or it is tried again.
    Nothing,
    /// It was done or refused; `elapsed_ms` since it was sent.
    Answered { error: Option<ReplyError>, elapsed_ms: Option<u64> },
}

#[derive(Default)]
pub(super) struct Outbox(Vec<Pending>);

impl Outbox {
    /// False if it is full.
    pub(super) fn put(
        &mut self,
        id: CommandId,
        command: Value,
        deadline_ms: Option<u64>,
        now: u64,
    ) -> bool {
        if self.0.iter().any(|pending| pending.id == id) {
            return true;
        }
        if self.0.len() >= OUTBOX_MAX {
            return false;
        }
        self.0.push(Pending {
            id,
            command,
            deadline_ms,
            given_at: now,
            sent_at: None,
            retry_at: None,
            retries: 0,
            failed: false,
        });
        true
    }

    /// One command's frame, if it is to be sent.
    pub(super) fn frame(&mut self, id: CommandId, now: u64) -> Option<ClientFrame> {
        self.0.iter_mut().find(|pending| pending.id == id).map(|pending| pending.frame(now))
    }

    /// Every waiting command's frame, in the order given: after a reconnect.
    pub(super) fn frames(&mut self, now: u64) -> Vec<ClientFrame> {
        self.0.iter_mut().filter(|one| !one.failed).map(|one| one.frame(now)).collect()
    }

    /// Frames whose time to be tried again has come.
    pub(super) fn due(&mut self, now: u64) -> Vec<ClientFrame> {
        self.0
            .iter_mut()
            .filter(|one| !one.failed && one.retry_at.is_some_and(|at| at <= now))
            .map(|one| one.frame(now))
            .collect()
    }

    /// Commands whose deadline has passed without an answer. They stay for a retry.
    pub(super) fn lapsed(&mut self, now: u64) -> Vec<CommandId> {
        let late = |one: &Pending| {
            let deadline = one.deadline_ms.map(|ms| one.given_at + ms + GRACE_MS);
            !one.failed && deadline.is_some_and(|deadline| deadline <= now)
        };
        self.0
            .iter_mut()
            .filter(|one| late(one))
            .map(|one| {
                one.failed = true;
                one.id
            })
            .collect()
    }

    pub(super) fn reply(&mut self, id: CommandId, error: Option<ReplyError>, now: u64) -> Settled {
        let Some(at) = self.0.iter().position(|one| one.id == id) else { return Settled::Nothing };
        let one = &mut self.0[at];
        let elapsed_ms = one.sent_at.map(|sent_at| now.saturating_sub(sent_at));
        match &error {
            Some(error) if error.temporary && one.retries < RETRIES_MAX => {
                one.retry_at = Some(now + (500 << one.retries));
                one.retries += 1;
                return Settled::Nothing;
            }
            Some(error) if error.temporary => one.failed = true,
            // A retry of what was refused is the same question again.
            Some(_) | None => {
                self.0.remove(at);
            }
        }
        Settled::Answered { error, elapsed_ms }
    }

    /// Again, under the same id. False if it is not known any more.
    pub(super) fn retry(&mut self, id: CommandId, now: u64) -> bool {
        let Some(one) = self.0.iter_mut().find(|one| one.id == id) else { return false };
        one.failed = false;
        one.retries = 0;
        one.given_at = now;
        true
    }

    pub(super) fn remove(&mut self, id: CommandId) {
        self.0.retain(|one| one.id != id);
    }
}
