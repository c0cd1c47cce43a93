//! What only the embedded broker can suffer: crashes, other processes, damaged
//! files, readers and queues that outgrow memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::{Channel, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::timeout;
use warren::broker::embedded::{self, Embedded};
use warren::broker::{
    Broker, BrokerError, Config, Consumer, DELIVERY_LIMIT, Delivery, LogStart, Message, Partition,
    TRANSIENT_MAX,
};
use warren::clock::Clock;

const PATIENCE: Duration = Duration::from_secs(30);
const CHAT: Partition = Partition { channel: Channel::Chat, index: 0 };

fn topology() -> Config {
    Config { partitions: 2, ..Config::default() }
}

fn message(id: impl ToString) -> Message {
    let id = id.to_string();
    Message {
        kind: "chat.message".into(),
        app_id: "pbx".into(),
        at: Timestamp::from_millis(1_769_860_800_007),
        headers: BTreeMap::from([("x-key".into(), format!("key \u{1f980} {id}"))]),
        reply_to: None,
        body: format!("{{\"id\":\"{id}\"}}").into_bytes().into(),
        id,
    }
}

async fn open(path: &Path) -> Arc<Embedded> {
    let clock = Clock::default();
    let config = embedded::Config { path: path.to_owned(), topology: topology(), clock };
    let broker = embedded::open(config).await.unwrap();
    broker.declare().await.unwrap();
    broker
}

async fn refused(path: &Path) -> String {
    let clock = Clock::default();
    let config = embedded::Config { path: path.to_owned(), topology: topology(), clock };
    match embedded::open(config).await {
        Err(BrokerError::Storage(line)) => line,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("opened"),
    }
}

async fn next(consumer: &mut dyn Consumer) -> Delivery {
    let delivery = timeout(PATIENCE, consumer.recv()).await;
    delivery.expect("a delivery in time").expect("a consumer that lives")
}

/// What the death of the process leaves: the files as they are.
fn crashed(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_publishers_outgrow_memory_and_nothing_is_lost_or_doubled_or_reordered() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path()).await;
    let publishers = (0..8_u32).map(|publisher| {
        let broker: Arc<dyn Broker> = broker.clone();
        tokio::spawn(async move {
            for turn in 0..500_u32 {
                let channel = if turn % 2 == 0 { Channel::Chat } else { Channel::Voice };
                let to = Partition { channel, index: publisher % 2 };
                broker.publish(to, message(format!("{publisher} {turn}"))).await.unwrap();
            }
        })
    });
    futures::future::join_all(publishers).await.into_iter().for_each(|it| it.unwrap());
    let mut last = BTreeMap::new();
    for channel in [Channel::Chat, Channel::Voice] {
        for index in 0..2 {
            let mut consumer = broker.consume(Partition { channel, index }, 64).await.unwrap();
            for _ in 0..1_000 {
                let delivery = next(&mut *consumer).await;
                assert!(!delivery.redelivered, "what was read from the disk is new all the same");
                let (publisher, turn) = delivery.message.id.split_once(' ').unwrap();
                let turn: u32 = turn.parse().unwrap();
                assert_eq!(delivery.message, message(format!("{publisher} {turn}")));
                let before = last.insert((channel, publisher.to_owned()), turn);
                let wanted = before.map_or(u32::from(channel == Channel::Voice), |it| it + 2);
                assert_eq!(turn, wanted, "of publisher {publisher}");
                delivery.settle.ack().await.unwrap();
            }
            assert!(consumer.try_recv().is_none());
        }
    }
}

#[tokio::test]
async fn large_messages_are_read_from_the_disk_again_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path()).await;
    for id in 0..60 {
        let body = vec![b'x'; 60_000].into();
        broker.publish(CHAT, Message { body, ..message(id) }).await.unwrap();
    }
    let mut consumer = broker.consume(CHAT, 5).await.unwrap();
    for id in 0..60 {
        let delivery = next(&mut *consumer).await;
        assert_eq!(
            (delivery.message.id.as_str(), delivery.message.body.len()),
            (&*id.to_string(), 60_000)
        );
        delivery.settle.ack().await.unwrap();
    }
}

