//! SML: the list of present values, pushed every second as electricity meters in Germany do.

use protocols::metering::{Kind, MeterId, ObisCode, Quantity, StampedBy, TelegramReading, Unit, UtcMillis};
use protocols::sml::{Builder, Entry, Scan, SmlTime, StatusWord, Value, meter_id, scan};

use super::port::{CheckedDamage, Feed, Sending};
use crate::faults::{Fault, FaultRates, LineFaults};
use crate::meter::VirtualMeter;
use crate::registers::Measurand;
use crate::rng::{Rng, mix};
use crate::speak::Protocol;
use crate::truth::TruthLine;

/// What the meter says about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeForm {
    /// Its clock, in UTC.
    #[default]
    Timestamp,
    /// The seconds of its operation, as most meters do: a reader stamps by arrival, and the truth by the meter's clock.
    SecondsIndex,
}

const REGISTERS: [Measurand; 4] =
    [Measurand::ImportEnergy, Measurand::ImportEnergyRate1, Measurand::ImportEnergyRate2, Measurand::ExportEnergy];
const MOMENTARY: [Measurand; 2] = [Measurand::Voltage, Measurand::Current];
/// Active power, negative while energy is fed in.
const POWER: ObisCode = ObisCode::new(1, 0, 16, 7, 0, 255);
const MAKER: ObisCode = ObisCode::new(1, 0, 96, 50, 1, 1);
const SERVER_ID: ObisCode = ObisCode::new(1, 0, 96, 1, 0, 255);
/// A basic meter whose three voltages are there and that is above its starting current.
const STATUS: u64 = 0x001c_0104;
const STATUS_FEEDING_IN: u64 = 1 << 11;
/// Registers have tenths of watt-hours.
const REGISTER_SCALER: i8 = -1;
/// Start of a file: damage in front of it would be noise.
const START_LEN: usize = 8;
const NEXT_START: [u8; START_LEN] = [0x1b, 0x1b, 0x1b, 0x1b, 0x01, 0x01, 0x01, 0x01];

/// Makes the files of one meter, each with a later stamp than the one before.
#[derive(Debug, Clone)]
pub struct SmlFeed {
    /// As a reader finds it.
    meter: MeterId,
    maker: Vec<u8>,
    server_id: Vec<u8>,
    time: TimeForm,
    last_at: Option<UtcMillis>,
    transaction: u32,
    damage: CheckedDamage,
}

/// The server id of a fleet's meter, by DIN 43863-5.
fn server_id(meter: &MeterId) -> (Vec<u8>, Vec<u8>) {
    let (maker, number) = meter.as_str().split_once(':').unwrap_or(("", meter.as_str()));
    let number: u32 = number.parse().unwrap_or(0);
    (maker.into(), [&[0x0a, 0x01], maker.as_bytes(), &[0], &number.to_be_bytes()].concat())
}

/// Who a reader finds a fleet's meter to be: `SIM:000001` is `1SIM0000000001`.
pub fn sml_meter_id(meter: &MeterId) -> MeterId {
    let (maker, server_id) = server_id(meter);
    meter_id(&server_id, Some(&maker)).expect("a server id with letters is that of somebody")
}

impl SmlFeed {
    pub fn new(meter: &VirtualMeter, seed: u64, time: TimeForm, rates: FaultRates) -> Self {
        let (maker, server_id) = server_id(meter.id());
        let damage = CheckedDamage {
            faults: LineFaults::new(mix(seed, &[0x51]), rates),
            rng: Rng::seeded(mix(seed, &[0x51da])),
        };
        Self { meter: sml_meter_id(meter.id()), maker, server_id, time, last_at: None, transaction: 0, damage }
    }

