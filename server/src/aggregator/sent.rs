//! What was sent on one connection: digests for pings, places for acks.

use std::collections::{BTreeMap, VecDeque};

use domain::{Channel, Distribution, Login};
use protocol::{Account, AckStage, Difference, Digest, Stage};
use uuid::Uuid;

use super::ring::Frame;
use crate::audit::{Answer, Differs};
use crate::store::Receipt;

/// Of so many event frames it is remembered whose receipt is outstanding;
/// the oldest are forgotten first.
const OUTSTANDING_MAX: usize = 2_048;

/// Of so many pings it is remembered what was sent before them.
const PINGS_MAX: usize = 8;

struct Outstanding {
    offset: u64,
    cause: Uuid,
    named: bool,
    received: bool,
}

/// One connection's account.
pub(super) struct Sent {
    login: Login,
    digests: BTreeMap<Channel, Digest>,
    heads: BTreeMap<Channel, u64>,
    /// As of the last pings, oldest first.
    pinged: VecDeque<BTreeMap<Channel, Digest>>,
    forgotten: bool,
    answered: Account,
    outstanding: BTreeMap<Channel, VecDeque<Outstanding>>,
}

impl Sent {
    pub(super) fn new(login: Login) -> Self {
        Self {
            login,
            digests: BTreeMap::new(),
            heads: BTreeMap::new(),
            pinged: VecDeque::new(),
            forgotten: false,
            answered: Account::default(),
            outstanding: BTreeMap::new(),
        }
    }

    /// A ping is sent now: event frames so far, for each channel that was carried.
    pub(super) fn pinged(&mut self) -> BTreeMap<Channel, u64> {
        if self.pinged.len() >= PINGS_MAX {
            self.pinged.pop_front();
            self.forgotten = true;
        }
        self.pinged.push_back(self.digests.clone());
        self.digests.iter().map(|(channel, digest)| (*channel, digest.count)).collect()
    }

    /// A ping is answered with the client's account, which was kept up to that
    /// ping. Which one it was the counts tell.
    pub(super) fn answered(&mut self, account: Account) -> Answer {
        let received =
            |channel: &Channel| account.received.get(channel).copied().unwrap_or_default();
        let behind = |sent: &BTreeMap<Channel, Digest>| {
            sent.iter().any(|(channel, sent)| received(channel).count < sent.count)
        };
        let same = |sent: &BTreeMap<Channel, Digest>| {
            sent.iter().all(|(channel, sent)| received(channel).count == sent.count)
        };
        let mut differs = None;
        match self.pinged.iter().position(same) {
            Some(at) => {
                let mut sent = self.pinged.drain(..=at).next_back().unwrap_or_default().into_iter();
                differs = sent.find(|(channel, sent)| received(channel) != *sent);
            }
            // An answer to a ping that is forgotten says nothing.
            None if self.forgotten && self.pinged.front().is_none_or(behind) => {}
            None => {
                let sent = self.pinged.back().unwrap_or(&self.digests);
                let sent = sent.iter().find(|(channel, sent)| received(channel) != **sent);
                differs = sent.map(|(channel, sent)| (*channel, *sent));
            }
        }
        let differs = differs.map(|(channel, sent)| {
            let missing = sent.count.saturating_sub(received(&channel).count);
            Differs {
                channel,
                offset: self.heads.get(&channel).copied().unwrap_or(0),
                difference: if missing > 0 { Difference::Missing } else { Difference::Altered },
                events: missing.max(1),
            }
        });
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let answer = Answer {
            repeated: since(account.repeated, self.answered.repeated),
            shown_twice: since(account.shown_twice, self.answered.shown_twice),
            differs,
        };
        self.answered = account;
        answer
    }

    /// A channel is carried from here on.
    pub(super) fn open(&mut self, channel: Channel) {
        self.digests.entry(channel).or_default();
    }

    /// A frame was written. Gives the receipt for it.
    pub(super) fn wrote(&mut self, frame: &Frame, at: domain::Timestamp) -> Receipt {
        self.digests.entry(frame.channel).or_default().add(frame.mark);
        self.heads.insert(frame.channel, frame.offset);
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
        let agent = named.then(|| self.login.clone());
        Receipt { cause, stage, at, integration: None, agent, count: 1 }
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
        assert_eq!(sent.pinged()[&Channel::Chat], 5);
    }

    fn says(digest: Digest) -> Account {
        let received = BTreeMap::from([(Channel::Chat, digest)]);
        Account { received, ..Account::default() }
    }

    #[test]
    fn an_account_is_held_against_what_was_sent_before_its_ping() {
        let mut sent = account(1..=5);
        let five = sent.digests[&Channel::Chat];
        sent.pinged();
        let more = account(1..=7);
        sent.digests = more.digests.clone();
        sent.pinged();
        // The first ping's answer comes after the second was sent.
        assert_eq!(sent.answered(says(five)).differs, None);
        let seven = sent.digests[&Channel::Chat];
        assert_eq!(sent.answered(says(seven)).differs, None);

        for (count, hash, difference, events) in [
            (6, seven.hash, Difference::Missing, 1),
            (7, seven.hash ^ 1, Difference::Altered, 1),
            (9, seven.hash, Difference::Altered, 1),
            (0, 0, Difference::Missing, 7),
        ] {
            sent.pinged();
            let wrong = sent.answered(says(Digest { count, hash })).differs.expect("a difference");
            assert_eq!((wrong.difference, wrong.events), (difference, events), "{count}");
            assert_eq!((wrong.channel, wrong.offset), (Channel::Chat, 5));
        }
    }

    #[test]
    fn an_answer_to_a_ping_that_is_forgotten_says_nothing() {
        let mut sent = account(1..=1);
        let one = sent.digests[&Channel::Chat];
        sent.pinged();
        sent.digests = account(1..=2).digests;
        for _ in 0..PINGS_MAX {
            sent.pinged();
        }
        assert_eq!(sent.pinged.len(), PINGS_MAX);
        assert_eq!(sent.answered(says(one)).differs, None);
    }

    #[test]
    fn what_a_client_dropped_is_counted_once() {
        let mut sent = account(1..=1);
        let mut told = says(sent.digests[&Channel::Chat]);
        for (repeated, since) in [(2, 2), (2, 0), (5, 3)] {
            sent.pinged();
            told.repeated = repeated;
            assert_eq!(sent.answered(told.clone()).repeated, since);
        }
    }

    #[test]
    fn an_ack_of_more_than_was_sent_brings_only_what_was_sent() {
        let mut sent = account(1..=2);
        let at = Timestamp::from_millis(0);
        assert_eq!(sent.acked(Channel::Chat, u64::MAX, AckStage::Received, at).len(), 2);
        assert_eq!(sent.acked(Channel::Voice, 7, AckStage::Received, at).len(), 0);
    }
}
