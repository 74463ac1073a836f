//! One value of the `Data` choice of IEC 62056-5-3, borrowed from the octets that encode it.
//!
//! [`Data::decode`] checks a value to its last octet, containers and all, before it hands out anything; after that, walking
//! through [`Sequence`]s cannot fail and allocates nothing. [`super::value::DataValue`] is the owned tree for those who make
//! values.

use super::axdr::{AxdrError, Budget, Limits, read_length, tag};
use super::datetime::{Date, DateTime, Time};
use crate::bytes::Reader;
use crate::metering::ObisCode;

/// A value as it stands in an APDU. Strings and containers point into the octets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Data<'a> {
    Null,
    Array(Sequence<'a>),
    Structure(Sequence<'a>),
    Boolean(bool),
    BitString(BitString<'a>),
    DoubleLong(i32),
    DoubleLongUnsigned(u32),
    OctetString(&'a [u8]),
    VisibleString(&'a [u8]),
    Utf8String(&'a [u8]),
    /// Two decimal digits, not checked.
    Bcd(u8),
    Integer(i8),
    Long(i16),
    Unsigned(u8),
    LongUnsigned(u16),
    /// An array whose elements share one type description; they read like those of [`Data::Array`].
    CompactArray(Sequence<'a>),
    Long64(i64),
    Long64Unsigned(u64),
    Enum(u8),
    Float32(f32),
    Float64(f64),
    DateTime(DateTime),
    Date(Date),
    Time(Time),
    /// The difference to the value above in the same column; so are the five below.
    DeltaInteger(i8),
    DeltaLong(i16),
    DeltaDoubleLong(i32),
    DeltaUnsigned(u8),
    DeltaLongUnsigned(u16),
    DeltaDoubleLongUnsigned(u32),
    DontCare,
}

/// Bits as the standard counts them: bit 0 is the most significant of the first octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitString<'a> {
    /// How many bits; the last octet may hold more.
    pub bits: usize,
    pub octets: &'a [u8],
}

impl BitString<'_> {
    /// `None` beyond the end.
    pub fn bit(&self, index: usize) -> Option<bool> {
        let octet = self.octets.get(index / 8).filter(|_| index < self.bits)?;
        Some(octet & (0x80 >> (index % 8)) != 0)
    }
}

/// The elements of an array or structure, checked to the last octet when it was made.
#[derive(Clone, Copy)]
pub struct Sequence<'a> {
    values: &'a [u8],
    types: &'a [u8],
    len: u32,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Each element begins with its tag; `types` is empty.
    Tagged,
    /// Elements without tags; `types` describes them one after the other.
    Each,
    /// Elements without tags; `types` describes every one of them.
    Same,
}

impl<'a> Sequence<'a> {
    pub const EMPTY: Self = Self { values: &[], types: &[], len: 0, form: Form::Tagged };

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn iter(&self) -> Elements<'a> {
        Elements { values: Reader::new(self.values), types: Reader::new(self.types), left: self.len, form: self.form }
    }

    /// The type description of the elements of a compact array.
    pub(crate) fn description(&self) -> &'a [u8] {
        self.types
    }

    /// The element at `index`; walks over those before it.
    pub fn at(&self, index: usize) -> Option<Data<'a>> {
        self.iter().nth(index)
    }

    /// All elements of a structure that must have exactly `N`.
    pub fn exactly<const N: usize>(&self) -> Option<[Data<'a>; N]> {
        if self.len() != N {
            return None;
        }
        let mut elements = self.iter();
        let mut all = [Data::Null; N];
        for slot in &mut all {
            *slot = elements.next()?;
        }
        Some(all)
    }
}

impl PartialEq for Sequence<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for Sequence<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Sequence<'a> {
    type Item = Data<'a>;
    type IntoIter = Elements<'a>;

    fn into_iter(self) -> Elements<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Sequence<'a> {
    type Item = Data<'a>;
    type IntoIter = Elements<'a>;

    fn into_iter(self) -> Elements<'a> {
        self.iter()
    }
}

/// Walks a [`Sequence`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    values: Reader<'a>,
    types: Reader<'a>,
    left: u32,
    form: Form,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Data<'a>;

    fn next(&mut self) -> Option<Data<'a>> {
        let mut data = Data::Null;
        self.next_into(&mut data).then_some(data)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Elements<'_> {}

