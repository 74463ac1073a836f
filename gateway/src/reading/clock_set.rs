//! Setting the clock of a DLMS meter: once a day at most, within the [rules], and never twice for one cause.
//!
//! The time is written with SET, to the attribute `time` of the clock (class 8, attribute 2), which every clock has. The methods beside
//! it (`shift_time`, `adjust_to_preset_time`) are optional, need rights of their own, and where a meter refuses the attribute it refuses
//! them too; so there is no second way, and a refusal is told.
//!
//! A session that reads finds out how far the clock is off, and plans a conversation about it: one of its own,
//! as the client that may set clocks, at a time when the rules allow it. In it:
//!
//! 1. The clock is read. The middle of the round trip is taken for the moment at which it showed that; half of the round trip is what the
//!    offset may be wrong by, and how long the SET will take.
//! 2. An intent is written down: when, and how far the clock is off.
//! 3. SET, once.
//! 4. The clock is read again.
//! 5. An event with all of it is stored; in the same transaction the intent is settled.
//!
//! Whoever finds an intent that is not settled, after a kill or a broken line, does not know whether the meter took the SET. He sets
//! nothing, reads the clock and stores the event with what that says: nearer to the right time than to where it was, it was set. The intent
//! counts as the day's try.

mod rules;
#[cfg(test)]
mod tests;

use std::time::Duration;

use protocols::dlms::client::RequestError;
use protocols::dlms::data::Data;
use protocols::dlms::datetime::{ClockReading, ClockStatus, DateTime, Deviation, Time};
use protocols::dlms::value::DataValue;
use protocols::metering::{Event, MeterId, UtcMillis};
use tokio::time::Instant;
use tracing::{info, warn};

pub use self::rules::{Advice, Offset, advise};
use self::rules::{BETWEEN_MS, DAY_S, HOUR_S, QUARTER_S};
use super::counters::{associate, conclude, count_together};
use super::introduction::{CLOCK, introduce};
use super::memory::MeterMemory;
use super::registers::read_at;
use super::session::{Session, SessionError, SessionParts, within_store_timeout};
use super::talk::Talk;
use crate::config::metering::{ClockSetSettings, MeterSettings, Source};
use crate::link::ByteLink;
use crate::outbox::{ClockSet, StoreRequest};
use crate::telemetry::Metric;

/// The log of what was done to clocks.
pub const CLOCK_SET_LOG: &str = "meterpost:clock-set";
/// After a conversation about the clock that came to nothing.
const AGAIN_AFTER: Duration = Duration::from_secs(3_600);
/// Beyond the end of an interval, so that what is measured then cannot lie before it: sessions know offsets to a second.
const SLACK: Duration = Duration::from_secs(2);
/// After one in which the client was not let in: trying often locks meters.
const AGAIN_AFTER_REFUSAL: Duration = Duration::from_secs(86_400);
/// A clock that shows whole seconds is half a second further on the average.
const HALF_SECOND_MS: i64 = 500;
const DAYLIGHT_SAVING: u8 = 0x80;

/// What is known of a meter's clock between its sessions.
#[derive(Debug, Default)]
pub struct ClockMemory {
    /// When a conversation about it is due, on the monotonic clock, as are all of these.
    pub turn_at: Option<Duration>,
    /// Whatever is found meanwhile.
    not_before: Duration,
    /// No try is open in the outbox, as far as this process knows.
    is_settled: bool,
    /// Why it cannot be set, for the meter's state.
    trouble: Option<String>,
    told: Option<String>,
}

/// A look at a meter's clock.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub shown: DateTime,
    pub reading: ClockReading,
    pub offset: Offset,
    /// From the request to the answer.
    took: Duration,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotNow {
    /// Somebody else answers.
    OtherMeter(MeterId),
    ClockUnreadable(String),
    /// Our own clock is not known to be right.
    Unsynchronised,
    /// This was the last try, less than a day ago.
    TriedAt(UtcMillis),
    Advice(Advice),
}

