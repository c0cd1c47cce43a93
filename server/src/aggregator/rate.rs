//! How many frames a client may send.

use tokio::time::Instant;

/// An event may be acked twice: as received and as rendered.
const ANSWERS_PER_EVENT: u64 = 2;

/// So many frames a second, and three times that in a burst. What answers a
/// frame of ours is free: it can't come more often than we ask.
pub(super) struct Rate {
    per_second: f64,
    tokens: f64,
    at: Instant,
    answers: u64,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, tokens: per_second * 3.0, at: Instant::now(), answers: 0 }
    }

    /// An event was sent: its acks cost nothing.
    pub(super) fn sent_event(&mut self) {
        self.answers = self.answers.saturating_add(ANSWERS_PER_EVENT);
    }

    /// A ping was sent: its pong costs nothing.
    pub(super) fn sent_ping(&mut self) {
        self.answers = self.answers.saturating_add(1);
    }

    /// Whether an ack or a pong may come.
    pub(super) fn allows_answer(&mut self) -> bool {
        if self.answers == 0 {
            return self.allows();
        }
        self.answers -= 1;
        true
    }

    /// Whether any other frame may come.
    pub(super) fn allows(&mut self) -> bool {
        let now = Instant::now();
        let refill = (now - self.at).as_secs_f64() * self.per_second;
        self.at = now;
        self.tokens = (self.tokens + refill).min(self.per_second * 3.0);
        let allows = self.tokens >= 1.0;
        if allows {
            self.tokens -= 1.0;
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_answers_us_is_free_and_nothing_else() {
        let mut rate = Rate::new(100);
        for _ in 0..1_000 {
            rate.sent_event();
        }
        rate.sent_ping();
        assert!((0..2_001).all(|_| rate.allows_answer()), "as many as were asked for");
        assert!((0..300).all(|_| rate.allows()), "and a whole burst beside them");
        assert!(!rate.allows_answer(), "more acks than there was to ack");
        assert!(!rate.allows());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!((0..100).all(|_| rate.allows()));
        assert!(!rate.allows());
    }
}
