//! The walk over the data sets of a read-out: what each means.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::address::{Address, ObisAddress};
use super::context::{Context, hexadecimal, identity_line};
use super::line::{DataSet, DataSets, LineError, printable};
use super::log::{Order, entry};
use super::profile::ProfileWalk;
use super::quirks::Settings;
use super::readout::{Readout, ReadoutError};
use super::session::DataBlock;
use super::stamp::Stamp;
use super::value::{Scale, Value, scale};
use crate::metering::{Code, Event, Kind, MeterId, Quality, Quantity, StampedBy, TelegramReading, Unit, UtcMillis};
use crate::p1::Resolved;

pub(super) struct Walk<'a> {
    block: &'a DataBlock,
    settings: &'a Settings,
    received_at: UtcMillis,
    context: Context,
    /// Label of values without one of their own.
    captured_at: UtcMillis,
    stamped_by: StampedBy,
    quality: Quality,
    known: BTreeMap<(Code, Kind, UtcMillis), Quantity>,
    events: Vec<PendingEvent>,
    order: Order,
    readout: Vec<TelegramReading>,
    problems: Vec<super::LineProblem>,
}

/// An event while its meter is not known.
struct PendingEvent {
    log: String,
    /// `None`: the label of the read-out.
    at: Option<UtcMillis>,
    nth: u8,
    code: i64,
    raw: Vec<u8>,
    text: String,
}

/// Profiles of the group P have lower numbers, log books these and higher ones.
const LOG_BOOKS_FROM: u8 = 50;

