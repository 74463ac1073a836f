//! Class 20, Activity calendar (IEC 62056-6-2; Blue Book part 2, 4.5.5): which script is due at which time of which day of which season.

mod check;

pub use self::check::{CalendarError, Name};

use super::script_table::ScriptReference;
use super::{
    AttributeError, InterfaceClass, LOGICAL_NAME, date_time, integer, list, mismatch, obis, octets, structure, time,
};
use crate::dlms::data::Data;
use crate::dlms::datetime::{DateTime, Time};
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const CALENDAR_NAME_ACTIVE: i8 = 2;
pub const SEASON_PROFILE_ACTIVE: i8 = 3;
pub const WEEK_PROFILE_TABLE_ACTIVE: i8 = 4;
pub const DAY_PROFILE_TABLE_ACTIVE: i8 = 5;
pub const CALENDAR_NAME_PASSIVE: i8 = 6;
pub const SEASON_PROFILE_PASSIVE: i8 = 7;
pub const WEEK_PROFILE_TABLE_PASSIVE: i8 = 8;
pub const DAY_PROFILE_TABLE_PASSIVE: i8 = 9;
pub const ACTIVATE_PASSIVE_CALENDAR_TIME: i8 = 10;

/// Method. It takes an integer, 0: the passive calendar takes the place of the active one now.
pub const ACTIVATE_PASSIVE_CALENDAR: i8 = 1;

/// Class 20.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityCalendar {
    pub logical_name: ObisCode,
    pub active: Calendar,
    pub passive: Calendar,
    /// When the passive calendar takes the place of the active one; unspecified is never.
    pub activate_passive_calendar_time: DateTime,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Calendar {
    pub name: Vec<u8>,
    pub seasons: Vec<Season>,
    pub weeks: Vec<Week>,
    pub days: Vec<DayProfile>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Season {
    pub name: Vec<u8>,
    /// The day on which it begins, with wildcards.
    pub start: DateTime,
    /// The name of a week.
    pub week: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Week {
    pub name: Vec<u8>,
    /// Day profiles from Monday to Sunday.
    pub days: [u8; 7],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayProfile {
    pub day_id: u8,
    /// In the order of their times.
    pub actions: Vec<DayAction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayAction {
    pub start: Time,
    pub script: ScriptReference,
}

impl ActivityCalendar {
    /// The logical name that nearly every meter gives its only calendar.
    pub const LOGICAL_NAME: ObisCode = ObisCode::new(0, 0, 13, 0, 0, 255);

    pub fn new(logical_name: ObisCode) -> Self {
        Self {
            logical_name,
            active: Calendar::default(),
            passive: Calendar::default(),
            activate_passive_calendar_time: DateTime::UNSPECIFIED,
        }
    }
}

impl Calendar {
    /// By its place within the active calendar, from 2 to 5.
    fn attribute(&self, index: i8) -> Option<DataValue> {
        Some(match index {
            CALENDAR_NAME_ACTIVE => DataValue::OctetString(self.name.clone()),
            SEASON_PROFILE_ACTIVE => DataValue::Array(self.seasons.iter().map(Season::encode).collect()),
            WEEK_PROFILE_TABLE_ACTIVE => DataValue::Array(self.weeks.iter().map(Week::encode).collect()),
            DAY_PROFILE_TABLE_ACTIVE => DataValue::Array(self.days.iter().map(DayProfile::encode).collect()),
            _ => return None,
        })
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            CALENDAR_NAME_ACTIVE => self.name = octets("calendar_name", data)?,
            SEASON_PROFILE_ACTIVE => self.seasons = list("season_profile", data, Season::decode)?,
            WEEK_PROFILE_TABLE_ACTIVE => self.weeks = list("week_profile_table", data, Week::decode)?,
            DAY_PROFILE_TABLE_ACTIVE => self.days = list("day_profile_table", data, DayProfile::decode)?,
            _ => return Err(AttributeError::Unknown { class_id: ActivityCalendar::CLASS_ID, index }),
        }
        Ok(())
    }
}

impl Season {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [name, start, week] = structure("season", data)?;
        Ok(Self {
            name: octets("season_profile_name", &name)?,
            start: date_time("season_start", &start)?,
            week: octets("week_name", &week)?,
        })
    }

    fn encode(&self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::OctetString(self.name.clone()),
            DataValue::octets_of(self.start),
            DataValue::OctetString(self.week.clone()),
        ])
    }
}

