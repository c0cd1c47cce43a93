//! The broker: what the rooms above may ask of it, and what it owes them.
//!
//! Two implementations, [`amqp`] (RabbitMQ) and [`embedded`] (SQLite), pass
//! the same story. Nothing above this room knows which one it talks to.
//!
//! **Inbound work** is one queue for each channel and partition. A publish
//! returns only when the broker holds the message durably. A consumer gets
//! the messages of a queue in order; each is acked, retried or buried. A
//! consumer that goes away leaves what it has not acked to the next one,
//! marked `redelivered`. After [`DELIVERY_LIMIT`] failed deliveries, or when
//! its time to live has passed, a message becomes a dead letter of its
//! channel, with its reason.
//!
//! **Outbound log** is one log for each channel, read by everybody who
//! follows it. It may hold a message twice and may lose its tail in a crash
//! of the whole broker: readers tell by the journal's offset in the header.
//!
//! **Members** hear every broadcast from the moment they listen, their own
//! included. **Replies** go to one member. Both are transient: whoever isn't
//! there misses them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::{Channel, Timestamp};
use protocol::{Death, names};
use tokio::sync::{mpsc, watch};

pub mod amqp;
pub mod embedded;

/// A message that failed this often is a dead letter.
pub const DELIVERY_LIMIT: u32 = 5;
/// Partitions of a channel, unless configured before the first declare.
pub const PARTITIONS: u32 = 4;
/// How many transient messages may wait for a member or for replies. When
/// full, the oldest are dropped.
pub const TRANSIENT_MAX: usize = 1_000;

/// One inbound queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// Its channel.
    pub channel: Channel,
    /// From 0 to the number of partitions less one.
    pub index: u32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.channel, self.index)
    }
}

/// How inbound queues are made. Fixed at the first declare.
#[derive(Clone, Debug)]
pub struct Config {
    /// Partitions of each channel.
    pub partitions: u32,
    /// How long a message may wait, by [`Channel::index`].
    pub ttl: [Duration; 3],
    /// The most messages in a partition; further publishes are refused with
    /// [`BrokerError::Full`].
    pub queue_messages_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            partitions: PARTITIONS,
            ttl: [
                Duration::from_secs(120),
                Duration::from_secs(3_600),
                Duration::from_secs(7 * 86_400),
            ],
            queue_messages_max: 1_000_000,
        }
    }
}

/// A message, inbound, outbound or transient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The id of the event or command.
    pub id: String,
    /// Its `type`.
    pub kind: String,
    /// The integration, or the member, that sent it.
    pub app_id: String,
    /// When it was made.
    pub at: Timestamp,
    /// See [`protocol::names`].
    pub headers: BTreeMap<String, String>,
    /// The member that waits for a reply.
    pub reply_to: Option<String>,
    /// JSON.
    pub body: Bytes,
}

impl Message {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What went wrong, by what the caller would do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker is gone: try again when it is back.
    #[error("broker down: {0}")]
    Down(String),
    /// The broker takes nothing more for now (memory or disk alarm).
    #[error("broker blocked: {0}")]
    Blocked(String),
    /// The queue is at its bound: try again later.
    #[error("queue {0} is full")]
    Full(String),
    /// No queue took it: the topology is missing.
    #[error("no queue for {0}: declare the topology")]
    Unroutable(String),
    /// The consumer that this delivery came by is gone: it will come again.
    #[error("the delivery's consumer is gone")]
    Gone,
    /// A queue or exchange exists with other arguments.
    #[error("topology differs: {0}")]
    Misdeclared(String),
    /// The durable file is damaged, locked, or of a newer version.
    #[error("{0}")]
    Storage(String),
}

/// Whether messages get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// They do.
    Up,
    /// The broker takes nothing more for now.
    Blocked(String),
    /// It is gone.
    Down(String),
}

/// What becomes of a delivery. Dropping it unsettled leaves it with its
/// consumer; it comes again when the consumer goes.
#[async_trait]
pub trait Settle: Send {
    /// The work is done. [`BrokerError::Gone`] if that can't be said any more.
    async fn ack(self: Box<Self>) -> Result<(), BrokerError>;
    /// The work of this one and of `earlier` is done: they are all that the
    /// consumer had delivered up to here and that wasn't settled.
    async fn ack_with(self: Box<Self>, earlier: Vec<Box<dyn Settle>>) -> Result<(), BrokerError>;
    /// The work failed: deliver it again, up to [`DELIVERY_LIMIT`] times.
    async fn retry(self: Box<Self>) -> Result<(), BrokerError>;
    /// The message is bad: make it a dead letter now, with `reason`.
    async fn bury(self: Box<Self>, reason: &str) -> Result<(), BrokerError>;
}

/// A message that waits to be settled.
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// True if it may have been delivered before.
    pub redelivered: bool,
    /// Settles it.
    pub settle: Box<dyn Settle>,
}

