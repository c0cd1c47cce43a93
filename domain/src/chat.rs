//! A chat: what a site may report and what an agent may do.

use crate::decide::Context;
use crate::{
    Actor, AgentCommand, ChatState, Direction, Distribution, Event, ExternalEvent, Interaction,
    Refusal, Routed, Stage,
};

/// A customer's words are never refused: they begin a chat that isn't known
/// and bring back one that was over.
pub(crate) fn hear(
    state: Option<&Interaction>,
    routed: &Routed,
    context: &Context,
) -> Result<Vec<Event>, Refusal> {
    let now = state.and_then(|state| match state.stage {
        Stage::Chat(chat) => Some(chat),
        Stage::Call(_) | Stage::Ticket(_) => None,
    });
    let event = match routed.event.clone() {
        ExternalEvent::ChatStarted { chat, contact, queue, text } => match (now, text) {
            (None, text) => {
                let agent = match &routed.distribution {
                    Distribution::Direct(login) => Some(login.clone()),
                    Distribution::Broadcast | Distribution::Multicast(_) => None,
                };
                let deadline = agent.is_some().then(|| context.deadline());
                let contact = context.contact.clone().unwrap_or(contact);
                Event::ChatStarted { chat, contact, queue, text, agent, deadline }
            }
            (Some(_), Some(text)) => inbound(chat, text, None),
            (Some(ChatState::WrapUp | ChatState::Closed), None) => {
                Event::ChatResumed { chat, by: None }
            }
            (Some(_), None) => return Ok(Vec::new()),
        },
        ExternalEvent::ChatMessage { chat, text, message } => inbound(chat, text, message),
        ExternalEvent::ChatTyping { .. } => return Ok(Vec::new()),
        ExternalEvent::ChatEnded { chat, reason } => match now {
            None => return Err(Refusal::not_found("no such chat has been reported")),
            Some(ChatState::WrapUp | ChatState::Closed) => return Ok(Vec::new()),
            Some(_) => {
                let answered = state.is_some_and(|state| state.assignee.is_some());
                let wrap_up_until = answered.then(|| context.now.plus(context.wrap_up));
                Event::ChatEnded { chat, reason, wrap_up_until, by: None }
            }
        },
        _ => return Err(Refusal::invalid("not a chat's event")),
    };
    Ok(vec![event])
}

fn inbound(chat: String, text: String, message: Option<String>) -> Event {
    Event::ChatMessage { chat, text, message, direction: Direction::Inbound, by: None }
}

pub(crate) fn act(
    state: &Interaction,
    actor: &Actor,
    command: &AgentCommand,
    context: &Context,
) -> Result<Vec<Event>, Refusal> {
    let Stage::Chat(now) = state.stage else {
        return Err(Refusal::invalid(format!("it is a {}, not a chat", state.stage.kind())));
    };
    let chat = state.external_id.clone();
    let by = actor.login.clone();
    let over = matches!(now, ChatState::WrapUp | ChatState::Closed);
    match command {
        AgentCommand::SendMessage { .. } if over => {
            Err(Refusal::conflict(format!("the chat is {now}; reopen it first")))
        }
        AgentCommand::SendMessage { text, .. } => Ok(vec![Event::ChatMessage {
            chat,
            text: text.clone(),
            message: None,
            direction: Direction::Outbound,
            by: Some(by),
        }]),
        AgentCommand::EndChat { .. } => match now {
            ChatState::Closed => Ok(Vec::new()),
            ChatState::WrapUp => Ok(vec![Event::WrappedUp { by: Some(by) }]),
            _ => {
                let answered = state.assignee.is_some();
                let wrap_up_until = answered.then(|| context.now.plus(context.wrap_up));
                Ok(vec![Event::ChatEnded { chat, reason: None, wrap_up_until, by: Some(by) }])
            }
        },
        AgentCommand::Snooze { until, .. } => match now {
            _ if *until <= context.now => Err(Refusal::invalid("that time has passed")),
            ChatState::Active | ChatState::OnHold => {
                Ok(vec![Event::ChatHeld { chat, until: *until, by }])
            }
            other => Err(Refusal::conflict(format!("a chat that is {other} can't be put aside"))),
        },
        AgentCommand::Reopen { .. } => match now {
            ChatState::OnHold | ChatState::WrapUp | ChatState::Closed => {
                Ok(vec![Event::ChatResumed { chat, by: Some(by) }])
            }
            ChatState::Queued | ChatState::Offered | ChatState::Active => Ok(Vec::new()),
        },
        _ => Err(Refusal::invalid("not a command for a chat")),
    }
}