/// What came of a conversation about a clock.
#[derive(Debug)]
pub enum Outcome {
    NotNow(NotNow),
    Set {
        before: Look,
        after: Option<Look>,
    },
    Refused {
        error: RequestError,
    },
    /// An earlier try had been cut short.
    Resolved {
        earlier: ClockSet,
        was_set: bool,
        now: Look,
    },
}

/// The line, for one conversation.
pub struct Lent<'l> {
    pub link: &'l mut dyn ByteLink,
    pub octet_time_us: u32,
    pub deadline: Instant,
}

/// Whether the day's try counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Plan,
    Hand,
}

impl<T> Session<'_, T> {
    /// At the end of a session: whether the clock has to be looked after, and when. Answers what is to be said of it in the meter's state.
    pub(super) async fn plan_clock_set(&mut self) -> Result<Option<String>, SessionError> {
        let Some(settings) = &self.meter.clock_set else { return Ok(None) };
        let (Some(offset_ms), Some(now)) = (self.who.clock_offset_ms, self.parts.trust.now()) else { return Ok(None) };
        if self.who.expected.is_some() {
            return Ok(None);
        }
        let local_ms = local(now, self.who.clock.deviation);
        let offset = Offset { ms: offset_ms, error_ms: 0 };
        let advice = advise(settings, &periods(self.meter, self.memory), local_ms, offset);
        let mut wait = match advice {
            Advice::Set => Some(Duration::ZERO),
            Advice::Wait(wait) => Some(wait + SLACK),
            Advice::Leave | Advice::Beyond | Advice::NoRoom { .. } => None,
        };
        let is_settled = self.memory.clock.as_ref().is_some_and(|memory| memory.is_settled);
        let earlier =
            if is_settled && wait.is_none() { None } else { earlier_set(self.parts, &self.who.meter).await? };
        let memory = self.memory.clock.get_or_insert_default();
        memory.is_settled = true;
        match earlier {
            Some(ClockSet { is_open: true, .. }) => (wait, memory.is_settled) = (Some(Duration::ZERO), false),
            Some(ClockSet { at, .. }) => {
                let day_over_ms = u64::try_from(BETWEEN_MS - now.since(at)).unwrap_or(0);
                wait = wait.map(|wait| wait.max(Duration::from_millis(day_over_ms)));
            }
            None => {}
        }
        let monotonic = self.parts.clock.monotonic();
        let wait = wait.filter(|_| self.parts.trust.is_synchronised());
        memory.turn_at = wait.map(|wait| (monotonic + wait).max(memory.not_before));
        let trouble = match advice {
            Advice::Leave => None,
            Advice::Beyond => {
                self.parts.metrics.add(Metric::ClocksBeyond, 1);
                Some(format!(
                    "the clock is more than {} s off: it is not set before somebody has looked at it",
                    settings.below_ms / 1000
                ))
            }
            Advice::NoRoom { period_s } => {
                self.parts.metrics.add(Metric::ClocksBeyond, 1);
                Some(format!("the clock is too far off to be set within one interval of {period_s} s"))
            }
            Advice::Set | Advice::Wait(_) => memory.trouble.clone(),
        };
        if trouble.is_none() {
            memory.trouble = None;
        }
        if memory.told != trouble {
            if let Some(trouble) = &trouble {
                warn!(meter = %self.meter.name, offset_ms, "{trouble}");
            }
            memory.told.clone_from(&trouble);
        }
        Ok(trouble)
    }
}

