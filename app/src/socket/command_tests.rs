//! Commands as scripts: sent, sent again, refused, too late.

use serde_json::json;

use super::tests::{command, frames, id, live, ping, reply, says, welcome};
use super::*;

/// The commands among what is sent, with the time they still have.
fn commands(out: &[Output]) -> Vec<(CommandId, Option<u64>)> {
    let command = |frame: &ClientFrame| match frame {
        ClientFrame::Command { id, deadline_ms, .. } => Some((*id, *deadline_ms)),
        _ => None,
    };
    frames(out).into_iter().filter_map(command).collect()
}

fn failed(out: &[Output]) -> Vec<(CommandId, &str)> {
    out.iter()
        .filter_map(|one| match one {
            Output::Answered(id, Some(error)) => Some((*id, error.code.as_str())),
            _ => None,
        })
        .collect()
}

/// Keeps the line alive up to `now`.
fn heard(machine: &mut Machine, now: u64) {
    let _ = says(machine, 1, ping(0), now);
}

#[test]
fn a_command_is_sent_again_under_the_same_id_until_its_reply() {
    let mut machine = live();
    let _ = machine.step(Input::Closed(1, 1006), 50);
    assert_eq!(frames(&machine.step(command(7, None), 60)).len(), 0, "it waits");
    let _ = machine.step(Input::Wake, 70);
    let _ = machine.step(Input::Opened(2), 80);
    let out = says(&mut machine, 2, welcome(true, 10, 0), 90);
    assert!(matches!(frames(&out)[..], [ClientFrame::Command { id: sent, .. }] if *sent == id(7)));
    let _ = machine.step(Input::Closed(2, 1006), 95);
    let _ = machine.step(Input::Wake, 96);
    let _ = machine.step(Input::Opened(3), 97);
    let out = says(&mut machine, 3, welcome(true, 10, 0), 100);
    assert_eq!(frames(&out).len(), 1);
    let out = says(&mut machine, 3, reply(7, None), 130);
    assert!(out.contains(&Output::Answered(id(7), None)) && out.contains(&Output::Forget(id(7))));
    assert!(out.contains(&Output::Status(Status::Live(Some(30)))), "timed by the command");
    assert_eq!(says(&mut machine, 3, reply(7, None), 131), []);
}

#[test]
fn a_deadline_without_an_answer_fails_and_a_retry_keeps_the_id() {
    let mut machine = live();
    let _ = machine.step(command(7, Some(1_000)), 100);
    let _ = says(&mut machine, 1, ping(0), 2_000);
    let _ = says(&mut machine, 1, ping(0), 4_000);
    let _ = says(&mut machine, 1, ping(0), 6_000);
    let out = machine.step(Input::Tick, 6_100);
    assert!(matches!(&out[..], [Output::Answered(failed, Some(_)), ..] if *failed == id(7)));
    let out = machine.step(Input::Retry(id(7)), 6_200);
    assert!(out.contains(&Output::Resent(id(7))));
    assert!(matches!(frames(&out)[..], [ClientFrame::Command { id: sent, .. }] if *sent == id(7)));
}

#[test]
fn words_that_are_refused_for_now_are_tried_for_ever_at_growing_intervals() {
    let mut machine = live();
    let _ = machine.step(command(7, None), 100);
    let unavailable = failure("unavailable", "the broker is gone");
    let mut now = 100;
    for round in 0..40 {
        assert_eq!(says(&mut machine, 1, reply(7, Some(unavailable.clone())), now), []);
        let wait = (500 << round.min(16)).min(10_000);
        heard(&mut machine, now + wait - 1);
        assert_eq!(commands(&machine.step(Input::Tick, now + wait - 1)), [], "round {round}");
        now += wait;
        heard(&mut machine, now);
        assert_eq!(commands(&machine.step(Input::Tick, now)), [(id(7), None)], "round {round}");
    }
    let out = says(&mut machine, 1, reply(7, None), now + 1);
    assert!(out.contains(&Output::Answered(id(7), None)) && out.contains(&Output::Forget(id(7))));
}

