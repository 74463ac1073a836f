//! What a meter on M-Bus has: a register and some momentary values of its medium, and what the register showed at the ends of months.
//!
//! Electricity is that of the virtual meter. The others count by the hour, a function of seed and hour alone as long as the hours are
//! asked for in order: little at night, heat and gas by the season. What was told belongs to the truth, a frozen value once; a reader
//! finds it for a year, and stamps present values himself.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::Arc;

use protocols::mbus::{Builder, Civil, Key, SecondaryAddress, SlaveData, maker_code, medium};
use protocols::metering::{
    Code, Kind, MeterId, ObisCode, Quality, Quantity, StampedBy, TelegramReading, Unit, UtcMillis,
};

use crate::clock::Zone;
use crate::meter::VirtualMeter;
use crate::nearest::{UnknownName, unknown};
use crate::profile::{CapturePeriod, Column, ProfileSpec};
use crate::registers::Measurand;
use crate::rng::mix_below;
use crate::speak::Protocol;
use crate::speak::readout::maker_and_number;
use crate::station::Station;
use crate::truth::{Truth, TruthLine};

/// Months that are remembered.
pub const FROZEN_MAX: usize = 12;
const HOUR_MS: i64 = 3_600_000;
const VERSION: u8 = 1;
/// Of the device types of EN 13757-3.
const GAS: u8 = 0x03;
/// Mean Wh of heat in an hour of each month, for a small house.
const HEAT_WH: [u64; 12] = [3_000, 2_700, 2_200, 1_400, 600, 250, 200, 200, 450, 1_200, 2_100, 2_800];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Water,
    WarmWater,
    Heat,
    Gas,
    Electricity,
}

impl Medium {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Water, "water"),
        (Self::WarmWater, "warm-water"),
        (Self::Heat, "heat"),
        (Self::Gas, "gas"),
        (Self::Electricity, "electricity"),
    ];

    const fn number(self) -> u8 {
        match self {
            Self::Water => medium::WATER,
            Self::WarmWater => medium::WARM_WATER,
            Self::Heat => medium::HEAT_RETURN,
            Self::Gas => GAS,
            Self::Electricity => medium::ELECTRICITY,
        }
    }

    /// Code, unit and power of ten of its register.
    fn register(self) -> (Code, i8, Unit) {
        let obis = |a, c| Code::obis(ObisCode::new(a, 0, c, 0, 0, 255));
        match self {
            Self::Water => (obis(8, 1), -3, Unit::CUBIC_METRE),
            Self::WarmWater => (obis(9, 1), -3, Unit::CUBIC_METRE),
            Self::Heat => (obis(6, 1), 0, Unit::WATT_HOUR),
            // Whether its volume is converted, M-Bus does not say.
            Self::Gas => ("mbus:13".parse().expect("a code"), -3, Unit::CUBIC_METRE),
            Self::Electricity => (Code::obis(Measurand::ImportEnergy.obis()), 0, Unit::WATT_HOUR),
        }
    }

    /// Litres, or watt-hours, of the hour of the day and the month.
    fn used_in(self, seed: u64, hour: i64, hour_of_day: i64, month: u8) -> i64 {
        let heat = HEAT_WH[usize::from(month - 1) % HEAT_WH.len()];
        let most = match (self, hour_of_day) {
            (Self::Water, 6..=8 | 17..=22) => 60,
            (Self::Water, 9..=16) => 20,
            (Self::WarmWater, 6..=8 | 17..=22) => 25,
            (Self::WarmWater, 9..=16) => 8,
            (Self::Water | Self::WarmWater, _) => 2,
            (Self::Heat, 6..=22) => 2 * heat,
            (Self::Heat, _) => heat,
            // A cubic metre has some ten kilowatt-hours.
            (Self::Gas, 6..=22) => heat / 5,
            (Self::Gas, _) => heat / 10,
            (Self::Electricity, _) => 0,
        };
        mix_below(seed, &[0x3b6, hour as u64], most + 1) as i64
    }
}

