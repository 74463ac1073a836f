//! `calendar`: the activity calendars of a DLMS meter. The passive one is written from a file, and takes the place of the active one when
//! somebody says so.

mod file;

use std::io::Write;
use std::path::PathBuf;

use protocols::cosem::InterfaceClass as _;
use protocols::cosem::activity_calendar::{
    ACTIVATE_PASSIVE_CALENDAR, ACTIVATE_PASSIVE_CALENDAR_TIME, ActivityCalendar, CALENDAR_NAME_ACTIVE,
    CALENDAR_NAME_PASSIVE, Calendar, DAY_PROFILE_TABLE_PASSIVE, Name, SEASON_PROFILE_PASSIVE,
    WEEK_PROFILE_TABLE_PASSIVE,
};
use protocols::dlms::apdu::{CosemAttribute, CosemMethod};
use protocols::dlms::client::RequestError;
use protocols::dlms::data::Data;
use protocols::dlms::datetime::{ClockStatus, Date, DateTime, Time};
use protocols::dlms::value::DataValue;
use protocols::metering::{ObisCode, UtcMillis};

use self::file::{Both, CalendarText, activation};
use super::{Site, confirm};
use crate::clock::{Clock as _, SystemClock};
use crate::commands::read::keep_counters;
use crate::config::Checked;
use crate::reading::session::SessionError;
use crate::reading::talk::Talk;

const HINT_AGAIN: &str = "hint: give the same command again: what was written before is written again";
const HINT_WHEN: &str =
    "hint: write now, never, an instant as 2027-01-01T00:00:00Z, or 2027-01-01T00:00:00 by the meter's own clock";
/// In this order: until the last of them is written, nothing of it is activated.
const PASSIVE: [i8; 4] =
    [DAY_PROFILE_TABLE_PASSIVE, WEEK_PROFILE_TABLE_PASSIVE, SEASON_PROFILE_PASSIVE, CALENDAR_NAME_PASSIVE];

#[derive(Debug, Clone, Default, clap::Args)]
pub struct CalendarOptions {
    /// Writes the calendar in this file as the passive one: TOML, or JSON in *.json. The gateway must be stopped.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// When the passive calendar takes the place of the active one: `now`, `never`, an instant as 2027-01-01T00:00:00Z, or
    /// 2027-01-01T00:00:00 by the meter's own clock. The gateway must be stopped.
    #[arg(long, value_name = "WHEN")]
    pub activate: Option<String>,
    /// Prints one of the two, as --write takes it.
    #[arg(long, conflicts_with_all = ["write", "activate"])]
    pub only: Option<Which>,
    /// JSON instead of TOML.
    #[arg(long, conflicts_with_all = ["write", "activate"])]
    pub json: bool,
    /// The calendar's object.
    #[arg(long, value_name = "OBIS", default_value = "0-0:13.0.0")]
    pub object: String,
    /// Does not ask.
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    Active,
    Passive,
}

/// When the passive calendar takes the place of the active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    At(DateTime),
    Never,
}

/// What is asked of a meter.
#[derive(Debug, Clone)]
struct Change {
    object: ObisCode,
    passive: Option<Calendar>,
    when: Option<When>,
}

pub async fn calendar(
    checked: &Checked,
    name: &str,
    options: &CalendarOptions,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let object: ObisCode = options.object.parse()?;
    let change = Change {
        object,
        passive: options.write.as_deref().map(file::read).transpose()?,
        when: options.activate.as_deref().map(|text| When::parse(text, SystemClock::new().wall())).transpose()?,
    };
    if change.passive.is_some() || change.when.is_some() {
        return carry_out(checked, name, &change, options.yes, out).await;
    }
    let mut site = Site::kept(checked, name, |meter| keep_counters(checked, meter))?;
    let (_, both) = site.converse(site.meter.clone(), async |talk, _| read(talk, object).await).await?;
    let both = both.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    let text = match (options.only, options.json) {
        (None, false) => toml::to_string(&Both::of(&both))?,
        (None, true) => serde_json::to_string(&Both::of(&both))? + "\n",
        (Some(which), is_json) => {
            let text = CalendarText::of(if which == Which::Active { &both.active } else { &both.passive });
            if is_json { serde_json::to_string(&text)? + "\n" } else { toml::to_string(&text)? }
        }
    };
    Ok(write!(out, "{text}")?)
}

