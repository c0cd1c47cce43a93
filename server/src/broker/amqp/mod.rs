//! RabbitMQ, by lapin: the broker of an installation of several machines.
//!
//! Two connections, each kept alive by its own supervisor: one for
//! publishing, which the broker blocks when it is short of memory or disk,
//! and one for consuming, which goes on meanwhile.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::Channel;
use protocol::names;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::canary::Patience;
use self::connection::{Health, Link, Live, Part, Supervisor, Target};
use self::consumer::InboundConsumer;
use self::dead::{Graveyard, Undertaker};
use self::log::StreamReader;
use self::mender::Mender;
use self::publisher::{Lane, LaneConfig, Outgoing};
use super::{
    Broker, BrokerError, BrokerState, Consumer, DeadLetter, LogReader, LogStart, Message,
    Partition, TopologyItem,
};

mod canary;
mod codec;
mod connection;
mod consumer;
mod dead;
mod log;
mod mender;
mod publisher;
mod topology;
mod transient;

/// Channels that inbound messages are published on, by partition.
const IN_LANES: u32 = 4;
/// How long [`connect`] waits for the first connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// How long a transient message may take.
const TRANSIENT_PATIENCE: Duration = Duration::from_secs(1);
/// How long [`Broker::close`] waits for the connections to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// Where the broker is and how it is used.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to publish to, in order of preference: `amqp://USER:PASSWORD@HOST:PORT/VHOST`,
    /// or `amqps://…`. Heartbeats every 5 s unless `?heartbeat=SECONDS` says otherwise.
    pub publish_urls: Vec<String>,
    /// Addresses to consume from; the same ones if empty.
    pub consume_urls: Vec<String>,
    /// How inbound queues are made.
    pub topology: super::Config,
    /// How long a publish may take, over as many attempts as are needed. 5 s by default.
    pub publish_timeout: Duration,
}

impl Config {
    /// Publishes to and consumes from `urls`, with defaults.
    #[must_use]
    pub fn new(urls: Vec<String>) -> Self {
        Self {
            publish_urls: urls,
            consume_urls: Vec::new(),
            topology: super::Config::default(),
            publish_timeout: Duration::from_secs(5),
        }
    }
}

/// An address that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broker address {url:?}: {why}")]
pub struct UrlError {
    /// The address without its password.
    pub url: String,
    /// What is wrong with it.
    pub why: String,
}

/// The broker. Dropping it lets go of everything at once.
pub struct Amqp {
    config: Config,
    health: Arc<Health>,
    publish: Arc<Link>,
    consume: Arc<Link>,
    inbound: Vec<Lane>,
    logs: Vec<Lane>,
    graves: Lane,
    patience: Patience,
    transient: Lane,
    graveyard: Graveyard,
    mender: Mender,
    lanes: TaskTracker,
    closing: CancellationToken,
    stop: CancellationToken,
    _stop: DropGuard,
}

/// Starts connecting, waits a second at most, and goes on by itself from there.
///
/// # Errors
/// When there is no address, or one that isn't an address.
pub async fn connect(config: Config) -> Result<Arc<Amqp>, UrlError> {
    let parse =
        |urls: &[String]| urls.iter().map(|url| Target::parse(url)).collect::<Result<Vec<_>, _>>();
    let publish_targets = parse(&config.publish_urls)?;
    let mut consume_targets = parse(&config.consume_urls)?;
    if publish_targets.is_empty() {
        return Err(UrlError { url: String::new(), why: "none is given".to_owned() });
    }
    if consume_targets.is_empty() {
        consume_targets.clone_from(&publish_targets);
    }
    let health = Arc::new(Health::new());
    let (stop, closing) = (CancellationToken::new(), CancellationToken::new());
    let start = |part, targets| {
        let (health, stop) = (Arc::clone(&health), stop.clone());
        Arc::new(Supervisor { part, targets, health, stop }.start())
    };
    let publish = start(Part::Publish, publish_targets);
    let consume = start(Part::Consume, consume_targets);
    let lanes = TaskTracker::new();
    let lane = |patience, ordered| {
        let config = LaneConfig {
            link: Arc::clone(&publish),
            patience,
            ordered,
            closing: closing.clone(),
            stop: stop.clone(),
        };
        Lane::start(config, |task| drop(lanes.spawn(task)))
    };
    let patience = config.publish_timeout;
    let amqp = Amqp {
        inbound: (0..IN_LANES).map(|_| lane(patience, false)).collect(),
        logs: Channel::ALL.iter().map(|_| lane(patience, true)).collect(),
        graves: lane(patience, false),
        patience: Patience::default(),
        transient: lane(patience.min(TRANSIENT_PATIENCE), false),
        graveyard: Graveyard::new(Arc::clone(&consume)),
        mender: Mender::start(Arc::clone(&consume), config.topology.clone(), stop.clone()),
        _stop: stop.clone().drop_guard(),
        health,
        publish,
        consume,
        lanes,
        closing,
        stop,
        config,
    };
    let settled = async {
        tokio::join!(amqp.publish.settled(CONNECT_PATIENCE), amqp.consume.settled(CONNECT_PATIENCE))
    };
    settled.await;
    Ok(Arc::new(amqp))
}

impl Amqp {
    /// The consuming connection, when there is one.
    async fn live(&self) -> Result<Arc<Live>, BrokerError> {
        self.consume.live_within(self.config.publish_timeout).await
    }

