//! Points in time: types F, G, I and J (EN 13757-3, annex A), with parts that are left open and bits that say that the clock is
//! wrong.

use std::fmt;

use crate::iec62056_21::{MeterClock, Stamp};
use crate::metering::UtcMillis;

use super::quirks::Quirks;

/// How a point in time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeType {
    /// Date, hour and minute: 32 bits.
    F,
    /// Date: 16 bits.
    G,
    /// Date and time with seconds: 48 bits.
    I,
    /// Time of the day with seconds: 24 bits.
    J,
}

/// A date and a time as a meter's clock shows them. `None`: left open (each, or not known), or not part of the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Civil {
    pub year: Option<u16>,
    pub month: Option<u8>,
    pub day: Option<u8>,
    pub hour: Option<u8>,
    pub minute: Option<u8>,
    pub second: Option<u8>,
    pub is_summer: bool,
    /// The meter says that its clock is wrong.
    pub is_invalid: bool,
    /// A date without a time.
    pub is_date: bool,
}

/// Which instant a date without a time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DateEdge {
    /// Its end: what a meter stores at a due date is what it counted up to the end of that day.
    #[default]
    End,
    Start,
}

impl TimeType {
    pub(super) fn of_len(len: usize) -> Option<Self> {
        match len {
            2 => Some(Self::G),
            3 => Some(Self::J),
            4 => Some(Self::F),
            6 => Some(Self::I),
            _ => None,
        }
    }

    /// Reads as many octets as the type has.
    pub(super) fn decode(self, data: &[u8]) -> Civil {
        let octet = |at: usize| data.get(at).copied().unwrap_or_default();
        let all_set = data.iter().all(|&octet| octet == 0xff);
        let civil = match self {
            Self::F => Civil {
                minute: below(octet(0) & 0x3f, 60),
                hour: below(octet(1) & 0x1f, 24),
                is_summer: octet(1) & 0x80 != 0,
                is_invalid: octet(0) & 0x80 != 0,
                ..date(octet(2), octet(3), octet(1) >> 5 & 3)
            },
            Self::G => Civil { is_date: true, ..date(octet(0), octet(1), 0) },
            Self::I => Civil {
                second: below(octet(0) & 0x3f, 60),
                minute: below(octet(1) & 0x3f, 60),
                hour: below(octet(2) & 0x1f, 24),
                is_summer: octet(0) & 0x40 != 0,
                is_invalid: octet(1) & 0x80 != 0,
                ..date(octet(3), octet(4), 0)
            },
            Self::J => Civil {
                second: below(octet(0) & 0x3f, 60),
                minute: below(octet(1) & 0x3f, 60),
                hour: below(octet(2) & 0x1f, 24),
                ..Civil::default()
            },
        };
        Civil { is_invalid: civil.is_invalid || all_set, ..civil }
    }

    /// Writes it; what is left open is all bits set, a day 0.
    pub fn encode(self, civil: &Civil) -> Vec<u8> {
        let year = civil.year.map_or(0x7f, |year| (year % 100) as u8);
        let day = civil.day.unwrap_or(0) | (year & 7) << 5;
        let month = civil.month.unwrap_or(0x0f) | (year >> 3) << 4;
        let (hour, minute) = (civil.hour.unwrap_or(0x1f), civil.minute.unwrap_or(0x3f));
        let second = civil.second.unwrap_or(0x3f);
        let invalid = u8::from(civil.is_invalid) << 7;
        let summer = u8::from(civil.is_summer);
        match self {
            Self::F => {
                let hundreds = civil.year.map_or(0, |year| year.saturating_sub(1900) / 100) as u8 & 3;
                vec![minute | invalid, hour | hundreds << 5 | summer << 7, day, month]
            }
            Self::G => vec![day, month],
            Self::I => vec![second | summer << 6, minute | invalid, hour, day, month, 0],
            Self::J => vec![second, minute, hour],
        }
    }
}

impl Civil {
    /// The instant; `None` when a part of the date is open, or it is no date, or before 2000.
    pub fn instant(
        &self,
        clock: MeterClock,
        edge: DateEdge,
        quirks: Quirks,
        received_at: UtcMillis,
    ) -> Option<UtcMillis> {
        let (year, month, day) = (self.year?, self.month?, self.day?);
        (2000..=2099).contains(&year).then_some(())?;
        let (hour, minute, second) = if self.is_date {
            if edge == DateEdge::End { (24, 0, 0) } else { (0, 0, 0) }
        } else {
            (self.hour?, self.minute?, self.second.unwrap_or(0))
        };
        let season = match (self.is_summer, self.is_date || quirks.season_by_calendar) {
            (true, _) => "1",
            (false, true) => "",
            (false, false) => "0",
        };
        let year = year % 100;
        let digits = format!("{season}{year:02}{month:02}{day:02}{hour:02}{minute:02}{second:02}");
        match clock.resolve(digits.as_bytes(), received_at)? {
            Stamp::At(resolved) => Some(resolved.instant),
            Stamp::Never => None,
        }
    }
}

