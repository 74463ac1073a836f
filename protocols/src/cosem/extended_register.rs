//! Class 4, Extended register: a register that also says how good its value is and when it was captured.

use super::register::{SCALER_UNIT, ScalerUnit, VALUE};
use super::{AttributeError, InterfaceClass, LOGICAL_NAME, date_time, obis};
use crate::dlms::data::Data;
use crate::dlms::datetime::DateTime;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const STATUS: i8 = 4;
pub const CAPTURE_TIME: i8 = 5;

/// Class 4. A maximum demand is one: its capture time is when the maximum occurred.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtendedRegister {
    pub logical_name: ObisCode,
    pub value: DataValue,
    pub scaler_unit: ScalerUnit,
    /// Of any type; what its bits mean is the manufacturer's.
    pub status: DataValue,
    pub capture_time: DateTime,
}

impl ExtendedRegister {
    pub const fn new(logical_name: ObisCode) -> Self {
        Self {
            logical_name,
            value: DataValue::Null,
            scaler_unit: ScalerUnit::COUNT,
            status: DataValue::Null,
            capture_time: DateTime::UNSPECIFIED,
        }
    }
}

impl InterfaceClass for ExtendedRegister {
    const CLASS_ID: u16 = 4;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            VALUE => Some(self.value.clone()),
            SCALER_UNIT => Some(self.scaler_unit.encode()),
            STATUS => Some(self.status.clone()),
            CAPTURE_TIME => Some(DataValue::octets_of(self.capture_time)),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            VALUE => self.value = DataValue::from(*data),
            SCALER_UNIT => self.scaler_unit = ScalerUnit::decode(data)?,
            STATUS => self.status = DataValue::from(*data),
            CAPTURE_TIME => self.capture_time = date_time("capture_time", data)?,
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
    fn extended_registers_round_trip() {
        let object = ExtendedRegister {
            logical_name: ObisCode::new(1, 0, 1, 6, 0, 255),
            value: DataValue::DoubleLongUnsigned(4_200),
            scaler_unit: ScalerUnit::new(0, Unit::WATT),
            status: DataValue::Unsigned(0),
            capture_time: DateTime::from_utc(UtcMillis(1_795_401_315_000), 60, ClockStatus::GOOD),
        };
        round_trips(&object, ExtendedRegister::new(ObisCode([0; 6])), &[1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_capture_time_that_is_none_is_refused() {
        let mut object = ExtendedRegister::new(ObisCode([0; 6]));
        assert_eq!(
            object.apply(CAPTURE_TIME, &Data::OctetString(&[1, 2, 3])),
            Err(AttributeError::Type { what: "capture_time", tag: 9 })
        );
        assert_eq!(object, ExtendedRegister::new(ObisCode([0; 6])));
    }
}