impl FromStr for Medium {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(medium, _)| medium).ok_or_else(|| unknown("medium", text, Self::ALL.map(|(_, name)| name)))
    }
}

/// A register that is not that of the virtual meter. It never goes back.
#[derive(Debug, Clone)]
struct Counter {
    medium: Medium,
    seed: u64,
    /// The last full hour that was counted.
    hour: i64,
    value: i64,
    in_last_hour: i64,
    frozen: VecDeque<(UtcMillis, i64)>,
}

impl Counter {
    fn new(medium: Medium, seed: u64, installed_at: UtcMillis) -> Self {
        let value = mix_below(seed, &[0x3b5], 900_000) as i64;
        let hour = installed_at.0.div_euclid(HOUR_MS);
        Self { medium, seed, hour, value, in_last_hour: 0, frozen: VecDeque::new() }
    }

    /// Counts up to the last full hour that the clock has shown.
    fn count_to(&mut self, shown: UtcMillis, zone: Zone) {
        let until = shown.0.div_euclid(HOUR_MS);
        while self.hour < until {
            let local = zone.local(UtcMillis(self.hour * HOUR_MS));
            let (_, month, _) = local.day().civil();
            let hour_of_day = local.0.div_euclid(HOUR_MS).rem_euclid(24);
            self.in_last_hour = self.medium.used_in(self.seed, self.hour, hour_of_day, month);
            self.value += self.in_last_hour;
            self.hour += 1;
            let now = UtcMillis(self.hour * HOUR_MS);
            if CapturePeriod::Month.last_until(now, zone) == now {
                self.frozen.push_front((now, self.value));
                self.frozen.truncate(FROZEN_MAX);
            }
        }
    }
}

/// One meter as its readers see it.
pub struct Model {
    station: Arc<Station>,
    truth: Arc<Truth>,
    address: SecondaryAddress,
    medium: Medium,
    key: Option<Key>,
    counter: Counter,
    access: u8,
    /// The newest frozen value that is in the truth.
    told: UtcMillis,
}

impl Model {
    pub fn new(station: Arc<Station>, truth: Arc<Truth>, seed: u64, medium: Medium, key: Option<Key>) -> Self {
        let (maker, number) = maker_and_number(station.id());
        let maker = maker_code(maker).expect("the makers of a fleet are three capital letters");
        let number = number.parse().unwrap_or_default();
        let address = SecondaryAddress::of_number(number, maker, VERSION, medium.number());
        let installed_at = station.now(|meter| meter.installed_at());
        let counter = Counter::new(medium, seed, installed_at);
        Self { station, truth, address, medium, key, counter, access: 0, told: UtcMillis::MIN }
    }

    pub const fn address(&self) -> SecondaryAddress {
        self.address
    }

    /// As whom readers find it.
    pub fn meter_id(&self) -> MeterId {
        self.address.meter_id().expect("letters and digits")
    }