async fn carry_out(
    checked: &Checked,
    name: &str,
    change: &Change,
    yes: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut site = Site::of(checked, name)?;
    drop(site.ask_the_time(checked).await);
    let (writer, object) = (site.writer(), change.object);
    let (meter, before) = site.converse(writer.clone(), async |talk, _| read(talk, object).await).await?;
    let before = before.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    change.fits(&before).map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    let is_due = before.activate_passive_calendar_time != DateTime::UNSPECIFIED;
    let before = shown(&before);
    for (key, value) in [("meter", name), ("identity", meter.as_str()), ("before", &before)] {
        writeln!(out, "{key:<22} {value}")?;
    }
    out.flush()?;
    if !yes {
        confirm(name, change)?;
    }
    site.record(&meter, 0, Vec::new(), &format!("about to {change} by hand; before: {before}")).await?;
    let known = meter.clone();
    let done = site
        .converse(writer, async |talk, who| {
            if *who != known {
                return Ok(Err(format!("{who} answers now")));
            }
            match change.carry_out(talk, is_due).await? {
                // What the meter has taken is known, whatever comes then.
                Ok(()) => Ok(Ok(match read(talk, object).await {
                    Ok(Ok(after)) => shown(&after),
                    Ok(Err(error)) => error,
                    Err(error) => error.text(),
                })),
                Err(error) => Ok(Err(error)),
            }
        })
        .await;
    let (code, outcome) = match &done {
        Ok((_, Ok(after))) => (1, format!("done; after: {after}")),
        Ok((_, Err(error))) => (2, error.clone()),
        Err(error) => (3, format!("nobody knows how much of it was done: {error}")),
    };
    let event = outcome.lines().next().unwrap_or_default();
    site.record(&meter, code, Vec::new(), &format!("{change} by hand: {event}")).await?;
    match done {
        Ok((_, Ok(after))) => Ok(writeln!(out, "{:<22} {after}", "after")?),
        Ok((_, Err(error))) => anyhow::bail!("{name}: {error}"),
        Err(error) => anyhow::bail!("{error}\n{HINT_AGAIN}"),
    }
}

