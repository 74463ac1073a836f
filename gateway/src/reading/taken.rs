//! What becomes of a read-out, whatever its protocol: what its sections want is made pending, and what was told before is left out.

use std::fmt::Display;

use protocols::metering::{Event, Kind, StampedBy, TelegramReading, UtcMillis};
use tracing::warn;

use super::memory::{MeterMemory, ReadOutMemory};
use super::session::Session;
use crate::config::metering::{ReadSettings, Source};
use crate::outbox::Level;
use crate::recurring::SAID_EVERY;
use crate::telemetry::Metric;

/// Logs, and values of the past, of one meter. Beyond it, it makes them up, and they are learned anew.
const TOLD_MAX: usize = 1_024;

/// What a read-out says.
pub(super) struct Told<'p, P> {
    pub(super) captured_at: UtcMillis,
    pub(super) readings: Vec<TelegramReading>,
    pub(super) events: Vec<Event>,
    /// What of it cannot be used, and what may be done about that.
    pub(super) problems: &'p [P],
    pub(super) hint: &'static str,
}

/// What a section says of a value: `None` when it is not wanted.
pub(super) fn kind_in(read: &ReadSettings, reading: &TelegramReading) -> Option<Kind> {
    if !read.codes.is_empty() && !read.codes.contains(&reading.code) {
        return None;
    }
    let own = read.kinds.iter().find(|(code, _)| *code == reading.code).map(|(_, kind)| *kind).or(read.kind);
    let by_source = (read.source == Source::Instants).then_some(Kind::Instant);
    Some(own.or(by_source).unwrap_or(reading.kind))
}

impl<T> Session<'_, T> {
    /// Makes what these sections want pending. All but billing values are optional: left out while the outbox is nearly full, so that the
    /// room is the profiles'.
    pub(super) fn take_told<P: Display>(&mut self, told: Told<'_, P>, sections: &[&ReadSettings]) {
        let is_tight = self.parts.outbox.level() != Level::Free;
        for reading in told.readings {
            let wanted = sections.iter().find_map(|read| Some((*read, kind_in(read, &reading)?)));
            let Some((read, kind)) = wanted else { continue };
            let (name, period_s) = (&self.meter.name, reading.period_s);
            self.parts.inventory.expect_series(name, &reading.code, kind, period_s, read.every_s);
            if is_tight && kind != Kind::Billing {
                self.parts.metrics.add(Metric::OptionalSkipped, 1);
                continue;
            }
            let reading = TelegramReading { kind, ..reading };
            if !told_of(self.memory).is_new_value(&reading) {
                continue;
            }
            let (meter, read_at, offset_ms) = (self.who.meter.clone(), self.stamp.read_at, self.who.clock_offset_ms);
            self.pending.readings.push(reading.into_reading(meter, read_at, offset_ms));
        }
        let (meter, read_at, memory) = (&self.who.meter, self.stamp.read_at, told_of(self.memory));
        let events = told.events.into_iter().filter(|event| memory.is_new(event, told.captured_at));
        self.pending.events.extend(events.map(|event| (Event { meter: meter.clone(), ..event }, read_at)));
        self.tell_problems(told.problems, told.hint);
    }

    fn tell_problems<P: Display>(&mut self, problems: &[P], hint: &str) {
        let Some(first) = problems.first() else { return };
        self.parts.metrics.add(Metric::FieldProblems, problems.len() as u64);
        let now = self.parts.clock.monotonic();
        let memory = told_of(self.memory);
        if memory.told_problems_at.is_none_or(|at| now.saturating_sub(at) >= SAID_EVERY) {
            warn!(meter = %self.meter.name, error = %first, values = problems.len(), hint, "values cannot be used");
            memory.told_problems_at = Some(now);
        }
    }
}

fn told_of(memory: &mut MeterMemory) -> &mut ReadOutMemory {
    memory.read_out.get_or_insert_default()
}

impl ReadOutMemory {
    /// Whether a value has to be stored, which of those with the meter's stamp is once; if so, it counts as stored.
    fn is_new_value(&mut self, reading: &TelegramReading) -> bool {
        if reading.kind != Kind::Billing || reading.stamped_by != StampedBy::Meter {
            return true;
        }
        if self.values.len() >= TOLD_MAX {
            self.values.clear();
        }
        let key = (reading.code.clone(), reading.captured_at, reading.nth);
        self.values.insert(key, reading.quantity) != Some(reading.quantity)
    }

    /// Whether an event of a read-out that was captured then has to be stored; if so, it counts as stored.
    fn is_new(&mut self, event: &Event, captured_at: UtcMillis) -> bool {
        if self.states.len() + self.logged.len() > TOLD_MAX {
            (self.states, self.logged) = Default::default();
        }
        if event.at == captured_at {
            return self.states.insert(event.log.clone(), event.raw.clone()).as_ref() != Some(&event.raw);
        }
        let place = (event.at, event.nth);
        let last = self.logged.entry(event.log.clone()).or_insert((UtcMillis(i64::MIN), 0));
        let is_new = place > *last;
        *last = place.max(*last);
        is_new
    }
}
