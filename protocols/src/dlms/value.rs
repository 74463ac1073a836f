//! Owned values: what a server or a test says.

use super::axdr::{Limits, fixed_size, is_string, read_length, tag, write_length};
use super::data::{Data, Sequence};
use super::datetime::{Date, DateTime, Time};
use crate::bytes::Reader;
use crate::metering::ObisCode;

/// The owned counterpart of [`Data`].
#[derive(Debug, Clone, PartialEq)]
pub enum DataValue {
    Null,
    Array(Vec<DataValue>),
    Structure(Vec<DataValue>),
    Boolean(bool),
    /// Bit 0 is the most significant of the first octet; as many octets as `bits` needs are sent.
    BitString {
        bits: usize,
        octets: Vec<u8>,
    },
    DoubleLong(i32),
    DoubleLongUnsigned(u32),
    OctetString(Vec<u8>),
    VisibleString(Vec<u8>),
    Utf8String(Vec<u8>),
    Bcd(u8),
    Integer(i8),
    Long(i16),
    Unsigned(u8),
    LongUnsigned(u16),
    CompactArray(CompactArray),
    Long64(i64),
    Long64Unsigned(u64),
    Enum(u8),
    Float32(f32),
    Float64(f64),
    DateTime(DateTime),
    Date(Date),
    Time(Time),
    DeltaInteger(i8),
    DeltaLong(i16),
    DeltaDoubleLong(i32),
    DeltaUnsigned(u8),
    DeltaLongUnsigned(u16),
    DeltaDoubleLongUnsigned(u32),
    DontCare,
}

/// The type of the elements of a compact array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeDescription {
    /// A tag of [`tag`] that is neither array, structure nor compact array.
    Simple(u8),
    Array {
        len: u16,
        element: Box<TypeDescription>,
    },
    Structure(Vec<TypeDescription>),
}

/// Elements of one type, sent without tags.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactArray {
    element: TypeDescription,
    elements: Vec<DataValue>,
}

/// Why values make no compact array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompactArrayError {
    #[error("element {index} is not of the described type")]
    Type { index: usize },
    /// Nobody could tell how many there are.
    #[error("elements of this type take no octets")]
    Empty,
    /// Too deep, or a type that no description may hold.
    #[error("no such type description")]
    Description,
}

impl TypeDescription {
    /// The type of a value; `None` for compact arrays and for arrays of different or no elements.
    pub fn of(value: &DataValue) -> Option<Self> {
        match value {
            DataValue::CompactArray(_) => None,
            DataValue::Array(elements) => {
                let mut types = elements.iter().map(Self::of);
                let first = types.next()??;
                let same = types.all(|other| other.as_ref() == Some(&first));
                let len = u16::try_from(elements.len()).ok().filter(|_| same)?;
                Some(Self::Array { len, element: Box::new(first) })
            }
            DataValue::Structure(elements) => elements.iter().map(Self::of).collect::<Option<_>>().map(Self::Structure),
            simple => Some(Self::Simple(simple.tag())),
        }
    }

    fn fits(&self, value: &DataValue) -> bool {
        match (self, value) {
            (_, DataValue::CompactArray(_)) => false,
            (Self::Array { len, element }, DataValue::Array(values)) => {
                values.len() == usize::from(*len) && values.iter().all(|value| element.fits(value))
            }
            (Self::Structure(types), DataValue::Structure(values)) => {
                types.len() == values.len() && types.iter().zip(values).all(|(kind, value)| kind.fits(value))
            }
            (Self::Simple(tag), value) => *tag == value.tag(),
            _ => false,
        }
    }

    fn is_sound(&self, depth: u8) -> bool {
        depth > 0
            && match self {
                Self::Simple(tag) => fixed_size(*tag).is_some() || is_string(*tag),
                Self::Array { element, .. } => element.is_sound(depth - 1),
                Self::Structure(types) => types.iter().all(|kind| kind.is_sound(depth - 1)),
            }
    }