/// One turn of a meter that is for its clock alone. True when the link may hold anything now.
pub async fn take_turn(parts: &SessionParts, meter: &MeterSettings, memory: &mut MeterMemory, lent: Lent<'_>) -> bool {
    let Some(settings) = &meter.clock_set else { return false };
    let outcome = converse(parts, meter, settings, memory, lent, By::Plan).await;
    let now = parts.clock.monotonic();
    let memory = memory.clock.get_or_insert_default();
    memory.turn_at = None;
    match outcome {
        Ok(Outcome::NotNow(NotNow::Advice(Advice::Wait(wait)))) => memory.turn_at = Some(now + wait + SLACK),
        // Planned anew after the next session.
        Ok(Outcome::NotNow(why)) => {
            memory.not_before = now + AGAIN_AFTER;
            info!(meter = %meter.name, ?why, "the clock is left as it is");
        }
        Ok(Outcome::Set { after, .. }) => {
            let is_off = after.is_some_and(|after| after.offset.ms.abs() > settings.above_ms);
            memory.trouble = is_off.then(|| "the meter took the time that it was given, and shows another".to_owned());
        }
        Ok(Outcome::Resolved { .. }) => memory.trouble = None,
        Ok(Outcome::Refused { error }) => {
            memory.trouble = Some(format!("the meter does not let this client set its clock: {error}"));
        }
        Err(error) => {
            let is_refusal = error.is_wrong_password();
            memory.is_settled = false;
            memory.not_before = now + if is_refusal { AGAIN_AFTER_REFUSAL } else { AGAIN_AFTER };
            warn!(meter = %meter.name, error = %error.text(), "the conversation about its clock came to nothing");
            if is_refusal {
                memory.trouble = Some(format!("the client of clock_set is not let in: {}", error.text()));
            }
            return error.spoils_link();
        }
    }
    false
}

/// One conversation as the client that may set the clock, ended in order whatever came of it.
pub async fn converse(
    parts: &SessionParts,
    meter: &MeterSettings,
    settings: &ClockSetSettings,
    memory: &mut MeterMemory,
    Lent { link, octet_time_us, deadline }: Lent<'_>,
    by: By,
) -> Result<Outcome, SessionError> {
    let writer = &*settings.writer;
    // Under one key both clients go on from the same counters; under another, theirs are asked for anew.
    let together = count_together(meter, writer);
    let mut lent = MeterMemory::new(0);
    if together {
        lent.counters = memory.counters.take();
    }
    let outcome = async {
        let mut talk = Talk::new(link, writer, octet_time_us, deadline)?;
        let outcome = match associate(&mut talk, writer, parts.counters(), &mut lent).await {
            Ok(()) => look_after(&mut talk, parts, meter, settings, memory, by).await,
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(_) => drop(talk.release().await),
            Err(_) => talk.hang_up().await,
        }
        conclude(&mut talk, writer, parts.counters(), &parts.metrics, &mut lent, outcome).await
    };
    let outcome = outcome.await;
    if together {
        memory.counters = lent.counters;
    }
    outcome
}

