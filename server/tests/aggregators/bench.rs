//! A broker that a test holds up at the point it names; the rest is the
//! embedded one's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use domain::Channel;
use tokio::sync::{mpsc, watch};
use warren::broker::{
    Broker, BrokerError, BrokerState, Config, Consumer, DeadLetter, LogReader, LogStart, Message,
    Partition, TopologyItem,
};

/// A place where whoever comes waits while it is shut.
#[derive(Clone)]
pub(crate) struct Gate {
    open: watch::Sender<bool>,
    came: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: watch::channel(true).0, came: watch::channel(0).0 }
    }
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until so many have come, since the beginning.
    pub(crate) async fn came(&self, count: usize) {
        let mut came = self.came.subscribe();
        came.wait_for(|seen| *seen >= count).await.expect("the sender lives");
    }

    async fn pass(&self) {
        self.came.send_modify(|seen| *seen += 1);
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.expect("the sender lives");
    }
}

pub(crate) struct Bench {
    inner: Arc<dyn Broker>,
    pub(crate) publishes: Gate,
    pub(crate) replies: Gate,
    pub(crate) announcements: Gate,
    /// Publishes fail.
    pub(crate) down: AtomicBool,
    /// Announcements are confirmed and lost.
    pub(crate) forgets: AtomicBool,
}

impl Bench {
    pub(crate) fn new(inner: Arc<dyn Broker>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            publishes: Gate::default(),
            replies: Gate::default(),
            announcements: Gate::default(),
            down: AtomicBool::default(),
            forgets: AtomicBool::default(),
        })
    }
}

#[async_trait]
impl Broker for Bench {
    fn config(&self) -> &Config {
        self.inner.config()
    }
    async fn declare(&self) -> Result<(), BrokerError> {
        self.inner.declare().await
    }
    async fn topology(&self) -> Result<Vec<TopologyItem>, BrokerError> {
        self.inner.topology().await
    }
    async fn delete(&self) -> Result<(), BrokerError> {
        self.inner.delete().await
    }
    async fn publish(&self, to: Partition, message: Message) -> Result<(), BrokerError> {
        // As it was when it came.
        let down = self.down.load(Ordering::SeqCst);
        self.publishes.pass().await;
        if down {
            return Err(BrokerError::Down("scripted".into()));
        }
        self.inner.publish(to, message).await
    }
    async fn consume(
        &self,
        from: Partition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        self.inner.consume(from, prefetch).await
    }
    async fn announce(&self, channel: Channel, message: Message) -> Result<(), BrokerError> {
        self.announcements.pass().await;
        if self.forgets.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.inner.announce(channel, message).await
    }
    async fn follow(
        &self,
        channel: Channel,
        from: LogStart,
    ) -> Result<Box<dyn LogReader>, BrokerError> {
        self.inner.follow(channel, from).await
    }
    async fn broadcast(&self, message: Message) -> Result<(), BrokerError> {
        self.inner.broadcast(message).await
    }
    async fn listen(&self) -> Result<mpsc::Receiver<Message>, BrokerError> {
        self.inner.listen().await
    }
    async fn reply(&self, member: &str, message: Message) -> Result<(), BrokerError> {
        self.replies.pass().await;
        self.inner.reply(member, message).await
    }
    async fn replies(&self, member: &str) -> Result<mpsc::Receiver<Message>, BrokerError> {
        self.inner.replies(member).await
    }
    async fn dead(&self, channel: Channel, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.inner.dead(channel, limit).await
    }
    async fn find_dead(
        &self,
        channel: Channel,
        id: &str,
    ) -> Result<Option<DeadLetter>, BrokerError> {
        self.inner.find_dead(channel, id).await
    }
    async fn replay_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError> {
        self.inner.replay_dead(channel, id).await
    }
    async fn drop_dead(&self, channel: Channel, id: &str) -> Result<bool, BrokerError> {
        self.inner.drop_dead(channel, id).await
    }
    fn state(&self) -> watch::Receiver<BrokerState> {
        self.inner.state()
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
