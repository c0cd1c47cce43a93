//! Commands that have no answer yet: sent again under the same id until they have.

use domain::CommandId;
use protocol::{ClientFrame, ReplyError};
use serde_json::Value;

/// The most commands that wait.
pub(super) const OUTBOX_MAX: usize = 200;
/// An answer may come this much later than the deadline, in milliseconds.
const GRACE_MS: u64 = 5_000;
/// What has no answer for so long is sent again: answers can be lost on a line
/// that lives.
const ANSWER_MS_MAX: u64 = 5_000;
/// The first wait after a temporary refusal; it doubles up to the longest.
const RETRY_MS_MIN: u64 = 500;
const RETRY_MS_MAX: u64 = 10_000;

struct Pending {
    id: CommandId,
    command: Value,
    /// How long it has from when it is given, and until when that is.
    deadline_ms: Option<u64>,
    expires_at: Option<u64>,
    /// None while no answer is on its way.
    sent_at: Option<u64>,
    retry_at: Option<u64>,
    retries: u32,
    /// The last temporary refusal.
    refusal: Option<ReplyError>,
    failed: bool,
}

impl Pending {
    /// What is too late isn't sent; the rest says how long it still has.
    fn frame(&mut self, now: u64) -> Option<ClientFrame> {
        let left = self.expires_at.map(|at| at.saturating_sub(now));
        if self.failed || left == Some(0) {
            return None;
        }
        self.sent_at = Some(now);
        self.retry_at = None;
        Some(ClientFrame::Command { id: self.id, command: self.command.clone(), deadline_ms: left })
    }

    fn is_due(&self, now: u64) -> bool {
        self.retry_at.is_some_and(|at| at <= now)
            || self.sent_at.is_some_and(|at| at + ANSWER_MS_MAX <= now)
    }

    fn is_late(&self, now: u64) -> bool {
        let grace = self.sent_at.map_or(0, |_| GRACE_MS);
        self.expires_at.is_some_and(|at| at + grace <= now)
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
    /// One that was given `age_ms` ago. False if it is full.
    pub(super) fn put(
        &mut self,
        id: CommandId,
        command: Value,
        deadline_ms: Option<u64>,
        age_ms: u64,
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
            expires_at: deadline_ms.map(|ms| now + ms.saturating_sub(age_ms)),
            sent_at: None,
            retry_at: None,
            retries: 0,
            refusal: None,
            failed: false,
        });
        true
    }

    /// One command's frame, if it is to be sent.
    pub(super) fn frame(&mut self, id: CommandId, now: u64) -> Option<ClientFrame> {
        self.0.iter_mut().find(|pending| pending.id == id)?.frame(now)
    }

    /// Every waiting command's frame, in the order given: after a reconnect.
    pub(super) fn frames(&mut self, now: u64) -> Vec<ClientFrame> {
        self.0.iter_mut().filter_map(|one| one.frame(now)).collect()
    }

    /// Frames whose time to be sent again has come.
    pub(super) fn due(&mut self, now: u64) -> Vec<ClientFrame> {
        self.0.iter_mut().filter(|one| one.is_due(now)).filter_map(|one| one.frame(now)).collect()
    }

    /// Commands whose deadline has passed without an answer, each with the
    /// last refusal. They stay for a retry.
    pub(super) fn lapsed(&mut self, now: u64) -> Vec<(CommandId, Option<ReplyError>)> {
        self.0
            .iter_mut()
            .filter(|one| !one.failed && one.is_late(now))
            .map(|one| {
                one.failed = true;
                (one.id, one.refusal.take())
            })
            .collect()
    }

    /// What is refused for now is tried again by itself, as long as its
    /// deadline lets it: for ever, if it has none.
    pub(super) fn reply(&mut self, id: CommandId, error: Option<ReplyError>, now: u64) -> Settled {
        let Some(at) = self.0.iter().position(|one| one.id == id) else { return Settled::Nothing };
        let one = &mut self.0[at];
        let elapsed_ms = one.sent_at.take().map(|sent_at| now.saturating_sub(sent_at));
        if error.as_ref().is_some_and(|error| error.temporary) {
            let wait = (RETRY_MS_MIN << one.retries.min(16)).min(RETRY_MS_MAX);
            one.retry_at = Some(now + wait);
            one.retries += 1;
            one.refusal = error;
            return Settled::Nothing;
        }
        self.0.remove(at);
        Settled::Answered { error, elapsed_ms }
    }

    /// Again, under the same id. False if it is not known any more.
    pub(super) fn retry(&mut self, id: CommandId, now: u64) -> bool {
        let Some(one) = self.0.iter_mut().find(|one| one.id == id) else { return false };
        one.failed = false;
        one.retries = 0;
        one.expires_at = one.deadline_ms.map(|ms| now + ms);
        true
    }

    pub(super) fn remove(&mut self, id: CommandId) {
        self.0.retain(|one| one.id != id);
    }
}
