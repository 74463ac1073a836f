//! Selective access to a profile buffer: which rows and columns a client wants, and what that means to a server.

use std::ops::Range;

use super::CaptureObject;
use crate::cosem::{AttributeError, integer, structure};
use crate::dlms::data::Data;
use crate::dlms::datetime::DateTime;
use crate::dlms::value::DataValue;

/// The parameters of a selective read of attribute 2.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    Range(RangeDescriptor),
    Entry(EntryDescriptor),
}

/// Selector 1: rows whose restricting object is between two values, both included.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeDescriptor {
    pub restricting_object: CaptureObject,
    /// Of the type of the column: a date-time in an octet-string for a clock, double-long-unsigned for UNIX time.
    pub from: DataValue,
    pub to: DataValue,
    /// Empty: all columns.
    pub selected_values: Vec<CaptureObject>,
}

/// Selector 2: rows by their place in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryDescriptor {
    /// Counted from 1.
    pub from_entry: u32,
    /// 0: the last.
    pub to_entry: u32,
    /// Counted from 1.
    pub from_selected_value: u16,
    /// 0: the last.
    pub to_selected_value: u16,
}

/// Why a selection cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    #[error("profile buffers have no selector {selector}")]
    Selector { selector: u8 },
    #[error("the parameters of the selector are not as the class says")]
    Parameters(#[from] AttributeError),
}

impl Selection {
    /// The access selector and its parameters.
    pub fn encode(&self) -> (u8, DataValue) {
        match self {
            Self::Range(range) => (1, range.encode()),
            Self::Entry(entry) => (2, entry.encode()),
        }
    }

    pub fn decode(selector: u8, parameters: &Data<'_>) -> Result<Self, SelectionError> {
        match selector {
            1 => Ok(Self::Range(RangeDescriptor::decode(parameters)?)),
            2 => Ok(Self::Entry(EntryDescriptor::decode(parameters)?)),
            _ => Err(SelectionError::Selector { selector }),
        }
    }
}

impl RangeDescriptor {
    /// All columns of the rows that the clock labelled from `from` to `to`.
    pub fn clock(from: DateTime, to: DateTime) -> Self {
        Self {
            restricting_object: CaptureObject::CLOCK,
            from: DataValue::octets_of(from),
            to: DataValue::octets_of(to),
            selected_values: Vec::new(),
        }
    }

    fn encode(&self) -> DataValue {
        DataValue::Structure(vec![
            self.restricting_object.encode(),
            self.from.clone(),
            self.to.clone(),
            CaptureObject::encode_list(&self.selected_values),
        ])
    }

    fn decode(parameters: &Data<'_>) -> Result<Self, AttributeError> {
        let [restricting_object, from, to, selected_values] = structure("range_descriptor", parameters)?;
        Ok(Self {
            restricting_object: CaptureObject::decode(&restricting_object)?,
            from: DataValue::from(from),
            to: DataValue::from(to),
            selected_values: CaptureObject::decode_list(&selected_values)?,
        })
    }
}

impl EntryDescriptor {
    /// All columns of the rows from `from_entry` to `to_entry`, counted from 1, both included.
    pub const fn entries(from_entry: u32, to_entry: u32) -> Self {
        Self { from_entry, to_entry, from_selected_value: 1, to_selected_value: 0 }
    }

    /// The places, counted from 0, of the selected rows among `entries_in_use`.
    pub fn rows(&self, entries_in_use: usize) -> Range<usize> {
        selected(self.from_entry as usize, self.to_entry as usize, entries_in_use)
    }

    /// The places, counted from 0, of the selected columns among `columns`.
    pub fn columns(&self, columns: usize) -> Range<usize> {
        selected(usize::from(self.from_selected_value), usize::from(self.to_selected_value), columns)
    }

