//! Time stamps: `YYMMDDhhmm` with or without seconds, with or without a season digit before, or with separators.
//!
//! The season digit of the German specification of load profile meters (VDEW-Lastenheft, forms ZST10 to ZSTs13): 0 normal time,
//! 1 summer time, 2 UTC. Without it the calendar decides, as on the P1 port.

use crate::metering::UtcMillis;
use crate::p1::{LocalTime, Resolved};

const DAY_MS: i64 = 86_400_000;

/// What the clock of a meter shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MeterClock {
    /// Summer time by the rule of the European Union.
    Summer(LocalTime),
    /// The same all year round.
    Fixed { offset_minutes: i32 },
}

/// A stamp that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    At(Resolved),
    /// All zeros: it has not happened yet.
    Never,
}

/// How stamps are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StampForm {
    /// `YYMMDDhhmm`
    Zst10,
    /// The season digit and `YYMMDDhhmm`
    Zst11,
    /// `YYMMDDhhmmss`
    Zst12,
    /// The season digit and `YYMMDDhhmmss`
    Zst13,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Season {
    Unknown,
    Normal,
    Summer,
    Utc,
}

/// A date and a time as shown.
struct Civil {
    season: Season,
    /// Year of its century to second.
    fields: [u8; 6],
}

impl MeterClock {
    pub const CET: Self = Self::Summer(LocalTime::CET);
    pub const UTC: Self = Self::Fixed { offset_minutes: 0 };

    /// Reads a stamp; `None` when it is no date and time. What an hour that exists twice means, `received_at` decides.
    pub fn resolve(self, text: &[u8], received_at: UtcMillis) -> Option<Stamp> {
        let text = text.trim_ascii();
        if text.len() >= 10 && text.iter().all(|octet| b"0-:., ".contains(octet)) {
            return Some(Stamp::Never);
        }
        let civil = by_length(text).or_else(|| by_separators(text))?;
        self.resolve_civil(&civil, received_at).map(Stamp::At)
    }

    /// Time and date that stand on two lines: `0.9.1(155420)`, `0.9.2(170214)`, with or without separators or season digits.
    pub fn resolve_parts(self, time: &[u8], date: &[u8], received_at: UtcMillis) -> Option<Resolved> {
        let (season, [hour, minute, second]) = three(time)?;
        let (_, [year, month, day]) = three(date)?;
        self.resolve_civil(&Civil { season, fields: [year, month, day, hour, minute, second] }, received_at)
    }

    fn resolve_civil(self, civil: &Civil, received_at: UtcMillis) -> Option<Resolved> {
        let [year, month, day, hour, minute, second] = civil.fields;
        // The end of a day is the beginning of the next.
        let is_midnight = (hour, minute, second) == (24, 0, 0);
        let hour = if is_midnight { 0 } else { hour };
        let later_ms = if is_midnight { DAY_MS } else { 0 };
        let at = |offset| {
            let date = (2000 + i32::from(year), month, day);
            let instant = UtcMillis::from_civil(date, (hour, minute, second), offset).ok()?;
            Some(Resolved { instant: instant.plus_ms(later_ms), is_guess: false })
        };
        match (self, civil.season) {
            (_, Season::Utc) => at(0),
            (Self::Fixed { offset_minutes }, _) => at(offset_minutes),
            (Self::Summer(local), Season::Normal) => at(local.standard_offset_minutes),
            (Self::Summer(local), Season::Summer) => at(local.standard_offset_minutes + 60),
            (Self::Summer(local), Season::Unknown) => {
                // In the year and at the hour that the calendar has; midnight is never doubled in Europe.
                let day_after = at(0)?.instant.day();
                let (year, month, day) = day_after.civil();
                let digits = format!("{:02}{month:02}{day:02}{hour:02}{minute:02}{second:02}", year.rem_euclid(100));
                local.resolve(digits.as_bytes(), received_at)
            }
        }
    }

