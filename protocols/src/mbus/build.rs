//! Telegrams for the simulator, cut so that each fits into a frame.

use super::address::SecondaryAddress;
use super::code::{medium, parse_source_code};
use super::meaning::Meaning;
use super::record::{
    Coding, Function, IDLE_FILLER, MANUFACTURER, MORE_RECORDS_FOLLOW, Place, Records, ValueInformation,
};
use super::security::{Key, MessageKeys, cmac, encipher};
use super::status::Status;
use super::time::{Civil, TimeType};
use crate::metering::{Code, Kind, ObisCode, Quantity, TelegramReading, Unit};

const BLOCK_LEN: usize = 16;
/// As many blocks as the configuration field of mode 5 can count, with its fillers and the announcement of more.
const RECORDS_LEN_MAX: usize = 15 * BLOCK_LEN - 3;

/// Of the authentication and fragmentation layer: nothing follows; control, counter and code are there.
const LAST_FRAGMENT: [u8; 2] = [0x00, 0x2c];
/// A counter, and a code of 8 octets.
const MESSAGE_CONTROL: u8 = 0x25;
/// Behind the configuration field of mode 7.
const KEY_DERIVATION_A: u8 = 0x10;

const VIF_DATE_TIME: u8 = 0x6d;
const VIF_DATE: u8 = 0x6c;

/// Data of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// In so many octets: 1 to 4, 6 or 8.
    Integer(i64, u8),
    /// In so many octets of two digits: 1 to 4 or 6.
    Bcd(i64, u8),
    Real(f32),
    /// ISO 8859-1, up to 191 characters.
    Text(String),
    Time(TimeType, Civil),
    /// As they are, as a number of variable length: up to 15 octets.
    Octets(Vec<u8>),
    Nothing,
}

/// Why something cannot be told on M-Bus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    #[error("{code} has no value information")]
    Code { code: Code },
    #[error("{quantity} does not fit {code}")]
    Quantity { code: Code, quantity: Quantity },
    /// It has no such length, or does not fit into it.
    #[error("the data fits no record")]
    Data,
    #[error("storage, tariff or subunit are too great for ten extensions")]
    Place,
    #[error("a record of {len} octets fits into no telegram")]
    TooLong { len: usize },
}