async fn look_after(
    talk: &mut Talk<'_>,
    parts: &SessionParts,
    meter: &MeterSettings,
    settings: &ClockSetSettings,
    memory: &MeterMemory,
    by: By,
) -> Result<Outcome, SessionError> {
    let not_now = |why| Ok(Outcome::NotNow(why));
    let who = introduce(talk, &settings.writer, &parts.clock).await?;
    if who.expected.is_some() || memory.identity.as_ref().is_some_and(|known| *known != who.meter) {
        return not_now(NotNow::OtherMeter(who.meter));
    }
    let before = match look(talk, meter, parts).await? {
        Ok(before) => before,
        Err(error) => return not_now(NotNow::ClockUnreadable(error)),
    };
    if !parts.trust.is_synchronised() {
        return not_now(NotNow::Unsynchronised);
    }
    let earlier = earlier_set(parts, &who.meter).await?;
    match earlier {
        Some(earlier) if earlier.is_open => {
            let was_set = before.offset.ms.abs() <= earlier.offset_ms.abs() / 2;
            settle(parts, meter, &who.meter, earlier, &Told::resolved(earlier, was_set, &before)).await?;
            return Ok(Outcome::Resolved { earlier, was_set, now: before });
        }
        Some(earlier) if by == By::Plan && parts.clock.wall().since(earlier.at) < BETWEEN_MS => {
            return not_now(NotNow::TriedAt(earlier.at));
        }
        _ => {}
    }
    let periods_s = periods(meter, memory);
    let advice = || {
        let local_ms = local(parts.clock.wall(), Some(before.reading.deviation));
        advise(settings, &periods_s, local_ms, before.offset)
    };
    if advice() != Advice::Set {
        return not_now(NotNow::Advice(advice()));
    }
    let intent = ClockSet { at: parts.clock.wall(), offset_ms: before.offset.ms, is_open: true };
    note(parts, &who.meter, Some(intent)).await?;
    // The disk may have taken its time.
    if advice() != Advice::Set {
        note(parts, &who.meter, earlier).await?;
        return not_now(NotNow::Advice(advice()));
    }
    let time = before.time_to_write(parts.clock.wall());
    // When the conversation breaks from here on, the intent stays open.
    let written = talk.set(CLOCK, DataValue::octets_of(time).to_vec()).await?;
    if let Err(error) = written {
        settle(parts, meter, &who.meter, intent, &Told::refused(&before, &error)).await?;
        return Ok(Outcome::Refused { error });
    }
    let after = look(talk, meter, parts).await?.ok();
    settle(parts, meter, &who.meter, intent, &Told::set(&before, time, after.as_ref())).await?;
    Ok(Outcome::Set { before, after })
}