#[tokio::test]
async fn no_more_than_the_prefetch_is_in_hand() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path()).await;
    for id in 0..5 {
        broker.publish(CHAT, message(id)).await.unwrap();
    }
    let mut consumer = broker.consume(CHAT, 2).await.unwrap();
    let first = next(&mut *consumer).await;
    let second = next(&mut *consumer).await;
    assert!(consumer.try_recv().is_none());
    second.settle.ack().await.unwrap();
    assert_eq!(next(&mut *consumer).await.message.id, "2");
    drop(first);
    assert!(consumer.try_recv().is_none(), "a dropped delivery stays with its consumer");
}

#[tokio::test]
async fn a_broker_that_is_dropped_lets_the_next_one_in_and_ends_its_consumers() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path()).await;
    for id in 0..3 {
        broker.publish(CHAT, message(id)).await.unwrap();
    }
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    next(&mut *consumer).await.settle.ack().await.unwrap();
    drop(broker);
    assert!(timeout(PATIENCE, consumer.recv()).await.unwrap().is_none());
    drop(consumer);
    let broker = open(folder.path()).await;
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    for id in ["1", "2"] {
        let delivery = next(&mut *consumer).await;
        assert_eq!((delivery.message.id.as_str(), delivery.redelivered), (id, true));
        delivery.settle.ack().await.unwrap();
    }
    broker.publish(CHAT, message("new")).await.unwrap();
    assert!(!next(&mut *consumer).await.redelivered);
}

#[tokio::test]
async fn a_message_that_kills_its_process_is_dead_in_the_end_and_its_neighbors_live() {
    let first = tempfile::tempdir().unwrap();
    let mut broker = open(first.path()).await;
    for id in ["killer", "next"] {
        broker.publish(CHAT, message(id)).await.unwrap();
    }
    let mut folder = first;
    for _ in 0..DELIVERY_LIMIT {
        assert!(broker.dead(Channel::Chat, 10).await.unwrap().is_empty());
        let mut consumer = broker.consume(CHAT, 10).await.unwrap();
        assert_eq!(next(&mut *consumer).await.message.id, "killer");
        let copy = crashed(folder.path());
        drop(consumer);
        broker = open(copy.path()).await;
        folder = copy;
    }
    let dead = broker.dead(Channel::Chat, 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].message.id.as_str(), dead[0].reason.as_str()),
        ("killer", "delivery_limit")
    );
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    assert_eq!(next(&mut *consumer).await.message.id, "next");
}

