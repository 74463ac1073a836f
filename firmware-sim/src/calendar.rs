//! The activity calendars of a virtual meter, as class 20 has them. No rate goes by them: those switch by a rule of their own.

use protocols::cosem::InterfaceClass as _;
use protocols::cosem::activity_calendar::{
    ACTIVATE_PASSIVE_CALENDAR_TIME, ActivityCalendar, Calendar, DayAction, DayProfile, Season, Week,
};
use protocols::cosem::script_table::ScriptReference;
use protocols::dlms::apdu::{ActionResult, DataAccessResult};
use protocols::dlms::data::Data;
use protocols::dlms::datetime::{DateTime, Time};
use protocols::metering::{ObisCode, UtcMillis};

/// Of the tariffication scripts.
const SCRIPTS: ObisCode = ObisCode::new(0, 0, 10, 0, 100, 255);
const NORMAL: u16 = 1;
const LOW: u16 = 2;
const WORKING_DAY: u8 = 1;
const WEEKEND: u8 = 2;

/// Both calendars; of nearly all meters those that they were made with.
#[derive(Debug, Clone, Default)]
pub struct CalendarSlot {
    written: Option<Box<Written>>,
}

#[derive(Debug, Clone)]
struct Written {
    object: ActivityCalendar,
    /// What the meter's clock shows then.
    activate_at: Option<UtcMillis>,
}

impl CalendarSlot {
    /// As it stands when the clock shows `shown`.
    pub fn object(&self, shown: UtcMillis) -> ActivityCalendar {
        self.written.as_ref().map_or_else(made_with, |written| {
            let mut written = written.clone();
            written.pass(shown);
            written.object
        })
    }

    /// SET of one attribute, which a client may write. `instant` says what the clock shows at a date-time.
    pub fn write(
        &mut self,
        attribute: i8,
        data: &Data<'_>,
        shown: UtcMillis,
        instant: impl FnOnce(DateTime) -> Option<UtcMillis>,
    ) -> Result<(), DataAccessResult> {
        let written = self.written();
        written.pass(shown);
        let mut object = written.object.clone();
        object.apply(attribute, data).map_err(|_| DataAccessResult::TypeUnmatched)?;
        if attribute == ACTIVATE_PASSIVE_CALENDAR_TIME {
            let time = object.activate_passive_calendar_time;
            let at = if time == DateTime::UNSPECIFIED { None } else { instant(time) };
            if time != DateTime::UNSPECIFIED && (at.is_none() || object.passive.check().is_err()) {
                return Err(DataAccessResult::OtherReason);
            }
            written.activate_at = at;
        }
        written.object = object;
        Ok(())
    }

    /// The only method, now.
    pub fn activate(&mut self, shown: UtcMillis) -> Result<(), ActionResult> {
        let written = self.written();
        written.pass(shown);
        written.object.passive.check().map_err(|_| ActionResult::OTHER_REASON)?;
        written.object.active = written.object.passive.clone();
        Ok(())
    }

    fn written(&mut self) -> &mut Written {
        self.written.get_or_insert_with(|| Box::new(Written { object: made_with(), activate_at: None }))
    }
}

impl Written {
    /// A calendar that has become one that nobody could go by stays passive.
    fn pass(&mut self, shown: UtcMillis) {
        if self.activate_at.is_some_and(|at| at <= shown) {
            self.activate_at = None;
            if self.object.passive.check().is_ok() {
                self.object.active = self.object.passive.clone();
            }
        }
    }
}

/// What rates switch by: normal on working days from 07:00 to 23:00.
fn made_with() -> ActivityCalendar {
    let action = |hour, selector| DayAction {
        start: Time([hour, 0, 0, 0]),
        script: ScriptReference { table: SCRIPTS, selector },
    };
    let day = |day_id, actions| DayProfile { day_id, actions };
    let [working, weekend] = [WORKING_DAY, WEEKEND];
    let calendar = Calendar {
        name: b"two rates".to_vec(),
        seasons: vec![Season {
            name: b"year".to_vec(),
            start: DateTime([0xff, 0xff, 1, 1, 0xff, 0, 0, 0, 0, 0x80, 0, 0xff]),
            week: b"week".to_vec(),
        }],
        weeks: vec![Week {
            name: b"week".to_vec(),
            days: [working, working, working, working, working, weekend, weekend],
        }],
        days: vec![
            day(working, vec![action(0, LOW), action(7, NORMAL), action(23, LOW)]),
            day(weekend, vec![action(0, LOW)]),
        ],
    };
    ActivityCalendar {
        active: calendar.clone(),
        passive: calendar,
        ..ActivityCalendar::new(ActivityCalendar::LOGICAL_NAME)
    }
}

