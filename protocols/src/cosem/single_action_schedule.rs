//! Class 22, Single action schedule (IEC 62056-6-2; Blue Book part 2, 4.5.7): one script at one or several instants.

use super::script_table::ScriptReference;
use super::{AttributeError, InterfaceClass, LOGICAL_NAME, date, enumerated, list, obis, structure, time};
use crate::dlms::data::Data;
use crate::dlms::datetime::{Date, Time};
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const EXECUTED_SCRIPT: i8 = 2;
pub const TYPE: i8 = 3;
pub const EXECUTION_TIME: i8 = 4;

/// Class 22.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SingleActionSchedule {
    pub logical_name: ObisCode,
    pub executed_script: ScriptReference,
    /// 1 one time, wildcards in its date; 2 and 3 several times, the same on each day or not, without wildcards; 4 and 5 the same with
    /// them.
    pub schedule_type: u8,
    pub execution_time: Vec<(Time, Date)>,
}

impl SingleActionSchedule {
    pub const fn new(logical_name: ObisCode) -> Self {
        Self { logical_name, executed_script: ScriptReference::NONE, schedule_type: 1, execution_time: Vec::new() }
    }
}

fn decode_time(data: &Data<'_>) -> Result<(Time, Date), AttributeError> {
    let [at, day] = structure("execution_time_date", data)?;
    Ok((time("time", &at)?, date("date", &day)?))
}

impl InterfaceClass for SingleActionSchedule {
    const CLASS_ID: u16 = 22;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            EXECUTED_SCRIPT => Some(self.executed_script.encode()),
            TYPE => Some(DataValue::Enum(self.schedule_type)),
            EXECUTION_TIME => {
                let octets = |octets: &[u8]| DataValue::OctetString(octets.to_vec());
                let at = |(time, date): &(Time, Date)| DataValue::Structure(vec![octets(&time.0), octets(&date.0)]);
                Some(DataValue::Array(self.execution_time.iter().map(at).collect()))
            }
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            EXECUTED_SCRIPT => self.executed_script = ScriptReference::decode(data)?,
            TYPE => self.schedule_type = enumerated("type", data)?,
            EXECUTION_TIME => self.execution_time = list("execution_time", data, decode_time)?,
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
    fn single_action_schedules_round_trip() {
        let object = SingleActionSchedule {
            logical_name: ObisCode::new(0, 0, 15, 0, 0, 255),
            executed_script: ScriptReference { table: ObisCode::new(0, 0, 10, 0, 1, 255), selector: 1 },
            schedule_type: 1,
            execution_time: vec![(Time([0, 0, 0, 0]), Date([0xff, 0xff, 0xff, 1, 0xff]))],
        };
        round_trips(&object, SingleActionSchedule::new(ObisCode([0; 6])), &[1, 2, 3, 4]);
    }
}
