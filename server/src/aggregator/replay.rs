//! What a client missed: from the ring, else from the journal, else not at all.

use std::sync::Arc;
use std::time::Duration;

use domain::{Channel, Login};
use protocol::{Cursor, CursorReport};
use tokio::time::Instant;

use super::Aggregator;
use super::hub::Frame;
use crate::store::StoreError;

/// A longer absence than this many events of a channel is not replayed.
const EVENTS_MAX: u64 = 10_000;
/// Nor more than this many bytes of frames for one client.
pub(super) const BYTES_MAX: usize = 8 * 1024 * 1024;
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
    ///
    /// # Errors
    /// If that can't be told now, or if this one stays behind: another
    /// aggregator may do better, and nothing is lost.
    async fn reach(&self, channel: Channel, cursor: &Cursor) -> Result<(), StoreError> {
        let behind = || self.hub.head(channel) < cursor.offset;
        if cursor.epoch != self.store.epoch() || !behind() {
            return Ok(());
        }
        let heads = self.store.heads().await?;
        if heads.get(&channel).is_none_or(|head| head.offset < cursor.offset) {
            return Ok(());
        }
        let deadline = Instant::now() + REACH_TIMEOUT;
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while behind() {
            if Instant::now() >= deadline {
                return Err(StoreError::Unavailable(format!("{channel} is behind here")));
            }
            look.tick().await;
        }
        Ok(())
    }

    /// Begins a channel for a client: from the head that this gives on, its
    /// outbox gets the events; what it missed before that is in the replay.
    ///
    /// # Errors
    /// If what it missed can't be read now. That is no gap: it may come back.
    pub(super) async fn resume(
        &self,
        channel: Channel,
        resume: Option<&Cursor>,
        login: &Login,
        subscribe: impl FnOnce() -> u64,
    ) -> Result<Replay, StoreError> {
        if let Some(cursor) = resume {
            self.reach(channel, cursor).await?;
        }
        let head = subscribe();
        self.replay(channel, resume, head, login).await
    }

    /// What `login` missed of a channel between `resume` and `head`: all of
    /// it, or nothing and `recovered: false`.
    async fn replay(
        &self,
        channel: Channel,
        resume: Option<&Cursor>,
        head: u64,
        login: &Login,
    ) -> Result<Replay, StoreError> {
        let missed = match resume {
            Some(cursor) if cursor.epoch == self.store.epoch() && cursor.offset <= head => {
                self.missed(channel, cursor.offset, head, login).await?
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
        Ok(Replay { report, frames })
    }

    async fn missed(
        &self,
        channel: Channel,
        after: u64,
        head: u64,
        login: &Login,
    ) -> Result<Option<Vec<Arc<Frame>>>, StoreError> {
        if let Some(frames) = self.hub.replay(channel, after, head, login) {
            return Ok(Some(frames));
        }
        if head - after > EVENTS_MAX {
            return Ok(None);
        }
        let turn = self.replays.acquire().await;
        let _turn = turn.map_err(|_| StoreError::Unavailable("closed".to_owned()))?;
        let (mut frames, mut bytes, mut last) = (Vec::new(), 0, after);
        while last < head {
            let rows = self.store.journal(channel, last, PAGE).await?;
            if rows.is_empty() {
                return Ok(None);
            }
            for row in rows {
                if row.offset != last + 1 {
                    // The journal no longer reaches back that far.
                    return Ok(None);
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
            if bytes > BYTES_MAX {
                return Ok(None);
            }
        }
        Ok(Some(frames))
    }
}
