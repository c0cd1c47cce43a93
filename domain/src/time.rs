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
        let (day, ms) = (self.0.div_euclid(DAY_MS), self.0.rem_euclid(DAY_MS));
        let (year, month, day) = civil(day);
        let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
        let (second, ms) = (ms / 1_000 % 60, ms % 1_000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

impl crate::FromJson for Timestamp {
    fn from_json(json: serde_json::Value) -> Option<Self> {
        json.as_str()?.parse().ok()
    }
}

impl FromStr for Timestamp {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        millis(text)
            .map(Self::from_millis)
            .ok_or_else(|| "not an RFC 3339 time such as 2026-01-31T12:00:00.000Z".to_owned())
    }
}

const DAY_MS: i64 = 86_400_000;

/// Days before the first of March of year 0 until 1970.
const EPOCH_DAYS: i64 = 719_468;
/// Days in 400 years.
const ERA_DAYS: i64 = 146_097;

/// Year, month and day of a day since 1970. Years begin in March here, so that
/// the leap day is the last one.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + EPOCH_DAYS;
    let (era, day) = (day.div_euclid(ERA_DAYS), day.rem_euclid(ERA_DAYS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, date)
}

/// The day since 1970 of a date.
fn day_of(year: i64, month: i64, date: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day = (153 * month + 2) / 5 + date - 1;
    era * ERA_DAYS + year * 365 + year / 4 - year / 100 + day - EPOCH_DAYS
}

/// Reads RFC 3339; what is finer than milliseconds is cut off, a leap second
/// is the one before it.
fn millis(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is = |at: usize, letters: &[u8]| {
        text.as_bytes().get(at).is_some_and(|byte| letters.contains(byte))
    };
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, date) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let day = day_of(year, month, date);
    // A date that there is none of turns into another one.
    if civil(day) != (year, month, date) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        let mut scale = 100;
        for byte in fraction.bytes().take(digits.min(3)) {
            ms += i64::from(byte - b'0') * scale;
            scale /= 10;
        }
        rest = fraction.get(digits..)?;
    }
    let east = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), a, b, b':', c, d]
            if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()) =>
        {
            let two = |tens: &u8, ones: &u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            let (hours, minutes) = (two(a, b), two(c, d));
            if hours > 23 || minutes > 59 {
                return None;
            }
            let minutes = hours * 60 + minutes;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    Some(day * DAY_MS + ((hour * 60 + minute - east) * 60 + second.min(59)) * 1_000 + ms)
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
    fn what_is_no_time_is_refused() {
        for wrong in [
            "",
            "2026",
            "2026-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00+0100",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+01:60",
            "2026-01-31T12:00:00ZZ",
            "+026-01-31T12:00:00Z",
            "2026-01-31T12:00:0\u{663}Z",
            "2026\u{2013}01-31T12:00:00Z",
        ] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        /// As a library has it that does nothing else.
        #[test]
        fn every_moment_is_written_and_read_as_others_do(
            ms in 0..=LAST_MS, minutes in -1_439..=1_439_i32, nanos in 0..1_000_000_i64,
        ) {
            let stamp = Timestamp::from_millis(ms);
            let other = jiff::Timestamp::from_millisecond(ms).unwrap();
            proptest::prop_assert_eq!(stamp.to_string(), format!("{other:.3}"));
            let finer = other + jiff::SignedDuration::from_nanos(nanos);
            proptest::prop_assert_eq!(finer.to_string().parse(), Ok(stamp));
            let there = jiff::tz::Offset::from_seconds(minutes * 60).unwrap();
            let local = other.display_with_offset(there).to_string();
            proptest::prop_assert_eq!(local.parse(), Ok(stamp), "{}", local);
        }
    }

    #[test]
    fn extremes_neither_panic_nor_overflow() {
        for ms in [i64::MIN, -1, 0, i64::MAX] {
            let stamp = Timestamp::from_millis(ms).plus(Duration::MAX);
            assert_eq!(stamp.to_string().parse(), Ok(stamp));
        }
    }
}
