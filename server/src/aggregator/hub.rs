//! Where events meet connections: for each channel a head, a ring of recent
//! frames, and the outboxes of who listens. Nothing here is durable.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use domain::{Channel, Distribution, InteractionId, Login};
use protocol::{CloseCode, event_frame, mark};
use uuid::Uuid;

use super::outbox::{Outbox, Outgoing};
use super::replay::BYTES_MAX;
use crate::audit::Audit;
use crate::members::SignalTo;

/// The ring of a channel holds at most this many bytes of frames: what is
/// replayed to one client, so that many who come back at once read no journal.
const RING_BYTES_MAX: usize = BYTES_MAX;
/// And at most this many frames.
const RING_FRAMES_MAX: usize = 10_000;
/// Of so many interactions it is remembered who may see them, twice over.
const PLACES_MAX: usize = 16_384;

/// An event, encoded once for everybody who gets it.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) channel: Channel,
    pub(super) offset: u64,
    /// Of the offset and the id that clients read in the text.
    pub(super) mark: u64,
    pub(super) cause: Uuid,
    pub(super) interaction: Option<InteractionId>,
    pub(super) distribution: Distribution,
    pub(super) text: Utf8Bytes,
}

impl Frame {
    pub(super) fn new(
        channel: Channel,
        offset: u64,
        cause: Uuid,
        interaction: Option<InteractionId>,
        distribution: Distribution,
        event_json: &str,
    ) -> Self {
        #[derive(serde::Deserialize)]
        struct Identified {
            id: Uuid,
        }
        let id = serde_json::from_str(event_json).map_or(Uuid::nil(), |event: Identified| event.id);
        let mark = mark(offset, id);
        let text = event_frame(channel, offset, event_json).into();
        Self { channel, offset, mark, cause, interaction, distribution, text }
    }
}

/// Where an interaction is and who may see it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) channel: Channel,
    pub(super) distribution: Distribution,
}

/// A connection, as the hub knows it.
#[derive(Clone)]
struct Listener {
    login: Login,
    /// The one channel that its socket carries, if it is one.
    only: Option<Channel>,
    outbox: Arc<Outbox>,
}

#[derive(Default)]
struct Lane {
    head: u64,
    ring: VecDeque<Arc<Frame>>,
    ring_bytes: usize,
    listeners: HashMap<u64, Listener>,
}

/// A map that forgets what was not asked for during the last full turn.
#[derive(Default)]
struct Places {
    young: HashMap<InteractionId, Place>,
    old: HashMap<InteractionId, Place>,
}

impl Places {
    fn put(&mut self, id: InteractionId, place: Place) {
        if self.young.len() >= PLACES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, place);
    }

    fn get(&self, id: InteractionId) -> Option<Place> {
        self.young.get(&id).or_else(|| self.old.get(&id)).cloned()
    }
}

/// All channels' lanes. Its locks are held for short maps only.
pub(super) struct Hub {
    audit: Audit,
    lanes: [Mutex<Lane>; 3],
    everyone: Mutex<HashMap<u64, Listener>>,
    places: Mutex<Places>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(super) fn new(audit: Audit) -> Self {
        Self {
            audit,
            lanes: Default::default(),
            everyone: Mutex::default(),
            places: Mutex::default(),
        }
    }

