//! Standard Webhooks signatures: HMAC-SHA256 over id, time and raw body.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::Timestamp;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// How far the sender's clock may be off, either way.
pub(super) const TOLERANCE: Duration = Duration::from_secs(300);
/// Signatures looked at in one header (a sender that changes keys sends two).
const SIGNATURES_MAX: usize = 8;

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// Why a request's signature doesn't hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignatureError {
    /// The integration must sign and hasn't.
    #[error("this integration must sign: webhook-id, webhook-timestamp and webhook-signature")]
    Missing,
    /// Some of the three headers, or none that can be read.
    #[error("webhook-id, webhook-timestamp and webhook-signature go together, once each")]
    Incomplete,
    /// Not in seconds since 1970.
    #[error("webhook-timestamp must be in seconds since 1970")]
    Timestamp,
    /// More than [`TOLERANCE`] away.
    #[error("webhook-timestamp is more than 5 minutes off")]
    Old,
    /// It was made with another key, or of another body.
    #[error("webhook-signature does not match")]
    Mismatch,
}

/// Holds where there is none and none is required, or where it verifies.
pub(super) fn verify(
    headers: &HeaderMap,
    body: &[u8],
    key: &[u8; 32],
    required: bool,
    now: Timestamp,
) -> Result<(), SignatureError> {
    let names = [ID, TIMESTAMP, SIGNATURE];
    if names.iter().all(|name| !headers.contains_key(*name)) {
        return if required { Err(SignatureError::Missing) } else { Ok(()) };
    }
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok().filter(|text| !text.is_empty()),
            _ => None,
        }
        .ok_or(SignatureError::Incomplete)
    };
    let (id, stamp, signatures) = (one(ID)?, one(TIMESTAMP)?, one(SIGNATURE)?);
    let seconds: i64 = stamp.parse().map_err(|_| SignatureError::Timestamp)?;
    let off = seconds.saturating_mul(1_000).abs_diff(now.as_millis());
    if u128::from(off) > TOLERANCE.as_millis() {
        return Err(SignatureError::Old);
    }
    let signed = mac(key, id, stamp, body);
    let holds = signatures.split(' ').take(SIGNATURES_MAX).any(|signature| {
        // Other versions than v1 are other people's.
        let Some(("v1", text)) = signature.split_once(',') else { return false };
        let Ok(bytes) = STANDARD.decode(text) else { return false };
        signed.clone().is_some_and(|mac| mac.verify_slice(&bytes).is_ok())
    });
    if holds { Ok(()) } else { Err(SignatureError::Mismatch) }
}

fn mac(key: &[u8; 32], id: &str, stamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in [id.as_bytes(), b".", stamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_769_860_800;

    fn signed(key: &[u8; 32], seconds: i64, body: &[u8]) -> HeaderMap {
        let stamp = seconds.to_string();
        let mac = mac(key, "msg_1", &stamp, body).expect("any key will do").finalize();
        let signature = format!("v1,{}", STANDARD.encode(mac.into_bytes()));
        let mut headers = HeaderMap::new();
        headers.insert(ID, "msg_1".parse().expect("a value"));
        headers.insert(TIMESTAMP, stamp.parse().expect("a value"));
        headers.insert(SIGNATURE, signature.parse().expect("a value"));
        headers
    }

    fn check(headers: &HeaderMap, body: &[u8], required: bool) -> Result<(), SignatureError> {
        verify(headers, body, &[7; 32], required, Timestamp::from_millis(NOW * 1_000))
    }

    #[test]
    fn it_agrees_with_the_published_example() {
        // From the reference libraries' tests.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("any key will do");
        mac.update(b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}");
        assert_eq!(
            STANDARD.encode(mac.finalize().into_bytes()),
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_signature_holds_for_its_body_key_and_time_only() {
        let good = signed(&[7; 32], NOW, b"{}");
        assert_eq!(check(&good, b"{}", true), Ok(()));
        assert_eq!(check(&good, b"{} ", false), Err(SignatureError::Mismatch));
        assert_eq!(
            check(&signed(&[8; 32], NOW, b"{}"), b"{}", false),
            Err(SignatureError::Mismatch)
        );
        for (seconds, outcome) in [
            (NOW - 300, Ok(())),
            (NOW + 300, Ok(())),
            (NOW - 301, Err(SignatureError::Old)),
            (NOW + 301, Err(SignatureError::Old)),
            (i64::MAX, Err(SignatureError::Old)),
            (i64::MIN, Err(SignatureError::Old)),
        ] {
            assert_eq!(
                check(&signed(&[7; 32], seconds, b"{}"), b"{}", false),
                outcome,
                "{seconds}"
            );
        }
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        let mut headers = signed(&[7; 32], NOW, b"x");
        let good = headers[SIGNATURE].to_str().expect("text").to_owned();
        let several = format!("v1a,AAAA v1,%% v1,AAAA {good}");
        headers.insert(SIGNATURE, several.parse().expect("a value"));
        assert_eq!(check(&headers, b"x", true), Ok(()));
    }

    #[test]
    fn none_is_fine_unless_required_and_half_of_one_never_is() {
        assert_eq!(check(&HeaderMap::new(), b"x", false), Ok(()));
        assert_eq!(check(&HeaderMap::new(), b"x", true), Err(SignatureError::Missing));
        for name in [ID, TIMESTAMP, SIGNATURE] {
            let mut headers = signed(&[7; 32], NOW, b"x");
            headers.remove(name);
            assert_eq!(check(&headers, b"x", false), Err(SignatureError::Incomplete), "{name}");
        }
        let mut headers = signed(&[7; 32], NOW, b"x");
        headers.insert(TIMESTAMP, "noon".parse().expect("a value"));
        assert_eq!(check(&headers, b"x", false), Err(SignatureError::Timestamp));
    }
}
