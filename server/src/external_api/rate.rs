//! How much one integration may send: events a second, and requests at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use uuid::Uuid;

/// Wait this long when too many requests are under way.
const IN_FLIGHT_WAIT: Duration = Duration::from_secs(1);

/// A token bucket and a bound on requests for each integration. There are as
/// many entries as there are valid keys.
pub(super) struct Rates {
    per_second: f64,
    burst: f64,
    in_flight_max: usize,
    known: Mutex<HashMap<Uuid, Known>>,
}

struct Known {
    tokens: f64,
    at: Instant,
    in_flight: Arc<Semaphore>,
}

impl Rates {
    pub(super) fn new(per_second: u32, burst: u32, in_flight_max: usize) -> Self {
        Self {
            per_second: f64::from(per_second.max(1)),
            burst: f64::from(burst.max(1)),
            in_flight_max,
            known: Mutex::default(),
        }
    }

    /// Takes a place for a request; it comes back by dropping.
    pub(super) fn enter(&self, id: Uuid) -> Result<OwnedSemaphorePermit, Duration> {
        let in_flight = self.with(id, |known| known.in_flight.clone());
        in_flight.try_acquire_owned().map_err(|_| IN_FLIGHT_WAIT)
    }

    /// Takes `events` tokens, or says how long to wait for them. More events
    /// than the burst pass when the bucket is full.
    pub(super) fn take(&self, id: Uuid, events: usize) -> Result<(), Duration> {
        let wanted = f64::from(u32::try_from(events).unwrap_or(u32::MAX));
        let (per_second, burst) = (self.per_second, self.burst);
        self.with(id, |known| {
            let now = Instant::now();
            let since = now.duration_since(known.at).as_secs_f64();
            known.tokens = (known.tokens + since * per_second).min(burst);
            known.at = now;
            let missing = wanted.min(burst) - known.tokens;
            if missing > 0.0 {
                return Err(Duration::from_secs_f64(missing / per_second));
            }
            known.tokens -= wanted;
            Ok(())
        })
    }

    fn with<T>(&self, id: Uuid, act: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        act(known.entry(id).or_insert_with(|| Known {
            tokens: self.burst,
            at: Instant::now(),
            in_flight: Arc::new(Semaphore::new(self.in_flight_max)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_comes_at_the_rate() {
        let (rates, id) = (Rates::new(10, 20, 1), Uuid::from_u128(1));
        assert_eq!(rates.take(id, 20), Ok(()));
        let wait = rates.take(id, 5).expect_err("empty");
        assert_eq!(wait, Duration::from_millis(500));
        assert_eq!(rates.take(Uuid::from_u128(2), 20), Ok(()), "another one is not held up");
        tokio::time::advance(wait).await;
        assert_eq!(rates.take(id, 5), Ok(()));
        assert!(rates.take(id, 1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_the_burst_passes_once_and_is_paid_for() {
        let (rates, id) = (Rates::new(10, 20, 1), Uuid::from_u128(1));
        assert_eq!(rates.take(id, 40), Ok(()));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(rates.take(id, 1).is_err());
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(rates.take(id, 1), Ok(()));
    }

    #[test]
    fn places_come_back_by_dropping() {
        let (rates, id) = (Rates::new(10, 20, 1), Uuid::from_u128(1));
        let place = rates.enter(id).expect("free");
        assert!(rates.enter(id).is_err());
        drop(place);
        assert!(rates.enter(id).is_ok());
    }
}
