//! What every broker must do, whatever it is made of. Each scenario asks for a
//! fresh broker and knows it only by its trait.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Channel, Timestamp};
use protocol::{Death, names};
use tokio::time::timeout;
use warren::broker::{
    Broker, BrokerError, BrokerState, Config, Consumer, DELIVERY_LIMIT, DeadLetter, Delivery,
    LogReader, LogStart, Message, Partition,
};

/// Makes brokers that have nothing in common but their kind.
#[async_trait]
pub(crate) trait Factory: Send + Sync {
    /// A broker that is up, with nothing declared.
    async fn fresh(&self, config: Config) -> Arc<dyn Broker>;
}

/// Longer than anything here should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const VOICE: Partition = Partition { channel: Channel::Voice, index: 0 };
pub(crate) const CHAT: Partition = Partition { channel: Channel::Chat, index: 1 };

pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Tries until it gives something.
pub(crate) async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    soon(what, async {
        loop {
            tick.tick().await;
            if let Some(found) = attempt().await {
                return found;
            }
        }
    })
    .await
}

pub(crate) async fn state_is(
    broker: &dyn Broker,
    what: &str,
    wanted: impl Fn(&BrokerState) -> bool,
) {
    let mut state = broker.state();
    let reached = soon(what, state.wait_for(|state| wanted(state))).await;
    assert!(reached.is_ok());
}

pub(crate) fn small() -> Config {
    Config { partitions: 2, ..Config::default() }
}

pub(crate) fn message(id: &str) -> Message {
    Message {
        id: id.to_owned(),
        kind: "ticket.opened".to_owned(),
        app_id: "pbx".to_owned(),
        at: Timestamp::from_millis(1_769_860_800_007),
        headers: BTreeMap::from([
            ("x-key".to_owned(), format!("key of {id} \u{e4}\u{1f980}")),
            ("x-channel".to_owned(), "voice".to_owned()),
        ]),
        reply_to: Some("aggregator-1".to_owned()),
        body: format!("{{\"id\":\"{id}\"}}").into_bytes().into(),
    }
}

async fn declared(factory: &dyn Factory, config: Config) -> Arc<dyn Broker> {
    let broker = factory.fresh(config).await;
    broker.declare().await.unwrap();
    broker
}

async fn publish(broker: &dyn Broker, to: Partition, ids: &[&str]) {
    for id in ids {
        broker.publish(to, message(id)).await.unwrap();
    }
}

pub(crate) async fn next(consumer: &mut dyn Consumer) -> Delivery {
    soon("a delivery", consumer.recv()).await.expect("the consumer is alive")
}

async fn next_of_log(reader: &mut dyn LogReader) -> (u64, Message) {
    soon("a message of the log", reader.recv()).await.expect("the reader is alive")
}

async fn the_dead(broker: &dyn Broker, channel: Channel, count: usize) -> Vec<DeadLetter> {
    until("dead letters", async || {
        let dead = broker.dead(channel, 100).await.unwrap();
        (dead.len() >= count).then_some(dead)
    })
    .await
}

pub(crate) async fn what_is_published_is_consumed_in_order_and_unchanged(factory: &dyn Factory) {
    let broker = declared(factory, small()).await;
    let ids: Vec<String> = (0..300).map(|number| format!("m{number}")).collect();
    for id in &ids {
        broker.publish(VOICE, message(id)).await.unwrap();
    }
    broker.publish(CHAT, message("elsewhere")).await.unwrap();
    let mut consumer = broker.consume(VOICE, 50).await.unwrap();
    for id in &ids {
        let delivery = next(&mut *consumer).await;
        assert_eq!(delivery.message, message(id));
        assert!(!delivery.redelivered);
        delivery.settle.ack().await.unwrap();
    }
    assert!(consumer.try_recv().is_none());
    let bare = Message {
        headers: BTreeMap::new(),
        reply_to: None,
        body: Vec::new().into(),
        ..message("bare")
    };
    broker.publish(VOICE, bare.clone()).await.unwrap();
    assert_eq!(next(&mut *consumer).await.message, bare);
}

