//! `clock`: how far a meter's clock is off, and setting it by hand.

use std::io::Write;

use tokio::time::Instant;

use super::Site;
use crate::commands::read::keep_counters;
use crate::config::Checked;
use crate::config::metering::{MeterSettings, Source};
use crate::reading::clock_set::{
    Advice, By, Lent, Look, NotNow, Outcome, advise, converse, local, look, periods, seconds,
};
use crate::reading::profile::read_layout;

pub async fn clock(checked: &Checked, name: &str, set: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let mut site =
        if set { Site::of(checked, name)? } else { Site::kept(checked, name, |meter| keep_counters(checked, meter))? };
    let meter = site.meter.clone();
    let hint = "hint: [meter.clock_set] of its section says when its clock may be set, and by whom";
    anyhow::ensure!(!set || meter.clock_set.is_some(), "{name} has no [meter.clock_set]\n{hint}");
    let told = site.ask_the_time(checked).await;
    let looked = site.look_at_clock().await?;
    writeln!(out, "{:<22} {name}", "meter")?;
    writeln!(out, "{:<22} {}", "clock", looked.shown)?;
    let error_ms = looked.offset.error_ms;
    writeln!(out, "{:<22} {}, give or take {} s", "offset", seconds(looked.offset.ms), error_ms as f64 / 1000.0)?;
    match (told, site.parts.trust.offset_ms()) {
        (Ok(()), Some(offset_ms)) => {
            writeln!(out, "{:<22} {} from this system's", "the cloud's clock", seconds(offset_ms))?;
        }
        (told, _) => writeln!(out, "{:<22} not known: {}", "the cloud's clock", told.err().unwrap_or_default())?,
    }
    writeln!(out, "{:<22} {}", "to be done", site.advice(&looked))?;
    if set { site.set_clock(&meter, out).await } else { Ok(()) }
}

impl Site {
    /// As who reads. Leaves in memory what the rules need to know of its profiles.
    pub(super) async fn look_at_clock(&mut self) -> anyhow::Result<Look> {
        let (meter, parts) = (self.meter.clone(), self.parts.clone());
        let (reads, client) = (meter.reads.clone(), meter.clone());
        let (id, (looked, layouts)) = self
            .converse(meter, async |talk, _| {
                let looked = look(talk, &client, &parts).await?;
                let mut layouts = Vec::new();
                for (place, read) in reads.iter().enumerate().filter(|(_, read)| read.source == Source::Profile) {
                    if let Ok(layout) = read_layout(talk, read.profile).await? {
                        layouts.push((place, layout));
                    }
                }
                Ok((looked, layouts))
            })
            .await?;
        self.memory.identity = Some(id);
        for (place, layout) in layouts {
            self.memory.profiles[place].layout = Some(Box::new(layout));
        }
        looked.map_err(|error| anyhow::anyhow!("{}: its clock cannot be read: {error}", self.meter.name))
    }

    pub(super) fn advice(&self, looked: &Look) -> String {
        let Some(settings) = &self.meter.clock_set else { return "nothing: there is no [meter.clock_set]".to_owned() };
        let local_ms = local(self.parts.clock.wall(), Some(looked.reading.deviation));
        let advice = advise(settings, &periods(&self.meter, &self.memory), local_ms, looked.offset);
        if advice == Advice::Set && !self.parts.trust.is_synchronised() {
            return text_of(&NotNow::Unsynchronised);
        }
        text_of(&NotNow::Advice(advice))
    }

    pub(super) async fn set_clock(&mut self, meter: &MeterSettings, out: &mut impl Write) -> anyhow::Result<()> {
        let Some(settings) = &meter.clock_set else { return Ok(()) };
        let mut link = self.open().await?;
        let deadline = Instant::now() + self.budget;
        let lent = Lent { link: &mut *link, octet_time_us: self.medium.octet_time_us(), deadline };
        let outcome = converse(&self.parts, meter, settings, &mut self.memory, lent, By::Hand).await;
        let outcome = outcome.map_err(|error| {
            anyhow::anyhow!("{}: {}\nhint: the next try finds out what became of it", meter.name, error.text())
        })?;
        match outcome {
            Outcome::Set { after: Some(after), .. } => {
                Ok(writeln!(out, "{:<22} {}, off by {}", "set", after.shown, seconds(after.offset.ms))?)
            }
            Outcome::Set { after: None, .. } => Ok(writeln!(out, "{:<22} it cannot be read since", "set")?),
            Outcome::Resolved { was_set, now, .. } => {
                let became = if was_set { "was set then" } else { "was not set then" };
                writeln!(out, "{:<22} a try before was cut short: the clock {became}", "found")?;
                anyhow::bail!(
                    "{}: nothing was set; it is off by {}\nhint: it is known now what became of the try before: set it again",
                    meter.name,
                    seconds(now.offset.ms)
                )
            }
            Outcome::Refused { error } => anyhow::bail!(
                "{}: {error}\nhint: may this client set the clock? [meter.clock_set] can name another",
                meter.name
            ),
            Outcome::NotNow(why) => anyhow::bail!("{}: nothing was set: {}", meter.name, text_of(&why)),
        }
    }
}

fn text_of(why: &NotNow) -> String {
    match why {
        NotNow::OtherMeter(found) => format!("{found} answers now"),
        NotNow::ClockUnreadable(error) => format!("its clock cannot be read: {error}"),
        NotNow::Unsynchronised => "nothing: this system's clock and the cloud's do not agree to 2 s".to_owned(),
        NotNow::TriedAt(at) => format!("it was set, or tried to, at {at}, and is once a day at most"),
        NotNow::Advice(Advice::Leave) => "nothing: it is within set_above_s".to_owned(),
        NotNow::Advice(Advice::Set) => "it may be set now".to_owned(),
        NotNow::Advice(Advice::Wait(wait)) => {
            format!("nothing for {} s: an interval ends, or lies between the two times", wait.as_secs() + 1)
        }
        NotNow::Advice(Advice::Beyond) => "it is off by more than set_below_s: look at the meter".to_owned(),
        NotNow::Advice(Advice::NoRoom { period_s }) => {
            format!("it is too far off to be set within one interval of {period_s} s")
        }
    }
}