/// Reads the clock. The inner error is the meter's word, or that nobody can make a time of it.
pub async fn look(
    talk: &mut Talk<'_>,
    meter: &MeterSettings,
    parts: &SessionParts,
) -> Result<Result<Look, String>, SessionError> {
    let asked_at = parts.clock.monotonic();
    let value = talk.get(CLOCK, None).await?;
    let took = parts.clock.monotonic().saturating_sub(asked_at);
    let half_ms = took.as_millis() as i64 / 2;
    let at = parts.clock.wall().plus_ms(-half_ms);
    let value = match value {
        Ok(value) => value,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let shown = Data::from_bytes(&value.data).ok().and_then(|data| data.date_time());
    let Some(shown) = shown else { return Ok(Err("the clock shows no date and time".to_owned())) };
    let reading = match shown.to_utc(meter.clock_rules) {
        Ok(reading) => reading,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let rounding_ms = if shown.time().hundredths().is_none() { HALF_SECOND_MS } else { 0 };
    let offset = Offset { ms: reading.utc.since(at) + rounding_ms, error_ms: half_ms + rounding_ms };
    Ok(Ok(Look { shown, reading, offset, took }))
}

impl Look {
    /// The right time when it arrives, as this meter writes times. Whole seconds: some meters know no others.
    fn time_to_write(&self, now: UtcMillis) -> DateTime {
        let arrives = now.plus_ms(self.took.as_millis() as i64 / 2 + HALF_SECOND_MS);
        let arrives = UtcMillis(arrives.seconds() * 1000);
        let status = match self.shown.status() {
            ClockStatus::UNSPECIFIED => ClockStatus::UNSPECIFIED,
            // What is not valid about it ends with this.
            ClockStatus(status) => ClockStatus(status & DAYLIGHT_SAVING),
        };
        let minutes = self.reading.deviation.minutes();
        let local = DateTime::from_utc(arrives, minutes.saturating_neg(), status);
        let Time([hour, minute, second, hundredths]) = local.time();
        let hundredths = if self.shown.time().hundredths().is_none() { Time::UNSPECIFIED.0[3] } else { hundredths };
        let stated = match self.reading.deviation {
            Deviation::Stated(minutes) => Some(minutes),
            Deviation::Assumed(_) => None,
        };
        DateTime::from_parts(local.date(), Time([hour, minute, second, hundredths]), stated, status)
    }
}

/// What an event says of a try: its code, what was written, and a text.
struct Told {
    code: i64,
    written: Vec<u8>,
    text: String,
    is_set: bool,
}

impl Told {
    fn set(before: &Look, written: DateTime, after: Option<&Look>) -> Self {
        let after = after.map_or("cannot be read since".to_owned(), |after| format!("{} since", after.text()));
        let text = format!("the clock was set to {written}; {}; {after}", before.text());
        Self { code: 1, written: written.0.to_vec(), text, is_set: true }
    }

    fn refused(before: &Look, error: &RequestError) -> Self {
        let text = format!("the clock was not set: {error}; {}", before.text());
        Self { code: 2, written: Vec::new(), text, is_set: false }
    }

    fn resolved(earlier: ClockSet, was_set: bool, now: &Look) -> Self {
        let (code, outcome) = if was_set { (3, "was set") } else { (4, "was not set") };
        let text = format!(
            "it was cut short when the clock was to be set, at {}, when it was off by {}; by what it shows it {outcome}: {} now",
            earlier.at,
            seconds(earlier.offset_ms),
            now.text()
        );
        Self { code, written: Vec::new(), text, is_set: was_set }
    }
}

impl Look {
    fn text(&self) -> String {
        format!("{} was shown, off by {}", self.shown, seconds(self.offset.ms))
    }
}

/// Of milliseconds.
pub fn seconds(ms: i64) -> String {
    format!("{:+.3} s", ms as f64 / 1000.0)
}

/// Stores the event; nothing of the try is open then.
async fn settle(
    parts: &SessionParts,
    meter: &MeterSettings,
    id: &MeterId,
    tried: ClockSet,
    told: &Told,
) -> Result<(), SessionError> {
    let Told { code, written, text, is_set } = told;
    let log = CLOCK_SET_LOG.to_owned();
    let (raw, text) = (written.clone(), text.clone());
    info!(meter = %meter.name, "{text}");
    let event = Event { meter: id.clone(), log, at: tried.at, nth: 0, code: *code, raw, text };
    let request = StoreRequest { events: vec![(event, read_at(&parts.clock))], ..StoreRequest::default() };
    let (id, settled) = (id.clone(), ClockSet { is_open: false, ..tried });
    let stored = parts.outbox.run(1, move |outbox| {
        outbox.store(&request)?;
        outbox.note_clock_set(&id, Some(&settled))
    });
    within_store_timeout(stored).await?;
    parts.metrics.add(if *is_set { Metric::ClocksSet } else { Metric::ClocksNotSet }, 1);
    Ok(())
}

async fn note(parts: &SessionParts, id: &MeterId, set: Option<ClockSet>) -> Result<(), SessionError> {
    let id = id.clone();
    within_store_timeout(parts.outbox.run(1, move |outbox| outbox.note_clock_set(&id, set.as_ref()))).await
}

async fn earlier_set(parts: &SessionParts, id: &MeterId) -> Result<Option<ClockSet>, SessionError> {
    let id = id.clone();
    within_store_timeout(parts.outbox.run(0, move |outbox| outbox.clock_set(&id))).await
}

/// The lengths of the intervals that a set may not disturb.
pub fn periods(meter: &MeterSettings, memory: &MeterMemory) -> Vec<u32> {
    let profiles = meter.reads.iter().zip(&memory.profiles).filter(|(read, _)| read.source == Source::Profile);
    let mut periods_s: Vec<u32> = profiles
        .map(|(_, profile)| match profile.layout.as_ref().map(|layout| layout.capture_period_s) {
            None => QUARTER_S,
            Some(0) => DAY_S,
            Some(period_s) => period_s,
        })
        .collect();
    if periods_s.is_empty() {
        // It captures for others.
        periods_s.push(QUARTER_S);
    }
    periods_s.push(HOUR_S);
    periods_s
}

/// The meter's local time, for [`advise`].
pub fn local(utc: UtcMillis, deviation: Option<Deviation>) -> i64 {
    utc.0 - i64::from(deviation.map_or(0, Deviation::minutes)) * 60_000
}