/// Messages of one queue, in order.
#[async_trait]
pub trait Consumer: Send {
    /// The next one; none when the consumer is gone and another one is needed.
    async fn recv(&mut self) -> Option<Delivery>;
    /// The next one if it is here already.
    fn try_recv(&mut self) -> Option<Delivery>;
    /// Stops taking new ones. What was delivered can still be settled;
    /// what is not settled when the deliveries are dropped comes again.
    async fn cancel(&mut self);
}

/// Where to begin reading a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStart {
    /// At the oldest message that is kept.
    First,
    /// After the last one: with what comes from now on.
    Next,
    /// At this offset of the log, or the next one there is.
    Offset(u64),
}

/// Messages of one log, in order.
#[async_trait]
pub trait LogReader: Send {
    /// The next one with the log's own offset (rising, not dense); none when
    /// the reader is gone and another one is needed.
    async fn recv(&mut self) -> Option<(u64, Message)>;
}

/// A message that nobody could do.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The message as it was.
    pub message: Message,
    /// `expired`, `delivery_limit`, or what [`Settle::bury`] was given.
    pub reason: String,
    /// When it died, if the broker tells.
    pub at: Option<Timestamp>,
    /// Where it came from.
    pub partition: Option<Partition>,
}

/// The most deaths that a message remembers.
const DEATHS_MAX: usize = 10;

impl DeadLetter {
    /// Every death that is known of, the last one last.
    #[must_use]
    pub fn deaths(&self) -> Vec<Death> {
        let before = self.message.header(names::X_DEATHS);
        // A foreign client may have written anything there.
        let mut deaths: Vec<Death> =
            before.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        deaths.push(Death { reason: self.reason.clone(), at: self.at });
        let old = deaths.len().saturating_sub(DEATHS_MAX);
        deaths.split_off(old)
    }

    /// The message as it goes back into its queue, remembering its deaths.
    fn revive(mut self) -> Message {
        if let Ok(deaths) = serde_json::to_string(&self.deaths()) {
            self.message.headers.insert(names::X_DEATHS.to_owned(), deaths);
        }
        self.message
    }
}

/// One line of [`Broker::topology`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyItem {
    /// The exchange's or queue's name.
    pub name: String,
    /// `direct exchange`, `quorum queue`, `stream`, …
    pub kind: String,
    /// `present`, `missing`, or what differs.
    pub status: String,
}

/// What the rooms above may ask of the broker. Every call may be made from
/// any task, at the same time as any other.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// How inbound queues are made.
    fn config(&self) -> &Config;

    /// Creates what is missing of the topology; does nothing where all is there.
    async fn declare(&self) -> Result<(), BrokerError>;
    /// What is there and what differs.
    async fn topology(&self) -> Result<Vec<TopologyItem>, BrokerError>;
    /// Deletes the topology with all that is in it.
    async fn delete(&self) -> Result<(), BrokerError>;

    /// Returns when the broker holds `message` durably. After an error the
    /// message may or may not be there: send it again with the same id.
    async fn publish(&self, to: Partition, message: Message) -> Result<(), BrokerError>;
    /// Consumes one queue; at most `prefetch` deliveries are unsettled.
    /// Where several consume a queue, one gets the messages and the others wait.
    async fn consume(
        &self,
        from: Partition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Appends to a channel's log. Calls of one task are kept in order.
    async fn announce(&self, channel: Channel, message: Message) -> Result<(), BrokerError>;
    /// Follows a channel's log. When this returns with [`LogStart::Next`],
    /// every announcement that is made later will be seen.
    async fn follow(
        &self,
        channel: Channel,
        from: LogStart,
    ) -> Result<Box<dyn LogReader>, BrokerError>;

    /// Tells every member that listens. Not durable.
    async fn broadcast(&self, message: Message) -> Result<(), BrokerError>;
    /// Hears broadcasts, one's own included, until the receiver is dropped;
    /// the channel closes when the broker is gone.
    async fn listen(&self) -> Result<mpsc::Receiver<Message>, BrokerError>;
    /// Sends a reply to one member. Not durable; `Ok` if the member isn't there.
    async fn reply(&self, member: &str, message: Message) -> Result<(), BrokerError>;
    /// Hears the replies to one member; as [`Broker::listen`].
    async fn replies(&self, member: &str) -> Result<mpsc::Receiver<Message>, BrokerError>;

    /// The oldest dead letters of a channel. They stay.
    async fn dead(&self, channel: Channel, limit: usize) -> Result<Vec<DeadLetter>, BrokerError>;
    /// A dead letter; it stays. None if there is no such one.
    async fn find_dead(
        &self,
        channel: Channel,
        id: &str,
    ) -> Result<Option<DeadLetter>, BrokerError>;
    /// Puts a dead letter back into the partition it came from, under the same id
    /// and with its deaths in [`names::X_DEATHS`].
    /// False if there is no such dead letter.
    async fn replay_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError>;
    /// Deletes a dead letter. False if there is no such dead letter.
    async fn drop_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError>;

    /// Whether messages get through, as it changes.
    fn state(&self) -> watch::Receiver<BrokerState>;
    /// Finishes what is under way and lets go of everything.
    async fn close(&self);
}
