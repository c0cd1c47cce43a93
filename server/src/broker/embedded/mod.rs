//! The broker in one process, on two SQLite files: no other software needed.
//!
//! `inbound.db` holds the queues and dead letters; one task writes it, takes
//! whatever waits, and commits it together (`synchronous=FULL`): a publish
//! returns when its transaction is on the disk. `outbound.db` holds the logs
//! (`synchronous=NORMAL`: a power cut may cost its tail, which the journal
//! has). Members and replies live in memory.
//!
//! A failure is a retry, or a death of the process with the message in hand
//! (`handed` tells); a consumer that goes away, or an orderly close, is none.
//! Folder `path` holds these three and `lock`, which one process has at a time.

mod backup;
mod batch;
mod consumer;
mod handed;
mod logs;
mod queues;
mod tables;
mod transient;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Channel, Timestamp};
use futures::future::try_join_all;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, BrokerError, BrokerState, Consumer, DeadLetter, LogReader, LogStart, Message,
    Partition, TopologyItem,
};
use crate::clock::Clock;
use handed::Handed;
use logs::Logs;
use queues::Queues;
use tables::{Files, storage};
use transient::Transient;
use writer::{Fate, Job, Order, Publish, Writer};

pub use backup::{back_up, queues_file};

/// How often expired messages are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// How many of them at a time.
const EXPIRED_PAGE: usize = 256;
/// How often the logs are cut to what is kept.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// Where the embedded broker lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// A folder; made if there is none.
    pub path: PathBuf,
    /// The queues.
    pub topology: super::Config,
    /// The time, for expiry.
    pub clock: Clock,
}

/// The broker of one process.
pub struct Embedded {
    config: super::Config,
    clock: Clock,
    files: Files,
    writer: Writer,
    queues: Arc<Queues>,
    handed: Arc<Handed>,
    logs: Logs,
    transient: Transient,
    state: watch::Receiver<BrokerState>,
    stop: CancellationToken,
}

/// Opens the broker's files, makes them if there are none, and begins to work.
///
/// # Errors
/// [`BrokerError::Storage`] if a file is damaged, newer than this program, or
/// held by another process; [`BrokerError::Misdeclared`] if it has another
/// number of partitions.
pub async fn open(config: Config) -> Result<Arc<Embedded>, BrokerError> {
    let files = Files::open(&config.path).await?;
    let mut connection = files.inbound_writer().await?;
    let partitions = config.topology.partitions;
    let declared = files.partitions().await?;
    if let Some(there) = declared
        && there != partitions
    {
        return Err(BrokerError::Misdeclared(format!(
            "{} has {there} partitions a channel, the settings say {partitions}",
            files.folder().display(),
        )));
    }
    let (handed, marks) = Handed::open(files.folder(), 3 * partitions as usize)?;
    let handed = Arc::new(handed);
    let queues = Arc::new(Queues::new(partitions, handed.clone()));
    if declared.is_some() {
        for of in all(partitions) {
            let mark = marks.get(Queues::slot(partitions, of)).copied().unwrap_or(0);
            if mark > 0 {
                let queue = (of.channel.as_str(), of.index);
                let now = config.clock.now();
                batch::count_crash(&mut connection, queue, mark, now).await.map_err(storage)?;
            }
            let (last, count) = files.extent(of).await?;
            queues.declare(of, last, count);
        }
    }
    forget(&handed, partitions);
    let (state_tx, state) = watch::channel(BrokerState::Up);
    let next = files.next().await?;
    let writer = Writer::start(connection, next, files.lock(), queues.clone(), state_tx);
    let logs = Logs::open(&files).await?;
    let broker = Arc::new(Embedded {
        config: config.topology,
        clock: config.clock,
        files,
        writer,
        queues,
        handed,
        logs,
        transient: Transient::default(),
        state,
        stop: CancellationToken::new(),
    });
    tokio::spawn(keep(Arc::downgrade(&broker), broker.stop.clone()));
    Ok(broker)
}

/// Buries what has expired and prunes the logs until the broker closes.
async fn keep(broker: std::sync::Weak<Embedded>, stop: CancellationToken) {
    let mut expire = tokio::time::interval(EXPIRE_EVERY);
    let mut prune = tokio::time::interval(PRUNE_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = expire.tick() => {
                let Some(broker) = broker.upgrade() else { return };
                if let Err(error) = broker.bury_expired().await {
                    tracing::warn!(%error, "expired messages not buried");
                }
            }
            _ = prune.tick() => {
                let Some(broker) = broker.upgrade() else { return };
                broker.logs.prune(broker.clock.now());
            }
        }
    }
}

impl Embedded {
    async fn bury_expired(&self) -> Result<(), BrokerError> {
        let now = self.clock.now();
        let mut after = 0;
        loop {
            let expired = self.files.expired(now, after, EXPIRED_PAGE).await?;
            let Some((_, last)) = expired.last() else { return Ok(()) };
            after = *last;
            // Together, so that one commit takes many.
            try_join_all(expired.iter().map(|(from, seq)| self.expire(*from, *seq, now))).await?;
        }
    }

    async fn expire(&self, from: Partition, seq: i64, at: Timestamp) -> Result<(), BrokerError> {
        let Ok(queue) = self.queues.find(from) else { return Ok(()) };
        if !queue.withdraw(seq) {
            return Ok(());
        }
        let fate = Fate::Bury("expired".into());
        let shared = queue.clone();
        let buried =
            self.writer.ask(|done| Job::Settle { queue: shared, seq, fate, at, done }).await;
        if buried.is_err() {
            queue.stays(seq);
        }
        buried.map(drop)
    }