    fn encode(self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::DoubleLongUnsigned(self.from_entry),
            DataValue::DoubleLongUnsigned(self.to_entry),
            DataValue::LongUnsigned(self.from_selected_value),
            DataValue::LongUnsigned(self.to_selected_value),
        ])
    }

    fn decode(parameters: &Data<'_>) -> Result<Self, AttributeError> {
        let [from_entry, to_entry, from_value, to_value] = structure("entry_descriptor", parameters)?;
        Ok(Self {
            from_entry: integer("from_entry", &from_entry)?,
            to_entry: integer("to_entry", &to_entry)?,
            from_selected_value: integer("from_selected_value", &from_value)?,
            to_selected_value: integer("to_selected_value", &to_value)?,
        })
    }
}

/// From 1 on, both included, 0 as the end meaning the last; what lies beyond `len` is cut, what starts there is empty.
fn selected(from: usize, to: usize, len: usize) -> Range<usize> {
    let end = if to == 0 { len } else { to.min(len) };
    let start = from.saturating_sub(1).min(end);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::datetime::ClockStatus;
    use crate::metering::{ObisCode, UtcMillis};

    fn round_trip(selection: &Selection) -> Result<Selection, SelectionError> {
        let (selector, parameters) = selection.encode();
        Selection::decode(selector, &Data::from_bytes(&parameters.to_vec()).unwrap())
    }

    #[test]
    fn selections_round_trip() {
        let at = |hours: i64| DateTime::from_utc(UtcMillis(hours * 3_600_000), 60, ClockStatus::GOOD);
        let mut range = RangeDescriptor::clock(at(0), at(24));
        range.selected_values = vec![CaptureObject::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2)];
        let unix = RangeDescriptor {
            restricting_object: CaptureObject::new(1, ObisCode::new(0, 0, 1, 1, 0, 255), 2),
            from: DataValue::DoubleLongUnsigned(0),
            to: DataValue::DoubleLongUnsigned(86_400),
            selected_values: Vec::new(),
        };
        let entry = EntryDescriptor { from_entry: 1, to_entry: 96, from_selected_value: 2, to_selected_value: 3 };
        for selection in [Selection::Range(range), Selection::Range(unix), Selection::Entry(entry)] {
            assert_eq!(round_trip(&selection), Ok(selection));
        }
    }

    #[test]
    fn a_clock_range_has_the_octets_that_meters_expect() {
        let day = |day| DateTime([0x07, 0xea, 11, day, 0xff, 0, 0, 0, 0, 0x80, 0, 0xff]);
        let (selector, parameters) = Selection::Range(RangeDescriptor::clock(day(22), day(23))).encode();
        let mut expected = vec![0x02, 0x04];
        expected.extend([0x02, 0x04, 0x12, 0, 8, 0x09, 6, 0, 0, 1, 0, 0, 255, 0x0f, 2, 0x12, 0, 0]);
        for day in [22, 23] {
            expected.extend([0x09, 0x0c, 0x07, 0xea, 11, day, 0xff, 0, 0, 0, 0, 0x80, 0, 0xff]);
        }
        expected.extend([0x01, 0x00]);
        assert_eq!((selector, parameters.to_vec()), (1, expected));
    }

    #[test]
    fn entries_are_counted_from_one_and_zero_is_the_last() {
        let entry = EntryDescriptor { from_entry: 2, to_entry: 3, from_selected_value: 1, to_selected_value: 0 };
        assert_eq!((entry.rows(10), entry.columns(4)), (1..3, 0..4));
        assert_eq!(EntryDescriptor::entries(1, 0).rows(10), 0..10);
        assert_eq!(EntryDescriptor::entries(0, 99).rows(10), 0..10);
        assert_eq!(EntryDescriptor::entries(11, 20).rows(10), 10..10);
        assert_eq!(EntryDescriptor::entries(5, 3).rows(10), 3..3);
    }

    #[test]
    fn what_is_no_selection_is_refused() {
        assert_eq!(Selection::decode(3, &Data::Null), Err(SelectionError::Selector { selector: 3 }));
        assert!(matches!(Selection::decode(1, &Data::Null), Err(SelectionError::Parameters(_))));
        let bytes = [2, 1, 6, 0, 0, 0, 1];
        assert!(matches!(Selection::decode(2, &Data::from_bytes(&bytes).unwrap()), Err(SelectionError::Parameters(_))));
    }
}
