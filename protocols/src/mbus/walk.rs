//! The walk over the records of all telegrams of an answer: first the points in time, then the values that they label.

use super::address::SecondaryAddress;
use super::code::{obis_code, source_code};
use super::fixed::Counter;
use super::meaning::{Class, Meaning, Register, TimePoint};
use super::readout::{Problem, ProblemCause, Readout, ReadoutError, Settings, Skipped};
use super::record::{Function, Item, Place, Record, Records, ValueInformation};
use super::status::Status;
use super::time::Civil;
use super::transport::{Body, Header, Telegram};
use super::value::{RecordValue, ValueError};
use crate::metering::{
    Code, Event, Kind, MeterId, Quality, Quantity, QuantityError, StampedBy, TelegramReading, UtcMillis,
};

const STATUS_LOG: &str = "mbus:status";
const ERROR_TEXT_LEN_MAX: usize = 80;

pub(super) struct Walk<'a> {
    settings: &'a Settings,
    received_at: UtcMillis,
    header: Header,
    records: Vec<(usize, usize, Record<'a>, Meaning)>,
    fixed: Option<[Counter; 2]>,
    labels: Vec<Label>,
    quality: Quality,
    readout: Readout,
}

/// A point in time that labels others.
struct Label {
    place: Place,
    instant: UtcMillis,
    quality: Quality,
    is_used: bool,
    /// Telegram and record.
    at: (usize, usize),
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        telegrams: &'a [Telegram],
        settings: &'a Settings,
        received_at: UtcMillis,
    ) -> Result<Self, ReadoutError> {
        let first = telegrams.first().ok_or(ReadoutError::NoTelegram)?.header;
        let (mut header, mut status) = (first, 0);
        let (mut records, mut fixed) = (Vec::new(), None);
        let (mut skipped, mut more_records_follow) = (Skipped::default(), false);
        for (telegram, Telegram { header: own, body }) in (1..).zip(telegrams) {
            if own.address != first.address {
                return Err(ReadoutError::OtherMeter { telegram });
            }
            header = *own;
            status |= own.status.0;
            let octets = match body {
                Body::Records(octets) => octets,
                Body::Fixed(data) => {
                    fixed = Some(data.counters());
                    continue;
                }
                Body::Compact { signature, .. } => {
                    return Err(ReadoutError::UnknownFormat { signature: *signature });
                }
                Body::ApplicationError(code) => return Err(ReadoutError::Application { code: *code }),
                Body::Alarm(_) => return Err(ReadoutError::Alarm),
            };
            more_records_follow = false;
            for (number, item) in (1..).zip(Records::new(octets)) {
                match item.map_err(|source| ReadoutError::Record { telegram, source })? {
                    Item::Record(record) => {
                        records.push((telegram, number, record, Meaning::of(&record.value_information)));
                    }
                    Item::Manufacturer(own) => skipped.manufacturer_octets += own.len(),
                    Item::MoreRecordsFollow(own) => {
                        skipped.manufacturer_octets += own.len();
                        more_records_follow = true;
                    }
                }
            }
        }
        let own = header.address.and_then(SecondaryAddress::meter_id);
        let meter = settings.alias.clone().or(own).ok_or(ReadoutError::NoIdentity)?;
        header.status = Status(status);
        let readout = Readout {
            meter,
            address: header.address,
            access: header.access,
            status: header.status,
            captured_at: received_at,
            stamped_by: StampedBy::Gateway,
            clock: None,
            readings: Vec::with_capacity(records.len()),
            events: Vec::new(),
            problems: Vec::new(),
            skipped,
            more_records_follow,
        };
        let quality = header.status.quality();
        Ok(Self { settings, received_at, header, records, fixed, labels: Vec::new(), quality, readout })
    }

    pub(super) fn run(mut self) -> Readout {
        let records = std::mem::take(&mut self.records);
        for (telegram, number, record, meaning) in &records {
            if meaning.class == Class::Time(TimePoint::OfStorage) {
                self.label((*telegram, *number), record);
            }
        }
        self.stamp();
        for (telegram, number, record, meaning) in &records {
            if let Err(cause) = self.record((*telegram, *number), record, *meaning) {
                let code = source_code(&record.value_information, record.place).ok();
                let problem = Problem { telegram: *telegram, record: *number, code, cause };
                self.readout.problems.push(problem);
            }
        }
        for counter in self.fixed.into_iter().flatten() {
            self.counter(counter);
        }
        self.unused_labels(&records);
        if self.header.status != Status::default() {
            let Status(status) = self.header.status;
            let text = self.header.status.to_string();
            self.event(STATUS_LOG.to_owned(), status.into(), vec![status], text);
        }
        self.readout
    }

    fn label(&mut self, at: (usize, usize), record: &Record<'a>) {
        let Ok(RecordValue::Time(civil)) = record.time() else { return };
        let Some(instant) = self.instant(&civil) else { return };
        let quality = if civil.is_invalid { Quality::CLOCK_INVALID } else { Quality::GOOD };
        let quality = if civil.is_date { quality.with(Quality::LABEL_DERIVED) } else { quality };
        let is_present = record.place == Place::PRESENT;
        if is_present && !civil.is_date && self.readout.clock.is_none() {
            self.readout.clock = Some(instant).filter(|_| !civil.is_invalid);
        }
        self.labels.push(Label { place: record.place, instant, quality, is_used: is_present, at });
    }

    fn instant(&self, civil: &Civil) -> Option<UtcMillis> {
        let Settings { clock, date_edge, quirks, .. } = *self.settings;
        civil.instant(clock, date_edge, quirks, self.received_at)
    }

    fn stamp(&mut self) {
        if let (Some(clock), StampedBy::Meter) = (self.readout.clock, self.settings.stamped_by) {
            self.readout.captured_at = clock;
            self.readout.stamped_by = StampedBy::Meter;
        }
    }

    fn record(&mut self, at: (usize, usize), record: &Record<'a>, meaning: Meaning) -> Result<(), ProblemCause> {
        if record.data.is_empty() {
            self.readout.skipped.empty += 1;
            return Ok(());
        }
        let code = source_code(&record.value_information, record.place).map_err(|_| ProblemCause::Name)?;
        if meaning.is_extended_by_maker && !self.settings.quirks.maker_extensions {
            self.state(&code, 0, record, String::new());
            return Err(ProblemCause::Unsupported("a value of the maker's own"));
        }
        match meaning.class {
            Class::RecordError(code) => Err(ProblemCause::RecordError(code)),
            Class::Unsupported(why) => {
                self.state(&code, 0, record, String::new());
                Err(ProblemCause::Unsupported(why))
            }
            Class::Time(point) => {
                // One that labels values is told with them.
                let is_label = point == TimePoint::OfStorage && self.labels.iter().any(|label| label.at == at);
                if let (false, RecordValue::Time(civil)) = (is_label, record.time()?) {
                    let text = self.instant(&civil).map_or_else(|| civil.to_string(), |instant| instant.to_string());
                    self.state(&code, 0, record, text);
                }
                Ok(())
            }
            Class::State => {
                match value(record, meaning)? {
                    RecordValue::Integer(number) => self.state(&code, number, record, String::new()),
                    RecordValue::Text(text) => self.state(&code, 0, record, text),
                    RecordValue::Real(number) => self.state(&code, 0, record, number.to_string()),
                    _ => self.state(&code, 0, record, String::new()),
                }
                Ok(())
            }
            Class::Register(register) => self.number(record, meaning, Some(register), &code),
            Class::Momentary => self.number(record, meaning, None, &code),
        }
    }

    fn number(
        &mut self,
        record: &Record<'a>,
        meaning: Meaning,
        register: Option<Register>,
        code: &Code,
    ) -> Result<(), ProblemCause> {
        let value = value(record, meaning)?;
        let quantity = match value.quantity(meaning.scaler, meaning.factor, meaning.unit) {
            Some(Ok(quantity)) => quantity,
            Some(Err(QuantityError::Overflow)) => {
                self.state(code, 0, record, shortened(&format!("{value:?}")));
                return Err(ProblemCause::Overflow);
            }
            Some(Err(_)) => return Err(ProblemCause::Value(ValueError::Invalid)),
            // Without a sign, eight octets may be more than fits.
            None if meaning.is_unsigned && matches!(value, RecordValue::Octets(_)) => {
                self.state(code, 0, record, String::new());
                return Err(ProblemCause::Overflow);
            }
            None => {
                let text = if let RecordValue::Text(text) = value { text } else { String::new() };
                self.state(code, 0, record, text);
                return Ok(());
            }
        };
        self.reading(&record.value_information, record.place, register, quantity)
    }

    fn reading(
        &mut self,
        information: &ValueInformation<'_>,
        place: Place,
        register: Option<Register>,
        quantity: Quantity,
    ) -> Result<(), ProblemCause> {
        let stored = if place.storage == 0 { None } else { self.use_label(place.storage_of()) };
        let named = if stored.is_some() { Place { storage: 0, ..place } } else { place };
        let medium = self.header.address.map(|address| address.medium).filter(|_| named.storage == 0);
        let obis = medium.zip(register).and_then(|(medium, register)| obis_code(medium, register, named));
        let code = match obis {
            Some(obis) => Code::obis(obis),
            None => source_code(information, named).map_err(|_| ProblemCause::Name)?,
        };
        let kind = match (place.function, register) {
            (Function::Maximum, _) => Kind::Maximum,
            (Function::Instantaneous, Some(_)) if stored.is_some() => Kind::Billing,
            (Function::Instantaneous, Some(_)) => Kind::Register,
            _ => Kind::Instant,
        };
        let occurred = (kind == Kind::Maximum).then(|| self.use_label(place)).flatten();
        let (captured_at, quality) = stored.unwrap_or((self.readout.captured_at, Quality::GOOD));
        let stamped_by = if stored.is_some() { StampedBy::Meter } else { self.readout.stamped_by };
        let reading = TelegramReading {
            quality: self.quality.with(quality),
            stamped_by,
            occurred_at: occurred.map(|(instant, _)| instant),
            ..TelegramReading::new(code, kind, captured_at, quantity)
        };
        self.enter(reading)
    }

    /// The same value at the same instant is told once; another one is the next of its identity. Those of one identity stand in
    /// their order, so that whoever is the next is known after one pass.
    fn enter(&mut self, mut reading: TelegramReading) -> Result<(), ProblemCause> {
        for known in &self.readout.readings {
            if !known.same_identity(&reading) {
                continue;
            }
            if reading.kind == Kind::Billing && known.quantity.same_value(reading.quantity) {
                return Ok(());
            }
            reading.nth = reading.nth.checked_add(1).ok_or(ProblemCause::Repeated)?;
        }
        self.readout.readings.push(reading);
        Ok(())
    }

    fn use_label(&mut self, place: Place) -> Option<(UtcMillis, Quality)> {
        let label = self.labels.iter_mut().find(|label| label.place == place)?;
        label.is_used = true;
        Some((label.instant, label.quality))
    }

    /// A counter of the fixed data structure.
    fn counter(&mut self, counter: Counter) {
        let information = ValueInformation { vif: counter.unit_code, extensions: &[], unit_text: None };
        let place = Place { storage: counter.is_stored.into(), ..Place::PRESENT };
        // These are no VIFs.
        let name = |place: Place| {
            let text = source_code(&information, place).ok()?.to_string();
            text.replacen("mbus:", "mbus:fixed.", 1).parse::<Code>().ok()
        };
        let (Some(value), Some((scaler, unit)), Some(code)) = (counter.value, counter.unit, name(place)) else {
            let cause = ProblemCause::Unsupported("a counter without digits or a unit");
            return self.readout.problems.push(Problem { telegram: 1, record: 1, code: name(place), cause });
        };
        let reading =
            TelegramReading::new(code, Kind::Register, self.readout.captured_at, Quantity::new(value, scaler, unit));
        let reading = TelegramReading { quality: self.quality, stamped_by: self.readout.stamped_by, ..reading };
        if let Err(cause) = self.enter(reading) {
            self.readout.problems.push(Problem { telegram: 1, record: 1, code: None, cause });
        }
    }

    /// Dates that label nothing are told by themselves.
    fn unused_labels(&mut self, records: &[(usize, usize, Record<'a>, Meaning)]) {
        let labels = std::mem::take(&mut self.labels);
        for label in labels.iter().filter(|label| !label.is_used) {
            let of_label =
                |(telegram, number, ..): &&(usize, usize, Record<'a>, Meaning)| (*telegram, *number) == label.at;
            let Some((_, _, record, _)) = records.iter().find(of_label) else { continue };
            if let Ok(code) = source_code(&record.value_information, record.place) {
                self.state(&code, 0, record, label.instant.to_string());
            }
        }
    }

    /// A word that says how things are.
    fn state(&mut self, code: &Code, number: i64, record: &Record<'a>, text: String) {
        self.event(code.to_string(), number, record.data.to_vec(), text);
    }

    fn event(&mut self, log: String, code: i64, raw: Vec<u8>, text: String) {
        let meter: MeterId = self.readout.meter.clone();
        let same = self.readout.events.iter().filter(|event| event.log == log).count();
        let nth = u8::try_from(same).unwrap_or(u8::MAX);
        self.readout.events.push(Event { meter, log, at: self.readout.captured_at, nth, code, raw, text });
    }
}

fn value<'a>(record: &Record<'a>, meaning: Meaning) -> Result<RecordValue<'a>, ValueError> {
    if meaning.is_unsigned { record.unsigned_value() } else { record.value() }
}

impl Place {
    /// Where the date of this storage stands.
    fn storage_of(self) -> Self {
        Self { storage: self.storage, ..Self::PRESENT }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(ERROR_TEXT_LEN_MAX).collect()
}
