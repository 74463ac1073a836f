//! Rows that the gateway stamped while its clock was not trusted.
//!
//! Of this boot they are given their instant once the true start of the boot is known. Of an earlier boot, which ended before the
//! cloud told the time, the instant is lost: they become events that name the value and the times between which it was read.

use std::collections::HashSet;

use protocols::metering::{Event, UtcMillis};
use protocols::uplink::SeqSet;
use rusqlite::params;

use super::core::{Outbox, OutboxError};
use super::held::{CLOCK_BODY_BYTES, ROW_BYTES, row_bytes};
use super::rows::{COLUMNS, FRESH, HELD, HELD_CLOCK, INSERT, StoredRow};

/// The word of the cloud is so late at the most, and one later than the other: what was read since the one before it is dated behind that.
const JITTER_MS: i64 = 5_000;

/// The log of readings whose instant nobody knows.
const UNTRUSTED_CLOCK_LOG: &str = "meterpost:untrusted-clock";

impl Outbox {
    pub(super) fn waits_for_the_clock(&self) -> bool {
        !self.memory.by_clock.is_empty()
    }

    /// Answers how many rows no longer wait. Inside the open transaction.
    pub fn resolve_clock(&mut self, boot: u64, origin: UtcMillis, now: UtcMillis) -> Result<u64, OutboxError> {
        if self.memory.by_clock.is_empty() {
            return Ok(0);
        }
        let waiting = self.waiting_for_the_clock()?;
        let resolved = waiting.len() as u64;
        let mut taken = self.taken_by_others(&waiting, origin)?;
        for row in waiting {
            self.forget_held(row_bytes(row.body.as_deref()));
            let (row_boot, after) = bounds(&row);
            if row_boot == boot && row.is_intact() {
                self.resolve(row, origin, &mut taken)?;
            } else {
                self.replace_by_event(&row, UtcMillis(after), now)?;
            }
        }
        Ok(resolved)
    }

    /// By number, since flags have no index. One that does not read is damage.
    fn waiting_for_the_clock(&mut self) -> Result<Vec<StoredRow>, OutboxError> {
        let (mut waiting, mut damaged) = (Vec::new(), SeqSet::new());
        let sql = format!("SELECT {COLUMNS} FROM rows WHERE id BETWEEN ?1 AND ?2 AND flags & {HELD_CLOCK} <> 0");
        let mut statement = self.connection.prepare_cached(&sql)?;
        for &(first, last) in self.memory.by_clock.ranges() {
            let mut rows = statement.query([first as i64, last as i64])?;
            while let Some(row) = rows.next()? {
                match StoredRow::from_row(row) {
                    Ok(row) => waiting.push(row),
                    Err(_) => {
                        damaged.insert(row.get::<_, i64>(0)? as u64);
                    }
                }
            }
        }
        drop(statement);
        for _ in damaged.iter() {
            self.forget_held(ROW_BYTES + CLOCK_BODY_BYTES);
        }
        self.set_aside_damaged(&damaged)?;
        self.memory.by_clock = SeqSet::new();
        Ok(waiting)
    }

