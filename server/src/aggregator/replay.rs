//! What a client missed: from the ring, else from the journal, else not at all.

use std::sync::Arc;
use std::time::Duration;

use domain::{Channel, Login};
use protocol::{Cursor, CursorReport};
use tokio::time::Instant;

use super::Aggregator;
use super::hub::Frame;

/// A longer absence than this many events of a channel is not replayed.
const EVENTS_MAX: u64 = 10_000;
/// Nor more than this many bytes of frames for one client.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a client that is ahead waits for this aggregator to follow.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
const PAGE: u32 = 500;

/// A channel's report and the frames that go with it.
pub(super) struct Replay {
    pub(super) report: CursorReport,
    pub(super) frames: Vec<Arc<Frame>>,
}

impl Aggregator {
    /// A client may have heard more elsewhere than this aggregator has: waits
    /// until it hasn't, for a while, if the journal knows that place at all.
    pub(super) async fn reach(&self, channel: Channel, cursor: &Cursor) {
        let behind = || self.hub.head(channel) < cursor.offset;
        if cursor.epoch != self.store.epoch() || !behind() {
            return;
        }
        let known = self.store.heads().await.is_ok_and(|heads| {
            heads.get(&channel).is_some_and(|head| head.offset >= cursor.offset)
        });
        let deadline = Instant::now() + REACH_TIMEOUT;
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while known && behind() && Instant::now() < deadline {
            look.tick().await;
        }
    }

    /// What `login` missed of a channel between `resume` and `head`: all of
    /// it, or nothing and `recovered: false`.
    pub(super) async fn replay(
        &self,
        channel: Channel,
        resume: Option<&Cursor>,
        head: u64,
        login: &Login,
    ) -> Replay {
        let missed = match resume {
            Some(cursor) if cursor.epoch == self.store.epoch() && cursor.offset <= head => {
                self.missed(channel, cursor.offset, head, login).await
            }
            _ => None,
        };
        let recovered = missed.is_some();
        let frames = missed.unwrap_or_default();
        let report = CursorReport {
            epoch: self.store.epoch().to_owned(),
            offset: head,
            recovered,
            replayed: frames.len() as u64,
        };
        Replay { report, frames }
    }

    async fn missed(
        &self,
        channel: Channel,
        after: u64,
        head: u64,
        login: &Login,
    ) -> Option<Vec<Arc<Frame>>> {
        if let Some(frames) = self.hub.replay(channel, after, head, login) {
            return Some(frames);
        }
        if head - after > EVENTS_MAX {
            return None;
        }
        let _turn = self.replays.acquire().await.ok()?;
        let (mut frames, mut bytes, mut last) = (Vec::new(), 0, after);
        while last < head {
            let rows = self
                .store
                .journal(channel, last, PAGE)
                .await
                .map_err(|error| tracing::warn!(%channel, %error, "replay not read"))
                .ok()?;
            for row in rows {
                if row.offset != last + 1 {
                    // The journal no longer reaches back that far.
                    return None;
                }
                last = row.offset;
                if last <= head && row.distribution.includes(login) {
                    let frame = Frame::from_journal(channel, row);
                    bytes += frame.text.len();
                    frames.push(Arc::new(frame));
                }
                if last == head {
                    break;
                }
            }
            if bytes > BYTES_MAX || last == after {
                return None;
            }
        }
        Some(frames)
    }
}
