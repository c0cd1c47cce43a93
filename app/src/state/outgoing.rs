//! Commands on their way: shown at once, settled by their answer.

use domain::{AgentCommand, CommandId, Timestamp};
use protocol::ReplyError;
use uuid::Uuid;

use super::{Desk, OUTGOING_MAX, Thread};

/// How far a command has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Given, and not answered.
    Pending,
    /// Done; its event is still to come.
    Done,
    /// Not done.
    Failed(ReplyError),
}

/// A command on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Stays the same however often it is sent.
    pub id: CommandId,
    /// What is asked for.
    pub command: AgentCommand,
    /// When it was given.
    pub at: Timestamp,
    /// How far it has got.
    pub progress: Progress,
}

/// The words that a command says, if it says any in a timeline.
#[must_use]
pub fn text_of(command: &AgentCommand) -> Option<&str> {
    match command {
        AgentCommand::SendMessage { text, .. } | AgentCommand::AddNote { text, .. } => Some(text),
        AgentCommand::CommentTicket { body, .. } => Some(body),
        _ => None,
    }
}

/// Failures that a new command about the same interaction makes stale; words
/// stay until somebody says so.
#[must_use]
pub fn superseded(desk: &Desk, by: &Outgoing) -> Vec<CommandId> {
    let about = by.command.interaction_id();
    desk.outgoing
        .iter()
        .filter(|one| matches!(one.progress, Progress::Failed(_)))
        .filter(|one| text_of(&one.command).is_none() && one.command.interaction_id() == about)
        .map(|one| one.id)
        .collect()
}

pub(super) fn give(desk: &mut Desk, command: Outgoing) {
    let stale = superseded(desk, &command);
    desk.outgoing.retain(|one| one.id != command.id && !stale.contains(&one.id));
    desk.outgoing.push(command);
    if desk.outgoing.len() > OUTGOING_MAX {
        desk.outgoing.remove(0);
    }
}

pub(super) fn resend(desk: &mut Desk, id: CommandId) {
    if let Some(one) = desk.outgoing.iter_mut().find(|one| one.id == id) {
        one.progress = Progress::Pending;
    }
}

pub(super) fn answer(desk: &mut Desk, id: CommandId, error: Option<ReplyError>) {
    let Some(at) = desk.outgoing.iter().position(|one| one.id == id) else { return };
    let one = &mut desk.outgoing[at];
    match error {
        Some(error) => one.progress = Progress::Failed(error),
        // Words stay until their event takes their place.
        None if text_of(&one.command).is_some() => {
            let interaction = one.command.interaction_id();
            one.progress = Progress::Done;
            let open = desk.threads.iter().find(|thread| Some(thread.id) == interaction);
            if open.is_none_or(|thread| thread.entries.iter().any(|entry| entry.cause == id.0)) {
                desk.outgoing.remove(at);
            }
        }
        None => {
            desk.outgoing.remove(at);
        }
    }
}

/// An event says which command brought it about: that one was done.
pub(super) fn caused(desk: &mut Desk, cause: Uuid) {
    desk.outgoing.retain(|one| one.id.0 != cause);
}

/// A snapshot holds what commands have brought about.
pub(super) fn seen(desk: &mut Desk, thread: &Thread) {
    desk.outgoing.retain(|one| {
        let done =
            one.progress == Progress::Done && one.command.interaction_id() == Some(thread.id);
        let held = thread.entries.iter().any(|entry| entry.cause == one.id.0);
        !done && !held
    });
}

#[cfg(test)]
mod tests {
    use domain::{InteractionId, Kind};

    use super::super::{Input, reduce};
    use super::*;

    fn note(id: u128) -> Outgoing {
        let interaction_id = InteractionId::derive("test", Kind::Chat, "a");
        Outgoing {
            id: CommandId(Uuid::from_u128(id)),
            command: AgentCommand::AddNote { interaction_id, text: "call back".into() },
            at: Timestamp::from_millis(0),
            progress: Progress::Pending,
        }
    }

    fn error() -> ReplyError {
        ReplyError {
            code: "conflict".into(),
            message: "ben has it".into(),
            temporary: false,
            pointer: None,
        }
    }

    #[test]
    fn a_refusal_stays_until_it_is_sent_again_or_dismissed() {
        let mut desk = Desk::default();
        let one = note(1);
        let id = one.id;
        let _ = reduce(&mut desk, Input::Given(one));
        let _ = reduce(&mut desk, Input::Answered { id, error: Some(error()) });
        assert_eq!(desk.outgoing[0].progress, Progress::Failed(error()));
        let _ = reduce(&mut desk, Input::Resent(id));
        assert_eq!(desk.outgoing[0].progress, Progress::Pending);
        assert_eq!(desk.outgoing[0].id, id, "a retry is the same command");
        let _ = reduce(&mut desk, Input::Dismiss(id));
        assert!(desk.outgoing.is_empty());
    }

    #[test]
    fn a_new_command_lets_go_of_a_failed_one_but_never_of_words() {
        let mut desk = Desk::default();
        let words = note(1);
        let interaction_id = words.command.interaction_id().expect("its own");
        let take = |id| Outgoing { command: AgentCommand::Take { interaction_id }, ..note(id) };
        for one in [words, take(2)] {
            let id = one.id;
            let _ = reduce(&mut desk, Input::Given(one));
            let _ = reduce(&mut desk, Input::Answered { id, error: Some(error()) });
        }
        assert_eq!(superseded(&desk, &take(3)), [CommandId(Uuid::from_u128(2))]);
        let _ = reduce(&mut desk, Input::Given(take(3)));
        let left: Vec<_> = desk.outgoing.iter().map(|one| one.id.0.as_u128()).collect();
        assert_eq!(left, [1, 3]);
    }

    #[test]
    fn a_command_is_settled_by_its_event_before_its_answer() {
        let mut desk = Desk::default();
        let one = note(1);
        let id = one.id;
        let _ = reduce(&mut desk, Input::Given(one));
        caused(&mut desk, id.0);
        let _ = reduce(&mut desk, Input::Answered { id, error: None });
        assert!(desk.outgoing.is_empty());
    }

    #[test]
    fn the_list_of_commands_is_bounded() {
        let mut desk = Desk::default();
        for n in 0..OUTGOING_MAX as u128 + 10 {
            let _ = reduce(&mut desk, Input::Given(note(n)));
        }
        assert_eq!(desk.outgoing.len(), OUTGOING_MAX);
    }
}
