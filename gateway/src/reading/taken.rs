//! What becomes of a read-out, whatever its protocol: what its sections want is made pending, and what was told before is left out.

use std::collections::HashMap;
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
            let period_s = if kind.has_period() { reading.period_s } else { 0 };
            self.parts.inventory.expect_series(&self.meter.name, &reading.code, kind, period_s, read.every_s);
            if is_tight && kind != Kind::Billing {
                self.parts.metrics.add(Metric::OptionalSkipped, 1);
                continue;
            }
            let reading = TelegramReading { kind, period_s, ..reading };
            if !told_of(self.memory).is_new_value(&reading) {
                continue;
            }
            let (meter, read_at, offset_ms) = (self.who.meter.clone(), self.stamp.read_at, self.who.clock_offset_ms);
            self.pending.readings.push(reading.into_reading(meter, read_at, offset_ms));
        }
        let (meter, read_at, memory) = (&self.who.meter, self.stamp.read_at, told_of(self.memory));
        let events = memory.new_events(told.events, told.captured_at);
        let events = events.into_iter().map(|event| (Event { meter: meter.clone(), ..event }, read_at));
        self.pending.events.extend(events);
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

    /// Those events of a read-out that was captured then which have to be stored. They count as stored.
    fn new_events(&mut self, mut events: Vec<Event>, captured_at: UtcMillis) -> Vec<Event> {
        if self.states.len() + self.logged.len() > TOLD_MAX {
            (self.states, self.logged) = Default::default();
        }
        // Some meters print the newest entry first: all are compared with what was told before.
        let mut told: HashMap<String, (UtcMillis, u8)> = HashMap::new();
        events.retain(|event| {
            if event.at == captured_at {
                return self.states.insert(event.log.clone(), event.raw.clone()).as_ref() != Some(&event.raw);
            }
            let place = (event.at, event.nth);
            told.entry(event.log.clone()).and_modify(|last| *last = place.max(*last)).or_insert(place);
            self.logged.get(&event.log).is_none_or(|last| place > *last)
        });
        for (log, place) in told {
            self.logged.entry(log).and_modify(|last| *last = place.max(*last)).or_insert(place);
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use protocols::metering::MeterId;

    use super::*;

    const LOG: &str = "1-0:99.98.0";
    const NOW: UtcMillis = UtcMillis(1_000_000);

    fn event(log: &str, at: i64, nth: u8, raw: &[u8]) -> Event {
        let (meter, log) = (MeterId::new("SIM:1").unwrap(), log.to_owned());
        Event { meter, log, at: UtcMillis(at), nth, code: 0, raw: raw.to_vec(), text: String::new() }
    }

    /// Instants and numbers of the entries that have to be stored.
    fn told(memory: &mut ReadOutMemory, entries: &[(i64, u8)]) -> Vec<(i64, u8)> {
        let events = entries.iter().map(|(at, nth)| event(LOG, *at, *nth, b"")).collect();
        memory.new_events(events, NOW).iter().map(|event| (event.at.0, event.nth)).collect()
    }

    /// Negative control: compare each entry with the one before it.
    #[test]
    fn of_a_log_book_that_begins_with_the_newest_entry_all_new_ones_are_stored_and_once() {
        let mut memory = ReadOutMemory::default();
        let first = [(300, 0), (200, 1), (200, 0), (100, 0)];
        assert_eq!(told(&mut memory, &first), first);
        assert!(told(&mut memory, &first).is_empty());
        let second = [(500, 0), (400, 0), (300, 0), (200, 1), (200, 0)];
        assert_eq!(told(&mut memory, &second), second[..2]);
        // Oldest first, as others do.
        assert_eq!(told(&mut memory, &[(400, 0), (500, 0), (600, 0), (700, 0)]), [(600, 0), (700, 0)]);
    }

    #[test]
    fn a_state_is_stored_when_it_changes() {
        let mut memory = ReadOutMemory::default();
        let mut is_stored = |raw: &[u8]| !memory.new_events(vec![event("0-0:96.14.0", NOW.0, 0, raw)], NOW).is_empty();
        assert_eq!([is_stored(b"1"), is_stored(b"1"), is_stored(b"2"), is_stored(b"1")], [true, false, true, true]);
    }

    /// Negative control: forget nothing.
    #[test]
    fn a_meter_that_makes_logs_up_takes_no_memory() {
        let mut memory = ReadOutMemory::default();
        for number in 0..10 * TOLD_MAX {
            let log = format!("log {number}");
            memory.new_events(vec![event(&log, 1, 0, b""), event(&log, NOW.0, 0, b"")], NOW);
        }
        assert!(memory.states.len() + memory.logged.len() <= TOLD_MAX + 2);
    }
}
