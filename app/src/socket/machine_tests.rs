//! Sessions as scripts: what happens, and what the client does.

use domain::{Event, EventId, NoticeLevel, Role, SessionId};
use protocol::Principal;
use serde_json::json;
use uuid::Uuid;

use super::*;

pub(super) fn machine() -> Machine {
    let cursors = BTreeMap::from([(Channel::Chat, cursor("e", 10))]);
    Machine::new(1, Candidates::new(vec!["own".into(), "other".into()]), cursors)
}

fn cursor(epoch: &str, offset: u64) -> Cursor {
    Cursor { epoch: epoch.into(), offset }
}

pub(super) fn welcome(recovered: bool, offset: u64, replayed: u64) -> ServerFrame {
    let report = CursorReport { epoch: "e".into(), offset, recovered, replayed };
    ServerFrame::Welcome {
        session: SessionId(Uuid::nil()),
        aggregator: "a".into(),
        principal: Principal {
            id: Uuid::nil(),
            login: "ana".parse().expect("a login"),
            name: "Ana".into(),
            role: Role::Agent,
        },
        heartbeat_ms: 1_000,
        streams: BTreeMap::from([(Channel::Chat, report)]),
        peers: vec!["peer".into()],
    }
}

pub(super) fn event(offset: u64) -> ServerFrame {
    ServerFrame::Event {
        channel: Channel::Chat,
        offset,
        event: Box::new(Recorded {
            occurred_at: None,
            id: EventId(Uuid::from_u128(offset.into())),
            cause: Uuid::nil(),
            at: Timestamp::from_millis(0),
            interaction_id: None,
            version: None,
            trace: None,
            integration: None,
            distribution: None,
            event: Event::Notice { text: String::new(), level: NoticeLevel::Info },
        }),
    }
}

pub(super) fn ping(sent: u64) -> ServerFrame {
    ServerFrame::Ping {
        at: Timestamp::from_millis(0),
        sent: BTreeMap::from([(Channel::Chat, sent)]),
        blocked: false,
    }
}

pub(super) fn says(
    machine: &mut Machine,
    link: LinkId,
    frame: ServerFrame,
    now: u64,
) -> Vec<Output> {
    machine.step(Input::Frame(link, Box::new(frame)), now)
}

pub(super) fn live() -> Machine {
    let mut machine = machine();
    let _ = machine.step(Input::Start, 0);
    let _ = machine.step(Input::Opened(1), 10);
    let _ = says(&mut machine, 1, welcome(true, 10, 0), 34);
    machine
}

pub(super) fn events(out: &[Output]) -> Vec<u128> {
    out.iter()
        .filter_map(|one| match one {
            Output::Event(event) => Some(event.id.0.as_u128()),
            _ => None,
        })
        .collect()
}

pub(super) fn frames(out: &[Output]) -> Vec<&ClientFrame> {
    out.iter()
        .filter_map(|one| match one {
            Output::Send(_, frame) => Some(&**frame),
            _ => None,
        })
        .collect()
}

pub(super) fn id(n: u128) -> CommandId {
    CommandId(Uuid::from_u128(n))
}

pub(super) fn command(n: u128, deadline_ms: Option<u64>) -> Input {
    Input::Command { id: id(n), command: json!({"type":"take"}), deadline_ms, age_ms: 0 }
}

pub(super) fn reply(n: u128, error: Option<ReplyError>) -> ServerFrame {
    ServerFrame::Reply { id: id(n), ok: error.is_none().then(|| json!({})), error }
}

#[test]
fn it_says_hello_with_its_cursors_and_is_live_after_the_welcome() {
    let mut machine = machine();
    let out = machine.step(Input::Start, 0);
    assert_eq!(out, [Output::Open(1, "own".into()), Output::Status(Status::Connecting)]);
    let out = machine.step(Input::Opened(1), 10);
    assert!(matches!(
        frames(&out)[..],
        [ClientFrame::Hello { resume, .. }] if resume[&Channel::Chat] == cursor("e", 10)
    ));
    let out = says(&mut machine, 1, welcome(true, 10, 0), 34);
    assert_eq!(out, [Output::Status(Status::Live(Some(24)))]);
}

#[test]
fn events_are_given_out_once_and_counted_down_while_catching_up() {
    let mut machine = machine();
    let _ = machine.step(Input::Start, 0);
    let _ = machine.step(Input::Opened(1), 0);
    let out = says(&mut machine, 1, welcome(true, 12, 2), 0);
    assert!(out.contains(&Output::Status(Status::CatchingUp(2))));
    let out = says(&mut machine, 1, event(11), 1);
    assert_eq!(events(&out), [11]);
    assert!(out.contains(&Output::Status(Status::CatchingUp(1))));
    let out = says(&mut machine, 1, event(11), 1);
    assert_eq!(events(&out), [0_u128; 0], "a repeat");
    assert_eq!(events(&says(&mut machine, 1, event(15), 2)), [15], "offsets may skip");
    assert_eq!(machine.positions()[&Channel::Chat], 15);
}

