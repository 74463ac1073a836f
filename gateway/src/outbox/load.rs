//! What is in memory, rebuilt from the file: at open and after every rollback.

use std::collections::HashMap;

use protocols::metering::{Series, UtcMillis};
use protocols::uplink::SeqSet;
use rusqlite::OptionalExtension;

use super::core::{Outbox, decode_ranges};
use super::held::{ROW_BYTES, is_waiting};
use super::memory::{BatchState, Memory, SeriesState, identity};
use super::rows::{COLUMNS, DAMAGED, HELD, HELD_CLOCK, StoredRow};

impl Outbox {
    /// Rebuilds what is in memory from the file.
    pub(super) fn reload(&mut self) -> Result<(), rusqlite::Error> {
        let mut memory = Memory {
            next_id: 1,
            sealed_at_max: self.meta("sealed_at_max")?.unwrap_or(0),
            repeated: self.meta("repeated")?.unwrap_or(0) as u64,
            dropped: self.meta("dropped")?.unwrap_or(0) as u64,
            refused_dropped: self.meta("refused_dropped")?.unwrap_or(0) as u64,
            ..Memory::default()
        };
        self.load_series(&mut memory)?;
        self.load_rows(&mut memory)?;
        self.load_batches(&mut memory)?;
        self.memory = memory;
        Ok(())
    }

    fn load_series(&self, memory: &mut Memory) -> Result<(), rusqlite::Error> {
        let mut statement =
            self.connection.prepare("SELECT id, meter, code, kind, period_s, stamped_max FROM series")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text = |column: usize| -> Result<String, rusqlite::Error> { row.get(column) };
            let series = (|| {
                let kind = protocols::metering::Kind::from_u8(row.get(3).ok()?)?;
                let (meter, code) = (text(1).ok()?.parse().ok()?, text(2).ok()?.parse().ok()?);
                Some(Series { meter, code, kind, period_s: row.get(4).ok()? })
            })();
            // A series that does not parse is damage; its rows fail their lookup and are set aside at sealing.
            let Some(series) = series else { continue };
            let state = SeriesState { id: row.get(0)?, captured_max: None, stamped_max: row.get(5)?, last: None };
            memory.know_series(&series, state);
        }
        Ok(())
    }

    fn load_rows(&self, memory: &mut Memory) -> Result<(), rusqlite::Error> {
        let mut captured_max: HashMap<i64, i64> = HashMap::new();
        let sql = "SELECT id, series, captured_at, flags, coalesce(length(body), 0) FROM rows ORDER BY id";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, series, captured_at, flags): (i64, i64, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let set = if flags & HELD == 0 { &mut memory.unsealed } else { &mut memory.held };
            set.insert(id as u64);
            memory.damaged += u64::from(flags & DAMAGED != 0);
            if flags & HELD_CLOCK != 0 {
                memory.by_clock.insert(id as u64);
            }
            if is_waiting(flags) {
                memory.held_bytes += ROW_BYTES + row.get::<_, i64>(4)? as u64;
            }
            memory.next_id = memory.next_id.max(id as u64 + 1);
            captured_max.entry(series).and_modify(|max| *max = captured_at.max(*max)).or_insert(captured_at);
        }
        for state in &mut memory.states {
            state.captured_max = captured_max.get(&state.id).copied().map(UtcMillis);
        }
        Ok(())
    }

    fn load_batches(&self, memory: &mut Memory) -> Result<(), rusqlite::Error> {
        let mut statement = self
            .connection
            .prepare("SELECT incarnation, seq, sealed_at, row_ranges, refused IS NOT NULL FROM batches")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (incarnation, seq, sealed_at): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let row_ranges = decode_ranges(&row.get::<_, Vec<u8>>(3)?);
            memory.sealed_at_max = memory.sealed_at_max.max(sealed_at);
            for &(first, last) in row_ranges.ranges() {
                memory.next_id = memory.next_id.max(last + 1);
                for id in first..=last {
                    memory.unsealed.remove(id);
                }
            }
            if row.get::<_, bool>(4)? {
                memory.refused += 1;
                continue;
            }
            let identities = self.identities(&row_ranges)?;
            memory.batches.insert((incarnation as u64, seq as u64), BatchState { row_ranges, identities });
        }
        Ok(())
    }

    /// Sorted identity hashes of rows in the file. One that cannot be read has none: nothing is the same as it.
    pub(super) fn identities(&self, ids: &SeqSet) -> Result<Vec<u64>, rusqlite::Error> {
        let sql = format!("SELECT {COLUMNS} FROM rows WHERE id BETWEEN ?1 AND ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut identities = Vec::new();
        for &(first, last) in ids.ranges() {
            let mut rows = statement.query([first as i64, last as i64])?;
            while let Some(row) = rows.next()? {
                identities.extend(StoredRow::from_row(row).ok().as_ref().map(identity));
            }
        }
        identities.sort_unstable();
        Ok(identities)
    }

    fn meta(&self, key: &str) -> Result<Option<i64>, rusqlite::Error> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        statement.query_row([key], |row| row.get(0)).optional()
    }
}
