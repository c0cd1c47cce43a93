//! Slows down who guesses passwords: by login, and by address.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many failures cost nothing.
const FREE: u32 = 5;
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// After so long without a failure all is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(900);
/// The most logins and addresses remembered; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// Doubles with each failure.
    fn wait(self) -> Duration {
        match self.count.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(over) => Duration::from_secs(1 << over.min(6)).min(WAIT_MAX),
        }
    }
}

/// Failures by login and by address.
#[derive(Default)]
pub(super) struct Throttle(Mutex<HashMap<String, Failures>>);

impl Throttle {
    /// How long each of `keys` has to wait yet; nothing if none has.
    pub(super) fn wait(&self, keys: &[String]) -> Option<Duration> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter()
            .filter_map(|key| failures.get(key))
            .map(|one| one.wait().saturating_sub(one.last.elapsed()))
            .max()
            .filter(|wait| !wait.is_zero())
    }

    pub(super) fn failed(&self, keys: &[String]) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= REMEMBERED_MAX {
            failures.retain(|_, one| one.last.elapsed() < FORGET_AFTER);
        }
        if failures.len() >= REMEMBERED_MAX
            && let Some(oldest) =
                failures.iter().min_by_key(|(_, one)| one.last).map(|(key, _)| key.clone())
        {
            failures.remove(&oldest);
        }
        for key in keys {
            let now = Instant::now();
            let one = failures.entry(key.clone()).or_insert(Failures { count: 0, last: now });
            if one.last.elapsed() > FORGET_AFTER {
                one.count = 0;
            }
            one.count += 1;
            one.last = now;
        }
    }

    /// Who has signed in starts anew.
    pub(super) fn succeeded(&self, keys: &[String]) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            failures.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_and_pass() {
        let throttle = Throttle::default();
        let keys = ["login ana".to_owned()];
        for _ in 0..FREE - 1 {
            throttle.failed(&keys);
            assert_eq!(throttle.wait(&keys), None);
        }
        for seconds in [1, 2, 4, 8] {
            throttle.failed(&keys);
            assert_eq!(throttle.wait(&keys), Some(Duration::from_secs(seconds)));
        }
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(throttle.wait(&keys), None);
        throttle.succeeded(&keys);
        throttle.failed(&keys);
        assert_eq!(throttle.wait(&keys), None);
    }
}
