//! Where a meter's consumption comes from: a household model, a replayed series, or a standard load profile.

mod household;

use std::sync::Arc;

use protocols::metering::UtcMillis;

pub use household::Household;

use crate::clock::{DAY_MS, Zone};
use crate::registers::Flow;
use crate::replay::LoadSeries;
use crate::replay::bdew::StandardLoadProfile;
use crate::rng::mix_below;

const MINUTE_MS: i64 = 60_000;

/// A stretch of world time with a constant flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub ends_at: UtcMillis,
    pub flow: Flow,
}

/// A pure function of world time: asking in another order or in other steps gives the same energy.
#[derive(Debug, Clone)]
pub enum Consumption {
    Household(Household),
    Replay(Replay),
    StandardProfile(StandardProfile),
}

impl Consumption {
    /// The slot in which `at` lies; it ends after `at`.
    pub fn slot(&mut self, at: UtcMillis) -> Slot {
        match self {
            Self::Household(household) => household.slot(at),
            Self::Replay(replay) => replay.slot(at),
            Self::StandardProfile(profile) => profile.slot(at),
        }
    }
}

/// One real series as the consumption of one of many virtual households.
#[derive(Debug, Clone)]
pub struct Replay {
    series: Arc<LoadSeries>,
    seed: u64,
    /// Days of the series that are repeated: whole weeks where it has two or more, so that weekdays stay together.
    cycle_days: i64,
    shift_days: i64,
    scale_permille: u64,
}

impl Replay {
    /// The series as it is.
    pub fn verbatim(series: Arc<LoadSeries>, seed: u64) -> Self {
        let days = series.days().max(1) as i64;
        let cycle_days = if days >= 14 { days - days % 7 } else { days };
        Self { series, seed, cycle_days, shift_days: 0, scale_permille: 1000 }
    }

    /// Shifted by whole days and scaled by up to 5 %, both drawn from the seed: alike, but never the same as its neighbour.
    pub fn fanned_out(series: Arc<LoadSeries>, seed: u64) -> Self {
        let verbatim = Self::verbatim(series, seed);
        let shift_days = mix_below(seed, &[1], verbatim.cycle_days as u64) as i64;
        let scale_permille = 950 + mix_below(seed, &[2], 101);
        Self { shift_days, scale_permille, ..verbatim }
    }

    fn slot(&self, at: UtcMillis) -> Slot {
        let step_ms = i64::from(self.series.step_ms);
        let day = i64::from(at.day().0) - i64::from(self.series.first.day().0) + self.shift_days;
        let in_day = at.0.rem_euclid(DAY_MS) / step_ms;
        let index = day.rem_euclid(self.cycle_days) as usize * self.series.steps_per_day() + in_day as usize;
        let ends_at = UtcMillis((at.0.div_euclid(step_ms) + 1) * step_ms);
        let scaled = |counts: &[u32]| {
            let count = counts.get(index).copied()?;
            Some(u64::from(count) * u64::from(self.series.count_uw) * self.scale_permille / 1000)
        };
        let import_uw = scaled(&self.series.power).unwrap_or(0);
        let reactive_uvar = scaled(&self.series.reactive).unwrap_or(import_uw / 8);
        let voltage_mv = self.series.voltage_mv.get(index).copied();
        let voltage_mv = voltage_mv.unwrap_or_else(|| modelled_voltage_mv(self.seed, at, import_uw));
        Slot { ends_at, flow: Flow { import_uw, export_uw: 0, reactive_uvar, voltage_mv } }
    }
}

/// A standard load profile scaled to a yearly consumption.
#[derive(Debug, Clone)]
pub struct StandardProfile {
    pub profile: Arc<StandardLoadProfile>,
    pub seed: u64,
    pub zone: Zone,
    pub annual_kwh: u32,
}

impl StandardProfile {
    fn slot(&self, at: UtcMillis) -> Slot {
        let power_mw = self.profile.power_mw(self.zone.local(at));
        // The table is for 1,000 kWh a year: mW times kWh is uW.
        let import_uw = power_mw * u64::from(self.annual_kwh);
        let ends_at = UtcMillis((at.0.div_euclid(15 * MINUTE_MS) + 1) * 15 * MINUTE_MS);
        let voltage_mv = modelled_voltage_mv(self.seed, at, import_uw);
        Slot { ends_at, flow: Flow { import_uw, export_uw: 0, reactive_uvar: import_uw / 8, voltage_mv } }
    }
}

/// 230 V, up to 2 V off by place and 1.5 V by minute, sinking by a volt for every 4 kW.
pub(crate) fn modelled_voltage_mv(seed: u64, at: UtcMillis, import_uw: u64) -> u32 {
    let place = mix_below(seed, &[3], 4_001) as u32;
    let minute = mix_below(seed, &[4, at.0.div_euclid(MINUTE_MS) as u64], 3_001) as u32;
    let load = (import_uw / 4_000_000).min(15_000) as u32;
    226_500 + place + minute - load
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::uci;

    fn embedded() -> Arc<LoadSeries> {
        Arc::new(uci::embedded().unwrap())
    }

    #[test]
    fn a_verbatim_replay_is_the_series() {
        let series = embedded();
        let mut replay = Consumption::Replay(Replay::verbatim(series.clone(), 1));
        for minute in [0, 1, 777, 8_639] {
            let at = series.first.plus_ms(minute * MINUTE_MS + 59_999);
            let slot = replay.slot(at);
            assert_eq!(slot.flow.import_uw, u64::from(series.power[minute as usize]) * 1_000_000);
            assert_eq!(slot.ends_at, at.plus_ms(1));
        }
        let again = series.first.plus_ms(6 * DAY_MS);
        assert_eq!(replay.slot(again).flow.import_uw, u64::from(series.power[0]) * 1_000_000);
    }

    #[test]
    fn fanned_out_households_differ_by_seed_alone() {
        let series = embedded();
        let at = series.first.plus_ms(12 * 3_600_000);
        let power = |seed| Consumption::Replay(Replay::fanned_out(series.clone(), seed)).slot(at).flow.import_uw;
        assert_eq!(power(5), power(5));
        let all: std::collections::BTreeSet<u64> = (0..50).map(power).collect();
        assert!(all.len() > 40, "{} of 50 differ", all.len());
    }
}