#[cfg(test)]
mod tests {
    use protocols::cosem::activity_calendar::{CALENDAR_NAME_PASSIVE, WEEK_PROFILE_TABLE_PASSIVE};
    use protocols::dlms::datetime::{ClockRules, ClockStatus};
    use protocols::dlms::value::DataValue;

    use super::*;

    const NOON: UtcMillis = UtcMillis(1_800_000_000_000);

    fn write(
        slot: &mut CalendarSlot,
        attribute: i8,
        value: &DataValue,
        shown: UtcMillis,
    ) -> Result<(), DataAccessResult> {
        let octets = value.to_vec();
        let instant = |time: DateTime| time.to_utc(ClockRules::default()).ok().map(|reading| reading.utc);
        slot.write(attribute, &Data::from_bytes(&octets).unwrap(), shown, instant)
    }

    /// Negative control: leave `pass` out of `object`.
    #[test]
    fn the_passive_calendar_becomes_the_active_one_at_its_time_and_not_before() {
        let mut slot = CalendarSlot::default();
        let name = DataValue::OctetString(b"2027".to_vec());
        assert_eq!(write(&mut slot, CALENDAR_NAME_PASSIVE, &name, NOON), Ok(()));
        let at = DateTime::from_utc(NOON.plus_ms(60_000), 0, ClockStatus::GOOD);
        let time = ACTIVATE_PASSIVE_CALENDAR_TIME;
        assert_eq!(write(&mut slot, time, &DataValue::octets_of(at), NOON), Ok(()));
        let active = |slot: &CalendarSlot, shown| slot.object(shown).active.name;
        assert_eq!(active(&slot, NOON.plus_ms(59_999)), b"two rates");
        assert_eq!(active(&slot, NOON.plus_ms(60_000)), b"2027");
        // It stays so, whatever becomes of the passive one.
        let name = DataValue::OctetString(b"2028".to_vec());
        assert_eq!(write(&mut slot, CALENDAR_NAME_PASSIVE, &name, NOON.plus_ms(90_000)), Ok(()));
        assert_eq!(active(&slot, NOON.plus_ms(99_000)), b"2027");
        assert_eq!(slot.activate(NOON.plus_ms(99_000)), Ok(()));
        assert_eq!(active(&slot, NOON.plus_ms(99_000)), b"2028");
    }

    #[test]
    fn a_calendar_that_nobody_could_go_by_is_not_activated() {
        let mut slot = CalendarSlot::default();
        assert_eq!(write(&mut slot, WEEK_PROFILE_TABLE_PASSIVE, &DataValue::Array(Vec::new()), NOON), Ok(()));
        assert_eq!(slot.activate(NOON), Err(ActionResult::OTHER_REASON));
        let at = DataValue::octets_of(DateTime::from_utc(NOON, 0, ClockStatus::GOOD));
        let refused = write(&mut slot, ACTIVATE_PASSIVE_CALENDAR_TIME, &at, NOON);
        assert_eq!(refused, Err(DataAccessResult::OtherReason));
        let never = DataValue::octets_of(DateTime::UNSPECIFIED);
        assert_eq!(write(&mut slot, ACTIVATE_PASSIVE_CALENDAR_TIME, &never, NOON), Ok(()));
        let wrong = write(&mut slot, CALENDAR_NAME_PASSIVE, &DataValue::Unsigned(1), NOON);
        assert_eq!(wrong, Err(DataAccessResult::TypeUnmatched));
        assert_eq!(slot.object(NOON).active.name, b"two rates");
    }
}
