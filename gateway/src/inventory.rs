//! What the gateway knows of its meters, kept in one place and sent to the cloud when it changed.
//!
//! What was sent last is in the outbox, and is recalled at the start: a meter that died before is still one of which so much is
//! expected, and was last read then.
//!
//! It stays within what the cloud takes: an inventory beyond that would spoil the batch that it travels with. What finds no place
//! is read and stored all the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocols::metering::{Code, Kind, MeterId, UtcMillis};
use protocols::uplink::limits::{EXPECTED_MAX, EXPECTED_OF_METER_MAX, INVENTORY_TEXT_BYTES_MAX, METERS_MAX};
use protocols::uplink::{ExpectedSeries, Inventory, MeterEntry, MeterState};
use tracing::warn;

/// The protocol of meters that push over MQTT, as it stands in their entries.
pub const CAD: &str = "cad";
/// A telegram may be late, and one may be lost.
const CADENCES_MISSED: i64 = 3;
const SILENT_MS_MIN: i64 = 60_000;
/// Meters that push over MQTT, which anybody can make up who may publish there: half of all, the others are configured.
const PUSHING_METERS_MAX: usize = METERS_MAX / 2;

/// Shared by everything that reads meters; the forwarder takes snapshots.
#[derive(Clone, Default)]
pub struct InventoryKeeper {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    meters: BTreeMap<String, Known>,
    /// Of earlier processes, until they are entered.
    recalled: BTreeMap<String, MeterEntry>,
    /// Grows with every change that the cloud should know of soon; a later read alone is none.
    version: u64,
    /// Series expected of all meters together.
    expected: usize,
    /// Meters that push over MQTT.
    pushing: usize,
    /// It has been said that there is no place for another meter.
    told_full: bool,
}

struct Known {
    entry: MeterEntry,
    /// So many series at the front of those expected were delivered to an earlier process, and not yet to this one.
    unconfirmed: usize,
    /// It has been said that there is no place for another series.
    told_full: bool,
}

impl Known {
    /// Moves a series that was delivered behind those that were not.
    fn confirm(&mut self, place: usize) {
        if place < self.unconfirmed {
            let series = self.entry.expected.remove(place);
            self.entry.expected.push(series);
            self.unconfirmed -= 1;
        }
    }
}

impl State {
    /// True when the meter has an entry now.
    fn insert(&mut self, mut entry: MeterEntry) -> bool {
        if self.meters.contains_key(&entry.name) {
            return true;
        }
        let is_pushing = entry.protocol == CAD;
        if self.meters.len() >= METERS_MAX || (is_pushing && self.pushing >= PUSHING_METERS_MAX) {
            if !std::mem::replace(&mut self.told_full, true) {
                let hint = "readings are stored, but no silence is told: does somebody publish made-up meters?";
                warn!(meter = %entry.name, hint, "the inventory has no place for this meter, nor for further ones");
            }
            return false;
        }
        entry.metering_point = entry.metering_point.filter(|point| point.len() <= INVENTORY_TEXT_BYTES_MAX);
        let cause_bytes = entry.cause.floor_char_boundary(INVENTORY_TEXT_BYTES_MAX);
        entry.cause.truncate(cause_bytes);
        entry.expected.truncate(EXPECTED_OF_METER_MAX.min(EXPECTED_MAX.saturating_sub(self.expected)));
        self.expected += entry.expected.len();
        self.pushing += usize::from(is_pushing);
        self.version += 1;
        let unconfirmed = entry.expected.len();
        self.meters.insert(entry.name.clone(), Known { entry, unconfirmed, told_full: false });
        true
    }
}

/// As much of a text as the cloud takes.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(INVENTORY_TEXT_BYTES_MAX)).unwrap_or_default()
}