    fn lane(&self, channel: Channel) -> MutexGuard<'_, Lane> {
        lock(&self.lanes[channel.index()])
    }

    /// The last offset that was delivered.
    pub(super) fn head(&self, channel: Channel) -> u64 {
        self.lane(channel).head
    }

    /// Begins a channel at `head`, with an empty ring.
    pub(super) fn begin(&self, channel: Channel, head: u64) {
        self.audit.begin(channel, head);
        let mut lane = self.lane(channel);
        lane.head = head;
        lane.ring = VecDeque::new();
        lane.ring_bytes = 0;
    }

    /// Delivers the event after the head; anything else is left alone and
    /// `false`. The caller sees to the order.
    pub(super) fn deliver(&self, frame: Frame) -> bool {
        if let Some(id) = frame.interaction {
            let place = Place { channel: frame.channel, distribution: frame.distribution.clone() };
            lock(&self.places).put(id, place);
        }
        let mut lane = self.lane(frame.channel);
        if frame.offset != lane.head + 1 {
            return false;
        }
        let frame = Arc::new(frame);
        lane.head = frame.offset;
        lane.ring_bytes += frame.text.len();
        lane.ring.push_back(frame.clone());
        while lane.ring_bytes > RING_BYTES_MAX || lane.ring.len() > RING_FRAMES_MAX {
            let Some(oldest) = lane.ring.pop_front() else { break };
            lane.ring_bytes -= oldest.text.len();
        }
        self.audit.delivered(frame.channel, frame.offset, frame.mark);
        for listener in lane.listeners.values() {
            if frame.distribution.includes(&listener.login) {
                listener.outbox.push(Outgoing::Event(frame.clone()));
            }
        }
        true
    }

    /// Puts what came just before the ring into it, the oldest first; false if
    /// no more is wanted.
    pub(super) fn backfill(&self, channel: Channel, frames: Vec<Frame>) -> bool {
        let mut lane = self.lane(channel);
        for frame in frames.into_iter().rev() {
            let first = lane.ring.front().map_or(lane.head + 1, |frame| frame.offset);
            let bytes = lane.ring_bytes + frame.text.len();
            let room = bytes <= RING_BYTES_MAX && lane.ring.len() < RING_FRAMES_MAX;
            if frame.offset + 1 != first || !room {
                return false;
            }
            lane.ring_bytes = bytes;
            lane.ring.push_front(Arc::new(frame));
        }
        true
    }

    /// From the offset that this gives on, the outbox gets the channel's events.
    pub(super) fn subscribe(
        &self,
        channel: Channel,
        connection: u64,
        login: &Login,
        outbox: &Arc<Outbox>,
    ) -> u64 {
        let mut lane = self.lane(channel);
        let only = Some(channel);
        let listener = Listener { login: login.clone(), only, outbox: outbox.clone() };
        lane.listeners.insert(connection, listener);
        lane.head
    }

    /// Whether a connection gets a channel's events already.
    pub(super) fn carries(&self, channel: Channel, connection: u64) -> bool {
        self.lane(channel).listeners.contains_key(&connection)
    }

    pub(super) fn unsubscribe(&self, channel: Channel, connection: u64) {
        self.lane(channel).listeners.remove(&connection);
    }

    /// The frames after `after` up to `head` that `login` may see, if the
    /// ring reaches back that far.
    pub(super) fn replay(
        &self,
        channel: Channel,
        after: u64,
        head: u64,
        login: &Login,
    ) -> Option<Vec<Arc<Frame>>> {
        let lane = self.lane(channel);
        let first = lane.ring.front().map_or(lane.head + 1, |frame| frame.offset);
        if after + 1 < first {
            return None;
        }
        let wanted = |frame: &&Arc<Frame>| {
            frame.offset > after && frame.offset <= head && frame.distribution.includes(login)
        };
        Some(lane.ring.iter().filter(wanted).cloned().collect())
    }

    /// Whoever listens goes on after the head, with `text` made from it; the
    /// ring forgets what it has.
    pub(super) fn begin_anew(&self, channel: Channel, text: impl Fn(u64) -> Option<Utf8Bytes>) {
        let mut lane = self.lane(channel);
        lane.ring = VecDeque::new();
        lane.ring_bytes = 0;
        let Some(text) = text(lane.head) else { return };
        for listener in lane.listeners.values() {
            listener.outbox.push(Outgoing::Text(text.clone()));
        }
    }

    /// Who gets signals, lists of peers and the word to leave.
    pub(super) fn enter(
        &self,
        connection: u64,
        login: &Login,
        only: Option<Channel>,
        outbox: &Arc<Outbox>,
    ) {
        let listener = Listener { login: login.clone(), only, outbox: outbox.clone() };
        lock(&self.everyone).insert(connection, listener);
    }

    pub(super) fn leave(&self, connection: u64) {
        for channel in Channel::ALL {
            self.unsubscribe(*channel, connection);
        }
        lock(&self.everyone).remove(&connection);
    }

    pub(super) fn connections(&self) -> u64 {
        lock(&self.everyone).len() as u64
    }

    /// A signal to those who may see it: of those who listen to `channel`,
    /// or of all where it belongs to none.
    pub(super) fn signal(&self, channel: Option<Channel>, to: &SignalTo, text: &Utf8Bytes) {
        let tell = |listener: &Listener| {
            if to.distribution.includes(&listener.login) {
                listener.outbox.push(Outgoing::Text(text.clone()));
            }
        };
        match channel {
            Some(channel) => self.lane(channel).listeners.values().for_each(tell),
            None => lock(&self.everyone).values().for_each(tell),
        }
    }

    /// One frame to every connection; `text` makes it for the one channel
    /// that the connection's socket carries, or for all.
    pub(super) fn tell_all(&self, text: impl Fn(Option<Channel>) -> Option<Utf8Bytes>) {
        for listener in lock(&self.everyone).values() {
            if let Some(text) = text(listener.only) {
                listener.outbox.push(Outgoing::Text(text));
            }
        }
    }

    /// Who is there.
    pub(super) fn everyone(&self) -> Vec<u64> {
        lock(&self.everyone).keys().copied().collect()
    }

    /// One frame to one connection, if it is there still.
    pub(super) fn tell(
        &self,
        connection: u64,
        text: impl FnOnce(Option<Channel>) -> Option<Utf8Bytes>,
    ) {
        if let Some(listener) = lock(&self.everyone).get(&connection)
            && let Some(text) = text(listener.only)
        {
            listener.outbox.push(Outgoing::Text(text));
        }
    }

    /// Ends the connections that listen to a channel.
    pub(super) fn shut(&self, channel: Channel, code: CloseCode) {
        for listener in self.lane(channel).listeners.values() {
            listener.outbox.shut(code);
        }
    }

    pub(super) fn shut_all(&self, code: CloseCode) {
        for listener in lock(&self.everyone).values() {
            listener.outbox.shut(code);
        }
    }

    pub(super) fn place(&self, id: InteractionId) -> Option<Place> {
        lock(&self.places).get(id)
    }

    pub(super) fn remember(&self, id: InteractionId, place: Place) {
        lock(&self.places).put(id, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(offset: u64, distribution: Distribution) -> Frame {
        Frame::new(Channel::Chat, offset, Uuid::nil(), None, distribution, "{}")
    }

    fn login(name: &str) -> Login {
        name.parse().expect("a login")
    }

    #[test]
    fn what_came_before_the_ring_is_put_into_it_without_a_hole_as_far_as_there_is_room() {
        let hub = Hub::new(Audit::new("here"));
        let frames = |offsets: std::ops::RangeInclusive<u64>| {
            offsets.map(|offset| frame(offset, Distribution::Broadcast)).collect::<Vec<_>>()
        };
        let back_to = |after: u64| {
            let frames = hub.replay(Channel::Chat, after, 20_000, &login("ana"))?;
            Some(frames.iter().map(|frame| frame.offset).collect::<Vec<_>>())
        };
        hub.begin(Channel::Chat, 20_000);
        assert!(hub.backfill(Channel::Chat, frames(19_998..=20_000)));
        assert_eq!(back_to(19_997), Some(vec![19_998, 19_999, 20_000]));
        assert!(!hub.backfill(Channel::Chat, frames(19_990..=19_996)), "one is missing");
        assert_eq!(back_to(19_996), None);
        assert!(hub.deliver(frame(20_001, Distribution::Broadcast)));
        assert!(!hub.backfill(Channel::Chat, frames(1..=19_997)), "more than there is room for");
        assert_eq!(back_to(10_001).map(|offsets| offsets.len()), Some(9_999));
        assert_eq!(back_to(10_000), None);
        assert_eq!(hub.head(Channel::Chat), 20_001);
    }

    #[tokio::test]
    async fn only_the_addressed_get_it_and_all_share_the_bytes() {
        let hub = Hub::new(Audit::new("here"));
        let outboxes: Vec<_> =
            ["ana", "ben"].iter().map(|_| Arc::new(Outbox::new(1_000))).collect();
        for (n, name) in ["ana", "ben"].iter().enumerate() {
            assert_eq!(hub.subscribe(Channel::Chat, n as u64, &login(name), &outboxes[n]), 0);
        }
        assert!(hub.deliver(frame(1, Distribution::Direct(login("ana")))));
        assert!(hub.deliver(frame(2, Distribution::Broadcast)));
        assert!(!hub.deliver(frame(2, Distribution::Broadcast)), "twice");
        assert!(!hub.deliver(frame(4, Distribution::Broadcast)), "a hole");
        let taken: Vec<_> = [outboxes[0].take().await, outboxes[1].take().await].into();
        assert_eq!(taken[0].len(), 2);
        assert_eq!(taken[1].len(), 1);
        let (Outgoing::Event(one), Outgoing::Event(other)) = (&taken[0][1], &taken[1][0]) else {
            panic!("events")
        };
        assert!(Arc::ptr_eq(one, other));
    }

    #[test]
    fn the_ring_replays_whole_or_not_at_all() {
        let hub = Hub::new(Audit::new("here"));
        hub.begin(Channel::Chat, 10);
        for offset in 11..=15 {
            assert!(hub.deliver(frame(offset, Distribution::Broadcast)));
        }
        let replay =
            |after| hub.replay(Channel::Chat, after, 15, &login("ana")).map(|frames| frames.len());
        assert_eq!(replay(9), None);
        assert_eq!(replay(10), Some(5));
        assert_eq!(replay(14), Some(1));
        assert_eq!(replay(15), Some(0));
    }
}