    fn file(&mut self, meter: &VirtualMeter, stamp: UtcMillis) -> Sending {
        let power = meter.value(Measurand::ImportPower).mantissa - meter.value(Measurand::ExportPower).mantissa;
        let status = if power < 0 { STATUS | STATUS_FEEDING_IN } else { STATUS };
        let sensor_time = match self.time {
            TimeForm::Timestamp => SmlTime::Timestamp(stamp.seconds() as u32),
            TimeForm::SecondsIndex => SmlTime::SecIndex((stamp.since(meter.installed_at()) / 1000) as u32),
        };
        let builder = Builder::new(&self.server_id).transaction(self.transaction).sensor_time(sensor_time);
        self.transaction = self.transaction.wrapping_add(3);
        let mut draft = Draft {
            builder: builder.octets(MAKER, &self.maker).octets(SERVER_ID, &self.server_id),
            status: StatusWord(status),
            stamp,
            stamped_by: if self.time == TimeForm::Timestamp { StampedBy::Meter } else { StampedBy::Gateway },
            readings: Vec::new(),
        };
        for measurand in REGISTERS {
            draft.register(measurand.obis(), meter.value(measurand));
        }
        draft.momentary(POWER, Quantity::new(power, 0, Unit::WATT));
        for measurand in MOMENTARY {
            draft.momentary(measurand.obis(), meter.value(measurand));
        }
        let lines = draft.readings.iter().map(|reading| TruthLine::pushed(&self.meter, Protocol::Sml.name(), reading));
        Sending { delay_ms: 0, truth: lines.collect(), octets: draft.builder.finish() }
    }
}

impl Feed for SmlFeed {
    /// None without power, when silence strikes, and before the clock shows a new second.
    fn next(&mut self, meter: &VirtualMeter) -> Option<Sending> {
        let stamp = UtcMillis(meter.shown().seconds() * 1000);
        let is_new = self.last_at.is_none_or(|last_at| stamp > last_at);
        if !meter.is_powered() || !is_new || self.damage.faults.strikes(Fault::Silence) {
            return None;
        }
        self.last_at = Some(stamp);
        let mut sending = self.file(meter, stamp);
        sending.delay_ms = self.damage.faults.delay_ms();
        self.damage.befall(&mut sending, START_LEN, is_taken);
        Some(sending)
    }
}

/// Whether a reader takes a file from the start of these octets, whatever its quirks.
fn is_taken(octets: &[u8]) -> bool {
    let octets = [octets, &NEXT_START].concat();
    let mut rest = &octets[..];
    loop {
        match scan(rest) {
            Scan::NeedMore => return false,
            Scan::Garbage { skip, .. } => rest = &rest[skip..],
            Scan::File { file, used } => {
                if !matches!(file.crc(), protocols::sml::CrcVerdict::Invalid { .. }) {
                    return true;
                }
                rest = &rest[used..];
            }
        }
    }
}

/// A list and its readings while they are put together.
struct Draft {
    builder: Builder,
    status: StatusWord,
    stamp: UtcMillis,
    stamped_by: StampedBy,
    readings: Vec<TelegramReading>,
}

impl Draft {
    fn register(&mut self, obis: ObisCode, quantity: Quantity) {
        let quantity = quantity.at_scaler(REGISTER_SCALER).unwrap_or(quantity);
        let value = Value::Unsigned { value: quantity.mantissa.unsigned_abs(), width: 8 };
        self.entry(Entry { status: Some(self.status), ..Entry::new(obis, value) }, Kind::Register, quantity);
    }

    fn momentary(&mut self, obis: ObisCode, quantity: Quantity) {
        let value = Value::Integer { value: quantity.mantissa, width: 4 };
        self.entry(Entry::new(obis, value), Kind::Instant, quantity);
    }

    fn entry(&mut self, entry: Entry<'static>, kind: Kind, quantity: Quantity) {
        let entry = Entry { unit: Some(quantity.unit), scaler: Some(quantity.scaler), ..entry };
        self.builder = self.builder.clone().entry(&entry);
        let reading = TelegramReading::new(entry.code, kind, self.stamp, quantity);
        self.readings.push(TelegramReading { stamped_by: self.stamped_by, ..reading });
    }
}

#[cfg(test)]
mod tests;
