//! What the lines of a read-out say about its other lines: who, when, which units, which billing periods.

use std::collections::BTreeMap;

use super::address::{Address, ObisAddress};
use super::line::{DataSet, DataSets};
use super::quirks::{IdentityLine, Settings};
use super::session::DataBlock;
use super::stamp::Stamp;
use super::value::{Scale, Value, scale};
use crate::metering::{MeterId, Quality, UtcMillis};
use crate::p1::Resolved;

/// Gathered before the values are read, for it may stand behind them.
pub(super) struct Context {
    pub(super) meter: Option<MeterId>,
    pub(super) clock: Option<Resolved>,
    pub(super) quality: Quality,
    /// By the number of the period.
    freezes: BTreeMap<u8, Stamp>,
    /// Of running registers, by their code without F.
    units: BTreeMap<Register, Scale>,
}

/// Group A and B where they stand, and C, D, E.
type Register = (Option<(u8, u8)>, (u8, u8, u8));

impl Context {
    pub(super) fn gather(block: &DataBlock, settings: &Settings, received_at: UtcMillis) -> Self {
        let mut context =
            Self { meter: None, clock: None, quality: block.quality, freezes: BTreeMap::new(), units: BTreeMap::new() };
        let mut identity = BTreeMap::new();
        let (mut time, mut date) = (None, None);
        for set in DataSets::new(&block.content).flatten() {
            let Address::Obis(address) = Address::parse(set.address) else { continue };
            let Some(first) = set.groups().next().filter(|content| !content.is_empty()) else { continue };
            if let Some(line) = identity_line(&address) {
                identity.entry(rank(line, settings)).or_insert(first);
            }
            match address.cde {
                (0, 9, 1) => time = Some(first),
                (0, 9, 2) => date = Some(first),
                (0, 9, 4) | (1, 0, 0) => {
                    if let Some(Stamp::At(clock)) = settings.clock.resolve(first, received_at) {
                        context.clock = Some(clock);
                    }
                }
                (97, 97, 0) => context.error(first, settings.error_mask),
                _ => context.register(&set, &address, first, settings, received_at),
            }
        }
        if let (None, Some(time), Some(date)) = (context.clock, time, date) {
            context.clock = settings.clock.resolve_parts(time, date, received_at);
        }
        let serial = identity.range(..settings.identity.len()).next().map(|(_, serial)| *serial);
        let flag = block.identification.as_ref().map(super::Identification::flag);
        context.meter = serial.and_then(|serial| meter_id(serial, flag.as_deref()));
        context
    }

    fn register(
        &mut self,
        set: &DataSet<'_>,
        address: &ObisAddress,
        first: &[u8],
        settings: &Settings,
        received_at: UtcMillis,
    ) {
        match (address.cde, address.billing) {
            ((0, 1, 2), Some(period)) => {
                let stamp = settings.clock.resolve(first, received_at);
                if let Some(stamp) = stamp {
                    self.freezes.entry(period).or_insert(stamp);
                }
            }
            (cde, None) => {
                let unit = Value::parse(first, settings.quirks).ok().and_then(|value| scale(value.unit?).ok());
                if let Some(unit) = unit.filter(|_| !set.address.is_empty()) {
                    self.units.insert((address.medium, cde), unit);
                }
            }
            _ => {}
        }
    }

    fn error(&mut self, register: &[u8], mask: u64) {
        if hexadecimal(register).is_some_and(|bits| bits & mask != 0) {
            self.quality = self.quality.with(Quality::CRITICAL_ERROR);
        }
    }

    /// When a billing period was frozen.
    pub(super) fn freeze(&self, period: u8) -> Option<Stamp> {
        self.freezes.get(&period).copied()
    }

    /// The unit of the running register of the same object.
    pub(super) fn unit(&self, address: &ObisAddress) -> Option<Scale> {
        self.units.get(&(address.medium, address.cde)).copied()
    }
}

/// Digits of a register of bits.
pub(super) fn hexadecimal(content: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(content).ok().filter(|text| text.bytes().all(|octet| octet.is_ascii_hexdigit()))?;
    u64::from_str_radix(text, 16).ok()
}

pub(super) fn identity_line(address: &ObisAddress) -> Option<IdentityLine> {
    match address.cde {
        (0, 0, 9) => Some(IdentityLine::DinNumber),
        (96, 1, 255) => Some(IdentityLine::ServerNumber),
        (96, 1, 0) => Some(IdentityLine::SerialNumber),
        (0, 0, 0) => Some(IdentityLine::DeviceAddress),
        _ => None,
    }
}

/// Place in the settings; behind all of them for what is not there.
fn rank(line: IdentityLine, settings: &Settings) -> usize {
    settings.identity.iter().position(|&wanted| wanted == line).unwrap_or(settings.identity.len())
}

/// A number alone is one of its maker's: the FLAG letters make it one of a kind.
fn meter_id(serial: &[u8], flag: Option<&str>) -> Option<MeterId> {
    let serial = serial.trim_ascii();
    let is_number = serial.iter().all(u8::is_ascii_digit);
    if serial.is_empty() || serial.iter().all(|&octet| octet == b'0') {
        return None;
    }
    match flag.filter(|_| is_number) {
        Some(flag) => MeterId::from_device(&[flag.as_bytes(), b":", serial].concat()),
        None => MeterId::from_device(serial),
    }
}
