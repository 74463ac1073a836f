//! Choosing rows and sealing them into a batch.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use protocols::metering::{Event, Quality, Quantity, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{
    Batch, BatchEvent, BatchId, BatchRef, BlockRow, Books, Inventory, Payload, PayloadError, SeqSet, SeriesBlock,
    Sha256, limits,
};
use rusqlite::{OptionalExtension as _, params};
use tracing::error;

use super::core::{Outbox, OutboxError, encode_ranges};
use super::memory::{BatchState, identity};
use super::rows::{COLUMNS, DAMAGED, FRESH, HELD_CLOCK, StoredRow};

/// Which end of the unsealed rows a batch is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The oldest, in order of storing.
    Backlog,
    /// The newest, fresh ones only: they may overtake the backlog.
    Live,
}

#[derive(Debug, Clone, Copy)]
pub struct SealLimits {
    pub rows_max: usize,
    /// The time that decides what is dated too far ahead, and that becomes `sealed_at`: the cloud's where it is known to differ.
    pub now: UtcMillis,
}

/// A sealed batch without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBatch {
    pub id: BatchId,
    pub sealed_at: UtcMillis,
    pub sha256: Sha256,
    pub bytes: u64,
    pub uncompressed_bytes: u64,
    pub readings: u32,
    pub events: u32,
    pub first_at: UtcMillis,
    pub last_at: UtcMillis,
}

impl SealedBatch {
    pub fn reference(&self, floor: u64) -> BatchRef {
        BatchRef {
            id: self.id.clone(),
            floor,
            sha256: self.sha256,
            bytes: self.bytes,
            uncompressed_bytes: self.uncompressed_bytes,
            readings: self.readings,
            events: self.events,
            first_at: self.first_at,
            last_at: self.last_at,
        }
    }
}

/// Raw values and texts of one batch: far below what a payload may hold.
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// The log of readings that carry an impossible instant.
const OUT_OF_RANGE_LOG: &str = "meterpost:instant-out-of-range";

/// Rows on their way into a batch.
#[derive(Default)]
struct Gathered {
    ids: SeqSet,
    identities: HashMap<u64, Option<(Quantity, Quality)>, BuildHasherDefault<IsHash>>,
    blocks: BTreeMap<(i64, Unit, i8, bool), Vec<BlockRow>>,
    events: Vec<BatchEvent>,
    event_bytes: usize,
    /// Repeats within the batch: deleted instead of sent.
    repeats: SeqSet,
    damaged: SeqSet,
}

impl Gathered {
    /// `left`: rows that may still go in.
    fn is_full(&self, left: usize) -> bool {
        left == 0 || self.event_bytes > EVENT_BYTES_MAX
    }
}

/// Identities are hashes already.
#[derive(Default)]
struct IsHash(u64);

impl Hasher for IsHash {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Outbox {
    /// Seals at most `rows_max` rows, inside the open transaction. `None` when there is nothing to seal. An inventory travels
    /// even when there are no rows; of one that the cloud would refuse nothing travels but the batch.
    pub fn seal(
        &mut self,
        which: Which,
        limits: SealLimits,
        inventory: Option<Inventory>,
    ) -> Result<Option<SealedBatch>, OutboxError> {
        let rows_max = limits.rows_max.min(limits::READINGS_MAX);
        let gathered =
            self.gather(Some(which), &self.candidates(which, rows_max), SealLimits { rows_max, ..limits })?;
        self.settle_leftovers(&gathered)?;
        if gathered.ids.is_empty() && inventory.is_none() {
            return Ok(None);
        }
        let sealed_at = limits.now.0.max(self.memory.sealed_at_max + 1);
        self.memory.sealed_at_max = sealed_at;
        self.seal_gathered(gathered, sealed_at, limits.now, inventory)
    }

    /// Seals the rows of a batch that is gone under another number, dated as that one was: what was stored after them, and may
    /// be sealed or even settled by now, still wins. `None` when none of the rows can be read.
    pub(super) fn reseal(
        &mut self,
        rows: &SeqSet,
        sealed_at: i64,
        now: UtcMillis,
    ) -> Result<Option<SealedBatch>, OutboxError> {
        loop {
            let gathered = self.gather(None, rows, SealLimits { rows_max: limits::READINGS_MAX, now })?;
            self.settle_leftovers(&gathered)?;
            if gathered.ids.is_empty() {
                return Ok(None);
            }
            if let Some(sealed) = self.seal_gathered(gathered, sealed_at, now, None)? {
                return Ok(Some(sealed));
            }
        }
    }

