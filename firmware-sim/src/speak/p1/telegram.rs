//! The telegrams of one P1 meter: their lines, the readings that a reader finds in them, and what befalls them.

use protocols::metering::{Kind, MeterId, ObisCode, Quantity, TelegramReading, UtcMillis};
use protocols::p1::{Builder, CipheredScan, Layout, LocalTime, scan_ciphered};

use super::gas::{GasRegister, gas_meter_id};
use crate::faults::{Fault, FaultRates, LineFaults};
use crate::meter::VirtualMeter;
use crate::registers::Measurand;
use crate::rng::{Rng, mix};
use crate::speak::Protocol;
use crate::speak::port::{CheckedDamage, Feed, Sending};
use crate::speak::seal::Seal;
use crate::truth::TruthLine;

/// Version of the telegrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dsmr {
    V4,
    V5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct P1Settings {
    pub dsmr: Dsmr,
    pub has_gas: bool,
}

/// Cumulative registers, then momentary values, each with its layout.
const REGISTERS: [Measurand; 4] = [
    Measurand::ImportEnergyRate1,
    Measurand::ImportEnergyRate2,
    Measurand::ExportEnergyRate1,
    Measurand::ExportEnergyRate2,
];
const POWERS: [Measurand; 2] = [Measurand::ImportPower, Measurand::ExportPower];
const GAS_CHANNEL: u8 = 1;
const GAS_DEVICE_TYPE: &str = "003";
/// Behind the length of a ciphered block: one that is damaged would take the next telegram along.
const SEALED_FROM: usize = 13;
/// Room for what a wrong CRC has to differ in.
const CRC_DIGITS: usize = 4;

/// Makes the telegrams of one meter, each with a later stamp than the one before.
#[derive(Debug, Clone)]
pub struct TelegramFeed {
    meter: MeterId,
    gas_meter: MeterId,
    settings: P1Settings,
    gas: GasRegister,
    /// The newest gas value that a reader has, and that of the telegram on its way.
    gas_sent: Option<UtcMillis>,
    gas_sending: Option<UtcMillis>,
    last_at: Option<UtcMillis>,
    /// `None`: telegrams are sent in clear.
    seal: Option<Seal>,
    damage: CheckedDamage,
}

impl TelegramFeed {
    pub fn new(meter: &VirtualMeter, seed: u64, settings: P1Settings, seal: Option<Seal>, rates: FaultRates) -> Self {
        Self {
            meter: meter.id().clone(),
            gas_meter: gas_meter_id(meter.id()),
            settings,
            gas: GasRegister::new(seed, meter.installed_at()),
            gas_sent: None,
            gas_sending: None,
            last_at: None,
            seal,
            damage: CheckedDamage {
                faults: LineFaults::new(mix(seed, &[0x91]), rates),
                rng: Rng::seeded(mix(seed, &[0xda3a])),
            },
        }
    }

    fn telegram(&mut self, meter: &VirtualMeter, stamp: UtcMillis) -> Sending {
        self.gas_sending = None;
        let (model, version) = match self.settings.dsmr {
            Dsmr::V4 => ("SIM4\\2METERPOST", "42"),
            Dsmr::V5 => ("SIM5\\2METERPOST", "50"),
        };
        let builder = Builder::new(model, LocalTime::CET).text("1-3:0.2.8", version).stamp("0-0:1.0.0", stamp);
        let mut draft = Draft { builder: builder.hex("0-0:96.1.1", self.meter.as_str()), stamp, readings: Vec::new() };
        for measurand in REGISTERS {
            draft.value(measurand.obis(), Kind::Register, meter.value(measurand), Layout::ENERGY);
        }
        draft.builder = draft.builder.text("0-0:96.14.0", &format!("{:04}", meter.rate() + 1));
        for measurand in POWERS {
            draft.value(measurand.obis(), Kind::Instant, meter.value(measurand), Layout::POWER);
        }
        if self.settings.dsmr == Dsmr::V5 {
            let voltage = meter.value(Measurand::Voltage);
            draft.value(Measurand::Voltage.obis(), Kind::Instant, voltage, Layout::VOLTAGE);
        }
        // Telegrams have whole amperes.
        let current = meter.value(Measurand::Current);
        let current = Quantity::new(current.mantissa / 100, 0, current.unit);
        draft.value(Measurand::Current.obis(), Kind::Instant, current, Layout::CURRENT);
        draft.builder = draft.builder.text("0-0:96.13.0", "");
        let Draft { mut builder, readings, .. } = draft;
        let name = Protocol::P1.name();
        let mut truth: Vec<TruthLine> =
            readings.iter().map(|reading| TruthLine::pushed(&self.meter, name, reading)).collect();
        if self.settings.has_gas {
            let (hour, volume) = self.gas.at(stamp);
            let channel = |rest: &str| format!("0-{GAS_CHANNEL}:{rest}");
            let code = ObisCode::new(0, GAS_CHANNEL, 24, 2, 1, 255);
            builder = builder.text(&channel("24.1.0"), GAS_DEVICE_TYPE);
            builder = builder.hex(&channel("96.1.0"), self.gas_meter.as_str());
            if let Ok(with_gas) = builder.clone().stamped(&channel("24.2.1"), hour, volume, Layout::VOLUME) {
                builder = with_gas;
                self.gas_sending = Some(hour);
                // The value of an hour is told once: later telegrams repeat it.
                if self.gas_sent.is_none_or(|sent| hour > sent) {
                    let reading = TelegramReading::new(code, Kind::Register, hour, volume);
                    truth.push(TruthLine::pushed(&self.gas_meter, name, &reading));
                }
            }
        }
        Sending { delay_ms: 0, octets: builder.finish(), truth }
    }