pub(crate) async fn one_consumer_gets_all_and_the_next_one_takes_over_in_order(
    factory: &dyn Factory,
) {
    let broker = declared(factory, small()).await;
    let mut first = broker.consume(VOICE, 10).await.unwrap();
    publish(&*broker, VOICE, &["0", "1", "2", "3", "4", "5"]).await;
    next(&mut *first).await.settle.ack().await.unwrap();
    let held = next(&mut *first).await;
    assert_eq!(held.message.id, "1");
    let mut second = broker.consume(VOICE, 10).await.unwrap();
    // What was in hand can still be settled after the consumer is gone.
    let in_hand = next(&mut *first).await;
    assert_eq!(in_hand.message.id, "2");
    first.cancel().await;
    assert!(first.recv().await.is_none());
    drop(first);
    held.settle.ack().await.unwrap();
    assert!(second.try_recv().is_none(), "the first one still holds the queue");
    drop(in_hand);
    for id in ["2", "3", "4", "5"] {
        let delivery = next(&mut *second).await;
        assert_eq!(delivery.message.id, id);
        assert!(delivery.redelivered || id != "2", "{id} was seen before");
        delivery.settle.ack().await.unwrap();
    }
}

pub(crate) async fn what_is_acked_together_is_done_and_nothing_behind_it(factory: &dyn Factory) {
    let broker = declared(factory, small()).await;
    let mut first = broker.consume(VOICE, 10).await.unwrap();
    publish(&*broker, VOICE, &["0", "1", "2", "3", "4", "5"]).await;
    let mut settles = Vec::new();
    for _ in 0..6 {
        settles.push(next(&mut *first).await.settle);
    }
    let behind = settles.split_off(4);
    settles.remove(1).bury("bad").await.unwrap();
    settles.pop().unwrap().ack_with(settles).await.unwrap();
    drop((first, behind));
    let mut second = broker.consume(VOICE, 10).await.unwrap();
    for id in ["4", "5"] {
        let delivery = next(&mut *second).await;
        assert_eq!(delivery.message.id, id);
        delivery.settle.ack().await.unwrap();
    }
    let dead: Vec<_> = the_dead(&*broker, Channel::Voice, 1).await;
    assert_eq!(dead.iter().map(|dead| dead.message.id.as_str()).collect::<Vec<_>>(), ["1"]);
}

pub(crate) async fn what_keeps_failing_becomes_a_dead_letter_with_its_reason(
    factory: &dyn Factory,
) {
    let broker = declared(factory, small()).await;
    publish(&*broker, CHAT, &["bad"]).await;
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    let mut failed = 0;
    let dead = until("a dead letter", async || {
        while let Ok(Some(delivery)) = timeout(Duration::from_millis(200), consumer.recv()).await {
            assert_eq!(delivery.message, message("bad"));
            assert_eq!(delivery.redelivered, failed > 0);
            delivery.settle.retry().await.unwrap();
            failed += 1;
        }
        broker.dead(Channel::Chat, 10).await.unwrap().pop()
    })
    .await;
    // RabbitMQ counts redeliveries only.
    assert!((DELIVERY_LIMIT..=DELIVERY_LIMIT + 1).contains(&failed), "failed {failed} times");
    assert_eq!(dead.reason, "delivery_limit");
    assert_eq!(dead.message, message("bad"));
    assert_eq!(dead.partition, Some(CHAT));
}

pub(crate) async fn a_buried_message_is_a_dead_letter_at_once(factory: &dyn Factory) {
    let broker = declared(factory, small()).await;
    publish(&*broker, CHAT, &["bad", "good"]).await;
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    next(&mut *consumer).await.settle.bury("body isn't JSON").await.unwrap();
    next(&mut *consumer).await.settle.ack().await.unwrap();
    let dead = the_dead(&*broker, Channel::Chat, 1).await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].message, message("bad"));
    assert_eq!(dead[0].reason, "body isn't JSON");
    assert_eq!(dead[0].partition, Some(CHAT));
    assert!(dead[0].at.is_some());
    assert!(broker.dead(Channel::Voice, 10).await.unwrap().is_empty());
    // Looking takes nothing away.
    assert_eq!(the_dead(&*broker, Channel::Chat, 1).await.len(), 1);
}

pub(crate) async fn a_message_that_waited_too_long_is_a_dead_letter(factory: &dyn Factory) {
    let ttl = [Duration::from_millis(300), Duration::from_secs(600), Duration::from_secs(600)];
    let broker = declared(factory, Config { ttl, ..small() }).await;
    publish(&*broker, VOICE, &["0", "1"]).await;
    publish(&*broker, CHAT, &["patient"]).await;
    let dead = the_dead(&*broker, Channel::Voice, 2).await;
    let ids: Vec<&str> = dead.iter().map(|letter| letter.message.id.as_str()).collect();
    assert_eq!(ids, ["0", "1"]);
    assert_eq!(dead[0].message, message("0"));
    assert_eq!(dead[0].reason, "expired");
    assert_eq!(dead[0].partition, Some(VOICE));
    assert!(broker.dead(Channel::Chat, 10).await.unwrap().is_empty());
}

