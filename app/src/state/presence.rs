//! Who writes, who looks, who is there: signals, which fade.

use std::time::Duration;

use domain::{Direction, Event, InteractionId, Timestamp};
use protocol::Signal;

use super::{Desk, Passing};

/// A typing signal holds this long, in milliseconds.
pub const TYPING_MS: u64 = 5_000;
/// A viewing signal holds this long, in milliseconds; it is repeated sooner.
pub const VIEWING_MS: u64 = 45_000;
const PASSING_MAX: usize = 500;

pub(super) fn signal(desk: &mut Desk, signal: Signal, now: Timestamp) {
    match signal {
        Signal::Typing { interaction_id, agent } => {
            if agent.is_none() || agent.as_ref() != desk.login() {
                let until = now.plus(Duration::from_millis(TYPING_MS));
                note(&mut desk.typing, Passing { interaction: interaction_id, agent, until });
            }
        }
        Signal::Viewing { interaction_id, agent, viewing } => {
            if agent.as_ref() == desk.login() {
                return;
            }
            if viewing {
                let until = now.plus(Duration::from_millis(VIEWING_MS));
                note(&mut desk.viewing, Passing { interaction: interaction_id, agent, until });
            } else {
                desk.viewing.retain(|one| one.interaction != interaction_id || one.agent != agent);
            }
        }
        Signal::Presence { agent, presence, reason, since } => {
            if let Some(known) = desk.agents.iter_mut().find(|known| known.login == agent) {
                known.presence = presence;
                known.reason = reason;
                known.since = since;
            }
        }
    }
}

fn note(all: &mut Vec<Passing>, one: Passing) {
    all.retain(|known| known.interaction != one.interaction || known.agent != one.agent);
    if all.len() < PASSING_MAX {
        all.push(one);
    }
}

pub(super) fn fade(desk: &mut Desk, now: Timestamp) {
    desk.typing.retain(|one| one.until > now);
    desk.viewing.retain(|one| one.until > now);
}

/// Whoever has spoken has stopped typing.
pub(super) fn spoke(desk: &mut Desk, id: InteractionId, event: &Event) {
    if let Event::ChatMessage { direction, by, .. } = event {
        let agent = if *direction == Direction::Inbound { None } else { by.clone() };
        desk.typing.retain(|one| one.interaction != id || one.agent != agent);
    }
}

#[cfg(test)]
mod tests {
    use domain::Kind;

    use super::super::{Input, reduce};
    use super::*;

    #[test]
    fn typing_fades_and_is_noted_once() {
        let mut desk = Desk::default();
        let interaction_id = InteractionId::derive("test", Kind::Chat, "a");
        let typing = Signal::Typing { interaction_id, agent: None };
        let at = Timestamp::from_millis;
        for now in [0, 1_000] {
            let _ = reduce(&mut desk, Input::Signal { signal: typing.clone(), now: at(now) });
        }
        assert_eq!(desk.typing.len(), 1);
        let _ = reduce(&mut desk, Input::Tick(at(5_999)));
        assert_eq!(desk.typing.len(), 1);
        let _ = reduce(&mut desk, Input::Tick(at(6_000)));
        assert!(desk.typing.is_empty());
    }
}
