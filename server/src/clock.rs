//! The only place that reads the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use domain::Timestamp;

/// Gives the time of day. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Given(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that a test sets.
    #[must_use]
    pub fn given(at: Timestamp) -> Self {
        Self(Source::Given(Arc::new(AtomicI64::new(at.as_millis()))))
    }

    /// Sets a given clock, forth or back; the system's clock stays as it is.
    pub fn set(&self, at: Timestamp) {
        if let Source::Given(ms) = &self.0 {
            ms.store(at.as_millis(), Ordering::SeqCst);
        }
    }

    /// Now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    pub fn now(&self) -> Timestamp {
        let ms = match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Source::Given(ms) => ms.load(Ordering::SeqCst),
        };
        Timestamp::from_millis(ms)
    }
}
