//! Rows that wait for a person (a meter answers that was not expected) or for a trusted clock.
//!
//! They may fill a tenth of the file. A request that would take them beyond it is refused as a whole, and from then on nothing
//! is read that would have to wait, until some of what waits has gone: a wrong meter must not push out the right ones.

use std::collections::BTreeMap;

use protocols::metering::{MeterId, StampedBy};
use rusqlite::params;

use super::core::{Outbox, OutboxError, StoreRequest};
use super::rows::{COLUMNS, HELD, HELD_CLOCK, HELD_IDENTITY, StoredRow};

/// What a row without a body takes, its share of the pages' own octets included.
pub(super) const ROW_BYTES: u64 = 80;
/// Held rows, and likewise refused batches, may fill this part of the file.
pub(super) const SET_ASIDE_PART: u64 = 10;
/// Uptime and boot of a row that waits for the clock.
pub(super) const CLOCK_BODY_BYTES: u64 = 16;

pub(super) fn row_bytes(body: Option<&[u8]>) -> u64 {
    ROW_BYTES + body.map_or(0, |body| body.len() as u64)
}

impl Outbox {
    pub(super) fn held_bytes_max(&self) -> u64 {
        self.settings.bytes_max / SET_ASIDE_PART
    }

    /// Refuses what would have to wait when there is no room for it. Before anything of the request is written.
    pub(super) fn check_held(&mut self, request: &StoreRequest) -> Result<(), OutboxError> {
        let by_gateway = || request.readings.iter().filter(|reading| reading.stamped_by == StampedBy::Gateway).count();
        let bytes = if request.hold_identity {
            let bodies: usize = request.events.iter().map(|(event, _)| event.raw.len() + event.text.len() + 128).sum();
            request.rows() as u64 * (ROW_BYTES + CLOCK_BODY_BYTES) + bodies as u64
        } else if request.untrusted.is_some() {
            by_gateway() as u64 * (ROW_BYTES + CLOCK_BODY_BYTES)
        } else {
            0
        };
        let (held_bytes, bytes_max) = (self.memory.held_bytes, self.held_bytes_max());
        if bytes > 0 && held_bytes + bytes > bytes_max {
            self.held_stopped = true;
            return Err(OutboxError::HeldFull { held_bytes, bytes_max });
        }
        Ok(())
    }

    /// A row of so many bytes no longer waits, or is about to be written anew.
    pub(super) fn forget_held(&mut self, bytes: u64) {
        self.memory.held_bytes = self.memory.held_bytes.saturating_sub(bytes);
        self.held_stopped = false;
    }

    /// Whether a request was refused because of what waits already. Forgotten when some of that goes.
    pub fn held_stopped(&self) -> bool {
        self.held_stopped
    }

    /// Releases what was read under an identity that was not expected: it is sealed and delivered from now on. Answers how many
    /// rows. Inside the open transaction.
    pub fn accept(&mut self, meter: &MeterId) -> Result<u64, OutboxError> {
        let mut held = Vec::new();
        self.for_each_held(|row| {
            if self.meter_of(&row).as_ref() == Some(meter) {
                held.push((row.id, row.flags, row_bytes(row.body.as_deref())));
            }
        })?;
        for &(id, flags, bytes) in &held {
            self.connection
                .prepare_cached("UPDATE rows SET flags = flags & ~?2 WHERE id = ?1")?
                .execute(params![id as i64, HELD_IDENTITY])?;
            // One that waits for the clock too goes on waiting.
            if flags & HELD & !HELD_IDENTITY == 0 {
                self.memory.held.remove(id);
                self.memory.unsealed.insert(id);
                self.forget_held(bytes);
            }
        }
        Ok(held.len() as u64)
    }

    /// Who waits for [`Self::accept`], with how many rows.
    pub fn held_identities(&self) -> Result<BTreeMap<MeterId, u64>, OutboxError> {
        let mut identities = BTreeMap::new();
        self.for_each_held(|row| {
            if let Some(meter) = self.meter_of(&row) {
                *identities.entry(meter).or_insert(0) += 1;
            }
        })?;
        Ok(identities)
    }

    fn meter_of(&self, row: &StoredRow) -> Option<MeterId> {
        if row.is_event() {
            return Some(row.event()?.meter);
        }
        Some(self.memory.series_by_id.get(&row.series)?.meter.clone())
    }

    /// By number, since flags have no index, and few rows of a large file wait. A row that does not read is damage, and is not
    /// released.
    fn for_each_held(&self, mut each: impl FnMut(StoredRow)) -> Result<(), OutboxError> {
        let sql = format!("SELECT {COLUMNS} FROM rows WHERE id BETWEEN ?1 AND ?2 AND flags & {HELD_IDENTITY} <> 0");
        let mut statement = self.connection.prepare_cached(&sql)?;
        for &(first, last) in self.memory.held.ranges() {
            let mut rows = statement.query([first as i64, last as i64])?;
            while let Some(row) = rows.next()? {
                if let Some(row) = StoredRow::from_row(row).ok().filter(StoredRow::is_intact) {
                    each(row);
                }
            }
        }
        Ok(())
    }
}

/// Whether a row with these flags waits for something that comes.
pub(super) const fn is_waiting(flags: i64) -> bool {
    flags & (HELD_IDENTITY | HELD_CLOCK) != 0
}
