//! Whatever is asked, in whatever order, the state stays valid, versions have
//! no holes, and the journal alone makes the same state again.

use std::time::Duration;

use domain::{
    Actor, AgentCommand, Assignee, CallState, ChatState, Command, Contact, Context, Distribution,
    EndReason, Event, EventId, ExternalEvent, FromJson, Interaction, InteractionId, Kind, Login,
    OfferState, Presence, Priority, Recorded, Role, Routed, Stage, TicketStatus, Timestamp, apply,
    decide,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use uuid::Uuid;

const AGENTS: [&str; 3] = ["ana", "ben", "cleo"];
const EXTERNAL_ID: &str = "x-1";

fn login(index: usize) -> Login {
    AGENTS[index % AGENTS.len()].parse().expect("a login")
}

fn id() -> InteractionId {
    InteractionId::derive("pbx", Kind::Call, EXTERNAL_ID)
}

fn logins() -> impl Strategy<Value = Login> {
    (0..AGENTS.len()).prop_map(login)
}

fn reasons() -> impl Strategy<Value = EndReason> {
    proptest::sample::select(EndReason::ALL)
}

fn calls() -> impl Strategy<Value = ExternalEvent> {
    let call = || EXTERNAL_ID.to_owned();
    prop_oneof![
        Just(ExternalEvent::CallQueued {
            call: call(),
            from: "+351210000101".into(),
            to: "+18005550100".into(),
            queue: Some("support".into()),
            contact: None,
        }),
        proptest::option::of(logins())
            .prop_map(move |agent| ExternalEvent::CallRinging { call: call(), agent }),
        logins().prop_map(move |agent| ExternalEvent::CallAnswered { call: call(), agent }),
        Just(ExternalEvent::CallHeld { call: call() }),
        Just(ExternalEvent::CallResumed { call: call() }),
        proptest::option::of(logins()).prop_map(move |agent| {
            let queue = agent.is_none().then(|| "sales".to_owned());
            ExternalEvent::CallTransferred { call: call(), queue, agent }
        }),
        reasons().prop_map(move |reason| ExternalEvent::CallEnded {
            call: call(),
            reason,
            hung_up_by: None,
            recording_url: None,
        }),
    ]
}

fn chats() -> impl Strategy<Value = ExternalEvent> {
    let chat = || EXTERNAL_ID.to_owned();
    prop_oneof![
        proptest::option::of("[a-z]{1,9}").prop_map(move |text| ExternalEvent::ChatStarted {
            chat: chat(),
            contact: Contact { name: Some("Ines".into()), ..Contact::default() },
            queue: None,
            text,
        }),
        "[a-z]{1,200}".prop_map(move |text| ExternalEvent::ChatMessage {
            chat: chat(),
            text,
            message: None,
        }),
        Just(ExternalEvent::ChatTyping { chat: chat() }),
        Just(ExternalEvent::ChatEnded { chat: chat(), reason: None }),
    ]
}

fn tickets() -> impl Strategy<Value = ExternalEvent> {
    let ticket = || EXTERNAL_ID.to_owned();
    prop_oneof![
        Just(ExternalEvent::TicketOpened {
            ticket: Some(ticket()),
            subject: "Broken".into(),
            body: "It is broken".into(),
            priority: None,
            requester: Contact::default(),
            queue: None,
            tags: vec!["web".into()],
        }),
        Just(ExternalEvent::TicketCommented {
            ticket: ticket(),
            body: "And?".into(),
            author: None
        }),
        (
            proptest::option::of(proptest::sample::select(TicketStatus::ALL)),
            proptest::option::of(proptest::sample::select(Priority::ALL)),
            proptest::option::of(proptest::option::of(logins())),
        )
            .prop_map(move |(status, priority, assignee)| ExternalEvent::TicketUpdated {
                ticket: ticket(),
                status,
                priority,
                subject: None,
                tags: None,
                assignee: assignee.map_or(Assignee::Unchanged, Assignee::from),
            }),
    ]
}

fn agent_commands() -> impl Strategy<Value = AgentCommand> {
    let interaction_id = id();
    let simple = proptest::sample::select(vec![
        AgentCommand::Take { interaction_id },
        AgentCommand::AcceptOffer { interaction_id },
        AgentCommand::RejectOffer { interaction_id },
        AgentCommand::AnswerCall { interaction_id },
        AgentCommand::HoldCall { interaction_id },
        AgentCommand::ResumeCall { interaction_id },
        AgentCommand::EndCall { interaction_id },
        AgentCommand::SendMessage { interaction_id, text: "hello".into() },
        AgentCommand::AddNote { interaction_id, text: "careful".into() },
        AgentCommand::EndChat { interaction_id },
        AgentCommand::CommentTicket { interaction_id, body: "done".into() },
        AgentCommand::Tag { interaction_id, tag: "vip".into() },
        AgentCommand::Untag { interaction_id, tag: "vip".into() },
        AgentCommand::Reopen { interaction_id },
        AgentCommand::SetPresence { presence: Presence::Busy, reason: None },
        AgentCommand::OpenTicket {
            subject: "New".into(),
            body: "Body".into(),
            priority: None,
            contact_id: None,
            queue: None,
            tags: Vec::new(),
        },
    ]);
    prop_oneof![
        6 => simple,
        1 => proptest::option::of(logins()).prop_map(move |agent| AgentCommand::TransferCall {
            interaction_id,
            queue: agent.is_none().then(|| "sales".to_owned()),
            agent,
        }),
        1 => proptest::option::of(logins())
            .prop_map(move |agent| AgentCommand::Assign { interaction_id, agent }),
        1 => proptest::sample::select(TicketStatus::ALL)
            .prop_map(move |status| AgentCommand::SetStatus { interaction_id, status }),
        1 => proptest::sample::select(Priority::ALL)
            .prop_map(move |priority| AgentCommand::SetPriority { interaction_id, priority }),
        1 => (-1_000i64..100_000).prop_map(move |ms| AgentCommand::Snooze {
            interaction_id,
            until: Timestamp::from_millis(ms),
        }),
    ]
}

/// What is asked, and how long after the last.
#[derive(Clone, Debug)]
struct Asked {
    command: Command,
    after_ms: u64,
}

fn commands(
    external: impl Strategy<Value = ExternalEvent> + 'static,
) -> impl Strategy<Value = Vec<Asked>> {
    let distribution = prop_oneof![
        4 => Just(Distribution::Broadcast),
        1 => logins().prop_map(Distribution::Direct),
        1 => Just(Distribution::Multicast(vec![login(0), login(1)])),
    ];
    let roles = proptest::sample::select(Role::ALL);
    let command = prop_oneof![
        4 => (external, distribution).prop_map(|(event, distribution)| Command::External {
            integration: "pbx".into(),
            routed: Routed { event, at: None, distribution },
        }),
        5 => (logins(), roles, agent_commands(), proptest::option::weighted(0.1, 0u64..9))
            .prop_map(|(login, role, command, expect_version)| Command::Agent {
                actor: Actor { login, role },
                command,
                expect_version,
            }),
        1 => Just(Command::Due),
    ];
    let one = (command, 0u64..25_000).prop_map(|(command, after_ms)| Asked { command, after_ms });
    proptest::collection::vec(one, 1..60)
}

fn context(now: Timestamp) -> Context {
    Context {
        now,
        offer_ttl: Duration::from_secs(20),
        wrap_up: Duration::from_secs(30),
        contact: None,
        own_id: EXTERNAL_ID.into(),
    }
}

/// Decides and applies as the backend does.
fn ask(
    state: Option<Interaction>,
    command: &Command,
    now: Timestamp,
    journal: &mut Vec<Recorded>,
) -> Option<Interaction> {
    let Ok(events) = decide(state.as_ref(), command, &context(now)) else { return state };
    let mut state = state;
    for event in events {
        let version = state.as_ref().map_or(0, |state| state.version) + 1;
        let recorded = Recorded {
            occurred_at: None,
            id: EventId(Uuid::from_u128(u128::from(version))),
            cause: Uuid::nil(),
            at: now,
            interaction_id: Some(id()),
            version: Some(version),
            trace: None,
            integration: (version == 1).then(|| "pbx".to_owned()),
            distribution: command.distribution_after(state.as_ref(), &event),
            event,
        };
        state = apply(state, &recorded);
        journal.push(recorded);
    }
    state
}

fn assert_valid(state: &Interaction) {
    if let Some(offer) = state.pending_offer() {
        assert!(
            matches!(
                state.stage,
                Stage::Call(CallState::Ringing | CallState::Connecting)
                    | Stage::Chat(ChatState::Offered)
            ),
            "an offer stands while {state:?}"
        );
        assert!(state.distribution.includes(&offer.agent), "the addressee can't see {state:?}");
        assert_eq!(state.due_at(), Some(offer.deadline));
    }
    if let Some(assignee) = &state.assignee {
        assert!(state.distribution.includes(assignee), "the assignee can't see {state:?}");
    }
    match state.stage {
        Stage::Call(CallState::Queued) => assert_eq!(state.assignee, None, "{state:?}"),
        Stage::Call(CallState::InProgress | CallState::OnHold)
        | Stage::Chat(ChatState::Active | ChatState::OnHold) => {
            assert!(state.assignee.is_some(), "nobody answers {state:?}");
            assert!(state.pending_offer().is_none(), "{state:?}");
        }
        Stage::Call(CallState::Connecting) | Stage::Chat(ChatState::Offered) => {
            assert!(state.pending_offer().is_some(), "offered to nobody: {state:?}");
        }
        Stage::Call(CallState::WrapUp) | Stage::Chat(ChatState::WrapUp) => {
            assert!(state.until.is_some(), "wrap-up without an end: {state:?}");
            assert!(state.assignee.is_some(), "nobody wraps up {state:?}");
        }
        Stage::Call(CallState::Ended) | Stage::Chat(ChatState::Closed) => {
            assert_eq!(state.due_at(), None, "over, and due: {state:?}");
            assert!(state.ended_at.is_some(), "{state:?}");
        }
        Stage::Call(CallState::Ringing) | Stage::Chat(ChatState::Queued) | Stage::Ticket(_) => {}
    }
    if state.due_at().is_some() {
        assert!(!state.stage.is_over(), "over, and due: {state:?}");
    }
    assert!(state.preview.chars().count() <= 140);
}

fn assert_rules_hold(asked: &[Asked]) {
    let mut state = None;
    let mut journal = Vec::new();
    let mut now = Timestamp::from_millis(0);
    for Asked { command, after_ms } in asked {
        now = now.plus(Duration::from_millis(*after_ms));
        state = ask(state, command, now, &mut journal);
        if let Some(state) = &state {
            assert_valid(state);
        }
    }
    let versions: Vec<_> = journal.iter().filter_map(|recorded| recorded.version).collect();
    assert_eq!(versions, (1..=journal.len() as u64).collect::<Vec<_>>());
    let again = journal.iter().fold(None, |state, recorded| {
        let json = serde_json::to_string(recorded).expect("an event is json");
        let read: Recorded = serde_json::from_str(&json).expect("an event is read back");
        assert_eq!(&read, recorded);
        apply(state, &read)
    });
    assert_eq!(again, state, "the journal makes another state");
    // Time runs out on every deadline there is: nothing stays due.
    for _ in 0..3 {
        let Some(due) = state.as_ref().and_then(Interaction::due_at) else { break };
        let before = state.clone();
        state = ask(state, &Command::Due, due, &mut journal);
        assert_ne!(before, state, "a deadline that changes nothing");
        assert_valid(state.as_ref().expect("still there"));
    }
    assert_eq!(state.as_ref().and_then(Interaction::due_at), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/rules.proptest-regressions"))), ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_leaves_a_valid_call(asked in commands(calls())) {
        assert_rules_hold(&asked);
    }

    #[test]
    fn any_sequence_leaves_a_valid_chat(asked in commands(chats())) {
        assert_rules_hold(&asked);
    }

    #[test]
    fn any_sequence_leaves_a_valid_ticket(asked in commands(tickets())) {
        assert_rules_hold(&asked);
    }
}

fn external(event: ExternalEvent) -> Command {
    Command::External {
        integration: "pbx".into(),
        routed: Routed { event, at: None, distribution: Distribution::Broadcast },
    }
}

fn agent(index: usize, command: AgentCommand) -> Command {
    let actor = Actor { login: login(index), role: Role::Agent };
    Command::Agent { actor, command, expect_version: None }
}

fn ringing(agent: Option<Login>) -> Command {
    external(ExternalEvent::CallRinging { call: EXTERNAL_ID.into(), agent })
}

#[test]
fn the_first_agent_to_answer_has_the_call_and_the_second_hears_who() {
    let now = Timestamp::from_millis(0);
    let mut journal = Vec::new();
    let answer = AgentCommand::AnswerCall { interaction_id: id() };
    let state = ask(None, &ringing(None), now, &mut journal);
    let state = ask(state, &agent(0, answer.clone()), now, &mut journal);
    let call = state.as_ref().expect("a call");
    assert_eq!(call.stage, Stage::Call(CallState::InProgress));
    assert_eq!(call.assignee, Some(login(0)));
    let refusal = decide(state.as_ref(), &agent(1, answer), &context(now)).expect_err("taken");
    assert!(refusal.message.contains("ana"), "{refusal}");
}

#[test]
fn a_ticket_that_nobody_is_to_have_keeps_its_status_and_its_time() {
    let (now, later) = (Timestamp::from_millis(0), Timestamp::from_millis(60_000));
    let mut journal = Vec::new();
    let update = |assignee: Assignee| {
        external(ExternalEvent::TicketUpdated {
            ticket: EXTERNAL_ID.into(),
            status: None,
            priority: None,
            subject: None,
            tags: None,
            assignee,
        })
    };
    let opened = external(ExternalEvent::TicketOpened {
        ticket: Some(EXTERNAL_ID.into()),
        subject: "s".into(),
        body: "b".into(),
        priority: None,
        requester: Contact::default(),
        queue: None,
        tags: Vec::new(),
    });
    let state = ask(None, &opened, now, &mut journal);
    let state = ask(state, &update(Assignee::Agent(login(0))), now, &mut journal);
    let snooze = AgentCommand::Snooze { interaction_id: id(), until: later };
    let state = ask(state, &agent(0, snooze), now, &mut journal);
    let state = ask(state, &update(Assignee::Nobody), now, &mut journal).expect("a ticket");
    assert_eq!(state.assignee, None);
    assert_eq!(state.stage, Stage::Ticket(TicketStatus::Snoozed));
    assert_eq!(state.due_at(), Some(later), "it wakes up");
    let event = &journal.last().expect("an event").event;
    let wire = serde_json::to_value(event).expect("json");
    assert_eq!(wire.get("assignee"), Some(&serde_json::Value::Null));
    assert_eq!(serde_json::from_value::<Event>(wire.clone()).expect("an event"), *event);
    assert_eq!(Event::from_json(wire).as_ref(), Some(event));
    let priority = domain::Priority::High;
    let set = AgentCommand::SetPriority { interaction_id: id(), priority };
    ask(Some(state), &agent(0, set), now, &mut journal);
    let silent = &journal.last().expect("an event").event;
    let wire = serde_json::to_value(silent).expect("json");
    assert_eq!(wire.get("assignee"), None);
    assert_eq!(Event::from_json(wire).as_ref(), Some(silent));
}

#[test]
fn an_offer_that_lapses_puts_the_call_back_into_the_queue() {
    let mut journal = Vec::new();
    let state = ask(None, &ringing(Some(login(2))), Timestamp::from_millis(0), &mut journal);
    let early = ask(state.clone(), &Command::Due, Timestamp::from_millis(19_999), &mut journal);
    assert_eq!(early, state);
    let late = ask(state, &Command::Due, Timestamp::from_millis(20_000), &mut journal);
    let call = late.expect("a call");
    assert_eq!(call.stage, Stage::Call(CallState::Queued));
    assert_eq!(call.offer.expect("an offer").state, OfferState::TimedOut);
}

#[test]
fn an_offer_stands_for_its_addressee_alone() {
    let now = Timestamp::from_millis(0);
    let state = ask(None, &ringing(Some(login(2))), now, &mut Vec::new());
    let accept = AgentCommand::AcceptOffer { interaction_id: id() };
    let refusal = decide(state.as_ref(), &agent(0, accept.clone()), &context(now));
    assert!(refusal.is_err());
    let events = decide(state.as_ref(), &agent(2, accept), &context(now)).expect("accepted");
    assert!(matches!(events.as_slice(), [Event::CallAnswered { .. }]));
}

#[test]
fn a_stale_version_is_a_conflict_and_changes_nothing() {
    let now = Timestamp::from_millis(0);
    let state = ask(None, &ringing(None), now, &mut Vec::new());
    let command = Command::Agent {
        actor: Actor { login: login(0), role: Role::Agent },
        command: AgentCommand::Take { interaction_id: id() },
        expect_version: Some(7),
    };
    let refusal = decide(state.as_ref(), &command, &context(now)).expect_err("stale");
    assert_eq!(refusal.code, domain::RefusalCode::Conflict);
}

#[test]
fn what_is_direct_does_not_exist_for_others() {
    let now = Timestamp::from_millis(0);
    let command = Command::External {
        integration: "pbx".into(),
        routed: Routed {
            event: ExternalEvent::ChatMessage {
                chat: EXTERNAL_ID.into(),
                text: "psst".into(),
                message: None,
            },
            at: None,
            distribution: Distribution::Direct(login(0)),
        },
    };
    let state = ask(None, &command, now, &mut Vec::new());
    let take = AgentCommand::Take { interaction_id: id() };
    let refusal = decide(state.as_ref(), &agent(1, take.clone()), &context(now)).expect_err("no");
    assert_eq!(refusal.code, domain::RefusalCode::NotFound);
    assert!(decide(state.as_ref(), &agent(0, take), &context(now)).is_ok());
}

#[test]
fn a_message_after_the_end_brings_the_chat_back() {
    let now = Timestamp::from_millis(0);
    let mut journal = Vec::new();
    let message = external(ExternalEvent::ChatMessage {
        chat: EXTERNAL_ID.into(),
        text: "one more thing".into(),
        message: None,
    });
    let end = external(ExternalEvent::ChatEnded { chat: EXTERNAL_ID.into(), reason: None });
    let state = ask(None, &message, now, &mut journal);
    let state = ask(state, &end, now, &mut journal);
    assert!(state.as_ref().is_some_and(|state| state.stage.is_over()));
    let state = ask(state, &message, now, &mut journal);
    assert_eq!(state.expect("a chat").stage, Stage::Chat(ChatState::Queued));
}
