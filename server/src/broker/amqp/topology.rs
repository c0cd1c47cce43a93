//! The exchanges and queues, as they must be, and as they are.

use domain::Channel;
use lapin::ExchangeKind;
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use protocol::names;

use super::connection::{Fault, Live};
use crate::broker::{BrokerError, Config, DELIVERY_LIMIT, TopologyItem};

/// Bytes of a log that are kept, and of one of its segments.
const LOG_BYTES_MAX: i64 = 5_000_000_000;
const LOG_SEGMENT_BYTES: i64 = 50_000_000;
const LOG_AGE_MAX: &str = "7D";
/// Dead letters are looked at again and again, and each look counts as a
/// delivery. RabbitMQ 4 has a limit of 20 unless told otherwise.
const DEAD_DELIVERY_LIMIT: i64 = 1_000_000_000;

struct Exchange {
    name: &'static str,
    kind: ExchangeKind,
}

struct Queue {
    name: String,
    kind: &'static str,
    arguments: FieldTable,
    exchange: &'static str,
    key: String,
}

fn exchanges() -> [Exchange; 4] {
    [
        Exchange { name: names::IN, kind: ExchangeKind::Direct },
        Exchange { name: names::OUT, kind: ExchangeKind::Direct },
        Exchange { name: names::DEAD, kind: ExchangeKind::Direct },
        Exchange { name: names::MEMBERS, kind: ExchangeKind::Fanout },
    ]
}

fn queues(config: &Config) -> Vec<Queue> {
    let mut queues = Vec::new();
    for &channel in Channel::ALL {
        queues.push(Queue {
            name: names::dead_queue(channel),
            kind: "quorum queue",
            arguments: table(&[
                ("x-queue-type", text("quorum")),
                ("x-delivery-limit", number(DEAD_DELIVERY_LIMIT)),
            ]),
            exchange: names::DEAD,
            key: channel.to_string(),
        });
        queues.push(Queue {
            name: names::out_stream(channel),
            kind: "stream",
            arguments: table(&[
                ("x-queue-type", text("stream")),
                ("x-max-age", text(LOG_AGE_MAX)),
                ("x-max-length-bytes", number(LOG_BYTES_MAX)),
                ("x-stream-max-segment-size-bytes", number(LOG_SEGMENT_BYTES)),
            ]),
            exchange: names::OUT,
            key: channel.to_string(),
        });
        for partition in 0..config.partitions {
            queues.push(Queue {
                name: names::in_queue(channel, partition),
                kind: "quorum queue",
                arguments: inbound(config, channel),
                exchange: names::IN,
                key: names::in_key(channel, partition),
            });
        }
    }
    queues
}

fn inbound(config: &Config, channel: Channel) -> FieldTable {
    let whole = |number: u128| i64::try_from(number).unwrap_or(i64::MAX);
    table(&[
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ("x-delivery-limit", number(i64::from(DELIVERY_LIMIT))),
        ("x-dead-letter-exchange", text(names::DEAD)),
        ("x-dead-letter-routing-key", text(channel.as_str())),
        // Dead letters are only safe with both of these.
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-max-length", number(whole(u128::from(config.queue_messages_max)))),
        ("x-message-ttl", number(whole(config.ttl[channel.index()].as_millis()))),
    ])
}

fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(ShortString::from(*name), value.clone());
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn number(value: i64) -> AMQPValue {
    AMQPValue::LongLongInt(value)
}

async fn declare_exchange(live: &Live, exchange: &Exchange, passive: bool) -> Result<(), Fault> {
    let options = ExchangeDeclareOptions { passive, durable: true, ..Default::default() };
    let channel = live.open().await?;
    let kind = exchange.kind.clone();
    live.call(channel.exchange_declare(exchange.name.into(), kind, options, FieldTable::default()))
        .await
}

async fn declare_queue(
    live: &Live,
    name: &str,
    arguments: FieldTable,
    passive: bool,
) -> Result<(), Fault> {
    let options = QueueDeclareOptions { passive, durable: true, ..Default::default() };
    let channel = live.open().await?;
    live.call(channel.queue_declare(name.into(), options, arguments)).await.map(drop)
}