impl<'a> Walk<'a> {
    pub(super) fn new(block: &'a DataBlock, settings: &'a Settings, received_at: UtcMillis) -> Self {
        let context = Context::gather(block, settings, received_at);
        let (captured_at, stamped_by, is_guess) = match (settings.stamped_by, context.clock) {
            (StampedBy::Meter, Some(Resolved { instant, is_guess })) => (instant, StampedBy::Meter, is_guess),
            _ => (received_at, StampedBy::Gateway, false),
        };
        let quality = if is_guess { context.quality.with(Quality::LABEL_DERIVED) } else { context.quality };
        Self {
            block,
            settings,
            received_at,
            captured_at,
            stamped_by,
            quality,
            context,
            known: BTreeMap::new(),
            events: Vec::new(),
            order: Order::default(),
            readout: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Readout, ReadoutError> {
        let mut profile: Option<ProfileWalk<'_>> = None;
        for set in DataSets::new(&self.block.content) {
            let set = match set {
                Ok(set) => set,
                Err(problem) => {
                    if let Some(profile) = &mut profile {
                        profile.lose_row();
                    }
                    self.problems.push(problem);
                    continue;
                }
            };
            let address = Address::parse(set.address);
            let begins_profile = matches!(address, Address::Obis(ObisAddress { cde: (99, 0..LOG_BOOKS_FROM, _), .. }));
            let result = match &mut profile {
                Some(profile) if set.address.is_empty() => profile.set(&set),
                profile if begins_profile => profile
                    .get_or_insert_with(|| ProfileWalk::new(self.settings, self.received_at, self.context.quality))
                    .set(&set),
                _ => self.set(&set, &address),
            };
            if let Err(error) = result {
                self.problems.push(set.problem(error));
            }
        }
        if let Some(profile) = profile {
            self.readout.extend(profile.into_readings());
        }
        let meter = self.context.meter.clone().or_else(|| self.settings.assumed_meter.clone());
        meter.map(|meter| self.finish(&meter)).ok_or(ReadoutError::NoIdentity)
    }

    fn finish(self, meter: &MeterId) -> Readout {
        let at = self.captured_at;
        let event = |event: PendingEvent| {
            let PendingEvent { log, at: own, nth, code, raw, text } = event;
            Event { meter: meter.clone(), log, at: own.unwrap_or(at), nth, code, raw, text }
        };
        Readout {
            meter: meter.clone(),
            clock: self.context.clock.map(|clock| clock.instant),
            captured_at: self.captured_at,
            stamped_by: self.stamped_by,
            readings: self.readout,
            events: self.events.into_iter().map(event).collect(),
            problems: self.problems,
        }
    }

    fn set(&mut self, set: &DataSet<'_>, address: &Address<'_>) -> Result<(), LineError> {
        let mut groups: Vec<_> = set.groups().collect();
        if set.address.is_empty() {
            return Err(LineError::NoHeader);
        }
        if matches!(address, Address::Obis(ObisAddress { cde: (99, LOG_BOOKS_FROM.., _), .. })) {
            return self.log_entry(set, address, &groups);
        }
        if self.settings.quirks.doubled_groups {
            let (first, second) = groups.split_at_checked(groups.len() / 2).unwrap_or((&groups, &[]));
            if first == second {
                groups.truncate(groups.len() / 2);
            }
        }
        let (&first, others) = groups.split_first().ok_or(LineError::Groups)?;
        if first.is_empty() {
            return Ok(());
        }
        let stamp = match *others {
            [] => None,
            [stamp] => Some(stamp),
            _ => return Err(LineError::Count { count: groups.len() }),
        };
        let Address::Obis(obis) = address else { return self.value(address, None, first, stamp) };
        match obis.cde {
            _ if identity_line(obis).is_some() => Ok(()),
            (0, 0, _) | (0, 9, 1..=4) | (0, 1, 2 | 3) | (1, 0, 0) => Ok(()),
            (97, 97, _) => {
                let code = hexadecimal(first).and_then(|bits| i64::try_from(bits).ok());
                self.event(address, code.unwrap_or(0), first);
                Ok(())
            }
            _ => self.value(address, Some(obis), first, stamp),
        }
    }

    fn value(
        &mut self,
        address: &Address<'_>,
        obis: Option<&ObisAddress>,
        content: &[u8],
        stamp: Option<&[u8]>,
    ) -> Result<(), LineError> {
        let value = match Value::parse(content, self.settings.quirks) {
            Ok(value) => value,
            // An asterisk announces a unit: then this was meant to be a number.
            Err(error) if content.contains(&b'*') => return Err(error),
            Err(_) => {
                self.state(address, content);
                return Ok(());
            }
        };
        let is_general = obis.is_none_or(|obis| matches!(obis.cde.0, 0 | 93..));
        let unit = match value.unit.map(scale) {
            Some(Ok(unit)) => Some(unit),
            // A constant of the meter, such as pulses per kWh.
            Some(Err(_)) if is_general => None,
            Some(Err(error)) => return Err(error),
            None => obis.and_then(|obis| self.missing_unit(obis)),
        };
        let Some(unit) = unit else {
            if is_general {
                self.state(address, content);
                return Ok(());
            }
            return Err(LineError::NoUnit);
        };
        let quantity = match value.quantity(unit) {
            Err(LineError::Overflow) => {
                self.state(address, content);
                return Err(LineError::Overflow);
            }
            quantity => quantity?,
        };
        let kind = obis.map_or(Kind::Instant, |obis| kind(obis, quantity.unit));
        let billing = obis.and_then(|obis| obis.billing);
        let billing = billing.filter(|&period| !(period == 0 && self.settings.quirks.billing_zero_is_current));
        self.reading(address, kind, billing, quantity, value.is_zero(), stamp)
    }

    /// The unit of a value that has none.
    fn missing_unit(&self, obis: &ObisAddress) -> Option<Scale> {
        let quirks = self.settings.quirks;
        match obis.cde {
            // Counters, and the power factor.
            (0, 1, 0) | (13 | 33 | 53 | 73 | 96, 7, _) => Some((0, Unit::COUNT)),
            _ if obis.billing.is_some() && quirks.billing_inherits_unit && self.context.unit(obis).is_some() => {
                self.context.unit(obis)
            }
            cde if quirks.units_by_code => unit_by_code(cde),
            _ => None,
        }
    }

    fn reading(
        &mut self,
        address: &Address<'_>,
        kind: Kind,
        billing: Option<u8>,
        quantity: Quantity,
        is_zero: bool,
        stamp: Option<&[u8]>,
    ) -> Result<(), LineError> {
        let stamp = match stamp {
            None | Some([]) => None,
            Some(text) => {
                let resolved = self.settings.clock.resolve(text, self.received_at);
                Some(resolved.ok_or_else(|| LineError::Stamp { text: printable(text) })?)
            }
        };
        let freeze = billing.and_then(|period| self.context.freeze(period));
        // A billing slot that was never filled, or a maximum that has not occurred yet.
        if freeze == Some(Stamp::Never) || (stamp == Some(Stamp::Never) && is_zero) {
            return Ok(());
        }
        let mut reading = TelegramReading {
            quality: self.quality,
            stamped_by: self.stamped_by,
            ..TelegramReading::new(self.code(address), kind, self.captured_at, quantity)
        };
        let is_occurrence = matches!(kind, Kind::Maximum | Kind::Instant);
        let occurred = match stamp {
            Some(Stamp::At(resolved)) => Some(resolved),
            _ => None,
        };
        match (occurred, freeze) {
            (Some(resolved), _) if is_occurrence => reading.occurred_at = Some(resolved.instant),
            (Some(resolved), None) => label(&mut reading, resolved),
            _ => {}
        }
        if billing.is_some() {
            reading.kind = Kind::Billing;
            match freeze {
                Some(Stamp::At(resolved)) => label(&mut reading, resolved),
                // Its own stamp, if it is no occurrence, is that of the freeze.
                _ if occurred.is_some() && !is_occurrence => {}
                _ => {
                    (reading.captured_at, reading.stamped_by) = (self.received_at, StampedBy::Gateway);
                    reading.quality = reading.quality.with(Quality::LABEL_DERIVED);
                }
            }
        }
        self.push(reading)
    }

    /// Meters print some lines twice; the same again says nothing.
    fn push(&mut self, reading: TelegramReading) -> Result<(), LineError> {
        match self.known.entry((reading.code.clone(), reading.kind, reading.captured_at)) {
            Entry::Vacant(entry) => {
                entry.insert(reading.quantity);
                self.readout.push(reading);
                Ok(())
            }
            Entry::Occupied(entry) if *entry.get() == reading.quantity => Ok(()),
            Entry::Occupied(_) => Err(LineError::Twice),
        }
    }

    fn code(&self, address: &Address<'_>) -> Code {
        match address {
            Address::Obis(obis) if self.settings.quirks.billing_zero_is_current && obis.billing == Some(0) => {
                Address::Obis(ObisAddress { billing: None, ..*obis }).code(self.settings.medium)
            }
            other => other.code(self.settings.medium),
        }
    }

    /// A word that says how things are: tariff, version, switch, text.
    fn state(&mut self, address: &Address<'_>, content: &[u8]) {
        let is_number = content.iter().all(u8::is_ascii_digit);
        let code = std::str::from_utf8(content).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
        self.event(address, code.unwrap_or(0), content);
    }

    fn event(&mut self, address: &Address<'_>, code: i64, raw: &[u8]) {
        let text = if code != 0 || raw.iter().all(u8::is_ascii_digit) { String::new() } else { printable(raw) };
        let log = self.code(address).to_string();
        self.events.push(PendingEvent { log, at: None, nth: 0, code, raw: raw.to_vec(), text });
    }

    fn log_entry(&mut self, set: &DataSet<'_>, address: &Address<'_>, groups: &[&[u8]]) -> Result<(), LineError> {
        let (at, code, text) = entry(groups, self.settings, self.received_at)?;
        let nth = self.order.nth(at);
        let log = self.code(address).to_string();
        self.events.push(PendingEvent { log, at: Some(at), nth, code, raw: set.raw().to_vec(), text });
        Ok(())
    }
}

fn label(reading: &mut TelegramReading, resolved: Resolved) {
    reading.captured_at = resolved.instant;
    reading.stamped_by = StampedBy::Meter;
    if resolved.is_guess {
        reading.quality = reading.quality.with(Quality::LABEL_DERIVED);
    }
}

/// By value group D, and by the unit where D is of another medium.
fn kind(obis: &ObisAddress, unit: Unit) -> Kind {
    const LITRE: Unit = Unit(19);
    let adds_up = [Unit::WATT_HOUR, Unit::VAR_HOUR, Unit::VOLT_AMPERE_HOUR, Unit::JOULE, Unit::CUBIC_METRE, LITRE];
    match obis.cde {
        (1..=92, 6 | 16, _) if !adds_up.contains(&unit) => Kind::Maximum,
        (0, 1, 0) | (96, 7, _) | (_, 2 | 8 | 9, _) => Kind::Register,
        // Consumption of the last period, whose end is not said.
        (_, 29, _) => Kind::Instant,
        _ if adds_up.contains(&unit) => Kind::Register,
        _ => Kind::Instant,
    }
}

/// What electricity meters that print no units mean.
fn unit_by_code((c, d, _): (u8, u8, u8)) -> Option<Scale> {
    let is_energy = matches!(d, 8 | 9);
    let is_demand = matches!(d, 2 | 4 | 5 | 6 | 7);
    match c {
        1 | 2 | 15 | 16 if is_energy => Some((3, Unit::WATT_HOUR)),
        3..=8 if is_energy => Some((3, Unit::VAR_HOUR)),
        1 | 2 | 15 | 16 if is_demand => Some((3, Unit::WATT)),
        3..=8 if is_demand => Some((3, Unit::VAR)),
        _ => None,
    }
}
