//! Secrets and their hashes.

use std::fmt;
use std::time::Duration;

use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// The cookie that holds a session's secret.
pub const SESSION_COOKIE: &str = "warren_session";
/// The longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// argon2id: memory in KiB, passes, lanes (OWASP's first choice for logins).
const ARGON2: (u32, u32, u32) = (19_456, 2, 1);
/// How many passwords may be hashed at once: each takes 19 MiB and a core.
const HASHING_MAX: usize = 2;
/// How long a login waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(10);
static HASHING: Semaphore = Semaphore::const_new(HASHING_MAX);

/// Why a password could not be hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Too many logins at once: try again.
    #[error("too many passwords are being checked")]
    Busy,
    /// Longer than [`PASSWORD_BYTES_MAX`], or empty.
    #[error("a password has 1 to {PASSWORD_BYTES_MAX} bytes")]
    Unfit,
    /// What is stored is no hash, or hashing failed.
    #[error("{0}")]
    Broken(String),
}

/// A random secret, to be shown once. The store keeps its hash only.
pub struct Secret(String);

impl Secret {
    /// For the cookie of a session: `ws_…`.
    #[must_use]
    pub fn session() -> Self {
        Self::random("ws_")
    }

    /// For a bearer token of a session: `wt_…`.
    #[must_use]
    pub fn token() -> Self {
        Self::random("wt_")
    }

    /// For an integration: `wk_…`.
    #[must_use]
    pub fn key() -> Self {
        Self::random("wk_")
    }

    fn random(prefix: &str) -> Self {
        let bytes: [u8; 32] = rand::random();
        Self(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the store keeps.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// SHA-256, for secrets that are random already.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether two secrets are the same, in a time that doesn't tell where they differ.
#[must_use]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// The Standard Webhooks secret of the integration whose key has this hash.
#[must_use]
pub fn webhook_secret(key_hash: &[u8; 32]) -> String {
    format!("whsec_{}", STANDARD.encode(key_hash))
}

/// A password's PHC string. Takes its turn among the logins of this process.
///
/// # Errors
/// [`AuthError::Unfit`] for an empty or very long password,
/// [`AuthError::Busy`] if its turn didn't come within 10 s.
pub async fn hash_password(password: &str) -> Result<String, AuthError> {
    let password = fit(password)?;
    in_turn(move || {
        let salt: [u8; 16] = rand::random();
        let salt = SaltString::encode_b64(&salt).map_err(broken)?;
        Ok(argon2()?.hash_password(password.as_bytes(), &salt).map_err(broken)?.to_string())
    })
    .await
}

/// Whether `password` is the one that `phc` was made of.
///
/// # Errors
/// As [`hash_password`]; [`AuthError::Broken`] if `phc` is no hash. A password
/// that can't be one is simply wrong.
pub async fn verify_password(password: &str, phc: &str) -> Result<bool, AuthError> {
    let Ok(password) = fit(password) else { return Ok(false) };
    let phc = phc.to_owned();
    in_turn(move || {
        let known = PasswordHash::new(&phc).map_err(broken)?;
        match argon2()?.verify_password(password.as_bytes(), &known) {
            Ok(()) => Ok(true),
            Err(argon2::password_hash::Error::Password) => Ok(false),
            Err(error) => Err(broken(error)),
        }
    })
    .await
}

/// Takes as long as [`verify_password`] does, for a login that doesn't exist:
/// the time must not tell.
///
/// # Errors
/// As [`hash_password`].
pub async fn verify_nobody(password: &str) -> Result<(), AuthError> {
    match hash_password(password).await {
        Ok(_) | Err(AuthError::Unfit) => Ok(()),
        Err(error) => Err(error),
    }
}

fn fit(password: &str) -> Result<String, AuthError> {
    if (1..=PASSWORD_BYTES_MAX).contains(&password.len()) {
        Ok(password.to_owned())
    } else {
        Err(AuthError::Unfit)
    }
}

fn argon2() -> Result<Argon2<'static>, AuthError> {
    let (memory, passes, lanes) = ARGON2;
    let params = Params::new(memory, passes, lanes, None).map_err(broken)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

async fn in_turn<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
) -> Result<T, AuthError> {
    let turn = tokio::time::timeout(TURN_WAIT, HASHING.acquire()).await;
    let Ok(Ok(permit)) = turn else { return Err(AuthError::Busy) };
    // The permit goes along, so that a caller who gives up doesn't free the
    // turn before the work is done.
    let work = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(permit);
        done
    });
    work.await.map_err(broken)?
}

fn broken(error: impl fmt::Display) -> AuthError {
    AuthError::Broken(format!("password not hashed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_say_what_they_are_and_never_show_in_a_log() {
        for (secret, prefix) in
            [(Secret::session(), "ws_"), (Secret::token(), "wt_"), (Secret::key(), "wk_")]
        {
            let random = secret.expose().strip_prefix(prefix).expect("the prefix");
            assert_eq!(URL_SAFE_NO_PAD.decode(random).expect("base64url").len(), 32);
            assert_eq!(secret.hash(), hash(secret.expose()));
            assert!(!format!("{secret:?}").contains(random));
        }
        assert_ne!(Secret::key().expose(), Secret::key().expose());
    }

    #[test]
    fn the_webhook_secret_is_made_of_the_hash() {
        let secret = webhook_secret(&[7; 32]);
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("prefix")).expect("base64");
        assert_eq!(key, [7; 32]);
        assert!(same(b"a", b"a") && !same(b"a", b"b") && !same(b"a", b"aa"));
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_another_one_is_not() {
        let phc = hash_password("correct horse").await.expect("hashed");
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify_password("correct horse", &phc).await.expect("compared"));
        assert!(!verify_password("battery staple", &phc).await.expect("compared"));
        assert_ne!(phc, hash_password("correct horse").await.expect("hashed again"));
    }

    #[tokio::test]
    async fn what_can_not_be_a_password_is_refused_before_any_work() {
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        for unfit in ["", &long] {
            assert!(matches!(hash_password(unfit).await, Err(AuthError::Unfit)));
            assert!(!verify_password(unfit, "$argon2id$").await.expect("simply wrong"));
            assert!(verify_nobody(unfit).await.is_ok());
        }
        assert!(matches!(verify_password("x", "plain").await, Err(AuthError::Broken(_))));
    }
}
