//! Class 9, Script table (IEC 62056-6-2; Blue Book part 2, 4.5.2): rows of actions that a schedule, a calendar or a limiter carries out by number.

use super::{AttributeError, InterfaceClass, LOGICAL_NAME, enumerated, integer, list, mismatch, obis, structure};
use crate::dlms::data::Data;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const SCRIPTS: i8 = 2;

/// Method. It takes the number of the script, a long-unsigned.
pub const EXECUTE: i8 = 1;

/// Class 9.
#[derive(Debug, Clone, PartialEq)]
pub struct ScriptTable {
    pub logical_name: ObisCode,
    pub scripts: Vec<Script>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// From 1 on; 0 is the script that does nothing.
    pub identifier: u16,
    pub actions: Vec<ScriptAction>,
}

/// One attribute that is written, or one method that is invoked.
#[derive(Debug, Clone, PartialEq)]
pub struct ScriptAction {
    pub service: ScriptService,
    pub class_id: u16,
    pub logical_name: ObisCode,
    /// Of the attribute or the method.
    pub index: i8,
    pub parameter: DataValue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ScriptService {
    Write = 1,
    Execute = 2,
}

/// A script of a table, as whoever has it carried out names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScriptReference {
    pub table: ObisCode,
    pub selector: u16,
}

impl ScriptReference {
    /// A reference to no script.
    pub const NONE: Self = Self { table: ObisCode([0; 6]), selector: 0 };

    pub fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [table, selector] = structure("script_reference", data)?;
        Ok(Self { table: obis("script_logical_name", &table)?, selector: integer("script_selector", &selector)? })
    }

    pub fn encode(self) -> DataValue {
        DataValue::Structure(vec![self.table.into(), DataValue::LongUnsigned(self.selector)])
    }
}

impl std::fmt::Display for ScriptReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "script {} of {}", self.selector, self.table)
    }
}

impl Script {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [identifier, actions] = structure("script", data)?;
        let identifier = integer("script_identifier", &identifier)?;
        Ok(Self { identifier, actions: list("actions", &actions, ScriptAction::decode)? })
    }

    fn encode(&self) -> DataValue {
        let actions = self.actions.iter().map(ScriptAction::encode).collect();
        DataValue::Structure(vec![DataValue::LongUnsigned(self.identifier), DataValue::Array(actions)])
    }
}

impl ScriptAction {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [service, class_id, logical_name, index, parameter] = structure("action_specification", data)?;
        let service = match enumerated("service_id", &service)? {
            1 => ScriptService::Write,
            2 => ScriptService::Execute,
            _ => return Err(mismatch("service_id", &service)),
        };
        Ok(Self {
            service,
            class_id: integer("class_id", &class_id)?,
            logical_name: obis("logical_name", &logical_name)?,
            index: integer("index", &index)?,
            parameter: parameter.into(),
        })
    }

    fn encode(&self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::Enum(self.service as u8),
            DataValue::LongUnsigned(self.class_id),
            self.logical_name.into(),
            DataValue::Integer(self.index),
            self.parameter.clone(),
        ])
    }
}

impl ScriptTable {
    pub const fn new(logical_name: ObisCode) -> Self {
        Self { logical_name, scripts: Vec::new() }
    }
}

impl InterfaceClass for ScriptTable {
    const CLASS_ID: u16 = 9;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            SCRIPTS => Some(DataValue::Array(self.scripts.iter().map(Script::encode).collect())),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            SCRIPTS => self.scripts = list("scripts", data, Script::decode)?,
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
    fn script_tables_round_trip() {
        let action = ScriptAction {
            service: ScriptService::Execute,
            class_id: 70,
            logical_name: ObisCode::new(0, 0, 96, 3, 10, 255),
            index: 1,
            parameter: DataValue::Integer(0),
        };
        let write = ScriptAction { service: ScriptService::Write, ..action.clone() };
        let scripts =
            vec![Script { identifier: 1, actions: vec![action, write] }, Script { identifier: 2, actions: vec![] }];
        let object = ScriptTable { logical_name: ObisCode::new(0, 0, 10, 0, 106, 255), scripts };
        round_trips(&object, ScriptTable::new(ObisCode([0; 6])), &[1, 2]);
    }

    #[test]
    fn a_service_that_is_none_is_refused() {
        let action = |service| {
            let name = ObisCode([0; 6]).into();
            let action =
                [DataValue::Enum(service), DataValue::LongUnsigned(1), name, DataValue::Integer(2), DataValue::Null];
            let script = DataValue::Structure(vec![
                DataValue::LongUnsigned(1),
                DataValue::Array(vec![DataValue::Structure(action.into())]),
            ]);
            let octets = DataValue::Array(vec![script]).to_vec();
            ScriptTable::new(ObisCode([0; 6])).apply(SCRIPTS, &Data::from_bytes(&octets).unwrap())
        };
        assert_eq!(action(1), Ok(()));
        assert_eq!(action(3), Err(AttributeError::Type { what: "service_id", tag: 22 }));
    }
}
