//! Energy registers and momentary values. What is less than a watt-hour is carried, so that sums are exact.

use protocols::metering::{ObisCode, Quantity, Unit};

/// Energy below one register digit is kept in nanojoules: one microwatt for one millisecond is one nanojoule.
pub const NJ_PER_WH: u64 = 3_600_000_000_000;

/// Energy counted in whole watt-hours (or var-hours).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnergyCounter {
    wh: u64,
    rest_nj: u64,
}

impl EnergyCounter {
    /// Adds energy and says how many whole watt-hours that completed.
    pub fn add(&mut self, energy_nj: u64) -> u64 {
        let sum = u128::from(self.rest_nj) + u128::from(energy_nj);
        let whole = (sum / u128::from(NJ_PER_WH)) as u64;
        self.rest_nj = (sum % u128::from(NJ_PER_WH)) as u64;
        self.wh += whole;
        whole
    }

    pub const fn wh(&self) -> u64 {
        self.wh
    }
}

/// Number of tariff rates that a meter tells apart.
pub const RATES: usize = 2;

/// An energy register with its tariff rates, as the meter displays it.
///
/// `measured` never resets or rolls over: intervals are differences of it. The displayed figures do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnergyRegister {
    measured: EnergyCounter,
    total_wh: u64,
    rates_wh: [u64; RATES],
    /// The display goes from this minus one to 0.
    modulus_wh: u64,
}

impl EnergyRegister {
    /// Starts with `total_wh` on the display, booked half to each rate.
    pub fn starting_at(total_wh: u64, modulus_wh: u64) -> Self {
        let total_wh = total_wh % modulus_wh;
        let second = total_wh / 2;
        Self { measured: EnergyCounter::default(), total_wh, rates_wh: [total_wh - second, second], modulus_wh }
    }

    /// Whole watt-hours are booked on the rate that is active when they complete: the rates always add up to the total.
    pub fn add(&mut self, energy_nj: u64, rate: usize) {
        let whole = self.measured.add(energy_nj);
        self.total_wh = (self.total_wh + whole) % self.modulus_wh;
        if let Some(rate_wh) = self.rates_wh.get_mut(rate) {
            *rate_wh = (*rate_wh + whole) % self.modulus_wh;
        }
    }

    /// A firmware fault: the display starts again at 0.
    pub fn reset(&mut self) {
        self.total_wh = 0;
        self.rates_wh = [0; RATES];
    }

    pub const fn measured_wh(&self) -> u64 {
        self.measured.wh()
    }

    pub const fn total_wh(&self) -> u64 {
        self.total_wh
    }

    pub fn rate_wh(&self, rate: usize) -> u64 {
        self.rates_wh.get(rate).copied().unwrap_or(0)
    }
}

/// What flows at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    pub import_uw: u64,
    pub export_uw: u64,
    pub reactive_uvar: u64,
    pub voltage_mv: u32,
}

#[derive(Debug, Clone)]
pub struct Registers {
    pub import: EnergyRegister,
    pub export: EnergyRegister,
    /// Import of reactive energy, in var-hours.
    pub reactive: EnergyRegister,
    pub flow: Flow,
}

/// Everything that can be asked of a meter by OBIS code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measurand {
    ImportEnergy,
    ImportEnergyRate1,
    ImportEnergyRate2,
    ExportEnergy,
    ExportEnergyRate1,
    ExportEnergyRate2,
    ReactiveEnergy,
    ImportPower,
    ExportPower,
    Voltage,
    Current,
}

impl Measurand {
    pub const ALL: [Self; 11] = [
        Self::ImportEnergy,
        Self::ImportEnergyRate1,
        Self::ImportEnergyRate2,
        Self::ExportEnergy,
        Self::ExportEnergyRate1,
        Self::ExportEnergyRate2,
        Self::ReactiveEnergy,
        Self::ImportPower,
        Self::ExportPower,
        Self::Voltage,
        Self::Current,
    ];

    pub const fn obis(self) -> ObisCode {
        let (c, d, e) = match self {
            Self::ImportEnergy => (1, 8, 0),
            Self::ImportEnergyRate1 => (1, 8, 1),
            Self::ImportEnergyRate2 => (1, 8, 2),
            Self::ExportEnergy => (2, 8, 0),
            Self::ExportEnergyRate1 => (2, 8, 1),
            Self::ExportEnergyRate2 => (2, 8, 2),
            Self::ReactiveEnergy => (3, 8, 0),
            Self::ImportPower => (1, 7, 0),
            Self::ExportPower => (2, 7, 0),
            Self::Voltage => (32, 7, 0),
            Self::Current => (31, 7, 0),
        };
        ObisCode::new(1, 0, c, d, e, 255)
    }

    /// Whether the value accumulates (a register) or is of the moment.
    pub const fn is_momentary(self) -> bool {
        matches!(self, Self::ImportPower | Self::ExportPower | Self::Voltage | Self::Current)
    }

