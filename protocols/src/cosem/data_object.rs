//! Class 1, Data: a value of any type without scaler or unit.

use super::{AttributeError, InterfaceClass, LOGICAL_NAME, obis};
use crate::dlms::data::Data;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const VALUE: i8 = 2;

/// Class 1. The class is called Data; the name is taken by the type of all values.
#[derive(Debug, Clone, PartialEq)]
pub struct DataObject {
    pub logical_name: ObisCode,
    pub value: DataValue,
}

impl DataObject {
    pub const fn new(logical_name: ObisCode) -> Self {
        Self { logical_name, value: DataValue::Null }
    }
}

impl InterfaceClass for DataObject {
    const CLASS_ID: u16 = 1;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            VALUE => Some(self.value.clone()),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            VALUE => self.value = DataValue::from(*data),
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
    fn data_objects_round_trip() {
        let logical_name = ObisCode::new(0, 0, 96, 1, 0, 255);
        let object = DataObject { logical_name, value: DataValue::OctetString(b"1KFM0200234804".to_vec()) };
        round_trips(&object, DataObject::new(ObisCode([0; 6])), &[1, 2]);
    }
}