    /// Present values, and the register at the ends of months, the newest first.
    fn values(&mut self, meter: &VirtualMeter) -> (Vec<TelegramReading>, Vec<TelegramReading>) {
        let (shown, zone, medium) = (meter.shown(), meter.clock().zone(), self.medium);
        let (code, scaler, unit) = medium.register();
        let register =
            |at, kind, value| TelegramReading::new(code.clone(), kind, at, Quantity::new(value, scaler, unit));
        let momentary = |code: &str, value: i64, scaler, unit| {
            let quantity = Quantity::new(value, scaler, unit);
            TelegramReading::new(code.parse::<Code>().expect("a code"), Kind::Instant, shown, quantity)
        };
        if medium == Medium::Electricity {
            let value = |measurand: Measurand, kind| {
                TelegramReading::new(measurand.obis(), kind, shown, meter.value(measurand))
            };
            let now = vec![
                value(Measurand::ImportEnergy, Kind::Register),
                value(Measurand::ExportEnergy, Kind::Register),
                momentary("mbus:2B", meter.value(Measurand::ImportPower).mantissa, 0, Unit::WATT),
            ];
            let billing = meter.profiles().find(|(spec, _)| spec.obis == ProfileSpec::BILLING_1);
            let frozen = billing.map(|(spec, ring)| {
                let place = spec.columns.iter().position(|column| *column == Column::ImportRegister);
                let entries = ring.between(UtcMillis::MIN, UtcMillis::MAX);
                let mut frozen: Vec<_> = entries
                    .filter_map(|entry| Some(register(entry.label, Kind::Billing, *entry.values.get(place?)?)))
                    .collect();
                frozen.reverse();
                frozen.truncate(FROZEN_MAX);
                frozen
            });
            return (now, frozen.unwrap_or_default());
        }
        self.counter.count_to(shown, zone);
        let Counter { value, in_last_hour, hour, seed, .. } = self.counter;
        let mut now = vec![register(shown, Kind::Register, value)];
        match medium {
            Medium::Heat => {
                let flow = 550 + mix_below(seed, &[0x3b7, hour as u64], 150) as i64;
                now.push(momentary("mbus:2B", in_last_hour, 0, Unit::WATT));
                now.push(momentary("mbus:5A", flow, -1, Unit::DEGREE_CELSIUS));
                now.push(momentary("mbus:5E", flow - 150, -1, Unit::DEGREE_CELSIUS));
            }
            _ => now.push(momentary("mbus:3B", in_last_hour, -3, Unit::CUBIC_METRE_PER_HOUR)),
        }
        let frozen = self.counter.frozen.iter().map(|(at, value)| register(*at, Kind::Billing, *value)).collect();
        (now, frozen)
    }

    /// A telegram of this moment, with the newest value of the past, as one of the radio has room for no more, and what a reader finds
    /// in it.
    pub(super) fn sent_by_radio(&mut self, meter: &VirtualMeter) -> (Vec<u8>, Vec<TruthLine>) {
        let (now, frozen) = self.values(meter);
        let newest = frozen.into_iter().next();
        let (shown, zone) = (meter.shown(), meter.clock().zone());
        self.access = self.access.wrapping_add(1);
        let mut builder = Builder::new(self.address).access(self.access);
        builder = builder.clock(civil(shown, zone)).expect("four octets");
        for reading in &now {
            builder = builder.reading(reading, 0).expect("a value that this medium has");
        }
        if let Some(reading) = &newest {
            builder = builder.storage_date(1, civil(reading.captured_at.plus_ms(-1), zone)).expect("two octets");
            builder = builder.reading(reading, 1).expect("a value that this medium has");
        }
        let news = newest.filter(|reading| reading.captured_at > self.told);
        let news = news.map(|reading| TelegramReading { quality: Quality::LABEL_DERIVED, ..reading });
        let now = now.into_iter().map(|reading| TelegramReading { stamped_by: StampedBy::Gateway, ..reading });
        let id = self.meter_id();
        let truth = now.chain(news).map(|reading| TruthLine::pushed(&id, Protocol::Wmbus.name(), &reading)).collect();
        let telegrams = match &self.key {
            Some(key) => builder.finish_enciphered(key),
            None => builder.finish(),
        };
        (telegrams.into_iter().next().expect("a builder makes one telegram at least"), truth)
    }

    /// That a reader has found these values of the past.
    pub(super) fn is_told(&mut self, truth: &[TruthLine]) {
        let labels = truth.iter().filter(|line| line.stamped_by.is_none());
        let newest = labels.filter_map(|line| line.captured_at.parse::<UtcMillis>().ok()).max();
        self.told = self.told.max(newest.unwrap_or(self.told));
    }

