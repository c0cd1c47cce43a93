//! Every verdict on journals written by hand: a good run, and one thing wrong.

use std::path::Path;

use uuid::Uuid;

use crate::checker::check;
use crate::journal::{Line, Saw, roll};
use crate::report::{Broken, Report};
use crate::truth::{Event, Truth};

/// The events of chat: each was caused by the post of the same number.
const EVENTS: u64 = 6;

fn id(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

/// A run: what the desk has, and what the journals say.
struct Story {
    truth: Truth,
    publisher: Vec<(u64, Saw)>,
    client: Vec<(u64, Saw)>,
    page: Vec<(u64, Saw)>,
    faults: Vec<(u64, Saw)>,
    end: Vec<(u64, Saw)>,
}

fn attempt(number: u64) -> Saw {
    Saw::Attempt { cause: id(number), key: crate::WATCHED.to_owned(), seq: number }
}

fn answer(number: u64, status: u16) -> Saw {
    Saw::Answer { cause: id(number), status: Some(status), failure: None }
}

fn silence(number: u64, why: &str) -> Saw {
    Saw::Answer { cause: id(number), status: None, failure: Some(why.to_owned()) }
}

fn welcome(offset: u64, recovered: bool, fresh: bool) -> Saw {
    Saw::Welcome { channel: "chat".to_owned(), offset, recovered, fresh }
}

fn event(number: u64, bytes: u64) -> Event {
    Event {
        id: id(1_000_000 + number),
        cause: id(number),
        kind: "message.added".to_owned(),
        version: Some(("chat".to_owned(), number)),
        bytes,
    }
}

fn run(first: u64, last: u64) -> Saw {
    let hash = (first..=last).fold(0, |hash, offset| roll(hash, offset, id(1_000_000 + offset)));
    Saw::Run { channel: "chat".to_owned(), first, last, hash }
}

fn fault(name: &str) -> Saw {
    Saw::Fault { name: name.to_owned() }
}

fn dead(id: &str) -> Saw {
    Saw::Dead { id: id.to_owned(), reason: "not json".to_owned() }
}

fn shown(messages: &[u64]) -> Saw {
    Saw::Shown { messages: messages.to_vec() }
}

impl Story {
    /// Nothing is wrong with it.
    fn good() -> Self {
        let posts = (1..=EVENTS).flat_map(|number| {
            let t = number * 1_000;
            [(t, attempt(number)), (t + 7, answer(number, 202))]
        });
        Self {
            truth: Truth::from([(
                "chat".to_owned(),
                (1..=EVENTS).map(|number| (number, event(number, 100))).collect(),
            )]),
            publisher: posts.collect(),
            client: vec![(0, welcome(0, false, true)), (9_000, run(1, EVENTS))],
            page: vec![(9_000, shown(&[1, 2, 3])), (9_500, shown(&[1, 2, 3, 4, 5, 6]))],
            faults: vec![(2_500, fault("kill aggregator 1")), (2_900, fault("mended"))],
            end: Vec::new(),
        }
    }

    /// So many more events, which nobody saw being posted.
    fn grow(&mut self, count: u64, bytes: u64) {
        for number in EVENTS + 1..=EVENTS + count {
            self.publisher.push((9_000, attempt(number)));
            self.publisher.push((9_000, answer(number, 202)));
            if let Some(events) = self.truth.get_mut("chat") {
                events.insert(number, event(number, bytes));
            }
        }
        self.page.push((9_900, shown(&[EVENTS + count])));
    }

    fn check(self) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, lines: Vec<(u64, Saw)>| {
            let lines = lines.into_iter().map(|(t, saw)| {
                let line = serde_json::to_string(&Line { t, saw }).unwrap();
                format!("{line}\n")
            });
            let path: &Path = folder.path();
            std::fs::write(path.join(name), lines.collect::<String>()).unwrap();
        };
        write("publisher-0000.jsonl", self.publisher);
        write("client-0000.jsonl", self.client);
        write("page-0.jsonl", self.page);
        write("faults.jsonl", self.faults);
        write("end.jsonl", self.end);
        check(folder.path(), &self.truth).unwrap()
    }
}

/// What it comes to when `spoil` has had its way with a good run.
fn spoiled(spoil: impl FnOnce(&mut Story)) -> Report {
    let mut story = Story::good();
    spoil(&mut story);
    story.check()
}

/// Exactly this is broken, so often.
#[track_caller]
fn assert_broken(report: &Report, broken: Broken, times: usize) {
    assert!(!report.is_good(), "{report}");
    assert_eq!(report.found(broken).len(), times, "{report}");
    let all = report.to_string();
    assert!(all.lines().any(|line| line.ends_with(&format!(" {times}"))), "{all}");
}

