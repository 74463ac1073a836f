//! Class 11, Special days table (IEC 62056-6-2; Blue Book part 2, 4.5.4): days on which a calendar does not follow the week.

use super::{AttributeError, InterfaceClass, LOGICAL_NAME, date, integer, list, obis, structure};
use crate::dlms::data::Data;
use crate::dlms::datetime::Date;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const ENTRIES: i8 = 2;

/// Class 11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialDaysTable {
    pub logical_name: ObisCode,
    pub entries: Vec<SpecialDay>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpecialDay {
    pub index: u16,
    /// Wildcards are allowed: 25 December of any year.
    pub date: Date,
    /// A day profile of the activity calendar.
    pub day_id: u8,
}

impl SpecialDay {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [index, day, day_id] = structure("spec_day_entry", data)?;
        Ok(Self {
            index: integer("index", &index)?,
            date: date("specialday_date", &day)?,
            day_id: integer("day_id", &day_id)?,
        })
    }

    fn encode(self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::LongUnsigned(self.index),
            DataValue::OctetString(self.date.0.to_vec()),
            DataValue::Unsigned(self.day_id),
        ])
    }
}

impl SpecialDaysTable {
    /// The logical name that nearly every meter gives its only table.
    pub const LOGICAL_NAME: ObisCode = ObisCode::new(0, 0, 11, 0, 0, 255);

    pub const fn new(logical_name: ObisCode) -> Self {
        Self { logical_name, entries: Vec::new() }
    }
}

impl InterfaceClass for SpecialDaysTable {
    const CLASS_ID: u16 = 11;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            ENTRIES => Some(DataValue::Array(self.entries.iter().map(|day| day.encode()).collect())),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            ENTRIES => self.entries = list("entries", data, SpecialDay::decode)?,
            _ => return Err(AttributeError::Unknown { class_id: Self::CLASS_ID, index }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::testing::round_trips;

    #[test]
    fn special_days_round_trip() {
        let christmas = SpecialDay { index: 1, date: Date([0xff, 0xff, 12, 25, 0xff]), day_id: 2 };
        let once = SpecialDay { index: 2, date: Date([0x07, 0xea, 4, 6, 1]), day_id: 2 };
        let object = SpecialDaysTable {
            entries: vec![christmas, once],
            ..SpecialDaysTable::new(SpecialDaysTable::LOGICAL_NAME)
        };
        round_trips(&object, SpecialDaysTable::new(ObisCode([0; 6])), &[1, 2]);
    }
}