    fn takes_octets(&self) -> bool {
        match self {
            Self::Simple(tag) => fixed_size(*tag) != Some(0),
            Self::Array { len, element } => *len > 0 && element.takes_octets(),
            Self::Structure(types) => types.iter().any(Self::takes_octets),
        }
    }

    /// Appends the description.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Simple(tag) => out.push(*tag),
            Self::Array { len, element } => {
                out.push(tag::ARRAY);
                out.extend(len.to_be_bytes());
                element.encode(out);
            }
            Self::Structure(types) => {
                out.push(tag::STRUCTURE);
                write_length(out, types.len());
                for kind in types {
                    kind.encode(out);
                }
            }
        }
    }

    /// Of a description that was checked when its sequence was made.
    fn decode(description: &mut Reader<'_>) -> Self {
        let sound = "a type description is checked when its sequence is made";
        match description.u8().expect(sound) {
            tag::ARRAY => {
                let len = description.u16().expect(sound);
                Self::Array { len, element: Box::new(Self::decode(description)) }
            }
            tag::STRUCTURE => {
                let len = read_length(description).expect(sound);
                Self::Structure((0..len).map(|_| Self::decode(description)).collect())
            }
            tag => Self::Simple(tag),
        }
    }
}

impl CompactArray {
    pub fn new(element: TypeDescription, elements: Vec<DataValue>) -> Result<Self, CompactArrayError> {
        if !element.is_sound(Limits::DEPTH_MAX - 1) {
            return Err(CompactArrayError::Description);
        }
        if !element.takes_octets() {
            return Err(CompactArrayError::Empty);
        }
        match elements.iter().position(|value| !element.fits(value)) {
            Some(index) => Err(CompactArrayError::Type { index }),
            None => Ok(Self { element, elements }),
        }
    }

    pub fn elements(&self) -> &[DataValue] {
        &self.elements
    }
}