#[test]
fn a_closed_line_comes_back_at_the_next_live_peer_and_resumes() {
    let mut machine = live();
    let _ = says(&mut machine, 1, event(11), 40);
    let out = machine.step(Input::Closed(1, 1006), 50);
    assert_eq!(out, [Output::Status(Status::Reconnecting)]);
    assert_eq!(machine.step(Input::Tick, 51), []);
    let out = machine.step(Input::Tick, 50 + 400);
    assert_eq!(out, [Output::Open(2, "peer".into())]);
    let out = machine.step(Input::Opened(2), 460);
    assert!(matches!(
        frames(&out)[..],
        [ClientFrame::Hello { resume, .. }] if resume[&Channel::Chat].offset == 11
    ));
}

#[test]
fn a_tab_that_becomes_visible_does_not_wait() {
    let mut machine = live();
    let _ = machine.step(Input::Closed(1, 4000), 50);
    let out = machine.step(Input::Wake, 51);
    assert!(matches!(out[..], [Output::Open(2, _)]));
}

#[test]
fn codes_tell_whether_to_come_back() {
    for code in CloseCode::ALL.iter().map(|code| code.code()) {
        let mut machine = live();
        let out = machine.step(Input::Closed(1, code), 50);
        let back =
            machine.step(Input::Tick, 50_000).iter().any(|one| matches!(one, Output::Open(..)));
        assert_eq!(back, code < 4500, "{code}");
        assert_eq!(out.contains(&Output::SignIn), code == 4501 || code == 4503, "{code}");
    }
}

#[test]
fn a_ping_is_answered_with_positions_and_a_missed_event_shows() {
    let mut machine = live();
    let _ = says(&mut machine, 1, event(11), 40);
    let out = says(&mut machine, 1, ping(1), 50);
    assert!(matches!(
        frames(&out)[..],
        [ClientFrame::Pong { positions, .. }] if positions[&Channel::Chat] == 11
    ));
    let out = says(&mut machine, 1, ping(2), 60);
    assert!(out.contains(&Output::Close(1)), "one event went missing");
    assert!(out.contains(&Output::Status(Status::Reconnecting)));
}

#[test]
fn a_pong_says_what_came_by_its_line_and_what_was_here_already() {
    let mut machine = live();
    for offset in [11, 12, 12] {
        let _ = says(&mut machine, 1, event(offset), 40);
    }
    machine.shown_twice(2);
    let account = |machine: &mut Machine, link, sent| {
        let out = says(machine, link, ping(sent), 50);
        match frames(&out)[..] {
            [ClientFrame::Pong { account: Some(account), .. }] => account.clone(),
            _ => panic!("no account: {out:?}"),
        }
    };
    let told = account(&mut machine, 1, 3);
    let mut wanted = Digest::default();
    [11, 12, 12_u64].iter().for_each(|offset| {
        wanted.add(mark(*offset, Uuid::from_u128((*offset).into())));
    });
    assert_eq!(told.received, BTreeMap::from([(Channel::Chat, wanted)]));
    assert_eq!((told.repeated, told.shown_twice), (1, 2));
    // The next line begins with nothing told.
    let _ = machine.step(Input::Closed(1, 1006), 60);
    let _ = machine.step(Input::Wake, 61);
    let _ = machine.step(Input::Opened(2), 70);
    let _ = says(&mut machine, 2, welcome(true, 12, 0), 80);
    let told = account(&mut machine, 2, 0);
    assert_eq!((told.received.len(), told.repeated, told.shown_twice), (0, 0, 0));
}

#[test]
fn after_continuity_was_lost_no_place_is_resumed_from() {
    let mut machine = live();
    let _ = machine.step(Input::Closed(1, 4004), 50);
    let _ = machine.step(Input::Wake, 60);
    let out = machine.step(Input::Opened(2), 70);
    assert!(matches!(frames(&out)[..], [ClientFrame::Hello { resume, .. }] if resume.is_empty()));
    let out = says(&mut machine, 2, welcome(false, 20, 0), 80);
    assert!(out.iter().any(|one| matches!(one, Output::Snapshot(_))), "{out:?}");
}

#[test]
fn silence_for_two_heartbeats_ends_the_line() {
    let mut machine = live();
    assert_eq!(machine.step(Input::Tick, 2_000), []);
    let out = machine.step(Input::Tick, 2_600);
    assert!(out.contains(&Output::Close(1)));
}