    /// Writes a stamp; finer parts are cut.
    pub fn stamp(self, instant: UtcMillis, form: StampForm) -> String {
        let (season, digits) = match self {
            Self::Summer(local) => {
                let stamp = local.stamp(instant);
                (if stamp.ends_with('S') { '1' } else { '0' }, stamp)
            }
            Self::Fixed { offset_minutes } => {
                let season = if offset_minutes == 0 { '2' } else { '0' };
                // Winter all year round, whatever the calendar says.
                let shifted = instant.plus_ms(i64::from(offset_minutes) * 60_000);
                (season, civil_digits(shifted))
            }
        };
        let len = if matches!(form, StampForm::Zst10 | StampForm::Zst11) { 10 } else { 12 };
        let digits: String = digits.chars().take(len).collect();
        match form {
            StampForm::Zst11 | StampForm::Zst13 => format!("{season}{digits}"),
            StampForm::Zst10 | StampForm::Zst12 => digits,
        }
    }
}

fn civil_digits(local: UtcMillis) -> String {
    let (year, month, day) = local.day().civil();
    let second = local.since(local.day().start()) / 1000;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{:02}{month:02}{day:02}{hour:02}{minute:02}{second:02}", year.rem_euclid(100))
}

/// Digits only, told apart by their number.
fn by_length(text: &[u8]) -> Option<Civil> {
    let (season, digits) = match text.len() {
        11 | 13 => {
            let (season, digits) = text.split_first()?;
            (season_of(*season)?, digits)
        }
        _ => (Season::Unknown, text),
    };
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let mut fields = [0; 6];
    match pairs.len() {
        5 | 6 => {}
        _ => return None,
    }
    for (field, pair) in fields.iter_mut().zip(pairs) {
        *field = number(*pair)?;
    }
    Some(Civil { season, fields })
}

/// `24-01-31 12:00`, `2021-07-12 22:20:17`, `24-07-13,13:00`.
fn by_separators(text: &[u8]) -> Option<Civil> {
    let mut parts = text.split(|octet| b"-:., T".contains(octet));
    let year = parts.next()?;
    let year = match *year {
        [b'2', b'0', tens, ones] | [tens, ones] => [tens, ones],
        _ => return None,
    };
    let mut fields = [number(year)?, 0, 0, 0, 0, 0];
    let mut count = 1;
    for (field, part) in fields.iter_mut().skip(1).zip(parts.by_ref()) {
        *field = number(*part.first_chunk::<2>().filter(|_| part.len() == 2)?)?;
        count += 1;
    }
    (count >= 5 && parts.next().is_none()).then_some(Civil { season: Season::Unknown, fields })
}

/// `hhmmss`, `hh:mm:ss`, `shhmmss`, and dates of the same form.
fn three(text: &[u8]) -> Option<(Season, [u8; 3])> {
    let digits: Vec<u8> = text.iter().copied().filter(|octet| !b"-:. ".contains(octet)).take(8).collect();
    let (season, digits) = match digits.len() {
        7 => (season_of(*digits.first()?)?, digits.get(1..)?),
        // A year of four digits.
        8 if digits.starts_with(b"20") => (Season::Unknown, digits.get(2..)?),
        _ => (Season::Unknown, &digits[..]),
    };
    let ([one, two, three], []) = digits.as_chunks::<2>() else { return None };
    Some((season, [number(*one)?, number(*two)?, number(*three)?]))
}

fn season_of(digit: u8) -> Option<Season> {
    match digit {
        b'0' => Some(Season::Normal),
        b'1' => Some(Season::Summer),
        b'2' => Some(Season::Utc),
        _ => None,
    }
}

