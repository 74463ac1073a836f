//! Date-time, date and time of COSEM (IEC 62056-6-2, clause "Date and time formats"), wildcards included.
//!
//! [`DateTime`], [`Date`] and [`Time`] are views: they hold any octets and print them. What a meter's clock says is a
//! [`ClockReading`], which [`DateTime::to_utc`] makes. The *deviation* is in minutes from local time to UTC, daylight
//! saving included: UTC = local + deviation, so that a meter in Central Europe states -60 in winter and -120 in summer.

use std::fmt;

use crate::metering::{Day, Quality, TimeError, UtcMillis};

/// A field that the sender left open.
const OPEN: u8 = 0xff;
const YEAR_OPEN: u16 = 0xffff;
const DEVIATION_OPEN: i16 = i16::MIN;
/// Month: of the begin and of the end of daylight saving. Day: the last and the last but one of the month.
const SECOND_SPECIAL: u8 = 0xfd;
const FIRST_SPECIAL: u8 = 0xfe;
/// UTC-12 to UTC+14 exist. Both signs reach 14 hours here, since some meters confuse them.
const DEVIATION_MAX: i16 = 14 * 60;

/// Year (2), month, day of month, day of week, hour, minute, second, hundredths, deviation (2), clock status.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DateTime(pub [u8; 12]);

/// Year (2), month, day of month, day of week (1 is Monday).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Date(pub [u8; 5]);

/// Hour, minute, second, hundredths.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Time(pub [u8; 4]);

/// What the meter says about its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClockStatus(pub u8);

/// The month of a [`Date`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Month {
    /// 1 to 12.
    Number(u8),
    DaylightSavingBegin,
    DaylightSavingEnd,
    Unspecified,
    Reserved(u8),
}

/// The day of month of a [`Date`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayOfMonth {
    /// 1 to 31.
    Number(u8),
    Last,
    LastButOne,
    Unspecified,
    Reserved(u8),
}

/// How local time is taken when a meter does not state its deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockRules {
    /// Minutes that the meter's clock is ahead of UTC in standard time: 60 in Central Europe, 0 for a clock in UTC.
    pub assume_offset_minutes: i16,
    /// Added while the clock status says that daylight saving is active. Meters that keep standard time all year never say so.
    pub assume_daylight_saving_minutes: i16,
}

/// Where the deviation of a [`ClockReading`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deviation {
    /// The meter stated it.
    Stated(i16),
    /// The meter left it open; this one follows from [`ClockRules`].
    Assumed(i16),
}

/// A meter's date-time as an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    pub utc: UtcMillis,
    pub deviation: Deviation,
    pub status: ClockStatus,
}

/// Why a date-time is no instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DateTimeError {
    /// A field that an instant needs is a wildcard.
    #[error("{date_time} leaves open what an instant needs")]
    Open { date_time: DateTime },
    /// A field is outside its range.
    #[error("{date_time} does not exist")]
    Fields { date_time: DateTime },
}

impl ClockStatus {
    pub const GOOD: Self = Self(0);
    pub const UNSPECIFIED: Self = Self(OPEN);
    const INVALID_VALUE: u8 = 0x01;
    const DOUBTFUL_VALUE: u8 = 0x02;
    const DIFFERENT_CLOCK_BASE: u8 = 0x04;
    const INVALID_CLOCK_STATUS: u8 = 0x08;
    const DAYLIGHT_SAVING: u8 = 0x80;

    fn has(self, bit: u8) -> bool {
        self != Self::UNSPECIFIED && self.0 & bit != 0
    }

    /// Time could not be recovered after an incident.
    pub fn is_invalid(self) -> bool {
        self.has(Self::INVALID_VALUE)
    }

    /// Time was recovered after an incident, but its precision is not certain.
    pub fn is_doubtful(self) -> bool {
        self.has(Self::DOUBTFUL_VALUE)
    }

    pub fn has_different_clock_base(self) -> bool {
        self.has(Self::DIFFERENT_CLOCK_BASE)
    }

    /// The status itself is not to be trusted.
    pub fn is_invalid_status(self) -> bool {
        self.has(Self::INVALID_CLOCK_STATUS)
    }