#[test]
fn a_move_opens_the_new_line_first_and_nobody_sees_it() {
    let mut machine = live();
    let out =
        says(&mut machine, 1, ServerFrame::Migrate { to: "new".into(), deadline_ms: 5_000 }, 100);
    assert_eq!(out, [Output::Open(2, "new".into())]);
    let _ = machine.step(Input::Opened(2), 110);
    assert_eq!(events(&says(&mut machine, 1, event(11), 111)), [11], "the old one still counts");
    let out = says(&mut machine, 2, welcome(true, 11, 1), 120);
    assert!(out.contains(&Output::Close(1)));
    assert!(!out.contains(&Output::Status(Status::Reconnecting)));
    let out = says(&mut machine, 2, event(11), 121);
    assert_eq!(events(&out), [0_u128; 0], "it came by the old one");
    assert_eq!(events(&says(&mut machine, 2, event(12), 122)), [12]);
    assert_eq!(machine.step(Input::Closed(1, 4000), 130), []);
}

#[test]
fn a_move_whose_old_line_breaks_goes_on_as_the_only_one() {
    let mut machine = live();
    let migrate = ServerFrame::Migrate { to: "new".into(), deadline_ms: 5_000 };
    let _ = says(&mut machine, 1, migrate, 100);
    let _ = machine.step(Input::Closed(1, 4000), 101);
    let _ = machine.step(Input::Opened(2), 110);
    let out = says(&mut machine, 2, welcome(true, 10, 0), 120);
    assert_eq!(out, [Output::Status(Status::Live(Some(10)))]);
}

#[test]
fn what_cannot_be_replayed_is_read_from_a_snapshot() {
    let mut machine = machine();
    let _ = machine.step(Input::Start, 0);
    let _ = machine.step(Input::Opened(1), 0);
    let out = says(&mut machine, 1, welcome(false, 50, 0), 0);
    assert!(out.contains(&Output::Snapshot(1)));
    assert!(out.contains(&Output::Status(Status::CatchingUp(0))));
    let out = says(
        &mut machine,
        1,
        ServerFrame::Gap { channel: Channel::Chat, epoch: "e".into(), offset: 60 },
        1,
    );
    assert_eq!(out, [Output::Snapshot(2)]);
    assert_eq!(machine.step(Input::Snapshotted(1), 2), [], "read before the gap");
    let out = machine.step(Input::Snapshotted(2), 3);
    assert!(matches!(out[..], [Output::Status(Status::Live(_))]));
    assert_eq!(machine.positions()[&Channel::Chat], 60);
}

#[test]
fn nothing_that_a_dead_line_still_says_counts() {
    let mut machine = live();
    let _ = machine.step(command(7, None), 40);
    let _ = machine.step(Input::Closed(1, 1006), 50);
    let _ = machine.step(Input::Wake, 60);
    let _ = machine.step(Input::Opened(2), 70);
    // The old session's replay runs on into the new session's.
    for frame in [event(11), reply(7, None), ping(5), welcome(false, 99, 0)] {
        assert_eq!(says(&mut machine, 1, frame, 80), []);
    }
    assert_eq!(machine.positions()[&Channel::Chat], 10);
    let _ = says(&mut machine, 2, welcome(true, 12, 2), 90);
    let gap = ServerFrame::Gap { channel: Channel::Chat, epoch: "x".into(), offset: 900 };
    for frame in [event(12), gap] {
        assert_eq!(says(&mut machine, 1, frame, 91), []);
    }
    assert_eq!(events(&says(&mut machine, 2, event(11), 92)), [11]);
    assert_eq!(events(&says(&mut machine, 2, event(12), 93)), [12]);
    assert!(!says(&mut machine, 2, ping(2), 94).contains(&Output::Close(2)), "its own count");
}

#[test]
fn an_old_offset_says_nothing_in_another_journal() {
    for recovered in [false, true] {
        let mut machine = live();
        let _ = machine.step(Input::Closed(1, 1006), 50);
        let _ = machine.step(Input::Wake, 60);
        let _ = machine.step(Input::Opened(2), 70);
        let report = CursorReport { epoch: "new".into(), offset: 3, recovered, replayed: 0 };
        let mut frame = welcome(true, 0, 0);
        if let ServerFrame::Welcome { streams, .. } = &mut frame {
            *streams = BTreeMap::from([(Channel::Chat, report)]);
        }
        let out = says(&mut machine, 2, frame, 80);
        let place = |wanted| out.iter().position(|one| *one == wanted).expect("said");
        assert!(place(Output::Anew) < place(Output::Snapshot(1)));
        assert_eq!(machine.positions()[&Channel::Chat], 3);
        assert_eq!(events(&says(&mut machine, 2, event(4), 90)), [4], "below the old offset");
    }
}

