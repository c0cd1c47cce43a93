//! Where to connect, and how long to wait before it.

/// The shortest wait before a new attempt, in milliseconds.
pub(super) const WAIT_MS_MIN: u64 = 200;
/// The longest wait before a new attempt, in milliseconds.
pub(super) const WAIT_MS_MAX: u64 = 10_000;

/// Aggregators in the order to try them.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    base: Vec<String>,
    peers: Vec<String>,
    last: Option<String>,
    /// Peers have been named since the last choice.
    fresh: bool,
}

impl Candidates {
    /// `base` is tried when no live peer is known.
    #[must_use]
    pub fn new(base: Vec<String>) -> Self {
        Self { base, peers: Vec::new(), last: None, fresh: false }
    }

    /// The aggregators that live, least loaded first.
    pub fn set_peers(&mut self, peers: Vec<String>) {
        self.peers = peers;
        self.fresh = true;
    }

    /// The next one after the last, all in turn.
    pub fn take_turn(&mut self) -> Option<String> {
        let rest = self.base.iter().filter(|url| !self.peers.contains(url));
        let all: Vec<&String> = match &self.last {
            // The first attempt goes to where the page came from.
            None => self.base.iter().chain(&self.peers).collect(),
            Some(_) => self.peers.iter().chain(rest).collect(),
        };
        let last = self.last.as_ref();
        let at = all
            .iter()
            .position(|url| Some(*url) == last)
            // What lives comes before what only may.
            .filter(|at| !self.fresh || *at < self.peers.len())
            .map_or(0, |at| (at + 1) % all.len());
        let url = all.get(at).map(|url| (*url).clone())?;
        self.last = Some(url.clone());
        self.fresh = false;
        Some(url)
    }

    /// A place that was not chosen here is in use.
    pub fn moved_to(&mut self, url: String) {
        self.last = Some(url);
    }
}

/// A small generator of random numbers: for spreading reconnects, nothing else.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// The same seed, the same numbers.
    #[must_use]
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// How long to wait before attempt `attempt`, from 0: full jitter under a
    /// ceiling that doubles.
    pub(super) fn wait_ms(&mut self, attempt: u32) -> u64 {
        let ceiling = ((2 * WAIT_MS_MIN) << attempt.min(16)).min(WAIT_MS_MAX);
        WAIT_MS_MIN + self.roll() % (ceiling - WAIT_MS_MIN + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_within_their_bounds_and_spread() {
        let mut dice = Dice::new(7);
        let mut seen = std::collections::BTreeSet::new();
        for attempt in 0..1_000 {
            let wait = dice.wait_ms(attempt);
            assert!((WAIT_MS_MIN..=WAIT_MS_MAX).contains(&wait), "{wait}");
            seen.insert(wait);
        }
        assert!(seen.len() > 500);
        assert!((0..100).all(|_| dice.wait_ms(0) <= 2 * WAIT_MS_MIN));
    }

    #[test]
    fn every_attempt_goes_to_the_next_live_peer() {
        let mut candidates = Candidates::new(vec!["own".into(), "b".into()]);
        assert_eq!(candidates.take_turn().as_deref(), Some("own"));
        assert_eq!(candidates.take_turn().as_deref(), Some("b"));
        candidates.set_peers(vec!["c".into(), "b".into()]);
        assert_eq!(candidates.take_turn().as_deref(), Some("own"));
        candidates.set_peers(vec!["c".into(), "b".into()]);
        assert_eq!(candidates.take_turn().as_deref(), Some("c"));
        assert_eq!(candidates.take_turn().as_deref(), Some("b"));
        assert_eq!(candidates.take_turn().as_deref(), Some("own"));
        assert_eq!(Candidates::new(Vec::new()).take_turn(), None);
    }
}
