//! Elements: a type-length field and what it announces (SML 1.04, 6.1 to 6.3).
//!
//! ```text
//! TL octet: more follow (1 bit) | type (3 bits) | length (4 bits)
//! type: 0 octet string, 4 boolean, 5 integer, 6 unsigned, 7 list
//! ```
//!
//! Further TL octets have four more bits of the length each. The length of a list is the number of its elements, of anything else
//! the number of octets including the TL field. Meters write integers as short as they can be: one to eight octets.
//! An optional element that is absent is an empty octet string, `01`.

use std::fmt;

use super::quirks::Quirks;
use super::time::SmlTime;
use crate::bytes::{Reader, Truncated};

/// How deep lists may be nested. A profile, the deepest of the usual responses, has nine levels.
pub const DEPTH_MAX: u8 = 16;

/// TL octets of one field: lengths of 16 bits, more than a file has.
const TL_OCTETS_MAX: usize = 4;

/// `01`: an optional element that is not there.
const ABSENT: u8 = 0x01;

/// `00`: the end of a message, the only octet that announces nothing.
pub(super) const END_OF_MESSAGE: u8 = 0x00;

/// What a TL field announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    OctetString,
    Boolean,
    Integer,
    Unsigned,
    List,
}

/// Why octets are not what must stand there. Offsets count from the start of the content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElementError {
    #[error(transparent)]
    Truncated(#[from] Truncated),
    #[error("tl octet {octet:#04x} at offset {offset} is reserved")]
    Reserved { offset: usize, octet: u8 },
    /// More TL octets than a length of 16 bits needs, or a length that does not even cover them.
    #[error("the tl field at offset {offset} states no possible length")]
    Length { offset: usize },
    #[error("{found} at offset {offset}, where {expected} must stand")]
    Type { offset: usize, found: ElementType, expected: ElementType },
    #[error("a list of {found} at offset {offset}, where one of {expected} must stand")]
    Count { offset: usize, found: usize, expected: usize },
    #[error("a number of {octets} octets at offset {offset}")]
    Width { offset: usize, octets: usize },
    #[error("lists are nested deeper than {DEPTH_MAX} at offset {offset}")]
    Depth { offset: usize },
    #[error("a time at offset {offset} has the unknown form {choice}")]
    Time { offset: usize, choice: u64 },
    #[error("a message does not end at offset {offset}")]
    End { offset: usize },
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OctetString => "an octet string",
            Self::Boolean => "a boolean",
            Self::Integer => "an integer",
            Self::Unsigned => "an unsigned",
            Self::List => "a list",
        })
    }
}

/// An SML_Value (definitions V and X).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Octets(&'a [u8]),
    Boolean(bool),
    /// `width`: octets that it was written in, one to eight. It is written in more where it needs them.
    Integer {
        value: i64,
        width: u8,
    },
    Unsigned {
        value: u64,
        width: u8,
    },
    /// SML_ListType, the only choice of SML 1.04.
    Time(SmlTime),
    /// Another list, as its octets: SML 1.05 has values with a time of their own.
    List(&'a [u8]),
}

/// A TL field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TypeLength {
    pub(super) element: ElementType,
    /// Octets after the TL field, or elements of a list.
    pub(super) length: usize,
}

#[inline]
pub(super) fn type_length(reader: &mut Reader<'_>) -> Result<TypeLength, ElementError> {
    let offset = reader.offset();
    let first = reader.u8()?;
    let element = match first & 0x70 {
        0x00 => ElementType::OctetString,
        0x40 => ElementType::Boolean,
        0x50 => ElementType::Integer,
        0x60 => ElementType::Unsigned,
        0x70 => ElementType::List,
        _ => return Err(ElementError::Reserved { offset, octet: first }),
    };
    let mut length = usize::from(first & 0x0f);
    let (mut last, mut octets) = (first, 1);
    while last & 0x80 != 0 {
        let offset = reader.offset();
        last = reader.u8()?;
        octets += 1;
        if last & 0x70 != 0 {
            return Err(ElementError::Reserved { offset, octet: last });
        }
        if octets > TL_OCTETS_MAX {
            return Err(ElementError::Length { offset });
        }
        length = length << 4 | usize::from(last & 0x0f);
    }
    if element != ElementType::List {
        length = length.checked_sub(octets).ok_or(ElementError::Length { offset })?;
    }
    Ok(TypeLength { element, length })
}

