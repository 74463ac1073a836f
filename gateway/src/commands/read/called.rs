//! A meter that speaks IEC 62056-21: its read-out, or what is asked for in programming mode.

use std::io::Write;
use std::sync::Arc;

use protocols::metering::{Code, Event, TelegramReading};
use tokio::time::Instant;

use super::rows::{Table, Wanted};
use super::{ReadOptions, codes, object, open, print_introduction};
use crate::clock::{SharedClock, SystemClock};
use crate::config::metering::{CallSettings, LinePlan, MeterSettings, Source};
use crate::link;
use crate::reading::call::Call;
use crate::reading::called::Conversation;
use crate::reading::introduction::Introduction;
use crate::reading::session::SessionError;

/// What it said.
struct Answer {
    who: Introduction,
    readings: Vec<TelegramReading>,
    events: Vec<Event>,
    problems: Vec<String>,
    refused: Vec<(Code, String)>,
}

pub(super) async fn read(
    plan: &LinePlan,
    meter: &MeterSettings,
    settings: &CallSettings,
    (options, wanted): (&ReadOptions, Option<Wanted>),
    deadline: Instant,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let name = &meter.name;
    anyhow::ensure!(
        !options.object_list,
        "{name} speaks IEC 62056-21, which knows no list of objects\nhint: without --object-list all that it reads out is shown"
    );
    let codes = if options.obis.is_empty() { Vec::new() } else { codes(meter, &options.obis)? };
    let codes: Vec<Code> = codes.into_iter().map(|(code, _)| code).collect();
    let clock: SharedClock = Arc::new(SystemClock::new());
    let medium = link::medium(&plan.line.medium);
    let mut link = open(plan, &*medium, meter, options, &clock).await?;
    let told = |error: SessionError| anyhow::anyhow!("{name}: {}", error.text());
    let mut call = Call::new(&mut *link, &settings.client, deadline).map_err(|error| told(error.into()))?;
    if let Some(wanted) = wanted {
        let answer = ask_profile(&mut call, meter, settings, &wanted, &clock).await;
        match &answer {
            Ok(_) => drop(call.end().await),
            Err(_) => call.hang_up().await,
        }
        return answer
            .map_err(told)?
            .map_err(|reason| anyhow::anyhow!("{}: refused: {reason}", wanted.profile))?
            .print(options, out);
    }
    let answer = ask(&mut call, meter, settings, &codes, &clock).await;
    match &answer {
        // What was read is printed, however the meter takes its leave.
        Ok(_) => drop(call.end().await),
        Err(_) => call.hang_up().await,
    }
    let answer = answer.map_err(told)?;
    if options.json { print_json(&answer, out) } else { print_table(name, &answer, out) }
}

async fn ask_profile(
    call: &mut Call<'_>,
    meter: &MeterSettings,
    settings: &CallSettings,
    wanted: &Wanted,
    clock: &SharedClock,
) -> Result<Result<Table, String>, SessionError> {
    let Wanted { profile, span } = *wanted;
    let mut conversation = Conversation::new(call, settings);
    let who = conversation.introduce(meter.serial.as_ref(), false, false, clock).await?;
    let is_log = meter.reads.iter().any(|read| read.profile == profile && read.source == Source::Events)
        || matches!(profile.0, [_, _, 99, 98, ..]);
    let rows = conversation.read_span(profile, is_log, span, &who.meter, clock.wall()).await?;
    Ok(rows.map(|rows| Table::of_rows(rows.readings, &rows.events, &rows.problems)))
}

async fn ask(
    call: &mut Call<'_>,
    meter: &MeterSettings,
    settings: &CallSettings,
    codes: &[Code],
    clock: &SharedClock,
) -> Result<Answer, SessionError> {
    let mut conversation = Conversation::new(call, settings);
    let who = conversation.introduce(meter.serial.as_ref(), codes.is_empty(), false, clock).await?;
    let (block, refused) = match conversation.take_read_out() {
        Some((block, _)) => (Some(block), Vec::new()),
        None => conversation.read_registers(codes).await?,
    };
    let readout = block.and_then(|block| conversation.decode(&block, &who.meter, clock.wall()));
    let (readings, events, problems) = readout.map_or_else(Default::default, |readout| {
        let problems = readout.problems.iter().map(ToString::to_string).collect();
        (readout.readings, readout.events, problems)
    });
    Ok(Answer { who, readings, events, problems, refused })
}

pub(super) fn text_of(event: &Event) -> String {
    if event.text.is_empty() { event.raw.escape_ascii().to_string() } else { event.text.clone() }
}

fn print_table(name: &str, answer: &Answer, out: &mut impl Write) -> anyhow::Result<()> {
    print_introduction(name, &answer.who, out)?;
    for reading in &answer.readings {
        let (code, value) = (reading.code.to_string(), reading.quantity.decimal());
        let at = reading.occurred_at.map_or_else(String::new, |at| format!(" at {at}"));
        writeln!(out, "{code:<22} {value:>16} {}{at}", reading.quantity.unit)?;
    }
    for event in &answer.events {
        writeln!(out, "{:<22} {:>16}", event.log, text_of(event))?;
    }
    for (code, reason) in &answer.refused {
        writeln!(out, "{:<22} refused: {reason}", code.to_string())?;
    }
    for problem in &answer.problems {
        writeln!(out, "{:<22} {problem}", "not readable")?;
    }
    Ok(())
}

fn print_json(answer: &Answer, out: &mut impl Write) -> anyhow::Result<()> {
    let values = answer.readings.iter().map(|reading| {
        serde_json::json!({
            "code": reading.code.to_string(), "kind": reading.kind.name(), "captured_at": reading.captured_at.to_string(),
            "value": reading.quantity.decimal(), "unit": reading.quantity.unit.to_string(),
        })
    });
    let events = answer.events.iter().map(|event| serde_json::json!({ "code": event.log, "text": text_of(event) }));
    let refused =
        answer.refused.iter().map(|(code, reason)| serde_json::json!({ "code": code.to_string(), "refused": reason }));
    let problems = answer.problems.iter().map(|problem| serde_json::json!({ "problem": problem }));
    let all: Vec<_> = values.chain(events).chain(refused).chain(problems).collect();
    Ok(writeln!(out, "{}", object(&answer.who, &all))?)
}
