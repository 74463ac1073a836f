//! What the gateway knows of its meters, kept in one place and sent to the cloud when it changed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocols::metering::{Code, Kind, MeterId, UtcMillis};
use protocols::uplink::{ExpectedSeries, Inventory, MeterEntry, MeterState};

/// Shared by everything that reads meters; the forwarder takes snapshots.
#[derive(Clone, Default)]
pub struct InventoryKeeper {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    meters: BTreeMap<String, MeterEntry>,
    /// Grows with every change that the cloud should know of soon; a later read alone is none.
    version: u64,
}

impl InventoryKeeper {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a configured meter, which may never answer.
    pub fn enter(&self, entry: MeterEntry) {
        let mut state = self.state();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_read_alone_is_no_change() {
        let keeper = InventoryKeeper::default();
        let entry = MeterEntry {
            name: "flat 1".to_owned(),
            meter: None,
            metering_point: None,
            protocol: "cad".to_owned(),
            expected: Vec::new(),
            last_read_at: None,
            clock_offset_ms: None,
            state: MeterState::Unknown,
            cause: String::new(),
        };
        keeper.enter(entry);
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