pub(crate) async fn dead_letters_are_replayed_and_dropped_by_id(factory: &dyn Factory) {
    let broker = declared(factory, small()).await;
    publish(&*broker, CHAT, &["0", "1", "2", "3"]).await;
    let mut consumer = broker.consume(CHAT, 10).await.unwrap();
    for _ in 0..4 {
        next(&mut *consumer).await.settle.bury("later").await.unwrap();
    }
    the_dead(&*broker, Channel::Chat, 4).await;
    assert!(!broker.replay_dead(Channel::Chat, "unknown").await.unwrap());
    assert!(!broker.replay_dead(Channel::Voice, "2").await.unwrap());
    assert!(broker.replay_dead(Channel::Chat, "2").await.unwrap());
    let mut again = next(&mut *consumer).await;
    let deaths = again.message.headers.remove(names::X_DEATHS).unwrap();
    let deaths: Vec<Death> = serde_json::from_str(&deaths).unwrap();
    assert_eq!(deaths.len(), 1);
    assert_eq!(deaths[0].reason, "later");
    assert_eq!(again.message, message("2"));
    again.settle.ack().await.unwrap();
    let found = broker.find_dead(Channel::Chat, "3").await.unwrap();
    assert_eq!(found.map(|letter| letter.message), Some(message("3")));
    assert!(broker.find_dead(Channel::Chat, "2").await.unwrap().is_none());
    assert!(broker.drop_dead(Channel::Chat, "0").await.unwrap());
    assert!(!broker.drop_dead(Channel::Chat, "0").await.unwrap());
    assert!(!broker.replay_dead(Channel::Chat, "2").await.unwrap());
    let dead = the_dead(&*broker, Channel::Chat, 2).await;
    let ids: Vec<&str> = dead.iter().map(|letter| letter.message.id.as_str()).collect();
    assert_eq!(ids, ["1", "3"]);
    assert_eq!(broker.dead(Channel::Chat, 1).await.unwrap().len(), 1);
}

pub(crate) async fn a_full_queue_refuses_until_there_is_room(factory: &dyn Factory) {
    let broker = declared(factory, Config { queue_messages_max: 10, ..small() }).await;
    let mut taken = 0;
    let refused = loop {
        match broker.publish(CHAT, message(&taken.to_string())).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1_000, "no bound");
    };
    assert!(matches!(refused, BrokerError::Full(_)), "{refused}");
    assert!(taken >= 10, "refused after {taken}");
    // Other queues have room.
    publish(&*broker, VOICE, &["elsewhere"]).await;
    let mut consumer = broker.consume(CHAT, 100).await.unwrap();
    for number in 0..taken {
        let delivery = next(&mut *consumer).await;
        assert_eq!(delivery.message.id, number.to_string());
        delivery.settle.ack().await.unwrap();
    }
    until("room", async || broker.publish(CHAT, message("more")).await.ok()).await;
}

pub(crate) async fn a_log_is_read_by_everybody_from_wherever_they_like(factory: &dyn Factory) {
    let broker = declared(factory, small()).await;
    let channel = Channel::Tickets;
    let mut live = broker.follow(channel, LogStart::Next).await.unwrap();
    for number in 0..250 {
        broker.announce(channel, message(&number.to_string())).await.unwrap();
    }
    broker.announce(Channel::Voice, message("elsewhere")).await.unwrap();
    let mut last = None;
    let mut offset_of_100 = 0;
    for number in 0..250 {
        let (offset, seen) = next_of_log(&mut *live).await;
        assert_eq!(seen, message(&number.to_string()));
        assert!(last < Some(offset), "{offset} after {last:?}");
        last = Some(offset);
        if number == 100 {
            offset_of_100 = offset;
        }
    }
    for _ in 0..2 {
        let mut all = broker.follow(channel, LogStart::First).await.unwrap();
        for number in 0..250 {
            assert_eq!(next_of_log(&mut *all).await.1.id, number.to_string());
        }
    }
    let mut tail = broker.follow(channel, LogStart::Offset(offset_of_100)).await.unwrap();
    for number in 100..250 {
        assert_eq!(next_of_log(&mut *tail).await.1.id, number.to_string());
    }
    let mut new = broker.follow(channel, LogStart::Next).await.unwrap();
    broker.announce(channel, message("new")).await.unwrap();
    for reader in [&mut live, &mut new, &mut tail] {
        assert_eq!(next_of_log(&mut **reader).await.1.id, "new");
    }
}

