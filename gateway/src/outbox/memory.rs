//! What is in the outbox's file, as far as deciding needs it: which rows are unsealed, what is known of each series, the last
//! rows as they were stored.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use protocols::metering::{Quality, Quantity, Reading, Series, StampedBy, UtcMillis};
use protocols::uplink::SeqSet;
use rusqlite::{Connection, Statement, params};

use super::core::OutboxError;
use super::held::{is_waiting, row_bytes};
use super::rows::{FRESH, HELD_CLOCK, StoredRow};
use crate::trust::Untrusted;

/// As many as eight full batches hold, the forwarder's window; some 130 bytes each.
const RECENT_ROWS: usize = 16_384;

pub(super) struct SeriesState {
    pub id: i64,
    /// Greatest instant of any row stored; a row beyond it is fresh.
    pub captured_max: Option<UtcMillis>,
    pub stamped_max: Option<i64>,
    /// The last row stored by this process: what a repeat is told by.
    pub last: Option<(UtcMillis, u8, Quantity, Quality)>,
}

/// An unsettled batch.
pub(super) struct BatchState {
    pub row_ranges: SeqSet,
    /// Sorted hashes of the identities within: a row with one of them waits.
    pub identities: Vec<u64>,
}

/// What is in the file, as far as deciding needs it. Rebuilt from the file at open and after every rollback.
#[derive(Default)]
pub(super) struct Memory {
    pub next_id: u64,
    pub unsealed: SeqSet,
    pub held: SeqSet,
    /// Those of them that wait for a trusted clock: looked at with each word of the cloud.
    pub by_clock: SeqSet,
    /// How many of them are damaged.
    pub damaged: u64,
    /// Of the rows that wait for something that comes; damaged ones do not.
    pub held_bytes: u64,
    /// The place in `states`. Looked up for every row, so by a hash that is fast for short texts.
    pub series: HashMap<Series, usize, foldhash::fast::RandomState>,
    pub states: Vec<SeriesState>,
    pub series_by_id: HashMap<i64, Series>,
    /// The last rows that this process has stored and that are neither held nor sealed, ascending by number: sealing need not
    /// read them back. Behind the first there may be some that are sealed already.
    pub recent: VecDeque<StoredRow>,
    pub batches: BTreeMap<(u64, u64), BatchState>,
    pub refused: u64,
    pub refused_dropped: u64,
    pub sealed_at_max: i64,
    pub repeated: u64,
    pub dropped: u64,
}

impl Memory {
    /// False for what only repeats the last value of its series.
    pub(super) fn store_reading(
        &mut self,
        connection: &Connection,
        insert: &mut Statement<'_>,
        reading: &Reading,
        held: i64,
    ) -> Result<bool, OutboxError> {
        let by_gateway = reading.stamped_by == StampedBy::Gateway;
        let state = self.series_state(connection, &reading.series)?;
        let mut captured_at = reading.captured_at;
        if by_gateway {
            captured_at = captured_at.max(UtcMillis(state.stamped_max.map_or(i64::MIN, |last| last.saturating_add(1))));
            state.stamped_max = Some(captured_at.0);
        }
        let told = (captured_at, reading.nth, reading.quantity, reading.quality);
        if held == 0 && state.last.replace(told) == Some(told) {
            return Ok(false);
        }
        let fresh = state.captured_max.is_none_or(|max| captured_at > max);
        state.captured_max = state.captured_max.max(Some(captured_at));
        let series = state.id;
        let flags = held | if fresh { FRESH } else { 0 };
        let mut row = StoredRow::of_reading(self.take_id(held), series, reading, flags);
        row.captured_at = captured_at;
        self.note_held(&row);
        row.insert(insert)?;
        if held == 0 {
            self.remember(row);
        }
        if by_gateway {
            connection
                .prepare_cached("UPDATE series SET stamped_max = ?2 WHERE id = ?1")?
                .execute(params![series, captured_at.0])?;
        }
        Ok(true)
    }

