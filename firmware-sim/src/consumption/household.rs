//! A seeded household: base load, a refrigerator, light, appliances with a daily habit, sometimes a car, perhaps panels.

use protocols::metering::{Day, UtcMillis};

use super::{MINUTE_MS, Slot, modelled_voltage_mv};
use crate::clock::{DAY_MS, Zone, days_since_sunday};
use crate::registers::Flow;
use crate::rng::{Rate, Rng, mix, mix_below};

const DAY_MIN: u32 = 1440;

/// An appliance that runs in a day's plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    from_min: u32,
    to_min: u32,
    power_w: u32,
}

#[derive(Debug, Clone)]
pub struct Household {
    seed: u64,
    offset_ms: i64,
    base_w: u32,
    fridge_w: u32,
    fridge_cycle_min: u32,
    fridge_on_min: u32,
    light_w: u32,
    wakes_min: u32,
    sleeps_min: u32,
    people: u32,
    has_car: bool,
    solar_peak_w: u32,
    /// The plan of one day at a time: a function of seed and day, kept because neighbouring minutes share it.
    plan: Option<(Day, Vec<Run>)>,
}

impl Household {
    /// `solar_peak_w` is the power of panels on the roof, 0 for none.
    pub fn seeded(seed: u64, zone: Zone, solar_peak_w: u32) -> Self {
        let mut rng = Rng::seeded(mix(seed, &[0x4005]));
        Self {
            seed,
            offset_ms: i64::from(zone.standard_offset_min) * MINUTE_MS,
            base_w: rng.between(40, 180),
            fridge_w: rng.between(60, 130),
            fridge_cycle_min: rng.between(40, 70),
            fridge_on_min: rng.between(14, 24),
            light_w: rng.between(60, 260),
            wakes_min: rng.between(330, 480),
            sleeps_min: rng.between(1290, 1425),
            people: rng.between(1, 5),
            has_car: rng.below(10) == 0,
            solar_peak_w,
            plan: None,
        }
    }

    pub(super) fn slot(&mut self, at: UtcMillis) -> Slot {
        let local = at.plus_ms(self.offset_ms);
        let (day, minute) = (local.day(), (local.0.rem_euclid(DAY_MS) / MINUTE_MS) as u32);
        let load_uw = u64::from(self.load_w(day, minute)) * 1_000_000 + self.noise_uw(day, minute);
        let solar_uw = u64::from(self.solar_w(day, minute)) * 1_000_000;
        let import_uw = load_uw.saturating_sub(solar_uw);
        let export_uw = solar_uw.saturating_sub(load_uw);
        let ends_at = UtcMillis((at.0.div_euclid(MINUTE_MS) + 1) * MINUTE_MS);
        let voltage_mv = modelled_voltage_mv(self.seed, at, import_uw);
        Slot { ends_at, flow: Flow { import_uw, export_uw, reactive_uvar: load_uw / 7, voltage_mv } }
    }

    fn load_w(&mut self, day: Day, minute: u32) -> u32 {
        let mut power_w = self.base_w;
        let fridge_clock = (i64::from(day.0) * i64::from(DAY_MIN) + i64::from(minute)) as u64 + self.seed % 1000;
        if fridge_clock % u64::from(self.fridge_cycle_min) < u64::from(self.fridge_on_min) {
            power_w += self.fridge_w;
        }
        power_w += self.light_w * self.darkness_permille(day, minute) / 1000;
        if self.plan.as_ref().is_none_or(|(planned, _)| *planned != day) {
            self.plan = Some((day, self.plan_of(day)));
        }
        let runs = self.plan.iter().flat_map(|(_, runs)| runs);
        power_w + runs.filter(|run| (run.from_min..run.to_min).contains(&minute)).map(|run| run.power_w).sum::<u32>()
    }

    /// Light is on when people are awake and the sun is low.
    fn darkness_permille(&self, day: Day, minute: u32) -> u32 {
        if !(self.wakes_min..self.sleeps_min).contains(&minute) {
            return 0;
        }
        let (sunrise, sunset) = daylight(day);
        if (sunrise..sunset).contains(&minute) { 80 } else { 1000 }
    }

    fn noise_uw(&self, day: Day, minute: u32) -> u64 {
        mix_below(self.seed, &[5, day.0 as u64, u64::from(minute)], 15_000_000)
    }

