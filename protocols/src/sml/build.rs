//! Files for the simulator: PublicOpen.Res, GetList.Res, PublicClose.Res, with the right CRCs.

use super::crc::CrcAlgorithm;
use super::element::{END_OF_MESSAGE, Value};
use super::list::Entry;
use super::message::tag;
use super::time::SmlTime;
use super::transport::encode_file;
use crate::metering::{Code, ObisCode, Quantity, StampedBy, TelegramReading};

/// The list of the present values, 1-0:98.10.255*255.
const PRESENT_VALUES: [u8; 6] = [1, 0, 98, 10, 255, 255];

const OCTET_STRING: u8 = 0x00;
const BOOLEAN: u8 = 0x40;
const INTEGER: u8 = 0x50;
const UNSIGNED: u8 = 0x60;
const LIST: u8 = 0x70;
const MORE: u8 = 0x80;
const ABSENT: u8 = 0x01;

/// Why a reading cannot be told in SML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    #[error("{code} is no obis code of a value")]
    Code { code: Code },
    /// Before 1970 or after 2106.
    #[error("an instant of {seconds} s is no timestamp of 32 bits")]
    Time { seconds: i64 },
}

/// Writes one file. What becomes longer than [`FILE_LEN_MAX`](super::FILE_LEN_MAX) is read by nobody.
#[derive(Debug, Clone)]
pub struct Builder {
    server_id: Vec<u8>,
    list_name: Vec<u8>,
    transaction: u32,
    algorithm: CrcAlgorithm,
    is_time_bare: bool,
    sensor_time: Option<SmlTime>,
    gateway_time: Option<SmlTime>,
    entries: Vec<u8>,
    entry_count: usize,
    others: Vec<(u32, Vec<u8>)>,
}

impl Builder {
    pub fn new(server_id: &[u8]) -> Self {
        Self {
            server_id: server_id.to_vec(),
            list_name: PRESENT_VALUES.to_vec(),
            transaction: 0,
            algorithm: CrcAlgorithm::X25,
            is_time_bare: false,
            sensor_time: None,
            gateway_time: None,
            entries: Vec::with_capacity(256),
            entry_count: 0,
            others: Vec::new(),
        }
    }

    /// The number of the first message; the others count on.
    pub fn transaction(mut self, transaction: u32) -> Self {
        self.transaction = transaction;
        self
    }

    /// For a meter that computes CRCs otherwise.
    pub fn algorithm(mut self, algorithm: CrcAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Times as a Holley DTZ541 writes them: a bare Unsigned32.
    pub fn bare_time(mut self) -> Self {
        self.is_time_bare = true;
        self
    }

    /// Empty for none.
    pub fn list_name(mut self, name: &[u8]) -> Self {
        self.list_name = name.to_vec();
        self
    }

    /// The meter's clock, or the seconds of its operation.
    pub fn sensor_time(mut self, time: SmlTime) -> Self {
        self.sensor_time = Some(time);
        self
    }

    /// The clock of a gateway that passes the list on.
    pub fn gateway_time(mut self, time: SmlTime) -> Self {
        self.gateway_time = Some(time);
        self
    }

    /// An entry as it is.
    pub fn entry(mut self, entry: &Entry<'_>) -> Self {
        let out = &mut self.entries;
        write_tl(out, LIST, 7);
        write_octets(out, &entry.code.0);
        match entry.status {
            Some(status) => write_unsigned(out, status.0, 1),
            None => out.push(ABSENT),
        }
        write_time(out, entry.val_time, self.is_time_bare);
        match entry.unit {
            Some(unit) => write_unsigned(out, unit.0.into(), 1),
            None => out.push(ABSENT),
        }
        match entry.scaler {
            Some(scaler) => write_integer(out, scaler.into(), 1),
            None => out.push(ABSENT),
        }
        write_value(out, entry.value, self.is_time_bare);
        write_octets(out, entry.signature.unwrap_or_default());
        self.entry_count += 1;
        self
    }

    /// A value with its unit, as short as it can be.
    pub fn quantity(self, code: ObisCode, quantity: Quantity) -> Self {
        self.entry(&number(code, quantity))
    }

    /// A text, a number that is printed on the meter, a key.
    pub fn octets(self, code: ObisCode, octets: &[u8]) -> Self {
        self.entry(&Entry::new(code, Value::Octets(octets)))
    }

    /// A reading, with its instant when the meter knows it, to the second.
    pub fn reading(self, reading: &TelegramReading) -> Result<Self, BuildError> {
        let Code::Obis { obis, attribute: 2 } = reading.code else {
            return Err(BuildError::Code { code: reading.code.clone() });
        };
        let val_time = match reading.stamped_by {
            StampedBy::Gateway => None,
            StampedBy::Meter => {
                let seconds = reading.captured_at.seconds();
                let timestamp = u32::try_from(seconds).map_err(|_| BuildError::Time { seconds })?;
                Some(SmlTime::Timestamp(timestamp))
            }
        };
        Ok(self.entry(&Entry { val_time, ..number(obis, reading.quantity) }))
    }

    /// Another message before the last, its body as octets: what a meter says that we do not read.
    pub fn message(mut self, choice: u32, body: &[u8]) -> Self {
        self.others.push((choice, body.to_vec()));
        self
    }

    /// The file as it is sent.
    pub fn finish(self) -> Vec<u8> {
        let algorithm = self.algorithm;
        encode_file(&self.content(), algorithm)
    }

    /// The messages without the transport around them.
    pub fn content(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() + 128);
        let (open, list) = (self.open(), self.list());
        let first = [(tag::PUBLIC_OPEN_RESPONSE, open), (tag::GET_LIST_RESPONSE, list)];
        let last = [(tag::PUBLIC_CLOSE_RESPONSE, vec![LIST | 1, ABSENT])];
        let messages = first.into_iter().chain(self.others).chain(last);
        for (number, (choice, body)) in messages.enumerate() {
            let transaction = self.transaction.wrapping_add(number as u32);
            write_message(&mut out, transaction, choice, &body, self.algorithm);
        }
        out
    }

