//! Invocation counters, ours and those of meters: under one key none is used twice, whatever happens to the gateway.
//!
//! Two APDUs of one sender under one key and counter give away what both say, and the key of authentication with it (AES-GCM). So a
//! range of counters is reserved in a transaction of its own before the first of it is sent, and whatever a killed process has used
//! of it is behind the end that the file says.
//!
//! The file may be lost, or an older copy of it restored. A range therefore also begins behind what the caller knows from elsewhere
//! ([`crate::reading::counters`]), and behind all that this process was given before.

use std::ops::Range;

use protocols::dlms::security::SystemTitle;
use rusqlite::{OptionalExtension, params};

use super::core::{Outbox, OutboxError};

/// Whose counter, under which key: the key by its [fingerprint](protocols::dlms::security::Key::fingerprint).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CounterId {
    pub key: [u8; 16],
    pub title: SystemTitle,
}

impl Outbox {
    /// The first counter that may still be used.
    pub fn counter(&self, id: &CounterId) -> Result<Option<u32>, OutboxError> {
        let sql = "SELECT next FROM counters WHERE key = ?1 AND title = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row(params![id.key, id.title.0], |row| row.get(0)).optional()?)
    }

    /// What is known of counters under a key: titles, and the first that each may still use.
    pub fn counters(&self, key: [u8; 16]) -> Result<Vec<(SystemTitle, u32)>, OutboxError> {
        let mut statement = self.connection.prepare_cached("SELECT title, next FROM counters WHERE key = ?1")?;
        let rows = statement.query_map([key], |row| Ok((SystemTitle(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Up to `count` counters of ours, from `floor` on at the earliest; fewer where the counters end. To be used once this is committed.
    pub fn reserve_counters(&mut self, id: CounterId, floor: u32, count: u32) -> Result<Range<u32>, OutboxError> {
        let given = self.counters_given.get(&id).copied();
        let first = [Some(floor), given, self.counter(&id)?].into_iter().flatten().max().unwrap_or(floor);
        let end = first.saturating_add(count);
        self.note_counter(&id, end)?;
        self.counters_given.insert(id, end);
        Ok(first..end)
    }

    /// All counters below `next` are used.
    pub fn note_counter(&self, id: &CounterId, next: u32) -> Result<(), OutboxError> {
        let sql = "INSERT INTO counters VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET next = max(next, excluded.next)";
        self.connection.prepare_cached(sql)?.execute(params![id.key, id.title.0, next])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use protocols::uplink::GatewayId;

    use super::*;
    use crate::outbox::{OutboxSettings, StoreRequest};

    const ID: CounterId = CounterId { key: [7; 16], title: SystemTitle(*b"XMP\x01\x02\x03\x04\x05") };

    fn open(path: &Path) -> Outbox {
        let settings = OutboxSettings::new(GatewayId::new("gw-1").unwrap());
        Outbox::open(path, settings, Box::new(|| 1)).unwrap().0
    }

    fn reserve(outbox: &mut Outbox, floor: u32, count: u32) -> Range<u32> {
        outbox.transaction(|outbox| outbox.reserve_counters(ID, floor, count)).unwrap()
    }

    #[test]
    fn a_range_begins_behind_all_before_and_at_the_floor_at_the_earliest() {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = open(&folder.path().join("outbox.db"));
        assert_eq!(reserve(&mut outbox, 5, 10), 5..15);
        assert_eq!(reserve(&mut outbox, 0, 10), 15..25);
        assert_eq!(reserve(&mut outbox, 100, 10), 100..110);
        let other = CounterId { key: [8; 16], ..ID };
        assert_eq!(outbox.transaction(|outbox| outbox.reserve_counters(other, 0, 1)).unwrap(), 0..1);
        assert_eq!(outbox.counters(ID.key).unwrap(), [(ID.title, 110)]);
        // The last counter is never used, and none comes behind it.
        assert_eq!(reserve(&mut outbox, u32::MAX - 1, 10), u32::MAX - 1..u32::MAX);
        assert!(reserve(&mut outbox, 0, 10).is_empty());
    }

    /// Control: reserve without [`Outbox::note_counter`].
    #[test]
    fn what_was_reserved_is_behind_a_process_that_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        assert_eq!(reserve(&mut open(&path), 0, 10), 0..10);
        assert_eq!(reserve(&mut open(&path), 0, 10), 10..20);
    }

    /// Control: leave the table out of those that are salvaged; forget in [`Outbox::mend`] what was given.
    #[test]
    fn a_salvaged_outbox_gives_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let mut outbox = open(&path);
        assert_eq!(reserve(&mut outbox, 0, 10), 0..10);
        outbox.mend(&path).unwrap();
        assert_eq!(outbox.counter(&ID).unwrap(), Some(10));
        outbox.connection.execute("DELETE FROM counters", []).unwrap();
        assert_eq!(reserve(&mut outbox, 0, 10), 10..20);
    }

    /// Control: leave the counters of a request out of [`Outbox::store`].
    #[test]
    fn what_was_accepted_of_a_meter_is_stored_with_its_readings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let store = |outbox: &mut Outbox, next| {
            let request = StoreRequest { counters: vec![(ID, next)], ..StoreRequest::default() };
            outbox.transaction(|outbox| outbox.store(&request)).unwrap();
        };
        let mut outbox = open(&path);
        store(&mut outbox, 42);
        store(&mut outbox, 7);
        drop(outbox);
        assert_eq!(open(&path).counters(ID.key).unwrap(), [(ID.title, 42)]);
    }

    #[test]
    fn a_transaction_that_fails_has_reserved_nothing_that_anybody_uses() {
        let mut outbox =
            Outbox::in_memory(OutboxSettings::new(GatewayId::new("gw-1").unwrap()), Box::new(|| 1)).unwrap().0;
        let failed = outbox.transaction(|outbox| {
            outbox.reserve_counters(ID, 0, 10)?;
            Err::<(), _>(OutboxError::Closed)
        });
        assert!(failed.is_err());
        assert_eq!(outbox.counter(&ID).unwrap(), None);
        assert_eq!(reserve(&mut outbox, 0, 10), 10..20);
    }
}