pub(crate) async fn announcements_of_one_task_stay_in_order(factory: &dyn Factory) {
    let broker = declared(factory, small()).await;
    let mut reader = broker.follow(Channel::Chat, LogStart::Next).await.unwrap();
    let all: Vec<Message> = (0..400).map(|number| message(&number.to_string())).collect();
    let sent = all.iter().map(|message| broker.announce(Channel::Chat, message.clone()));
    for outcome in futures::future::join_all(sent).await {
        outcome.unwrap();
    }
    for message in &all {
        assert_eq!(next_of_log(&mut *reader).await.1.id, message.id);
    }
}

pub(crate) async fn every_member_hears_a_broadcast(factory: &dyn Factory) {
    let broker = declared(factory, small()).await;
    broker.broadcast(message("nobody listens")).await.unwrap();
    let mut members = Vec::new();
    for _ in 0..5 {
        members.push(broker.listen().await.unwrap());
    }
    for id in ["0", "1"] {
        broker.broadcast(message(id)).await.unwrap();
    }
    for member in &mut members {
        for id in ["0", "1"] {
            assert_eq!(soon("a broadcast", member.recv()).await, Some(message(id)));
        }
    }
    drop(members.pop());
    broker.broadcast(message("2")).await.unwrap();
    for member in &mut members {
        assert_eq!(soon("a broadcast", member.recv()).await.map(|it| it.id), Some("2".to_owned()));
    }
}

pub(crate) async fn a_reply_reaches_its_member_and_nobody_else(factory: &dyn Factory) {
    let broker = declared(factory, small()).await;
    broker.reply("nobody", message("lost")).await.unwrap();
    let mut one = broker.replies("one").await.unwrap();
    let mut two = broker.replies("two").await.unwrap();
    broker.reply("one", message("for one")).await.unwrap();
    broker.reply("two", message("for two")).await.unwrap();
    assert_eq!(soon("a reply", one.recv()).await, Some(message("for one")));
    assert_eq!(soon("a reply", two.recv()).await, Some(message("for two")));
    assert!(one.try_recv().is_err());
}

pub(crate) async fn without_a_topology_nothing_is_taken(factory: &dyn Factory) {
    let broker = factory.fresh(small()).await;
    assert!(broker.topology().await.unwrap().iter().all(|item| item.status == "missing"));
    for outcome in [
        broker.publish(VOICE, message("0")).await,
        broker.announce(Channel::Voice, message("0")).await,
        broker.consume(VOICE, 1).await.map(drop),
        broker.follow(Channel::Voice, LogStart::First).await.map(drop),
    ] {
        let error = outcome.expect_err("there is no queue");
        assert!(matches!(error, BrokerError::Unroutable(_)), "{error:?}");
    }
    broker.declare().await.unwrap();
    broker.declare().await.unwrap();
    publish(&*broker, VOICE, &["1"]).await;
    assert!(broker.topology().await.unwrap().iter().all(|item| item.status == "present"));
    broker.delete().await.unwrap();
    assert!(broker.topology().await.unwrap().iter().all(|item| item.status == "missing"));
    assert!(broker.publish(VOICE, message("2")).await.is_err());
}

pub(crate) async fn an_ack_that_comes_too_late_says_so(factory: &dyn Factory) {
    let broker = declared(factory, small()).await;
    publish(&*broker, VOICE, &["0", "1", "2"]).await;
    let mut consumer = broker.consume(VOICE, 10).await.unwrap();
    let deliveries = [next(&mut *consumer).await, next(&mut *consumer).await];
    broker.close().await;
    for delivery in deliveries {
        let error = delivery.settle.ack().await.expect_err("nobody is told");
        assert!(matches!(error, BrokerError::Gone), "{error:?}");
    }
    assert!(soon("the consumer's end", consumer.recv()).await.is_none());
    assert!(broker.publish(VOICE, message("3")).await.is_err());
}
