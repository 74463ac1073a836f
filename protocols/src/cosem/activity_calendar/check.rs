//! Whether a calendar holds together: whatever it names exists, once.

use std::fmt;

use super::{Calendar, DayProfile};
use crate::dlms::datetime::Time;

/// Why a meter could not go by a calendar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CalendarError {
    /// Without one of each no script is ever due.
    #[error("the calendar has no {what}")]
    Empty { what: &'static str },
    #[error("two {what}s are called {name}")]
    Twice { what: &'static str, name: Name },
    #[error("season {season} is of week {week}, which does not exist")]
    Week { season: Name, week: Name },
    #[error("week {week} has day {day}, which does not exist")]
    Day { week: Name, day: u8 },
    /// Or at the same time: which of the two is due, nobody knows.
    #[error("day {day}: the action at {start} does not come after the one before")]
    Order { day: u8, start: Time },
    #[error("day {day} has no action")]
    Idle { day: u8 },
}

/// A name as a text, or its octets where it is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(pub Vec<u8>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.chars().any(char::is_control) => write!(f, "{text:?}"),
            _ => {
                f.write_str("hex:")?;
                self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

impl Calendar {
    /// A meter takes each table by itself, and may go by one that names what another does not have.
    pub fn check(&self) -> Result<(), CalendarError> {
        let empty =
            [("season", self.seasons.is_empty()), ("week", self.weeks.is_empty()), ("day", self.days.is_empty())];
        if let Some((what, _)) = empty.into_iter().find(|(_, is_empty)| *is_empty) {
            return Err(CalendarError::Empty { what });
        }
        each_once("season", &self.seasons.iter().map(|season| &season.name[..]).collect::<Vec<_>>())?;
        each_once("week", &self.weeks.iter().map(|week| &week.name[..]).collect::<Vec<_>>())?;
        for (place, day) in self.days.iter().enumerate() {
            if self.days.iter().take(place).any(|before| before.day_id == day.day_id) {
                return Err(CalendarError::Twice { what: "day", name: Name(day.day_id.to_string().into()) });
            }
            day.check()?;
        }
        let has_week = |name: &Vec<u8>| self.weeks.iter().any(|week| week.name == *name);
        if let Some(season) = self.seasons.iter().find(|season| !has_week(&season.week)) {
            return Err(CalendarError::Week { season: Name(season.name.clone()), week: Name(season.week.clone()) });
        }
        let has_day = |id: u8| self.days.iter().any(|day| day.day_id == id);
        for week in &self.weeks {
            if let Some(&day) = week.days.iter().find(|id| !has_day(**id)) {
                return Err(CalendarError::Day { week: Name(week.name.clone()), day });
            }
        }
        Ok(())
    }
}

impl DayProfile {
    fn check(&self) -> Result<(), CalendarError> {
        let day = self.day_id;
        if self.actions.is_empty() {
            return Err(CalendarError::Idle { day });
        }
        let late = self.actions.iter().zip(self.actions.iter().skip(1)).find(|(one, next)| next.start.0 <= one.start.0);
        late.map_or(Ok(()), |(_, next)| Err(CalendarError::Order { day, start: next.start }))
    }
}

fn each_once(what: &'static str, names: &[&[u8]]) -> Result<(), CalendarError> {
    let twice = names.iter().enumerate().find(|(place, name)| names.iter().take(*place).any(|before| before == *name));
    twice.map_or(Ok(()), |(_, name)| Err(CalendarError::Twice { what, name: Name(name.to_vec()) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::activity_calendar::{DayAction, Season, Week};
    use crate::cosem::script_table::ScriptReference;
    use crate::dlms::datetime::DateTime;
    use crate::metering::ObisCode;

    fn day(day_id: u8, hours: &[u8]) -> DayProfile {
        let script = ScriptReference { table: ObisCode::new(0, 0, 10, 0, 100, 255), selector: 1 };
        let action = |hour: &u8| DayAction { start: Time([*hour, 0, 0, 0]), script };
        DayProfile { day_id, actions: hours.iter().map(action).collect() }
    }

    fn season(name: &str, week: &str) -> Season {
        Season { name: name.into(), start: DateTime::UNSPECIFIED, week: week.into() }
    }

    fn whole() -> Calendar {
        Calendar {
            name: b"2027".to_vec(),
            seasons: vec![season("summer", "w1"), season("winter", "w2")],
            weeks: vec![
                Week { name: b"w1".to_vec(), days: [1, 1, 1, 1, 1, 2, 2] },
                Week { name: b"w2".to_vec(), days: [2; 7] },
            ],
            days: vec![day(1, &[0, 7, 23]), day(2, &[0])],
        }
    }

    type Change = fn(&mut Calendar);

    /// Negative control: leave any of the checks out.
    #[test]
    fn whatever_a_calendar_names_has_to_be_there_once() {
        assert_eq!(whole().check(), Ok(()));
        let told = |change: Change| {
            let mut calendar = whole();
            change(&mut calendar);
            calendar.check().unwrap_err().to_string()
        };
        let cases: [(Change, &str); 11] = [
            (|calendar| calendar.seasons.clear(), "the calendar has no season"),
            (|calendar| calendar.weeks.clear(), "the calendar has no week"),
            (|calendar| calendar.days.clear(), "the calendar has no day"),
            (|calendar| calendar.seasons[1].name = b"summer".to_vec(), "two seasons are called \"summer\""),
            (|calendar| calendar.weeks[1].name = b"w1".to_vec(), "two weeks are called \"w1\""),
            (|calendar| calendar.days[1].day_id = 1, "two days are called \"1\""),
            (
                |calendar| calendar.seasons[1].week = vec![0],
                "season \"winter\" is of week hex:00, which does not exist",
            ),
            (|calendar| calendar.weeks[0].days[6] = 3, "week \"w1\" has day 3, which does not exist"),
            (|calendar| calendar.days[0] = day(1, &[0, 23, 7]), "day 1: the action at 07:00:00.00 does not come after"),
            (|calendar| calendar.days[0] = day(1, &[0, 0]), "day 1: the action at 00:00:00.00 does not come after"),
            (|calendar| calendar.days[1] = day(2, &[]), "day 2 has no action"),
        ];
        for (change, expected) in cases {
            let error = told(change);
            assert!(error.starts_with(expected), "{error} instead of {expected}");
        }
    }
}