impl InventoryKeeper {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an earlier process knew. Meters that push are nowhere configured: those heard of since `pushing_since` are entered.
    pub fn recall(&self, inventory: Inventory, pushing_since: UtcMillis) {
        let recalled = inventory.meters.into_iter().map(|entry| (entry.name.clone(), entry));
        self.state().recalled.extend(recalled);
        let is_heard = |entry: &&MeterEntry| entry.last_read_at.is_some_and(|at| at >= pushing_since);
        let pushing = |entry: &&MeterEntry| entry.protocol == CAD && is_heard(entry);
        let pushing: Vec<_> = self.state().recalled.values().filter(pushing).cloned().collect();
        for entry in pushing {
            self.enter(MeterEntry { state: MeterState::Unknown, cause: String::new(), ..entry });
        }
    }

    /// Enters a meter, which may never answer. False when there is no place for it.
    pub fn enter(&self, mut entry: MeterEntry) -> bool {
        let mut state = self.state();
        if let Some(known) = state.recalled.remove(&entry.name).filter(|known| known.protocol == entry.protocol) {
            entry.meter = entry.meter.or(known.meter);
            (entry.expected, entry.last_read_at) = (known.expected, known.last_read_at);
            entry.clock_offset_ms = known.clock_offset_ms;
        }
        state.insert(entry)
    }

    pub fn remove(&self, name: &str) {
        let mut state = self.state();
        if let Some(Known { entry, .. }) = state.meters.remove(name) {
            state.expected -= entry.expected.len();
            state.pushing -= usize::from(entry.protocol == CAD);
            state.version += 1;
        }
    }

    /// A good read: who answered, when, how far its clock is off.
    pub fn read(&self, name: &str, meter: &MeterId, read_at: UtcMillis, clock_offset_ms: Option<i64>) {
        let mut state = self.state();
        let Some(Known { entry, .. }) = state.meters.get_mut(name) else { return };
        let changed = entry.state != MeterState::Ok || entry.meter.as_ref() != Some(meter);
        entry.meter = Some(meter.clone());
        // Not the latest of both: the clock may have been ahead.
        entry.last_read_at = Some(read_at);
        entry.clock_offset_ms = clock_offset_ms;
        entry.state = MeterState::Ok;
        entry.cause.clear();
        state.version += u64::from(changed);
    }

    /// The end of a session in which the meter answered: who did, and what is to be said of it. One change at the most, so that a
    /// meter with a standing trouble is not news after each session.
    pub fn session_ended(
        &self,
        name: &str,
        meter: Option<&MeterId>,
        read_at: UtcMillis,
        clock_offset_ms: Option<i64>,
        (meter_state, cause): (MeterState, &str),
    ) {
        let cause = cut(cause);
        let mut state = self.state();
        let Some(Known { entry, .. }) = state.meters.get_mut(name) else { return };
        let changed = (entry.state, entry.cause.as_str()) != (meter_state, cause)
            || (meter.is_some() && entry.meter.as_ref() != meter);
        if meter.is_some() {
            entry.meter = meter.cloned();
        }
        // Not the latest of both: the clock may have been ahead.
        entry.last_read_at = Some(read_at);
        entry.clock_offset_ms = clock_offset_ms;
        entry.state = meter_state;
        cause.clone_into(&mut entry.cause);
        state.version += u64::from(changed);
    }

    /// A state other than [`MeterState::Ok`], with its cause.
    pub fn trouble(&self, name: &str, trouble: MeterState, cause: &str) {
        let cause = cut(cause);
        let mut state = self.state();
        let Some(Known { entry, .. }) = state.meters.get_mut(name) else { return };
        if (entry.state, entry.cause.as_str()) != (trouble, cause) {
            entry.state = trouble;
            cause.clone_into(&mut entry.cause);
            state.version += 1;
        }
    }

