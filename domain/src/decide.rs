//! Whether a command is done, and which events that makes.

use std::time::Duration;

use crate::{
    Actor, AgentCommand, Command, Contact, Distribution, Event, ExternalEvent, Interaction, Kind,
    Login, Refusal, RefusalCode, Role, Routed, Stage, Timestamp, call, chat, ticket,
};

/// What a decision needs besides the state: all of it given, none of it fetched.
#[derive(Clone, Debug)]
pub struct Context {
    /// The time of the decision.
    pub now: Timestamp,
    /// How long an offer stands.
    pub offer_ttl: Duration,
    /// How long the paperwork after a call or chat may take.
    pub wrap_up: Duration,
    /// The contact that the command names or brings along, as the store knows it.
    pub contact: Option<Contact>,
    /// What stands in for the sender's id where there is none: the command's own id.
    pub own_id: String,
}

impl Context {
    pub(crate) fn deadline(&self) -> Timestamp {
        self.now.plus(self.offer_ttl)
    }
}

/// The events that `command` makes of `state`, none if it changes nothing.
///
/// # Errors
/// A [`Refusal`] says why the command isn't done; it changes nothing.
pub fn decide(
    state: Option<&Interaction>,
    command: &Command,
    context: &Context,
) -> Result<Vec<Event>, Refusal> {
    match command {
        Command::External { routed, .. } => external(state, routed, context),
        Command::Agent { actor, command, expect_version } => {
            if let AgentCommand::OpenTicket { .. } = command {
                return ticket::open(state, actor, command, context);
            }
            let state = visible(state, actor)?;
            if let Some(expected) = expect_version.filter(|expected| *expected != state.version) {
                return Err(Refusal::conflict(format!(
                    "it is at version {}, not {expected}",
                    state.version
                )));
            }
            agent(state, actor, command, context)
        }
        Command::Due => state.map_or(Ok(Vec::new()), |state| due(state, context)),
    }
}

fn external(
    state: Option<&Interaction>,
    routed: &Routed,
    context: &Context,
) -> Result<Vec<Event>, Refusal> {
    let event = &routed.event;
    match event {
        ExternalEvent::Notice { text, level } => {
            Ok(vec![Event::Notice { text: text.clone(), level: *level }])
        }
        ExternalEvent::CallQueued { .. }
        | ExternalEvent::CallRinging { .. }
        | ExternalEvent::CallAnswered { .. }
        | ExternalEvent::CallHeld { .. }
        | ExternalEvent::CallResumed { .. }
        | ExternalEvent::CallTransferred { .. }
        | ExternalEvent::CallEnded { .. } => {
            of_kind(state, Kind::Call)?;
            call::hear(state, event, context)
        }
        ExternalEvent::ChatStarted { .. }
        | ExternalEvent::ChatMessage { .. }
        | ExternalEvent::ChatTyping { .. }
        | ExternalEvent::ChatEnded { .. } => {
            of_kind(state, Kind::Chat)?;
            chat::hear(state, routed, context)
        }
        ExternalEvent::TicketOpened { .. }
        | ExternalEvent::TicketCommented { .. }
        | ExternalEvent::TicketUpdated { .. } => {
            of_kind(state, Kind::Ticket)?;
            ticket::hear(state, event, context)
        }
    }
}

fn of_kind(state: Option<&Interaction>, kind: Kind) -> Result<(), Refusal> {
    match state {
        Some(state) if state.stage.kind() != kind => {
            Err(Refusal::invalid(format!("it is a {}, not a {kind}", state.stage.kind())))
        }
        _ => Ok(()),
    }
}

/// An interaction that an agent may not see does not exist for that agent.
fn visible<'a>(state: Option<&'a Interaction>, actor: &Actor) -> Result<&'a Interaction, Refusal> {
    state
        .filter(|state| state.distribution.includes(&actor.login))
        .ok_or_else(|| Refusal::not_found("there is no such interaction"))
}

fn agent(
    state: &Interaction,
    actor: &Actor,
    command: &AgentCommand,
    context: &Context,
) -> Result<Vec<Event>, Refusal> {
    let by = actor.login.clone();
    match command {
        AgentCommand::Take { .. } => take(state, by),
        AgentCommand::AcceptOffer { .. } => {
            offered(state, &by)?;
            Ok(vec![match state.stage.kind() {
                Kind::Call => Event::CallAnswered { call: state.external_id.clone(), agent: by },
                Kind::Chat | Kind::Ticket => Event::OfferAccepted { agent: by },
            }])
        }
        AgentCommand::RejectOffer { .. } => {
            offered(state, &by)?;
            Ok(vec![Event::OfferRejected { agent: by }])
        }
        AgentCommand::AddNote { text, .. } => Ok(vec![Event::Noted { text: text.clone(), by }]),
        AgentCommand::Tag { tag, .. } if state.tags.contains(tag) => Ok(Vec::new()),
        AgentCommand::Tag { tag, .. } => Ok(vec![Event::Tagged { tag: tag.clone(), by }]),
        AgentCommand::Untag { tag, .. } if !state.tags.contains(tag) => Ok(Vec::new()),
        AgentCommand::Untag { tag, .. } => Ok(vec![Event::Untagged { tag: tag.clone(), by }]),
        AgentCommand::LinkContact { .. } => match &context.contact {
            Some(contact) => Ok(vec![Event::ContactLinked { contact: contact.clone(), by }]),
            None => Err(Refusal::not_found("there is no such contact")),
        },
        AgentCommand::Assign { agent, .. } => assign(state, actor, agent.as_ref()),
        AgentCommand::AnswerCall { .. }
        | AgentCommand::HoldCall { .. }
        | AgentCommand::ResumeCall { .. }
        | AgentCommand::TransferCall { .. }
        | AgentCommand::EndCall { .. } => call::act(state, actor, command, context),
        AgentCommand::SendMessage { .. } | AgentCommand::EndChat { .. } => {
            chat::act(state, actor, command, context)
        }
        AgentCommand::CommentTicket { .. }
        | AgentCommand::SetStatus { .. }
        | AgentCommand::SetPriority { .. } => ticket::act(state, actor, command, context),
        AgentCommand::Snooze { .. } | AgentCommand::Reopen { .. } => match state.stage.kind() {
            Kind::Call => Err(Refusal::invalid("a call can't be put aside or reopened")),
            Kind::Chat => chat::act(state, actor, command, context),
            Kind::Ticket => ticket::act(state, actor, command, context),
        },
        AgentCommand::OpenTicket { .. } | AgentCommand::SetPresence { .. } => {
            Err(Refusal::invalid("it names no interaction"))
        }
    }
}

