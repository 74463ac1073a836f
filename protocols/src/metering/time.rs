//! UTC instants and days, without a clock.

use std::fmt;
use std::str::FromStr;

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UtcMillis(pub i64);

/// A UTC calendar day: days since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Day(pub i32);

/// Why a text or a set of fields is no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error(
        "{text:?} is no instant; expected 2026-11-23T02:35:15Z, with up to three decimals of a second, Z or +01:00"
    )]
    Text { text: String },
    #[error("no such date and time: {0}-{1:02}-{2:02}T{3:02}:{4:02}:{5:02}")]
    Fields(i32, u8, u8, u8, u8, u8),
}

pub(crate) const DAY_MS: i64 = 86_400_000;

impl UtcMillis {
    /// What [`fmt::Display`] can print: years 0 to 9999.
    pub const MIN: Self = Self(-62_167_219_200_000);
    pub const MAX: Self = Self(253_402_300_799_999);

    /// Civil fields of a clock that is `offset_minutes` ahead of UTC. Second 60 is taken as 59 of the same minute plus one
    /// second, as POSIX does.
    pub fn from_civil(
        (year, month, day): (i32, u8, u8),
        (hour, minute, second): (u8, u8, u8),
        offset_minutes: i32,
    ) -> Result<Self, TimeError> {
        let error = TimeError::Fields(year, month, day, hour, minute, second);
        let valid = (0..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour <= 23
            && minute <= 59
            && second <= 60;
        if !valid {
            return Err(error);
        }
        let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        let local_ms = i64::from(Day::from_civil(year, month, day).0) * DAY_MS + seconds * 1000;
        Ok(Self(local_ms - i64::from(offset_minutes) * 60_000))
    }

    pub fn day(self) -> Day {
        Day(self.0.div_euclid(DAY_MS) as i32)
    }

    /// Seconds, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// `self - earlier` in milliseconds.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Day {
    /// Proleptic Gregorian; after H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
    pub fn from_civil(year: i32, month: u8, day: u8) -> Self {
        let year = i64::from(year) - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let month_from_march = (i64::from(month) + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        Self((era * 146_097 + day_of_era - 719_468) as i32)
    }

    /// (year, month, day); `civil_from_days` of the same source.
    pub fn civil(self) -> (i32, u8, u8) {
        let shifted = i64::from(self.0) + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year as i32, month as u8, day as u8)
    }

    pub const fn start(self) -> UtcMillis {
        UtcMillis(self.0 as i64 * DAY_MS)
    }

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

pub(crate) fn days_in_month(year: i32, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Day {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let error = || TimeError::Text { text: text.chars().take(40).collect() };
        let (year, month, day) = civil_date(text.as_bytes()).ok_or_else(error)?;
        Ok(Self::from_civil(year, month, day))
    }
}

impl fmt::Display for UtcMillis {
    /// RFC 3339 in UTC, with milliseconds only when there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_day = self.0.rem_euclid(DAY_MS);
        let (seconds, ms) = (in_day / 1000, in_day % 1000);
        write!(f, "{}T{:02}:{:02}:{:02}", self.day(), seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        if ms != 0 {
            write!(f, ".{ms:03}")?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for UtcMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for UtcMillis {
    type Err = TimeError;

    /// RFC 3339 with `T` or a blank, up to nine decimals of a second (cut to milliseconds), `Z` or a numeric offset. A text
    /// without an offset is refused: whose time it is cannot be guessed.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        parse_instant(text.as_bytes()).ok_or_else(|| TimeError::Text { text: text.chars().take(40).collect() })
    }
}

fn parse_instant(text: &[u8]) -> Option<UtcMillis> {
    let date = civil_date(text.get(..10)?)?;
    let (separator, rest) = text.get(10..)?.split_first()?;
    matches!(separator, b'T' | b't' | b' ').then_some(())?;
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = rest else { return None };
    let time = (digits([*h1, *h2])?, digits([*m1, *m2])?, digits([*s1, *s2])?);
    let (ms, rest) = match rest {
        [b'.', decimals @ ..] => {
            let len = decimals.iter().take_while(|byte| byte.is_ascii_digit()).count();
            (1..=9).contains(&len).then_some(())?;
            let (decimals, rest) = decimals.split_at_checked(len)?;
            let hundreds = decimals.iter().chain(b"00").take(3).fold(0, |ms, byte| ms * 10 + i64::from(byte - b'0'));
            (hundreds, rest)
        }
        _ => (0, rest),
    };
    let offset_minutes = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits([*h1, *h2])?, digits([*m1, *m2])?);
            (hours <= 23 && minutes <= 59).then_some(())?;
            let minutes = i32::from(hours) * 60 + i32::from(minutes);
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let (hour, minute, second) = time;
    let instant = UtcMillis::from_civil(date, (hour, minute, second), offset_minutes).ok()?.plus_ms(ms);
    // An offset can push it out of the years that a text can name.
    (UtcMillis::MIN..=UtcMillis::MAX).contains(&instant).then_some(instant)
}

fn civil_date(text: &[u8]) -> Option<(i32, u8, u8)> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = i32::from(digits([*y1, *y2])?) * 100 + i32::from(digits([*y3, *y4])?);
    let (month, day) = (digits([*m1, *m2])?, digits([*d1, *d2])?);
    ((1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day)).then_some((year, month, day))
}

fn digits(text: [u8; 2]) -> Option<u8> {
    let [tens, ones] = text;
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| (tens - b'0') * 10 + (ones - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants_are_right() {
        assert_eq!("1970-01-01T00:00:00Z".parse(), Ok(UtcMillis(0)));
        assert_eq!("2000-02-29T12:00:00+01:00".parse(), Ok(UtcMillis(951_822_000_000)));
        assert_eq!("2026-11-23T02:35:15.25Z".parse(), Ok(UtcMillis(1_795_401_315_250)));
        assert_eq!(UtcMillis(-1).to_string(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "0000-01-01T00:00:00+01:00",
            "",
            "2026-11-23",
            "2026-02-29T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T00:00:00",
            "x",
        ] {
            assert!(text.parse::<UtcMillis>().is_err(), "{text:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn display_and_parse_round_trip(ms in UtcMillis::MIN.0..=UtcMillis::MAX.0) {
            let instant = UtcMillis(ms);
            prop_assert_eq!(instant.to_string().parse::<UtcMillis>(), Ok(instant));
            let (year, month, day) = instant.day().civil();
            prop_assert_eq!(Day::from_civil(year, month, day), instant.day());
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            drop(text.parse::<UtcMillis>());
            drop(text.parse::<Day>());
        }
    }
}
