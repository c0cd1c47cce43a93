//! Secrets and their hashes.

use sha2::{Digest, Sha256};

/// The cookie that holds a session's secret.
pub const SESSION_COOKIE: &str = "warren_session";

/// SHA-256, for secrets that are random already.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}
