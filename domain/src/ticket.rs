//! A ticket: what a form may report and what an agent may do.

use crate::decide::Context;
use crate::{
    Actor, AgentCommand, Assignee, Event, ExternalEvent, Interaction, Login, Priority, Refusal,
    Stage, TicketStatus,
};

pub(crate) fn hear(
    state: Option<&Interaction>,
    event: &ExternalEvent,
    context: &Context,
) -> Result<Vec<Event>, Refusal> {
    let event = match (event.clone(), state) {
        (
            ExternalEvent::TicketOpened { ticket, subject, body, priority, requester, queue, tags },
            None,
        ) => Event::TicketOpened {
            ticket: ticket.unwrap_or_else(|| context.own_id.clone()),
            subject,
            body,
            priority: priority.unwrap_or(Priority::Medium),
            requester: context.contact.clone().unwrap_or(requester),
            queue,
            tags,
            by: None,
        },
        (ExternalEvent::TicketOpened { .. }, Some(_)) => {
            return Err(Refusal::conflict("the ticket is known already"));
        }
        (ExternalEvent::TicketCommented { ticket, body, author }, Some(_)) => {
            Event::TicketCommented { ticket, body, author, by: None }
        }
        (
            ExternalEvent::TicketUpdated { ticket, status, priority, subject, tags, assignee },
            Some(_),
        ) => Event::TicketUpdated { ticket, status, priority, subject, tags, assignee, by: None },
        (_, None) => return Err(Refusal::not_found("no such ticket has been opened")),
        _ => return Err(Refusal::invalid("not a ticket's event")),
    };
    Ok(vec![event])
}

pub(crate) fn open(
    state: Option<&Interaction>,
    actor: &Actor,
    command: &AgentCommand,
    context: &Context,
) -> Result<Vec<Event>, Refusal> {
    match command {
        _ if state.is_some() => Ok(Vec::new()),
        AgentCommand::OpenTicket { contact_id: Some(_), .. } if context.contact.is_none() => {
            Err(Refusal::not_found("there is no such contact"))
        }
        AgentCommand::OpenTicket { subject, body, priority, queue, tags, .. } => {
            Ok(vec![Event::TicketOpened {
                ticket: context.own_id.clone(),
                subject: subject.clone(),
                body: body.clone(),
                priority: priority.unwrap_or(Priority::Medium),
                requester: context.contact.clone().unwrap_or_default(),
                queue: queue.clone(),
                tags: tags.clone(),
                by: Some(actor.login.clone()),
            }])
        }
        _ => Err(Refusal::invalid("it names no interaction")),
    }
}

/// A ticket's change of status.
pub(crate) fn status(state: &Interaction, status: TicketStatus, by: Option<Login>) -> Event {
    Event::TicketUpdated {
        ticket: state.external_id.clone(),
        status: Some(status),
        priority: None,
        subject: None,
        tags: None,
        assignee: Assignee::Unchanged,
        by,
    }
}

pub(crate) fn act(
    state: &Interaction,
    actor: &Actor,
    command: &AgentCommand,
    context: &Context,
) -> Result<Vec<Event>, Refusal> {
    let Stage::Ticket(now) = state.stage else {
        return Err(Refusal::invalid(format!("it is a {}, not a ticket", state.stage.kind())));
    };
    let ticket = state.external_id.clone();
    let by = actor.login.clone();
    match command {
        AgentCommand::CommentTicket { body, .. } => Ok(vec![Event::TicketCommented {
            ticket,
            body: body.clone(),
            author: None,
            by: Some(by),
        }]),
        AgentCommand::SetStatus { status, .. } if *status == now => Ok(Vec::new()),
        AgentCommand::SetStatus { status: TicketStatus::Snoozed, .. } => {
            Err(Refusal::invalid("use snooze: it says until when"))
        }
        AgentCommand::SetStatus { status, .. } => Ok(vec![self::status(state, *status, Some(by))]),
        AgentCommand::SetPriority { priority, .. } if Some(*priority) == state.priority => {
            Ok(Vec::new())
        }
        AgentCommand::SetPriority { priority, .. } => Ok(vec![Event::TicketUpdated {
            ticket,
            status: None,
            priority: Some(*priority),
            subject: None,
            tags: None,
            assignee: Assignee::Unchanged,
            by: Some(by),
        }]),
        AgentCommand::Snooze { until, .. } if *until <= context.now => {
            Err(Refusal::invalid("that time has passed"))
        }
        AgentCommand::Snooze { until, .. } => match now {
            TicketStatus::Resolved | TicketStatus::Closed => {
                Err(Refusal::conflict(format!("a ticket that is {now} can't be put aside")))
            }
            _ => Ok(vec![Event::TicketSnoozed { ticket, until: *until, by }]),
        },
        AgentCommand::Reopen { .. } => match now {
            TicketStatus::New | TicketStatus::Open => Ok(Vec::new()),
            _ => Ok(vec![self::status(state, TicketStatus::Open, Some(by))]),
        },
        _ => Err(Refusal::invalid("not a command for a ticket")),
    }
}
