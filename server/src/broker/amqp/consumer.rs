//! Consumes inbound queues, and notices when there is nothing more to come.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _};
use lapin::Channel;
use lapin::message::Delivery as Raw;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use protocol::names;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::canary::{Canary, Counts, Patience, Traffic, Verdict};
use super::codec;
use super::connection::{Fault, Live};
use super::publisher::{Lane, Outgoing};
use crate::broker::{BrokerError, Consumer, Delivery, Message, Partition, Settle};

/// How often a consumed queue is looked for: the broker doesn't always say
/// that it was deleted, or that it has forgotten its consumer.
const LOOK: Duration = Duration::from_secs(2);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Before a message is buried again that the broker wouldn't take.
const BURY_AGAIN: Duration = Duration::from_millis(250);

/// A subscription to one queue or stream. Dropping it closes its channel,
/// which gives back what is not settled.
pub(super) struct Tap {
    live: Arc<Live>,
    channel: Channel,
    consumer: Option<lapin::Consumer>,
    traffic: Arc<Traffic>,
    /// Canceled when nothing will come any more.
    over: CancellationToken,
    _watch: DropGuard,
}

impl Tap {
    /// Subscribes on a channel of its own; at most `prefetch` are unsettled.
    /// A canary tells whether it gets what it should.
    pub(super) async fn open(
        live: Arc<Live>,
        queue: &str,
        prefetch: u16,
        arguments: FieldTable,
        canary: Option<Canary>,
    ) -> Result<Self, Fault> {
        let channel = live.open().await?;
        Self::on(live, channel, queue, prefetch, arguments, canary).await
    }

    /// Subscribes on a given channel.
    pub(super) async fn on(
        live: Arc<Live>,
        channel: Channel,
        queue: &str,
        prefetch: u16,
        arguments: FieldTable,
        canary: Option<Canary>,
    ) -> Result<Self, Fault> {
        let name = ShortString::from(queue);
        // A child, so that one queue's end isn't the connection's.
        let over = live.gone.child_token();
        let watch = CancellationToken::new();
        let done = watch.clone();
        // Made before anything is asked: what the broker grants after we have
        // stopped waiting for it goes with the channel, and holds no message.
        let traffic = Arc::default();
        let watch = watch.drop_guard();
        let mut tap = Self { live, channel, consumer: None, traffic, over, _watch: watch };
        let qos = tap.channel.basic_qos(prefetch.max(1), BasicQosOptions::default());
        tap.live.call(qos).await?;
        let options = BasicConsumeOptions::default();
        let consume = tap.channel.basic_consume(name.clone(), "".into(), options, arguments);
        tap.consumer = Some(tap.live.call(consume).await?);
        let watch = Watch {
            live: Arc::clone(&tap.live),
            queue: name,
            canary,
            traffic: Arc::clone(&tap.traffic),
            over: tap.over.clone(),
        };
        tokio::spawn(done.run_until_cancelled_owned(watch.run()));
        Ok(tap)
    }

    /// The next one; none when there will be no more.
    pub(super) async fn next(&mut self) -> Option<Raw> {
        let consumer = self.consumer.as_mut()?;
        let _waiting = self.traffic.wait();
        let next = tokio::select! {
            biased;
            // What is buffered is of no use when it can't be acked.
            () = self.over.cancelled() => None,
            next = consumer.next() => next,
        };
        self.checked(next)
    }

    /// The next one if it is here.
    pub(super) fn next_now(&mut self) -> Option<Raw> {
        if self.over.is_cancelled() {
            return None;
        }
        let next = self.consumer.as_mut()?.next().now_or_never()?;
        self.checked(next)
    }

    fn checked(&self, next: Option<lapin::Result<Raw>>) -> Option<Raw> {
        match next {
            Some(Ok(raw)) => {
                self.traffic.delivered();
                Some(raw)
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "consumer lost");
                self.over.cancel();
                None
            }
            None => {
                self.over.cancel();
                None
            }
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let consumer = self.consumer.take();
        let (channel, live) = (self.channel.clone(), Arc::clone(&self.live));
        // The channel goes first: canceling the consumer before that would
        // let the next one begin behind what is not settled here.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if !live.gone.is_cancelled() {
                    let close = timeout(CLOSE_TIMEOUT, channel.close(200, "done".into()));
                    if close.await.is_err() {
                        // It may hold messages for as long as the connection lasts.
                        live.gone.cancel();
                    }
                }
                drop(consumer);
            });
        }
    }
}

/// Looks at a consumed queue now and then.
struct Watch {
    live: Arc<Live>,
    queue: ShortString,
    canary: Option<Canary>,
    traffic: Arc<Traffic>,
    over: CancellationToken,
}

impl Watch {
    /// Ends with the tap, or ends the tap when it is of no more use.
    async fn run(mut self) {
        let over = self.over.clone();
        let _ = over.run_until_cancelled(self.look()).await;
    }