/// How telegrams are protected.
#[derive(Clone, Copy)]
enum Protection<'k> {
    Clear,
    Enciphered(&'k Key),
    Authenticated(&'k Key, u32),
}

/// Writes the telegrams of one answer, from CI on, with a long header.
#[derive(Debug, Clone)]
pub struct Builder {
    address: SecondaryAddress,
    access: u8,
    status: Status,
    /// Of each telegram.
    records: Vec<Vec<u8>>,
    manufacturer: Vec<u8>,
}

impl Builder {
    pub fn new(address: SecondaryAddress) -> Self {
        Self { address, access: 0, status: Status::default(), records: vec![Vec::new()], manufacturer: Vec::new() }
    }

    /// Of the first telegram; the others count on.
    pub fn access(mut self, access: u8) -> Self {
        self.access = access;
        self
    }

    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// The maker's own, behind the records of the last telegram, as far as it fits.
    pub fn manufacturer(mut self, octets: &[u8]) -> Self {
        self.manufacturer = octets.to_vec();
        self
    }

    /// A record with its value information as it is, a unit in words as the extensions' end.
    pub fn record(mut self, place: Place, information: &[u8], datum: &Datum) -> Result<Self, BuildError> {
        let (coding, data) = datum.encode()?;
        let header = place.encode(coding).ok_or(BuildError::Place)?;
        let record = [&header[..], information, &data].concat();
        let len = record.len();
        if len > RECORDS_LEN_MAX {
            return Err(BuildError::TooLong { len });
        }
        match self.records.last_mut() {
            Some(records) if records.len() + len <= RECORDS_LEN_MAX => records.extend(record),
            _ => self.records.push(record),
        }
        Ok(self)
    }

    /// The meter's clock.
    pub fn clock(self, civil: Civil) -> Result<Self, BuildError> {
        self.record(Place::PRESENT, &[VIF_DATE_TIME], &Datum::Time(TimeType::F, civil))
    }

    /// The date of a storage, which labels its values.
    pub fn storage_date(self, storage: u64, civil: Civil) -> Result<Self, BuildError> {
        let civil = Civil { is_date: true, ..civil };
        self.record(Place { storage, ..Place::PRESENT }, &[VIF_DATE], &Datum::Time(TimeType::G, civil))
    }

    /// A reading of the present, or of a storage whose date is told beside it: an OBIS code that [`Readout`](super::Readout)
    /// gives, or a source's own name. In eight octets at most, without rounding.
    pub fn reading(self, reading: &TelegramReading, storage: u64) -> Result<Self, BuildError> {
        let code = || BuildError::Code { code: reading.code.clone() };
        let unfit = || BuildError::Quantity { code: reading.code.clone(), quantity: reading.quantity };
        let (information, place, quantity) = match &reading.code {
            Code::Obis { obis, attribute: 2 } => {
                let (information, tariff, quantity) =
                    of_obis(*obis, reading.quantity, self.address.medium).ok_or_else(code)?;
                (information, Place { tariff, ..Place::PRESENT }, quantity)
            }
            Code::Source(text) => {
                let (information, place) = parse_source_code(text).ok_or_else(code)?;
                let meaning = meaning(&information).ok_or_else(code)?;
                let has_wrong_sign = meaning.is_unsigned && reading.quantity.mantissa < 0;
                if meaning.unit != reading.quantity.unit || meaning.factor != 1 || has_wrong_sign {
                    return Err(unfit());
                }
                (information, place, reading.quantity.at_scaler(meaning.scaler).map_err(|_| unfit())?)
            }
            Code::Obis { .. } => return Err(code()),
        };
        let function = if reading.kind == Kind::Maximum { Function::Maximum } else { place.function };
        let storage = if storage > 0 { storage } else { place.storage };
        let place = Place { function, storage, ..place };
        self.record(place, &information, &Datum::shortest(quantity.mantissa))
    }

    /// The telegrams, from CI on.
    pub fn finish(self) -> Vec<Vec<u8>> {
        self.telegrams(Protection::Clear)
    }

    /// The same in security mode 5, filled up to whole blocks.
    pub fn finish_enciphered(self, key: &Key) -> Vec<Vec<u8>> {
        self.telegrams(Protection::Enciphered(key))
    }

    /// The same in security mode 7, with an authentication code of 8 octets (type 5). `counter` is the message counter of the first
    /// telegram; the others count on.
    pub fn finish_authenticated(self, key: &Key, counter: u32) -> Vec<Vec<u8>> {
        self.telegrams(Protection::Authenticated(key, counter))
    }

    fn telegrams(self, protection: Protection<'_>) -> Vec<Vec<u8>> {
        let count = self.records.len();
        let telegrams = (0u8..).zip(&self.records).map(|(number, records)| {
            let mut content = records.clone();
            if usize::from(number) + 1 < count {
                content.push(MORE_RECORDS_FOLLOW);
            } else if !self.manufacturer.is_empty() {
                content.push(MANUFACTURER);
                content.extend(&self.manufacturer);
                content.truncate(RECORDS_LEN_MAX);
            }
            let access = self.access.wrapping_add(number);
            match protection {
                Protection::Clear => self.telegram(access, &[0, 0], &content),
                Protection::Enciphered(key) => self.enciphered(access, content, key),
                Protection::Authenticated(key, counter) => {
                    self.authenticated(access, content, key, counter.wrapping_add(number.into()))
                }
            }
        });
        telegrams.collect()
    }

    fn enciphered(&self, access: u8, content: Vec<u8>, key: &Key) -> Vec<u8> {
        let mut content = filled(content);
        let [a, b, c, d, m1, m2, version, medium] = self.address.to_octets();
        let n = access;
        encipher(key, [m1, m2, a, b, c, d, version, medium, n, n, n, n, n, n, n, n], &mut content);
        self.telegram(access, &[blocks(&content), 5], &content)
    }

    fn authenticated(&self, access: u8, content: Vec<u8>, key: &Key, counter: u32) -> Vec<u8> {
        let (mut content, counter) = (filled(content), counter.to_le_bytes());
        let keys = MessageKeys::derive(key, counter, self.address.id);
        encipher(&keys.enciphering, [0; BLOCK_LEN], &mut content);
        let message = self.telegram(access, &[blocks(&content), 7, KEY_DERIVATION_A], &content);
        let code = cmac(&keys.authentication, &[&[MESSAGE_CONTROL][..], &counter, &message].concat());
        let code = code.first_chunk::<8>().copied().unwrap_or_default();
        let fields = [&LAST_FRAGMENT[..], &[MESSAGE_CONTROL], &counter, &code].concat();
        [&[0x90, fields.len() as u8][..], &fields, &message].concat()
    }

    fn telegram(&self, access: u8, configuration: &[u8], content: &[u8]) -> Vec<u8> {
        let mut octets = vec![0x72];
        octets.extend(self.address.to_octets());
        octets.extend([access, self.status.0]);
        octets.extend(configuration);
        octets.extend(content);
        octets
    }
}

/// From fillers to fillers, in whole blocks.
fn filled(mut content: Vec<u8>) -> Vec<u8> {
    content.splice(..0, [IDLE_FILLER; 2]);
    content.resize(content.len().next_multiple_of(BLOCK_LEN), IDLE_FILLER);
    content
}

/// The low octet of the configuration field.
fn blocks(content: &[u8]) -> u8 {
    ((content.len() / BLOCK_LEN) as u8) << 4
}

impl Datum {
    /// As short as it can be. The most negative number of a length means that there is none, and is avoided.
    pub fn shortest(number: i64) -> Self {
        let fits = |len: &u8| {
            let limit = i64::MAX >> (64 - 8 * u32::from(*len));
            (-limit..=limit).contains(&number)
        };
        Self::Integer(number, [1, 2, 3, 4, 6].into_iter().find(fits).unwrap_or(8))
    }

    fn encode(&self) -> Result<(Coding, Vec<u8>), BuildError> {
        let some = |octets: Option<Vec<u8>>| octets.ok_or(BuildError::Data);
        Ok(match self {
            Self::Integer(number, len @ (1..=4 | 6 | 8)) => {
                let limit = i64::MAX >> (64 - 8 * u32::from(*len));
                let is_fit = (-limit - 1..=limit).contains(number);
                let octets = number.to_le_bytes().get(..usize::from(*len)).map(<[u8]>::to_vec);
                (Coding::Integer(*len), some(octets.filter(|_| is_fit))?)
            }
            Self::Bcd(number, len @ (1..=4 | 6)) => (Coding::Bcd(*len), some(bcd(*number, *len))?),
            Self::Real(number) => (Coding::Real, number.to_le_bytes().to_vec()),
            Self::Text(text) => {
                let octet = |c: char| u8::try_from(u32::from(c)).ok();
                let octets = some(text.chars().rev().map(octet).collect::<Option<Vec<u8>>>())?;
                (Coding::Variable, some(with_length(0, 0xbf, &octets))?)
            }
            Self::Octets(octets) => (Coding::Variable, some(with_length(0xe0, 0x0f, octets))?),
            Self::Time(kind, civil) => {
                let octets = kind.encode(civil);
                (Coding::Integer(octets.len() as u8), octets)
            }
            Self::Nothing => (Coding::None, Vec::new()),
            Self::Integer(..) | Self::Bcd(..) => return Err(BuildError::Data),
        })
    }
}

fn with_length(kind: u8, len_max: usize, octets: &[u8]) -> Option<Vec<u8>> {
    let len = u8::try_from(octets.len()).ok().filter(|_| octets.len() <= len_max)?;
    Some([&[kind + len], octets].concat())
}

/// A negative number has F as its highest digit, and so one digit less.
fn bcd(number: i64, len: u8) -> Option<Vec<u8>> {
    let mut rest = number.unsigned_abs();
    let mut octets = Vec::with_capacity(len.into());
    for _ in 0..len {
        octets.push((rest % 10 + rest / 10 % 10 * 0x10) as u8);
        rest /= 100;
    }
    if number < 0 {
        let last = octets.last_mut().filter(|last| **last < 0x10)?;
        *last |= 0xf0;
    }
    (rest == 0).then_some(octets)
}

fn meaning(information: &[u8]) -> Option<Meaning> {
    let mut whole = vec![0];
    whole.extend(information);
    let Some(Ok(super::record::Item::Record(record))) = Records::new(&whole).next() else { return None };
    let ValueInformation { unit_text, .. } = record.value_information;
    (unit_text.is_none() && record.header.len() == whole.len()).then(|| Meaning::of(&record.value_information))
}

/// Value information, tariff, and the number at the power of ten that the value information says.
fn of_obis(obis: ObisCode, quantity: Quantity, own_medium: u8) -> Option<(Vec<u8>, u32, Quantity)> {
    let energy = |negative: &[u8]| {
        let (first, scaler_min) = if quantity.unit == Unit::JOULE { (0x08, 0) } else { (0x00, -3) };
        matches!(quantity.unit, Unit::JOULE | Unit::WATT_HOUR).then_some(())?;
        scaled(first, scaler_min, quantity, negative)
    };
    let volume = || (quantity.unit == Unit::CUBIC_METRE).then(|| scaled(0x10, -6, quantity, &[])).flatten();
    let (information, scaled, tariff) = match (obis.0, own_medium) {
        ([1, 0, 1, 8, rate, 255], medium::ELECTRICITY) => energy(&[]).map(|(a, b)| (a, b, rate))?,
        ([1, 0, 2, 8, rate, 255], medium::ELECTRICITY) => energy(&[0x3c]).map(|(a, b)| (a, b, rate))?,
        ([5, 0, 1, 0, 0, 255], medium::COOLING_RETURN | medium::COOLING_FLOW)
        | ([6, 0, 1, 0, 0, 255], medium::HEAT_RETURN | medium::HEAT_FLOW) => energy(&[]).map(|(a, b)| (a, b, 0))?,
        ([5, 0, 2, 0, 0, 255], medium::COOLING_RETURN | medium::COOLING_FLOW)
        | ([6, 0, 2, 0, 0, 255], medium::HEAT_RETURN | medium::HEAT_FLOW)
        | ([8, 0, 1, 0, 0, 255], medium::WATER | medium::COLD_WATER)
        | ([9, 0, 1, 0, 0, 255], medium::WARM_WATER | medium::HOT_WATER) => volume().map(|(a, b)| (a, b, 0))?,
        _ => return None,
    };
    Some((information, tariff.into(), scaled))
}

/// One of eight powers of ten from `scaler_min` on, the nearest that is exact.
fn scaled(first: u8, scaler_min: i8, quantity: Quantity, extension: &[u8]) -> Option<(Vec<u8>, Quantity)> {
    let scaler = quantity.scaler.clamp(scaler_min, scaler_min + 7);
    let quantity = quantity.at_scaler(scaler).ok()?;
    let more = if extension.is_empty() { 0 } else { 0x80 };
    let vif = first + (scaler - scaler_min) as u8;
    Some(([&[vif | more], extension].concat(), quantity))
}
