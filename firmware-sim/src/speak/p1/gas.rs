//! A gas meter behind a P1 meter: its register, once an hour.

use protocols::metering::{MeterId, Quantity, Unit, UtcMillis};

use crate::rng::mix_below;

const HOUR_MS: i64 = 3_600_000;
const HOURS_PER_DAY: i64 = 24;

/// The register as the P1 meter fetched it at the full hours, a function of seed and hour alone as long as the hours are
/// asked for in order.
#[derive(Debug, Clone)]
pub(super) struct GasRegister {
    seed: u64,
    hour: i64,
    litres: i64,
}

impl GasRegister {
    pub(super) fn new(seed: u64, installed_at: UtcMillis) -> Self {
        let litres = mix_below(seed, &[0x6a5], 5_000_000) as i64;
        Self { seed, hour: installed_at.0.div_euclid(HOUR_MS), litres }
    }

    /// The last full hour that the meter's clock has shown, and the register then. It never goes back.
    pub(super) fn at(&mut self, shown: UtcMillis) -> (UtcMillis, Quantity) {
        let until = shown.0.div_euclid(HOUR_MS);
        while self.hour < until {
            self.hour += 1;
            self.litres += self.used_in(self.hour);
        }
        (UtcMillis(self.hour * HOUR_MS), Quantity::new(self.litres, -3, Unit::CUBIC_METRE))
    }

    /// Litres of the hour that ends then: heating by day, little by night.
    fn used_in(&self, hour: i64) -> i64 {
        let most = if matches!(hour.rem_euclid(HOURS_PER_DAY), 6..22) { 600 } else { 60 };
        mix_below(self.seed, &[0x6a6, hour as u64], most) as i64
    }
}

/// The gas meter of an electricity meter.
pub fn gas_meter_id(meter: &MeterId) -> MeterId {
    let (manufacturer, number) = meter.as_str().split_once(':').unwrap_or(("", meter.as_str()));
    MeterId::new(&format!("{manufacturer}-GAS:{number}")).expect("the ids of a fleet have a dozen characters")
}