impl<'a> Elements<'a> {
    /// As `next`, but writes the element where it is to stay; false after the last.
    pub(crate) fn next_into(&mut self, slot: &mut Data<'a>) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        let mut budget = Budget::CHECKED;
        let decoded = match self.form {
            Form::Tagged if left == 0 => last_tagged(&mut self.values, &mut budget, slot),
            Form::Tagged => tagged(&mut self.values, &mut budget, slot),
            Form::Each => untagged(&mut self.types, &mut self.values, &mut budget, slot),
            Form::Same => untagged(&mut self.types.clone(), &mut self.values, &mut budget, slot),
        };
        decoded.expect("a sequence is checked when it is made");
        true
    }

    /// The tag of the next element.
    pub(crate) fn peek_tag(&self) -> Option<u8> {
        if self.form == Form::Tagged { self.values.peek() } else { self.types.peek() }
    }
}

impl<'a> Data<'a> {
    /// Reads one complete value; what follows it stays in `reader`.
    pub fn decode(reader: &mut Reader<'a>, limits: Limits) -> Result<Self, AxdrError> {
        let mut data = Data::Null;
        let mut budget = Budget::new(limits);
        budget.spend(1, reader.offset())?;
        tagged(reader, &mut budget, &mut data)?;
        Ok(data)
    }

    /// Reads the one value at the front of `bytes` under the default limits. Octets after it are no error: some meters send
    /// surplus ones.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, AxdrError> {
        Self::decode(&mut Reader::new(bytes), Limits::DEFAULT)
    }

    /// The tag of its type.
    pub const fn tag(&self) -> u8 {
        match self {
            Self::Null => tag::NULL,
            Self::Array(_) => tag::ARRAY,
            Self::Structure(_) => tag::STRUCTURE,
            Self::Boolean(_) => tag::BOOLEAN,
            Self::BitString(_) => tag::BIT_STRING,
            Self::DoubleLong(_) => tag::DOUBLE_LONG,
            Self::DoubleLongUnsigned(_) => tag::DOUBLE_LONG_UNSIGNED,
            Self::OctetString(_) => tag::OCTET_STRING,
            Self::VisibleString(_) => tag::VISIBLE_STRING,
            Self::Utf8String(_) => tag::UTF8_STRING,
            Self::Bcd(_) => tag::BCD,
            Self::Integer(_) => tag::INTEGER,
            Self::Long(_) => tag::LONG,
            Self::Unsigned(_) => tag::UNSIGNED,
            Self::LongUnsigned(_) => tag::LONG_UNSIGNED,
            Self::CompactArray(_) => tag::COMPACT_ARRAY,
            Self::Long64(_) => tag::LONG64,
            Self::Long64Unsigned(_) => tag::LONG64_UNSIGNED,
            Self::Enum(_) => tag::ENUM,
            Self::Float32(_) => tag::FLOAT32,
            Self::Float64(_) => tag::FLOAT64,
            Self::DateTime(_) => tag::DATE_TIME,
            Self::Date(_) => tag::DATE,
            Self::Time(_) => tag::TIME,
            Self::DeltaInteger(_) => tag::DELTA_INTEGER,
            Self::DeltaLong(_) => tag::DELTA_LONG,
            Self::DeltaDoubleLong(_) => tag::DELTA_DOUBLE_LONG,
            Self::DeltaUnsigned(_) => tag::DELTA_UNSIGNED,
            Self::DeltaLongUnsigned(_) => tag::DELTA_LONG_UNSIGNED,
            Self::DeltaDoubleLongUnsigned(_) => tag::DELTA_DOUBLE_LONG_UNSIGNED,
            Self::DontCare => tag::DONT_CARE,
        }
    }

    /// The elements of an array (compact or not) or structure.
    pub const fn elements(&self) -> Option<Sequence<'a>> {
        match *self {
            Self::Array(elements) | Self::Structure(elements) | Self::CompactArray(elements) => Some(elements),
            _ => None,
        }
    }

    /// The elements of an array, compact or not.
    pub const fn array(&self) -> Option<Sequence<'a>> {
        match *self {
            Self::Array(elements) | Self::CompactArray(elements) => Some(elements),
            _ => None,
        }
    }

    pub const fn structure(&self) -> Option<Sequence<'a>> {
        match *self {
            Self::Structure(elements) => Some(elements),
            _ => None,
        }
    }

    /// Any integer type, booleans, enums and deltas excluded; `None` too for what fits no `i64`.
    pub fn integer(&self) -> Option<i64> {
        match *self {
            Self::DoubleLong(value) => Some(i64::from(value)),
            Self::DoubleLongUnsigned(value) => Some(i64::from(value)),
            Self::Integer(value) => Some(i64::from(value)),
            Self::Long(value) => Some(i64::from(value)),
            Self::Unsigned(value) => Some(i64::from(value)),
            Self::LongUnsigned(value) => Some(i64::from(value)),
            Self::Long64(value) => Some(value),
            Self::Long64Unsigned(value) => i64::try_from(value).ok(),
            _ => None,
        }
    }

    /// What a delta type adds to the value above it.
    pub fn delta(&self) -> Option<i64> {
        match *self {
            Self::DeltaInteger(value) => Some(i64::from(value)),
            Self::DeltaLong(value) => Some(i64::from(value)),
            Self::DeltaDoubleLong(value) => Some(i64::from(value)),
            Self::DeltaUnsigned(value) => Some(i64::from(value)),
            Self::DeltaLongUnsigned(value) => Some(i64::from(value)),
            Self::DeltaDoubleLongUnsigned(value) => Some(i64::from(value)),
            _ => None,
        }
    }

    /// The octets of any string type.
    pub const fn octets(&self) -> Option<&'a [u8]> {
        match *self {
            Self::OctetString(octets) | Self::VisibleString(octets) | Self::Utf8String(octets) => Some(octets),
            _ => None,
        }
    }

    /// A logical name: an octet-string of six.
    pub fn obis(&self) -> Option<ObisCode> {
        match *self {
            Self::OctetString(octets) => octets.try_into().ok().map(ObisCode),
            _ => None,
        }
    }

    /// A date-time of its own type, or, as most attributes have it, in an octet-string of twelve.
    pub fn date_time(&self) -> Option<DateTime> {
        match *self {
            Self::DateTime(date_time) => Some(date_time),
            Self::OctetString(octets) => octets.try_into().ok().map(DateTime),
            _ => None,
        }
    }
}