#[test]
fn an_answer_that_is_lost_on_a_living_line_is_asked_for_again() {
    let mut machine = live();
    assert_eq!(commands(&machine.step(command(7, None), 100)), [(id(7), None)]);
    for now in [2_000, 4_000, 5_099] {
        heard(&mut machine, now);
        assert_eq!(commands(&machine.step(Input::Tick, now)), []);
    }
    assert_eq!(commands(&machine.step(Input::Tick, 5_100)), [(id(7), None)]);
    heard(&mut machine, 5_200);
    assert_eq!(commands(&machine.step(Input::Tick, 5_200)), [], "once in a while");
    let out = says(&mut machine, 1, reply(7, None), 5_300);
    assert!(out.contains(&Output::Answered(id(7), None)));
    heard(&mut machine, 11_000);
    assert_eq!(commands(&machine.step(Input::Tick, 11_000)), []);
}

#[test]
fn what_is_sent_again_has_what_is_left_of_its_deadline() {
    let mut machine = live();
    assert_eq!(commands(&machine.step(command(7, Some(20_000)), 100)), [(id(7), Some(20_000))]);
    heard(&mut machine, 5_100);
    assert_eq!(commands(&machine.step(Input::Tick, 5_100)), [(id(7), Some(15_000))]);
    let _ = machine.step(Input::Closed(1, 1006), 6_000);
    let _ = machine.step(Input::Wake, 8_000);
    let _ = machine.step(Input::Opened(2), 8_050);
    let out = says(&mut machine, 2, welcome(true, 10, 0), 8_100);
    assert_eq!(commands(&out), [(id(7), Some(12_000))]);
}

#[test]
fn what_is_too_late_is_never_sent_and_is_told_as_failed() {
    let mut machine = live();
    let _ = machine.step(Input::Closed(1, 1006), 200);
    assert_eq!(commands(&machine.step(command(7, Some(1_000)), 300)), []);
    let out = machine.step(Input::Wake, 1_300);
    assert_eq!(failed(&out), []);
    let _ = machine.step(Input::Opened(2), 1_300);
    assert_eq!(commands(&says(&mut machine, 2, welcome(true, 10, 0), 1_300)), []);
    let out = machine.step(Input::Tick, 1_301);
    assert_eq!(failed(&out), [(id(7), "no_answer")]);
    assert!(!out.contains(&Output::Forget(id(7))), "it waits for a retry");
    assert_eq!(commands(&machine.step(Input::Retry(id(7)), 1_400)), [(id(7), Some(1_000))]);
}

#[test]
fn a_refusal_for_now_is_the_reason_once_the_deadline_has_passed() {
    let mut machine = live();
    let _ = machine.step(command(7, Some(700)), 100);
    let unavailable = failure("unavailable", "the broker is gone");
    let _ = says(&mut machine, 1, reply(7, Some(unavailable)), 110);
    assert_eq!(commands(&machine.step(Input::Tick, 610)), [(id(7), Some(190))]);
    let unavailable = failure("unavailable", "the broker is gone");
    let _ = says(&mut machine, 1, reply(7, Some(unavailable)), 620);
    assert_eq!(failed(&machine.step(Input::Tick, 800)), [(id(7), "unavailable")]);
}

#[test]
fn what_an_earlier_page_gave_has_what_is_left_or_shows_as_not_done() {
    let mut machine = live();
    let kept = |n, age_ms| Input::Command {
        id: id(n),
        command: json!({"type":"take"}),
        deadline_ms: Some(20_000),
        age_ms,
    };
    assert_eq!(commands(&machine.step(kept(7, 15_000), 100)), [(id(7), Some(5_000))]);
    let out = machine.step(kept(8, 20_000), 100);
    assert_eq!(commands(&out), []);
    assert_eq!(failed(&out), [(id(8), "no_answer")]);
    assert!(!out.contains(&Output::Forget(id(8))), "it stays for the next page too");
}

#[test]
fn a_full_outbox_refuses_and_a_stopped_machine_does_nothing() {
    let mut machine = live();
    for n in 0..super::super::outbox::OUTBOX_MAX as u128 {
        let _ = machine.step(command(n, None), 100);
    }
    let out = machine.step(command(9_999, None), 100);
    assert!(matches!(&out[..], [Output::Answered(_, Some(_)), Output::Forget(_)]));
    let out = machine.step(Input::Stop, 101);
    assert_eq!(out, [Output::Close(1), Output::Status(Status::Offline)]);
    assert_eq!(machine.step(Input::Wake, 102), []);
}