impl Week {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [name, days @ ..] = structure::<8>("week_profile", data)?;
        let days: Vec<u8> = days.iter().map(|day| integer("day_id", day)).collect::<Result<_, _>>()?;
        let days = days.try_into().map_err(|_| mismatch("week_profile", data))?;
        Ok(Self { name: octets("week_profile_name", &name)?, days })
    }

    fn encode(&self) -> DataValue {
        let days = self.days.iter().copied().map(DataValue::Unsigned);
        DataValue::Structure(std::iter::once(DataValue::OctetString(self.name.clone())).chain(days).collect())
    }
}

impl DayProfile {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [day_id, actions] = structure("day_profile", data)?;
        Ok(Self { day_id: integer("day_id", &day_id)?, actions: list("day_schedule", &actions, DayAction::decode)? })
    }

    fn encode(&self) -> DataValue {
        let actions = self.actions.iter().map(DayAction::encode).collect();
        DataValue::Structure(vec![DataValue::Unsigned(self.day_id), DataValue::Array(actions)])
    }
}

impl DayAction {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [start, table, selector] = structure("day_profile_action", data)?;
        let table = obis("script_logical_name", &table)?;
        let script = ScriptReference { table, selector: integer("script_selector", &selector)? };
        Ok(Self { start: time("start_time", &start)?, script })
    }

    fn encode(&self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::OctetString(self.start.0.to_vec()),
            self.script.table.into(),
            DataValue::LongUnsigned(self.script.selector),
        ])
    }
}

/// From the places of the active calendar to those of the passive one.
const TO_PASSIVE: i8 = CALENDAR_NAME_PASSIVE - CALENDAR_NAME_ACTIVE;

impl InterfaceClass for ActivityCalendar {
    const CLASS_ID: u16 = 20;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            CALENDAR_NAME_ACTIVE..=DAY_PROFILE_TABLE_ACTIVE => self.active.attribute(index),
            CALENDAR_NAME_PASSIVE..=DAY_PROFILE_TABLE_PASSIVE => self.passive.attribute(index - TO_PASSIVE),
            ACTIVATE_PASSIVE_CALENDAR_TIME => Some(DataValue::octets_of(self.activate_passive_calendar_time)),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            CALENDAR_NAME_ACTIVE..=DAY_PROFILE_TABLE_ACTIVE => self.active.apply(index, data)?,
            CALENDAR_NAME_PASSIVE..=DAY_PROFILE_TABLE_PASSIVE => self.passive.apply(index - TO_PASSIVE, data)?,
            ACTIVATE_PASSIVE_CALENDAR_TIME => {
                self.activate_passive_calendar_time = date_time("activate_passive_calendar_time", data)?;
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

    fn calendar(name: &str, days: [u8; 7]) -> Calendar {
        let action = |hour, selector| DayAction {
            start: Time([hour, 0, 0, 0]),
            script: ScriptReference { table: ObisCode::new(0, 0, 10, 0, 100, 255), selector },
        };
        Calendar {
            name: name.into(),
            seasons: vec![Season {
                name: b"summer".to_vec(),
                start: DateTime([0xff, 0xff, 4, 1, 0xff, 0, 0, 0, 0, 0x80, 0, 0xff]),
                week: b"1".to_vec(),
            }],
            weeks: vec![Week { name: b"1".to_vec(), days }],
            days: vec![DayProfile { day_id: 1, actions: vec![action(6, 1), action(22, 2)] }],
        }
    }

    /// Control, seen to fail: the passive calendar in the places of the active one.
    #[test]
    fn activity_calendars_round_trip() {
        let object = ActivityCalendar {
            active: calendar("2026", [1, 1, 1, 1, 1, 2, 2]),
            passive: calendar("2027", [2; 7]),
            activate_passive_calendar_time: DateTime([7; 12]),
            ..ActivityCalendar::new(ActivityCalendar::LOGICAL_NAME)
        };
        let all: Vec<i8> = (1..=10).collect();
        round_trips(&object, ActivityCalendar::new(ObisCode([0; 6])), &all);
    }

    #[test]
    fn a_week_has_seven_days() {
        let week = |days: usize| {
            let mut elements = vec![DataValue::OctetString(b"1".to_vec())];
            elements.resize(days + 1, DataValue::Unsigned(1));
            let octets = DataValue::Array(vec![DataValue::Structure(elements)]).to_vec();
            let mut calendar = ActivityCalendar::new(ActivityCalendar::LOGICAL_NAME);
            calendar.apply(WEEK_PROFILE_TABLE_PASSIVE, &Data::from_bytes(&octets).unwrap())
        };
        assert_eq!(week(7), Ok(()));
        assert_eq!(week(6), Err(AttributeError::Elements { what: "week_profile", expected: 8, found: 7 }));
    }
}