    fn plan_of(&self, day: Day) -> Vec<Run> {
        let mut rng = Rng::seeded(mix(self.seed, &[6, day.0 as u64]));
        let is_weekend = matches!(days_since_sunday(day), 0 | 6);
        let mut runs = Vec::new();
        let mut run = |from_min: u32, minutes: u32, power_w: u32| {
            runs.push(Run { from_min, to_min: (from_min + minutes).min(DAY_MIN), power_w });
        };
        for _ in 0..rng.between(1, 2 * self.people) {
            run(rng.between(self.wakes_min, self.sleeps_min), rng.between(2, 4), rng.between(1_800, 2_200));
        }
        run(self.wakes_min + rng.between(5, 40), rng.between(3, 10), rng.between(900, 1_600));
        if is_weekend && rng.below(3) > 0 {
            run(rng.between(690, 780), rng.between(20, 50), rng.between(1_200, 2_400));
        }
        run(rng.between(1_050, 1_170), rng.between(20, 60), rng.between(1_200, 2_800));
        run(rng.between(1_110, 1_200), rng.between(60, 180), rng.between(80, 260));
        let washes = Rate::from_f64(0.12 * f64::from(self.people), 1.0).unwrap_or_default();
        if rng.chance(washes) {
            let from_min = rng.between(480, 1_140);
            run(from_min, 20, 2_000);
            run(from_min + 20, 70, 250);
        }
        if rng.below(5) < 2 {
            let from_min = rng.between(1_140, 1_260);
            run(from_min, 25, 1_900);
            run(from_min + 55, 15, 1_900);
        }
        if self.has_car && rng.below(5) < 3 {
            run(rng.between(1_020, 1_260), rng.between(40, 240), 7_200);
        }
        runs
    }

    /// A parabola over the day, lower in winter, with clouds that change every ten minutes.
    fn solar_w(&self, day: Day, minute: u32) -> u32 {
        let (sunrise, sunset) = daylight(day);
        if self.solar_peak_w == 0 || !(sunrise..sunset).contains(&minute) {
            return 0;
        }
        let (into, length) = (u64::from(minute - sunrise), u64::from(sunset - sunrise));
        let height_permille = 4_000 * into * (length - into) / (length * length);
        let season_permille = 1000 - u64::from(winter_permille(day)) / 2;
        let clearest = 300 + mix_below(self.seed, &[7, day.0 as u64], 701);
        let cloud = mix_below(self.seed, &[8, day.0 as u64, u64::from(minute / 10)], 300);
        let clear_permille = clearest.saturating_sub(cloud);
        let power = u64::from(self.solar_peak_w) * height_permille * season_permille * clear_permille;
        (power / 1_000_000_000) as u32
    }
}

/// 0 at midsummer, 1000 at midwinter, straight between.
fn winter_permille(day: Day) -> u32 {
    let (year, _, _) = day.civil();
    let from_midsummer = (day.0 - Day::from_civil(year, 6, 21).0).unsigned_abs();
    (from_midsummer.min(365 - from_midsummer.min(365)) * 1000 / 183).min(1000)
}

/// Sunrise and sunset in local minutes: 16 h of daylight at midsummer, 8 h at midwinter, noon at 12:30.
fn daylight(day: Day) -> (u32, u32) {
    let half = (960 - 480 * winter_permille(day) / 1000) / 2;
    (750 - half, 750 + half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day_kwh(household: &mut Household, day: &str) -> (u64, u64) {
        let start = day.parse::<Day>().unwrap().start();
        let minutes = (0..1440).map(|minute| household.slot(start.plus_ms(minute * MINUTE_MS)).flow);
        let sums = minutes.fold((0, 0), |(import, export), flow| (import + flow.import_uw, export + flow.export_uw));
        (sums.0 / 60_000_000_000, sums.1 / 60_000_000_000)
    }

    #[test]
    fn a_household_uses_a_plausible_amount_a_day() {
        let days: Vec<u64> = (0..100)
            .map(|seed| day_kwh(&mut Household::seeded(seed, Zone::CENTRAL_EUROPE, 0), "2026-11-23").0)
            .collect();
        let mean = days.iter().sum::<u64>() / 100;
        assert!((5..15).contains(&mean), "mean of {mean} kWh");
        assert!(days.iter().all(|kwh| (1..60).contains(kwh)), "{days:?}");
    }

    #[test]
    fn panels_export_in_summer_and_nothing_at_night() {
        let mut household = Household::seeded(3, Zone::UTC, 5_000);
        let (_, export) = day_kwh(&mut household, "2026-06-21");
        assert!((3..45).contains(&export), "{export} kWh");
        let midnight = "2026-06-21T00:00:00Z".parse().unwrap();
        assert_eq!(household.slot(midnight).flow.export_uw, 0);
    }

    #[test]
    fn the_order_of_asking_does_not_matter() {
        let (mut forwards, mut backwards) = (Household::seeded(9, Zone::UTC, 0), Household::seeded(9, Zone::UTC, 0));
        let at = |n: i64| UtcMillis(1_790_000_000_000 + n * 3_600_000);
        let first: Vec<Slot> = (0..100).map(|n| forwards.slot(at(n))).collect();
        let mut second: Vec<Slot> = (0..100).rev().map(|n| backwards.slot(at(n))).collect();
        second.reverse();
        assert_eq!(first, second);
    }
}