    /// Instants that rows of the same series have which the gateway stamped, too: as long as there may be any. Those of rows that have
    /// left the file cannot be known; that two of them were stamped in one millisecond takes a clock that was set back to it.
    fn taken_by_others(&self, waiting: &[StoredRow], origin: UtcMillis) -> Result<HashSet<(i64, i64)>, OutboxError> {
        let wanted: HashSet<i64> =
            waiting.iter().filter(|row| self.is_overtaken(row, origin)).map(|row| row.series).collect();
        let mut taken = HashSet::new();
        if wanted.is_empty() {
            return Ok(taken);
        }
        let sql = format!("SELECT series, captured_at FROM rows WHERE flags & {HELD_CLOCK} = 0");
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (series, captured_at): (i64, i64) = (row.get(0)?, row.get(1)?);
            if wanted.contains(&series) {
                taken.insert((series, captured_at));
            }
        }
        Ok(taken)
    }

    /// Whether something of its series that was read later has been stamped already, by a clock that was trusted then.
    fn is_overtaken(&self, row: &StoredRow, origin: UtcMillis) -> bool {
        self.last_stamp(row).is_some_and(|last| last - origin.plus_ms(row.captured_at.0).0 > JITTER_MS)
    }

    fn last_stamp(&self, row: &StoredRow) -> Option<i64> {
        self.memory.state_by_id(row.series).and_then(|state| state.stamped_max)
    }

    /// At the instant at which it was read: behind what was read later only in the file.
    fn resolve(
        &mut self,
        mut row: StoredRow,
        origin: UtcMillis,
        taken: &mut HashSet<(i64, i64)>,
    ) -> Result<(), OutboxError> {
        let is_overtaken = self.is_overtaken(&row, origin);
        let last = self.last_stamp(&row).filter(|_| !is_overtaken);
        row.captured_at =
            origin.plus_ms(row.captured_at.0).max(UtcMillis(last.map_or(i64::MIN, |last| last.saturating_add(1))));
        while !taken.insert((row.series, row.captured_at.0)) {
            row.captured_at = row.captured_at.plus_ms(1);
        }
        row.body = None;
        row.flags &= !HELD_CLOCK;
        let series = self.memory.series_by_id.get(&row.series).cloned();
        if let Some(state) = series.and_then(|series| self.memory.state_of(&series)) {
            let stamped_max = state.stamped_max.max(Some(row.captured_at.0));
            state.stamped_max = stamped_max;
            if state.captured_max.is_none_or(|max| row.captured_at > max) {
                row.flags |= FRESH;
            }
            state.captured_max = state.captured_max.max(Some(row.captured_at));
            self.connection
                .prepare_cached("UPDATE series SET stamped_max = ?2 WHERE id = ?1")?
                .execute(params![row.series, stamped_max])?;
        }
        self.put_back(&row)
    }

    fn replace_by_event(&mut self, row: &StoredRow, after: UtcMillis, before: UtcMillis) -> Result<(), OutboxError> {
        let Some(series) = self.memory.series_by_id.get(&row.series) else {
            let mut damaged = SeqSet::new();
            damaged.insert(row.id);
            return self.set_aside_damaged(&damaged);
        };
        let text = format!(
            "{} {} = {} read after {after} and before {before}, at uptime {} ms of a boot whose clock was never trusted",
            series.code, series.kind, row.quantity, row.captured_at.0
        );
        let log = UNTRUSTED_CLOCK_LOG.to_owned();
        // The row's number tells several of one moment apart.
        let event =
            Event { meter: series.meter.clone(), log, at: before, nth: 0, code: row.id as i64, raw: Vec::new(), text };
        let flags = row.flags & HELD & !HELD_CLOCK | FRESH;
        self.put_back(&StoredRow::of_event(row.id, &event, before, flags))
    }

    /// Writes the row anew under its number; it no longer waits for the clock.
    fn put_back(&mut self, row: &StoredRow) -> Result<(), OutboxError> {
        self.connection.prepare_cached("DELETE FROM rows WHERE id = ?1")?.execute([row.id as i64])?;
        row.insert(&mut *self.connection.prepare_cached(INSERT)?)?;
        self.memory.note_held(row);
        if row.flags & HELD == 0 {
            self.memory.held.remove(row.id);
            self.memory.unsealed.insert(row.id);
        }
        Ok(())
    }
}

/// The boot in which it was stamped, and the latest instant that is known to lie before it.
fn bounds(row: &StoredRow) -> (u64, i64) {
    let bytes = row.body.as_deref().and_then(|body| <[u8; 16]>::try_from(body).ok());
    bytes.map_or((0, 0), |bytes| {
        let number = u128::from_be_bytes(bytes);
        ((number >> 64) as u64, number as u64 as i64)
    })
}