#[tokio::test]
async fn stopping_in_order_is_no_failure_and_failures_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = open(folder.path()).await;
    broker.publish(CHAT, message("0")).await.unwrap();
    for turn in 1..DELIVERY_LIMIT {
        let mut consumer = broker.consume(CHAT, 10).await.unwrap();
        next(&mut *consumer).await.settle.retry().await.unwrap();
        for _ in 0..2 {
            let held = next(&mut *consumer).await;
            drop((held, consumer));
            consumer = broker.consume(CHAT, 10).await.unwrap();
        }
        let held = next(&mut *consumer).await;
        assert!(held.redelivered, "turn {turn}");
        broker.close().await;
        drop((held, consumer));
        broker = open(folder.path()).await;
    }
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    next(&mut *consumer).await.settle.retry().await.unwrap();
    assert!(consumer.try_recv().is_none());
    assert_eq!(broker.dead(Channel::Chat, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_replayed_letter_waits_behind_and_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path()).await;
    for id in ["bad", "good"] {
        broker.publish(CHAT, message(id)).await.unwrap();
    }
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    next(&mut *consumer).await.settle.bury("no").await.unwrap();
    let both = [(); 2].map(|()| broker.replay_dead(Channel::Chat, "bad"));
    let both = futures::future::join_all(both).await;
    assert_eq!(both.into_iter().filter(|it| *it.as_ref().unwrap()).count(), 1);
    for id in ["good", "bad"] {
        let delivery = next(&mut *consumer).await;
        assert_eq!(delivery.message.id, id);
        // Its death, and nothing else, makes the replayed one another message.
        assert_eq!(delivery.message == message(id), id == "good");
        delivery.settle.ack().await.unwrap();
    }
    assert!(consumer.try_recv().is_none());
    assert!(broker.dead(Channel::Chat, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn deleting_ends_consumers_and_what_is_declared_anew_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path()).await;
    broker.publish(CHAT, message("old")).await.unwrap();
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    let held = next(&mut *consumer).await;
    broker.delete().await.unwrap();
    assert!(timeout(PATIENCE, consumer.recv()).await.unwrap().is_none());
    assert!(matches!(held.settle.ack().await, Err(BrokerError::Gone)));
    broker.declare().await.unwrap();
    broker.publish(CHAT, message("new")).await.unwrap();
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    assert_eq!(next(&mut *consumer).await.message.id, "new");
}

#[tokio::test]
async fn a_member_that_never_listens_misses_the_oldest_only() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path()).await;
    let mut slow = broker.listen().await.unwrap();
    let all = TRANSIENT_MAX * 3;
    for id in 0..all {
        broker.broadcast(message(id)).await.unwrap();
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&(all - 1)) {
        let message = timeout(PATIENCE, slow.recv()).await.unwrap().unwrap();
        heard.push(message.id.parse::<usize>().unwrap());
    }
    assert!(heard.is_sorted());
    assert!((TRANSIENT_MAX - 1..=TRANSIENT_MAX + 200).contains(&heard.len()), "{}", heard.len());
    broker.close().await;
    assert!(timeout(PATIENCE, slow.recv()).await.unwrap().is_none());
}

#[tokio::test]
async fn followers_far_behind_catch_up_while_more_comes_and_end_with_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path()).await;
    let announce = async |from: u32, to: u32| {
        let ids: Vec<u32> = (from..to).collect();
        for some in ids.chunks(500) {
            let all = some.iter().map(|id| broker.announce(Channel::Voice, message(id)));
            futures::future::join_all(all).await.into_iter().for_each(|it| it.unwrap());
        }
    };
    announce(0, 100).await;
    let mut first = broker.follow(Channel::Voice, LogStart::First).await.unwrap();
    let mut next = broker.follow(Channel::Voice, LogStart::Next).await.unwrap();
    announce(100, 2_000).await;
    let mut places = Vec::new();
    for id in 0..3_000_u32 {
        if id == 1_000 {
            announce(2_000, 3_000).await;
        }
        let (place, seen) = timeout(PATIENCE, first.recv()).await.unwrap().unwrap();
        assert_eq!(seen, message(id));
        places.push(place);
    }
    assert!(places.is_sorted_by(|one, two| one < two));
    for id in 100..3_000_u32 {
        assert_eq!(timeout(PATIENCE, next.recv()).await.unwrap().unwrap().1, message(id));
    }
    let at = LogStart::Offset(places[2_990]);
    let mut tail = broker.follow(Channel::Voice, at).await.unwrap();
    for id in 2_990..3_000_u32 {
        assert_eq!(timeout(PATIENCE, tail.recv()).await.unwrap().unwrap().1, message(id));
    }
    broker.close().await;
    assert!(timeout(PATIENCE, tail.recv()).await.unwrap().is_none());
    // Another life goes on above.
    let broker = open(folder.path()).await;
    let mut tail = broker.follow(Channel::Voice, LogStart::Next).await.unwrap();
    broker.announce(Channel::Voice, message("after")).await.unwrap();
    let (place, seen) = timeout(PATIENCE, tail.recv()).await.unwrap().unwrap();
    assert_eq!(seen.id, "after");
    assert!(place > places[2_999]);
}

