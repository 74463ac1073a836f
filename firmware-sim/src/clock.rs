//! The meter's own clock: drift, jumps, local time zone, and what a label on a profile entry tells a reader.
//!
//! Two times are kept apart everywhere in this crate. *World time* is the true time of the simulation. *Shown time* is what
//! the meter believes it to be; both are [`UtcMillis`]. Labels are shown time.

use protocols::metering::{Day, UtcMillis};

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;
const MILLION: i128 = 1_000_000;

/// When local clocks go forward for the summer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SummerTime {
    #[default]
    Never,
    /// Directive 2000/84/EC: from the last Sunday of March to the last Sunday of October, both at 01:00 UTC.
    EuropeanUnion,
}

/// The local time of a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zone {
    pub standard_offset_min: i16,
    pub summer_time: SummerTime,
}

impl Zone {
    pub const UTC: Self = Self { standard_offset_min: 0, summer_time: SummerTime::Never };
    pub const CENTRAL_EUROPE: Self = Self { standard_offset_min: 60, summer_time: SummerTime::EuropeanUnion };

    pub fn is_summer(self, at: UtcMillis) -> bool {
        match self.summer_time {
            SummerTime::Never => false,
            SummerTime::EuropeanUnion => {
                let (year, _, _) = at.day().civil();
                let (from, to) = (last_sunday(year, 3), last_sunday(year, 10));
                (from.start().plus_ms(HOUR_MS)..to.start().plus_ms(HOUR_MS)).contains(&at)
            }
        }
    }

    /// Minutes that local time is ahead of UTC.
    pub fn offset_min(self, at: UtcMillis) -> i16 {
        self.standard_offset_min + if self.is_summer(at) { 60 } else { 0 }
    }

    /// The local wall clock as if it were UTC: its civil fields are the local ones.
    pub fn local(self, at: UtcMillis) -> UtcMillis {
        at.plus_ms(i64::from(self.offset_min(at)) * MINUTE_MS)
    }

    /// The instant at which local clocks show `local`: the first of two in the autumn hour.
    pub fn instant_of(self, local: UtcMillis) -> UtcMillis {
        let by_standard = local.plus_ms(-i64::from(self.standard_offset_min) * MINUTE_MS);
        let by_summer = by_standard.plus_ms(-HOUR_MS);
        if self.is_summer(by_summer) { by_summer } else { by_standard }
    }

    /// The instant at which `day` begins locally. European changes never fall on midnight, so that there is exactly one.
    pub fn start_of(self, day: Day) -> UtcMillis {
        self.instant_of(day.start())
    }
}

fn last_sunday(year: i32, month: u8) -> Day {
    // Both months have 31 days.
    let last = Day::from_civil(year, month, 31);
    Day(last.0 - i32::from(days_since_sunday(last)))
}

/// 0 for Sunday to 6 for Saturday; 1970-01-01 was a Thursday.
pub fn days_since_sunday(day: Day) -> u8 {
    (day.0 + 4).rem_euclid(7) as u8
}

/// What the clock puts on an entry, as a reader gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Local civil time, its fields as if it were UTC.
    pub local: UtcMillis,
    /// Minutes ahead of UTC; `None` when the meter does not say (deviation "not specified").
    pub offset_min: Option<i16>,
    /// Told in the clock status: with it a label denotes one instant only, whether or not the offset is told.
    pub is_summer: bool,
}

#[derive(Debug, Clone)]
pub struct MeterClock {
    zone: Zone,
    tells_offset: bool,
    drift_ppm: i32,
    /// The last setting: shown time `set_to` at world time `set_at`; drift accumulates from there.
    set_at: UtcMillis,
    set_to: UtcMillis,
}

impl MeterClock {
    /// Faster or slower than this is no clock any more; the bound keeps [`Self::world_when`] exact.
    pub const DRIFT_PPM_MAX: i32 = 50_000;

    /// Right at `world`, gaining `drift_ppm` microseconds a second from then on.
    pub fn new(world: UtcMillis, zone: Zone, drift_ppm: i32, tells_offset: bool) -> Self {
        let drift_ppm = drift_ppm.clamp(-Self::DRIFT_PPM_MAX, Self::DRIFT_PPM_MAX);
        Self { zone, tells_offset, drift_ppm, set_at: world, set_to: world }
    }

