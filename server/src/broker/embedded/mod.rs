//! The broker in one process, on two SQLite files: no other software needed.
//!
//! `inbound.db` holds the queues and dead letters; one task writes it, takes
//! whatever waits, and commits it together (`synchronous=FULL`): a publish
//! returns when its transaction is on the disk. `outbound.db` holds the logs
//! (`synchronous=NORMAL`: a power cut may cost its tail, which the journal
//! has). Members and replies live in memory.

mod logs;
mod queues;
mod tables;
mod transient;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::Channel;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, BrokerError, BrokerState, Consumer, DeadLetter, LogReader, LogStart, Message,
    Partition, TopologyItem,
};
use crate::clock::Clock;
use logs::Logs;
use queues::Queues;
use tables::Files;
use transient::Transient;
use writer::{Job, Writer};

/// How often expired messages are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
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
    let queues = Arc::new(Queues::new(config.topology.partitions));
    let (state_tx, state) = watch::channel(BrokerState::Up);
    let writer = Writer::start(files.inbound_writer().await?, queues.clone(), state_tx);
    let logs = Logs::open(&files).await?;
    let broker = Arc::new(Embedded {
        config: config.topology,
        clock: config.clock,
        files,
        writer,
        queues,
        logs,
        transient: Transient::default(),
        state,
        stop: CancellationToken::new(),
    });
    broker.look_at_what_is_there().await?;
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
                if let Err(error) = broker.logs.prune(broker.clock.now()).await {
                    tracing::warn!(%error, "logs not pruned");
                }
            }
        }
    }
}

impl Embedded {
    /// Queues that were declared in an earlier life go on where they were.
    async fn look_at_what_is_there(&self) -> Result<(), BrokerError> {
        let Some(partitions) = self.files.partitions().await? else { return Ok(()) };
        if partitions != self.config.partitions {
            return Err(BrokerError::Misdeclared(format!(
                "{} has {partitions} partitions a channel, the settings say {}",
                self.files.folder().display(),
                self.config.partitions
            )));
        }
        for channel in Channel::ALL {
            for index in 0..partitions {
                let from = Partition { channel: *channel, index };
                let (last, count) = self.files.extent(from).await?;
                self.queues.declare(from, last, count);
            }
        }
        Ok(())
    }

    async fn bury_expired(&self) -> Result<(), BrokerError> {
        let now = self.clock.now();
        for (from, seq) in self.files.expired(now).await? {
            if self.queues.withdraw(from, seq) {
                let job = |done| Job::Bury { seq, reason: "expired".into(), at: now, done };
                self.writer.ask(job).await?;
                self.queues.settled(from, seq);
            }
        }
        Ok(())
    }

    /// Where a dead letter came from; none if there is no such one.
    async fn find_dead(
        &self,
        channel: Channel,
        id: &str,
    ) -> Result<Option<(i64, DeadLetter)>, BrokerError> {
        self.files.find_dead(channel, id).await
    }
}

#[async_trait]
impl Broker for Embedded {
    fn config(&self) -> &super::Config {
        &self.config
    }

    async fn declare(&self) -> Result<(), BrokerError> {
        let partitions = self.config.partitions;
        self.writer.ask(|done| Job::Declare { partitions, done }).await?;
        for channel in Channel::ALL {
            for index in 0..partitions {
                self.queues.declare(Partition { channel: *channel, index }, 0, 0);
            }
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
        self.writer.ask(|done| Job::Delete { done }).await?;
        self.queues.clear();
        self.logs.clear().await
    }

    async fn publish(&self, to: Partition, message: Message) -> Result<(), BrokerError> {
        let bound = self.config.queue_messages_max;
        // The place is taken before the write, so that the bound holds.
        self.queues.reserve(to, bound)?;
        let ttl = self.config.ttl[to.channel.index()];
        let expires_at = self.clock.now().plus(ttl);
        let job = |done| Job::Publish { to, message: Box::new(message), expires_at, done };
        let written = self.writer.ask(job).await;
        if written.is_err() {
            self.queues.release(to);
        }
        written.map(|_| ())
    }

    async fn consume(
        &self,
        from: Partition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        self.queues.consume(from, prefetch, self.files.clone(), self.writer.clone(), &self.clock)
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

    async fn replay_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError> {
        let Some((seq, letter)) = self.find_dead(channel, id).await? else { return Ok(false) };
        let to = letter.partition.unwrap_or(Partition { channel, index: 0 });
        self.publish(to, letter.message).await?;
        self.writer.ask(|done| Job::DropDead { seq, done }).await?;
        Ok(true)
    }

    async fn drop_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError> {
        let Some((seq, _)) = self.find_dead(channel, id).await? else { return Ok(false) };
        self.writer.ask(|done| Job::DropDead { seq, done }).await?;
        Ok(true)
    }

    fn state(&self) -> watch::Receiver<BrokerState> {
        self.state.clone()
    }

    async fn close(&self) {
        self.stop.cancel();
        self.queues.clear();
        self.writer.close().await;
        self.logs.close().await;
        self.files.close().await;
    }
}