    fn inbound(&self, to: Partition, message: &Message) -> Result<(&Lane, Outgoing), BrokerError> {
        let queue = codec::short(&names::in_queue(to.channel, to.index))?;
        let outgoing = Outgoing {
            exchange: names::IN,
            key: codec::short(&names::in_key(to.channel, to.index))?,
            properties: codec::encode(message, true)?,
            body: message.body.clone(),
            mandatory: true,
            bound: Some((queue, self.config.topology.queue_messages_max)),
        };
        let lane = usize::try_from(to.index % IN_LANES).unwrap_or(0);
        Ok((&self.inbound[lane], outgoing))
    }

    /// Fails at once when the broker is known to be down: nothing here is
    /// worth waiting for.
    async fn send_transient(
        &self,
        exchange: &'static str,
        key: &str,
        message: Message,
    ) -> Result<(), BrokerError> {
        if let Some(reason) = self.publish.down() {
            return Err(BrokerError::Down(reason));
        }
        let outgoing = Outgoing {
            exchange,
            key: codec::short(key)?,
            properties: codec::encode(&message, false)?,
            body: message.body,
            mandatory: false,
            bound: None,
        };
        self.transient.send(outgoing).await
    }
}

/// Publishes a dead letter again.
struct Replay<'a>(&'a Amqp);

#[async_trait]
impl Undertaker for Replay<'_> {
    async fn settle(&self, letter: DeadLetter) -> Result<(), BrokerError> {
        let Some(to) = letter.partition else {
            return Err(BrokerError::Unroutable(format!(
                "dead letter {}, which doesn't tell where it came from",
                letter.message.id
            )));
        };
        self.0.publish(to, letter.revive()).await
    }
}

/// Lets a dead letter go.
struct Forget;

#[async_trait]
impl Undertaker for Forget {
    async fn settle(&self, _letter: DeadLetter) -> Result<(), BrokerError> {
        Ok(())
    }
}

#[async_trait]
impl Broker for Amqp {
    fn config(&self) -> &super::Config {
        &self.config.topology
    }

    async fn declare(&self) -> Result<(), BrokerError> {
        topology::declare(&*self.live().await?, &self.config.topology).await?;
        self.mender.keep(true);
        Ok(())
    }

    async fn topology(&self) -> Result<Vec<TopologyItem>, BrokerError> {
        topology::show(&*self.live().await?, &self.config.topology).await
    }

    async fn delete(&self) -> Result<(), BrokerError> {
        self.mender.keep(false);
        topology::delete(&*self.live().await?, &self.config.topology).await
    }

    async fn publish(&self, to: Partition, message: Message) -> Result<(), BrokerError> {
        let (lane, outgoing) = self.inbound(to, &message)?;
        self.mender.look(lane.send(outgoing).await)
    }

    async fn consume(
        &self,
        from: Partition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        let live = self.live().await?;
        let graves = self.graves.clone();
        let opened = InboundConsumer::open(live, from, prefetch, graves, &self.patience).await;
        Ok(Box::new(self.mender.look(opened)?))
    }

    async fn announce(&self, channel: Channel, message: Message) -> Result<(), BrokerError> {
        let outgoing = Outgoing {
            exchange: names::OUT,
            key: codec::short(channel.as_str())?,
            properties: codec::encode(&message, true)?,
            body: message.body,
            mandatory: true,
            bound: None,
        };
        self.mender.look(self.logs[channel.index()].send(outgoing).await)
    }

    async fn follow(
        &self,
        channel: Channel,
        from: LogStart,
    ) -> Result<Box<dyn LogReader>, BrokerError> {
        let opened = StreamReader::open(self.live().await?, channel, from).await;
        Ok(Box::new(self.mender.look(opened)?))
    }

    async fn broadcast(&self, message: Message) -> Result<(), BrokerError> {
        self.send_transient(names::MEMBERS, "", message).await
    }

    async fn listen(&self) -> Result<mpsc::Receiver<Message>, BrokerError> {
        transient::listen(self.live().await?).await
    }

    async fn reply(&self, member: &str, message: Message) -> Result<(), BrokerError> {
        self.send_transient("", &names::reply_queue(member), message).await
    }

    async fn replies(&self, member: &str) -> Result<mpsc::Receiver<Message>, BrokerError> {
        transient::replies(self.live().await?, member).await
    }

    async fn dead(&self, channel: Channel, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.live().await?;
        self.graveyard.list(channel, limit).await
    }

    async fn find_dead(
        &self,
        channel: Channel,
        id: &str,
    ) -> Result<Option<DeadLetter>, BrokerError> {
        self.live().await?;
        self.graveyard.find(channel, id).await
    }

    async fn replay_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError> {
        self.live().await?;
        self.graveyard.take(channel, id, &Replay(self)).await
    }

    async fn drop_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError> {
        self.live().await?;
        self.graveyard.take(channel, id, &Forget).await
    }

    fn state(&self) -> watch::Receiver<BrokerState> {
        self.health.subscribe()
    }

    async fn close(&self) {
        self.closing.cancel();
        self.lanes.close();
        let _ = timeout(self.config.publish_timeout, self.lanes.wait()).await;
        self.stop.cancel();
        let closed = async {
            tokio::join!(self.publish.closed(), self.consume.closed());
        };
        let _ = timeout(GOODBYE, closed).await;
    }
}

/// What a message's properties and body are read as, if they are properties.
#[cfg(fuzzing)]
#[must_use]
pub fn decode_parts(properties: &[u8], body: &[u8]) -> Option<(Message, DeadLetter)> {
    let (_, properties) = lapin::protocol::basic::parse_properties(properties).ok()?;
    let dead = codec::decode_dead(&properties, body.to_vec());
    Some((codec::decode(&properties, body.to_vec()), dead))
}