/// Takes an absent element, if it is one.
#[inline]
pub(super) fn take_absent(reader: &mut Reader<'_>) -> bool {
    reader.peek() == Some(ABSENT) && reader.u8().is_ok()
}

/// The length of an element that must be of this type.
#[inline]
fn expect(reader: &mut Reader<'_>, expected: ElementType) -> Result<usize, ElementError> {
    let offset = reader.offset();
    let TypeLength { element, length } = type_length(reader)?;
    if element == expected { Ok(length) } else { Err(ElementError::Type { offset, found: element, expected }) }
}

/// The number of elements of a list.
pub(super) fn list(reader: &mut Reader<'_>) -> Result<usize, ElementError> {
    expect(reader, ElementType::List)
}

/// A list of so many elements.
#[inline]
pub(super) fn list_of(reader: &mut Reader<'_>, expected: usize) -> Result<(), ElementError> {
    let offset = reader.offset();
    match list(reader)? {
        found if found == expected => Ok(()),
        found => Err(ElementError::Count { offset, found, expected }),
    }
}

/// An octet string; empty when it is absent.
#[inline]
pub(super) fn octets<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], ElementError> {
    let length = expect(reader, ElementType::OctetString)?;
    Ok(reader.take(length)?)
}

/// An octet string that may be absent.
#[inline]
pub(super) fn optional_octets<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, ElementError> {
    octets(reader).map(|octets| Some(octets).filter(|octets| !octets.is_empty()))
}

/// An unsigned of up to `width_max` octets.
#[inline]
pub(super) fn unsigned(reader: &mut Reader<'_>, width_max: usize) -> Result<u64, ElementError> {
    let offset = reader.offset();
    let octets = expect(reader, ElementType::Unsigned)?;
    let number = number(reader, offset, octets, width_max)?;
    Ok(unsigned_of(number))
}

/// A signed integer of up to `width_max` octets.
#[inline]
pub(super) fn integer(reader: &mut Reader<'_>, width_max: usize) -> Result<i64, ElementError> {
    let offset = reader.offset();
    let octets = expect(reader, ElementType::Integer)?;
    let number = number(reader, offset, octets, width_max)?;
    Ok(integer_of(number))
}

pub(super) fn unsigned8(reader: &mut Reader<'_>) -> Result<u8, ElementError> {
    unsigned(reader, 1).map(|number| number as u8)
}

/// The octets of a number.
#[inline]
fn number<'a>(
    reader: &mut Reader<'a>,
    offset: usize,
    octets: usize,
    width_max: usize,
) -> Result<&'a [u8], ElementError> {
    if octets == 0 || octets > width_max {
        return Err(ElementError::Width { offset, octets });
    }
    Ok(reader.take(octets)?)
}

#[inline]
fn unsigned_of(octets: &[u8]) -> u64 {
    octets.iter().fold(0, |value, &octet| value << 8 | u64::from(octet))
}

#[inline]
fn integer_of(octets: &[u8]) -> i64 {
    let sign = if octets.first().is_some_and(|octet| octet & 0x80 != 0) { -1 } else { 0 };
    octets.iter().fold(sign, |value, &octet| value << 8 | i64::from(octet))
}

/// Steps over an element, whatever it is.
#[inline]
pub(super) fn skip(reader: &mut Reader<'_>) -> Result<(), ElementError> {
    skip_at(reader, 0)
}

fn skip_at(reader: &mut Reader<'_>, depth: u8) -> Result<(), ElementError> {
    let offset = reader.offset();
    if reader.peek() == Some(END_OF_MESSAGE) {
        reader.u8()?;
        return Ok(());
    }
    match type_length(reader)? {
        TypeLength { element: ElementType::List, .. } if depth == DEPTH_MAX => Err(ElementError::Depth { offset }),
        // Each element has an octet at least, so a length that is not true ends at the end of the octets.
        TypeLength { element: ElementType::List, length } => (0..length).try_for_each(|_| skip_at(reader, depth + 1)),
        TypeLength { length, .. } => {
            reader.take(length)?;
            Ok(())
        }
    }
}

