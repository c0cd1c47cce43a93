//! Notices a consumer that RabbitMQ has granted and that gets nothing, though
//! its queue has messages: a lost grant, a queue whose leader is stuck, a node
//! that answers nothing. Nothing is published for it: the counts that a queue
//! gives when it is looked for are enough.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::broker::Partition;

/// So many looks in a row without a delivery, and the consumer is opened anew.
/// Twice as many the next time, if nothing came meanwhile: another consumer may
/// be the active one and take its time, which costs this one nothing.
const LOOKS_MIN: u32 = 5;
const LOOKS_MAX: u32 = 320;
/// So many looks in a row without an answer, and the connection is given up.
const SILENT_MAX: u32 = 3;

/// What has passed through one consumer.
#[derive(Default)]
pub(super) struct Traffic {
    delivered: AtomicU64,
    settled: AtomicU64,
    waiting: AtomicBool,
}

impl Traffic {
    pub(super) fn delivered(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn settled(&self, count: usize) {
        self.settled.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Somebody waits for the next one until the guard is dropped.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.store(true, Ordering::Relaxed);
        Waiting(self)
    }

    /// As it is now, together with what the queue says.
    pub(super) fn seen(&self, queue: Option<Counts>) -> Seen {
        let delivered = self.delivered.load(Ordering::Relaxed);
        let nothing_held = self.settled.load(Ordering::Relaxed) == delivered;
        Seen { queue, delivered, idle: nothing_held && self.waiting.load(Ordering::Relaxed) }
    }
}

pub(super) struct Waiting<'a>(&'a Traffic);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.store(false, Ordering::Relaxed);
    }
}

/// What a queue says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Messages that nobody has.
    pub(super) ready: u32,
    pub(super) consumers: u32,
}

/// One look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// None if there was no answer.
    queue: Option<Counts>,
    /// Since the consumer was opened.
    delivered: u64,
    /// True if it holds nothing and is being waited on. What is unsettled, or
    /// has arrived and isn't taken yet, would come again as a failed delivery.
    idle: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// Nothing comes though there is something.
    Reopen,
    /// Nothing is answered.
    Reconnect,
}

/// How patient to be with each queue, from one of its consumers to the next.
#[derive(Clone, Default)]
pub(super) struct Patience(Arc<Mutex<HashMap<Partition, Arc<AtomicU32>>>>);

impl Patience {
    /// Judges a new consumer of `partition`.
    pub(super) fn canary(&self, partition: Partition) -> Canary {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = all.entry(partition).or_insert_with(|| Arc::new(AtomicU32::new(LOOKS_MIN)));
        Canary::new(Arc::clone(looks))
    }
}

/// Judges one consumer, look by look.
pub(super) struct Canary {
    /// Looks without a delivery that are borne.
    patience: Arc<AtomicU32>,
    delivered: u64,
    ready: u32,
    starved: u32,
    silent: u32,
}

impl Canary {
    fn new(patience: Arc<AtomicU32>) -> Self {
        Self { patience, delivered: 0, ready: 0, starved: 0, silent: 0 }
    }