    /// `captured_at` becomes uptime in ms; the body holds the boot and the latest instant that is known to lie before it.
    pub(super) fn store_by_uptime(
        &mut self,
        connection: &Connection,
        insert: &mut Statement<'_>,
        reading: &Reading,
        held: i64,
        untrusted: Untrusted,
    ) -> Result<(), OutboxError> {
        let series = self.series_state(connection, &reading.series)?.id;
        let mut row = StoredRow::of_reading(self.take_id(HELD_CLOCK), series, reading, held | HELD_CLOCK);
        row.captured_at = UtcMillis(reading.captured_at.since(untrusted.origin));
        row.body = Some([untrusted.boot.to_be_bytes(), self.sealed_at_max.to_be_bytes()].concat());
        self.note_held(&row);
        Ok(row.insert(insert)?)
    }

    /// The next row's number, noted as unsealed (or held).
    pub(super) fn take_id(&mut self, held: i64) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let set = if held != 0 { &mut self.held } else { &mut self.unsealed };
        set.insert(id);
        if held & HELD_CLOCK != 0 {
            self.by_clock.insert(id);
        }
        id
    }

    /// A row that is about to be written waits, and takes room.
    pub(super) fn note_held(&mut self, row: &StoredRow) {
        if is_waiting(row.flags) {
            self.held_bytes += row_bytes(row.body.as_deref());
        }
    }

    /// What is known of the series, which gets a number if it has none.
    fn series_state(&mut self, connection: &Connection, series: &Series) -> Result<&mut SeriesState, OutboxError> {
        let place = if let Some(place) = self.series.get(series) {
            *place
        } else {
            connection.execute(
                "INSERT INTO series (meter, code, kind, period_s) VALUES (?1, ?2, ?3, ?4)",
                params![series.meter.as_str(), series.code.to_string(), series.kind as u8, series.period_s],
            )?;
            let id = connection.last_insert_rowid();
            self.know_series(series, SeriesState { id, captured_max: None, stamped_max: None, last: None })
        };
        Ok(self.states.get_mut(place).expect("each place in the map is one of a state"))
    }

    pub(super) fn know_series(&mut self, series: &Series, state: SeriesState) -> usize {
        let place = self.states.len();
        self.series_by_id.insert(state.id, series.clone());
        self.series.insert(series.clone(), place);
        self.states.push(state);
        place
    }

    pub(super) fn state_of(&mut self, series: &Series) -> Option<&mut SeriesState> {
        self.series.get(series).and_then(|place| self.states.get_mut(*place))
    }

    pub(super) fn state_by_id(&self, series: i64) -> Option<&SeriesState> {
        let place = self.series.get(self.series_by_id.get(&series)?)?;
        self.states.get(*place)
    }

    /// The rows of a batch are sealed.
    pub(super) fn note_sealed(&mut self, ids: &SeqSet) {
        for &(first, last) in ids.ranges() {
            self.unsealed.remove_range(first, last);
        }
        while self.recent.front().is_some_and(|row| !self.unsealed.contains(row.id)) {
            self.recent.pop_front();
        }
    }

    fn remember(&mut self, row: StoredRow) {
        if self.recent.len() >= RECENT_ROWS {
            self.recent.pop_front();
        }
        self.recent.push_back(row);
    }
}

/// A hash of what makes a row the same reading or event. Two rows that collide without being the same only wait for each other.
pub(super) fn identity(row: &StoredRow) -> u64 {
    // Each step is a bijection of the state: readings of one series never collide by less than two of their fields.
    let numbers = [row.series, row.captured_at.0, i64::from(row.nth)];
    let hash = numbers.into_iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, number| {
        let mixed = (hash ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    });
    let Some(event) = row.event() else { return hash };
    let mut hasher = DefaultHasher::new();
    (hash, event.meter, event.log, event.code).hash(&mut hasher);
    hasher.finish()
}
