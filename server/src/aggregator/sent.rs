//! What was sent on one connection: counts for pings, places for acks.

use std::collections::{BTreeMap, VecDeque};

use domain::{Channel, Distribution, Login};
use protocol::{AckStage, Stage};
use uuid::Uuid;

use super::hub::Frame;
use crate::store::Receipt;

/// Of so many event frames it is remembered whose receipt is outstanding;
/// the oldest are forgotten first.
const OUTSTANDING_MAX: usize = 2_048;

struct Outstanding {
    offset: u64,
    cause: Uuid,
    named: bool,
    received: bool,
}

/// One connection's account.
pub(super) struct Sent {
    login: Login,
    counts: BTreeMap<Channel, u64>,
    outstanding: BTreeMap<Channel, VecDeque<Outstanding>>,
}

impl Sent {
    pub(super) fn new(login: Login) -> Self {
        Self { login, counts: BTreeMap::new(), outstanding: BTreeMap::new() }
    }

    /// Event frames so far, for each channel that is carried.
    pub(super) fn counts(&self) -> BTreeMap<Channel, u64> {
        self.counts.clone()
    }

    /// A channel is carried from here on.
    pub(super) fn open(&mut self, channel: Channel) {
        self.counts.entry(channel).or_default();
    }

    /// A frame was written. Gives the receipt for it.
    pub(super) fn wrote(&mut self, frame: &Frame, at: domain::Timestamp) -> Receipt {
        *self.counts.entry(frame.channel).or_default() += 1;
        let named = !matches!(frame.distribution, Distribution::Broadcast);
        let outstanding = self.outstanding.entry(frame.channel).or_default();
        if outstanding.len() >= OUTSTANDING_MAX {
            outstanding.pop_front();
        }
        outstanding.push_back(Outstanding {
            offset: frame.offset,
            cause: frame.cause,
            named,
            received: false,
        });
        self.receipt(frame.cause, named, Stage::Sent, at)
    }

    /// The client has everything up to `offset`. Gives the receipts that are
    /// new; what was never sent brings none.
    pub(super) fn acked(
        &mut self,
        channel: Channel,
        offset: u64,
        stage: AckStage,
        at: domain::Timestamp,
    ) -> Vec<Receipt> {
        let Some(mut outstanding) = self.outstanding.remove(&channel) else { return Vec::new() };
        let mut receipts = Vec::new();
        for one in outstanding.iter_mut().take_while(|one| one.offset <= offset) {
            if !one.received {
                one.received = true;
                receipts.push(self.receipt(one.cause, one.named, Stage::Received, at));
            }
            if stage == AckStage::Rendered {
                receipts.push(self.receipt(one.cause, one.named, Stage::Rendered, at));
            }
        }
        if stage == AckStage::Rendered {
            outstanding.retain(|one| one.offset > offset);
        }
        self.outstanding.insert(channel, outstanding);
        receipts
    }

    fn receipt(&self, cause: Uuid, named: bool, stage: Stage, at: domain::Timestamp) -> Receipt {
        Receipt { cause, stage, at, agent: named.then(|| self.login.clone()), count: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;

    fn account(offsets: std::ops::RangeInclusive<u64>) -> Sent {
        let mut sent = Sent::new("ana".parse().expect("a login"));
        for offset in offsets {
            let frame = Frame::new(
                Channel::Chat,
                offset,
                Uuid::from_u128(offset.into()),
                None,
                Distribution::Broadcast,
                "{}",
            );
            sent.wrote(&frame, Timestamp::from_millis(0));
        }
        sent
    }

    #[test]
    fn acks_are_cumulative_and_count_once() {
        let mut sent = account(1..=5);
        let at = Timestamp::from_millis(0);
        assert_eq!(sent.acked(Channel::Chat, 3, AckStage::Received, at).len(), 3);
        assert_eq!(sent.acked(Channel::Chat, 3, AckStage::Received, at).len(), 0);
        assert_eq!(
            sent.acked(Channel::Chat, 4, AckStage::Rendered, at).len(),
            5,
            "one received, four rendered"
        );
        assert_eq!(sent.acked(Channel::Chat, 4, AckStage::Rendered, at).len(), 0);
        assert_eq!(sent.counts()[&Channel::Chat], 5);
    }

    #[test]
    fn an_ack_of_more_than_was_sent_brings_only_what_was_sent() {
        let mut sent = account(1..=2);
        let at = Timestamp::from_millis(0);
        assert_eq!(sent.acked(Channel::Chat, u64::MAX, AckStage::Received, at).len(), 2);
        assert_eq!(sent.acked(Channel::Voice, 7, AckStage::Received, at).len(), 0);
    }
}
