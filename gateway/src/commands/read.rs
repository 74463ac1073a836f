//! `read`: one meter, once, to the screen; at a port, the next telegram.

mod answer;
mod blue_book;
mod called;
mod objects;
mod polled;
mod port;
mod rows;
mod value;

pub(super) use self::blue_book::is_secret;
pub(super) use self::value::text;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use protocols::dlms::data::Data;
use protocols::dlms::value::DataValue;
use protocols::metering::{Code, Kind};
use tokio::time::Instant;

use crate::clock::{SharedClock, SystemClock};
use crate::config::Checked;
use crate::config::metering::{Addressing, LinePlan, MeterSettings, Source};
use crate::link::trace::{Framing, TraceLink};
use crate::link::{self, ByteLink, Medium};
use crate::outbox::{Outbox, OutboxHandle};
use crate::reading::counters::{CounterMemory, Counters, associate, conclude};
use crate::reading::error::OfKeys;
use crate::reading::introduction::{Introduction, introduce};
use crate::reading::memory::MeterMemory;
use crate::reading::registers::{RegisterRound, read_registers};
use crate::reading::session::SessionError;
use crate::reading::talk::{Talk, TalkError};
use crate::run;
use crate::telemetry::Metrics;
use crate::trust::ClockTrust;

pub(super) const HINT_BUSY: &str = "hint: while the gateway runs, it holds the line; `status` shows what it reads";

const HINT_COUNTED: &str = "hint: `status` shows what it reads; stop it to read this meter by hand";

/// Nobody waits for the line: a whole object list takes minutes at 300 baud.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What is read, and how it is shown.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ReadOptions {
    /// What to read; by default the registers and instants of its section, of IEC 62056-21 and M-Bus the read-out.
    pub obis: Vec<String>,
    /// All objects of a DLMS meter that this client may see, with what may be read of them.
    #[arg(long, conflicts_with_all = ["obis", "profile"])]
    pub object_list: bool,
    /// The entries of this load profile or event log.
    #[arg(long, value_name = "OBIS", conflicts_with = "obis")]
    pub profile: Option<String>,
    /// The first label of a profile, as 2026-01-01T00:00:00Z [default: a day before --to].
    #[arg(long, value_name = "INSTANT", requires = "profile")]
    pub from: Option<String>,
    /// Labels of a profile before this [default: now].
    #[arg(long, value_name = "INSTANT", requires = "profile")]
    pub to: Option<String>,
    /// The profile as comma-separated values.
    #[arg(long, requires = "profile", conflicts_with = "json")]
    pub csv: bool,
    /// JSON instead of a table: one object, of an object list or a profile one a line.
    #[arg(long)]
    pub json: bool,
    /// Shows on standard error what goes over the line, without passwords, proofs, keys and tags.
    #[arg(long)]
    pub trace: bool,
}