    /// Meters that push and have not been heard of for three of their cadences, or since `since` where that was later.
    pub fn find_silent(&self, since: UtcMillis, now: UtcMillis, is_trusted: bool) {
        let mut state = self.state();
        let mut found = 0;
        for Known { entry, .. } in state.meters.values_mut() {
            if entry.protocol != CAD || entry.state == MeterState::Silent {
                continue;
            }
            // The clock was ahead when it was heard of: its time runs from now on. One that is not trusted may be behind.
            if is_trusted {
                entry.last_read_at = entry.last_read_at.map(|at| at.min(now));
            }
            let cadence_s = entry.expected.iter().map(|series| series.cadence_s).max().unwrap_or(0);
            let silent_ms = now.since(entry.last_read_at.map_or(since, |at| at.max(since)));
            if silent_ms > (i64::from(cadence_s) * 1000 * CADENCES_MISSED).max(SILENT_MS_MIN) {
                entry.state = MeterState::Silent;
                entry.cause = format!("no telegram for {} s", silent_ms / 1000);
                found += 1;
            }
        }
        state.version += found;
    }

    /// A series that the meter was seen to deliver. Where there is no place for more, it takes that of the one that is expected
    /// longest of those which this process has not been delivered. What it has been delivered stays: of a meter with codes
    /// without end each of its reads would else be a change.
    pub fn expect_series(&self, name: &str, code: &Code, kind: Kind, period_s: u32, cadence_s: u32) {
        let mut state = self.state();
        let State { meters, expected: of_all, version, .. } = &mut *state;
        let Some(known) = meters.get_mut(name) else { return };
        let is_it =
            |series: &ExpectedSeries| series.code == *code && series.kind == kind && series.period_s == period_s;
        if let Some(place) = known.entry.expected.iter().position(is_it) {
            known.confirm(place);
            return;
        }
        if known.entry.expected.len() < EXPECTED_OF_METER_MAX && *of_all < EXPECTED_MAX {
            *of_all += 1;
        } else if known.unconfirmed > 0 {
            known.entry.expected.remove(0);
            known.unconfirmed -= 1;
        } else {
            if !std::mem::replace(&mut known.told_full, true) {
                let hint = "all are stored, but of these no gap is told: are frozen values (1.8.0*01) among what is read? name the \
                            codes that are wanted in its sections";
                warn!(meter = name, %code, hint, "the inventory has no place for this series, nor for further ones");
            }
            return;
        }
        known.entry.expected.push(ExpectedSeries { code: code.clone(), kind, period_s, cadence_s });
        *version += 1;
    }

    pub fn version(&self) -> u64 {
        self.state().version
    }

    pub fn snapshot(&self) -> (u64, Inventory) {
        let state = self.state();
        (state.version, Inventory { meters: state.meters.values().map(|known| known.entry.clone()).collect() })
    }
}

