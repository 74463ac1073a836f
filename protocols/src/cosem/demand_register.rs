//! Class 5, Demand register: the average over a (sliding) period, current and last.

use super::register::ScalerUnit;
use super::{AttributeError, InterfaceClass, LOGICAL_NAME, date_time, integer, obis};
use crate::dlms::data::Data;
use crate::dlms::datetime::DateTime;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const CURRENT_AVERAGE_VALUE: i8 = 2;
pub const LAST_AVERAGE_VALUE: i8 = 3;
pub const SCALER_UNIT: i8 = 4;
pub const STATUS: i8 = 5;
pub const CAPTURE_TIME: i8 = 6;
pub const START_TIME_CURRENT: i8 = 7;
pub const PERIOD: i8 = 8;
pub const NUMBER_OF_PERIODS: i8 = 9;

/// Class 5.
#[derive(Debug, Clone, PartialEq)]
pub struct DemandRegister {
    pub logical_name: ObisCode,
    pub current_average_value: DataValue,
    pub last_average_value: DataValue,
    pub scaler_unit: ScalerUnit,
    pub status: DataValue,
    /// When `last_average_value` was captured: the end of its period.
    pub capture_time: DateTime,
    pub start_time_current: DateTime,
    /// Between two updates of `last_average_value`.
    pub period_s: u32,
    /// 1 for block demand; above it a sliding demand over so many periods.
    pub number_of_periods: u16,
}

impl DemandRegister {
    pub const fn new(logical_name: ObisCode) -> Self {
        Self {
            logical_name,
            current_average_value: DataValue::Null,
            last_average_value: DataValue::Null,
            scaler_unit: ScalerUnit::COUNT,
            status: DataValue::Null,
            capture_time: DateTime::UNSPECIFIED,
            start_time_current: DateTime::UNSPECIFIED,
            period_s: 0,
            number_of_periods: 1,
        }
    }
}

impl InterfaceClass for DemandRegister {
    const CLASS_ID: u16 = 5;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            CURRENT_AVERAGE_VALUE => Some(self.current_average_value.clone()),
            LAST_AVERAGE_VALUE => Some(self.last_average_value.clone()),
            SCALER_UNIT => Some(self.scaler_unit.encode()),
            STATUS => Some(self.status.clone()),
            CAPTURE_TIME => Some(DataValue::octets_of(self.capture_time)),
            START_TIME_CURRENT => Some(DataValue::octets_of(self.start_time_current)),
            PERIOD => Some(DataValue::DoubleLongUnsigned(self.period_s)),
            NUMBER_OF_PERIODS => Some(DataValue::LongUnsigned(self.number_of_periods)),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            CURRENT_AVERAGE_VALUE => self.current_average_value = DataValue::from(*data),
            LAST_AVERAGE_VALUE => self.last_average_value = DataValue::from(*data),
            SCALER_UNIT => self.scaler_unit = ScalerUnit::decode(data)?,
            STATUS => self.status = DataValue::from(*data),
            CAPTURE_TIME => self.capture_time = date_time("capture_time", data)?,
            START_TIME_CURRENT => self.start_time_current = date_time("start_time_current", data)?,
            PERIOD => self.period_s = integer("period", data)?,
            NUMBER_OF_PERIODS => self.number_of_periods = integer("number_of_periods", data)?,
            _ => return Err(AttributeError::Unknown { class_id: Self::CLASS_ID, index }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::testing::round_trips;
    use crate::dlms::datetime::ClockStatus;
    use crate::metering::{Unit, UtcMillis};

    #[test]
    fn demand_registers_round_trip() {
        let at = UtcMillis(1_795_401_000_000);
        let object = DemandRegister {
            logical_name: ObisCode::new(1, 0, 1, 4, 0, 255),
            current_average_value: DataValue::DoubleLongUnsigned(4_200),
            last_average_value: DataValue::DoubleLongUnsigned(4_100),
            scaler_unit: ScalerUnit::new(0, Unit::WATT),
            status: DataValue::Unsigned(0),
            capture_time: DateTime::from_utc(at, 60, ClockStatus::GOOD),
            start_time_current: DateTime::from_utc(at, 60, ClockStatus::GOOD),
            period_s: 900,
            number_of_periods: 3,
        };
        round_trips(&object, DemandRegister::new(ObisCode([0; 6])), &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