    /// `None` when rows had to be set aside that no cloud would take: the others go next time.
    fn seal_gathered(
        &mut self,
        gathered: Gathered,
        sealed_at: i64,
        now: UtcMillis,
        inventory: Option<Inventory>,
    ) -> Result<Option<SealedBatch>, OutboxError> {
        let (incarnation, seq) = self.next_seq(now)?;
        let id = BatchId { gateway: self.settings.gateway.clone(), incarnation, seq };
        let Gathered { ids, identities, blocks, events, .. } = gathered;
        let (inventory, alone) =
            inventory.and_then(|inventory| seal_alone(&id, UtcMillis(sealed_at), inventory)).unzip();
        let mut batch = Batch {
            id: id.clone(),
            sealed_at: UtcMillis(sealed_at),
            blocks: self.blocks(blocks),
            events,
            inventory,
            books: Books::default(),
        };
        batch.books = batch.compute_books();
        if let Err(error) = batch.check_content() {
            let unfit = self.unfit(&ids, now)?;
            assert!(!unfit.is_empty(), "a batch that the cloud would refuse was about to be sealed: {error}");
            let rows = self.set_aside(&unfit)?;
            error!(%error, rows, "the cloud would refuse these rows: they are set aside");
            return Ok(None);
        }
        let payload = Payload::seal(&batch);
        let (first_at, last_at) = batch.span().unwrap_or((batch.sealed_at, batch.sealed_at));
        let sealed = SealedBatch {
            id,
            sealed_at: batch.sealed_at,
            sha256: payload.sha256,
            bytes: payload.bytes.len() as u64,
            uncompressed_bytes: payload.uncompressed_bytes,
            readings: batch.reading_count() as u32,
            events: batch.events.len() as u32,
            first_at,
            last_at,
        };
        self.insert_batch(&sealed, &ids, &payload.bytes)?;
        if let Some(alone) = alone {
            self.keep_inventory(&alone)?;
        }
        self.memory.note_sealed(&ids);
        let mut identities: Vec<u64> = identities.into_keys().collect();
        identities.sort_unstable();
        self.memory.batches.insert((incarnation, seq), BatchState { row_ranges: ids, identities });
        Ok(Some(sealed))
    }

    /// Those of them that no cloud would take even alone.
    fn unfit(&self, ids: &SeqSet, now: UtcMillis) -> Result<SeqSet, OutboxError> {
        let mut unfit = SeqSet::new();
        for id in ids.iter() {
            let mut alone = SeqSet::new();
            alone.insert(id);
            let Gathered { blocks, events, .. } = self.gather(None, &alone, SealLimits { rows_max: 1, now })?;
            let batch = Batch {
                id: BatchId { gateway: self.settings.gateway.clone(), incarnation: 0, seq: 0 },
                sealed_at: now,
                blocks: self.blocks(blocks),
                events,
                inventory: None,
                books: Books::default(),
            };
            if batch.check_content().is_err() {
                unfit.insert(id);
            }
        }
        Ok(unfit)
    }

    /// For the next start: see [`Self::inventory`].
    fn keep_inventory(&self, alone: &Payload) -> Result<(), OutboxError> {
        let value = [&alone.sha256.0[..], &alone.bytes].concat();
        self.connection
            .prepare_cached(
                "INSERT INTO meta VALUES ('inventory', ?1) ON CONFLICT DO UPDATE SET value = excluded.value",
            )?
            .execute([value])?;
        Ok(())
    }

    /// The inventory that was sealed last; `None` when there was none, or the disk has changed it.
    pub fn inventory(&self) -> Result<Option<Inventory>, OutboxError> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM meta WHERE key = 'inventory'")?;
        let value: Option<Vec<u8>> = statement.query_row([], |row| row.get(0)).optional()?;
        let opened = value.as_deref().and_then(|value| {
            let (sha256, payload) = value.split_first_chunk()?;
            Payload::open_unclaimed(payload, Sha256(*sha256)).ok()
        });
        Ok(opened.and_then(|batch| batch.inventory))
    }