/// Decoding writes in place: a value that is copied right after it was put together piece by piece makes the processor wait,
/// which took longer than decoding it.
#[inline]
fn tagged<'a>(reader: &mut Reader<'a>, budget: &mut Budget, slot: &mut Data<'a>) -> Result<(), AxdrError> {
    let offset = reader.offset();
    let tag = reader.u8()?;
    match tag {
        tag::ARRAY => *slot = Data::Array(tagged_elements(reader, budget)?),
        tag::STRUCTURE => *slot = Data::Structure(tagged_elements(reader, budget)?),
        tag::COMPACT_ARRAY => {
            let (types, values, len) = budget.compact_array(reader)?;
            *slot = Data::CompactArray(Sequence { values, types, len, form: Form::Same });
        }
        _ => simple(reader, tag, offset, slot)?,
    }
    Ok(())
}

/// The last element of a sequence that was checked. Whatever is left is of it, so nothing has to be walked over to find its end.
#[inline]
fn last_tagged<'a>(reader: &mut Reader<'a>, budget: &mut Budget, slot: &mut Data<'a>) -> Result<(), AxdrError> {
    let Some(tag @ (tag::ARRAY | tag::STRUCTURE)) = reader.peek() else { return tagged(reader, budget, slot) };
    reader.u8()?;
    let len = read_length(reader)? as u32;
    let values = reader.take(reader.rest().len())?;
    let elements = Sequence { values, types: &[], len, form: Form::Tagged };
    *slot = if tag == tag::ARRAY { Data::Array(elements) } else { Data::Structure(elements) };
    Ok(())
}

/// Count and elements after the tag of an array or structure.
fn tagged_elements<'a>(reader: &mut Reader<'a>, budget: &mut Budget) -> Result<Sequence<'a>, AxdrError> {
    let len = read_length(reader)?;
    let (rest, start) = (reader.rest(), reader.offset());
    budget.skip_tagged(reader, len)?;
    let values = rest.get(..reader.offset() - start).unwrap_or_default();
    Ok(Sequence { values, types: &[], len: len as u32, form: Form::Tagged })
}

