//! A meter on M-Bus: its read-out, or what of it is asked for.

use std::io::Write;
use std::sync::Arc;

use protocols::metering::Code;
use tokio::time::Instant;

use super::answer::Answer;
use super::{ReadOptions, codes, open};
use crate::clock::{SharedClock, SystemClock};
use crate::config::metering::{BusSettings, LinePlan, MeterSettings};
use crate::link;
use crate::reading::bus::Bus;
use crate::reading::polled::read_out;
use crate::reading::session::SessionError;

pub(super) async fn read(
    plan: &LinePlan,
    meter: &MeterSettings,
    settings: &BusSettings,
    options: &ReadOptions,
    deadline: Instant,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let name = &meter.name;
    anyhow::ensure!(
        !options.object_list && options.profile.is_none(),
        "{name} speaks M-Bus, which knows neither a list of objects nor profiles\nhint: without them all that it tells is shown"
    );
    let wanted = if options.obis.is_empty() { Vec::new() } else { codes(meter, &options.obis)? };
    let clock: SharedClock = Arc::new(SystemClock::new());
    let medium = link::medium(&plan.line.medium);
    let mut link = open(plan, &*medium, meter, options, &clock).await?;
    let told = |error: SessionError| anyhow::anyhow!("{name}: {}", error.text());
    let mut bus = Bus::new(&mut *link, settings, deadline).map_err(|error| told(error.into()))?;
    let (who, readout) = read_out(&mut bus, settings, meter.serial.as_ref(), &clock).await.map_err(told)?;
    let is_wanted = |code: &Code| wanted.is_empty() || wanted.iter().any(|(of, _)| of == code);
    let mut readings = readout.readings;
    readings.retain(|reading| is_wanted(&reading.code));
    let absent = wanted.iter().filter(|(code, _)| !readings.iter().any(|reading| reading.code == *code));
    let refused = absent.map(|(code, _)| (code.clone(), "the meter does not tell it".to_owned())).collect();
    let events = if wanted.is_empty() { readout.events } else { Vec::new() };
    let problems = readout.problems.iter().map(ToString::to_string).collect();
    Answer { who, readings, events, problems, refused }.print(name, options.json, out)
}