#[test]
fn a_good_run_is_good_and_says_so_in_these_words() {
    let report = Story::good().check();
    assert!(report.is_good(), "{report}");
    let told = report.to_string();
    for word in [
        "attempted             6 events",
        "acknowledged          6 events",
        "\nlost                  0\n",
        "\nrecovered             0\n",
        "\nunexpected            0\n",
        "\nduplicated            0\n",
        "\nout of order          0\n",
        "\nunsignaled gap        0\n",
        "\nduplicated on screen  0\n",
        "faults                kill aggregator 1",
    ] {
        assert!(told.contains(word), "{word} is not in\n{told}");
    }
}

#[test]
fn a_run_that_promised_nothing_is_not_good() {
    let nothing = spoiled(|story| {
        story.publisher.clear();
        story.truth.clear();
        story.client.truncate(1);
        story.page.clear();
    });
    assert!(!nothing.is_good());
}

#[test]
fn what_was_accepted_and_is_not_there_is_lost() {
    let report = spoiled(|story| {
        story.publisher.extend([(8_000, attempt(99)), (8_001, answer(99, 202))]);
        story.page.push((9_600, shown(&[99])));
    });
    assert_broken(&report, Broken::Lost, 1);
}

#[test]
fn what_a_client_has_not_in_the_end_is_lost() {
    let report = spoiled(|story| story.client[1].1 = run(1, EVENTS - 1));
    assert_broken(&report, Broken::Lost, 1);
}

#[test]
fn an_event_that_is_never_accepted_is_a_failure_there_or_not() {
    for (number, recovered) in [(EVENTS, 1), (99, 0)] {
        let report = spoiled(|story| {
            story.publisher.retain(
                |(_, saw)| !matches!(saw, Saw::Answer { cause, .. } if *cause == id(EVENTS)),
            );
            if number == 99 {
                story.publisher.push((6_001, answer(EVENTS, 202)));
                story.publisher.push((7_000, attempt(99)));
                story.page.push((9_600, shown(&[99])));
            }
            story.publisher.push((7_001, answer(number, 503)));
        });
        assert_broken(&report, Broken::Unacknowledged, 1);
        assert_eq!(report.recovered, recovered);
    }
}

#[test]
fn an_event_that_is_accepted_in_the_end_is_recovered() {
    let report = spoiled(|story| story.publisher.insert(1, (1_001, answer(1, 503))));
    assert!(report.is_good(), "{report}");
    assert_eq!(report.recovered, 1);
}

#[test]
fn what_became_of_a_post_is_counted_by_fault() {
    let report = spoiled(|story| {
        story.publisher.extend([
            (1_001, answer(1, 503)),
            // While the aggregator is dead, and a while longer.
            (2_600, silence(2, "refused")),
            (2_700, silence(2, "refused")),
            (7_900, silence(2, "cut off")),
            (7_901, silence(2, "cut off")),
        ]);
    });
    let told = report.to_string();
    assert!(told.contains("POST again, quiet: 503 1, cut off 1\n"), "{told}");
    assert!(told.contains("POST again, kill aggregator: cut off 1, refused 2\n"), "{told}");
}

#[test]
fn a_command_without_a_reply_is_a_failure() {
    let command = id(3);
    let report = spoiled(|story| story.client.push((9_000, Saw::Command { id: command })));
    assert_broken(&report, Broken::Unreplied, 1);
    let replied = spoiled(|story| {
        story.client.push((9_000, Saw::Command { id: command }));
        story.client.push((9_100, Saw::Reply { id: command, error: None }));
    });
    assert!(replied.is_good(), "{replied}");
    let twice = spoiled(|story| {
        story.client.push((9_000, Saw::Command { id: command }));
        story.client.push((9_100, Saw::Reply { id: command, error: None }));
        story.client.push((9_200, Saw::Reply { id: command, error: Some("no".to_owned()) }));
    });
    assert_broken(&twice, Broken::Duplicated, 1);
}

#[test]
fn a_client_that_was_never_welcomed_is_a_failure() {
    assert_broken(&spoiled(|story| story.client.clear()), Broken::Unwelcomed, 1);
}

#[test]
fn what_nobody_attempted_is_unexpected() {
    let report = spoiled(|story| {
        if let Some(event) = story.truth.get_mut("chat").and_then(|chat| chat.get_mut(&3)) {
            event.cause = id(77);
        }
    });
    assert_broken(&report, Broken::Unexpected, 1);
}

#[test]
fn what_a_client_got_must_be_what_the_store_has() {
    let report = spoiled(|story| {
        story.client[1].1 =
            Saw::Run { channel: "chat".to_owned(), first: 1, last: EVENTS, hash: 5 };
    });
    assert_broken(&report, Broken::Unexpected, 1);
}

#[test]
fn two_effects_of_one_cause_and_two_sights_of_one_event_are_duplicates() {
    let effects = spoiled(|story| {
        if let Some(event) = story.truth.get_mut("chat").and_then(|chat| chat.get_mut(&3)) {
            event.cause = id(2);
        }
    });
    assert_broken(&effects, Broken::Duplicated, 1);
    let sights = spoiled(|story| story.client.push((9_100, run(4, EVENTS))));
    assert_broken(&sights, Broken::Duplicated, 1);
}

