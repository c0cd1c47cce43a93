//! A call: what a PBX may report and what an agent may do.

use crate::decide::{Context, over};
use crate::{
    Actor, AgentCommand, CallState, EndReason, Event, ExternalEvent, Interaction, Login, Refusal,
    RefusalCode, Stage,
};

/// What a PBX reports is a fact: it is refused only where it contradicts what
/// is known, and says nothing new where it repeats what is known.
pub(crate) fn hear(
    state: Option<&Interaction>,
    event: &ExternalEvent,
    context: &Context,
) -> Result<Vec<Event>, Refusal> {
    let now = state.and_then(|state| match state.stage {
        Stage::Call(call) => Some(call),
        Stage::Chat(_) | Stage::Ticket(_) => None,
    });
    let event = match event.clone() {
        ExternalEvent::CallQueued { call, from, to, queue, contact } => match now {
            None => Event::CallQueued { call, from, to, queue, contact: known(contact, context) },
            Some(_) => return Err(Refusal::conflict("the call is known already")),
        },
        ExternalEvent::CallRinging { call, agent } => match now {
            None | Some(CallState::Queued | CallState::Ringing) => {
                let deadline = agent.is_some().then(|| context.deadline());
                Event::CallRinging { call, agent, deadline }
            }
            Some(other) => return Err(contradicts("ring", other)),
        },
        ExternalEvent::CallAnswered { call, agent } => match now {
            Some(CallState::InProgress | CallState::OnHold)
                if state.is_some_and(|state| state.assignee.as_ref() == Some(&agent)) =>
            {
                return Ok(Vec::new());
            }
            Some(CallState::WrapUp | CallState::Ended) => {
                return Err(contradicts("be answered", now.unwrap_or(CallState::Ended)));
            }
            _ => Event::CallAnswered { call, agent },
        },
        ExternalEvent::CallHeld { call } => match now {
            Some(CallState::InProgress) => Event::CallHeld { call, by: None },
            Some(CallState::OnHold) => return Ok(Vec::new()),
            Some(other) => return Err(contradicts("be held", other)),
            None => return Err(unknown()),
        },
        ExternalEvent::CallResumed { call } => match now {
            Some(CallState::OnHold) => Event::CallResumed { call, by: None },
            Some(CallState::InProgress) => return Ok(Vec::new()),
            Some(other) => return Err(contradicts("be resumed", other)),
            None => return Err(unknown()),
        },
        ExternalEvent::CallTransferred { call, queue, agent } => match now {
            Some(CallState::WrapUp | CallState::Ended) => {
                return Err(contradicts("be transferred", now.unwrap_or(CallState::Ended)));
            }
            Some(_) => {
                let deadline = agent.is_some().then(|| context.deadline());
                Event::CallTransferred { call, queue, agent, deadline, by: None }
            }
            None => return Err(unknown()),
        },
        ExternalEvent::CallEnded { call, reason, hung_up_by, recording_url } => match now {
            Some(CallState::WrapUp | CallState::Ended) => return Ok(Vec::new()),
            Some(_) | None => {
                let answered = state.is_some_and(|state| state.assignee.is_some());
                let wrap_up_until = answered.then(|| context.now.plus(context.wrap_up));
                Event::CallEnded {
                    call,
                    reason,
                    hung_up_by,
                    recording_url,
                    wrap_up_until,
                    by: None,
                }
            }
        },
        _ => return Err(Refusal::invalid("not a call's event")),
    };
    Ok(vec![event])
}

/// The contact as the store knows it, else as the sender gave it.
fn known(given: Option<crate::Contact>, context: &Context) -> Option<crate::Contact> {
    context.contact.clone().or(given)
}

fn unknown() -> Refusal {
    Refusal::not_found("no such call has been reported")
}

fn contradicts(verb: &str, state: CallState) -> Refusal {
    Refusal::conflict(format!("a call that is {state} can't {verb}"))
}

pub(crate) fn act(
    state: &Interaction,
    actor: &Actor,
    command: &AgentCommand,
    context: &Context,
) -> Result<Vec<Event>, Refusal> {
    let Stage::Call(now) = state.stage else {
        return Err(Refusal::invalid(format!("it is a {}, not a call", state.stage.kind())));
    };
    let call = state.external_id.clone();
    let by = actor.login.clone();
    match command {
        AgentCommand::AnswerCall { .. } => {
            over(state)?;
            match state.holder() {
                Some(holder) if *holder != by => Err(Refusal::conflict(format!("{holder} has it"))),
                Some(_) if state.assignee.is_some() => Ok(Vec::new()),
                _ => Ok(vec![Event::CallAnswered { call, agent: by }]),
            }
        }
        AgentCommand::HoldCall { .. } => match now {
            CallState::InProgress => {
                mine(state, &by)?;
                Ok(vec![Event::CallHeld { call, by: Some(by) }])
            }
            CallState::OnHold => Ok(Vec::new()),
            other => Err(contradicts("be held", other)),
        },
        AgentCommand::ResumeCall { .. } => match now {
            CallState::OnHold => {
                mine(state, &by)?;
                Ok(vec![Event::CallResumed { call, by: Some(by) }])
            }
            CallState::InProgress => Ok(Vec::new()),
            other => Err(contradicts("be resumed", other)),
        },
        AgentCommand::TransferCall { queue, agent, .. } => {
            over(state)?;
            if let Some(holder) = state.holder().filter(|holder| **holder != by) {
                return Err(Refusal::new(RefusalCode::Forbidden, format!("{holder} has it")));
            }
            let deadline = agent.is_some().then(|| context.deadline());
            Ok(vec![Event::CallTransferred {
                call,
                queue: queue.clone(),
                agent: agent.clone(),
                deadline,
                by: Some(by),
            }])
        }
        AgentCommand::EndCall { .. } => match now {
            CallState::Ended => Ok(Vec::new()),
            CallState::WrapUp => Ok(vec![Event::WrappedUp { by: Some(by) }]),
            _ => {
                if let Some(holder) = state.holder().filter(|holder| **holder != by) {
                    return Err(Refusal::new(RefusalCode::Forbidden, format!("{holder} has it")));
                }
                let answered = state.assignee.is_some();
                Ok(vec![Event::CallEnded {
                    call,
                    reason: if answered { EndReason::Completed } else { EndReason::Rejected },
                    hung_up_by: Some("agent".into()),
                    recording_url: None,
                    wrap_up_until: answered.then(|| context.now.plus(context.wrap_up)),
                    by: Some(by),
                }])
            }
        },
        _ => Err(Refusal::invalid("not a command for a call")),
    }
}

fn mine(state: &Interaction, by: &Login) -> Result<(), Refusal> {
    match &state.assignee {
        Some(assignee) if assignee != by => {
            Err(Refusal::new(RefusalCode::Forbidden, format!("{assignee} has it")))
        }
        _ => Ok(()),
    }
}