/// One value whose type stands at the front of `types` and whose contents stand at the front of `values`.
fn untagged<'a>(
    types: &mut Reader<'a>,
    values: &mut Reader<'a>,
    budget: &mut Budget,
    slot: &mut Data<'a>,
) -> Result<(), AxdrError> {
    let offset = types.offset();
    let (mut inner, rest, start) = (*types, values.rest(), values.offset());
    let tag = types.u8()?;
    if !matches!(tag, tag::ARRAY | tag::STRUCTURE) {
        return simple(values, tag, offset, slot);
    }
    budget.skip_untagged(&mut inner, values)?;
    let values = rest.get(..values.offset() - start).unwrap_or_default();
    let (len, form) = match tag {
        tag::ARRAY => (usize::from(types.u16()?), Form::Same),
        _ => (read_length(types)?, Form::Each),
    };
    let sequence = Sequence { values, types: types.rest(), len: len as u32, form };
    *types = inner;
    *slot = if tag == tag::ARRAY { Data::Array(sequence) } else { Data::Structure(sequence) };
    Ok(())
}

/// The contents of any type that holds no others.
#[inline]
fn simple<'a>(reader: &mut Reader<'a>, tag: u8, offset: usize, slot: &mut Data<'a>) -> Result<(), AxdrError> {
    match tag {
        tag::NULL => *slot = Data::Null,
        tag::BOOLEAN => *slot = Data::Boolean(reader.u8()? != 0),
        tag::BIT_STRING => {
            let bits = read_length(reader)?;
            *slot = Data::BitString(BitString { bits, octets: reader.take(bits.div_ceil(8))? });
        }
        tag::DOUBLE_LONG => *slot = Data::DoubleLong(reader.u32()? as i32),
        tag::DOUBLE_LONG_UNSIGNED => *slot = Data::DoubleLongUnsigned(reader.u32()?),
        tag::OCTET_STRING => *slot = Data::OctetString(string(reader)?),
        tag::VISIBLE_STRING => *slot = Data::VisibleString(string(reader)?),
        tag::UTF8_STRING => *slot = Data::Utf8String(string(reader)?),
        tag::BCD => *slot = Data::Bcd(reader.u8()?),
        tag::INTEGER => *slot = Data::Integer(reader.u8()? as i8),
        tag::LONG => *slot = Data::Long(reader.u16()? as i16),
        tag::UNSIGNED => *slot = Data::Unsigned(reader.u8()?),
        tag::LONG_UNSIGNED => *slot = Data::LongUnsigned(reader.u16()?),
        tag::LONG64 => *slot = Data::Long64(reader.u64()? as i64),
        tag::LONG64_UNSIGNED => *slot = Data::Long64Unsigned(reader.u64()?),
        tag::ENUM => *slot = Data::Enum(reader.u8()?),
        tag::FLOAT32 => *slot = Data::Float32(f32::from_bits(reader.u32()?)),
        tag::FLOAT64 => *slot = Data::Float64(f64::from_bits(reader.u64()?)),
        tag::DATE_TIME => *slot = Data::DateTime(DateTime(reader.array()?)),
        tag::DATE => *slot = Data::Date(Date(reader.array()?)),
        tag::TIME => *slot = Data::Time(Time(reader.array()?)),
        tag::DELTA_INTEGER => *slot = Data::DeltaInteger(reader.u8()? as i8),
        tag::DELTA_LONG => *slot = Data::DeltaLong(reader.u16()? as i16),
        tag::DELTA_DOUBLE_LONG => *slot = Data::DeltaDoubleLong(reader.u32()? as i32),
        tag::DELTA_UNSIGNED => *slot = Data::DeltaUnsigned(reader.u8()?),
        tag::DELTA_LONG_UNSIGNED => *slot = Data::DeltaLongUnsigned(reader.u16()?),
        tag::DELTA_DOUBLE_LONG_UNSIGNED => *slot = Data::DeltaDoubleLongUnsigned(reader.u32()?),
        tag::DONT_CARE => *slot = Data::DontCare,
        _ => return Err(AxdrError::Tag { tag, offset }),
    }
    Ok(())
}

fn string<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], AxdrError> {
    let length = read_length(reader)?;
    Ok(reader.take(length)?)
}

#[cfg(test)]
mod tests;
