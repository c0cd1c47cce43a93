//! Where events meet connections: for each channel a head, a ring of recent
//! frames, and the outboxes of who listens. Nothing here is durable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use domain::{Channel, Distribution, InteractionId, Login};
use protocol::CloseCode;

use super::outbox::{Outbox, Outgoing};
use super::ring::{Frame, Frames, Ring};
use crate::audit::Audit;
use crate::members::SignalTo;

/// Of so many interactions it is remembered who may see them, twice over.
const PLACES_MAX: usize = 16_384;

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
    /// Gets events as they come. Who is behind takes them from the ring at its
    /// own pace: nothing piles up for it, however long that takes.
    live: bool,
}

/// What comes next for who is behind.
pub(super) enum Page {
    /// It isn't behind any more: the rest comes by its outbox.
    Live,
    Frames(Frames),
    /// The ring doesn't reach back that far.
    Lost,
}

#[derive(Default)]
struct Lane {
    ring: Ring,
    listeners: HashMap<u64, Listener>,
}

impl Lane {
    /// Lets a listener that has everything up to `at` have events as they come,
    /// if that is all there is. True if it does so now, or listens no more.
    fn join(&mut self, connection: u64, at: u64) -> bool {
        let Some(listener) = self.listeners.get_mut(&connection) else { return true };
        listener.live |= at >= self.ring.head();
        listener.live
    }
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
        self.lane(channel).ring.head()
    }

    /// Begins a channel at `head`, with an empty ring.
    pub(super) fn begin(&self, channel: Channel, head: u64) {
        self.audit.begin(channel, head);
        self.lane(channel).ring = Ring::begin(head);
    }

    /// Delivers the event after the head; anything else is left alone and
    /// `false`. The caller sees to the order.
    pub(super) fn deliver(&self, frame: Frame) -> bool {
        if let Some(id) = frame.interaction {
            let place = Place { channel: frame.channel, distribution: frame.distribution.clone() };
            lock(&self.places).put(id, place);
        }
        let mut lane = self.lane(frame.channel);
        let Some(frame) = lane.ring.push(frame) else { return false };
        self.audit.delivered(frame.channel, frame.offset, frame.mark);
        for listener in lane.listeners.values() {
            if listener.live && frame.distribution.includes(&listener.login) {
                listener.outbox.push(Outgoing::Event(frame.clone()));
            }
        }
        true
    }

    /// See [`Ring::backfill`].
    pub(super) fn backfill(&self, channel: Channel, frames: Vec<Frame>) -> bool {
        self.lane(channel).ring.backfill(frames)
    }

    /// Whoever listens from here on is behind until it has [joined](Self::join).
    /// Gives the head.
    pub(super) fn subscribe(
        &self,
        channel: Channel,
        connection: u64,
        login: &Login,
        outbox: &Arc<Outbox>,
    ) -> u64 {
        let mut lane = self.lane(channel);
        let only = Some(channel);
        let listener = Listener { login: login.clone(), only, outbox: outbox.clone(), live: false };
        lane.listeners.insert(connection, listener);
        lane.ring.head()
    }

    /// Listens from the head on, and is told so first, with `text` made from it.
    pub(super) fn subscribe_anew(
        &self,
        channel: Channel,
        connection: u64,
        login: &Login,
        outbox: &Arc<Outbox>,
        text: impl FnOnce(u64) -> Option<Utf8Bytes>,
    ) {
        let mut lane = self.lane(channel);
        if let Some(text) = text(lane.ring.head()) {
            outbox.push(Outgoing::Text(text));
        }
        let only = Some(channel);
        let listener = Listener { login: login.clone(), only, outbox: outbox.clone(), live: true };
        lane.listeners.insert(connection, listener);
    }

    /// Whether a connection that has everything up to `at` gets events by its
    /// outbox now, or none at all.
    pub(super) fn join(&self, channel: Channel, connection: u64, at: u64) -> bool {
        self.lane(channel).join(connection, at)
    }

    /// What comes after `after` for a connection that is behind.
    pub(super) fn page(&self, channel: Channel, connection: u64, after: u64) -> Page {
        let mut lane = self.lane(channel);
        if lane.join(connection, after) {
            return Page::Live;
        }
        let Some(listener) = lane.listeners.get(&connection) else { return Page::Live };
        lane.ring.page(after, &listener.login).map_or(Page::Lost, Page::Frames)
    }

    /// Whether a connection gets a channel's events already.
    pub(super) fn carries(&self, channel: Channel, connection: u64) -> bool {
        self.lane(channel).listeners.contains_key(&connection)
    }

    pub(super) fn unsubscribe(&self, channel: Channel, connection: u64) {
        self.lane(channel).listeners.remove(&connection);
    }

    /// See [`Ring::count`].
    pub(super) fn count(
        &self,
        channel: Channel,
        after: u64,
        head: u64,
        login: &Login,
    ) -> Option<u64> {
        self.lane(channel).ring.count(after, head, login)
    }

    /// Whoever listens goes on after the head, with `text` made from it, those
    /// who are behind too; the ring forgets what it has.
    pub(super) fn begin_anew(&self, channel: Channel, text: impl Fn(u64) -> Option<Utf8Bytes>) {
        let mut lane = self.lane(channel);
        lane.ring = Ring::begin(lane.ring.head());
        let Some(text) = text(lane.ring.head()) else { return };
        for listener in lane.listeners.values_mut() {
            listener.live = true;
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
        let listener = Listener { login: login.clone(), only, outbox: outbox.clone(), live: true };
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
    use uuid::Uuid;

    use super::*;
    use crate::aggregator::outbox::BATCH_BYTES;
    use crate::aggregator::ring::EVENTS_MAX;

    fn frame(offset: u64, distribution: Distribution) -> Frame {
        Frame::new(Channel::Chat, offset, Uuid::nil(), None, distribution, "{}")
    }

    fn login(name: &str) -> Login {
        name.parse().expect("a login")
    }

    /// The offsets of what an outbox holds.
    async fn taken(outbox: &Outbox) -> Vec<u64> {
        let offset = |outgoing: &Outgoing| match outgoing {
            Outgoing::Event(frame) => frame.offset,
            Outgoing::Text(_) => 0,
        };
        outbox.take().await.iter().map(offset).collect()
    }

    #[tokio::test]
    async fn only_the_addressed_get_it_and_all_share_the_bytes() {
        let hub = Hub::new(Audit::new("here"));
        let outboxes: Vec<_> =
            ["ana", "ben"].iter().map(|_| Arc::new(Outbox::new(1_000))).collect();
        for (n, name) in ["ana", "ben"].iter().enumerate() {
            assert_eq!(hub.subscribe(Channel::Chat, n as u64, &login(name), &outboxes[n]), 0);
            assert!(hub.join(Channel::Chat, n as u64, 0));
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

    #[tokio::test]
    async fn who_is_behind_reads_pages_at_its_own_pace_and_nothing_piles_up_for_it() {
        let hub = Hub::new(Audit::new("here"));
        let (ana, outbox) = (login("ana"), Arc::new(Outbox::new(1)));
        hub.begin(Channel::Chat, 10);
        hub.subscribe(Channel::Chat, 7, &ana, &outbox);
        let whole = frame(11, Distribution::Broadcast).text.len();
        let last = 10 + 2 * (BATCH_BYTES / whole) as u64;
        for offset in 11..=last {
            let ben = offset == 12;
            let to = if ben { Distribution::Direct(login("ben")) } else { Distribution::Broadcast };
            assert!(hub.deliver(frame(offset, to)));
        }
        let (mut at, mut seen, mut pages) = (10, Vec::new(), 0);
        while let Page::Frames(Frames { frames, upto }) = hub.page(Channel::Chat, 7, at) {
            assert!(frames.iter().map(|frame| frame.text.len()).sum::<usize>() < 2 * BATCH_BYTES);
            seen.extend(frames.iter().map(|frame| frame.offset));
            (at, pages) = (upto, pages + 1);
        }
        assert!(pages > 1);
        assert_eq!(seen, (11..=last).filter(|offset| *offset != 12).collect::<Vec<_>>());
        // What comes now comes by the outbox, and its bound counts.
        assert!(hub.deliver(frame(last + 1, Distribution::Broadcast)));
        assert_eq!(outbox.shut_with().await, CloseCode::SlowReader);
    }

    #[tokio::test]
    async fn who_is_behind_when_a_channel_begins_anew_goes_on_with_the_others() {
        let hub = Hub::new(Audit::new("here"));
        let outbox = Arc::new(Outbox::new(1_000));
        hub.begin(Channel::Chat, 10);
        hub.subscribe(Channel::Chat, 7, &login("ana"), &outbox);
        assert!(hub.deliver(frame(11, Distribution::Broadcast)));
        hub.begin_anew(Channel::Chat, |offset| Some(offset.to_string().into()));
        assert!(hub.deliver(frame(12, Distribution::Broadcast)));
        assert!(matches!(hub.page(Channel::Chat, 7, 10), Page::Live));
        assert_eq!(taken(&outbox).await, [0, 12]);
    }

    #[tokio::test]
    async fn what_the_ring_has_lost_is_said_to_be_lost_and_who_left_is_not_behind() {
        let hub = Hub::new(Audit::new("here"));
        let outbox = Arc::new(Outbox::new(1_000));
        hub.begin(Channel::Chat, 10);
        hub.subscribe(Channel::Chat, 7, &login("ana"), &outbox);
        for offset in 11..=11 + EVENTS_MAX {
            assert!(hub.deliver(frame(offset, Distribution::Broadcast)));
        }
        assert!(matches!(hub.page(Channel::Chat, 7, 10), Page::Lost));
        assert!(matches!(hub.page(Channel::Chat, 7, 11), Page::Frames(page) if page.upto > 11));
        hub.unsubscribe(Channel::Chat, 7);
        assert!(matches!(hub.page(Channel::Chat, 7, 10), Page::Live));
    }

    #[tokio::test]
    async fn who_subscribes_anew_is_told_from_where_before_anything_comes() {
        let hub = Hub::new(Audit::new("here"));
        let outbox = Arc::new(Outbox::new(1_000));
        hub.begin(Channel::Chat, 10);
        hub.subscribe_anew(Channel::Chat, 7, &login("ana"), &outbox, |offset| {
            assert_eq!(offset, 10);
            Some("gap".into())
        });
        assert!(hub.deliver(frame(11, Distribution::Broadcast)));
        assert_eq!(taken(&outbox).await, [0, 11]);
    }
}