impl DataValue {
    /// The encoding of this value alone.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Appends the encoding, tag first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.tag());
        match self {
            Self::Array(values) | Self::Structure(values) => {
                write_length(out, values.len());
                for value in values {
                    value.encode(out);
                }
            }
            Self::CompactArray(CompactArray { element, elements }) => {
                element.encode(out);
                let mut contents = Vec::new();
                for value in elements {
                    value.encode_contents(&mut contents);
                }
                write_length(out, contents.len());
                out.extend(contents);
            }
            simple => simple.encode_contents(out),
        }
    }

    /// What stands in the contents of a compact array: no tag, and containers without their counts.
    fn encode_contents(&self, out: &mut Vec<u8>) {
        match self {
            Self::Array(values) | Self::Structure(values) => {
                for value in values {
                    value.encode_contents(out);
                }
            }
            // `CompactArray::new` lets none in, and `encode` does not come here with one.
            Self::Null | Self::DontCare | Self::CompactArray(_) => (),
            Self::BitString { bits, octets } => {
                write_length(out, *bits);
                out.extend(octets.iter().copied().chain(std::iter::repeat(0)).take(bits.div_ceil(8)));
            }
            Self::OctetString(octets) | Self::VisibleString(octets) | Self::Utf8String(octets) => {
                write_length(out, octets.len());
                out.extend(octets);
            }
            Self::Boolean(value) => out.push(u8::from(*value)),
            Self::Bcd(value) | Self::Unsigned(value) | Self::Enum(value) | Self::DeltaUnsigned(value) => {
                out.push(*value);
            }
            Self::Integer(value) | Self::DeltaInteger(value) => out.push(*value as u8),
            Self::Long(value) | Self::DeltaLong(value) => out.extend(value.to_be_bytes()),
            Self::LongUnsigned(value) | Self::DeltaLongUnsigned(value) => out.extend(value.to_be_bytes()),
            Self::DoubleLong(value) | Self::DeltaDoubleLong(value) => out.extend(value.to_be_bytes()),
            Self::DoubleLongUnsigned(value) | Self::DeltaDoubleLongUnsigned(value) => out.extend(value.to_be_bytes()),
            Self::Long64(value) => out.extend(value.to_be_bytes()),
            Self::Long64Unsigned(value) => out.extend(value.to_be_bytes()),
            Self::Float32(value) => out.extend(value.to_be_bytes()),
            Self::Float64(value) => out.extend(value.to_be_bytes()),
            Self::DateTime(value) => out.extend(value.0),
            Self::Date(value) => out.extend(value.0),
            Self::Time(value) => out.extend(value.0),
        }
    }

    /// The tag of its type.
    pub const fn tag(&self) -> u8 {
        match self {
            Self::Null => tag::NULL,
            Self::Array(_) => tag::ARRAY,
            Self::Structure(_) => tag::STRUCTURE,
            Self::Boolean(_) => tag::BOOLEAN,
            Self::BitString { .. } => tag::BIT_STRING,
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

    /// A date-time as most attributes hold it: in an octet-string.
    pub fn octets_of(date_time: DateTime) -> Self {
        Self::OctetString(date_time.0.to_vec())
    }
}

impl From<ObisCode> for DataValue {
    /// A logical name.
    fn from(obis: ObisCode) -> Self {
        Self::OctetString(obis.0.to_vec())
    }
}

impl From<Data<'_>> for DataValue {
    fn from(data: Data<'_>) -> Self {
        let owned = |elements: Sequence<'_>| elements.iter().map(Self::from).collect();
        match data {
            Data::Null => Self::Null,
            Data::Array(elements) => Self::Array(owned(elements)),
            Data::Structure(elements) => Self::Structure(owned(elements)),
            Data::Boolean(value) => Self::Boolean(value),
            Data::BitString(value) => Self::BitString { bits: value.bits, octets: value.octets.to_vec() },
            Data::DoubleLong(value) => Self::DoubleLong(value),
            Data::DoubleLongUnsigned(value) => Self::DoubleLongUnsigned(value),
            Data::OctetString(octets) => Self::OctetString(octets.to_vec()),
            Data::VisibleString(octets) => Self::VisibleString(octets.to_vec()),
            Data::Utf8String(octets) => Self::Utf8String(octets.to_vec()),
            Data::Bcd(value) => Self::Bcd(value),
            Data::Integer(value) => Self::Integer(value),
            Data::Long(value) => Self::Long(value),
            Data::Unsigned(value) => Self::Unsigned(value),
            Data::LongUnsigned(value) => Self::LongUnsigned(value),
            Data::CompactArray(elements) => Self::CompactArray(CompactArray {
                element: TypeDescription::decode(&mut Reader::new(elements.description())),
                elements: owned(elements),
            }),
            Data::Long64(value) => Self::Long64(value),
            Data::Long64Unsigned(value) => Self::Long64Unsigned(value),
            Data::Enum(value) => Self::Enum(value),
            Data::Float32(value) => Self::Float32(value),
            Data::Float64(value) => Self::Float64(value),
            Data::DateTime(value) => Self::DateTime(value),
            Data::Date(value) => Self::Date(value),
            Data::Time(value) => Self::Time(value),
            Data::DeltaInteger(value) => Self::DeltaInteger(value),
            Data::DeltaLong(value) => Self::DeltaLong(value),
            Data::DeltaDoubleLong(value) => Self::DeltaDoubleLong(value),
            Data::DeltaUnsigned(value) => Self::DeltaUnsigned(value),
            Data::DeltaLongUnsigned(value) => Self::DeltaLongUnsigned(value),
            Data::DeltaDoubleLongUnsigned(value) => Self::DeltaDoubleLongUnsigned(value),
            Data::DontCare => Self::DontCare,
        }
    }
}
