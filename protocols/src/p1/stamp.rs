//! Time stamps `YYMMDDhhmmssX`: local time, X = S in summer and W in winter; without X up to version 3.

use crate::metering::{Day, UtcMillis};

/// Length of a stamp with its letter.
pub const STAMP_LEN: usize = 13;

/// How far a meter's clock may run ahead of ours before a stamp without a letter is taken for the earlier of two hours.
const CLOCK_TOLERANCE_MS: i64 = 5 * 60_000;

const SUMMER_MINUTES: i32 = 60;
const HOUR_MS: i64 = 3_600_000;

/// The civil time that a meter shows.
///
/// The letter says which of two hours is meant, so a stamp that has one needs no calendar. Stamps without one are read by the rule
/// that has been in force all over the European Union since 1996: summer time from the last Sunday of March to the last Sunday of
/// October, changing at 01:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalTime {
    /// Minutes ahead of UTC in winter.
    pub standard_offset_minutes: i32,
}

/// A stamp as an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    pub instant: UtcMillis,
    /// No letter, and the hour exists twice or not at all: the instant is the best guess.
    pub is_guess: bool,
}

impl LocalTime {
    /// Central European Time: everywhere DSMR and e-MUCS are used.
    pub const CET: Self = Self { standard_offset_minutes: 60 };

    /// Reads a stamp; `None` when it is no date and time (`632525252525W` stands for a sub-meter that never answered).
    ///
    /// Without a letter, the doubled hour of autumn is taken as late as `received_at` allows, because a telegram is about the present; the
    /// skipped hour of spring is taken as winter time, because the meter's clock was not yet put forward.
    pub fn resolve(self, stamp: &[u8], received_at: UtcMillis) -> Option<Resolved> {
        let (digits, letter) = stamp.split_at_checked(12)?;
        let civil = civil(digits)?;
        let winter = UtcMillis(civil.0 - i64::from(self.standard_offset_minutes) * 60_000);
        let summer = UtcMillis(winter.0 - HOUR_MS);
        let sure = |instant| Some(Resolved { instant, is_guess: false });
        match letter {
            b"W" => return sure(winter),
            b"S" => return sure(summer),
            b"" => {}
            _ => return None,
        }
        let guess = match (is_summer(summer), is_summer(winter)) {
            (true, true) => return sure(summer),
            (false, false) => return sure(winter),
            (true, false) if winter.0 > received_at.0.saturating_add(CLOCK_TOLERANCE_MS) => summer,
            _ => winter,
        };
        Some(Resolved { instant: guess, is_guess: true })
    }

    /// Writes a stamp with its letter; seconds are cut, years outside 2000 to 2099 keep their last two digits.
    pub fn stamp(self, instant: UtcMillis) -> String {
        let summer = is_summer(instant);
        let minutes = self.standard_offset_minutes + if summer { SUMMER_MINUTES } else { 0 };
        let local = instant.plus_ms(i64::from(minutes) * 60_000);
        let (year, month, day) = local.day().civil();
        let second = local.since(local.day().start()) / 1000;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let letter = if summer { 'S' } else { 'W' };
        format!("{:02}{month:02}{day:02}{hour:02}{minute:02}{second:02}{letter}", year.rem_euclid(100))
    }
}

/// Twelve digits as milliseconds of a clock without offset.
fn civil(digits: &[u8]) -> Option<UtcMillis> {
    let pair = |pair: &[u8; 2]| {
        let [tens, ones] = pair.map(|digit| digit.wrapping_sub(b'0'));
        (tens <= 9 && ones <= 9).then(|| tens * 10 + ones)
    };
    let ([year, month, day, hour, minute, second], []) = digits.as_chunks::<2>() else { return None };
    let date = (2000 + i32::from(pair(year)?), pair(month)?, pair(day)?);
    UtcMillis::from_civil(date, (pair(hour)?, pair(minute)?, pair(second)?), 0).ok()
}

/// Whether summer time is in force in the European Union.
fn is_summer(instant: UtcMillis) -> bool {
    let (year, month, _) = instant.day().civil();
    match month {
        4..=9 => true,
        3 => instant >= change(year, 3),
        10 => instant < change(year, 10),
        _ => false,
    }
}