    pub fn is_daylight_saving(self) -> bool {
        self.has(Self::DAYLIGHT_SAVING)
    }

    /// An invalid or doubtful clock makes doubtful labels.
    pub fn quality(self) -> Quality {
        if self.is_invalid() || self.is_doubtful() { Quality::CLOCK_INVALID } else { Quality::GOOD }
    }
}

impl Date {
    pub const UNSPECIFIED: Self = Self([OPEN; 5]);

    pub fn from_day(day: Day) -> Self {
        let (year, month, day_of_month) = day.civil();
        let [high, low] = (year as u16).to_be_bytes();
        // 1970-01-01 was a Thursday.
        let weekday = (day.0 + 3).rem_euclid(7) as u8 + 1;
        Self([high, low, month, day_of_month, weekday])
    }

    /// `None` when left open.
    pub fn year(self) -> Option<u16> {
        let [high, low, ..] = self.0;
        Some(u16::from_be_bytes([high, low])).filter(|&year| year != YEAR_OPEN)
    }

    pub fn month(self) -> Month {
        let [_, _, month, ..] = self.0;
        match month {
            1..=12 => Month::Number(month),
            FIRST_SPECIAL => Month::DaylightSavingBegin,
            SECOND_SPECIAL => Month::DaylightSavingEnd,
            OPEN => Month::Unspecified,
            _ => Month::Reserved(month),
        }
    }

    pub fn day_of_month(self) -> DayOfMonth {
        let [_, _, _, day, _] = self.0;
        match day {
            1..=31 => DayOfMonth::Number(day),
            FIRST_SPECIAL => DayOfMonth::Last,
            SECOND_SPECIAL => DayOfMonth::LastButOne,
            OPEN => DayOfMonth::Unspecified,
            _ => DayOfMonth::Reserved(day),
        }
    }

    /// 1 is Monday, 7 is Sunday; `None` when left open.
    pub fn day_of_week(self) -> Option<u8> {
        let [.., weekday] = self.0;
        Some(weekday).filter(|&weekday| weekday != OPEN)
    }
}

impl Time {
    pub const UNSPECIFIED: Self = Self([OPEN; 4]);

    /// Of that instant in UTC.
    pub fn from_utc(utc: UtcMillis) -> Self {
        let in_day = utc.since(utc.day().start());
        let seconds = in_day / 1000;
        Self([(seconds / 3600) as u8, (seconds / 60 % 60) as u8, (seconds % 60) as u8, (in_day % 1000 / 10) as u8])
    }

    /// `None` when left open; so are the three below.
    pub fn hour(self) -> Option<u8> {
        self.field(0)
    }

    pub fn minute(self) -> Option<u8> {
        self.field(1)
    }

    pub fn second(self) -> Option<u8> {
        self.field(2)
    }

    pub fn hundredths(self) -> Option<u8> {
        self.field(3)
    }

    fn field(self, index: usize) -> Option<u8> {
        self.0.get(index).copied().filter(|&octet| octet != OPEN)
    }
}

impl DateTime {
    pub const UNSPECIFIED: Self = Self([OPEN, OPEN, OPEN, OPEN, OPEN, OPEN, OPEN, OPEN, OPEN, 0x80, 0x00, OPEN]);

    pub fn from_parts(date: Date, time: Time, deviation: Option<i16>, status: ClockStatus) -> Self {
        let [year_high, year_low, month, day, weekday] = date.0;
        let [hour, minute, second, hundredths] = time.0;
        let [deviation_high, deviation_low] = deviation.unwrap_or(DEVIATION_OPEN).to_be_bytes();
        Self([
            year_high,
            year_low,
            month,
            day,
            weekday,
            hour,
            minute,
            second,
            hundredths,
            deviation_high,
            deviation_low,
            status.0,
        ])
    }

    /// What a clock `offset_minutes` ahead of UTC shows at that instant, cut to hundredths, its deviation stated.
    pub fn from_utc(utc: UtcMillis, offset_minutes: i16, status: ClockStatus) -> Self {
        let local = utc.plus_ms(i64::from(offset_minutes) * 60_000);
        let deviation = offset_minutes.saturating_neg();
        Self::from_parts(Date::from_day(local.day()), Time::from_utc(local), Some(deviation), status)
    }

