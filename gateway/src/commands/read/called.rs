//! A meter that speaks IEC 62056-21: its read-out, or what is asked for in programming mode.

use std::io::Write;
use std::sync::Arc;

use protocols::metering::Code;
use tokio::time::Instant;

use super::answer::Answer;
use super::{HINT_BUSY, codes};
use crate::clock::{SharedClock, SystemClock};
use crate::config::metering::{CallSettings, LinePlan, MeterSettings};
use crate::link;
use crate::reading::call::Call;
use crate::reading::called::Conversation;
use crate::reading::session::SessionError;

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
    answer.print(&meter.name, json, out)
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
