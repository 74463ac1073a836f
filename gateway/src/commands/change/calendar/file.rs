//! Calendars as people write them, in TOML or JSON.
//!
//! Whatever a meter holds can be written so, and comes back as the same octets: what has no text of its own is `hex:` and digits.

use std::path::Path;

use anyhow::Context as _;
use protocols::cosem::activity_calendar::{ActivityCalendar, Calendar, DayAction, DayProfile, Name, Season, Week};
use protocols::cosem::script_table::ScriptReference;
use protocols::dlms::datetime::{DateTime, Time};
use serde::{Deserialize, Serialize};

use crate::commands::change::value::hex;

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const ANY: u8 = 0xff;
const DST_END: u8 = 0xfd;
const DST_BEGIN: u8 = 0xfe;
const LAST_BUT_ONE: u8 = 0xfd;
const LAST: u8 = 0xfe;
const HINT_START: &str = "hint: write it as 2027-04-01, with * for any and last or last_but_one for the day, dst_begin or dst_end for the month; a weekday \
                          (sun) and a time (02:00) may follow";
const HINT_SCRIPT: &str = "hint: write it as TABLE/SELECTOR, like 0-0:10.0.100/1";

/// Both, as they are printed.
#[derive(Debug, Serialize)]
pub(super) struct Both {
    /// When the passive calendar takes the place of the active one.
    activation: String,
    active: CalendarText,
    passive: CalendarText,
}

/// One calendar.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CalendarText {
    name: String,
    #[serde(default)]
    season: Vec<SeasonText>,
    #[serde(default)]
    week: Vec<WeekText>,
    #[serde(default)]
    day: Vec<DayText>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeasonText {
    name: String,
    start: String,
    week: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeekText {
    name: String,
    /// From Monday to Sunday.
    days: [u8; 7],
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DayText {
    id: u8,
    #[serde(default)]
    action: Vec<ActionText>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionText {
    at: String,
    script: String,
}

/// A calendar that holds together.
pub(super) fn read(path: &Path) -> anyhow::Result<Calendar> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let parsed = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str::<CalendarText>(&text).map_err(anyhow::Error::from)
    } else {
        toml::from_str::<CalendarText>(&text).map_err(anyhow::Error::from)
    };
    let hint = "hint: --only active prints a calendar as it has to be";
    let parsed = parsed.map_err(|error| anyhow::anyhow!("{shown}: {error}\n{hint}"))?;
    let calendar = parsed.calendar().map_err(|error| anyhow::anyhow!("{shown}: {error}"))?;
    let hint = "hint: seasons name weeks by name, weeks name days by id; each has to be there once";
    calendar.check().map_err(|error| anyhow::anyhow!("{shown}: {error}\n{hint}"))?;
    Ok(calendar)
}

impl Both {
    pub(super) fn of(object: &ActivityCalendar) -> Self {
        Self {
            activation: activation(object.activate_passive_calendar_time),
            active: CalendarText::of(&object.active),
            passive: CalendarText::of(&object.passive),
        }
    }
}

/// When the passive calendar takes the place of the active one, for people.
pub(super) fn activation(at: DateTime) -> String {
    if at == DateTime::UNSPECIFIED { "never".to_owned() } else { at.to_string() }
}

impl CalendarText {
    pub(super) fn of(calendar: &Calendar) -> Self {
        let season = |season: &Season| SeasonText {
            name: name_text(&season.name),
            start: start_text(season.start),
            week: name_text(&season.week),
        };
        let action = |action: &DayAction| ActionText {
            at: time_text(action.start),
            script: format!("{}/{}", action.script.table, action.script.selector),
        };
        Self {
            name: name_text(&calendar.name),
            season: calendar.seasons.iter().map(season).collect(),
            week: calendar.weeks.iter().map(|week| WeekText { name: name_text(&week.name), days: week.days }).collect(),
            day: calendar
                .days
                .iter()
                .map(|day| DayText { id: day.day_id, action: day.actions.iter().map(action).collect() })
                .collect(),
        }
    }

    fn calendar(&self) -> anyhow::Result<Calendar> {
        let season = |text: &SeasonText| {
            let start = start(&text.start);
            let start =
                start.with_context(|| format!("season {:?}: {:?} is no date\n{HINT_START}", text.name, text.start));
            Ok(Season { name: name(&text.name)?, start: start?, week: name(&text.week)? })
        };
        let action = |day: u8, text: &ActionText| {
            let at = time(&text.at);
            let start = at.with_context(|| format!("day {day}: {:?} is no time\nhint: write it as 06:00", text.at))?;
            let script = script(&text.script);
            let told = || format!("day {day}: {:?} is no script\n{HINT_SCRIPT}", text.script);
            Ok(DayAction { start, script: script.with_context(told)? })
        };
        let day = |text: &DayText| {
            let actions = text.action.iter().map(|of| action(text.id, of)).collect::<anyhow::Result<_>>()?;
            Ok(DayProfile { day_id: text.id, actions })
        };
        Ok(Calendar {
            name: name(&self.name)?,
            seasons: self.season.iter().map(season).collect::<anyhow::Result<_>>()?,
            weeks: self
                .week
                .iter()
                .map(|text| Ok(Week { name: name(&text.name)?, days: text.days }))
                .collect::<anyhow::Result<_>>()?,
            days: self.day.iter().map(day).collect::<anyhow::Result<_>>()?,
        })
    }
}

fn name_text(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) if !text.starts_with("hex:") && !text.chars().any(char::is_control) => text.to_owned(),
        _ => hex_text(octets),
    }
}

