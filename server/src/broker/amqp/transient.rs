//! What isn't kept: broadcasts to members, and replies to one of them.

use std::sync::Arc;

use lapin::options::{BasicAckOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use protocol::names;
use tokio::sync::mpsc;

use super::codec;
use super::connection::Live;
use super::consumer::Tap;
use crate::broker::{BrokerError, Message, TRANSIENT_MAX};

/// Milliseconds that a transient message may wait.
const TTL_MS: i64 = 5_000;
/// How many the broker sends ahead.
const PREFETCH: u16 = 100;

/// A queue that lives as long as its receiver, bound to the members' exchange.
pub(super) async fn listen(live: Arc<Live>) -> Result<mpsc::Receiver<Message>, BrokerError> {
    subscribe(live, "", true).await
}

/// A queue that lives as long as its receiver, for replies to `member`.
pub(super) async fn replies(
    live: Arc<Live>,
    member: &str,
) -> Result<mpsc::Receiver<Message>, BrokerError> {
    subscribe(live, &names::reply_queue(member), false).await
}

async fn subscribe(
    live: Arc<Live>,
    name: &str,
    members: bool,
) -> Result<mpsc::Receiver<Message>, BrokerError> {
    let channel = live.open().await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(TTL_MS));
    // The oldest are dropped.
    let max = i64::try_from(TRANSIENT_MAX).unwrap_or(i64::MAX);
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(max));
    let declare = channel.queue_declare(codec::short(name)?, options, arguments);
    let queue = live.call(declare).await?.name().clone();
    if members {
        let bind = channel.queue_bind(
            queue.clone(),
            names::MEMBERS.into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        live.call(bind).await?;
    }
    let mut tap =
        Tap::on(live, channel, queue.as_str(), PREFETCH, FieldTable::default(), None).await?;
    let (sender, receiver) = mpsc::channel(TRANSIENT_MAX);
    tokio::spawn(async move {
        loop {
            let raw = tokio::select! {
                raw = tap.next() => raw,
                () = sender.closed() => return,
            };
            let Some(raw) = raw else { return };
            let message = codec::decode(&raw.properties, raw.data);
            // Acked when there was room for it: what waits longer waits at
            // the broker, which drops the oldest.
            if sender.send(message).await.is_err()
                || !matches!(raw.acker.ack(BasicAckOptions::default()).await, Ok(true))
            {
                return;
            }
        }
    });
    Ok(receiver)
}
