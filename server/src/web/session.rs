//! Who asks: by the session cookie or a bearer token.

use axum::http::{HeaderMap, HeaderValue, header};
use protocol::Principal;

use super::Web;
use crate::auth::{self, SESSION_COOKIE, Secret};
use crate::problem::Refused;

/// The secret that a request brings along.
pub(super) fn secret(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    bearer.or_else(|| {
        text(header::COOKIE)?.split(';').find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == SESSION_COOKIE).then(|| value.to_owned())
        })
    })
}

impl Web {
    /// Who is signed in, if anybody is.
    pub(super) async fn principal(
        &self,
        secret: Option<&str>,
    ) -> Result<Option<Principal>, Refused> {
        let Some(secret) = secret else { return Ok(None) };
        let now = self.state.clock.now();
        match self.state.store.session(auth::hash(secret), now).await {
            Ok(found) => Ok(found.map(|(principal, _)| principal)),
            Err(error) => {
                tracing::warn!(%error, "session not read");
                Err(Refused::store_down())
            }
        }
    }

    /// A cookie that signs in, or one that signs out.
    pub(super) fn cookie(&self, secret: Option<&Secret>) -> Option<HeaderValue> {
        let https = |url: &String| url.starts_with("https://");
        let secure =
            if self.state.config.public_url.as_ref().is_some_and(https) { "; Secure" } else { "" };
        let (value, age) = match secret {
            Some(secret) => (secret.expose(), self.state.config.session.as_secs()),
            None => ("", 0),
        };
        let text = format!(
            "{SESSION_COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}"
        );
        HeaderValue::from_str(&text).ok()
    }
}