fn hex_text(octets: &[u8]) -> String {
    octets.iter().fold("hex:".to_owned(), |text, octet| format!("{text}{octet:02x}"))
}

fn name(text: &str) -> anyhow::Result<Vec<u8>> {
    match text.strip_prefix("hex:") {
        Some(digits) => hex(digits).with_context(|| format!("{} is no name: these are no digits", Name(text.into()))),
        None => Ok(text.as_bytes().to_vec()),
    }
}

fn script(text: &str) -> Option<ScriptReference> {
    let (table, selector) = text.rsplit_once('/')?;
    Some(ScriptReference { table: table.parse().ok()?, selector: selector.parse().ok()? })
}

fn time_text(time: Time) -> String {
    let [hour, minute, second, _] = time.0;
    let text =
        if second == 0 { format!("{hour:02}:{minute:02}") } else { format!("{hour:02}:{minute:02}:{second:02}") };
    if self::time(&text) == Some(time) { text } else { hex_text(&time.0) }
}

/// `06:00`, `06:00:30`, or octets.
fn time(text: &str) -> Option<Time> {
    if let Some(digits) = text.strip_prefix("hex:") {
        return Some(Time(hex(digits)?.try_into().ok()?));
    }
    let mut fields = text.split(':');
    let mut field = |max| fields.next().map_or(Some(0), |digits| number(digits, 0..=max));
    let (hour, minute, second) = (field(23)?, field(59)?, field(59)?);
    let is_whole = fields.next().is_none() && text.contains(':');
    is_whole.then_some(Time([hour, minute, second, 0]))
}

fn number(digits: &str, range: std::ops::RangeInclusive<u8>) -> Option<u8> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|number| is_number && range.contains(number))
}

fn start_text(start: DateTime) -> String {
    let [high, low, month, day, weekday, ..] = start.0;
    let year = u16::from_be_bytes([high, low]);
    let year = if year == u16::MAX { "*".to_owned() } else { format!("{year:04}") };
    let month = match month {
        ANY => "*".to_owned(),
        DST_BEGIN => "dst_begin".to_owned(),
        DST_END => "dst_end".to_owned(),
        month => format!("{month:02}"),
    };
    let day = match day {
        ANY => "*".to_owned(),
        LAST => "last".to_owned(),
        LAST_BUT_ONE => "last_but_one".to_owned(),
        day => format!("{day:02}"),
    };
    let mut text = format!("{year}-{month}-{day}");
    if let Some(weekday) = WEEKDAYS.get(usize::from(weekday).wrapping_sub(1)) {
        text = format!("{text} {weekday}");
    }
    if start.time().0 != [0; 4] {
        text = format!("{text} {}", time_text(start.time()));
    }
    if self::start(&text) == Some(start) { text } else { hex_text(&start.0) }
}

