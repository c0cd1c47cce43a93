//! The broker's story, told to the embedded broker; and what only files can suffer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Channel, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use warren::broker::embedded::{self, Embedded};
use warren::broker::{Broker, BrokerError, Config, LogStart};
use warren::clock::Clock;

use super::story::{self, CHAT, VOICE, message, next, small, soon};

async fn open(path: &Path, topology: Config, clock: Clock) -> Result<Arc<Embedded>, BrokerError> {
    embedded::open(embedded::Config { path: path.to_owned(), topology, clock }).await
}

struct Files;

#[async_trait]
impl story::Factory for Files {
    async fn fresh(&self, config: Config) -> Arc<dyn Broker> {
        // The folder goes with the system's temporary files.
        let folder = tempfile::tempdir().unwrap().keep();
        open(&folder, config, Clock::default()).await.unwrap()
    }
}

macro_rules! tell {
    ($($name:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            story::$name(&Files).await;
        }
    )+};
}

tell!(
    what_is_published_is_consumed_in_order_and_unchanged,
    one_consumer_gets_all_and_the_next_one_takes_over_in_order,
    what_is_acked_together_is_done_and_nothing_behind_it,
    what_keeps_failing_becomes_a_dead_letter_with_its_reason,
    a_buried_message_is_a_dead_letter_at_once,
    a_message_that_waited_too_long_is_a_dead_letter,
    dead_letters_are_replayed_and_dropped_by_id,
    a_full_queue_refuses_until_there_is_room,
    a_log_is_read_by_everybody_from_wherever_they_like,
    announcements_of_one_task_stay_in_order,
    every_member_hears_a_broadcast,
    a_reply_reaches_its_member_and_nobody_else,
    without_a_topology_nothing_is_taken,
    an_ack_that_comes_too_late_says_so,
);

#[tokio::test]
async fn what_was_confirmed_is_there_after_a_crash_and_what_was_acked_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path(), small(), Clock::default()).await.unwrap();
    broker.declare().await.unwrap();
    for turn in 0..1_500 {
        broker.publish(VOICE, message(&turn.to_string())).await.unwrap();
    }
    let mut consumer = broker.consume(VOICE, 10).await.unwrap();
    for _ in 0..5 {
        next(&mut *consumer).await.settle.ack().await.unwrap();
    }
    // What a crash leaves: the files as they are, without a close.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let again = open(copy.path(), small(), Clock::default()).await.unwrap();
    let mut consumer = again.consume(VOICE, 100).await.unwrap();
    for turn in 5..1_500 {
        let delivery = next(&mut *consumer).await;
        assert_eq!(delivery.message, message(&turn.to_string()));
        assert!(delivery.redelivered);
        delivery.settle.ack().await.unwrap();
    }
    assert!(consumer.try_recv().is_none());
}

#[tokio::test]
async fn a_second_process_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path(), small(), Clock::default()).await.unwrap();
    let error = open(folder.path(), small(), Clock::default()).await.err().unwrap().to_string();
    assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    broker.close().await;
    open(folder.path(), small(), Clock::default()).await.unwrap();
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path(), small(), Clock::default()).await.unwrap();
    broker.declare().await.unwrap();
    broker.close().await;
    let other = Config { partitions: 3, ..small() };
    let error = open(folder.path(), other, Clock::default()).await.err().unwrap();
    assert!(matches!(error, BrokerError::Misdeclared(_)), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("inbound.db"), [7_u8; 8_192]).unwrap();
    let error = open(folder.path(), small(), Clock::default()).await.err().unwrap().to_string();
    assert!(error.contains("inbound.db"), "{error}");
}

#[tokio::test]
async fn messages_expire_by_the_clock_they_were_given() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::given(Timestamp::from_millis(1_000_000));
    let broker = open(folder.path(), small(), clock.clone()).await.unwrap();
    broker.declare().await.unwrap();
    broker.publish(VOICE, message("early")).await.unwrap();
    clock.set(Timestamp::from_millis(1_000_000 + 119_999));
    broker.publish(VOICE, message("late")).await.unwrap();
    clock.set(Timestamp::from_millis(1_000_000 + 120_001));
    let mut consumer = broker.consume(VOICE, 10).await.unwrap();
    assert_eq!(next(&mut *consumer).await.message.id, "late");
    let dead = story::until("a dead letter", async || {
        broker.dead(Channel::Voice, 10).await.unwrap().into_iter().next()
    })
    .await;
    assert_eq!((dead.message.id.as_str(), dead.reason.as_str()), ("early", "expired"));
}

#[tokio::test]
async fn a_follower_that_falls_far_behind_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path(), small(), Clock::default()).await.unwrap();
    broker.declare().await.unwrap();
    let mut slow = broker.follow(Channel::Chat, LogStart::Next).await.unwrap();
    let all = (0..3_000).map(|turn| {
        let broker = broker.clone();
        async move { broker.announce(Channel::Chat, message(&turn.to_string())).await.unwrap() }
    });
    futures::future::join_all(all).await;
    let mut last = 0;
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..3_000 {
        let (place, message) = soon("a message", slow.recv()).await.unwrap();
        assert!(place > last, "places rise");
        last = place;
        ids.insert(message.id);
    }
    assert_eq!(ids.len(), 3_000);
}

/// Publishers and consumers do what they like, consumers die, the process
/// dies: nothing that was confirmed is lost, and each publisher's order holds
/// among first deliveries.
#[tokio::test]
async fn whatever_happens_nothing_confirmed_is_lost() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut broker = open(folder.path(), small(), Clock::default()).await.unwrap();
    broker.declare().await.unwrap();
    let mut published = 0_u32;
    let mut acked = Vec::new();
    let mut highest_seen = None;
    let mut consumer = broker.consume(CHAT, 7).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..2_000 {
        match random.random_range(0..100) {
            0..45 => {
                broker.publish(CHAT, message(&published.to_string())).await.unwrap();
                published += 1;
            }
            45..95 => {
                if held.len() < 7
                    && let Some(delivery) = consumer.try_recv()
                {
                    let number: u32 = delivery.message.id.parse().unwrap();
                    if !delivery.redelivered {
                        assert!(highest_seen.is_none_or(|seen| number > seen), "order");
                        highest_seen = Some(number);
                    }
                    held.push((number, delivery));
                }
                if !held.is_empty() && random.random_bool(0.7) {
                    let (number, delivery) = held.swap_remove(random.random_range(0..held.len()));
                    delivery.settle.ack().await.unwrap();
                    acked.push(number);
                }
            }
            95..99 => {
                held.clear();
                drop(consumer);
                consumer = broker.consume(CHAT, 7).await.unwrap();
            }
            _ => {
                held.clear();
                drop(consumer);
                broker.close().await;
                broker = open(folder.path(), small(), Clock::default()).await.unwrap();
                consumer = broker.consume(CHAT, 7).await.unwrap();
            }
        }
    }
    held.clear();
    drop(consumer);
    let mut consumer = broker.consume(CHAT, 7).await.unwrap();
    while (acked.len() as u32) < published {
        let delivery = tokio::time::timeout(Duration::from_secs(20), consumer.recv()).await;
        let delivery = delivery.expect("what was published comes").expect("a consumer");
        acked.push(delivery.message.id.parse().unwrap());
        delivery.settle.ack().await.unwrap();
    }
    acked.sort_unstable();
    assert_eq!(acked, (0..published).collect::<Vec<_>>(), "each once");
}
