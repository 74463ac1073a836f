//! Rows that the gateway stamped while its clock was not trusted.
//!
//! Of this boot they are given their instant once the true start of the boot is known. Of an earlier boot, which ended before the
//! cloud told the time, the instant is lost: they become events that name the value and the times between which it was read.

use protocols::metering::{Event, UtcMillis};
use rusqlite::params;

use super::core::{Outbox, OutboxError};
use super::held::row_bytes;
use super::rows::{COLUMNS, FRESH, HELD, HELD_CLOCK, INSERT, StoredRow};

/// The log of readings whose instant nobody knows.
const UNTRUSTED_CLOCK_LOG: &str = "meterpost:untrusted-clock";

impl Outbox {
    /// Answers how many rows no longer wait. Inside the open transaction.
    pub fn resolve_clock(&mut self, boot: u64, origin: UtcMillis, now: UtcMillis) -> Result<u64, OutboxError> {
        if self.memory.held.is_empty() {
            return Ok(0);
        }
        let waiting: Vec<StoredRow> = {
            let sql = format!("SELECT {COLUMNS} FROM rows WHERE flags & {HELD_CLOCK} <> 0 ORDER BY id");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], StoredRow::from_row)?;
            rows.collect::<Result<_, _>>()?
        };
        let resolved = waiting.len() as u64;
        for row in waiting {
            self.forget_held(row_bytes(row.body.as_deref()));
            let bounds = row.body.as_deref().and_then(|body| <[u8; 16]>::try_from(body).ok());
            let (row_boot, after) = bounds.map_or((0, 0), |bytes| {
                let number = u128::from_be_bytes(bytes);
                ((number >> 64) as u64, number as u64 as i64)
            });
            if row_boot == boot && row.is_intact() {
                self.resolve(row, origin)?;
            } else {
                self.replace_by_event(&row, UtcMillis(after), now)?;
            }
        }
        Ok(resolved)
    }

    fn resolve(&mut self, mut row: StoredRow, origin: UtcMillis) -> Result<(), OutboxError> {
        row.captured_at = origin.plus_ms(row.captured_at.0);
        row.body = None;
        row.flags &= !HELD_CLOCK;
        let series = self.memory.series_by_id.get(&row.series).cloned();
        if let Some(state) = series.and_then(|series| self.memory.state_of(&series)) {
            let after = state.stamped_max.map_or(i64::MIN, |last| last.saturating_add(1));
            row.captured_at = row.captured_at.max(UtcMillis(after));
            state.stamped_max = Some(row.captured_at.0);
            if state.captured_max.is_none_or(|max| row.captured_at > max) {
                row.flags |= FRESH;
            }
            state.captured_max = state.captured_max.max(Some(row.captured_at));
            self.connection
                .prepare_cached("UPDATE series SET stamped_max = ?2 WHERE id = ?1")?
                .execute(params![row.series, row.captured_at.0])?;
        }
        self.put_back(&row)
    }

    fn replace_by_event(&mut self, row: &StoredRow, after: UtcMillis, before: UtcMillis) -> Result<(), OutboxError> {
        let Some(series) = self.memory.series_by_id.get(&row.series) else { return Ok(()) };
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