/// Both calendars; the inner error is the meter's word.
async fn read(talk: &mut Talk<'_>, object: ObisCode) -> Result<Result<ActivityCalendar, String>, SessionError> {
    let indices: Vec<i8> = (CALENDAR_NAME_ACTIVE..=ACTIVATE_PASSIVE_CALENDAR_TIME).collect();
    let wanted: Vec<CosemAttribute> = indices.iter().map(|&index| attribute(object, index)).collect();
    let mut calendar = ActivityCalendar::new(object);
    for (index, result) in indices.into_iter().zip(talk.get_list(&wanted).await?) {
        let value = match result {
            Ok(value) => value,
            Err(error) => return Ok(Err(format!("attribute {index} of {object}: {error}"))),
        };
        let applied = match Data::from_bytes(&value.data) {
            Ok(data) => calendar.apply(index, &data).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = applied {
            return Ok(Err(format!("attribute {index} of {object} is not readable: {error}")));
        }
    }
    Ok(Ok(calendar))
}

const fn attribute(object: ObisCode, index: i8) -> CosemAttribute {
    CosemAttribute::new(ActivityCalendar::CLASS_ID, object, index)
}

/// In one line.
fn shown(both: &ActivityCalendar) -> String {
    let name = |calendar: &Calendar| Name(calendar.name.clone());
    let at = activation(both.activate_passive_calendar_time);
    format!("active {}, passive {}, activation {at}", name(&both.active), name(&both.passive))
}

impl When {
    fn parse(text: &str, now: UtcMillis) -> anyhow::Result<Self> {
        match text {
            "now" => return Ok(Self::Now),
            "never" => return Ok(Self::Never),
            _ => {}
        }
        // The meter's own clock states no deviation here, and no season.
        let (is_local, instant) = match text.parse::<UtcMillis>() {
            Ok(at) => (false, Some(at)),
            Err(_) => (true, format!("{text}Z").parse().ok()),
        };
        let at = instant.ok_or_else(|| anyhow::anyhow!("{text:?} is no time of an activation\n{HINT_WHEN}"))?;
        if is_local {
            let (date, time) = (Date::from_day(at.day()), Time::from_utc(at));
            return Ok(Self::At(DateTime::from_parts(date, time, None, ClockStatus::UNSPECIFIED)));
        }
        anyhow::ensure!(at > now, "{text} is over\nhint: --activate now activates it at once");
        Ok(Self::At(DateTime::from_utc(at, 0, ClockStatus::GOOD)))
    }
}

impl Change {
    /// What is activated has to hold together, whoever wrote it.
    fn fits(&self, before: &ActivityCalendar) -> Result<(), String> {
        match (&self.passive, self.when) {
            (None, Some(When::Now | When::At(_))) => {
                let hint = "hint: --write writes another one";
                before
                    .passive
                    .check()
                    .map_err(|error| format!("its passive calendar cannot be gone by: {error}\n{hint}"))
            }
            _ => Ok(()),
        }
    }

    /// `is_due`: an activation waits, and would find a calendar that is written in part.
    async fn carry_out(&self, talk: &mut Talk<'_>, is_due: bool) -> Result<Result<(), String>, SessionError> {
        let never = (ACTIVATE_PASSIVE_CALENDAR_TIME, DataValue::octets_of(DateTime::UNSPECIFIED));
        let mut sets = Vec::new();
        if let Some(passive) = &self.passive {
            let object = ActivityCalendar { passive: passive.clone(), ..ActivityCalendar::new(self.object) };
            sets.extend(is_due.then(|| never.clone()));
            sets.extend(PASSIVE.into_iter().filter_map(|index| Some((index, object.attribute(index)?))));
        }
        for (place, (index, value)) in sets.into_iter().enumerate() {
            if let Err(error) = talk.set(attribute(self.object, index), value.to_vec()).await? {
                return Ok(Err(refused(&format!("attribute {index}"), &error, place > usize::from(is_due))));
            }
        }
        if let Some(passive) = &self.passive {
            match read(talk, self.object).await? {
                Ok(now) if now.passive == *passive => {}
                Ok(_) => {
                    return Ok(Err(
                        "the meter has another passive calendar than was written; it is not activated".to_owned()
                    ));
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        let done = match self.when {
            None => return Ok(Ok(())),
            Some(When::Now) => {
                let class_id = ActivityCalendar::CLASS_ID;
                let method = CosemMethod::new(class_id, self.object, ACTIVATE_PASSIVE_CALENDAR);
                talk.invoke(method, DataValue::Integer(0).to_vec()).await?.map(drop)
            }
            Some(When::Never) => talk.set(attribute(self.object, never.0), never.1.to_vec()).await?,
            Some(When::At(at)) => talk.set(attribute(self.object, never.0), DataValue::octets_of(at).to_vec()).await?,
        };
        Ok(done.map_err(|error| refused("the activation", &error, false)))
    }
}

fn refused(what: &str, error: &RequestError, is_begun: bool) -> String {
    let part = if is_begun { "; the passive calendar is written in part, and not activated" } else { "" };
    let hint = "hint: may this client write the calendar? [meter.clock_set] can name one that manages the meter";
    format!("{what}: {error}{part}\n{hint}")
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(passive) = &self.passive {
            write!(f, "write the passive calendar {}", Name(passive.name.clone()))?;
        }
        if self.passive.is_some() && self.when.is_some() {
            f.write_str(" and ")?;
        }
        match self.when {
            None => Ok(()),
            Some(When::Now) => f.write_str("activate the passive calendar"),
            Some(When::At(at)) => write!(f, "activate the passive calendar at {at}"),
            Some(When::Never) => f.write_str("activate no passive calendar"),
        }
    }
}

#[cfg(test)]
mod tests;