impl<'a> Value<'a> {
    /// The value as it was sent, without its TL field; of a boolean 0 or 1, of a time nothing.
    pub fn to_octets(self) -> Vec<u8> {
        let number =
            |octets: [u8; 8], width: u8| octets.get(8usize.saturating_sub(width.into())..).unwrap_or_default().to_vec();
        match self {
            Self::Octets(octets) | Self::List(octets) => octets.to_vec(),
            Self::Boolean(is_set) => vec![is_set.into()],
            Self::Integer { value, width } => number(value.to_be_bytes(), width),
            Self::Unsigned { value, width } => number(value.to_be_bytes(), width),
            Self::Time(_) => Vec::new(),
        }
    }

    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>, quirks: Quirks) -> Result<Self, ElementError> {
        let start = *reader;
        let offset = start.offset();
        let TypeLength { element, length } = type_length(reader)?;
        Ok(match element {
            ElementType::OctetString => Self::Octets(reader.take(length)?),
            ElementType::Boolean => Self::Boolean(number(reader, offset, length, 1)? != [0u8]),
            ElementType::Integer => {
                let octets = number(reader, offset, length, 8)?;
                Self::Integer { value: integer_of(octets), width: octets.len() as u8 }
            }
            ElementType::Unsigned => {
                let octets = number(reader, offset, length, 8)?;
                Self::Unsigned { value: unsigned_of(octets), width: octets.len() as u8 }
            }
            ElementType::List => {
                *reader = start;
                skip(reader)?;
                let octets = start.rest().get(..reader.offset() - offset).unwrap_or_default();
                Self::list(start, quirks).unwrap_or(Self::List(octets))
            }
        })
    }

    /// The list that is a time: the choice 1 and an SML_Time.
    fn list(mut reader: Reader<'a>, quirks: Quirks) -> Option<Self> {
        list_of(&mut reader, 2).ok()?;
        (unsigned8(&mut reader) == Ok(1)).then_some(())?;
        SmlTime::read(&mut reader, quirks).ok().map(Self::Time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(octets: &[u8]) -> Result<Value<'_>, ElementError> {
        let mut reader = Reader::new(octets);
        let value = Value::read(&mut reader, Quirks::NONE);
        assert!(value.is_err() || reader.is_empty(), "{} left", reader.rest().len());
        value
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what may be an error")]
    fn signed(value: i64, width: u8) -> Result<Value<'static>, ElementError> {
        Ok(Value::Integer { value, width })
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what may be an error")]
    fn positive(value: u64, width: u8) -> Result<Value<'static>, ElementError> {
        Ok(Value::Unsigned { value, width })
    }

    #[test]
    fn every_type_is_read() {
        assert_eq!(value(&[0x01]), Ok(Value::Octets(b"")));
        assert_eq!(value(b"\x04EMH"), Ok(Value::Octets(b"EMH")));
        assert_eq!(value(&[0x42, 0x00]), Ok(Value::Boolean(false)));
        assert_eq!(value(&[0x42, 0xff]), Ok(Value::Boolean(true)));
        assert_eq!(value(&[0x52, 0xff]), signed(-1, 1));
        assert_eq!(value(&[0x53, 0xd6, 0xca]), signed(-10_550, 2));
        assert_eq!(value(&[0x54, 0x00, 0x80, 0x25]), signed(32_805, 3));
        assert_eq!(value(&[0x59, 0x80, 0, 0, 0, 0, 0, 0, 0]), signed(i64::MIN, 8));
        assert_eq!(value(&[0x62, 0xff]), positive(255, 1));
        assert_eq!(value(&[0x64, 0x1c, 0x01, 0x04]), positive(0x1c_0104, 3));
        assert_eq!(value(&[0x69, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), positive(u64::MAX, 8));
        let time = [0x72, 0x62, 0x01, 0x72, 0x62, 0x01, 0x62, 0x2a];
        assert_eq!(value(&time), Ok(Value::Time(SmlTime::SecIndex(42))));
        let other = [0x72, 0x62, 0x03, 0x72, 0x52, 0x00, 0x62, 0x1e];
        assert_eq!(value(&other), Ok(Value::List(&other)));
    }

    #[test]
    fn long_lengths_have_more_octets() {
        let mut key = vec![0x83, 0x02];
        key.extend([7; 48]);
        assert_eq!(value(&key), Ok(Value::Octets(&[7; 48])));
        let mut text = vec![0x80, 0x80, 0x83, 0x04];
        text.extend([7; 48]);
        assert_eq!(value(&text), Ok(Value::Octets(&[7; 48])));
        let mut reader = Reader::new(&[0xf1, 0x0e]);
        assert_eq!(list(&mut reader), Ok(30), "the elements of a list, however many TL octets it has");
    }

    #[test]
    fn what_is_no_element_is_refused() {
        for octets in [&[0x12, 0][..], &[0x22, 0], &[0x32, 0], &[0x83, 0x12]] {
            assert!(matches!(value(octets), Err(ElementError::Reserved { .. })), "{octets:02x?}");
        }
        for octets in [&[0x00][..], &[0x80, 0x01], &[0x60], &[0x81, 0x80, 0x80, 0x80, 0x01]] {
            assert!(matches!(value(octets), Err(ElementError::Length { .. })), "{octets:02x?}");
        }
        for octets in [&[0x51][..], &[0x61], &[0x41], &[0x43, 0, 0], &[0x5a, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(matches!(value(octets), Err(ElementError::Width { .. })), "{octets:02x?}");
        }
        for octets in [&[][..], &[0x02], &[0x83], &[0x65, 0, 0], &[0x72, 0x01], &[0xff, 0x0f, 0x01]] {
            assert!(matches!(value(octets), Err(ElementError::Truncated(_))), "{octets:02x?}");
        }
    }

    #[test]
    fn an_element_of_another_type_is_named() {
        let error = unsigned(&mut Reader::new(&[0x52, 0x01]), 1).unwrap_err();
        assert_eq!(error.to_string(), "an integer at offset 0, where an unsigned must stand");
        let error = list_of(&mut Reader::new(&[0x76]), 7).unwrap_err();
        assert_eq!(error.to_string(), "a list of 6 at offset 0, where one of 7 must stand");
    }

    // Negative control: compare with `DEPTH_MAX + 1` in `skip_at`.
    #[test]
    fn lists_are_nested_so_deep_and_no_deeper() {
        let nested = |depth: u8| [vec![0x71; usize::from(depth)], vec![0x01]].concat();
        assert_eq!(skip(&mut Reader::new(&nested(DEPTH_MAX))), Ok(()));
        let too_deep = nested(DEPTH_MAX + 1);
        assert_eq!(skip(&mut Reader::new(&too_deep)), Err(ElementError::Depth { offset: 16 }));
    }

    proptest! {
        #[test]
        fn numbers_of_any_width_are_exact(number: i64, width in 1..=8usize) {
            let octets = &number.to_be_bytes()[8 - width..];
            let shift = 64 - 8 * width as u32;
            let tl = |element: u8| [&[element | (width as u8 + 1)][..], octets].concat();
            let (integer, unsigned) = (tl(0x50), tl(0x60));
            prop_assert_eq!(value(&integer), signed(number << shift >> shift, width as u8));
            prop_assert_eq!(value(&unsigned), positive((number as u64) << shift >> shift, width as u8));
        }

        #[test]
        fn what_can_be_read_can_be_stepped_over(octets: Vec<u8>) {
            let (mut read, mut skipped) = (Reader::new(&octets), Reader::new(&octets));
            if Value::read(&mut read, Quirks::NONE).is_ok() {
                prop_assert_eq!(skip(&mut skipped), Ok(()));
                prop_assert_eq!(read.offset(), skipped.offset());
            }
        }
    }
}