async fn bind(live: &Live, queue: &Queue) -> Result<(), Fault> {
    let channel = live.open().await?;
    let bind = channel.queue_bind(
        queue.name.as_str().into(),
        queue.exchange.into(),
        queue.key.as_str().into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    live.call(bind).await
}

/// The first queue beyond the configured partitions of each channel.
fn beyond(config: &Config) -> impl Iterator<Item = String> + '_ {
    Channel::ALL.iter().map(|&channel| names::in_queue(channel, config.partitions))
}

/// A refusal that tells what differs; all else is passed on.
fn difference(outcome: Result<(), Fault>) -> Result<Option<String>, BrokerError> {
    match outcome {
        Ok(()) => Ok(None),
        Err(Fault::Refused(406, why)) => Ok(Some(why)),
        Err(fault) => Err(fault.into()),
    }
}

fn exists(outcome: Result<(), Fault>) -> Result<bool, BrokerError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Fault::Refused(404, _)) => Ok(false),
        Err(fault) => Err(fault.into()),
    }
}

/// Creates what is missing.
pub(super) async fn declare(live: &Live, config: &Config) -> Result<(), BrokerError> {
    for name in beyond(config) {
        if exists(declare_queue(live, &name, FieldTable::default(), true).await)? {
            return Err(BrokerError::Misdeclared(more_partitions(&name, config)));
        }
    }
    for exchange in exchanges() {
        if let Some(why) = difference(declare_exchange(live, &exchange, false).await)? {
            return Err(BrokerError::Misdeclared(why));
        }
    }
    for queue in queues(config) {
        let declared = declare_queue(live, &queue.name, queue.arguments.clone(), false).await;
        if let Some(why) = difference(declared)? {
            return Err(BrokerError::Misdeclared(why));
        }
        bind(live, &queue).await?;
    }
    Ok(())
}

/// Tells what is there. A passive declare finds what is missing; an active
/// one, which changes nothing then, finds what differs.
pub(super) async fn show(live: &Live, config: &Config) -> Result<Vec<TopologyItem>, BrokerError> {
    let mut items = Vec::new();
    for exchange in exchanges() {
        let status = if exists(declare_exchange(live, &exchange, true).await)? {
            difference(declare_exchange(live, &exchange, false).await)?
                .unwrap_or_else(|| "present".to_owned())
        } else {
            "missing".to_owned()
        };
        let kind = match exchange.kind {
            ExchangeKind::Fanout => "fanout exchange",
            _ => "direct exchange",
        };
        items.push(TopologyItem { name: exchange.name.to_owned(), kind: kind.to_owned(), status });
    }
    for queue in queues(config) {
        let passive = declare_queue(live, &queue.name, FieldTable::default(), true).await;
        let status = if exists(passive)? {
            difference(declare_queue(live, &queue.name, queue.arguments, false).await)?
                .unwrap_or_else(|| "present".to_owned())
        } else {
            "missing".to_owned()
        };
        items.push(TopologyItem { name: queue.name, kind: queue.kind.to_owned(), status });
    }
    for name in beyond(config) {
        if exists(declare_queue(live, &name, FieldTable::default(), true).await)? {
            let status = more_partitions(&name, config);
            items.push(TopologyItem { name, kind: "quorum queue".to_owned(), status });
        }
    }
    Ok(items)
}

fn more_partitions(name: &str, config: &Config) -> String {
    format!("{name} exists, but {} partitions are configured", config.partitions)
}

/// Deletes all of it, partitions beyond the configured ones included.
pub(super) async fn delete(live: &Live, config: &Config) -> Result<(), BrokerError> {
    let mut names: Vec<String> = queues(config).into_iter().map(|queue| queue.name).collect();
    for &channel in Channel::ALL {
        let mut index = config.partitions;
        loop {
            let name = names::in_queue(channel, index);
            if !exists(declare_queue(live, &name, FieldTable::default(), true).await)? {
                break;
            }
            names.push(name);
            index += 1;
        }
    }
    for name in names {
        let channel = live.open().await?;
        let options = QueueDeleteOptions::default();
        exists(live.call(channel.queue_delete(name.into(), options)).await.map(drop))?;
    }
    for exchange in exchanges() {
        let channel = live.open().await?;
        let options = ExchangeDeleteOptions::default();
        exists(live.call(channel.exchange_delete(exchange.name.into(), options)).await)?;
    }
    Ok(())
}
