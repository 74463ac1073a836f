//! The walk over the messages of one file: what each means, and whose it is.

use super::element::{ElementError, Value};
use super::identity::{hexadecimal, meter_id};
use super::list::{Entry, GetListResponse};
use super::message::{Body, Message, tag};
use super::quirks::Quirks;
use super::readout::{MeterReadout, Problem, ProblemCause, Readout, ReadoutError, Settings, Skipped};
use super::status::StatusWord;
use super::time::SmlTime;
use crate::metering::{Event, Kind, MeterId, ObisCode, Quality, Quantity, StampedBy, TelegramReading, UtcMillis};

/// Values of a meter that tells all it knows: one allocation for all of them.
const READINGS_EXPECTED: usize = 24;
/// The log of status words, which SML gives no code of their own.
const STATUS_LOG: &str = "sml:status";
/// A status word under a code of its own (Holley).
const STATUS_CODE: ObisCode = ObisCode::new(1, 0, 96, 5, 0, 255);

/// The state while the messages of one file are walked.
pub(super) struct Walk<'s> {
    settings: &'s Settings,
    received_at: UtcMillis,
    quality: Quality,
    ref_time: Option<SmlTime>,
    message: usize,
    readout: Readout,
    lists: usize,
}

/// An event while its meter is not known.
struct PendingEvent {
    /// `None`: the log of status words.
    log: Option<ObisCode>,
    code: i64,
    raw: Vec<u8>,
    text: String,
}

/// One value list while it is walked.
struct ListWalk<'a> {
    quirks: Quirks,
    has_short_power: bool,
    captured_at: UtcMillis,
    stamped_by: StampedBy,
    quality: Quality,
    /// What the values without a status of their own get.
    list_quality: Quality,
    is_feeding_in: bool,
    sec_index: Option<u32>,
    maker: Option<&'a [u8]>,
    /// The best identifier of the entries and its rank.
    identity: Option<(u8, &'a [u8])>,
    property_number: Option<&'a [u8]>,
    readings: Vec<TelegramReading>,
    events: Vec<PendingEvent>,
}

impl<'s> Walk<'s> {
    pub(super) fn new(settings: &'s Settings, received_at: UtcMillis, quality: Quality) -> Self {
        let readout =
            Readout { meters: Vec::new(), events: Vec::new(), problems: Vec::new(), skipped: Skipped::default() };
        Self { settings, received_at, quality, ref_time: None, message: 0, readout, lists: 0 }
    }

    /// Takes a message in.
    pub(super) fn message(&mut self, message: Result<Message<'_>, ElementError>) {
        self.message += 1;
        let message = match message {
            Ok(message) => message,
            Err(error) => return self.problem(None, None, error.into()),
        };
        let quality = match message.crc.judge(self.settings.policy, self.settings.quirks) {
            Ok(quality) => self.quality.with(quality),
            Err(error) => return self.problem(None, None, error.into()),
        };
        let skipped = &mut self.readout.skipped;
        match message.body {
            Body::Open(open) => self.ref_time = open.ref_time,
            Body::Close(_) => {}
            Body::GetList(list) => self.list(&list, quality),
            Body::Other { choice: tag::GET_PROFILE_LIST_RESPONSE | tag::GET_PROFILE_PACK_RESPONSE } => {
                skipped.profiles += 1;
            }
            Body::Other { choice: tag::ATTENTION_RESPONSE } => skipped.attentions += 1,
            Body::Other { .. } => skipped.others += 1,
        }
    }

    fn problem(&mut self, entry: Option<usize>, code: Option<ObisCode>, cause: ProblemCause) {
        self.readout.problems.push(Problem { message: self.message, entry, code, cause });
    }

    fn list(&mut self, list: &GetListResponse<'_>, quality: Quality) {
        self.lists += 1;
        let mut walk = ListWalk::new(list, self.settings.quirks, self.ref_time, self.received_at, quality);
        for (number, entry) in (1..).zip(list.entries()) {
            match entry {
                Ok(entry) => {
                    if let Err(cause) = walk.entry(&entry) {
                        self.problem(Some(number), Some(entry.code), cause);
                    }
                }
                Err(error) => self.problem(Some(number), None, error.into()),
            }
        }
        let by_entry = || walk.identity.and_then(|(_, id)| meter_id(id, walk.maker));
        let own = meter_id(list.server_id, walk.maker).or_else(by_entry);
        match own.or_else(|| self.settings.assumed_meter.clone()) {
            Some(meter) => self.enter(meter, walk),
            None => self.problem(None, None, ProblemCause::NoIdentity),
        }
    }