    pub fn date(self) -> Date {
        let [a, b, c, d, e, ..] = self.0;
        Date([a, b, c, d, e])
    }

    pub fn time(self) -> Time {
        let [_, _, _, _, _, a, b, c, d, ..] = self.0;
        Time([a, b, c, d])
    }

    /// Minutes from local time to UTC; `None` when left open.
    pub fn deviation_minutes(self) -> Option<i16> {
        let [.., high, low, _] = self.0;
        Some(i16::from_be_bytes([high, low])).filter(|&deviation| deviation != DEVIATION_OPEN)
    }

    pub fn status(self) -> ClockStatus {
        let [.., status] = self.0;
        ClockStatus(status)
    }

    /// The instant. Seconds and hundredths left open count as 0: clocks that do not have them leave them open. The day of
    /// the week is not looked at.
    pub fn to_utc(self, rules: ClockRules) -> Result<ClockReading, DateTimeError> {
        let open = DateTimeError::Open { date_time: self };
        let wrong = DateTimeError::Fields { date_time: self };
        let (date, time, status) = (self.date(), self.time(), self.status());
        let year = i32::from(date.year().ok_or(open)?);
        let month = match date.month() {
            Month::Number(month) => month,
            Month::Reserved(_) => return Err(wrong),
            Month::DaylightSavingBegin | Month::DaylightSavingEnd | Month::Unspecified => return Err(open),
        };
        let day = match date.day_of_month() {
            DayOfMonth::Number(day) => day,
            DayOfMonth::Last => last_day(year, month),
            DayOfMonth::LastButOne => last_day(year, month) - 1,
            DayOfMonth::Reserved(_) => return Err(wrong),
            DayOfMonth::Unspecified => return Err(open),
        };
        let clock = (time.hour().ok_or(open)?, time.minute().ok_or(open)?, time.second().unwrap_or(0));
        let hundredths = time.hundredths().unwrap_or(0);
        let deviation = match self.deviation_minutes() {
            Some(stated) => Deviation::Stated(stated),
            None => Deviation::Assumed(rules.deviation(status)),
        };
        if hundredths > 99 || deviation.minutes().unsigned_abs() > DEVIATION_MAX.unsigned_abs() {
            return Err(wrong);
        }
        let utc = UtcMillis::from_civil((year, month, day), clock, -i32::from(deviation.minutes()))
            .map_err(|_: TimeError| wrong)?
            .plus_ms(i64::from(hundredths) * 10);
        Ok(ClockReading { utc, deviation, status })
    }
}

impl ClockRules {
    fn deviation(self, status: ClockStatus) -> i16 {
        let daylight_saving = if status.is_daylight_saving() { self.assume_daylight_saving_minutes } else { 0 };
        self.assume_offset_minutes.saturating_add(daylight_saving).saturating_neg()
    }
}

impl Deviation {
    /// Minutes from local time to UTC.
    pub const fn minutes(self) -> i16 {
        match self {
            Self::Stated(minutes) | Self::Assumed(minutes) => minutes,
        }
    }
}

impl ClockReading {
    pub fn quality(&self) -> Quality {
        self.status.quality()
    }
}

/// The number of days in a month from 1 to 12.
fn last_day(year: i32, month: u8) -> u8 {
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let (_, _, day) = Day(Day::from_civil(next_year, next_month, 1).0 - 1).civil();
    day
}

/// Writes `*` for a field left open.
fn write_field(f: &mut fmt::Formatter<'_>, field: Option<u8>) -> fmt::Result {
    match field {
        Some(field) => write!(f, "{field:02}"),
        None => f.write_str("*"),
    }
}

