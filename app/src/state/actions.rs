//! What can be done with an interaction as it stands. The server decides;
//! this only keeps what it would refuse off the screen.

use domain::{CallState, ChatState, Interaction, Login, Role, Stage, TicketStatus};

/// Something to press or choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named after the commands that they give")]
pub enum Action {
    Accept,
    Reject,
    Take,
    Answer,
    Hold,
    Resume,
    Transfer,
    EndCall,
    FinishCall,
    Reply,
    EndChat,
    FinishChat,
    Comment,
    AssignMe,
    Assign,
    Status,
    Priority,
    Snooze,
    Reopen,
}

/// What `me` can do with it, in the order on the screen.
#[must_use]
pub fn actions(row: &Interaction, me: &Login, role: Role) -> Vec<Action> {
    use Action::{
        Accept, Answer, Assign, AssignMe, Comment, EndCall, EndChat, FinishCall, FinishChat, Hold,
        Priority, Reject, Reopen, Reply, Resume, Snooze, Status, Take, Transfer,
    };
    let mut can = Vec::new();
    let offered = row.pending_offer().is_some_and(|offer| &offer.agent == me);
    let mine = row.assignee.as_ref() == Some(me);
    let free = row.holder().is_none();
    if offered && row.stage.kind() != domain::Kind::Call {
        can.extend([Accept, Reject]);
    }
    match row.stage {
        Stage::Call(state) => match state {
            CallState::Queued | CallState::Ringing | CallState::Connecting if offered => {
                can.extend([Answer, Reject]);
            }
            CallState::Queued | CallState::Ringing | CallState::Connecting if free => {
                can.push(Answer);
            }
            CallState::InProgress if mine => can.extend([Hold, Transfer, EndCall]),
            CallState::OnHold if mine => can.extend([Resume, Transfer, EndCall]),
            CallState::WrapUp if mine => can.push(FinishCall),
            _ => {}
        },
        Stage::Chat(state) => {
            let may_assign = mine || free || role != Role::Agent;
            match state {
                ChatState::Queued | ChatState::Offered if free => can.push(Take),
                ChatState::Active | ChatState::OnHold => {
                    can.push(Reply);
                    if !mine && role != Role::Agent {
                        can.push(AssignMe);
                    }
                    if mine {
                        can.push(Snooze);
                        if state == ChatState::OnHold {
                            can.push(Reopen);
                        }
                        can.push(EndChat);
                    }
                }
                ChatState::WrapUp if mine => can.extend([FinishChat, Reopen]),
                ChatState::Closed => can.push(Reopen),
                _ => {}
            }
            if may_assign
                && matches!(state, ChatState::Queued | ChatState::Active | ChatState::OnHold)
            {
                can.push(Assign);
            }
        }
        Stage::Ticket(state) => {
            can.push(Comment);
            if !mine {
                can.push(AssignMe);
            }
            can.extend([Assign, Status, Priority]);
            if !matches!(state, TicketStatus::Resolved | TicketStatus::Closed) {
                can.push(Snooze);
            }
            if !matches!(state, TicketStatus::New | TicketStatus::Open) {
                can.push(Reopen);
            }
        }
    }
    can
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::{
        Actor, AgentCommand, Assignee, Command, Contact, Context, Direction, EndReason, Event,
        EventId, InteractionId, Kind, Recorded, Timestamp, apply, decide,
    };
    use uuid::Uuid;

    use super::*;

    fn command(action: Action, id: InteractionId, later: Timestamp) -> AgentCommand {
        let interaction_id = id;
        let ben: Login = "ben".parse().expect("a login");
        match action {
            Action::Accept => AgentCommand::AcceptOffer { interaction_id },
            Action::Reject => AgentCommand::RejectOffer { interaction_id },
            Action::Take => AgentCommand::Take { interaction_id },
            Action::Answer => AgentCommand::AnswerCall { interaction_id },
            Action::Hold => AgentCommand::HoldCall { interaction_id },
            Action::Resume => AgentCommand::ResumeCall { interaction_id },
            Action::Transfer => {
                AgentCommand::TransferCall { interaction_id, queue: None, agent: Some(ben) }
            }
            Action::EndCall | Action::FinishCall => AgentCommand::EndCall { interaction_id },
            Action::Reply => AgentCommand::SendMessage { interaction_id, text: "hi".into() },
            Action::EndChat | Action::FinishChat => AgentCommand::EndChat { interaction_id },
            Action::Comment => AgentCommand::CommentTicket { interaction_id, body: "hi".into() },
            Action::AssignMe | Action::Assign => AgentCommand::Assign {
                interaction_id,
                agent: Some("ana".parse().expect("a login")),
            },
            Action::Status => {
                AgentCommand::SetStatus { interaction_id, status: TicketStatus::Pending }
            }
            Action::Priority => {
                AgentCommand::SetPriority { interaction_id, priority: domain::Priority::Low }
            }
            Action::Snooze => AgentCommand::Snooze { interaction_id, until: later },
            Action::Reopen => AgentCommand::Reopen { interaction_id },
        }
    }

    /// Every state of every kind that a few events lead to.
    fn histories() -> Vec<Vec<Event>> {
        let ana: Login = "ana".parse().expect("a login");
        let ben: Login = "ben".parse().expect("a login");
        let later = Some(Timestamp::from_millis(60_000));
        let call = || "1".to_owned();
        let queued = Event::CallQueued {
            call: call(),
            from: "+15550100".into(),
            to: "+15550199".into(),
            queue: None,
            contact: None,
        };
        let ringing = |agent: &Login| Event::CallRinging {
            call: call(),
            agent: Some(agent.clone()),
            deadline: later,
        };
        let answered = |agent: &Login| Event::CallAnswered { call: call(), agent: agent.clone() };
        let held = Event::CallHeld { call: call(), by: Some(ana.clone()) };
        let ended = Event::CallEnded {
            call: call(),
            reason: EndReason::Completed,
            hung_up_by: None,
            recording_url: None,
            wrap_up_until: later,
            by: None,
        };
        let wrapped = Event::WrappedUp { by: None };
        let started = |agent: Option<&Login>| Event::ChatStarted {
            chat: call(),
            contact: Contact::default(),
            queue: None,
            text: None,
            agent: agent.cloned(),
            deadline: later.filter(|_| agent.is_some()),
        };
        let sent = |by: &Login| Event::ChatMessage {
            chat: call(),
            text: "hi".into(),
            message: None,
            direction: Direction::Outbound,
            by: Some(by.clone()),
        };
        let chat_held = Event::ChatHeld {
            chat: call(),
            until: Timestamp::from_millis(60_000),
            by: ana.clone(),
        };
        let chat_ended =
            Event::ChatEnded { chat: call(), reason: None, wrap_up_until: later, by: None };
        let opened = Event::TicketOpened {
            ticket: call(),
            subject: "s".into(),
            body: "b".into(),
            priority: domain::Priority::Medium,
            requester: Contact::default(),
            queue: None,
            tags: Vec::new(),
            by: None,
        };
        let status = |status| Event::TicketUpdated {
            ticket: call(),
            status: Some(status),
            priority: None,
            subject: None,
            tags: None,
            assignee: Assignee::Unchanged,
            by: None,
        };
        let mut all = vec![
            vec![queued.clone()],
            vec![queued.clone(), ringing(&ana)],
            vec![queued.clone(), ringing(&ben)],
            vec![queued.clone(), answered(&ana)],
            vec![queued.clone(), answered(&ben)],
            vec![queued.clone(), answered(&ana), held],
            vec![queued.clone(), answered(&ana), ended.clone()],
            vec![queued, answered(&ana), ended, wrapped.clone()],
            vec![started(None)],
            vec![started(Some(&ana))],
            vec![started(Some(&ben))],
            vec![started(None), sent(&ana)],
            vec![started(None), sent(&ben)],
            vec![started(None), sent(&ana), chat_held],
            vec![started(None), sent(&ana), chat_ended.clone()],
            vec![started(None), sent(&ana), chat_ended, wrapped],
            vec![opened.clone()],
        ];
        all.extend(TicketStatus::ALL.iter().map(|to| vec![opened.clone(), status(*to)]));
        all
    }

    #[test]
    fn nothing_is_offered_that_would_be_refused() {
        let me: Login = "ana".parse().expect("a login");
        let id = InteractionId(Uuid::nil());
        let context = Context {
            now: Timestamp::from_millis(10_000),
            offer_ttl: Duration::from_secs(20),
            wrap_up: Duration::from_secs(20),
            contact: None,
            own_id: String::new(),
        };
        for history in histories() {
            let state = history.iter().zip(1_u64..).fold(None, |state, (event, version)| {
                apply(
                    state,
                    &Recorded {
                        occurred_at: None,
                        id: EventId(Uuid::nil()),
                        cause: Uuid::nil(),
                        at: Timestamp::from_millis(0),
                        interaction_id: Some(id),
                        version: Some(version),
                        trace: None,
                        integration: None,
                        distribution: None,
                        event: event.clone(),
                    },
                )
            });
            let state = state.expect("an interaction");
            for role in [Role::Agent, Role::Supervisor] {
                for action in actions(&state, &me, role) {
                    let command = Command::Agent {
                        actor: Actor { login: me.clone(), role },
                        command: command(action, id, Timestamp::from_millis(60_000)),
                        expect_version: None,
                    };
                    let decided = decide(Some(&state), &command, &context);
                    assert!(decided.is_ok(), "{action:?} of {:?}: {decided:?}", state.stage);
                }
            }
        }
    }

    #[test]
    fn a_call_that_waits_can_be_answered_and_one_of_a_colleague_is_left_alone() {
        let me: Login = "ana".parse().expect("a login");
        let histories = histories();
        let after = |history: &[Event]| {
            history.iter().fold(None, |state, event| {
                apply(
                    state,
                    &Recorded {
                        occurred_at: None,
                        id: EventId(Uuid::nil()),
                        cause: Uuid::nil(),
                        at: Timestamp::from_millis(0),
                        interaction_id: Some(InteractionId::derive("t", Kind::Call, "1")),
                        version: None,
                        trace: None,
                        integration: None,
                        distribution: None,
                        event: event.clone(),
                    },
                )
            })
        };
        let can = |at: usize| actions(&after(&histories[at]).expect("a call"), &me, Role::Agent);
        assert_eq!(can(0), [Action::Answer]);
        assert_eq!(can(1), [Action::Answer, Action::Reject]);
        assert_eq!(can(4), []);
    }
}
