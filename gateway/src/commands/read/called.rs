//! A meter that speaks IEC 62056-21: its read-out, or what is asked for in programming mode.

use std::io::Write;
use std::sync::Arc;

use protocols::metering::Code;
use tokio::time::Instant;

use super::answer::Answer;
use super::rows::{Table, Wanted};
use super::{ReadOptions, codes, open};
use crate::clock::{SharedClock, SystemClock};
use crate::config::metering::{CallSettings, LinePlan, MeterSettings, Source};
use crate::link;
use crate::reading::call::Call;
use crate::reading::called::Conversation;
use crate::reading::session::SessionError;

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
    answer.print(name, options.json, out)
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
