//! What a meter said that was read out, for people or as JSON.

use std::io::Write;

use protocols::metering::{Code, Event, TelegramReading};

use super::{object, print_introduction};
use crate::reading::introduction::Introduction;

pub(super) struct Answer {
    pub(super) who: Introduction,
    pub(super) readings: Vec<TelegramReading>,
    pub(super) events: Vec<Event>,
    pub(super) problems: Vec<String>,
    pub(super) refused: Vec<(Code, String)>,
}

impl Answer {
    pub(super) fn print(&self, name: &str, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
        if json { print_json(self, out) } else { print_table(name, self, out) }
    }
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