impl fmt::Display for Date {
    /// `2026-11-23`, `*-dst-begin-last` and the like; the day of the week is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.year() {
            Some(year) => write!(f, "{year:04}-")?,
            None => f.write_str("*-")?,
        }
        match self.month() {
            Month::Number(month) | Month::Reserved(month) => write!(f, "{month:02}-")?,
            Month::DaylightSavingBegin => f.write_str("dst-begin-")?,
            Month::DaylightSavingEnd => f.write_str("dst-end-")?,
            Month::Unspecified => f.write_str("*-")?,
        }
        match self.day_of_month() {
            DayOfMonth::Number(day) | DayOfMonth::Reserved(day) => write!(f, "{day:02}"),
            DayOfMonth::Last => f.write_str("last"),
            DayOfMonth::LastButOne => f.write_str("last-but-one"),
            DayOfMonth::Unspecified => f.write_str("*"),
        }
    }
}

impl fmt::Display for Time {
    /// `02:35:15.25`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_field(f, self.hour())?;
        f.write_str(":")?;
        write_field(f, self.minute())?;
        f.write_str(":")?;
        write_field(f, self.second())?;
        f.write_str(".")?;
        write_field(f, self.hundredths())
    }
}

impl fmt::Display for DateTime {
    /// `2026-11-23 02:35:15.25 deviation -60 status 80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} deviation ", self.date(), self.time())?;
        match self.deviation_minutes() {
            Some(deviation) => write!(f, "{deviation}")?,
            None => f.write_str("*")?,
        }
        write!(f, " status {:02x}", self.status().0)
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CENTRAL_EUROPE: ClockRules = ClockRules { assume_offset_minutes: 60, assume_daylight_saving_minutes: 60 };

    fn instant(text: &str) -> UtcMillis {
        text.parse().unwrap()
    }

    #[test]
    fn utc_is_local_time_plus_deviation() {
        // Salzburg Netz push: 16:54 in Austria in winter.
        let winter = DateTime([0x07, 0xe6, 0x0b, 0x0c, 0x06, 0x10, 0x36, 0x00, 0x00, 0xff, 0xc4, 0x00]);
        let reading = winter.to_utc(ClockRules::default()).unwrap();
        assert_eq!(reading.utc, instant("2022-11-12T15:54:00Z"));
        assert_eq!(reading.deviation, Deviation::Stated(-60));
        assert_eq!(reading.quality(), Quality::GOOD);
        // Iskra push: summer, hundredths left open, daylight saving active.
        let summer = DateTime([0x07, 0xe7, 0x04, 0x01, 0x06, 0x15, 0x20, 0x23, 0x00, 0xff, 0x88, 0x80]);
        let reading = summer.to_utc(ClockRules::default()).unwrap();
        assert_eq!(reading.utc, instant("2023-04-01T19:32:35Z"));
        assert!(reading.status.is_daylight_saving());
    }

    #[test]
    fn a_deviation_left_open_is_assumed_and_said_to_be() {
        // Kaifa push: deviation and hundredths open.
        let open = DateTime([0x07, 0xe1, 0x09, 0x0f, 0x05, 0x05, 0x21, 0x28, 0xff, 0x80, 0x00, 0x00]);
        let reading = open.to_utc(CENTRAL_EUROPE).unwrap();
        assert_eq!((reading.utc, reading.deviation), (instant("2017-09-15T04:33:40Z"), Deviation::Assumed(-60)));
    }

    #[test]
    fn the_daylight_saving_bit_tells_the_two_autumn_hours_apart() {
        let at = |status| {
            let bytes = [0x07, 0xea, 10, 25, 7, 2, 30, 0, 0, 0x80, 0x00, status];
            DateTime(bytes).to_utc(CENTRAL_EUROPE).unwrap().utc
        };
        assert_eq!(at(0x80), instant("2026-10-25T00:30:00Z"));
        assert_eq!(at(0x00), instant("2026-10-25T01:30:00Z"));
        // A status of FF says nothing, not everything.
        assert_eq!(at(0xff), instant("2026-10-25T01:30:00Z"));
    }

    #[test]
    fn an_invalid_or_doubtful_clock_makes_doubtful_labels() {
        for (status, quality) in [
            (0x01, Quality::CLOCK_INVALID),
            (0x02, Quality::CLOCK_INVALID),
            (0x04, Quality::GOOD),
            (0x80, Quality::GOOD),
            (0xff, Quality::GOOD),
        ] {
            assert_eq!(ClockStatus(status).quality(), quality, "{status:#x}");
        }
    }