    async fn look(&mut self) {
        let queue = self.queue.clone();
        loop {
            sleep(LOOK).await;
            let counts = match self.counts().await {
                Ok(counts) => Some(counts),
                Err(Fault::Refused(404, _)) => {
                    tracing::warn!(%queue, "consumed queue is gone");
                    return self.over.cancel();
                }
                Err(_) => None,
            };
            let Some(canary) = &mut self.canary else { continue };
            match canary.look(self.traffic.seen(counts)) {
                Verdict::Fine => {}
                Verdict::Reopen => {
                    tracing::warn!(%queue, ?counts, "nothing comes from the queue: consumed anew");
                    return self.over.cancel();
                }
                Verdict::Reconnect => {
                    tracing::warn!(%queue, "the broker doesn't answer: connected anew");
                    return self.live.gone.cancel();
                }
            }
        }
    }

    async fn counts(&self) -> Result<Counts, Fault> {
        let channel = self.live.open().await?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declare = channel.queue_declare(self.queue.clone(), options, FieldTable::default());
        let found = self.live.call(declare).await?;
        Ok(Counts { ready: found.message_count(), consumers: found.consumer_count() })
    }
}

/// A consumer of one partition. It and its deliveries share the channel.
pub(super) struct InboundConsumer {
    /// Locked only for as long as a call lasts: it has one owner at a time.
    tap: Arc<tokio::sync::Mutex<Tap>>,
    /// These two are the tap's own.
    traffic: Arc<Traffic>,
    over: CancellationToken,
    canceled: bool,
    from: Partition,
    graves: Lane,
}

impl InboundConsumer {
    pub(super) async fn open(
        live: Arc<Live>,
        from: Partition,
        prefetch: u16,
        graves: Lane,
        patience: &Patience,
    ) -> Result<Self, BrokerError> {
        let queue = names::in_queue(from.channel, from.index);
        let canary = Some(patience.canary(from));
        let tap = Tap::open(live, &queue, prefetch, FieldTable::default(), canary).await?;
        let (traffic, over) = (Arc::clone(&tap.traffic), tap.over.clone());
        let tap = Arc::new(tokio::sync::Mutex::new(tap));
        Ok(Self { tap, traffic, over, canceled: false, from, graves })
    }

    fn delivery(&self, raw: Raw) -> Delivery {
        let redelivered = raw.redelivered;
        let message = codec::decode(&raw.properties, raw.data);
        let settle = InboundSettle {
            message: message.clone(),
            acker: raw.acker,
            from: self.from,
            graves: self.graves.clone(),
            traffic: Arc::clone(&self.traffic),
            over: self.over.clone(),
            _tap: Arc::clone(&self.tap),
        };
        Delivery { message, redelivered, settle: Box::new(settle) }
    }
}

#[async_trait]
impl Consumer for InboundConsumer {
    async fn recv(&mut self) -> Option<Delivery> {
        if self.canceled {
            return None;
        }
        let raw = self.tap.lock().await.next().await?;
        Some(self.delivery(raw))
    }

    fn try_recv(&mut self) -> Option<Delivery> {
        if self.canceled {
            return None;
        }
        let raw = self.tap.try_lock().ok()?.next_now()?;
        Some(self.delivery(raw))
    }

    /// The broker isn't told before the last delivery is dropped: it would
    /// make the next consumer active at once, ahead of what comes back then.
    async fn cancel(&mut self) {
        self.canceled = true;
    }
}

struct InboundSettle {
    message: Message,
    acker: lapin::Acker,
    from: Partition,
    graves: Lane,
    traffic: Arc<Traffic>,
    over: CancellationToken,
    /// Keeps the channel open until this is dropped.
    _tap: Arc<tokio::sync::Mutex<Tap>>,
}

impl InboundSettle {
    /// Only `Ok(true)` means that the broker will be told; of so many.
    fn told(&self, outcome: lapin::Result<bool>, count: usize) -> Result<(), BrokerError> {
        if !matches!(outcome, Ok(true)) {
            return Err(BrokerError::Gone);
        }
        self.traffic.settled(count);
        Ok(())
    }
}

#[async_trait]
impl Settle for InboundSettle {
    async fn ack(self: Box<Self>) -> Result<(), BrokerError> {
        self.told(self.acker.ack(BasicAckOptions::default()).await, 1)
    }

    /// One word for all of them: to a quorum queue each is an entry in its log.
    async fn ack_with(self: Box<Self>, earlier: Vec<Box<dyn Settle>>) -> Result<(), BrokerError> {
        let acked = self.acker.ack(BasicAckOptions { multiple: true }).await;
        self.told(acked, 1 + earlier.len())
    }

    async fn retry(self: Box<Self>) -> Result<(), BrokerError> {
        self.told(self.acker.reject(BasicRejectOptions { requeue: true }).await, 1)
    }

    /// Takes as long as the broker does: whoever gives up here gives back
    /// everything that was delivered behind it, which counts as the failure of
    /// all of it.
    async fn bury(self: Box<Self>, reason: &str) -> Result<(), BrokerError> {
        let outgoing = Outgoing {
            exchange: names::DEAD,
            key: self.from.channel.as_str().into(),
            properties: codec::encode_buried(&self.message, self.from, reason)?,
            body: self.message.body.clone(),
            mandatory: true,
            bound: None,
        };
        while let Err(error) = self.graves.send(outgoing.clone()).await {
            tracing::warn!(partition = %self.from, %error, "not buried yet");
            tokio::select! {
                () = self.over.cancelled() => return Err(BrokerError::Gone),
                () = sleep(BURY_AGAIN) => {}
            }
        }
        self.told(self.acker.ack(BasicAckOptions::default()).await, 1)
    }
}