    pub const fn zone(&self) -> Zone {
        self.zone
    }

    /// Shown time at a world time.
    pub fn shown_at(&self, world: UtcMillis) -> UtcMillis {
        let passed = i128::from(world.since(self.set_at));
        let gained = (passed * i128::from(self.drift_ppm)).div_euclid(MILLION);
        self.set_to.plus_ms((passed + gained) as i64)
    }

    /// The first world time at which the clock shows `shown` or later.
    pub fn world_when(&self, shown: UtcMillis) -> UtcMillis {
        let wanted = i128::from(shown.since(self.set_to));
        let guess = (wanted * MILLION).div_euclid(MILLION + i128::from(self.drift_ppm));
        let mut world = self.set_at.plus_ms(guess as i64);
        while self.shown_at(world) >= shown {
            world = world.plus_ms(-1);
        }
        while self.shown_at(world) < shown {
            world = world.plus_ms(1);
        }
        world
    }

    /// Sets the clock, by a fault or by a reader.
    pub fn set(&mut self, world: UtcMillis, shown: UtcMillis) {
        (self.set_at, self.set_to) = (world, shown);
    }

    pub fn label(&self, shown: UtcMillis) -> Label {
        let offset_min = self.tells_offset.then(|| self.zone.offset_min(shown));
        Label { local: self.zone.local(shown), offset_min, is_summer: self.zone.is_summer(shown) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> UtcMillis {
        text.parse().unwrap()
    }

    #[test]
    fn european_summer_time_begins_and_ends_at_one_utc() {
        let zone = Zone::CENTRAL_EUROPE;
        for (instant, offset_min) in [
            ("2026-03-29T00:59:59.999Z", 60),
            ("2026-03-29T01:00:00Z", 120),
            ("2026-10-25T00:59:59.999Z", 120),
            ("2026-10-25T01:00:00Z", 60),
            ("2027-03-28T01:00:00Z", 120),
        ] {
            assert_eq!(zone.offset_min(at(instant)), offset_min, "{instant}");
        }
        assert_eq!(zone.start_of(at("2026-03-29T12:00:00Z").day()), at("2026-03-28T23:00:00Z"));
        assert_eq!(zone.start_of(at("2026-03-30T12:00:00Z").day()), at("2026-03-29T22:00:00Z"));
        assert_eq!(zone.start_of(at("2026-10-26T12:00:00Z").day()), at("2026-10-25T23:00:00Z"));
    }

    #[test]
    fn a_fast_clock_is_ahead_by_its_drift() {
        let start = at("2026-01-01T00:00:00Z");
        let clock = MeterClock::new(start, Zone::UTC, 20, true);
        assert_eq!(clock.shown_at(start.plus_ms(DAY_MS)).since(start), DAY_MS + 1728);
    }

    #[test]
    fn without_an_offset_the_two_passes_of_the_autumn_hour_differ_by_the_season_only() {
        let silent = MeterClock::new(at("2026-10-01T00:00:00Z"), Zone::CENTRAL_EUROPE, 0, false);
        let (first, second) = (silent.label(at("2026-10-25T00:15:00Z")), silent.label(at("2026-10-25T01:15:00Z")));
        assert_eq!((first.local, first.offset_min, first.is_summer), (second.local, None, true));
        assert!(!second.is_summer);
        let telling = MeterClock::new(at("2026-10-01T00:00:00Z"), Zone::CENTRAL_EUROPE, 0, true);
        assert_eq!(telling.label(at("2026-10-25T01:15:00Z")).offset_min, Some(60));
    }

    proptest! {
        #[test]
        fn the_inverse_finds_the_first_instant(drift in -50_000i32..=50_000, ahead in -10 * DAY_MS..400 * DAY_MS) {
            let start = UtcMillis(1_700_000_000_000);
            let clock = MeterClock::new(start, Zone::UTC, drift, true);
            let shown = start.plus_ms(ahead);
            let world = clock.world_when(shown);
            prop_assert!(clock.shown_at(world) >= shown);
            prop_assert!(clock.shown_at(world.plus_ms(-1)) < shown);
        }
    }
}