#[test]
fn the_order_of_posting_and_of_versions_is_kept() {
    let posts = spoiled(|story| story.publisher.swap(0, 2));
    assert_broken(&posts, Broken::OutOfOrder, 1);
    let versions = spoiled(|story| {
        if let Some(event) = story.truth.get_mut("chat").and_then(|chat| chat.get_mut(&EVENTS)) {
            event.version = Some(("chat".to_owned(), EVENTS + 1));
        }
    });
    assert_broken(&versions, Broken::OutOfOrder, 1);
}

#[test]
fn what_a_client_missed_without_a_word_is_an_unsignaled_gap() {
    let report = spoiled(|story| {
        story.client.truncate(1);
        story.client.extend([(9_000, run(1, 2)), (9_001, run(4, EVENTS))]);
    });
    assert_broken(&report, Broken::UnsignaledGap, 1);
    let miscounted = Saw::Miscounted { channel: "chat".to_owned(), sent: 6, received: 5 };
    let report = spoiled(|story| story.client.push((9_000, miscounted)));
    assert_broken(&report, Broken::UnsignaledGap, 1);
    let report = spoiled(|story| {
        story.truth.get_mut("chat").and_then(|chat| chat.remove(&3));
    });
    assert_eq!(report.found(Broken::UnsignaledGap).len(), 1, "{report}");
}

#[test]
fn a_gap_is_needless_unless_more_was_missed_than_is_replayed() {
    let gap = |offset| Saw::Gap { channel: "chat".to_owned(), offset };
    // Few events, by either way of telling; none at all.
    for saw in [welcome(EVENTS, false, false), gap(EVENTS), gap(2)] {
        let report = spoiled(|story| {
            story.client.truncate(1);
            story.client.extend([(9_000, run(1, 2)), (9_001, saw)]);
        });
        assert_eq!(report.found(Broken::NeedlessGap).len(), 1, "{report}");
        assert_eq!(report.signaled, 1);
        assert!(!report.is_good());
    }
    // More than 25,000, or 16 MiB.
    for (count, bytes, needless) in
        [(25_000, 10, 1), (25_001, 10, 0), (161, 104_000, 1), (162, 104_000, 0)]
    {
        let report = spoiled(|story| {
            story.grow(count, bytes);
            story.client.push((9_950, welcome(EVENTS + count, false, false)));
        });
        assert_eq!(
            report.found(Broken::NeedlessGap).len(),
            needless,
            "{count} of {bytes}: {report}"
        );
        assert_eq!(report.is_good(), needless == 0, "{report}");
    }
}

#[test]
fn a_queue_that_is_not_empty_and_a_dead_letter_are_failures() {
    let left = Saw::Left { queue: "chat.1: 3".to_owned() };
    assert_broken(&spoiled(|story| story.end.push((0, left))), Broken::LeftInQueue, 1);
    assert_broken(&spoiled(|story| story.end.push((0, dead("x")))), Broken::DeadLetter, 1);
}

#[test]
fn poison_is_dead_in_the_end_once_and_alone() {
    let poison = || Saw::Poison { id: "poison".to_owned() };
    let good = spoiled(|story| {
        story.faults.push((3_000, poison()));
        story.end.push((0, dead("poison")));
    });
    assert!(good.is_good(), "{good}");
    assert_eq!(good.poison, 1);
    let alive = spoiled(|story| story.faults.push((3_000, poison())));
    assert_broken(&alive, Broken::DeadLetter, 1);
    let twice = spoiled(|story| {
        story.faults.push((3_000, poison()));
        story.end.extend([(0, dead("poison")), (0, dead("poison"))]);
    });
    assert_broken(&twice, Broken::DeadLetter, 1);
}

#[test]
fn a_page_shows_each_message_once_in_order_and_the_last_one_too() {
    let twice = spoiled(|story| story.page.insert(1, (9_100, shown(&[2, 3, 3, 4]))));
    assert_broken(&twice, Broken::DuplicatedOnScreen, 1);
    assert!(twice.found(Broken::WrongOnScreen).is_empty());
    for messages in [&[1, 3][..], &[2, 1]] {
        let wrong = spoiled(|story| story.page.insert(1, (9_100, shown(messages))));
        assert_broken(&wrong, Broken::WrongOnScreen, 1);
    }
    let behind = spoiled(|story| story.page.truncate(1));
    assert_broken(&behind, Broken::WrongOnScreen, 1);
    let blank = spoiled(|story| story.page.clear());
    assert_broken(&blank, Broken::WrongOnScreen, 1);
    let unhappy = Saw::Wrong { why: "the pill says offline".to_owned() };
    let unhappy = spoiled(|story| story.page.push((9_900, unhappy)));
    assert_broken(&unhappy, Broken::WrongOnScreen, 1);
}