#[test]
fn a_position_is_told_only_of_what_was_given_out() {
    let mut machine = machine();
    let mut given = 10;
    let _ = machine.step(Input::Start, 0);
    for (link, offsets) in [(1, [11, 12, 11]), (2, [12, 15, 13]), (3, [14, 15, 16])] {
        let _ = machine.step(Input::Wake, 0);
        let out = machine.step(Input::Opened(link), 0);
        assert!(matches!(
            frames(&out)[..],
            [ClientFrame::Hello { resume, .. }] if resume[&Channel::Chat].offset == given
        ));
        // What is announced is not what has come.
        let _ = says(&mut machine, link, welcome(true, 99, 3), 0);
        assert_eq!(machine.positions()[&Channel::Chat], given);
        for offset in offsets {
            let out = says(&mut machine, link, event(offset), 0);
            given = events(&out).first().map_or(given, |one| u64::try_from(*one).expect("small"));
            assert_eq!(machine.positions()[&Channel::Chat], given);
        }
        let _ = machine.step(Input::Closed(link, 1006), 0);
    }
    assert_eq!(given, 16);
}

#[test]
fn acks_are_batched_cumulative_and_sent_once() {
    let mut machine = live();
    let _ = machine.step(Input::Tick, 40);
    for offset in 11..=15 {
        let _ = says(&mut machine, 1, event(offset), 50);
    }
    let ack = |offset, stage| ClientFrame::Ack { channel: Channel::Chat, offset, stage };
    assert_eq!(frames(&machine.step(Input::Tick, 300)), [&ack(15, AckStage::Received)]);
    let _ = machine.step(Input::Rendered(BTreeMap::from([(Channel::Chat, 15)])), 310);
    assert_eq!(frames(&machine.step(Input::Tick, 550)), [&ack(15, AckStage::Rendered)]);
    assert_eq!(machine.step(Input::Tick, 800), []);
}

/// When each of many clients whose aggregator died at once opens its first
/// new socket, in milliseconds after that.
fn comebacks(clients: u64) -> Vec<u64> {
    let mut at = Vec::new();
    for seed in 0..clients {
        let candidates = Candidates::new(vec!["own".into(), "other".into()]);
        let mut machine =
            Machine::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), candidates, BTreeMap::new());
        let out = machine.step(Input::Start, 0);
        let id = out.iter().find_map(|one| match one {
            Output::Open(id, _) => Some(*id),
            _ => None,
        });
        let id = id.expect("a socket");
        machine.step(Input::Opened(id), 0);
        machine.step(Input::Frame(id, Box::new(welcome(true, 10, 0))), 0);
        machine.step(Input::Closed(id, 1006), 0);
        let opens = |out: Vec<Output>| out.iter().any(|one| matches!(one, Output::Open(..)));
        let back = (0..60_000).step_by(10).find(|now| opens(machine.step(Input::Tick, *now)));
        at.push(back.expect("it comes back"));
    }
    at
}

#[test]
fn ten_thousand_clients_that_lose_their_aggregator_come_back_spread_and_soon() {
    let mut at = comebacks(10_000);
    at.sort_unstable();
    assert!(at[0] >= 200, "nobody at once: {}", at[0]);
    assert!(at[9_999] <= 410, "everybody soon: {}", at[9_999]);
    let busiest = at.chunk_by(|a, b| a / 20 == b / 20).map(<[u64]>::len).max();
    // Evenly spread, each 20 ms have a tenth of them.
    assert!(busiest.is_some_and(|most| most < 1_300), "{busiest:?}");
}

#[test]
fn the_pill_says_that_the_broker_takes_nothing_or_is_gone() {
    let mut machine = machine();
    machine.step(Input::Start, 0);
    machine.step(Input::Opened(1), 0);
    machine.step(Input::Frame(1, Box::new(welcome(true, 10, 0))), 0);
    let told = |blocked| {
        let sent = BTreeMap::from([(Channel::Chat, 0)]);
        Box::new(ServerFrame::Ping { at: Timestamp::from_millis(0), sent, blocked })
    };
    let out = machine.step(Input::Frame(1, told(true)), 1);
    assert!(out.contains(&Output::Status(Status::Blocked)));
    let out = machine.step(Input::Frame(1, told(false)), 2);
    assert!(out.contains(&Output::Status(Status::Live(Some(0)))));
    let out = machine.step(Input::Closed(1, CloseCode::BrokerLost.code()), 3);
    assert!(out.contains(&Output::Status(Status::BrokerLost)));
    // So it stays until somebody welcomes it.
    assert_eq!(machine.step(Input::Tick, 1_000).last(), Some(&Output::Open(2, "peer".into())));
    machine.step(Input::Opened(2), 1_000);
    let out = machine.step(Input::Frame(2, Box::new(welcome(true, 10, 0))), 1_000);
    assert!(out.iter().any(|one| matches!(one, Output::Status(Status::Live(_)))));
}