    fn insert_batch(&self, sealed: &SealedBatch, ids: &SeqSet, payload: &[u8]) -> Result<(), OutboxError> {
        self.connection
            .prepare_cached(
                "INSERT INTO batches (incarnation, seq, sealed_at, sha256, uncompressed_bytes, readings, events, first_at, last_at, row_ranges, payload)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                sealed.id.incarnation as i64,
                sealed.id.seq as i64,
                sealed.sealed_at.0,
                sealed.sha256.0,
                sealed.uncompressed_bytes as i64,
                sealed.readings,
                sealed.events,
                sealed.first_at.0,
                sealed.last_at.0,
                encode_ranges(ids),
                payload,
            ])?;
        self.connection
            .prepare_cached("UPDATE incarnations SET last_sealed = ?2 WHERE incarnation = ?1")?
            .execute(params![sealed.id.incarnation as i64, sealed.id.seq as i64])?;
        self.put_meta("sealed_at_max", self.memory.sealed_at_max)
    }

    /// The number of the next batch; draws the incarnation at the first seal of this opening.
    fn next_seq(&mut self, now: UtcMillis) -> Result<(u64, u64), OutboxError> {
        if let Some(incarnation) = self.incarnation {
            let last: i64 = self
                .connection
                .prepare_cached("SELECT last_sealed FROM incarnations WHERE incarnation = ?1")?
                .query_row([incarnation as i64], |row| row.get(0))?;
            return Ok((incarnation, last as u64 + 1));
        }
        let incarnation = (self.draw_incarnation)();
        self.connection.execute(
            "INSERT INTO incarnations (incarnation, opened_at, last_sealed) VALUES (?1, ?2, 0)",
            params![incarnation as i64, now.0],
        )?;
        self.incarnation = Some(incarnation);
        Ok((incarnation, 1))
    }

    /// Of `ranges`, what may go into one batch. `which` is `None` for rows that were in a batch before: they overtake nothing,
    /// being dated as that batch was, and so need not wait for others.
    fn gather(&self, which: Option<Which>, ranges: &SeqSet, limits: SealLimits) -> Result<Gathered, OutboxError> {
        let mut gathered = Gathered::default();
        let mut left = limits.rows_max;
        gathered.identities.reserve(left.min(usize::try_from(ranges.len()).unwrap_or(left)));
        let remembered_from = self.memory.recent.front().map_or(u64::MAX, |row| row.id);
        for &(first, last) in ranges.ranges() {
            if first < remembered_from {
                let stored = (first, last.min(remembered_from - 1));
                self.gather_stored(&mut gathered, stored, which, limits, &mut left)?;
            }
            if last >= remembered_from {
                let remembered = (first.max(remembered_from), last);
                self.gather_remembered(&mut gathered, remembered, which, limits, &mut left)?;
            }
            if gathered.is_full(left) {
                break;
            }
        }
        Ok(gathered)
    }

    /// Rows read back from the file.
    fn gather_stored(
        &self,
        gathered: &mut Gathered,
        (first, last): (u64, u64),
        which: Option<Which>,
        limits: SealLimits,
        left: &mut usize,
    ) -> Result<(), OutboxError> {
        let sql = format!("SELECT {COLUMNS} FROM rows WHERE id BETWEEN ?1 AND ?2 ORDER BY id");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([first as i64, last as i64])?;
        while !gathered.is_full(*left)
            && let Some(row) = rows.next()?
        {
            let id = row.get::<_, i64>(0)? as u64;
            match StoredRow::from_row(row) {
                Ok(row) if row.is_intact() && row.flags & DAMAGED == 0 => {
                    *left -= usize::from(self.gather_row(gathered, &row, which, limits.now));
                }
                _ => gathered.damaged.insert_range(id, id),
            }
        }
        Ok(())
    }

    /// Rows that are still in memory as they were stored; one that is not (it was held for a while) is read back.
    fn gather_remembered(
        &self,
        gathered: &mut Gathered,
        (first, last): (u64, u64),
        which: Option<Which>,
        limits: SealLimits,
        left: &mut usize,
    ) -> Result<(), OutboxError> {
        let recent = &self.memory.recent;
        let mut remembered = recent.range(recent.partition_point(|row| row.id < first)..).peekable();
        for id in first..=last {
            if gathered.is_full(*left) {
                break;
            }
            match remembered.next_if(|row| row.id == id) {
                Some(row) => *left -= usize::from(self.gather_row(gathered, row, which, limits.now)),
                None => self.gather_stored(gathered, (id, id), which, limits, left)?,
            }
        }
        Ok(())
    }

    /// The unsealed rows that a batch may be made of. From the tail, exactly as many as may go; from the head, as many as there
    /// are, since some may have to wait.
    fn candidates(&self, which: Which, rows_max: usize) -> SeqSet {
        match which {
            Which::Backlog => self.memory.unsealed.clone(),
            Which::Live => {
                let mut wanted = rows_max as u64;
                let mut tail = SeqSet::new();
                for &(first, last) in self.memory.unsealed.ranges().iter().rev() {
                    let taken = wanted.min(last - first + 1);
                    if taken == 0 {
                        break;
                    }
                    tail.insert_range(last - taken + 1, last);
                    wanted -= taken;
                }
                tail
            }
        }
    }

    /// True when the row went in.
    fn gather_row(&self, gathered: &mut Gathered, row: &StoredRow, which: Option<Which>, now: UtcMillis) -> bool {
        if which == Some(Which::Live) && row.flags & FRESH == 0 {
            return false;
        }
        let identity = identity(row);
        // No older row of a fresh reading's identity exists; events are all stored as fresh.
        let may_have_older = which.is_some() && (row.flags & FRESH == 0 || row.is_event());
        if may_have_older && self.memory.batches.values().any(|batch| batch.identities.binary_search(&identity).is_ok())
        {
            return false;
        }
        match gathered.identities.entry(identity) {
            Entry::Occupied(mut first) => {
                // A repeat says nothing new. A revision waits, and so does everything of its identity behind it.
                let is_repeat = |(quantity, quality): (Quantity, Quality)| {
                    quantity.normal() == row.quantity.normal() && quality == row.quality
                };
                if first.get().is_some_and(is_repeat) && !row.is_event() {
                    gathered.repeats.insert(row.id);
                } else {
                    first.insert(None);
                }
                return false;
            }
            Entry::Vacant(vacant) => drop(vacant.insert(Some((row.quantity, row.quality)))),
        }
        if row.is_event() {
            let Some(event) = row.event().map(|event| cut_to_size(dated(row, event, now))) else {
                gathered.damaged.insert(row.id);
                return false;
            };
            gathered.event_bytes += event.raw.len() + event.text.len();
            gathered.events.push(BatchEvent { event, read_at: row.read_at });
        } else {
            let Some(series) = self.memory.series_by_id.get(&row.series) else {
                gathered.damaged.insert(row.id);
                return false;
            };
            if row.captured_at < limits::CAPTURED_AT_MIN || row.captured_at.since(now) > limits::CAPTURED_AHEAD_MS_MAX {
                gathered.events.push(out_of_range(row, series));
            } else {
                let key = (row.series, row.quantity.unit, row.quantity.scaler, row.stamped_by() == StampedBy::Gateway);
                gathered.blocks.entry(key).or_default().push(block_row(row));
            }
        }
        gathered.ids.insert(row.id);
        true
    }

    /// Repeats go, damaged rows are set aside.
    fn settle_leftovers(&mut self, gathered: &Gathered) -> Result<(), OutboxError> {
        if !gathered.repeats.is_empty() {
            self.delete_rows(&gathered.repeats)?;
            self.memory.repeated += gathered.repeats.len();
            self.put_meta("repeated", self.memory.repeated as i64)?;
        }
        for id in gathered.repeats.iter() {
            self.memory.unsealed.remove(id);
        }
        self.set_aside_damaged(&gathered.damaged)
    }

    /// Rows that are not what was stored. What they were is read again, as far as meters still have it.
    pub(super) fn set_aside_damaged(&mut self, damaged: &SeqSet) -> Result<(), OutboxError> {
        if damaged.is_empty() {
            return Ok(());
        }
        let rows = self.set_aside(damaged)?;
        error!(rows, "rows of the outbox are not what was stored: they are set aside, and profiles are read again");
        self.forget_cursors()
    }

    /// These stay in the file, and go nowhere. Answers how many there are.
    fn set_aside(&mut self, damaged: &SeqSet) -> Result<usize, OutboxError> {
        self.memory.recent.retain(|row| !damaged.contains(row.id));
        let mut rows = 0;
        for id in damaged.iter() {
            let sql = "UPDATE rows SET flags = (flags | ?2) & ~?3 WHERE id = ?1 AND flags & ?2 = 0";
            rows += self.connection.execute(sql, params![id as i64, DAMAGED, HELD_CLOCK])?;
            self.memory.unsealed.remove(id);
            self.memory.held.insert(id);
        }
        self.memory.damaged += rows as u64;
        Ok(rows)
    }

    fn blocks(&self, blocks: BTreeMap<(i64, Unit, i8, bool), Vec<BlockRow>>) -> Vec<SeriesBlock> {
        let sorted = blocks.into_iter().map(|((series, unit, scaler, by_gateway), mut rows)| {
            rows.sort_unstable_by_key(|row| (row.captured_at, row.nth));
            SeriesBlock {
                series: self.memory.series_by_id.get(&series).expect("gather_row looked it up").clone(),
                unit,
                scaler,
                stamped_by: if by_gateway { StampedBy::Gateway } else { StampedBy::Meter },
                rows,
            }
        });
        sorted.collect()
    }

    /// How many fresh rows the newest `rows_max` unsealed rows are older than: 0 means that there is no backlog.
    pub fn backlog_beyond(&self, rows_max: usize) -> u64 {
        self.memory.unsealed.len().saturating_sub(rows_max as u64)
    }

    pub fn unsealed_rows(&self) -> u64 {
        self.memory.unsealed.len()
    }
}