/// Reads and prints; an error is about the meter or the line.
pub async fn read(checked: &Checked, name: &str, options: &ReadOptions, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(port) = checked.ports.iter().find(|port| &*port.name == name) {
        return port::hear(port, options, out).await;
    }
    let (plan, meter) = find(checked, name)?;
    let clock: SharedClock = Arc::new(SystemClock::new());
    let wanted = rows::Wanted::of(options, clock.wall())?;
    let is_long = options.object_list || wanted.is_some();
    let deadline = Instant::now() + if is_long { plan.line.budget.max(PATIENCE) } else { plan.line.budget };
    match &meter.addressing {
        Addressing::Iec62056_21(call) => {
            return called::read(plan, &meter, call, (options, wanted), deadline, out).await;
        }
        Addressing::Mbus(bus) => return polled::read(plan, &meter, bus, options, deadline, out).await,
        Addressing::Wrapper { .. } | Addressing::Hdlc { .. } => {}
    }
    let codes = codes(&meter, &options.obis)?;
    // Nobody has told this process the time.
    let (keeper, trust) = (keep_counters(checked, &meter)?, ClockTrust::new(clock.clone(), 0));
    let counters = Counters { outbox: &keeper.outbox, trust: &trust };
    let medium = link::medium(&plan.line.medium);
    let told = |error: TalkError| anyhow::anyhow!("{name}: {}", error.text());
    let mut memory = MeterMemory::new(0);
    let mut tries = 1 + u32::from(has_two_keys(&meter));
    loop {
        tries -= 1;
        let mut link = open(plan, &*medium, &meter, options, &clock).await?;
        let mut talk = Talk::new(&mut *link, &meter, medium.octet_time_us(), deadline).map_err(told)?;
        let answer = async {
            associate(&mut talk, &meter, counters, &mut memory).await?;
            if options.object_list {
                return Ok(objects::walk(&mut talk, options.json, out).await?);
            }
            let who = introduce(&mut talk, &meter, &clock).await?;
            if let Some(wanted) = &wanted {
                let table = rows::read(&mut talk, &meter, &who, wanted).await?;
                return Ok(table.and_then(|table| table.print(options, out)));
            }
            let round = read_registers(&mut talk, &mut memory, &codes).await?;
            Ok::<_, SessionError>(if options.json {
                print_json(&who, &round, out)
            } else {
                print_table(name, &who, &round, out)
            })
        };
        let answer = answer.await;
        match &answer {
            // What was read is printed, however the meter takes its leave.
            Ok(_) => drop(talk.release().await),
            Err(_) => talk.hang_up().await,
        }
        match conclude(&mut talk, &meter, counters, &Metrics::default(), &mut memory, answer).await {
            // It may have hung up on whoever has the other key.
            Err(error) if tries > 0 && !is_settled(&memory) && error.of_keys() != OfKeys::Nothing => {}
            Err(error) => anyhow::bail!("{name}: {}", error.text()),
            Ok(printed) => return printed,
        }
    }
}

fn is_settled(memory: &MeterMemory) -> bool {
    memory.counters.as_deref().is_some_and(CounterMemory::is_settled)
}

/// A change of its keys was cut short: nobody knows yet which of two it has.
fn has_two_keys(meter: &MeterSettings) -> bool {
    meter.security.cipher.as_ref().is_some_and(|cipher| cipher.next.is_some())
}

/// Opens the line of a meter.
async fn open(
    plan: &LinePlan,
    medium: &dyn Medium,
    meter: &MeterSettings,
    options: &ReadOptions,
    clock: &SharedClock,
) -> anyhow::Result<Box<dyn ByteLink>> {
    let link = match medium.open().await {
        Ok(link) => link,
        Err(error) => anyhow::bail!("line {}: {error}\n{HINT_BUSY}", plan.line.name),
    };
    if !options.trace {
        return Ok(link);
    }
    let framing = framing(&meter.addressing);
    Ok(Box::new(TraceLink::new(link, framing, clock.clone(), Box::new(std::io::stderr()))))
}

/// By which a trace finds what it must not show.
const fn framing(addressing: &Addressing) -> Framing {
    match addressing {
        Addressing::Wrapper { .. } => Framing::Wrapper,
        Addressing::Hdlc { .. } => Framing::Hdlc,
        Addressing::Iec62056_21(_) => Framing::Iec62056_21,
        Addressing::Mbus(_) => Framing::Mbus,
    }
}

/// The outbox that knows which invocation counters are used, and the lock on it.
pub(super) struct Keeper {
    pub(super) outbox: OutboxHandle,
    pub(super) _lock: Option<std::fs::File>,
}

/// Of a meter with keys, the gateway's own outbox, as long as the gateway does not run: two who reserve counters would not see each
/// other. Where there is none the meter says which counters are used; the gateway will ask it, too.
pub(super) fn keep_counters(checked: &Checked, meter: &MeterSettings) -> anyhow::Result<Keeper> {
    let has_outbox = meter.security.cipher.is_some() && run::outbox_path(checked).exists();
    if !has_outbox {
        let outbox = Outbox::in_memory(run::outbox_settings(checked), Box::new(run::random_u64))?.0;
        return Ok(Keeper { outbox: OutboxHandle::inline(outbox).0, _lock: None });
    }
    let lock = run::lock(checked).map_err(|error| match error {
        run::StartError::Locked { .. } => {
            anyhow::anyhow!("{}: the gateway runs, and counts what is said under its key\n{HINT_COUNTED}", meter.name)
        }
        other => other.into(),
    })?;
    Ok(Keeper { outbox: OutboxHandle::inline(super::open(checked, &lock)?).0, _lock: Some(lock) })
}