    /// A message with a place in its queue.
    fn place(&self, to: Partition, message: Message) -> Result<Box<Publish>, BrokerError> {
        // The place is taken before the write, so that the bound holds.
        let place = self.queues.reserve(to, self.config.queue_messages_max)?;
        let expires_at = self.clock.now().plus(self.config.ttl[to.channel.index()]);
        let envelope = tables::envelope(&message);
        Ok(Box::new(Publish { place, message, envelope, expires_at }))
    }
}

#[async_trait]
impl Broker for Embedded {
    fn config(&self) -> &super::Config {
        &self.config
    }

    async fn declare(&self) -> Result<(), BrokerError> {
        let partitions = self.config.partitions;
        self.writer.ask(|done| Job::Order(Order::Declare { partitions }, done)).await?;
        for of in all(partitions) {
            self.queues.declare(of, 0, 0);
        }
        Ok(())
    }

    async fn topology(&self) -> Result<Vec<TopologyItem>, BrokerError> {
        let declared = self.files.partitions().await?.is_some();
        let status = if declared { "present" } else { "missing" };
        let item = |name: String, kind: &str| TopologyItem {
            name,
            kind: kind.to_owned(),
            status: status.to_owned(),
        };
        let mut items = Vec::new();
        for channel in Channel::ALL {
            for index in 0..self.config.partitions {
                items.push(item(protocol::names::in_queue(*channel, index), "embedded queue"));
            }
            items.push(item(protocol::names::out_stream(*channel), "embedded log"));
            items.push(item(protocol::names::dead_queue(*channel), "embedded queue"));
        }
        Ok(items)
    }

    async fn delete(&self) -> Result<(), BrokerError> {
        self.writer.ask(|done| Job::Order(Order::Delete, done)).await?;
        self.logs.clear().await
    }

    async fn publish(&self, to: Partition, message: Message) -> Result<(), BrokerError> {
        let publish = self.place(to, message)?;
        self.writer.ask(|done| Job::Publish(publish, done)).await.map(drop)
    }

    async fn consume(
        &self,
        from: Partition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        let queue = self.queues.find(from)?;
        let (files, writer) = (self.files.clone(), self.writer.clone());
        Ok(consumer::consume(queue, prefetch, files, writer, self.clock.clone()))
    }

    async fn announce(&self, channel: Channel, message: Message) -> Result<(), BrokerError> {
        self.queues.declared(channel)?;
        self.logs.append(channel, message, self.clock.now()).await
    }

    async fn follow(
        &self,
        channel: Channel,
        from: LogStart,
    ) -> Result<Box<dyn LogReader>, BrokerError> {
        self.queues.declared(channel)?;
        self.logs.follow(channel, from).await
    }

    async fn broadcast(&self, message: Message) -> Result<(), BrokerError> {
        self.transient.broadcast(&message);
        Ok(())
    }

    async fn listen(&self) -> Result<mpsc::Receiver<Message>, BrokerError> {
        Ok(self.transient.listen(&self.stop))
    }

    async fn reply(&self, member: &str, message: Message) -> Result<(), BrokerError> {
        self.transient.reply(member, message);
        Ok(())
    }

    async fn replies(&self, member: &str) -> Result<mpsc::Receiver<Message>, BrokerError> {
        Ok(self.transient.replies(member, &self.stop))
    }

    async fn dead(&self, channel: Channel, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.files.dead(channel, limit).await
    }

    async fn find_dead(
        &self,
        channel: Channel,
        id: &str,
    ) -> Result<Option<DeadLetter>, BrokerError> {
        Ok(self.files.find_dead(channel, id).await?.map(|(_, letter)| letter))
    }

    async fn replay_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError> {
        let Some((dead, letter)) = self.files.find_dead(channel, id).await? else {
            return Ok(false);
        };
        let to = letter.partition.unwrap_or(Partition { channel, index: 0 });
        let publish = self.place(to, letter.revive())?;
        self.writer.ask(|done| Job::Order(Order::Replay { dead, publish }, done)).await
    }

    async fn drop_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError> {
        let Some((dead, _)) = self.files.find_dead(channel, id).await? else { return Ok(false) };
        self.writer.ask(|done| Job::Order(Order::DropDead { dead }, done)).await
    }

    fn state(&self) -> watch::Receiver<BrokerState> {
        self.state.clone()
    }

    async fn close(&self) {
        self.stop.cancel();
        self.queues.clear();
        self.writer.close().await;
        self.logs.close().await;
        forget(&self.handed, self.config.partitions);
        self.files.close().await;
    }
}

/// Consumers, followers and listeners end with the broker that they came from.
impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.cancel();
        self.queues.clear();
    }
}

fn all(partitions: u32) -> impl Iterator<Item = Partition> {
    Channel::ALL.iter().flat_map(move |channel| {
        (0..partitions).map(move |index| Partition { channel: *channel, index })
    })
}

/// What is in hand from here on counts anew.
fn forget(handed: &Handed, partitions: u32) {
    if let Err(error) = handed.clear(3 * partitions as usize) {
        tracing::warn!(%error, "marks not cleared");
    }
}