fn number([tens, ones]: [u8; 2]) -> Option<u8> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| (tens - b'0') * 10 + (ones - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: &str = "2026-11-23T00:00:00Z";

    fn at(clock: MeterClock, text: &str) -> String {
        match clock.resolve(text.as_bytes(), NOW.parse().unwrap()) {
            Some(Stamp::At(Resolved { instant, is_guess })) => format!("{instant}{}", if is_guess { "?" } else { "" }),
            Some(Stamp::Never) => "never".to_owned(),
            None => "no stamp".to_owned(),
        }
    }

    #[test]
    fn all_forms_are_read() {
        for (text, expected) in [
            ("2211120730", "2022-11-12T06:30:00Z"),
            ("1190711111500", "2019-07-11T09:15:00Z"),
            ("0190111111500", "2019-01-11T10:15:00Z"),
            ("2190711111500", "2019-07-11T11:15:00Z"),
            ("02301011200", "2023-01-01T11:00:00Z"),
            ("230101120030", "2023-01-01T11:00:30Z"),
            ("24-01-31 12:00", "2024-01-31T11:00:00Z"),
            ("24-07-13,13:00", "2024-07-13T11:00:00Z"),
            ("2021-07-12 22:20:17", "2021-07-12T20:20:17Z"),
            ("2024-01-31T12:00", "2024-01-31T11:00:00Z"),
            ("2401312400", "2024-01-31T23:00:00Z"),
            ("0000000000", "never"),
            ("00-00-00 00:00", "never"),
            ("261025023000", "2026-10-25T01:30:00Z?"),
            ("1261025023000", "2026-10-25T00:30:00Z"),
            ("0261025023000", "2026-10-25T01:30:00Z"),
        ] {
            assert_eq!(at(MeterClock::CET, text), expected, "{text}");
        }
        assert_eq!(at(MeterClock::Fixed { offset_minutes: 60 }, "1190711111500"), "2019-07-11T10:15:00Z");
        assert_eq!(at(MeterClock::UTC, "190711111500"), "2019-07-11T11:15:00Z");
    }

    #[test]
    fn what_is_no_stamp_is_refused() {
        for text in [
            "",
            "0",
            "000000",
            "3190711111500",
            "191311111500",
            "190711251500",
            "1907112401",
            "24-01-31",
            "24-1-31 12:00",
            "1924-01-31 12:00",
            "24-01-31 12:00:00:00",
            "kWh",
        ] {
            assert_eq!(at(MeterClock::CET, text), "no stamp", "{text}");
        }
    }

    #[test]
    fn time_and_date_of_two_lines_are_put_together() {
        let now: UtcMillis = NOW.parse().unwrap();
        for (time, date, expected) in [
            ("155420", "170214", "2017-02-14T14:54:20Z"),
            ("15:54:20", "17-02-14", "2017-02-14T14:54:20Z"),
            ("1235703", "1220826", "2022-08-26T21:57:03Z"),
            ("155420", "2017-02-14", "2017-02-14T14:54:20Z"),
        ] {
            let found = MeterClock::CET.resolve_parts(time.as_bytes(), date.as_bytes(), now).unwrap();
            assert_eq!(found.instant.to_string(), expected, "{time} {date}");
        }
        assert_eq!(MeterClock::CET.resolve_parts(b"1554", b"170214", now), None);
    }

    proptest! {
        #[test]
        fn stamps_with_a_season_round_trip(minutes in 946_800_000 / 60..4_102_300_000i64 / 60, fixed in prop::option::of(-720..840i32)) {
            let instant = UtcMillis(minutes * 60_000);
            let clock = fixed.map_or(MeterClock::CET, |offset_minutes| MeterClock::Fixed { offset_minutes });
            for form in [StampForm::Zst11, StampForm::Zst13] {
                let text = clock.stamp(instant, form);
                let expected = Some(Stamp::At(Resolved { instant, is_guess: false }));
                prop_assert_eq!(clock.resolve(text.as_bytes(), instant), expected, "{}", text);
            }
            for form in [StampForm::Zst10, StampForm::Zst12] {
                let text = clock.stamp(instant, form);
                let Some(Stamp::At(found)) = clock.resolve(text.as_bytes(), instant) else { panic!("{text}") };
                prop_assert_eq!(found.instant, instant, "{}", text);
            }
        }

        #[test]
        fn no_octets_panic(text in prop::collection::vec(prop_oneof![prop::sample::select(&b"0123456789-: ,"[..]), any::<u8>()], 0..24)) {
            let now: UtcMillis = NOW.parse().unwrap();
            let whole = MeterClock::CET.resolve(&text, now);
            let parts = MeterClock::CET.resolve_parts(&text, &text, now);
            prop_assert!(!text.is_empty() || (whole, parts) == (None, None));
        }
    }
}