pub(super) fn find<'c>(checked: &'c Checked, name: &str) -> anyhow::Result<(&'c LinePlan, Arc<MeterSettings>)> {
    let all = || checked.lines.iter().flat_map(|plan| plan.meters.iter().map(move |meter| (plan, meter)));
    if let Some((plan, meter)) = all().find(|(_, meter)| &*meter.name == name) {
        return Ok((plan, meter.clone()));
    }
    if let Some(port) = checked.ports.iter().find(|port| port.radio.meters.iter().any(|meter| &*meter.name == name)) {
        anyhow::bail!(
            "{name} is only heard, and not asked\nhint: `read {}` waits for the next telegram at its port",
            port.name
        );
    }
    let ports = checked.ports.iter().map(|port| &*port.name);
    let known: Vec<&str> = all().map(|(_, meter)| &*meter.name).chain(ports).take(10).collect();
    anyhow::bail!("there is no meter or port {name:?}\nhint: known meters: {}", known.join(", "))
}

fn codes(meter: &MeterSettings, obis: &[String]) -> anyhow::Result<Vec<(Code, Kind)>> {
    if !obis.is_empty() {
        let parse = |text: &String| text.parse::<Code>().map(|code| (code, Kind::Instant)).context("cannot read that");
        return obis.iter().map(parse).collect();
    }
    let mut codes = Vec::new();
    for read in meter.reads.iter().filter(|read| matches!(read.source, Source::Registers | Source::Instants)) {
        codes.extend(read.codes.iter().map(|code| (code.clone(), read.kind_of(code))));
    }
    Ok(codes)
}

/// The value for people, and its unit.
fn value_of(value: &crate::reading::registers::RegisterValue) -> (String, String) {
    let Ok(data) = Data::from_bytes(&value.value.data) else { return ("not readable".to_owned(), String::new()) };
    match value.scaler_unit.quantity(&data) {
        Ok(quantity) => (quantity.decimal(), quantity.unit.to_string()),
        Err(_) => match data.octets() {
            Some(octets) if octets.iter().all(|octet| octet.is_ascii_graphic() || *octet == b' ') => {
                (String::from_utf8_lossy(octets).into_owned(), String::new())
            }
            _ => (format!("{:?}", DataValue::from(data)), String::new()),
        },
    }
}

fn print_introduction(name: &str, who: &Introduction, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "{:<22} {name}", "meter")?;
    writeln!(out, "{:<22} {}", "identity", who.meter)?;
    if let Some(expected) = &who.expected {
        writeln!(out, "{:<22} {expected}", "expected instead")?;
    }
    match who.clock_offset_ms {
        Some(offset_ms) => writeln!(out, "{:<22} {} ({:+} s)", "clock", who.meter_now, offset_ms / 1000)?,
        None => writeln!(out, "{:<22} not readable", "clock")?,
    }
    Ok(())
}

fn print_table(name: &str, who: &Introduction, round: &RegisterRound, out: &mut impl Write) -> anyhow::Result<()> {
    print_introduction(name, who, out)?;
    for value in &round.values {
        let (text, unit) = value_of(value);
        writeln!(out, "{:<22} {text:>16} {unit}", value.code.to_string())?;
    }
    for (code, error) in &round.refused {
        writeln!(out, "{:<22} {error}", code.to_string())?;
    }
    Ok(())
}

fn print_json(who: &Introduction, round: &RegisterRound, out: &mut impl Write) -> anyhow::Result<()> {
    let values = round.values.iter().map(|value| {
        let (text, unit) = value_of(value);
        serde_json::json!({ "code": value.code.to_string(), "class": value.class_id, "value": text, "unit": unit })
    });
    let refused = round
        .refused
        .iter()
        .map(|(code, error)| serde_json::json!({ "code": code.to_string(), "refused": error.to_string() }));
    Ok(writeln!(out, "{}", object(who, &values.chain(refused).collect::<Vec<_>>()))?)
}

fn object(who: &Introduction, values: &[serde_json::Value]) -> serde_json::Value {
    serde_json::json!({
        "meter": who.meter.as_str(),
        "expected": who.expected.as_ref().map(protocols::metering::MeterId::as_str),
        "clock": who.meter_now.to_string(),
        "clock_offset_ms": who.clock_offset_ms,
        "values": values,
    })
}

#[cfg(test)]
mod tests;