    fn write_truth(&mut self, now: Vec<TelegramReading>, frozen: Vec<TelegramReading>) {
        let id = self.meter_id();
        let newest = frozen.iter().map(|reading| reading.captured_at).fold(self.told, UtcMillis::max);
        let news = frozen.into_iter().filter(|reading| reading.captured_at > self.told);
        // A reader makes the instant of a date.
        let news = news.map(|reading| TelegramReading { quality: Quality::LABEL_DERIVED, ..reading });
        let now = now.into_iter().map(|reading| TelegramReading { stamped_by: StampedBy::Gateway, ..reading });
        let told = now.chain(news).map(|reading| TruthLine::pushed(&id, Protocol::Mbus.name(), &reading));
        self.truth.write(&told.collect::<Vec<_>>());
        self.told = newest;
    }
}

impl SlaveData for Model {
    fn telegrams(&mut self) -> Vec<Vec<u8>> {
        let station = self.station.clone();
        let (now, frozen, clock) = station.now(|meter| {
            let (now, frozen) = self.values(meter);
            let (shown, zone) = (meter.shown(), meter.clock().zone());
            // Labels of frozen values are the last day of their month.
            let dates: Vec<Civil> = frozen.iter().map(|one| civil(one.captured_at.plus_ms(-1), zone)).collect();
            (now, frozen.into_iter().zip(dates).collect::<Vec<_>>(), civil(shown, zone))
        });
        self.access = self.access.wrapping_add(1);
        let mut builder = Builder::new(self.address).access(self.access).clock(clock).expect("four octets");
        for reading in &now {
            builder = builder.reading(reading, 0).expect("a value that this medium has");
        }
        for (storage, (reading, date)) in (1..).zip(&frozen) {
            builder = builder.storage_date(storage, *date).expect("two octets");
            builder = builder.reading(reading, storage).expect("a value that this medium has");
        }
        self.write_truth(now, frozen.into_iter().map(|(reading, _)| reading).collect());
        match &self.key {
            Some(key) => builder.finish_enciphered(key),
            None => builder.finish(),
        }
    }
}

/// What a meter's clock shows, in its zone.
fn civil(at: UtcMillis, zone: Zone) -> Civil {
    let local = zone.local(at);
    let (year, month, day) = local.day().civil();
    let minutes = local.0.div_euclid(60_000).rem_euclid(24 * 60);
    Civil {
        year: u16::try_from(year).ok(),
        month: Some(month),
        day: Some(day),
        hour: Some((minutes / 60) as u8),
        minute: Some((minutes % 60) as u8),
        is_summer: zone.is_summer(at),
        ..Civil::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Negative control: count the hours of the day in UTC.
    #[test]
    fn a_year_is_plausible_and_freezes_the_ends_of_local_months() {
        let from: UtcMillis = "2025-12-31T23:00:00Z".parse().unwrap();
        let to: UtcMillis = "2026-12-31T23:00:00Z".parse().unwrap();
        for (medium, range) in [
            (Medium::Water, 60_000..200_000),
            (Medium::WarmWater, 20_000..90_000),
            (Medium::Heat, 8_000_000..16_000_000),
            (Medium::Gas, 700_000..2_000_000),
        ] {
            let mut counter = Counter::new(medium, 7, from);
            let start = counter.value;
            counter.count_to(to, Zone::CENTRAL_EUROPE);
            assert!(range.contains(&(counter.value - start)), "{medium:?}: {}", counter.value - start);
            let labels: Vec<_> = counter.frozen.iter().map(|(at, _)| at.to_string()).collect();
            assert_eq!((labels.len(), &*labels[0], &*labels[2]), (12, "2026-12-31T23:00:00Z", "2026-10-31T23:00:00Z"));
            assert_eq!(labels[4], "2026-08-31T22:00:00Z", "summer");
            assert!(counter.frozen.iter().zip(counter.frozen.iter().skip(1)).all(|(newer, older)| newer.1 >= older.1));
            let mut in_steps = Counter::new(medium, 7, from);
            (0..365).for_each(|day| in_steps.count_to(from.plus_ms(day * 86_400_000), Zone::CENTRAL_EUROPE));
            in_steps.count_to(to, Zone::CENTRAL_EUROPE);
            assert_eq!((in_steps.value, in_steps.frozen), (counter.value, counter.frozen), "however often it is asked");
        }
    }
}