/// State and cause of a meter that answers, and whose clock may be off by more than the limit; with none it is not looked at.
pub fn clock_state(offset_ms: Option<i64>, limit_s: Option<u32>) -> (MeterState, String) {
    let off_by_s = offset_ms.map_or(0, |offset_ms| offset_ms.unsigned_abs() / 1000);
    match limit_s {
        // Not by how much: a slow drift is not news each time.
        Some(limit_s) if off_by_s > u64::from(limit_s) => {
            (MeterState::ClockOff, format!("the clock is more than {limit_s} s off"))
        }
        _ => (MeterState::Ok, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, protocol: &str) -> MeterEntry {
        MeterEntry {
            name: name.to_owned(),
            meter: None,
            metering_point: None,
            protocol: protocol.to_owned(),
            expected: Vec::new(),
            last_read_at: None,
            clock_offset_ms: None,
            state: MeterState::Unknown,
            cause: String::new(),
        }
    }

    /// Negative controls: without `recall` the meters are as new; with entries that only telegrams make, the dead one is gone.
    #[test]
    fn a_restart_forgets_no_meter_and_a_dead_one_is_said_to_be_silent() {
        let code = Code::Source("cad:power".into());
        let before = InventoryKeeper::default();
        for (name, protocol) in [("heard", CAD), ("gone", CAD), ("cellar", "dlms-hdlc"), ("sold", "dlms-hdlc")] {
            before.enter(entry(name, protocol));
            before.expect_series(name, &code, Kind::Instant, 0, 10);
            before.read(
                name,
                &MeterId::new(name).unwrap(),
                UtcMillis(if name == "gone" { 5_000 } else { 90_000 }),
                None,
            );
        }
        let keeper = InventoryKeeper::default();
        keeper.recall(before.snapshot().1, UtcMillis(6_000));
        keeper.enter(entry("cellar", "dlms-hdlc"));
        let names = |keeper: &InventoryKeeper| {
            keeper.snapshot().1.meters.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(&keeper),
            ["cellar", "heard"],
            "what is not configured any more is gone, and so is what was silent long"
        );
        for entry in keeper.snapshot().1.meters {
            let known = (entry.meter, entry.expected.len(), entry.last_read_at, entry.state);
            let meter = Some(MeterId::new(&entry.name).unwrap());
            assert_eq!(known, (meter, 1, Some(UtcMillis(90_000)), MeterState::Unknown));
        }
        let state = || keeper.snapshot().1.meters[1].state;
        keeper.find_silent(UtcMillis(100_000), UtcMillis(160_000), true);
        assert_eq!(state(), MeterState::Unknown, "not before it had its time since the start");
        let version = keeper.version();
        keeper.find_silent(UtcMillis(100_000), UtcMillis(161_000), true);
        assert_eq!((state(), keeper.version()), (MeterState::Silent, version + 1));
        keeper.read("heard", &MeterId::new("heard").unwrap(), UtcMillis(200_000), None);
        keeper.find_silent(UtcMillis(100_000), UtcMillis(260_000), true);
        assert_eq!(state(), MeterState::Ok);
    }

    #[test]
    fn a_later_read_alone_is_no_change() {
        let keeper = InventoryKeeper::default();
        keeper.enter(entry("flat 1", CAD));
        let meter = MeterId::new("SIM:1").unwrap();
        keeper.read("flat 1", &meter, UtcMillis(1), None);
        let version = keeper.version();
        keeper.read("flat 1", &meter, UtcMillis(2), None);
        assert_eq!(keeper.version(), version);
        keeper.trouble("flat 1", MeterState::Silent, "no telegram for 60 s");
        assert!(keeper.version() > version);
        assert_eq!(keeper.snapshot().1.meters[0].last_read_at, Some(UtcMillis(2)));
    }

    /// Negative controls: keep the latest of two reads; leave one that lies ahead of the clock as it is; believe a
    /// clock that is not trusted.
    #[test]
    fn a_clock_that_was_ahead_hides_no_dead_meter() {
        let keeper = InventoryKeeper::default();
        let meter = MeterId::new("SIM:1").unwrap();
        for name in ["dead", "living"] {
            keeper.enter(entry(name, CAD));
            keeper.read(name, &meter, UtcMillis(9_000_000), None);
        }
        keeper.read("living", &meter, UtcMillis(1_000), None);
        assert_eq!(keeper.snapshot().1.meters[1].last_read_at, Some(UtcMillis(1_000)));
        keeper.find_silent(UtcMillis(0), UtcMillis(2_000), false);
        assert_eq!(
            keeper.snapshot().1.meters[0].last_read_at,
            Some(UtcMillis(9_000_000)),
            "it may be ours that is behind"
        );
        keeper.find_silent(UtcMillis(0), UtcMillis(2_000), true);
        keeper.read("living", &meter, UtcMillis(50_000), None);
        keeper.find_silent(UtcMillis(0), UtcMillis(62_001), true);
        let states: Vec<MeterState> = keeper.snapshot().1.meters.iter().map(|entry| entry.state).collect();
        assert_eq!(states, [MeterState::Silent, MeterState::Ok]);
    }

    fn code(n: usize) -> Code {
        Code::Source(format!("cad:x{n}").into())
    }

    fn expected(count: usize) -> Vec<ExpectedSeries> {
        let series = |n| ExpectedSeries { code: code(n), kind: Kind::Register, period_s: 0, cadence_s: 60 };
        (0..count).map(series).collect()
    }

    /// Negative controls: expect without a bound; take the place of a series that was delivered.
    #[test]
    fn a_meter_with_codes_without_end_has_so_many_expected_as_the_cloud_takes() {
        let before = InventoryKeeper::default();
        before.enter(entry("cellar", "iec62056-21"));
        let deliver = |keeper: &InventoryKeeper, n| keeper.expect_series("cellar", &code(n), Kind::Register, 0, 60);
        for n in 0..EXPECTED_OF_METER_MAX + 100 {
            deliver(&before, n);
        }
        let (version, inventory) = before.snapshot();
        assert_eq!(inventory.meters[0].expected, expected(EXPECTED_OF_METER_MAX));
        assert_eq!(version, 1 + EXPECTED_OF_METER_MAX as u64, "what finds no place is no change");
        let keeper = InventoryKeeper::default();
        keeper.recall(inventory, UtcMillis::MAX);
        keeper.enter(entry("cellar", "iec62056-21"));
        deliver(&keeper, 0);
        deliver(&keeper, 5_000);
        let codes: Vec<Code> =
            keeper.snapshot().1.meters[0].expected.iter().map(|series| series.code.clone()).collect();
        assert_eq!(codes.len(), EXPECTED_OF_METER_MAX);
        assert!(codes.contains(&code(0)) && codes.contains(&code(5_000)) && !codes.contains(&code(1)));
    }

    /// Negative control: bound those of each meter alone.
    #[test]
    fn of_all_meters_together_no_more_is_expected_than_the_cloud_takes() {
        let keeper = InventoryKeeper::default();
        let full = EXPECTED_MAX / EXPECTED_OF_METER_MAX;
        for meter in 0..=full {
            let expected = expected(EXPECTED_OF_METER_MAX);
            keeper.enter(MeterEntry { expected, ..entry(&format!("{meter:03}"), "dlms-hdlc") });
        }
        let last = format!("{full:03}");
        keeper.expect_series(&last, &code(1), Kind::Register, 0, 60);
        let count = || keeper.snapshot().1.meters.into_iter().map(|entry| entry.expected.len()).collect::<Vec<usize>>();
        assert_eq!((count().iter().sum::<usize>(), count().last()), (EXPECTED_MAX, Some(&0)));
        keeper.remove("000");
        keeper.expect_series(&last, &code(1), Kind::Register, 0, 60);
        assert_eq!(count().last(), Some(&1));
    }

    /// Negative control: enter each.
    #[test]
    fn made_up_meters_leave_room_for_those_that_are_configured() {
        let keeper = InventoryKeeper::default();
        for meter in 0..PUSHING_METERS_MAX {
            assert!(keeper.enter(entry(&format!("SIM:{meter}"), CAD)));
        }
        assert!(!keeper.enter(entry("SIM:more", CAD)));
        assert!(keeper.enter(entry("cellar", "dlms-hdlc")));
        assert_eq!(keeper.snapshot().1.meters.len(), PUSHING_METERS_MAX + 1);
    }

    /// Negative control: compare the whole text with what is kept of it.
    #[test]
    fn of_a_long_cause_its_beginning_is_told_once() {
        let keeper = InventoryKeeper::default();
        keeper.enter(entry("cellar", "dlms-hdlc"));
        let cause = format!("x{}", "ü".repeat(INVENTORY_TEXT_BYTES_MAX));
        keeper.trouble("cellar", MeterState::Refusing, &cause);
        let version = keeper.version();
        keeper.trouble("cellar", MeterState::Refusing, &cause);
        assert_eq!(keeper.version(), version);
        assert_eq!(keeper.snapshot().1.meters[0].cause.len(), INVENTORY_TEXT_BYTES_MAX - 1);
    }
}
