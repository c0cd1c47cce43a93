//! A channel's recent frames, from which everybody who comes back is served.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use domain::{Channel, Distribution, InteractionId, Login};
use protocol::{event_frame, mark};
use uuid::Uuid;

use super::outbox::BATCH_BYTES;

/// A longer absence than this many events of a channel is not replayed. It is a
/// minute of a busy desk, and some time to come back.
pub(super) const EVENTS_MAX: u64 = 25_000;
/// Nor more than this many bytes of frames. Both are the bounds of the ring too,
/// so that many who come back at once read no journal.
pub(super) const BYTES_MAX: usize = 16 * 1024 * 1024;

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

/// Some frames, and up to where they tell everything.
pub(super) struct Frames {
    pub(super) frames: Vec<Arc<Frame>>,
    pub(super) upto: u64,
}

/// The last frames up to the head, without a hole.
#[derive(Default)]
pub(super) struct Ring {
    head: u64,
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
}

impl Ring {
    /// An empty one.
    pub(super) fn begin(head: u64) -> Self {
        Self { head, ..Self::default() }
    }

    /// The offset of the last one.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    fn has_room(&self) -> bool {
        self.bytes <= BYTES_MAX && self.frames.len() as u64 <= EVENTS_MAX
    }

    /// Takes the event after the head, and nothing else.
    pub(super) fn push(&mut self, frame: Frame) -> Option<Arc<Frame>> {
        if frame.offset != self.head + 1 {
            return None;
        }
        let frame = Arc::new(frame);
        self.head = frame.offset;
        self.bytes += frame.text.len();
        self.frames.push_back(frame.clone());
        while !self.has_room()
            && let Some(oldest) = self.frames.pop_front()
        {
            self.bytes -= oldest.text.len();
        }
        Some(frame)
    }

    /// Takes what came just before its first, the oldest first; false if no
    /// more is wanted.
    pub(super) fn backfill(&mut self, frames: Vec<Frame>) -> bool {
        for frame in frames.into_iter().rev() {
            let bytes = self.bytes + frame.text.len();
            let room = bytes <= BYTES_MAX && (self.frames.len() as u64) < EVENTS_MAX;
            if frame.offset + 1 != self.first() || !room {
                return false;
            }
            self.bytes = bytes;
            self.frames.push_front(Arc::new(frame));
        }
        true
    }

    fn first(&self) -> u64 {
        self.frames.front().map_or(self.head + 1, |frame| frame.offset)
    }

    /// Where the event after `after` is or will be, if it reaches back that far.
    fn place(&self, after: u64) -> Option<usize> {
        let place = usize::try_from((after + 1).checked_sub(self.first())?).ok()?;
        (place <= self.frames.len()).then_some(place)
    }

    /// How many events after `after` up to `head` `login` may see, if it reaches
    /// back that far.
    pub(super) fn count(&self, after: u64, head: u64, login: &Login) -> Option<u64> {
        let frames = self.frames.range(self.place(after)?..);
        let frames = frames.take_while(|frame| frame.offset <= head);
        Some(frames.filter(|frame| frame.distribution.includes(login)).count() as u64)
    }

    /// What comes after `after`, as much as is written at one go, if it reaches
    /// back that far.
    pub(super) fn page(&self, after: u64, login: &Login) -> Option<Frames> {
        let mut page = Frames { frames: Vec::new(), upto: after };
        let mut bytes = 0;
        for frame in self.frames.range(self.place(after)?..) {
            if bytes >= BATCH_BYTES {
                break;
            }
            page.upto = frame.offset;
            if frame.distribution.includes(login) {
                bytes += frame.text.len();
                page.frames.push(frame.clone());
            }
        }
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(offset: u64) -> Frame {
        Frame::new(Channel::Chat, offset, Uuid::nil(), None, Distribution::Broadcast, "{}")
    }

    fn ana() -> Login {
        "ana".parse().expect("a login")
    }

    #[test]
    fn what_came_before_the_ring_is_put_into_it_without_a_hole_as_far_as_there_is_room() {
        let frames =
            |offsets: std::ops::RangeInclusive<u64>| offsets.map(frame).collect::<Vec<_>>();
        let back_to = |ring: &Ring, after| ring.count(after, u64::MAX, &ana());
        let mut ring = Ring::begin(40_000);
        assert!(ring.backfill(frames(39_998..=40_000)));
        assert_eq!(back_to(&ring, 39_997), Some(3));
        assert!(!ring.backfill(frames(39_990..=39_996)), "one is missing");
        assert_eq!(back_to(&ring, 39_996), None);
        assert!(ring.push(frame(40_001)).is_some());
        assert!(!ring.backfill(frames(1..=39_997)), "more than there is room for");
        assert_eq!(back_to(&ring, 15_001), Some(25_000));
        assert_eq!(back_to(&ring, 15_000), None);
        assert_eq!(ring.head(), 40_001);
    }

    #[test]
    fn the_ring_replays_whole_or_not_at_all() {
        let mut ring = Ring::begin(10);
        for offset in 11..=15 {
            assert!(ring.push(frame(offset)).is_some());
        }
        let replay = |after, head| ring.count(after, head, &ana());
        assert_eq!(replay(9, 15), None);
        assert_eq!(replay(10, 15), Some(5));
        assert_eq!(replay(10, 13), Some(3));
        assert_eq!(replay(14, 15), Some(1));
        assert_eq!(replay(15, 15), Some(0));
    }
}
