//! Looks through dead letters without losing any: each is fetched unacked,
//! and all but the one that is settled go back to where they were.

use std::sync::Arc;

use domain::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use lapin::types::ShortString;
use protocol::names;

use super::codec;
use super::connection::{Link, Live};
use crate::broker::{BrokerError, DeadLetter};

/// How deep a dead letter is searched for.
const SEARCH_MAX: usize = 10_000;

/// One at a time: what one search holds, another one doesn't see.
pub(super) struct Graveyard {
    link: Arc<Link>,
    /// Kept, so that a search sees what the one before gave back.
    channel: tokio::sync::Mutex<Option<(Arc<Live>, lapin::Channel)>>,
}

/// A dead letter that was fetched.
struct Fetched {
    letter: DeadLetter,
    acker: lapin::Acker,
}

/// What to do with a dead letter that was found.
#[async_trait::async_trait]
pub(super) trait Undertaker: Sync {
    /// Makes sure that it can be deleted.
    async fn settle(&self, letter: DeadLetter) -> Result<(), BrokerError>;
}

impl Graveyard {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, channel: tokio::sync::Mutex::new(None) }
    }

    /// The oldest ones.
    pub(super) async fn list(
        &self,
        channel: Channel,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, BrokerError> {
        let mut slot = self.channel.lock().await;
        let mut letters = Vec::new();
        self.search(&mut slot, channel, limit, |letter| {
            letters.push(letter.clone());
            false
        })
        .await?;
        Ok(letters)
    }

    /// The one with `id`.
    pub(super) async fn find(
        &self,
        channel: Channel,
        id: &str,
    ) -> Result<Option<DeadLetter>, BrokerError> {
        let mut slot = self.channel.lock().await;
        let mut found = None;
        self.search(&mut slot, channel, SEARCH_MAX, |letter| {
            if found.is_none() && letter.message.id == id {
                found = Some(letter.clone());
            }
            false
        })
        .await?;
        Ok(found)
    }

    /// Deletes the one with `id` when `undertaker` has settled it.
    pub(super) async fn take(
        &self,
        channel: Channel,
        id: &str,
        undertaker: &dyn Undertaker,
    ) -> Result<bool, BrokerError> {
        let mut slot = self.channel.lock().await;
        // Twice, as another process may have been looking at it.
        for _ in 0..2 {
            let found = self
                .search(&mut slot, channel, SEARCH_MAX, |letter| letter.message.id == id)
                .await?;
            if let Some(found) = found {
                // Out of the slot meanwhile: if this is given up half-way,
                // the channel closes and the letter goes back.
                let kept = slot.take();
                let outcome = undertaker.settle(found.letter).await;
                let told = match outcome {
                    Ok(()) => found.acker.ack(BasicAckOptions::default()).await,
                    Err(_) => {
                        let options = BasicNackOptions { multiple: false, requeue: true };
                        found.acker.nack(options).await
                    }
                };
                outcome?;
                if !matches!(told, Ok(true)) {
                    return Err(BrokerError::Gone);
                }
                *slot = kept;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fetches up to `limit`, stops at the one that is `wanted`, and gives
    /// back all the others.
    async fn search(
        &self,
        slot: &mut Option<(Arc<Live>, lapin::Channel)>,
        channel: Channel,
        limit: usize,
        mut wanted: impl FnMut(&DeadLetter) -> bool + Send,
    ) -> Result<Option<Fetched>, BrokerError> {
        let (live, amqp) = match slot.take() {
            Some((live, amqp)) if amqp.status().connected() && !live.gone.is_cancelled() => {
                (live, amqp)
            }
            _ => {
                let live = self.link.live().await?;
                let amqp = live.open().await?;
                (live, amqp)
            }
        };
        let queue = ShortString::from(names::dead_queue(channel));
        let mut last = None;
        let mut found = None;
        for _ in 0..limit {
            let get = amqp.basic_get(queue.clone(), BasicGetOptions::default());
            // A failure closes the channel, which gives everything back.
            let Some(BasicGetMessage { delivery, .. }) = live.call(get).await? else { break };
            let letter = codec::decode_dead(&delivery.properties, delivery.data);
            if wanted(&letter) {
                found = Some(Fetched { letter, acker: delivery.acker });
                break;
            }
            last = Some(delivery.acker);
        }
        if let Some(last) = last {
            // All that was fetched before it, and not yet settled.
            let options = BasicNackOptions { multiple: true, requeue: true };
            if !matches!(last.nack(options).await, Ok(true)) {
                return Err(BrokerError::Down("connection lost".to_owned()));
            }
        }
        *slot = Some((live, amqp));
        Ok(found)
    }
}