    /// Damage is done where the CRC is sure to show it, between `/` and `!` or in the CRC itself, so that the truth stays
    /// exact; octets in front of a telegram do not hurt it.
    fn damage(&mut self, sending: &mut Sending) {
        let CheckedDamage { faults, rng } = &mut self.damage;
        let octets = &mut sending.octets;
        let end = octets.iter().rposition(|octet| *octet == b'!').expect("a telegram ends with an exclamation mark");
        let place = 1 + rng.below(end as u64 - 1) as usize;
        let mut is_damaged = false;
        if faults.strikes(Fault::WrongCrc) {
            let digit = &mut octets[end + CRC_DIGITS];
            *digit = if *digit == b'0' { b'1' } else { b'0' };
            is_damaged = true;
        }
        if faults.strikes(Fault::LineNoise) {
            if rng.below(2) == 0 {
                octets[place] ^= 1 + rng.below(255) as u8;
                is_damaged = true;
            } else {
                let noise: Vec<u8> = (0..=rng.below(8)).map(|_| rng.next_u64() as u8).collect();
                octets.splice(0..0, noise);
            }
        } else if faults.strikes(Fault::DroppedBytes) {
            octets.remove(place);
            is_damaged = true;
        }
        if is_damaged {
            sending.truth.clear();
        }
    }
}

impl Feed for TelegramFeed {
    /// None without power, when silence strikes, and before the clock shows a new second.
    fn next(&mut self, meter: &VirtualMeter) -> Option<Sending> {
        let stamp = UtcMillis(meter.shown().seconds() * 1000);
        let is_new = self.last_at.is_none_or(|last_at| stamp > last_at);
        if !meter.is_powered() || !is_new || self.damage.faults.strikes(Fault::Silence) {
            return None;
        }
        self.last_at = Some(stamp);
        let mut sending = self.telegram(meter, stamp);
        sending.delay_ms = self.damage.faults.delay_ms();
        match self.seal.clone() {
            None => self.damage(&mut sending),
            Some(seal) => {
                sending.octets = seal.close(&sending.octets, stamp);
                self.damage.befall(&mut sending, SEALED_FROM, |octets| is_taken(octets, &seal));
            }
        }
        Some(sending)
    }

    fn sent(&mut self, sending: &Sending) {
        if !sending.truth.is_empty() {
            self.gas_sent = self.gas_sent.max(self.gas_sending);
        }
    }
}

/// Whether a reader takes a block from these octets.
fn is_taken(mut octets: &[u8], seal: &Seal) -> bool {
    loop {
        octets = match scan_ciphered(octets) {
            CipheredScan::NeedMore => return false,
            CipheredScan::Garbage { skip, .. } => &octets[skip..],
            CipheredScan::Block { apdu } if seal.is_taken(apdu) => return true,
            CipheredScan::Block { .. } => &octets[1..],
        };
    }
}

/// A telegram and its readings while they are put together.
struct Draft {
    builder: Builder,
    stamp: UtcMillis,
    readings: Vec<TelegramReading>,
}

impl Draft {
    /// A line with a value. One that the line has no digits for is left out, as meters show dashes then.
    fn value(&mut self, obis: ObisCode, kind: Kind, quantity: Quantity, layout: Layout) {
        let ObisCode([a, b, c, d, e, _]) = obis;
        if let Ok(builder) = self.builder.clone().quantity(&format!("{a}-{b}:{c}.{d}.{e}"), quantity, layout) {
            self.builder = builder;
            self.readings.push(TelegramReading::new(obis, kind, self.stamp, quantity));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
