//! What the gateway knows of its meters, kept in one place and sent to the cloud when it changed.
//!
//! What was sent last is in the outbox, and is recalled at the start: a meter that died before is still one of which so much is
//! expected, and was last read then.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocols::metering::{Code, Kind, MeterId, UtcMillis};
use protocols::uplink::{ExpectedSeries, Inventory, MeterEntry, MeterState};

/// The protocol of meters that push over MQTT, as it stands in their entries.
pub const CAD: &str = "cad";
/// A telegram may be late, and one may be lost.
const CADENCES_MISSED: i64 = 3;
const SILENT_MS_MIN: i64 = 60_000;

/// Shared by everything that reads meters; the forwarder takes snapshots.
#[derive(Clone, Default)]
pub struct InventoryKeeper {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    meters: BTreeMap<String, MeterEntry>,
    /// Of earlier processes, until they are entered.
    recalled: BTreeMap<String, MeterEntry>,
    /// Grows with every change that the cloud should know of soon; a later read alone is none.
    version: u64,
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

    /// Enters a meter, which may never answer.
    pub fn enter(&self, mut entry: MeterEntry) {
        let mut state = self.state();
        if let Some(known) = state.recalled.remove(&entry.name).filter(|known| known.protocol == entry.protocol) {
            entry.meter = entry.meter.or(known.meter);
            (entry.expected, entry.last_read_at) = (known.expected, known.last_read_at);
            entry.clock_offset_ms = known.clock_offset_ms;
        }
        if let Entry::Vacant(vacant) = state.meters.entry(entry.name.clone()) {
            vacant.insert(entry);
            state.version += 1;
        }
    }

    pub fn remove(&self, name: &str) {
        let mut state = self.state();
        if state.meters.remove(name).is_some() {
            state.version += 1;
        }
    }

    /// A good read: who answered, when, how far its clock is off.
    pub fn read(&self, name: &str, meter: &MeterId, read_at: UtcMillis, clock_offset_ms: Option<i64>) {
        let mut state = self.state();
        let Some(entry) = state.meters.get_mut(name) else { return };
        let changed = entry.state != MeterState::Ok || entry.meter.as_ref() != Some(meter);
        entry.meter = Some(meter.clone());
        entry.last_read_at = entry.last_read_at.max(Some(read_at));
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
        let mut state = self.state();
        let Some(entry) = state.meters.get_mut(name) else { return };
        let changed = (entry.state, entry.cause.as_str()) != (meter_state, cause)
            || (meter.is_some() && entry.meter.as_ref() != meter);
        if meter.is_some() {
            entry.meter = meter.cloned();
        }
        entry.last_read_at = entry.last_read_at.max(Some(read_at));
        entry.clock_offset_ms = clock_offset_ms;
        entry.state = meter_state;
        cause.clone_into(&mut entry.cause);
        state.version += u64::from(changed);
    }

    /// A state other than [`MeterState::Ok`], with its cause.
    pub fn trouble(&self, name: &str, trouble: MeterState, cause: &str) {
        let mut state = self.state();
        let Some(entry) = state.meters.get_mut(name) else { return };
        if (entry.state, entry.cause.as_str()) != (trouble, cause) {
            entry.state = trouble;
            cause.clone_into(&mut entry.cause);
            state.version += 1;
        }
    }

    /// Meters that push and have not been heard of for three of their cadences, or since `since` where that was later.
    pub fn find_silent(&self, since: UtcMillis, now: UtcMillis) {
        let mut state = self.state();
        let mut found = 0;
        for entry in
            state.meters.values_mut().filter(|entry| entry.protocol == CAD && entry.state != MeterState::Silent)
        {
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

    /// A series that the meter was seen to deliver.
    pub fn expect_series(&self, name: &str, code: &Code, kind: Kind, period_s: u32, cadence_s: u32) {
        let mut state = self.state();
        let Some(entry) = state.meters.get_mut(name) else { return };
        let known = entry
            .expected
            .iter()
            .any(|series| series.code == *code && series.kind == kind && series.period_s == period_s);
        if !known {
            entry.expected.push(ExpectedSeries { code: code.clone(), kind, period_s, cadence_s });
            state.version += 1;
        }
    }

    pub fn version(&self) -> u64 {
        self.state().version
    }

    pub fn snapshot(&self) -> (u64, Inventory) {
        let state = self.state();
        (state.version, Inventory { meters: state.meters.values().cloned().collect() })
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
        keeper.find_silent(UtcMillis(100_000), UtcMillis(160_000));
        assert_eq!(state(), MeterState::Unknown, "not before it had its time since the start");
        let version = keeper.version();
        keeper.find_silent(UtcMillis(100_000), UtcMillis(161_000));
        assert_eq!((state(), keeper.version()), (MeterState::Silent, version + 1));
        keeper.read("heard", &MeterId::new("heard").unwrap(), UtcMillis(200_000), None);
        keeper.find_silent(UtcMillis(100_000), UtcMillis(260_000));
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
}
