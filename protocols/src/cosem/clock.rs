//! Class 8, Clock: the meter's time and its daylight saving rules.

use super::{AttributeError, InterfaceClass, LOGICAL_NAME, date_time, enumerated, integer, mismatch, obis};
use crate::dlms::data::Data;
use crate::dlms::datetime::{ClockStatus, DateTime};
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const TIME: i8 = 2;
pub const TIME_ZONE: i8 = 3;
pub const STATUS: i8 = 4;
pub const DAYLIGHT_SAVINGS_BEGIN: i8 = 5;
pub const DAYLIGHT_SAVINGS_END: i8 = 6;
pub const DAYLIGHT_SAVINGS_DEVIATION: i8 = 7;
pub const DAYLIGHT_SAVINGS_ENABLED: i8 = 8;
pub const CLOCK_BASE: i8 = 9;

/// Class 8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    pub logical_name: ObisCode,
    pub time: DateTime,
    /// Minutes from local standard time to UTC: -60 in Central Europe.
    pub time_zone_minutes: i16,
    pub status: ClockStatus,
    /// Local date and time, with wildcards: the last Sunday of March is `*-03-last`, Sunday.
    pub daylight_savings_begin: DateTime,
    pub daylight_savings_end: DateTime,
    /// By how much the clock goes forward at the begin: 60.
    pub daylight_savings_deviation_minutes: i8,
    pub daylight_savings_enabled: bool,
    /// 0 not defined, 1 crystal, 2 mains 50 Hz, 3 mains 60 Hz, 4 GPS, 5 radio controlled.
    pub clock_base: u8,
}

impl Clock {
    /// The logical name that nearly every meter gives its clock.
    pub const LOGICAL_NAME: ObisCode = ObisCode::new(0, 0, 1, 0, 0, 255);

    pub const fn new(logical_name: ObisCode) -> Self {
        Self {
            logical_name,
            time: DateTime::UNSPECIFIED,
            time_zone_minutes: 0,
            status: ClockStatus::UNSPECIFIED,
            daylight_savings_begin: DateTime::UNSPECIFIED,
            daylight_savings_end: DateTime::UNSPECIFIED,
            daylight_savings_deviation_minutes: 0,
            daylight_savings_enabled: false,
            clock_base: 0,
        }
    }
}

impl InterfaceClass for Clock {
    const CLASS_ID: u16 = 8;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            TIME => Some(DataValue::octets_of(self.time)),
            TIME_ZONE => Some(DataValue::Long(self.time_zone_minutes)),
            STATUS => Some(DataValue::Unsigned(self.status.0)),
            DAYLIGHT_SAVINGS_BEGIN => Some(DataValue::octets_of(self.daylight_savings_begin)),
            DAYLIGHT_SAVINGS_END => Some(DataValue::octets_of(self.daylight_savings_end)),
            DAYLIGHT_SAVINGS_DEVIATION => Some(DataValue::Integer(self.daylight_savings_deviation_minutes)),
            DAYLIGHT_SAVINGS_ENABLED => Some(DataValue::Boolean(self.daylight_savings_enabled)),
            CLOCK_BASE => Some(DataValue::Enum(self.clock_base)),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            TIME => self.time = date_time("time", data)?,
            TIME_ZONE => self.time_zone_minutes = integer("time_zone", data)?,
            STATUS => self.status = ClockStatus(integer("status", data)?),
            DAYLIGHT_SAVINGS_BEGIN => self.daylight_savings_begin = date_time("daylight_savings_begin", data)?,
            DAYLIGHT_SAVINGS_END => self.daylight_savings_end = date_time("daylight_savings_end", data)?,
            DAYLIGHT_SAVINGS_DEVIATION => {
                self.daylight_savings_deviation_minutes = integer("daylight_savings_deviation", data)?;
            }
            DAYLIGHT_SAVINGS_ENABLED => match *data {
                Data::Boolean(enabled) => self.daylight_savings_enabled = enabled,
                _ => return Err(mismatch("daylight_savings_enabled", data)),
            },
            CLOCK_BASE => self.clock_base = enumerated("clock_base", data)?,
            _ => return Err(AttributeError::Unknown { class_id: Self::CLASS_ID, index }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::testing::round_trips;
    use crate::metering::UtcMillis;

    #[test]
    fn clocks_round_trip() {
        let change = |month| DateTime([0xff, 0xff, month, 0xfe, 7, 2, 0, 0, 0, 0x80, 0, 0xff]);
        let object = Clock {
            logical_name: Clock::LOGICAL_NAME,
            time: DateTime::from_utc(UtcMillis(1_795_401_315_000), 60, ClockStatus::GOOD),
            time_zone_minutes: -60,
            status: ClockStatus(0x80),
            daylight_savings_begin: change(3),
            daylight_savings_end: change(10),
            daylight_savings_deviation_minutes: 60,
            daylight_savings_enabled: true,
            clock_base: 1,
        };
        round_trips(&object, Clock::new(ObisCode([0; 6])), &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
