//! Class 6, Register activation (IEC 62056-6-2; Blue Book part 2, 4.3.5): which registers count while which tariff holds.

use super::{AttributeError, InterfaceClass, LOGICAL_NAME, integer, list, obis, octets, structure};
use crate::dlms::data::Data;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const REGISTER_ASSIGNMENT: i8 = 2;
pub const MASK_LIST: i8 = 3;
pub const ACTIVE_MASK: i8 = 4;

/// Class 6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterActivation {
    pub logical_name: ObisCode,
    /// Class and logical name of each register.
    pub register_assignment: Vec<(u16, ObisCode)>,
    pub mask_list: Vec<RegisterMask>,
    /// The name of a mask.
    pub active_mask: Vec<u8>,
}

/// Registers that count together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterMask {
    pub name: Vec<u8>,
    /// Places in the register assignment, counted from 1.
    pub registers: Vec<u8>,
}

impl RegisterMask {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [name, registers] = structure("register_act_mask", data)?;
        let registers = list("index_list", &registers, |index| integer("index", index))?;
        Ok(Self { name: octets("mask_name", &name)?, registers })
    }

    fn encode(&self) -> DataValue {
        let registers = self.registers.iter().copied().map(DataValue::Unsigned).collect();
        DataValue::Structure(vec![DataValue::OctetString(self.name.clone()), DataValue::Array(registers)])
    }
}

impl RegisterActivation {
    pub const fn new(logical_name: ObisCode) -> Self {
        Self { logical_name, register_assignment: Vec::new(), mask_list: Vec::new(), active_mask: Vec::new() }
    }
}

fn decode_register(data: &Data<'_>) -> Result<(u16, ObisCode), AttributeError> {
    let [class_id, logical_name] = structure("object_definition", data)?;
    Ok((integer("class_id", &class_id)?, obis("logical_name", &logical_name)?))
}

impl InterfaceClass for RegisterActivation {
    const CLASS_ID: u16 = 6;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            REGISTER_ASSIGNMENT => {
                let register = |&(class_id, logical_name): &(u16, ObisCode)| {
                    DataValue::Structure(vec![DataValue::LongUnsigned(class_id), logical_name.into()])
                };
                Some(DataValue::Array(self.register_assignment.iter().map(register).collect()))
            }
            MASK_LIST => Some(DataValue::Array(self.mask_list.iter().map(RegisterMask::encode).collect())),
            ACTIVE_MASK => Some(DataValue::OctetString(self.active_mask.clone())),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            REGISTER_ASSIGNMENT => self.register_assignment = list("register_assignment", data, decode_register)?,
            MASK_LIST => self.mask_list = list("mask_list", data, RegisterMask::decode)?,
            ACTIVE_MASK => self.active_mask = octets("active_mask", data)?,
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
    fn register_activations_round_trip() {
        let tariff = |tariff| (3, ObisCode::new(1, 0, 1, 8, tariff, 255));
        let object = RegisterActivation {
            logical_name: ObisCode::new(0, 0, 14, 0, 0, 255),
            register_assignment: vec![tariff(1), tariff(2)],
            mask_list: vec![
                RegisterMask { name: b"day".to_vec(), registers: vec![1] },
                RegisterMask { name: b"night".to_vec(), registers: vec![2] },
            ],
            active_mask: b"night".to_vec(),
        };
        round_trips(&object, RegisterActivation::new(ObisCode([0; 6])), &[1, 2, 3, 4]);
    }
}