    pub fn from_obis(obis: ObisCode) -> Option<Self> {
        Self::ALL.into_iter().find(|measurand| measurand.obis() == obis)
    }
}

impl Registers {
    /// Takes in `ms` milliseconds of the present flow.
    pub fn flow_for(&mut self, ms: u64, rate: usize) {
        self.import.add(self.flow.import_uw * ms, rate);
        self.export.add(self.flow.export_uw * ms, rate);
        self.reactive.add(self.flow.reactive_uvar * ms, rate);
    }

    /// The value as the meter delivers it: energy in Wh, power in W, voltage in 0.1 V, current in 0.01 A.
    pub fn value(&self, measurand: Measurand) -> Quantity {
        let energy = |wh: u64, unit| Quantity::new(wh as i64, 0, unit);
        let power = |uw: u64| Quantity::new(watts(uw), 0, Unit::WATT);
        match measurand {
            Measurand::ImportEnergy => energy(self.import.total_wh(), Unit::WATT_HOUR),
            Measurand::ImportEnergyRate1 => energy(self.import.rate_wh(0), Unit::WATT_HOUR),
            Measurand::ImportEnergyRate2 => energy(self.import.rate_wh(1), Unit::WATT_HOUR),
            Measurand::ExportEnergy => energy(self.export.total_wh(), Unit::WATT_HOUR),
            Measurand::ExportEnergyRate1 => energy(self.export.rate_wh(0), Unit::WATT_HOUR),
            Measurand::ExportEnergyRate2 => energy(self.export.rate_wh(1), Unit::WATT_HOUR),
            Measurand::ReactiveEnergy => energy(self.reactive.total_wh(), Unit::VAR_HOUR),
            Measurand::ImportPower => power(self.flow.import_uw),
            Measurand::ExportPower => power(self.flow.export_uw),
            Measurand::Voltage => Quantity::new(i64::from((self.flow.voltage_mv + 50) / 100), -1, Unit::VOLT),
            Measurand::Current => Quantity::new(self.current_ca(), -2, Unit::AMPERE),
        }
    }

    /// Apparent current is taken as active power over voltage; in hundredths of an ampere.
    fn current_ca(&self) -> i64 {
        let through_uw = u128::from(self.flow.import_uw.max(self.flow.export_uw));
        let voltage_mv = u128::from(self.flow.voltage_mv.max(1));
        // uW / mV = mA; a tenth of that is hundredths of an ampere.
        ((through_uw / voltage_mv + 5) / 10) as i64
    }
}

/// Microwatts to whole watts, half up.
pub fn watts(uw: u64) -> i64 {
    ((uw + 500_000) / 1_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_kilowatt_for_an_hour_is_a_kilowatt_hour() {
        let mut counter = EnergyCounter::default();
        assert_eq!(counter.add(1_000_000_000 * 3_600_000), 1000);
        assert_eq!(counter, EnergyCounter { wh: 1000, rest_nj: 0 });
    }

    #[test]
    fn a_display_rolls_over_and_what_was_measured_does_not() {
        let mut register = EnergyRegister::starting_at(998, 1000);
        register.add(5 * NJ_PER_WH, 0);
        assert_eq!((register.total_wh(), register.measured_wh()), (3, 5));
        register.reset();
        assert_eq!((register.total_wh(), register.measured_wh()), (0, 5));
    }

    #[test]
    fn momentary_values_are_delivered_in_the_meters_digits() {
        let start = EnergyRegister::starting_at(0, u64::MAX);
        let flow = Flow { import_uw: 951_400_000, export_uw: 0, reactive_uvar: 0, voltage_mv: 230_149 };
        let registers = Registers { import: start.clone(), export: start.clone(), reactive: start, flow };
        assert_eq!(registers.value(Measurand::ImportPower).to_string(), "951 W");
        assert_eq!(registers.value(Measurand::Voltage).to_string(), "230.1 V");
        assert_eq!(registers.value(Measurand::Current).to_string(), "4.13 A");
    }

    #[test]
    fn every_measurand_is_found_by_its_code() {
        for measurand in Measurand::ALL {
            assert_eq!(Measurand::from_obis(measurand.obis()), Some(measurand));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_in_the_remainder(parts in prop::collection::vec(0u64..10 * NJ_PER_WH, 0..50)) {
            let mut counter = EnergyCounter::default();
            for part in &parts {
                counter.add(*part);
            }
            let total: u128 = parts.iter().map(|part| u128::from(*part)).sum();
            prop_assert_eq!(u128::from(counter.wh) * u128::from(NJ_PER_WH) + u128::from(counter.rest_nj), total);
        }

        #[test]
        fn the_rates_add_up_to_the_total(parts in prop::collection::vec((0u64..5 * NJ_PER_WH, 0usize..RATES), 0..50)) {
            let mut register = EnergyRegister::starting_at(12_345, u64::MAX);
            for (energy_nj, rate) in parts {
                register.add(energy_nj, rate);
                prop_assert_eq!(register.rate_wh(0) + register.rate_wh(1), register.total_wh());
            }
        }
    }
}