    /// Adds what a list said to what its meter said before.
    fn enter(&mut self, meter: MeterId, walk: ListWalk<'_>) {
        let at = walk.captured_at;
        self.readout.events.extend(walk.events.into_iter().map(|PendingEvent { log, code, raw, text }| {
            let log = log.map_or_else(|| STATUS_LOG.to_owned(), |code| code.to_string());
            Event { meter: meter.clone(), log, at, nth: 0, code, raw, text }
        }));
        let meters = &mut self.readout.meters;
        match meters.iter_mut().find(|known| known.meter == meter) {
            Some(known) => known.readings.extend(walk.readings),
            None => meters.push(MeterReadout {
                meter,
                captured_at: walk.captured_at,
                stamped_by: walk.stamped_by,
                sec_index: walk.sec_index,
                maker: walk.maker.map(shown),
                property_number: walk.property_number.map(shown),
                readings: walk.readings,
            }),
        }
    }

    /// Tells what the file said.
    pub(super) fn finish(self) -> Result<Readout, ReadoutError> {
        if !self.readout.meters.is_empty() {
            return Ok(self.readout);
        }
        if self.lists > 0 {
            return Err(ReadoutError::NoIdentity);
        }
        let first = self.readout.problems.first().map(|problem| problem.cause);
        Err(ReadoutError::NoList { skipped: self.readout.skipped, first })
    }
}

impl<'a> ListWalk<'a> {
    fn new(
        list: &GetListResponse<'a>,
        quirks: Quirks,
        ref_time: Option<SmlTime>,
        received_at: UtcMillis,
        quality: Quality,
    ) -> Self {
        let times = [list.act_sensor_time, ref_time, list.act_gateway_time];
        let own = times.into_iter().flatten().find_map(|time| time.utc(quirks));
        let mut walk = Self {
            quirks,
            has_short_power: quirks.dzg_short_power && has_short_power(list.server_id),
            captured_at: own.unwrap_or(received_at),
            stamped_by: if own.is_some() { StampedBy::Meter } else { StampedBy::Gateway },
            quality,
            list_quality: Quality::GOOD,
            is_feeding_in: false,
            sec_index: list.act_sensor_time.and_then(|time| time.sec_index(quirks)),
            maker: None,
            identity: None,
            property_number: None,
            readings: Vec::with_capacity(READINGS_EXPECTED),
            events: Vec::new(),
        };
        let mut told = None;
        for status in list.entries().flatten().filter_map(|entry| entry.status) {
            walk.list_quality = walk.list_quality.with(status.quality());
            walk.is_feeding_in |= status.is_feeding_in();
            told = told.or(Some(status).filter(|status| status.is_basic_meter()));
        }
        if let Some(status) = told {
            walk.status(None, status);
        }
        walk
    }

    /// Takes an entry in.
    fn entry(&mut self, entry: &Entry<'a>) -> Result<(), ProblemCause> {
        match (entry.code.0, entry.value) {
            (_, Value::Octets([]) | Value::Time(_)) => {}
            ([129, 129, 199, 130, 3, _] | [1, 0, 96, 50, 1, _], Value::Octets(maker)) => self.maker = Some(maker),
            ([1, 0, 96, 1, 0, _] | [1, 0, 0, 0, 9, _], Value::Octets(id)) => self.identify(2, id),
            ([0, 0, 96, 1, ..] | [1, 0, 0, 0, 0, _], Value::Octets(id)) => {
                self.property_number = Some(id);
                self.identify(1, id);
            }
            (_, Value::Octets(octets)) => self.state(entry, 0, shown(octets)),
            (_, Value::Boolean(is_set)) => self.state(entry, is_set.into(), String::new()),
            (_, Value::Integer { .. } | Value::Unsigned { .. }) => return self.number(entry),
            (_, Value::List(octets)) => {
                self.state(entry, 0, shown(octets));
                return Err(ProblemCause::List);
            }
        }
        Ok(())
    }