fn offered(state: &Interaction, by: &Login) -> Result<(), Refusal> {
    match state.pending_offer() {
        Some(offer) if &offer.agent == by => Ok(()),
        Some(_) => Err(Refusal::new(RefusalCode::Forbidden, "it is offered to somebody else")),
        None => Err(Refusal::conflict("the offer is gone")),
    }
}

fn take(state: &Interaction, by: Login) -> Result<Vec<Event>, Refusal> {
    over(state)?;
    match (state.stage, state.holder()) {
        (_, Some(holder)) if *holder == by && state.assignee.is_some() => Ok(Vec::new()),
        (_, Some(holder)) if *holder != by => Err(Refusal::conflict(format!("{holder} has it"))),
        (Stage::Call(_), _) => {
            Ok(vec![Event::CallAnswered { call: state.external_id.clone(), agent: by }])
        }
        (Stage::Chat(_) | Stage::Ticket(_), _) => {
            Ok(vec![Event::Assigned { agent: Some(by.clone()), by }])
        }
    }
}

fn assign(
    state: &Interaction,
    actor: &Actor,
    agent: Option<&Login>,
) -> Result<Vec<Event>, Refusal> {
    over(state)?;
    if state.assignee.as_ref() == agent {
        return Ok(Vec::new());
    }
    if state.stage.kind() == Kind::Call {
        return Err(Refusal::invalid("a call is handed on with transfer_call"));
    }
    let mine = state.holder().is_none_or(|holder| *holder == actor.login);
    if state.stage.kind() == Kind::Chat && !mine && actor.role == Role::Agent {
        return Err(Refusal::new(
            RefusalCode::Forbidden,
            "only a supervisor takes a chat from somebody else",
        ));
    }
    Ok(vec![Event::Assigned { agent: agent.cloned(), by: actor.login.clone() }])
}

/// # Errors
/// A conflict if nothing is left to do on it.
pub(crate) fn over(state: &Interaction) -> Result<(), Refusal> {
    let wraps = matches!(
        state.stage,
        Stage::Call(crate::CallState::WrapUp) | Stage::Chat(crate::ChatState::WrapUp)
    );
    if wraps || (state.stage.is_over() && state.stage.kind() != Kind::Ticket) {
        return Err(Refusal::conflict(format!(
            "the {} is {}",
            state.stage.kind(),
            state.stage.as_str()
        )));
    }
    Ok(())
}

fn due(state: &Interaction, context: &Context) -> Result<Vec<Event>, Refusal> {
    if state.due_at().is_none_or(|due| due > context.now) {
        return Ok(Vec::new());
    }
    if let Some(offer) = state.pending_offer() {
        return Ok(vec![Event::OfferTimedOut { agent: offer.agent.clone() }]);
    }
    match state.stage {
        Stage::Chat(crate::ChatState::OnHold) => {
            Ok(vec![Event::ChatResumed { chat: state.external_id.clone(), by: None }])
        }
        Stage::Ticket(_) => Ok(vec![ticket::status(state, crate::TicketStatus::Open, None)]),
        Stage::Call(_) | Stage::Chat(_) => Ok(vec![Event::WrappedUp { by: None }]),
    }
}

/// Who sees the interaction after `event`: whoever is given it comes to see it.
#[must_use]
pub(crate) fn widened(current: &Distribution, event: &Event) -> Option<Distribution> {
    let agent = match event {
        Event::Assigned { agent, .. }
        | Event::CallRinging { agent, .. }
        | Event::CallTransferred { agent, .. }
        | Event::ChatStarted { agent, .. } => agent.as_ref(),
        Event::CallAnswered { agent, .. } => Some(agent),
        Event::TicketUpdated { assignee, .. } => assignee.agent(),
        _ => None,
    }?;
    (!current.includes(agent)).then(|| current.with(agent))
}

impl Command {
    /// When it happened, if whoever sent it said so.
    #[must_use]
    pub fn occurred_at(&self) -> Option<Timestamp> {
        match self {
            Self::External { routed, .. } => routed.at,
            Self::Agent { .. } | Self::Due => None,
        }
    }

    /// Who sees the interaction after `event`, if that is said now: on the
    /// first event, and when somebody new is given it.
    #[must_use]
    pub fn distribution_after(
        &self,
        state: Option<&Interaction>,
        event: &Event,
    ) -> Option<Distribution> {
        let current = match (state, self) {
            (Some(state), _) => state.distribution.clone(),
            (None, Self::External { routed, .. }) => routed.distribution.clone(),
            (None, _) => Distribution::Broadcast,
        };
        let wider = widened(&current, event);
        if state.is_none() { Some(wider.unwrap_or(current)) } else { wider }
    }
}
