//! Where a page of a list ended, as clients carry it from page to page.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{InteractionId, Timestamp};

/// The last interaction of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// When it changed last.
    pub updated_at: Timestamp,
    /// Which.
    pub id: InteractionId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{} {}", self.updated_at.as_millis(), self.id);
        f.write_str(&URL_SAFE_NO_PAD.encode(text))
    }
}

impl FromStr for Place {
    type Err = String;

    /// # Errors
    /// Whatever no page has given.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let (updated_at, id) = text.split_once(' ')?;
            let updated_at = Timestamp::from_millis(updated_at.parse().ok()?);
            Some(Self { updated_at, id: id.parse().ok()? })
        };
        read().ok_or_else(|| "must be the next_cursor of a page".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Kind;

    #[test]
    fn only_what_a_page_gave_is_a_place() {
        let id = InteractionId::derive("form", Kind::Ticket, "1");
        let place = Place { updated_at: Timestamp::from_millis(1_790_000_000_000), id };
        assert_eq!(place.to_string().parse(), Ok(place));
        let cut = &place.to_string()[..20];
        let foreign = URL_SAFE_NO_PAD.encode("1790000000000 17");
        for wrong in ["x", "17", "!", cut, &foreign] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
