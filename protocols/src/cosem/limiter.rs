//! Class 71, Limiter (IEC 62056-6-2; Blue Book part 2, 4.5.9): what is done when a value stays above or below its threshold.

use super::script_table::ScriptReference;
use super::{AttributeError, InterfaceClass, LOGICAL_NAME, boolean, date_time, integer, list, obis, structure};
use crate::dlms::data::Data;
use crate::dlms::datetime::DateTime;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const MONITORED_VALUE: i8 = 2;
pub const THRESHOLD_ACTIVE: i8 = 3;
pub const THRESHOLD_NORMAL: i8 = 4;
pub const THRESHOLD_EMERGENCY: i8 = 5;
pub const MIN_OVER_THRESHOLD_DURATION: i8 = 6;
pub const MIN_UNDER_THRESHOLD_DURATION: i8 = 7;
pub const EMERGENCY_PROFILE: i8 = 8;
pub const EMERGENCY_PROFILE_GROUP_ID_LIST: i8 = 9;
pub const EMERGENCY_PROFILE_ACTIVE: i8 = 10;
pub const ACTIONS: i8 = 11;

/// Class 71.
#[derive(Debug, Clone, PartialEq)]
pub struct Limiter {
    pub logical_name: ObisCode,
    pub monitored_value: MonitoredValue,
    /// Thresholds are of the type of the monitored value, and scaled as it is.
    pub threshold_active: DataValue,
    pub threshold_normal: DataValue,
    pub threshold_emergency: DataValue,
    pub min_over_threshold_s: u32,
    pub min_under_threshold_s: u32,
    pub emergency_profile: EmergencyProfile,
    /// Emergency profiles with another id are not for this meter.
    pub emergency_profile_group_ids: Vec<u16>,
    pub emergency_profile_active: bool,
    pub action_over_threshold: ScriptReference,
    pub action_under_threshold: ScriptReference,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MonitoredValue {
    pub class_id: u16,
    pub logical_name: ObisCode,
    pub attribute_index: i8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmergencyProfile {
    pub id: u16,
    pub activation_time: DateTime,
    pub duration_s: u32,
}

impl Limiter {
    pub const fn new(logical_name: ObisCode) -> Self {
        Self {
            logical_name,
            monitored_value: MonitoredValue { class_id: 0, logical_name: ObisCode([0; 6]), attribute_index: 0 },
            threshold_active: DataValue::Null,
            threshold_normal: DataValue::Null,
            threshold_emergency: DataValue::Null,
            min_over_threshold_s: 0,
            min_under_threshold_s: 0,
            emergency_profile: EmergencyProfile { id: 0, activation_time: DateTime::UNSPECIFIED, duration_s: 0 },
            emergency_profile_group_ids: Vec::new(),
            emergency_profile_active: false,
            action_over_threshold: ScriptReference::NONE,
            action_under_threshold: ScriptReference::NONE,
        }
    }
}

impl MonitoredValue {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [class_id, logical_name, index] = structure("value_definition", data)?;
        Ok(Self {
            class_id: integer("class_id", &class_id)?,
            logical_name: obis("logical_name", &logical_name)?,
            attribute_index: integer("attribute_index", &index)?,
        })
    }

    fn encode(self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::LongUnsigned(self.class_id),
            self.logical_name.into(),
            DataValue::Integer(self.attribute_index),
        ])
    }
}

impl EmergencyProfile {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [id, activation_time, duration] = structure("emergency_profile", data)?;
        Ok(Self {
            id: integer("emergency_profile_id", &id)?,
            activation_time: date_time("emergency_activation_time", &activation_time)?,
            duration_s: integer("emergency_duration", &duration)?,
        })
    }

    fn encode(self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::LongUnsigned(self.id),
            DataValue::octets_of(self.activation_time),
            DataValue::DoubleLongUnsigned(self.duration_s),
        ])
    }
}

impl InterfaceClass for Limiter {
    const CLASS_ID: u16 = 71;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        Some(match index {
            LOGICAL_NAME => self.logical_name.into(),
            MONITORED_VALUE => self.monitored_value.encode(),
            THRESHOLD_ACTIVE => self.threshold_active.clone(),
            THRESHOLD_NORMAL => self.threshold_normal.clone(),
            THRESHOLD_EMERGENCY => self.threshold_emergency.clone(),
            MIN_OVER_THRESHOLD_DURATION => DataValue::DoubleLongUnsigned(self.min_over_threshold_s),
            MIN_UNDER_THRESHOLD_DURATION => DataValue::DoubleLongUnsigned(self.min_under_threshold_s),
            EMERGENCY_PROFILE => self.emergency_profile.encode(),
            EMERGENCY_PROFILE_GROUP_ID_LIST => DataValue::Array(
                self.emergency_profile_group_ids.iter().copied().map(DataValue::LongUnsigned).collect(),
            ),
            EMERGENCY_PROFILE_ACTIVE => DataValue::Boolean(self.emergency_profile_active),
            ACTIONS => {
                DataValue::Structure(vec![self.action_over_threshold.encode(), self.action_under_threshold.encode()])
            }
            _ => return None,
        })
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            MONITORED_VALUE => self.monitored_value = MonitoredValue::decode(data)?,
            THRESHOLD_ACTIVE => self.threshold_active = (*data).into(),
            THRESHOLD_NORMAL => self.threshold_normal = (*data).into(),
            THRESHOLD_EMERGENCY => self.threshold_emergency = (*data).into(),
            MIN_OVER_THRESHOLD_DURATION => self.min_over_threshold_s = integer("min_over_threshold_duration", data)?,
            MIN_UNDER_THRESHOLD_DURATION => self.min_under_threshold_s = integer("min_under_threshold_duration", data)?,
            EMERGENCY_PROFILE => self.emergency_profile = EmergencyProfile::decode(data)?,
            EMERGENCY_PROFILE_GROUP_ID_LIST => {
                let id = |id: &Data<'_>| integer("emergency_profile_group_id", id);
                self.emergency_profile_group_ids = list("emergency_profile_group_id_list", data, id)?;
            }
            EMERGENCY_PROFILE_ACTIVE => self.emergency_profile_active = boolean("emergency_profile_active", data)?,
            ACTIONS => {
                let [over, under] = structure("actions", data)?;
                let actions = (ScriptReference::decode(&over)?, ScriptReference::decode(&under)?);
                (self.action_over_threshold, self.action_under_threshold) = actions;
            }
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
    fn limiters_round_trip() {
        let script = |selector| ScriptReference { table: ObisCode::new(0, 0, 10, 0, 106, 255), selector };
        let object = Limiter {
            logical_name: ObisCode::new(0, 0, 17, 0, 0, 255),
            monitored_value: MonitoredValue {
                class_id: 3,
                logical_name: ObisCode::new(1, 0, 1, 24, 0, 255),
                attribute_index: 2,
            },
            threshold_active: DataValue::DoubleLongUnsigned(5_750),
            threshold_normal: DataValue::DoubleLongUnsigned(5_750),
            threshold_emergency: DataValue::LongUnsigned(1_000),
            min_over_threshold_s: 30,
            min_under_threshold_s: 60,
            emergency_profile: EmergencyProfile { id: 7, activation_time: DateTime([7; 12]), duration_s: 3_600 },
            emergency_profile_group_ids: vec![7, 8],
            emergency_profile_active: true,
            action_over_threshold: script(1),
            action_under_threshold: script(2),
        };
        let all: Vec<i8> = (1..=11).collect();
        round_trips(&object, Limiter::new(ObisCode([0; 6])), &all);
    }
}
