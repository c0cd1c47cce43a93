//! Who sends: bearer keys of integrations, known for a few seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::auth;
use crate::problem::Refused;
use crate::store::{Integration, Store};

/// The longest key, in bytes; ours have 46.
const KEY_BYTES_MAX: usize = 200;
/// Valid keys that are known at once.
const KNOWN_MAX: usize = 10_000;
/// Unknown keys that are looked up at once.
const LOOKUPS_MAX: usize = 32;
/// How long a look-up may take, its turn included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Valid keys, each known for `ttl`: a revoked one works no longer than that.
/// Keys that are not valid are never kept.
pub(super) struct Keys {
    store: Arc<dyn Store>,
    ttl: Duration,
    known: Mutex<HashMap<[u8; 32], Known>>,
    lookups: Semaphore,
}

/// An integration, and until when it is known.
type Known = (Arc<Integration>, Instant);

impl Keys {
    pub(super) fn new(store: Arc<dyn Store>, ttl: Duration) -> Self {
        Self { store, ttl, known: Mutex::default(), lookups: Semaphore::new(LOOKUPS_MAX) }
    }

    /// The integration whose key the request bears.
    pub(super) async fn integration(
        &self,
        headers: &HeaderMap,
    ) -> Result<Arc<Integration>, Refused> {
        let key = bearer(headers)?;
        let hash = auth::hash(key);
        if let Some(known) = self.recall(&hash) {
            return Ok(known);
        }
        let found = timeout(LOOKUP_TIMEOUT, async {
            let _turn = self.lookups.acquire().await;
            self.store.integration(hash).await
        });
        match found.await {
            Ok(Ok(Some(found))) if found.revoked_at.is_none() => Ok(self.keep(hash, found)),
            Ok(Ok(_)) => Err(Refused::unauthenticated("the key is not known, or was revoked")),
            Ok(Err(error)) => {
                tracing::warn!(%error, "key not looked up");
                Err(Refused::store_down())
            }
            Err(_) => {
                tracing::warn!("key not looked up in time");
                Err(Refused::store_down())
            }
        }
    }

    fn recall(&self, hash: &[u8; 32]) -> Option<Arc<Integration>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(hash)
            .filter(|(_, until)| Instant::now() < *until)
            .map(|(integration, _)| integration.clone())
    }

    fn keep(&self, hash: [u8; 32], found: Integration) -> Arc<Integration> {
        let now = Instant::now();
        let found = Arc::new(found);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() < KNOWN_MAX {
            known.insert(hash, (found.clone(), now + self.ttl));
        }
        found
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Refused::unauthenticated("give one header Authorization: Bearer KEY"));
    };
    let key = value.to_str().ok().and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    key.filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))
        .ok_or_else(|| Refused::unauthenticated("give a header Authorization: Bearer KEY"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_bearer_key_is_taken() {
        let key = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().expect("a value"));
            }
            bearer(&headers).ok().map(str::to_owned)
        };
        assert_eq!(key(&["Bearer wk_a"]).as_deref(), Some("wk_a"));
        assert_eq!(key(&["bearer wk_a"]).as_deref(), Some("wk_a"));
        let long = format!("Bearer {}", "x".repeat(201));
        for bad in [&[][..], &["wk_a"], &["Basic wk_a"], &["Bearer "], &["Bearer a", "Bearer b"]] {
            assert_eq!(key(bad), None, "{bad:?}");
        }
        assert_eq!(key(&[&long]), None);
    }
}