/// An inventory, and a batch of it alone: what is kept of it. `None` for one that the cloud would refuse, and with it the readings
/// of all meters that it travels with.
fn seal_alone(id: &BatchId, sealed_at: UtcMillis, inventory: Inventory) -> Option<(Inventory, Payload)> {
    let (blocks, events, books) = (Vec::new(), Vec::new(), Books::default());
    let alone = Batch { id: id.clone(), sealed_at, blocks, events, inventory: Some(inventory), books };
    let payload = Payload::seal(&alone);
    if let Err(error) = check_alone(&alone, &payload) {
        let hint =
            "the readings are delivered; fewer meters, or fewer codes in their sections, make it one that is taken";
        error!(%error, hint, "the cloud would refuse the inventory: it is left out");
        return None;
    }
    alone.inventory.map(|inventory| (inventory, payload))
}

fn check_alone(alone: &Batch, payload: &Payload) -> Result<(), String> {
    alone.check_content().map_err(|error| error.to_string())?;
    let (bytes, uncompressed) = (payload.bytes.len() as u64, payload.uncompressed_bytes);
    // The other half is for the readings, which take far less.
    if bytes > limits::PAYLOAD_BYTES_MAX / 2 || uncompressed > limits::UNCOMPRESSED_BYTES_MAX / 2 {
        return Err(format!("{bytes} octets, {uncompressed} uncompressed, are more than half of a payload"));
    }
    match Payload::open(&payload.bytes, payload.sha256, uncompressed) {
        Ok(_) => Ok(()),
        Err(PayloadError::Decode(error)) => Err(format!("it cannot be decoded: {error}")),
        Err(error) => Err(error.to_string()),
    }
}