impl fmt::Display for Civil {
    /// `2012-01-13 16:34`, with `--` for what is left open.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let two = |part: Option<u8>| part.map_or_else(|| "--".to_owned(), |part| format!("{part:02}"));
        let year = self.year.map_or_else(|| "----".to_owned(), |year| year.to_string());
        write!(f, "{year}-{}-{}", two(self.month), two(self.day))?;
        if !self.is_date {
            write!(f, " {}:{}", two(self.hour), two(self.minute))?;
        }
        if let Some(second) = self.second {
            write!(f, ":{second:02}")?;
        }
        f.write_str(if self.is_invalid { " invalid" } else { "" })
    }
}

/// Two octets of a date. `hundreds`: centuries since 1900, which older meters leave out: then up to 80 is 2000 and on.
fn date(low: u8, high: u8, hundreds: u8) -> Civil {
    let year = u16::from(low >> 5 | (high & 0xf0) >> 1);
    let year = match (year, hundreds) {
        (0..=80, 0) => Some(2000 + year),
        (0..=99, _) => Some(1900 + 100 * u16::from(hundreds) + year),
        _ => None,
    };
    let (day, month) = (low & 0x1f, high & 0x0f);
    Civil {
        year,
        month: below(month, 13).filter(|&month| month > 0),
        day: Some(day).filter(|&day| day > 0),
        ..Civil::default()
    }
}

fn below(value: u8, bound: u8) -> Option<u8> {
    (value < bound).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instant(data: &[u8]) -> Option<String> {
        let civil = TimeType::of_len(data.len()).expect("a type").decode(data);
        let instant = civil.instant(MeterClock::UTC, DateEdge::End, Quirks::default(), UtcMillis(0));
        instant.map(|instant| instant.to_string())
    }

    #[test]
    fn captured_points_in_time_are_right() {
        // ABB F95, OMS example, and a due date.
        assert_eq!(instant(&[0x22, 0x10, 0x8d, 0x11]).as_deref(), Some("2012-01-13T16:34:00Z"));
        assert_eq!(instant(&[0x32, 0x37, 0x1f, 0x15]).as_deref(), Some("2008-05-31T23:50:00Z"));
        assert_eq!(instant(&[0x5f, 0x1c]).as_deref(), Some("2011-01-01T00:00:00Z"));
        assert_eq!(instant(&[0x2d, 0x1e, 0x0b, 0x7f, 0x1c, 0x00]).as_deref(), Some("2011-12-31T11:30:45Z"));
    }

    #[test]
    fn what_is_left_open_has_no_instant_and_is_told() {
        for open in [&[0xff, 0xff][..], &[0x00, 0x1c], &[0x5f, 0x1f], &[0x3f, 0x10, 0x8d, 0x11], &[0, 0, 12]] {
            assert_eq!(instant(open), None, "{open:02x?}");
        }
        assert!(TimeType::G.decode(&[0xff, 0xff]).is_invalid);
        assert!(TimeType::F.decode(&[0xa2, 0x10, 0x8d, 0x11]).is_invalid);
        assert!(TimeType::I.decode(&[0x00, 0x80, 0x00, 0x21, 0x11, 0x00]).is_invalid);
        assert!(!TimeType::F.decode(&[0x22, 0x10, 0x8d, 0x11]).is_invalid);
    }

    #[test]
    fn the_summer_bit_is_an_hour() {
        let at = |hour: u8, quirks: Quirks| {
            let civil = TimeType::F.decode(&[0x00, hour, 0xc1, 0x37]);
            civil.instant(MeterClock::CET, DateEdge::End, quirks, UtcMillis(0)).expect("a date").to_string()
        };
        assert_eq!(at(0x8c, Quirks::NONE), "2030-07-01T10:00:00Z");
        assert_eq!(at(0x0c, Quirks::NONE), "2030-07-01T11:00:00Z");
        assert_eq!(at(0x0c, Quirks { season_by_calendar: true, ..Quirks::NONE }), "2030-07-01T10:00:00Z");
    }

    fn part(below: u8) -> impl Strategy<Value = Option<u8>> {
        prop_oneof![Just(None), (0..below).prop_map(Some)]
    }

    proptest! {
        // Negative control: shift the year by four instead of three in `encode`.
        #[test]
        fn points_in_time_round_trip(
            year in prop_oneof![Just(None), (2000u16..2081).prop_map(Some)], month in part(12), day in part(31),
            hour in part(24), minute in part(60), second in part(60), is_summer: bool,
        ) {
            let one = |part: Option<u8>| part.map(|part| part + 1);
            let whole = Civil {
                year, month: one(month), day: one(day), hour, minute, second, is_summer, is_invalid: false, is_date: false,
            };
            let cases = [
                (TimeType::F, Civil { second: None, ..whole }),
                (TimeType::G, Civil { hour: None, minute: None, second: None, is_summer: false, is_date: true, ..whole }),
                (TimeType::I, whole),
                (TimeType::J, Civil { hour, minute, second, ..Civil::default() }),
            ];
            for (kind, civil) in cases {
                let octets = kind.encode(&civil);
                prop_assert_eq!(TimeType::of_len(octets.len()), Some(kind));
                let read = kind.decode(&octets);
                if !octets.iter().all(|&octet| octet == 0xff) {
                    prop_assert_eq!(read, civil, "{:?}", kind);
                }
            }
        }
    }
}