/// 01:00 UTC on the last Sunday of a month of 31 days.
fn change(year: i32, month: u8) -> UtcMillis {
    let last = Day::from_civil(year, month, 31);
    // Day 0 was a Thursday: (day + 4) % 7 counts from Sunday.
    let since_sunday = (last.0 + 4).rem_euclid(7);
    Day(last.0 - since_sunday).start().plus_ms(HOUR_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Read by a gateway at that instant.
    fn at(stamp: &str, received_at: &str) -> String {
        match LocalTime::CET.resolve(stamp.as_bytes(), received_at.parse().unwrap()) {
            Some(Resolved { instant, is_guess: false }) => sure(&instant.to_string()),
            Some(Resolved { instant, is_guess: true }) => guess(&instant.to_string()),
            None => "no stamp".to_owned(),
        }
    }

    fn sure(instant: &str) -> String {
        format!("sure {instant}")
    }

    fn guess(instant: &str) -> String {
        format!("guess {instant}")
    }

    const NOW: &str = "2026-11-23T00:00:00Z";

    #[test]
    fn the_letter_tells_the_doubled_hour_of_autumn_apart() {
        assert_eq!(at("261025015959S", NOW), sure("2026-10-24T23:59:59Z"));
        assert_eq!(at("261025023000S", NOW), sure("2026-10-25T00:30:00Z"));
        assert_eq!(at("261025025959S", NOW), sure("2026-10-25T00:59:59Z"));
        assert_eq!(at("261025020000W", NOW), sure("2026-10-25T01:00:00Z"));
        assert_eq!(at("261025023000W", NOW), sure("2026-10-25T01:30:00Z"));
        assert_eq!(at("261025030000W", NOW), sure("2026-10-25T02:00:00Z"));
    }

    #[test]
    fn the_hour_that_spring_skips_leaves_no_gap_in_time() {
        assert_eq!(at("260329015959W", NOW), sure("2026-03-29T00:59:59Z"));
        assert_eq!(at("260329030000S", NOW), sure("2026-03-29T01:00:00Z"));
        // A clock that was not put forward says so by its letter.
        assert_eq!(at("260329023000W", NOW), sure("2026-03-29T01:30:00Z"));
        assert_eq!(at("260329033000W", NOW), sure("2026-03-29T02:30:00Z"));
    }

    #[test]
    fn without_a_letter_the_calendar_decides() {
        assert_eq!(at("260701120000", NOW), sure("2026-07-01T10:00:00Z"));
        assert_eq!(at("260115120000", NOW), sure("2026-01-15T11:00:00Z"));
        assert_eq!(at("260329015959", NOW), sure("2026-03-29T00:59:59Z"));
        assert_eq!(at("260329030000", NOW), sure("2026-03-29T01:00:00Z"));
        assert_eq!(at("260329023000", NOW), guess("2026-03-29T01:30:00Z"));
        assert_eq!(at("261025015959", NOW), sure("2026-10-24T23:59:59Z"));
        assert_eq!(at("261025030000", NOW), sure("2026-10-25T02:00:00Z"));
    }

    #[test]
    fn without_a_letter_the_doubled_hour_is_told_apart_by_the_arrival() {
        assert_eq!(at("261025020000", "2026-10-25T00:00:10Z"), guess("2026-10-25T00:00:00Z"));
        assert_eq!(at("261025023000", "2026-10-25T00:30:10Z"), guess("2026-10-25T00:30:00Z"));
        assert_eq!(at("261025023000", "2026-10-25T01:30:10Z"), guess("2026-10-25T01:30:00Z"));
        assert_eq!(at("261025020000", NOW), guess("2026-10-25T01:00:00Z"));
    }

    #[test]
    fn what_is_no_stamp_is_refused() {
        for stamp in [
            "",
            "632525252525W",
            "261025",
            "2610250200000",
            "261025020000X",
            "26102502000 W",
            "261325020000S",
            "2610s5023000",
            "261025020000SW",
        ] {
            assert_eq!(at(stamp, NOW), "no stamp", "{stamp}");
        }
    }

    proptest! {
        #[test]
        fn stamps_round_trip(seconds in 946_684_800..4_102_441_200i64) {
            let instant = UtcMillis(seconds * 1000);
            let stamp = LocalTime::CET.stamp(instant);
            prop_assert_eq!(stamp.len(), STAMP_LEN);
            prop_assert_eq!(LocalTime::CET.resolve(stamp.as_bytes(), instant), Some(Resolved { instant, is_guess: false }));
            let bare = stamp.trim_end_matches(['S', 'W']);
            prop_assert_eq!(LocalTime::CET.resolve(bare.as_bytes(), instant).map(|resolved| resolved.instant), Some(instant));
        }
    }
}