#[tokio::test]
async fn damaged_and_newer_files_are_refused_by_name() {
    for file in ["inbound.db", "outbound.db"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        let broker = open(folder.path()).await;
        for id in 0..200 {
            broker.publish(CHAT, message(id)).await.unwrap();
            broker.announce(Channel::Chat, message(id)).await.unwrap();
        }
        broker.close().await;
        let whole = std::fs::read(&path).unwrap();

        let mut newer = whole.clone();
        // The place of `user_version` in the file's head.
        newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
        std::fs::write(&path, newer).unwrap();
        let line = refused(folder.path()).await;
        assert!(line.contains(file) && line.contains("newer"), "{line}");

        let mut damaged = whole.clone();
        let middle = damaged.len() / 2 / 4_096 * 4_096;
        damaged[middle..middle + 4_096].fill(0x55);
        std::fs::write(&path, damaged).unwrap();
        let line = refused(folder.path()).await;
        assert!(line.contains(file) && !line.contains('\n'), "{line}");

        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let line = refused(folder.path()).await;
        assert!(line.contains(file) && !line.contains('\n'), "{line}");

        std::fs::write(&path, &whole).unwrap();
        open(folder.path()).await.close().await;
    }
}

/// One life of the random run: what is in hand, by number.
struct Life {
    broker: Arc<Embedded>,
    consumer: Box<dyn Consumer>,
    held: Vec<(u32, Delivery)>,
    /// The last number that this consumer gave for the first time.
    last: Option<u32>,
}

impl Life {
    async fn begin(path: &Path) -> Self {
        let broker = open(path).await;
        let consumer = broker.consume(CHAT, 7).await.unwrap();
        Self { broker, consumer, held: Vec::new(), last: None }
    }
}

/// Publishes, takes, settles, dies, closes at random: nothing confirmed is
/// lost, nothing acked comes back, what comes first comes in order, and what
/// fails too often is a dead letter.
#[tokio::test]
async fn whatever_happens_each_message_is_acked_or_dead() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut folder = tempfile::tempdir().unwrap();
    let mut life = Life::begin(folder.path()).await;
    let (mut published, mut acked) = (0_u32, std::collections::BTreeSet::new());
    for _ in 0..3_000 {
        match random.random_range(0..1_000) {
            0..400 => {
                life.broker.publish(CHAT, message(published)).await.unwrap();
                published += 1;
            }
            400..700 => {
                let Some(delivery) = life.consumer.try_recv() else { continue };
                let number: u32 = delivery.message.id.parse().unwrap();
                assert!(!acked.contains(&number), "{number} was acked");
                assert!(life.held.iter().all(|(held, _)| *held != number), "{number} is held");
                if !delivery.redelivered {
                    assert!(life.last.is_none_or(|last| number > last), "order");
                    life.last = Some(number);
                }
                life.held.push((number, delivery));
                assert!(life.held.len() <= 7);
            }
            700..960 if !life.held.is_empty() => {
                let which = random.random_range(0..life.held.len());
                let (number, delivery) = life.held.swap_remove(which);
                if random.random_bool(0.9) {
                    delivery.settle.ack().await.unwrap();
                    acked.insert(number);
                } else {
                    delivery.settle.retry().await.unwrap();
                }
            }
            960..985 => {
                life.held.clear();
                drop(life.consumer);
                life.consumer = life.broker.consume(CHAT, 7).await.unwrap();
            }
            985..995 => {
                life.broker.close().await;
                life = Life::begin(folder.path()).await;
            }
            995..1_000 => {
                let copy = crashed(folder.path());
                life = Life::begin(copy.path()).await;
                folder = copy;
            }
            _ => {}
        }
    }
    life.held.clear();
    drop(life.consumer);
    let dead = life.broker.dead(Channel::Chat, usize::MAX).await.unwrap();
    let mut ended: Vec<u32> = dead.iter().map(|it| it.message.id.parse().unwrap()).collect();
    assert!(dead.iter().all(|it| it.reason == "delivery_limit"));
    ended.extend(&acked);
    let mut consumer = life.broker.consume(CHAT, 7).await.unwrap();
    let mut before = None;
    while ended.len() < published as usize {
        let delivery = next(&mut *consumer).await;
        let number: u32 = delivery.message.id.parse().unwrap();
        assert!(before.is_none_or(|before| number > before), "order");
        before = Some(number);
        ended.push(number);
        delivery.settle.ack().await.unwrap();
    }
    ended.sort_unstable();
    assert_eq!(ended, (0..published).collect::<Vec<_>>(), "each once");
}
