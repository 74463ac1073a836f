//! SML_GetList.Res: the values of a meter (SML 1.04, 5.1.15), borrowed.

use super::element::{self, ElementError, Value};
use super::quirks::Quirks;
use super::status::StatusWord;
use super::time::SmlTime;
use crate::bytes::Reader;
use crate::metering::{ObisCode, Quantity, Unit};

/// Elements of SML_GetList.Res, and of an entry.
const ELEMENTS: usize = 7;
/// The TL field of an entry.
const ENTRY_TL: u8 = 0x77;

/// A value list as it stands.
#[derive(Debug, Clone, Copy)]
pub struct GetListResponse<'a> {
    pub client_id: Option<&'a [u8]>,
    /// Empty when it is absent, which the standard forbids.
    pub server_id: &'a [u8],
    /// Normally 1-0:98.10.255*255, the present values.
    pub list_name: Option<&'a [u8]>,
    /// The meter's clock.
    pub act_sensor_time: Option<SmlTime>,
    pub list_signature: Option<&'a [u8]>,
    /// The clock of a gateway between the meter and us.
    pub act_gateway_time: Option<SmlTime>,
    values: ValueList<'a>,
}

/// Where the entries are and how many.
#[derive(Debug, Clone, Copy)]
struct ValueList<'a> {
    reader: Reader<'a>,
    len: usize,
    quirks: Quirks,
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub code: ObisCode,
    pub status: Option<StatusWord>,
    pub val_time: Option<SmlTime>,
    /// 0 counts as none.
    pub unit: Option<Unit>,
    pub scaler: Option<i8>,
    pub value: Value<'a>,
    pub signature: Option<&'a [u8]>,
}

/// Why an entry cannot be used. The others can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    #[error(transparent)]
    Element(#[from] ElementError),
    #[error("a name of {octets} octets is no obis code")]
    Name { octets: usize },
}

/// Iterates over the entries of a value list.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    reader: Reader<'a>,
    left: usize,
    quirks: Quirks,
}

impl<'a> GetListResponse<'a> {
    pub fn entries(&self) -> Entries<'a> {
        let ValueList { reader, len, quirks } = self.values;
        Entries { reader, left: len, quirks }
    }

    pub(super) fn read(reader: &mut Reader<'a>, quirks: Quirks) -> Result<Self, ElementError> {
        element::list_of(reader, ELEMENTS)?;
        Ok(Self {
            client_id: element::optional_octets(reader)?,
            server_id: element::octets(reader)?,
            list_name: element::optional_octets(reader)?,
            act_sensor_time: SmlTime::read_optional(reader, quirks)?,
            values: ValueList::read(reader, quirks)?,
            list_signature: element::optional_octets(reader)?,
            act_gateway_time: SmlTime::read_optional(reader, quirks)?,
        })
    }
}

impl<'a> ValueList<'a> {
    /// Steps over the list, so that there are as many entries as it says.
    fn read(reader: &mut Reader<'a>, quirks: Quirks) -> Result<Self, ElementError> {
        let stated = element::list(reader)?;
        let start = *reader;
        let mut len = 0;
        let is_there = |reader: &Reader<'_>, len: usize| {
            if quirks.list_length_by_content { reader.peek() == Some(ENTRY_TL) } else { len < stated }
        };
        while is_there(reader, len) {
            element::skip(reader)?;
            len += 1;
        }
        Ok(Self { reader: start, len, quirks })
    }
}

impl<'a> Entries<'a> {
    fn entry(&mut self) -> Result<Entry<'a>, EntryError> {
        let reader = &mut self.reader;
        element::list_of(reader, ELEMENTS)?;
        let name = element::octets(reader)?;
        let code = name.try_into().map(ObisCode).map_err(|_| EntryError::Name { octets: name.len() });
        let status = if element::take_absent(reader) { None } else { Some(StatusWord(element::unsigned(reader, 8)?)) };
        let val_time = SmlTime::read_optional(reader, self.quirks)?;
        let unit = if element::take_absent(reader) { None } else { Some(element::unsigned8(reader)?) };
        let scaler = if element::take_absent(reader) { None } else { Some(element::integer(reader, 1)? as i8) };
        let value = Value::read(reader, self.quirks)?;
        let signature = element::optional_octets(reader)?;
        let unit = unit.filter(|&unit| unit != 0).map(Unit);
        Ok(Entry { code: code?, status, val_time, unit, scaler, value, signature })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, EntryError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let start = self.reader;
        let entry = self.entry();
        if entry.is_err() {
            self.reader = start;
            if element::skip(&mut self.reader).is_err() {
                self.left = 0;
            }
        }
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

impl<'a> Entry<'a> {
    /// A name and a value, and nothing more.
    pub const fn new(code: ObisCode, value: Value<'a>) -> Self {
        Self { code, status: None, val_time: None, unit: None, scaler: None, value, signature: None }
    }

    /// The value as a quantity, where it is a number with a unit; `None` when it is not, or does not fit 63 bits.
    #[inline]
    pub fn quantity(&self) -> Option<Quantity> {
        let mantissa = match self.value {
            Value::Integer { value, .. } => value,
            Value::Unsigned { value, .. } => i64::try_from(value).ok()?,
            _ => return None,
        };
        Some(Quantity::new(mantissa, self.scaler.unwrap_or(0), self.unit?))
    }
}
