//! The value of a record: exact numbers, text, points in time.

use super::record::{Coding, Record};
use super::time::{Civil, TimeType};
use crate::metering::{Quantity, QuantityError, Unit};

/// What stands in the data of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordValue<'a> {
    /// The record holds no data.
    Nothing,
    Integer(i64),
    Real(f32),
    /// As it reads: the last character is sent first.
    Text(String),
    Time(Civil),
    /// More than 63 bits or 18 digits, or bits without a number: as sent.
    Octets(&'a [u8]),
}

/// Why data is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// A digit from A to F: the meter shows that it has no value.
    #[error("the number has the digit {digit:X}")]
    Digit { digit: u8 },
    /// The most negative number, which stands for no value (EN 13757-3, type B), or a float that is none.
    #[error("the meter marks the number as invalid")]
    Invalid,
    /// No type of time has this length.
    #[error("{len} octets are no point in time")]
    TimeLength { len: usize },
}

impl<'a> Record<'a> {
    /// The value of a number or a text.
    pub fn value(&self) -> Result<RecordValue<'a>, ValueError> {
        self.value_by(integer)
    }

    /// The same where the number has no sign: [`Meaning::is_unsigned`](super::Meaning::is_unsigned).
    pub fn unsigned_value(&self) -> Result<RecordValue<'a>, ValueError> {
        self.value_by(|data| Ok(unsigned(data)))
    }

    fn value_by(
        &self,
        integer: impl Fn(&'a [u8]) -> Result<RecordValue<'a>, ValueError>,
    ) -> Result<RecordValue<'a>, ValueError> {
        let data = self.data;
        match (self.coding, self.variable_length.unwrap_or_default()) {
            (Coding::None | Coding::Selection, _) => Ok(RecordValue::Nothing),
            (Coding::Integer(_), _) | (Coding::Variable, 0xe0..=0xef) => integer(data),
            (Coding::Real, _) => real(data),
            (Coding::Bcd(_), _) | (Coding::Variable, 0xc0..=0xc9) => bcd(data, 1),
            (Coding::Variable, 0xd0..=0xd9) => bcd(data, -1),
            (Coding::Variable, 0x00..=0xbf) => Ok(RecordValue::Text(text(data))),
            (Coding::Variable, _) => Ok(RecordValue::Octets(data)),
        }
    }

    /// The point in time that the data is.
    pub fn time(&self) -> Result<RecordValue<'a>, ValueError> {
        if self.data.is_empty() {
            return Ok(RecordValue::Nothing);
        }
        let kind = TimeType::of_len(self.data.len()).ok_or(ValueError::TimeLength { len: self.data.len() })?;
        Ok(RecordValue::Time(kind.decode(self.data)))
    }
}

impl RecordValue<'_> {
    /// The number with its power of ten and unit.
    pub fn quantity(&self, scaler: i8, factor: u16, unit: Unit) -> Option<Result<Quantity, QuantityError>> {
        match self {
            Self::Integer(number) => {
                let mantissa = number.checked_mul(factor.into()).ok_or(QuantityError::Overflow);
                Some(mantissa.map(|mantissa| Quantity::new(mantissa, scaler, unit)))
            }
            Self::Real(number) => {
                let quantity = Quantity::from_f32(*number, scaler, unit);
                Some(quantity.and_then(|quantity| {
                    let mantissa = quantity.mantissa.checked_mul(factor.into()).ok_or(QuantityError::Overflow)?;
                    Ok(Quantity { mantissa, ..quantity })
                }))
            }
            _ => None,
        }
    }
}

/// Type B (EN 13757-3, annex A).
fn integer(data: &[u8]) -> Result<RecordValue<'_>, ValueError> {
    let Some((last, _)) = data.split_last() else { return Ok(RecordValue::Nothing) };
    if data.len() > 8 {
        return Ok(RecordValue::Octets(data));
    }
    let mut octets = [if *last & 0x80 == 0 { 0 } else { 0xff }; 8];
    for (octet, sent) in octets.iter_mut().zip(data) {
        *octet = *sent;
    }
    let number = i64::from_le_bytes(octets);
    if number == i64::MIN >> (64 - 8 * data.len()) {
        return Err(ValueError::Invalid);
    }
    Ok(RecordValue::Integer(number))
}

/// Types C and D (EN 13757-3, annex A).
fn unsigned(data: &[u8]) -> RecordValue<'_> {
    if data.is_empty() {
        return RecordValue::Nothing;
    }
    let mut octets = [0; 8];
    if data.len() > octets.len() {
        return RecordValue::Octets(data);
    }
    for (octet, sent) in octets.iter_mut().zip(data) {
        *octet = *sent;
    }
    i64::try_from(u64::from_le_bytes(octets)).map_or(RecordValue::Octets(data), RecordValue::Integer)
}

fn real(data: &[u8]) -> Result<RecordValue<'_>, ValueError> {
    let &[a, b, c, d] = data else { return Ok(RecordValue::Octets(data)) };
    let number = f32::from_le_bytes([a, b, c, d]);
    if number.is_finite() { Ok(RecordValue::Real(number)) } else { Err(ValueError::Invalid) }
}

/// F as the highest digit is a sign (EN 13757-3, type A).
fn bcd(data: &[u8], sign: i64) -> Result<RecordValue<'_>, ValueError> {
    if data.is_empty() {
        return Ok(RecordValue::Nothing);
    }
    if data.len() > 9 {
        return Ok(RecordValue::Octets(data));
    }
    let digits = data.iter().rev().flat_map(|octet| [octet >> 4, octet & 0x0f]);
    let (mut number, mut sign) = (0, sign);
    for (index, digit) in digits.enumerate() {
        match digit {
            0..=9 => number = number * 10 + i64::from(digit),
            0x0f if index == 0 => sign = -sign,
            digit => return Err(ValueError::Digit { digit }),
        }
    }
    Ok(RecordValue::Integer(sign * number))
}

/// ISO 8859-1, control characters left out.
pub(super) fn text(data: &[u8]) -> String {
    data.iter().rev().map(|&octet| char::from(octet)).filter(|c| !c.is_control()).collect()
}
