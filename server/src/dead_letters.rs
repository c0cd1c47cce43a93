//! Dead letters in an admin's hands: seen, put back into their queue, or
//! dropped. Each deed is on record before it is done.

use std::sync::Arc;

use domain::Channel;
use protocol::{DeadLetterList, DeadLetterView};

use crate::broker::{Broker, BrokerError, DeadLetter};
use crate::clock::Clock;
use crate::store::{Store, StoreError};

/// The most dead letters of a channel in one list.
pub const LIST_MAX: usize = 200;

/// What went wrong, by what the caller would do.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// There is none with this id: somebody else may have seen to it.
    #[error("there is no such dead letter")]
    Unknown,
    /// It stays where it is.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The deed could not be put on record, and was not done.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is done with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Back into the partition it came from, under the same id: what it has
    /// brought about already isn't brought about again.
    Replay,
    /// Deleted for good.
    Drop,
}

/// Where dead letters are seen to. Clones share it.
#[derive(Clone)]
pub struct DeadLetters {
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    clock: Clock,
}

impl DeadLetters {
    /// Those of a broker; `store` keeps the record.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { broker, store, clock }
    }

    /// The oldest ones of a channel, or of every channel, without their
    /// bodies; at most `limit`, and [`LIST_MAX`], of each.
    ///
    /// # Errors
    /// [`DeadLetterError::Broker`]
    pub async fn list(
        &self,
        channel: Option<Channel>,
        limit: usize,
    ) -> Result<DeadLetterList, DeadLetterError> {
        let limit = limit.min(LIST_MAX);
        let mut list = DeadLetterList { dead: Vec::new(), more: false };
        for of in Channel::ALL.iter().filter(|of| channel.is_none_or(|one| one == **of)) {
            let found = self.broker.dead(*of, limit).await?;
            list.more |= found.len() == limit;
            list.dead.extend(found.iter().map(|letter| view(*of, letter)));
        }
        Ok(list)
    }

    /// One with its body.
    ///
    /// # Errors
    /// [`DeadLetterError::Unknown`], [`DeadLetterError::Broker`]
    pub async fn show(&self, id: &str) -> Result<DeadLetterView, DeadLetterError> {
        let (channel, letter) = self.find(id).await?;
        let body = serde_json::from_slice(&letter.message.body).unwrap_or_else(|_| {
            serde_json::Value::String(String::from_utf8_lossy(&letter.message.body).into_owned())
        });
        Ok(DeadLetterView { body: Some(body), ..view(channel, &letter) })
    }

    /// Does it, in the name of `who`. Gives what it was done with.
    ///
    /// # Errors
    /// Any of [`DeadLetterError`]; the letter is still there then.
    pub async fn settle(
        &self,
        id: &str,
        deed: Deed,
        who: &str,
    ) -> Result<DeadLetterView, DeadLetterError> {
        let (channel, letter) = self.find(id).await?;
        let what = match deed {
            Deed::Replay => "dead.replay",
            Deed::Drop => "dead.drop",
        };
        self.store.audit(who, what, &format!("{channel} {id}"), self.clock.now()).await?;
        let done = match deed {
            Deed::Replay => self.broker.replay_dead(channel, id).await?,
            Deed::Drop => self.broker.drop_dead(channel, id).await?,
        };
        if !done {
            return Err(DeadLetterError::Unknown);
        }
        tracing::info!(%channel, id, who, what, "dead letter settled");
        Ok(view(channel, &letter))
    }

    async fn find(&self, id: &str) -> Result<(Channel, DeadLetter), DeadLetterError> {
        for channel in Channel::ALL {
            if let Some(letter) = self.broker.find_dead(*channel, id).await? {
                return Ok((*channel, letter));
            }
        }
        Err(DeadLetterError::Unknown)
    }
}

fn view(channel: Channel, letter: &DeadLetter) -> DeadLetterView {
    let mut headers = letter.message.headers.clone();
    // Told as `deaths`.
    headers.remove(protocol::names::X_DEATHS);
    DeadLetterView {
        id: letter.message.id.clone(),
        channel,
        kind: letter.message.kind.clone(),
        app_id: letter.message.app_id.clone(),
        at: letter.message.at,
        partition: letter.partition.map(|partition| partition.index),
        deaths: letter.deaths(),
        headers,
        bytes: letter.message.body.len(),
        body: None,
    }
}
