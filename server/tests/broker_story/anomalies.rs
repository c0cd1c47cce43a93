//! What only RabbitMQ can suffer: nodes that die, freeze and run out of
//! memory, queues that vanish or were declared by somebody else, and the
//! traps of the client library.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use domain::Channel;
use tokio::time::timeout;
use warren::broker::amqp::{self, Amqp};
use warren::broker::{Broker, BrokerError, BrokerState, Config, LogStart, Partition};

use crate::story::{CHAT, VOICE, message, next, small, soon, state_is, until};
use crate::{CALM, connect, fresh_url, node};

fn down(state: &BrokerState) -> bool {
    matches!(state, BrokerState::Down(_))
}

async fn up(broker: &Amqp) {
    state_is(broker, "the broker to be up", |state| *state == BrokerState::Up).await;
}

/// Runs something that takes long, away from the tasks.
async fn away<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn declared() -> Arc<Amqp> {
    let broker = connect(&fresh_url(), small()).await;
    broker.declare().await.unwrap();
    broker
}

/// Publishes numbered messages, each until it is confirmed.
fn publish_on_and_on(
    broker: Arc<Amqp>,
    stop: Arc<AtomicBool>,
    confirmed: Arc<AtomicUsize>,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            while broker.publish(VOICE, message(&number.to_string())).await.is_err() {}
            broker.announce(Channel::Voice, message(&number.to_string())).await.ok();
            confirmed.store(number + 1, Ordering::Relaxed);
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_confirmed_message_is_lost_when_the_broker_is_killed_and_comes_back() {
    let _torment = CALM.write().await;
    let broker = declared().await;
    let (stop, confirmed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut consumer = broker.consume(VOICE, 10).await.unwrap();
    let held = {
        broker.publish(VOICE, message("held")).await.unwrap();
        next(&mut *consumer).await
    };
    let mut reader = broker.follow(Channel::Voice, LogStart::Next).await.unwrap();
    let mut members = broker.listen().await.unwrap();
    let publishing = publish_on_and_on(broker.clone(), stop.clone(), confirmed.clone());
    // A queue whose every replica dies at birth may be lost: let it grow old.
    let more_than = async |count| {
        let count = confirmed.load(Ordering::Relaxed) + count;
        until("confirms", async || (confirmed.load(Ordering::Relaxed) > count).then_some(())).await;
    };
    let age = tokio::time::Instant::now();
    while age.elapsed() < Duration::from_secs(2) {
        more_than(50).await;
    }
    away(|| node().kill(0).unwrap()).await;
    state_is(&*broker, "the death to be noticed", down).await;
    soon("the consumer's end", async { while consumer.recv().await.is_some() {} }).await;
    soon("the reader's end", async { while reader.recv().await.is_some() {} }).await;
    soon("the members' end", async { while members.recv().await.is_some() {} }).await;
    assert!(matches!(held.settle.ack().await, Err(BrokerError::Gone)));
    let refused = broker.broadcast(message("now")).await.expect_err("nobody is there");
    assert!(matches!(refused, BrokerError::Down(_)), "{refused:?}");
    away(|| node().start_node(0).unwrap()).await;
    up(&broker).await;
    more_than(100).await;
    stop.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    let count = confirmed.load(Ordering::Relaxed);
    let mut missing: HashSet<String> = (0..count).map(|number| number.to_string()).collect();
    missing.insert("held".to_owned());
    let mut consumer = broker.consume(VOICE, 200).await.unwrap();
    soon("every message", async {
        while !missing.is_empty() {
            let delivery = next(&mut *consumer).await;
            missing.remove(&delivery.message.id);
            delivery.settle.ack().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_blocks_publishing_only_and_passes() {
    let _torment = CALM.write().await;
    let broker = declared().await;
    let mut consumer = broker.consume(VOICE, 10).await.unwrap();
    broker.publish(VOICE, message("before")).await.unwrap();
    away(|| node().ctl(0, &["set_vm_memory_high_watermark", "0.000001"]).unwrap()).await;
    let refused =
        until("a refusal", async || broker.publish(CHAT, message("refused")).await.err()).await;
    assert!(matches!(refused, BrokerError::Blocked(_)), "{refused:?}");
    assert!(matches!(&*broker.state().borrow(), BrokerState::Blocked(_)));
    // From now on at once.
    let fast = timeout(Duration::from_secs(1), broker.publish(VOICE, message("refused"))).await;
    assert!(matches!(fast, Ok(Err(BrokerError::Blocked(_)))), "{fast:?}");
    let delivery = next(&mut *consumer).await;
    assert_eq!(delivery.message.id, "before");
    delivery.settle.ack().await.unwrap();
    away(|| node().ctl(0, &["set_vm_memory_high_watermark", "0.4"]).unwrap()).await;
    up(&broker).await;
    broker.publish(VOICE, message("after")).await.unwrap();
    while next(&mut *consumer).await.message.id != "after" {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_while_a_message_is_buried_harms_none_of_its_neighbors() {
    let _torment = CALM.write().await;
    let broker = declared().await;
    for id in ["bad", "good", "better"] {
        broker.publish(VOICE, message(id)).await.unwrap();
    }
    away(|| node().ctl(0, &["set_vm_memory_high_watermark", "0.000001"]).unwrap()).await;
    until("a refusal", async || broker.publish(CHAT, message("refused")).await.err()).await;
    // As a backend does: whatever goes wrong, it takes the queue anew.
    let work = async {
        let mut done = Vec::new();
        loop {
            let mut consumer = broker.consume(VOICE, 10).await.unwrap();
            while let Some(delivery) = consumer.recv().await {
                let id = delivery.message.id;
                if id != "bad" {
                    delivery.settle.ack().await.unwrap();
                    done.push(id);
                } else if delivery.settle.bury("nonsense").await.is_err() {
                    break;
                }
                if done.len() == 2 {
                    return done;
                }
            }
        }
    };
    let mut work = std::pin::pin!(work);
    // More than enough for every try that a message has.
    let during = timeout(Duration::from_secs(3), &mut work).await;
    assert!(during.is_err(), "nothing is buried while the broker takes nothing");
    away(|| node().ctl(0, &["set_vm_memory_high_watermark", "0.4"]).unwrap()).await;
    assert_eq!(soon("the good ones", work).await, ["good", "better"]);
    let dead = broker.dead(Channel::Voice, 10).await.unwrap();
    let dead: Vec<_> = dead.iter().map(|letter| (&*letter.message.id, &*letter.reason)).collect();
    assert_eq!(dead, [("bad", "nonsense")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_noticed_and_used_again_when_it_wakes() {
    let _torment = CALM.write().await;
    let broker = declared().await;
    let mut consumer = broker.consume(VOICE, 10).await.unwrap();
    broker.publish(VOICE, message("before")).await.unwrap();
    let held = next(&mut *consumer).await;
    node().pause(0).unwrap();
    let refused = soon("a refusal", broker.publish(VOICE, message("frozen"))).await;
    assert!(matches!(refused, Err(BrokerError::Down(_))), "{refused:?}");
    state_is(&*broker, "the frost to be noticed", down).await;
    assert!(soon("the consumer's end", consumer.recv()).await.is_none());
    assert!(matches!(held.settle.ack().await, Err(BrokerError::Gone)));
    node().resume(0).unwrap();
    up(&broker).await;
    broker.publish(VOICE, message("after")).await.unwrap();
    let mut consumer = broker.consume(VOICE, 10).await.unwrap();
    let again = next(&mut *consumer).await;
    assert_eq!(again.message.id, "before");
    assert!(again.redelivered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_deleted_under_its_consumers_is_noticed() {
    let _calm = CALM.read().await;
    let broker = declared().await;
    let mut consumers = Vec::new();
    for &channel in Channel::ALL {
        for index in 0..2 {
            consumers.push(broker.consume(Partition { channel, index }, 10).await.unwrap());
        }
    }
    let mut reader = broker.follow(Channel::Chat, LogStart::First).await.unwrap();
    broker.delete().await.unwrap();
    for consumer in &mut consumers {
        assert!(soon("the consumer's end", consumer.recv()).await.is_none());
    }
    assert!(soon("the reader's end", reader.recv()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_declared_otherwise_is_told_exactly() {
    let _calm = CALM.read().await;
    let url = fresh_url();
    connect(&url, small()).await.declare().await.unwrap();
    let other = connect(&url, Config { queue_messages_max: 7, ..small() }).await;
    let refused = other.declare().await.expect_err("the bound differs");
    assert!(matches!(&refused, BrokerError::Misdeclared(why) if why.contains("x-max-length")));
    for item in other.topology().await.unwrap() {
        if item.name.starts_with("warren.in.") {
            assert!(item.status.contains("x-max-length"), "{item:?}");
        } else {
            assert_eq!(item.status, "present", "{item:?}");
        }
    }
    let fewer = connect(&url, Config { partitions: 1, ..small() }).await;
    assert!(matches!(fewer.declare().await, Err(BrokerError::Misdeclared(_))));
    let more = connect(&url, Config { partitions: 3, ..small() }).await;
    let items = more.topology().await.unwrap();
    assert_eq!(items.iter().filter(|item| item.status == "missing").count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirms_are_never_taken_for_those_of_another_message() {
    let _calm = CALM.read().await;
    let config = amqp::Config {
        topology: small(),
        publish_timeout: Duration::from_millis(1_500),
        ..amqp::Config::new(vec![fresh_url()])
    };
    let broker = amqp::connect(config).await.unwrap();
    broker.declare().await.unwrap();
    // Partition 4 doesn't exist, and shares its channel with partition 0.
    let nowhere = Partition { channel: Channel::Voice, index: 4 };
    let mut confirmed = HashSet::new();
    for round in 0..5 {
        let publishes = (0..800).map(|number| {
            let to = if number % 40 == 20 { nowhere } else { VOICE };
            let (broker, id) = (broker.clone(), format!("{round}.{number}"));
            async move { (to == nowhere, broker.publish(to, message(&id)).await, id) }
        });
        for (lost, outcome, id) in futures::future::join_all(publishes).await {
            match outcome {
                Ok(()) => {
                    assert!(!lost, "{id} has no queue");
                    confirmed.insert(id);
                }
                Err(error) => {
                    assert!(lost, "{id}: {error}");
                    assert!(matches!(error, BrokerError::Unroutable(_)), "{error:?}");
                }
            }
        }
    }
    assert_eq!(confirmed.len(), 5 * 780);
    let mut consumer = broker.consume(VOICE, 100).await.unwrap();
    while !confirmed.is_empty() {
        let delivery = next(&mut *consumer).await;
        confirmed.remove(&delivery.message.id);
        delivery.settle.ack().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_addresses_are_passed_over_and_wrong_ones_named() {
    let _calm = CALM.read().await;
    // Nobody listens there: it was free a moment ago.
    let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = bound.local_addr().unwrap().port();
    drop(bound);
    let dead = format!("amqp://guest:guest@127.0.0.1:{port}");
    let config = amqp::Config::new(vec![dead.clone(), fresh_url()]);
    let broker = amqp::connect(config).await.unwrap();
    up(&broker).await;
    let lonely = timeout(Duration::from_secs(5), amqp::connect(amqp::Config::new(vec![dead])));
    let lonely = lonely.await.expect("returns at once").unwrap();
    assert!(down(&lonely.state().borrow()));
    let wrong = amqp::Config::new(vec!["amqp://x:secret@[::1]".to_owned()]);
    let error = amqp::connect(wrong).await.map(drop).expect_err("not an address");
    assert_eq!(error.url, "amqp://[::1]");
    assert!(amqp::connect(amqp::Config::new(Vec::new())).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topology_that_is_deleted_under_us_is_made_anew() {
    let _calm = CALM.read().await;
    let url = fresh_url();
    let broker = connect(&url, small()).await;
    broker.declare().await.unwrap();
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    let mut log = broker.follow(Channel::Chat, LogStart::Next).await.unwrap();
    let operator = connect(&url, small()).await;
    operator.delete().await.unwrap();
    operator.close().await;
    assert!(soon("the consumer's end", consumer.recv()).await.is_none());
    assert!(soon("the log's end", log.recv()).await.is_none());
    until("a publish", async || broker.publish(CHAT, message("after")).await.ok()).await;
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    let delivery = soon("a delivery", consumer.recv()).await.unwrap();
    assert_eq!(delivery.message.id, "after");
    delivery.settle.ack().await.unwrap();
    until("an announcement", async || broker.announce(Channel::Chat, message("told")).await.ok())
        .await;
    let items = broker.topology().await.unwrap();
    assert!(items.iter().all(|item| item.status == "present"), "{items:?}");
}

/// Makes the queue forget its consumers; the channels that they are on aren't told.
async fn forget_consumers(url: &str, queue: &str) {
    let vhost = url.rsplit('/').next().unwrap().to_owned();
    let forget = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup({{resource, <<\"{vhost}\">>, queue, <<\"{queue}\">>}}), \
         Server = amqqueue:get_pid(Q), \
         {{ok, {{_, #{{}} = Consumers}}, _}} = \
             ra:local_query(Server, fun rabbit_fifo:query_consumers/1), \
         1 = maps:size(Consumers), \
         [{{ok, _, _}} = ra:process_command(Server, rabbit_fifo:make_checkout(Id, cancel, #{{}})) \
             || Id <- maps:keys(Consumers)]."
    );
    away(move || node().ctl(0, &["eval", &forget]).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_its_queue_has_forgotten_is_noticed() {
    let _calm = CALM.read().await;
    let url = fresh_url();
    let broker = connect(&url, small()).await;
    broker.declare().await.unwrap();
    let mut consumer = broker.consume(VOICE, 10).await.unwrap();
    broker.publish(VOICE, message("before")).await.unwrap();
    next(&mut *consumer).await.settle.ack().await.unwrap();
    forget_consumers(&url, "warren.in.voice.0").await;
    broker.publish(VOICE, message("after")).await.unwrap();
    assert!(soon("the consumer's end", consumer.recv()).await.is_none());
    let mut consumer = broker.consume(VOICE, 10).await.unwrap();
    let delivery = next(&mut *consumer).await;
    assert_eq!(delivery.message.id, "after");
    assert!(!delivery.redelivered);
    delivery.settle.ack().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_waits_behind_a_stalled_consumer_is_opened_anew_ever_later() {
    let _calm = CALM.read().await;
    let url = fresh_url();
    let (stalled, broker) = (connect(&url, small()).await, connect(&url, small()).await);
    stalled.declare().await.unwrap();
    let mut active = stalled.consume(VOICE, 1).await.unwrap();
    for id in ["first", "second"] {
        broker.publish(VOICE, message(id)).await.unwrap();
    }
    let held = next(&mut *active).await;
    // It asks for no more, so that what comes is what it doesn't take.
    let mut waiting = broker.consume(VOICE, 10).await.unwrap();
    assert!(soon("the first one's end", waiting.recv()).await.is_none());
    drop(waiting);
    let mut waiting = broker.consume(VOICE, 10).await.unwrap();
    // Longer than the first one had.
    let second = timeout(Duration::from_secs(13), waiting.recv()).await;
    assert!(second.is_err(), "it waits for longer now");
    // The active one is none of this's business: what it holds is its own.
    held.settle.ack().await.unwrap();
    let second = next(&mut *active).await;
    assert!(!second.redelivered);
    drop((second, active));
    let delivery = next(&mut *waiting).await;
    assert_eq!(delivery.message.id, "second");
    delivery.settle.ack().await.unwrap();
}