    fn identify(&mut self, rank: u8, id: &'a [u8]) {
        if self.identity.is_none_or(|(known, _)| known < rank) {
            self.identity = Some((rank, id));
        }
    }

    fn number(&mut self, entry: &Entry<'a>) -> Result<(), ProblemCause> {
        let number = match entry.value {
            Value::Unsigned { value, .. } => {
                let Ok(number) = i64::try_from(value) else {
                    self.state(entry, 0, value.to_string());
                    return Err(ProblemCause::Overflow);
                };
                number
            }
            Value::Integer { value, width } if self.has_short_power && is_power(entry.code) && width < 4 => {
                value & ((1 << (8 * u32::from(width))) - 1)
            }
            Value::Integer { value, .. } => value,
            _ => return Ok(()),
        };
        match entry.unit {
            Some(unit) => {
                let is_unsigned = matches!(entry.code.0, [1, _, 15 | 16, 7, 0, 255]) && number > 0;
                let is_turned = self.quirks.power_sign_from_status && self.is_feeding_in && is_unsigned;
                let number = if is_turned { -number } else { number };
                self.reading(entry, Quantity::new(number, entry.scaler.unwrap_or(0), unit));
            }
            None if entry.code == STATUS_CODE && StatusWord(number as u64).is_basic_meter() => {
                self.status(Some(entry.code), StatusWord(number as u64));
            }
            None => self.state(entry, number, String::new()),
        }
        Ok(())
    }

    fn reading(&mut self, entry: &Entry<'a>, quantity: Quantity) {
        let kind = match entry.code.0 {
            // What an electricity meter integrates; the volume of gas and water and the energy of heat have group D 0.
            [1, _, 1..=95, 8 | 9, _, 255] | [4..=9, _, 1..=3, 0, _, 255] => Kind::Register,
            [1, _, 1..=95, 6, ..] => Kind::Maximum,
            _ => Kind::Instant,
        };
        let own = entry.val_time.and_then(|time| time.utc(self.quirks));
        if self.sec_index.is_none() {
            let seconds = entry.val_time.and_then(|time| time.sec_index(self.quirks));
            self.sec_index = seconds.filter(|&seconds| seconds > 0);
        }
        let status = entry.status.map_or(self.list_quality, StatusWord::quality);
        let captured_at = own.unwrap_or(self.captured_at);
        let stamped_by = if own.is_some() { StampedBy::Meter } else { self.stamped_by };
        let reading = TelegramReading::new(entry.code, kind, captured_at, quantity);
        self.readings.push(TelegramReading { quality: self.quality.with(status), stamped_by, ..reading });
    }

    /// A word that says how things are.
    fn state(&mut self, entry: &Entry<'a>, code: i64, text: String) {
        self.events.push(PendingEvent { log: Some(entry.code), code, raw: entry.value.to_octets(), text });
    }

    fn status(&mut self, log: Option<ObisCode>, status: StatusWord) {
        let StatusWord(lasting) = status.lasting();
        let raw = (lasting as u32).to_be_bytes().to_vec();
        self.events.push(PendingEvent { log, code: lasting as i64, raw, text: status.to_string() });
    }
}

/// Active power, in sum or by phase.
fn is_power(code: ObisCode) -> bool {
    matches!(code.0, [1, 0, 16 | 36 | 56 | 76, 7, 0, 255])
}

/// See [`Quirks::dzg_short_power`].
fn has_short_power(server_id: &[u8]) -> bool {
    let &[0x0a, 0x01, b'D', b'Z', b'G', 0x00, s1, s2, s3, s4] = server_id else { return false };
    matches!(u32::from_be_bytes([s1, s2, s3, s4]), 42_000_000..=48_999_999 | 55_000_000..=58_999_999)
}

/// Text as it is, anything else as hexadecimal digits.
fn shown(octets: &[u8]) -> String {
    let is_text = octets.iter().all(|octet| octet.is_ascii_graphic() || *octet == b' ');
    if is_text { octets.iter().map(|&octet| char::from(octet)).collect() } else { hexadecimal(octets) }
}