    pub(super) fn look(&mut self, seen: Seen) -> Verdict {
        if seen.delivered != self.delivered {
            self.delivered = seen.delivered;
            self.patience.store(LOOKS_MIN, Ordering::Relaxed);
            (self.starved, self.silent) = (0, 0);
        }
        let Some(Counts { ready, consumers }) = seen.queue else {
            self.silent += 1;
            return if seen.idle && self.silent >= SILENT_MAX {
                self.silent = 0;
                Verdict::Reconnect
            } else {
                Verdict::Fine
            };
        };
        self.silent = 0;
        let shrinks = ready < self.ready;
        self.ready = ready;
        // A queue that has this consumer and counts none has lost it, or has no leader.
        let starves = seen.idle && !shrinks && (ready > 0 || consumers == 0);
        self.starved = if starves { self.starved + 1 } else { 0 };
        let patience = self.patience.load(Ordering::Relaxed);
        if self.starved < patience {
            return Verdict::Fine;
        }
        self.starved = 0;
        self.patience.store((patience * 2).min(LOOKS_MAX), Ordering::Relaxed);
        Verdict::Reopen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: Partition = Partition { channel: domain::Channel::Voice, index: 0 };

    fn counts(ready: u32, consumers: u32) -> Option<Counts> {
        Some(Counts { ready, consumers })
    }

    fn idle(queue: Option<Counts>) -> Seen {
        Seen { queue, delivered: 0, idle: true }
    }

    /// The look at which something else than `Fine` is said.
    fn verdict(
        canary: &mut Canary,
        looks: impl IntoIterator<Item = Seen>,
    ) -> Option<(usize, Verdict)> {
        let verdicts = looks.into_iter().map(|seen| canary.look(seen));
        verdicts.enumerate().find(|(_, verdict)| *verdict != Verdict::Fine)
    }

    #[test]
    fn who_gets_nothing_of_what_is_there_is_opened_anew_later_and_later() {
        let patience = Patience::default();
        let mut waited = Vec::new();
        for _ in 0..8 {
            let mut canary = patience.canary(PARTITION);
            let (looks, said) =
                verdict(&mut canary, std::iter::repeat_n(idle(counts(3, 1)), 1_000)).expect("said");
            assert_eq!(said, Verdict::Reopen);
            waited.push(looks + 1);
        }
        assert_eq!(waited, [5, 10, 20, 40, 80, 160, 320, 320]);
        // Another queue is another matter, and a delivery ends all of it.
        let mut other = patience.canary(Partition { index: 1, ..PARTITION });
        assert!(verdict(&mut other, [idle(counts(3, 1)); 5]).is_some());
        let mut canary = patience.canary(PARTITION);
        canary.look(Seen { delivered: 1, ..idle(counts(3, 1)) });
        let mut next = patience.canary(PARTITION);
        assert_eq!(verdict(&mut next, [idle(counts(3, 1)); 5]), Some((4, Verdict::Reopen)));
    }

    #[test]
    fn a_consumer_that_its_queue_does_not_know_is_opened_anew() {
        let mut canary = Patience::default().canary(PARTITION);
        assert_eq!(verdict(&mut canary, [idle(counts(0, 0)); 5]), Some((4, Verdict::Reopen)));
    }

    #[test]
    fn who_works_rests_or_sees_others_work_is_left_alone() {
        let busy = Seen { idle: false, ..idle(counts(3, 1)) };
        let flowing = (0..1_000).map(|delivered| Seen { delivered, ..idle(counts(3, 1)) });
        let shrinking = (0..1_000).rev().map(|ready| idle(counts(ready, 1)));
        let mixed = [idle(counts(3, 1)), idle(counts(3, 1)), busy, idle(counts(0, 1))];
        let table: [(&str, Vec<Seen>); 5] = [
            ("holds messages", vec![busy; 1_000]),
            ("gets messages", flowing.collect()),
            ("has none to get", vec![idle(counts(0, 1)); 1_000]),
            ("waits while another one works", shrinking.collect()),
            ("starves for moments only", mixed.repeat(250)),
        ];
        for (what, looks) in table {
            assert_eq!(verdict(&mut Patience::default().canary(PARTITION), looks), None, "{what}");
        }
    }

    #[test]
    fn a_node_that_answers_nothing_is_left_unless_something_would_be_given_back() {
        let canary = || Patience::default().canary(PARTITION);
        assert_eq!(verdict(&mut canary(), [idle(None); 3]), Some((2, Verdict::Reconnect)));
        let busy = Seen { idle: false, ..idle(None) };
        assert_eq!(verdict(&mut canary(), [busy; 1_000]), None);
        let flowing = (0..1_000).map(|delivered| Seen { delivered, ..idle(None) });
        assert_eq!(verdict(&mut canary(), flowing), None);
        let stammering = [idle(None), idle(None), idle(counts(0, 1))].repeat(100);
        assert_eq!(verdict(&mut canary(), stammering), None);
    }

    #[test]
    fn a_consumer_is_idle_while_it_holds_nothing_and_is_waited_on() {
        let traffic = Traffic::default();
        assert!(!traffic.seen(None).idle, "nobody waits");
        let waiting = traffic.wait();
        assert!(traffic.seen(None).idle);
        traffic.delivered();
        assert!(!traffic.seen(None).idle, "one is unsettled");
        traffic.settled(1);
        assert!(traffic.seen(None).idle);
        drop(waiting);
        assert!(!traffic.seen(None).idle);
    }
}
