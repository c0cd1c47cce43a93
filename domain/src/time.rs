//! A point in time: milliseconds since the epoch, RFC 3339 on the wire.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// UTC, to the millisecond. Written `2026-01-31T12:00:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// The last moment that can be written: the end of the year 9998.
const LAST_MS: i64 = 253_370_764_799_999;

impl Timestamp {
    /// From milliseconds since 1970; held to the years 1970 to 9998.
    #[must_use]
    pub fn from_millis(ms: i64) -> Self {
        Self(ms.clamp(0, LAST_MS))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Later by `duration`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(LAST_MS);
        Self::from_millis(self.0.saturating_add(ms))
    }

    /// How long after `earlier`; zero if it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp =
            jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{stamp:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<jiff::Timestamp>()
            .map(|stamp| Self::from_millis(stamp.as_millisecond()))
            .map_err(|_| "not an RFC 3339 time such as 2026-01-31T12:00:00.000Z".to_owned())
    }
}

impl TryFrom<String> for Timestamp {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(stamp: Timestamp) -> Self {
        stamp.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_with_milliseconds_and_read_back() {
        let stamp = Timestamp::from_millis(1_769_860_800_007);
        assert_eq!(stamp.to_string(), "2026-01-31T12:00:00.007Z");
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        assert_eq!("2026-01-31T13:00:00.007+01:00".parse(), Ok(stamp));
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn extremes_neither_panic_nor_overflow() {
        for ms in [i64::MIN, -1, 0, i64::MAX] {
            let stamp = Timestamp::from_millis(ms).plus(Duration::MAX);
            assert_eq!(stamp.to_string().parse(), Ok(stamp));
        }
    }
}