fn block_row(row: &StoredRow) -> BlockRow {
    BlockRow {
        captured_at: row.captured_at,
        nth: row.nth,
        mantissa: row.quantity.mantissa,
        quality: row.quality,
        read_at: UtcMillis(row.read_at.seconds() * 1000),
        // A maximum that there has not been yet has the first or last date that there is, which time zones move out of its range.
        occurred_at: row.occurred_at.filter(|at| is_instant(*at)),
        clock_offset_ms: row.clock_offset_ms,
    }
}

/// No cloud takes an event with more octets, and none of the logs that meters keep has one.
fn cut_to_size(mut event: Event) -> Event {
    let bytes = event.raw.len();
    if bytes > limits::EVENT_BYTES_MAX {
        event.raw.truncate(limits::EVENT_BYTES_MAX);
        event.text = format!("cut from {bytes} octets; {}", event.text);
    }
    let text_bytes = event.text.floor_char_boundary(limits::EVENT_BYTES_MAX);
    event.text.truncate(text_bytes);
    event
}

/// One wrong meter clock must not spoil a batch: what no cloud would take as a reading travels as an event. The row's number
/// tells several of the same second apart.
fn out_of_range(row: &StoredRow, series: &Series) -> BatchEvent {
    let read_at = UtcMillis(row.read_at.seconds() * 1000);
    let text = format!("{} {} = {} dated {}", series.code, series.kind, row.quantity, date(row.captured_at));
    let meter = series.meter.clone();
    let log = OUT_OF_RANGE_LOG.to_owned();
    BatchEvent { event: Event { meter, log, at: read_at, nth: 0, code: row.id as i64, raw: Vec::new(), text }, read_at }
}

/// The same for an event: one of tomorrow would keep its batch waiting until then, and those behind it.
fn dated(row: &StoredRow, event: Event, now: UtcMillis) -> Event {
    if is_instant(event.at) && event.at.since(now) <= limits::CAPTURED_AHEAD_MS_MAX {
        return event;
    }
    let Event { meter, log, at, code, raw, text, .. } = event;
    let text = format!("{log}: code {code} dated {}: {text}", date(at));
    let at = UtcMillis(row.read_at.seconds() * 1000);
    Event { meter, log: OUT_OF_RANGE_LOG.to_owned(), at, nth: 0, code: row.id as i64, raw, text }
}

fn is_instant(at: UtcMillis) -> bool {
    (UtcMillis::MIN..=UtcMillis::MAX).contains(&at)
}

fn date(at: UtcMillis) -> String {
    if is_instant(at) { at.to_string() } else { format!("{} ms", at.0) }
}
