//! A meter that speaks IEC 62056-21: its read-out, or what is asked for in programming mode.

use std::io::Write;
use std::sync::Arc;

use protocols::metering::{Code, Event, TelegramReading};
use tokio::time::Instant;

use super::{HINT_BUSY, codes, object, print_introduction};
use crate::clock::{SharedClock, SystemClock};
use crate::config::metering::{CallSettings, LinePlan, MeterSettings};
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
    obis: &[String],
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let codes = if obis.is_empty() { Vec::new() } else { codes(meter, obis)? };
    let codes: Vec<Code> = codes.into_iter().map(|(code, _)| code).collect();
    let medium = link::medium(&plan.line.medium);
    let mut link = match medium.open().await {
        Ok(link) => link,
        Err(error) => anyhow::bail!("line {}: {error}\n{HINT_BUSY}", plan.line.name),
    };
    let deadline = Instant::now() + plan.line.budget;
    let told = |error: SessionError| anyhow::anyhow!("{}: {}", meter.name, error.text());
    let mut call = Call::new(&mut *link, &settings.client, deadline).map_err(|error| told(error.into()))?;
    let answer = ask(&mut call, meter, settings, &codes).await;
    match &answer {
        // What was read is printed, however the meter takes its leave.
        Ok(_) => drop(call.end().await),
        Err(_) => call.hang_up().await,
    }
    let answer = answer.map_err(told)?;
    if json { print_json(&answer, out) } else { print_table(&meter.name, &answer, out) }
}

async fn ask(
    call: &mut Call<'_>,
    meter: &MeterSettings,
    settings: &CallSettings,
    codes: &[Code],
) -> Result<Answer, SessionError> {
    let clock: SharedClock = Arc::new(SystemClock::new());
    let mut conversation = Conversation::new(call, settings);
    let who = conversation.introduce(meter.serial.as_ref(), codes.is_empty(), false, &clock).await?;
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

fn text_of(event: &Event) -> String {
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
