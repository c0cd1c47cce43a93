//! What a client missed: from the ring, else from the journal, else not at all;
//! page by page, when the client has read the last one.

use std::sync::Arc;
use std::time::Duration;

use domain::{Channel, Login};
use protocol::{CloseCode, Cursor, CursorReport};
use tokio::time::Instant;

use super::Aggregator;
use super::connection::End;
use super::hub::Page;
use super::ring::{BYTES_MAX, EVENTS_MAX, Frame, Frames};
use crate::store::StoreError;

/// How long a client that is ahead waits for this aggregator to follow.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// How many rows of the journal are read at once,
const PAGE: u32 = 500;
/// and how many bytes of them are kept, or one frame more, until a client has read
/// them.
const PAGE_BYTES: usize = 1024 * 1024;

/// What was missed can't be read now. That is no gap: it may come back.
pub(super) fn not_read(channel: Channel, error: &StoreError) -> End {
    tracing::warn!(%channel, %error, "replay not read");
    End::Close(CloseCode::BrokerLost, Some("store unavailable".into()))
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

    /// Begins a channel for a client: what it is told of it, and after which
    /// offset it goes on.
    ///
    /// # Errors
    /// If what it missed can't be read now. That is no gap: it may come back.
    pub(super) async fn resume(
        &self,
        channel: Channel,
        resume: Option<&Cursor>,
        login: &Login,
        subscribe: impl FnOnce() -> u64,
    ) -> Result<(CursorReport, u64), StoreError> {
        if let Some(cursor) = resume {
            self.reach(channel, cursor).await?;
        }
        let head = subscribe();
        let known =
            resume.filter(|cursor| cursor.epoch == self.store.epoch() && cursor.offset <= head);
        let (mut missed, mut at) = (None, head);
        if let Some(cursor) = known {
            missed = self.missed(channel, cursor.offset, head, login).await?;
            at = missed.map_or(head, |_| cursor.offset);
        }
        let report = CursorReport {
            epoch: self.store.epoch().to_owned(),
            offset: head,
            recovered: missed.is_some(),
            replayed: missed.unwrap_or(0),
        };
        Ok((report, at))
    }

    /// How many events `login` missed of a channel between `after` and `head`;
    /// none if that can't be replayed.
    async fn missed(
        &self,
        channel: Channel,
        after: u64,
        head: u64,
        login: &Login,
    ) -> Result<Option<u64>, StoreError> {
        if let Some(count) = self.hub.count(channel, after, head, login) {
            return Ok(Some(count));
        }
        if head - after > EVENTS_MAX {
            return Ok(None);
        }
        let (mut count, mut bytes, mut last) = (0, 0, after);
        while last < head {
            let Some(page) = self.read(channel, last, head, login).await? else {
                return Ok(None);
            };
            count += page.frames.len() as u64;
            bytes += page.frames.iter().map(|frame| frame.text.len()).sum::<usize>();
            last = page.upto;
            if bytes > BYTES_MAX {
                return Ok(None);
            }
        }
        Ok(Some(count))
    }

    /// What comes after `after` for a connection that is behind; none if it
    /// isn't any more. What the ring has lost meanwhile is read.
    pub(super) async fn next(
        &self,
        channel: Channel,
        connection: u64,
        after: u64,
        login: &Login,
    ) -> Result<Option<Frames>, End> {
        match self.hub.page(channel, connection, after) {
            Page::Live => Ok(None),
            Page::Frames(page) => Ok(Some(page)),
            Page::Lost => {
                let head = self.hub.head(channel);
                let read = self.read(channel, after, head, login).await;
                let read = read.map_err(|error| not_read(channel, &error))?;
                read.ok_or_else(|| CloseCode::ContinuityLost.into()).map(Some)
            }
        }
    }

    /// A page of the journal; none if it no longer reaches back that far.
    async fn read(
        &self,
        channel: Channel,
        after: u64,
        head: u64,
        login: &Login,
    ) -> Result<Option<Frames>, StoreError> {
        let turn = self.replays.acquire().await;
        let _turn = turn.map_err(|_| StoreError::Unavailable("closed".to_owned()))?;
        let rows = self.store.journal(channel, after, PAGE).await?;
        let mut page = Frames { frames: Vec::new(), upto: after };
        let mut bytes = 0;
        for row in rows.into_iter().take_while(|row| row.offset <= head) {
            if bytes >= PAGE_BYTES {
                break;
            }
            if row.offset != page.upto + 1 {
                return Ok(None);
            }
            page.upto = row.offset;
            if row.distribution.includes(login) {
                let frame = Frame::from_journal(channel, row);
                bytes += frame.text.len();
                page.frames.push(Arc::new(frame));
            }
        }
        Ok((page.upto > after).then_some(page))
    }
}