    fn open(&self) -> Vec<u8> {
        let mut out = vec![LIST | 6, ABSENT, ABSENT];
        write_octets(&mut out, &self.transaction.to_be_bytes());
        write_octets(&mut out, &self.server_id);
        write_time(&mut out, self.sensor_time, self.is_time_bare);
        out.push(ABSENT);
        out
    }

    fn list(&self) -> Vec<u8> {
        let mut out = vec![LIST | 7, ABSENT];
        write_octets(&mut out, &self.server_id);
        write_octets(&mut out, &self.list_name);
        write_time(&mut out, self.sensor_time, self.is_time_bare);
        write_tl(&mut out, LIST, self.entry_count);
        out.extend(&self.entries);
        out.push(ABSENT);
        write_time(&mut out, self.gateway_time, self.is_time_bare);
        out
    }
}

fn number(code: ObisCode, quantity: Quantity) -> Entry<'static> {
    let value = match u64::try_from(quantity.mantissa) {
        Ok(value) => Value::Unsigned { value, width: 1 },
        Err(_) => Value::Integer { value: quantity.mantissa, width: 1 },
    };
    Entry { unit: Some(quantity.unit), scaler: Some(quantity.scaler), ..Entry::new(code, value) }
}

fn write_message(out: &mut Vec<u8>, transaction: u32, choice: u32, body: &[u8], algorithm: CrcAlgorithm) {
    let start = out.len();
    write_tl(out, LIST, 6);
    write_octets(out, &transaction.to_be_bytes());
    write_unsigned(out, 0, 1);
    write_unsigned(out, 0, 1);
    write_tl(out, LIST, 2);
    write_unsigned(out, choice.into(), 2);
    out.extend(body);
    let crc = algorithm.of(out.get(start..).unwrap_or_default());
    write_unsigned(out, u16::from_be_bytes(crc).into(), 2);
    out.push(END_OF_MESSAGE);
}

/// `content`: elements of a list, octets after the field of anything else.
fn write_tl(out: &mut Vec<u8>, element: u8, content: usize) {
    let own = |octets: usize| if element == LIST { 0 } else { octets };
    let octets = (1..8).find(|&octets| content + own(octets) < 1 << (4 * octets)).unwrap_or(8);
    let length = content + own(octets);
    for left in (0..octets).rev() {
        let element = if left + 1 == octets { element } else { 0 };
        let more = if left > 0 { MORE } else { 0 };
        out.push(more | element | (length >> (4 * left)) as u8 & 0x0f);
    }
}

/// Empty is absent.
fn write_octets(out: &mut Vec<u8>, octets: &[u8]) {
    write_tl(out, OCTET_STRING, octets.len());
    out.extend(octets);
}

/// In `width` octets, or in more where it needs them.
fn write_unsigned(out: &mut Vec<u8>, value: u64, width: u8) {
    let needed = (64 - value.leading_zeros()).div_ceil(8) as usize;
    write_number(out, UNSIGNED, value.to_be_bytes(), needed.max(width.into()));
}

fn write_integer(out: &mut Vec<u8>, value: i64, width: u8) {
    // One bit for the sign.
    let needed = (65 - (value ^ (value >> 63)).leading_zeros()).div_ceil(8) as usize;
    write_number(out, INTEGER, value.to_be_bytes(), needed.max(width.into()));
}

fn write_number(out: &mut Vec<u8>, element: u8, octets: [u8; 8], width: usize) {
    let octets = octets.get(8 - width.clamp(1, 8)..).unwrap_or_default();
    write_tl(out, element, octets.len());
    out.extend(octets);
}

fn write_time(out: &mut Vec<u8>, time: Option<SmlTime>, is_bare: bool) {
    let (choice, seconds) = match time {
        None => return out.push(ABSENT),
        Some(SmlTime::SecIndex(seconds)) => (1, seconds),
        Some(SmlTime::Timestamp(seconds)) => (2, seconds),
        Some(SmlTime::Local { timestamp, .. }) => (3, timestamp),
    };
    if !is_bare {
        write_tl(out, LIST, 2);
        write_unsigned(out, choice, 1);
    }
    match time {
        Some(SmlTime::Local { local_offset_min, season_offset_min, .. }) if !is_bare => {
            write_tl(out, LIST, 3);
            write_unsigned(out, seconds.into(), 4);
            write_integer(out, local_offset_min.into(), 2);
            write_integer(out, season_offset_min.into(), 2);
        }
        _ => write_unsigned(out, seconds.into(), 4),
    }
}

fn write_value(out: &mut Vec<u8>, value: Value<'_>, is_time_bare: bool) {
    match value {
        Value::Octets(octets) => write_octets(out, octets),
        Value::Boolean(is_set) => {
            write_tl(out, BOOLEAN, 1);
            out.push(is_set.into());
        }
        Value::Integer { value, width } => write_integer(out, value, width),
        Value::Unsigned { value, width } => write_unsigned(out, value, width),
        Value::Time(time) => {
            write_tl(out, LIST, 2);
            write_unsigned(out, 1, 1);
            write_time(out, Some(time), is_time_bare);
        }
        Value::List(octets) => out.extend(octets),
    }
}