    #[test]
    fn wildcards_are_no_instant() {
        let full = DateTime::from_utc(instant("2026-02-03T04:05:06Z"), 0, ClockStatus::GOOD);
        for index in [0, 2, 3, 5, 6] {
            let mut bytes = full.0;
            bytes[index] = 0xff;
            if index == 0 {
                bytes[1] = 0xff;
            }
            let open = DateTime(bytes);
            assert_eq!(open.to_utc(CENTRAL_EUROPE), Err(DateTimeError::Open { date_time: open }));
        }
        for month in [0xfd, 0xfe] {
            let mut bytes = full.0;
            bytes[2] = month;
            assert!(matches!(DateTime(bytes).to_utc(CENTRAL_EUROPE), Err(DateTimeError::Open { .. })));
        }
    }

    #[test]
    fn the_last_days_of_a_month_are_found() {
        let mut bytes = DateTime::from_utc(instant("2028-02-03T00:00:00Z"), 0, ClockStatus::GOOD).0;
        bytes[3] = 0xfe;
        assert_eq!(DateTime(bytes).to_utc(CENTRAL_EUROPE).unwrap().utc, instant("2028-02-29T00:00:00Z"));
        bytes[3] = 0xfd;
        assert_eq!(DateTime(bytes).to_utc(CENTRAL_EUROPE).unwrap().utc, instant("2028-02-28T00:00:00Z"));
        bytes[2] = 12;
        assert_eq!(DateTime(bytes).to_utc(CENTRAL_EUROPE).unwrap().utc, instant("2028-12-30T00:00:00Z"));
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let good = DateTime::from_utc(instant("2026-02-03T04:05:06Z"), 0, ClockStatus::GOOD).0;
        for (index, value) in [(2, 13), (2, 0), (3, 30), (3, 0), (5, 24), (6, 60), (7, 61), (8, 100), (9, 0x7f)] {
            let mut bytes = good;
            bytes[index] = value;
            let wrong = DateTime(bytes);
            assert_eq!(wrong.to_utc(CENTRAL_EUROPE), Err(DateTimeError::Fields { date_time: wrong }));
        }
    }

    #[test]
    fn views_print_their_wildcards() {
        let begin = DateTime([0xff, 0xff, 0xfe, 0xfe, 0x07, 0x02, 0x00, 0x00, 0xff, 0x80, 0x00, 0xff]);
        assert_eq!(begin.to_string(), "*-dst-begin-last 02:00:00.* deviation * status ff");
        assert_eq!(DateTime::UNSPECIFIED.to_string(), "*-*-* *:*:*.* deviation * status ff");
        assert_eq!(DateTime::UNSPECIFIED.date().day_of_week(), None);
        assert_eq!(Date::from_day(Day::from_civil(2026, 11, 23)).day_of_week(), Some(1));
    }

    proptest! {
        #[test]
        fn instants_round_trip(
            hundredths in UtcMillis::MIN.0 / 10 + 8_640_000..UtcMillis::MAX.0 / 10 - 8_640_000,
            offset in -720..=840i16,
        ) {
            let utc = UtcMillis(hundredths * 10);
            let date_time = DateTime::from_utc(utc, offset, ClockStatus::GOOD);
            let reading = date_time.to_utc(CENTRAL_EUROPE);
            prop_assert_eq!(reading, Ok(ClockReading { utc, deviation: Deviation::Stated(-offset), status: ClockStatus::GOOD }));
        }

        #[test]
        fn parts_round_trip(bytes: [u8; 12]) {
            let whole = DateTime(bytes);
            prop_assert_eq!(DateTime::from_parts(whole.date(), whole.time(), whole.deviation_minutes(), whole.status()), whole);
        }

        #[test]
        fn no_octets_panic(bytes: [u8; 12], rules: (i16, i16)) {
            let rules = ClockRules { assume_offset_minutes: rules.0, assume_daylight_saving_minutes: rules.1 };
            prop_assert!(DateTime(bytes).to_utc(rules).map_or(true, |reading| reading.status == DateTime(bytes).status()));
            drop(DateTime(bytes).to_string());
        }
    }
}