/// A day with wildcards, perhaps a weekday and a time; or octets.
fn start(text: &str) -> Option<DateTime> {
    if let Some(digits) = text.strip_prefix("hex:") {
        return Some(DateTime(hex(digits)?.try_into().ok()?));
    }
    let mut words = text.split_whitespace();
    let mut fields = words.next()?.split('-');
    let [high, low] = match fields.next()? {
        "*" => [ANY; 2],
        year if year.len() == 4 && year.bytes().all(|digit| digit.is_ascii_digit()) => {
            year.parse::<u16>().ok()?.to_be_bytes()
        }
        _ => return None,
    };
    let month = match fields.next()? {
        "*" => ANY,
        "dst_begin" => DST_BEGIN,
        "dst_end" => DST_END,
        month => number(month, 1..=12)?,
    };
    let day = match fields.next()? {
        "*" => ANY,
        "last" => LAST,
        "last_but_one" => LAST_BUT_ONE,
        day => number(day, 1..=31)?,
    };
    if fields.next().is_some() {
        return None;
    }
    let (mut weekday, mut of_day) = (ANY, Time([0; 4]));
    let mut word = words.next();
    if let Some(place) = word.and_then(|word| WEEKDAYS.iter().position(|name| *name == word)) {
        (weekday, word) = (place as u8 + 1, words.next());
    }
    if let Some(text) = word {
        of_day = time(text)?;
    }
    let [hour, minute, second, hundredths] = of_day.0;
    let octets = [high, low, month, day, weekday, hour, minute, second, hundredths, 0x80, 0x00, ANY];
    words.next().is_none().then_some(DateTime(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = r#"
        name = "2027"
        season = [{ name = "summer", start = "*-dst_begin-last sun 02:00", week = "s" }, { name = "hex:00ff", start = "2027-11-01", week = "w" }]
        week = [{ name = "s", days = [1, 1, 1, 1, 1, 2, 2] }, { name = "w", days = [2, 2, 2, 2, 2, 2, 2] }]

        [[day]]
        id = 1
        action = [{ at = "00:00", script = "0-0:10.0.100/2" }, { at = "06:30:15", script = "0-0:10.0.100/300" }]

        [[day]]
        id = 2
        action = [{ at = "hex:00000032", script = "0-0:10.0.100/2" }]
    "#;

    fn parse(text: &str) -> anyhow::Result<Calendar> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calendar.toml");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn a_calendar_is_what_its_file_says_and_is_printed_as_it_is_written() {
        let calendar = parse(WRITTEN).unwrap();
        assert_eq!(calendar.name, b"2027");
        let [summer, winter] = &calendar.seasons[..] else { panic!("{calendar:?}") };
        assert_eq!(summer.start.0, [0xff, 0xff, 0xfe, 0xfe, 7, 2, 0, 0, 0, 0x80, 0, 0xff]);
        assert_eq!((&winter.name[..], winter.start.0[..5].to_vec()), (&[0, 0xff][..], vec![0x07, 0xeb, 11, 1, 0xff]));
        assert_eq!(calendar.days[0].actions[1].start, Time([6, 30, 15, 0]));
        assert_eq!(calendar.days[0].actions[1].script.selector, 300);
        assert_eq!(calendar.days[1].actions[0].start, Time([0, 0, 0, 0x32]));
        let printed = toml::to_string(&CalendarText::of(&calendar)).unwrap();
        assert_eq!(parse(&printed).unwrap(), calendar);
        assert!(printed.contains("start = \"*-dst_begin-last sun 02:00\"") && printed.contains("at = \"06:30:15\""));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calendar.json");
        std::fs::write(&path, serde_json::to_string(&CalendarText::of(&calendar)).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), calendar);
    }

    /// Whatever a meter holds comes back as it was: an odd deviation, a reserved day, a name that looks like digits.
    #[test]
    fn what_has_no_text_is_written_by_its_octets() {
        for octets in
            [[7; 12], [0xff; 12], DateTime::UNSPECIFIED.0, [0x07, 0xeb, 13, 0, 0, 24, 60, 0, 0, 0x80, 0, 0xff]]
        {
            let start = DateTime(octets);
            assert_eq!(self::start(&start_text(start)), Some(start), "{}", start_text(start));
        }
        for octets in [[24, 0, 0, 0], [0xff; 4], [6, 0, 0, 0xff], [6, 0, 0, 0]] {
            assert_eq!(time(&time_text(Time(octets))), Some(Time(octets)));
        }
        for octets in [&b"hex:00"[..], &[0xff, 0xfe], b"a\nb", b"", "ä".as_bytes()] {
            assert_eq!(name(&name_text(octets)).unwrap(), octets);
        }
    }

    /// Negative control: leave `check` out of `read`.
    #[test]
    fn what_is_no_calendar_is_refused_with_its_place_and_a_hint() {
        for (before, after, expected) in [
            ("week = \"w\"", "week = \"x\"", "is of week \"x\", which does not exist\nhint: seasons name weeks"),
            ("[2, 2, 2, 2, 2, 2, 2]", "[2, 2, 2, 2, 2, 2, 3]", "week \"w\" has day 3, which does not exist"),
            ("[2, 2, 2, 2, 2, 2, 2]", "[2]", "\nhint: --only active prints"),
            ("id = 2", "id = 1", "two days are called"),
            ("06:30:15", "00:00", "day 1: the action at 00:00:00.00 does not come after"),
            ("06:30:15", "24:00", "day 1: \"24:00\" is no time\nhint: write it as 06:00"),
            ("06:30:15", "6", "day 1: \"6\" is no time"),
            ("100/300", "100", "is no script\nhint: write it as TABLE/SELECTOR"),
            ("2027-11-01", "2027-13-01", "\"2027-13-01\" is no date\nhint: write it as 2027-04-01"),
            ("2027-11-01", "2027-11-01 holiday", "\"2027-11-01 holiday\" is no date"),
            ("2027-11-01", "+027-11-01", "is no date"),
            ("hex:00ff", "hex:00f", "is no name: these are no digits"),
            ("name = \"2027\"", "nam = \"2027\"", "unknown field `nam`"),
        ] {
            let error = parse(&WRITTEN.replacen(before, after, 1)).unwrap_err().to_string();
            assert!(error.contains("calendar.toml: ") && error.contains(expected), "{error} instead of {expected}");
        }
    }
}
