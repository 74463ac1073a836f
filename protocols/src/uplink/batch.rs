//! A sealed batch: the readings and events that travel together, in columns.
//!
//! What must never change: the order of the elements in each array, the meaning of each number, the layout of a column
//! (`column.rs`) and of a hash (`books.rs`). New elements go to the end of an array.
//!
//! The *index* of a reading is its place when the rows of all blocks are counted in order, from 0; events have an index of
//! their own. (gateway, incarnation, seq, index) names one delivery of one reading for ever.

use std::collections::HashSet;

use super::books::SeriesKey;
use super::limits::{CAPTURED_AT_MIN, EVENT_BYTES_MAX, METER_DAYS_MAX, READINGS_MAX, UNCOMPRESSED_BYTES_MAX};
use super::wire::{self, Blob, Capped, wire_array};
use super::{BatchId, Books, DayBooks, DecodeError, GatewayId, Inventory, SetHash, VERSION, column};
use crate::metering::{
    Code, Day, Event, Kind, MeterId, Quality, Quantity, Reading, Series, StampedBy, Unit, UtcMillis,
};

/// An event with when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchEvent {
    pub event: Event,
    /// Whole seconds.
    pub read_at: UtcMillis,
}

/// One reading of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRow {
    pub captured_at: UtcMillis,
    pub nth: u8,
    pub mantissa: i64,
    pub quality: Quality,
    /// Whole seconds.
    pub read_at: UtcMillis,
    pub occurred_at: Option<UtcMillis>,
    pub clock_offset_ms: Option<i64>,
}

/// Readings of one series that share unit, scaler and stamp, ascending by (`captured_at`, `nth`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesBlock {
    pub series: Series,
    pub unit: Unit,
    pub scaler: i8,
    pub stamped_by: StampedBy,
    pub rows: Vec<BlockRow>,
}

impl SeriesBlock {
    pub fn quantity(&self, row: &BlockRow) -> Quantity {
        Quantity::new(row.mantissa, self.scaler, self.unit)
    }

    pub fn reading(&self, row: &BlockRow) -> Reading {
        Reading {
            series: self.series.clone(),
            captured_at: row.captured_at,
            nth: row.nth,
            quantity: self.quantity(row),
            quality: row.quality,
            read_at: row.read_at,
            occurred_at: row.occurred_at,
            clock_offset_ms: row.clock_offset_ms,
            stamped_by: self.stamped_by,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub id: BatchId,
    /// Whole milliseconds, strictly increasing per gateway.
    pub sealed_at: UtcMillis,
    pub blocks: Vec<SeriesBlock>,
    pub events: Vec<BatchEvent>,
    /// Sent when it changed, and daily.
    pub inventory: Option<Inventory>,
    pub books: Books,
}

wire_array! {
    #[derive(Debug)]
    struct BatchWire {
        version: u32,
        gateway: String,
        incarnation: u64,
        seq: u64,
        sealed_at: i64,
        blocks: Capped<BlockWire, READINGS_MAX>,
        events: Capped<EventWire, READINGS_MAX>,
        inventory: Option<super::inventory::InventoryWire>,
        books: Capped<DayWire, 50_000>,
    }
}

wire_array! {
    #[derive(Debug)]
    struct BlockWire {
        meter: String,
        code: String,
        kind: u8,
        period_s: u32,
        unit: u8,
        scaler: i8,
        stamped_by: u8,
        count: u32,
        captured_at: Blob,
        mantissa: Blob,
        lag: Blob,
        nth: Blob,
        quality: Blob,
        clock_offset: Blob,
        occurred: Blob,
    }
}

wire_array! {
    #[derive(Debug)]
    struct EventWire {
        meter: String,
        log: String,
        at: i64,
        nth: u8,
        code: i64,
        raw: Blob,
        text: String,
        lag: i64,
    }
}

wire_array! {
    #[derive(Debug)]
    struct DayWire {
        day: i32,
        readings: u64,
        readings_hash: Blob,
        events: u64,
        events_hash: Blob,
    }
}

impl Batch {
    pub fn reading_count(&self) -> usize {
        self.blocks.iter().map(|block| block.rows.len()).sum()
    }

    /// Earliest and latest instant of readings and events.
    pub fn span(&self) -> Option<(UtcMillis, UtcMillis)> {
        let readings = self.blocks.iter().flat_map(|block| block.rows.iter().map(|row| row.captured_at));
        let instants = readings.chain(self.events.iter().map(|event| event.event.at));
        instants.fold(None, |span, at| match span {
            None => Some((at, at)),
            Some((first, last)) => Some((first.min(at), last.max(at))),
        })
    }

    /// Calls `each` with the index, the block and the row of every reading.
    pub fn for_each_reading(&self, mut each: impl FnMut(u32, &SeriesBlock, &BlockRow)) {
        let mut index = 0;
        for block in &self.blocks {
            for row in &block.rows {
                each(index, block, row);
                index += 1;
            }
        }
    }

    /// The books of what the batch holds, computed from its rows.
    pub fn compute_books(&self) -> Books {
        let mut books = Books::default();
        let mut index = 0;
        for block in &self.blocks {
            let key = SeriesKey::new(&block.series);
            for row in &block.rows {
                let quantity = block.quantity(row);
                let hash = SetHash::of_reading(index, &key, row.captured_at, row.nth, quantity, row.quality);
                books.add_reading(row.captured_at.day(), hash);
                index += 1;
            }
        }
        for (index, BatchEvent { event, .. }) in (0u32..).zip(&self.events) {
            books.add_event(event.at.day(), SetHash::of_event(index, event));
        }
        books
    }

    /// Everything about the content that can be judged without a clock: order, identities, instants, counts, books. The
    /// cloud checks before its first write.
    pub fn check(&self) -> Result<(), DecodeError> {
        self.check_content()?;
        if self.compute_books() == self.books {
            return Ok(());
        }
        Err(DecodeError::Invalid("the books do not match the rows".to_owned()))
    }

    /// The same without the books: what the gateway checks before it seals a batch, whose books it has just computed.
    pub fn check_content(&self) -> Result<(), DecodeError> {
        let invalid = |text: String| Err(DecodeError::Invalid(text));
        if self.reading_count() > READINGS_MAX || self.events.len() > READINGS_MAX {
            return invalid(format!("more than {READINGS_MAX} readings or events"));
        }
        let mut seen = HashSet::new();
        let mut meter_days = HashSet::new();
        for block in &self.blocks {
            let series = &block.series;
            if series.period_s != 0 && !series.kind.has_period() {
                return invalid(format!("{series}: only interval and average have a period"));
            }
            let mut previous: Option<(UtcMillis, u8)> = None;
            let mut last_day = None;
            for row in &block.rows {
                let label = (row.captured_at, row.nth);
                if previous.is_some_and(|previous| previous >= label) {
                    return invalid(format!("{series}: rows do not ascend at {}", row.captured_at));
                }
                previous = Some(label);
                if row.captured_at < CAPTURED_AT_MIN || row.captured_at > UtcMillis::MAX {
                    return invalid(format!("{series}: no instant of a meter: {} ms", row.captured_at.0));
                }
                let day = row.captured_at.day();
                if last_day.replace(day) != Some(day) {
                    meter_days.insert((series.meter.as_str(), day));
                }
            }
        }
        // Identities can only meet where a series has more than one block.
        let mut blocks_of_series = HashSet::new();
        let repeated: HashSet<&Series> =
            self.blocks.iter().map(|block| &block.series).filter(|series| !blocks_of_series.insert(*series)).collect();
        for block in self.blocks.iter().filter(|block| repeated.contains(&block.series)) {
            for row in &block.rows {
                if !seen.insert((&block.series, row.captured_at, row.nth)) {
                    return invalid(format!("{}: two readings at {}", block.series, row.captured_at));
                }
            }
        }
        self.check_events(&mut meter_days)?;
        if meter_days.len() > METER_DAYS_MAX {
            return invalid(format!("readings of more than {METER_DAYS_MAX} meter-days"));
        }
        Ok(())
    }

    fn check_events<'a>(&'a self, meter_days: &mut HashSet<(&'a str, Day)>) -> Result<(), DecodeError> {
        let mut seen = HashSet::new();
        for BatchEvent { event, .. } in &self.events {
            let invalid =
                |text: &str| Err(DecodeError::Invalid(format!("event of {} at {}: {text}", event.meter, event.at)));
            if event.at < UtcMillis::MIN || event.at > UtcMillis::MAX {
                return invalid("no instant");
            }
            if event.log.is_empty() || event.log.len() > Code::LEN_MAX {
                return invalid("the log's name is empty or too long");
            }
            if event.raw.len() > EVENT_BYTES_MAX || event.text.len() > EVENT_BYTES_MAX {
                return invalid("raw value or text too long");
            }
            if !seen.insert((&event.meter, &event.log, event.at, event.nth, event.code)) {
                return invalid("twice");
            }
            meter_days.insert((event.meter.as_str(), event.at.day()));
        }
        Ok(())
    }

    /// CBOR, not yet compressed.
    pub(super) fn encode(&self) -> Vec<u8> {
        let sealed_s = self.sealed_at.seconds();
        let blocks = self.blocks.iter().map(|block| BlockWire::new(block, self.sealed_at)).collect();
        let events = self.events.iter().map(|BatchEvent { event, read_at }| EventWire {
            meter: event.meter.to_string(),
            log: event.log.clone(),
            at: event.at.since(self.sealed_at),
            nth: event.nth,
            code: event.code,
            raw: Blob(event.raw.clone()),
            text: event.text.clone(),
            lag: read_at.seconds() - sealed_s,
        });
        let books = self.books.days.iter().map(|(day, books)| DayWire {
            day: day.0 - self.sealed_at.day().0,
            readings: books.readings,
            readings_hash: hash_to_wire(books.readings, books.readings_hash),
            events: books.events,
            events_hash: hash_to_wire(books.events, books.events_hash),
        });
        wire::encode(&BatchWire {
            version: VERSION,
            gateway: self.id.gateway.to_string(),
            incarnation: self.id.incarnation,
            seq: self.id.seq,
            sealed_at: self.sealed_at.0,
            blocks: Capped(blocks),
            events: Capped(events.collect()),
            inventory: self.inventory.as_ref().map(super::inventory::InventoryWire::from),
            books: Capped(books.collect()),
        })
    }

    /// The inverse of [`Self::encode`]; says nothing yet about whether the content holds together: see [`Self::check`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: BatchWire = wire::decode(bytes, UNCOMPRESSED_BYTES_MAX as usize)?;
        let gateway = GatewayId::new(&wire.gateway).map_err(|error| DecodeError::Invalid(error.to_string()))?;
        let sealed_at = UtcMillis(wire.sealed_at);
        if !(UtcMillis::MIN..=UtcMillis::MAX).contains(&sealed_at) {
            return Err(DecodeError::Invalid(format!("sealed at no instant: {} ms", sealed_at.0)));
        }
        let mut left = READINGS_MAX;
        let mut blocks = Vec::with_capacity(wire.blocks.0.len());
        for block in &wire.blocks.0 {
            let count = usize::try_from(block.count).unwrap_or(usize::MAX);
            left = left
                .checked_sub(count)
                .filter(|_| count > 0)
                .ok_or_else(|| DecodeError::Invalid(format!("an empty block, or more than {READINGS_MAX} readings")))?;
            blocks.push(block.decode(count, sealed_at)?);
        }
        let events = wire.events.0.into_iter().map(|event| event.decode(sealed_at)).collect::<Result<_, _>>()?;
        let mut books = Books::default();
        for day in &wire.books.0 {
            let date = Day(sealed_at.day().0.saturating_add(day.day));
            let entry = DayBooks {
                readings: day.readings,
                readings_hash: hash_from_wire(day.readings, &day.readings_hash)?,
                events: day.events,
                events_hash: hash_from_wire(day.events, &day.events_hash)?,
            };
            if books.days.insert(date, entry).is_some() {
                return Err(DecodeError::Invalid(format!("two books of {date}")));
            }
        }
        Ok(Self {
            id: BatchId { gateway, incarnation: wire.incarnation, seq: wire.seq },
            sealed_at,
            blocks,
            events,
            inventory: wire.inventory.map(super::inventory::InventoryWire::decode).transpose()?,
            books,
        })
    }
}

fn hash_to_wire(count: u64, hash: SetHash) -> Blob {
    Blob(if count == 0 { Vec::new() } else { hash.0.to_be_bytes().to_vec() })
}

fn hash_from_wire(count: u64, blob: &Blob) -> Result<SetHash, DecodeError> {
    if count == 0 && blob.0.is_empty() {
        return Ok(SetHash::default());
    }
    blob.array("a set hash").map(|bytes| SetHash(u128::from_be_bytes(bytes)))
}

/// A column whose values are all zero is left out.
fn column_to_wire(values: impl Iterator<Item = i64> + Clone) -> Blob {
    let is_absent = values.clone().all(|value| value == 0);
    Blob(if is_absent { Vec::new() } else { column::encode(&values.collect::<Vec<_>>()) })
}

/// `None` is 0, a value of 0 and above is one more than itself.
fn optional_to_wire(value: Option<i64>) -> i64 {
    value.map_or(0, |value| if value >= 0 { value.saturating_add(1) } else { value })
}

fn optional_from_wire(value: i64) -> Option<i64> {
    match value {
        0 => None,
        1.. => Some(value - 1),
        _ => Some(value),
    }
}

impl BlockWire {
    fn new(block: &SeriesBlock, sealed_at: UtcMillis) -> Self {
        let rows = || block.rows.iter();
        Self {
            meter: block.series.meter.to_string(),
            code: block.series.code.to_string(),
            kind: block.series.kind as u8,
            period_s: block.series.period_s,
            unit: block.unit.0,
            scaler: block.scaler,
            stamped_by: u8::from(block.stamped_by == StampedBy::Gateway),
            count: block.rows.len() as u32,
            captured_at: Blob(column::encode(&rows().map(|row| row.captured_at.since(sealed_at)).collect::<Vec<_>>())),
            mantissa: column_to_wire(rows().map(|row| row.mantissa)),
            lag: column_to_wire(rows().map(|row| row.read_at.seconds() - row.captured_at.seconds())),
            nth: column_to_wire(rows().map(|row| i64::from(row.nth))),
            quality: column_to_wire(rows().map(|row| i64::from(row.quality.0))),
            clock_offset: column_to_wire(rows().map(|row| optional_to_wire(row.clock_offset_ms))),
            occurred: column_to_wire(
                rows().map(|row| optional_to_wire(row.occurred_at.map(|at| row.captured_at.since(at)))),
            ),
        }
    }

    fn decode(&self, count: usize, sealed_at: UtcMillis) -> Result<SeriesBlock, DecodeError> {
        let invalid = |text: String| DecodeError::Invalid(text);
        let series = Series {
            meter: MeterId::new(&self.meter).map_err(|error| invalid(error.to_string()))?,
            code: self.code.parse::<Code>().map_err(|error| invalid(error.to_string()))?,
            kind: Kind::from_u8(self.kind).ok_or_else(|| invalid(format!("{} is no kind of reading", self.kind)))?,
            period_s: self.period_s,
        };
        let empty = BlockRow {
            captured_at: sealed_at,
            nth: 0,
            mantissa: 0,
            quality: Quality::GOOD,
            read_at: UtcMillis(0),
            occurred_at: None,
            clock_offset_ms: None,
        };
        let mut rows = vec![empty; count];
        let mut out_of_range = false;
        read_column(&self.captured_at, &mut rows, false, |row, value| {
            row.captured_at = sealed_at.plus_ms(value);
        })?;
        read_column(&self.mantissa, &mut rows, true, |row, value| row.mantissa = value)?;
        read_column(&self.lag, &mut rows, true, |row, value| {
            row.read_at = UtcMillis(row.captured_at.seconds().saturating_add(value).saturating_mul(1000));
        })?;
        read_column(&self.nth, &mut rows, true, |row, value| {
            out_of_range |= u8::try_from(value).is_err();
            row.nth = value as u8;
        })?;
        read_column(&self.quality, &mut rows, true, |row, value| {
            out_of_range |= u32::try_from(value).is_err();
            row.quality = Quality(value as u32);
        })?;
        read_column(&self.clock_offset, &mut rows, true, |row, value| {
            row.clock_offset_ms = optional_from_wire(value);
        })?;
        read_column(&self.occurred, &mut rows, true, |row, value| {
            row.occurred_at = optional_from_wire(value).map(|before| row.captured_at.plus_ms(before.saturating_neg()));
        })?;
        let plausible = UtcMillis::MIN..=UtcMillis::MAX;
        out_of_range |= rows.iter().any(|row| {
            !plausible.contains(&row.captured_at)
                || !plausible.contains(&row.read_at)
                || row.occurred_at.is_some_and(|at| !plausible.contains(&at))
        });
        if out_of_range || self.stamped_by > 1 {
            return Err(invalid(format!("{series}: a value out of its range")));
        }
        let stamped_by = if self.stamped_by == 1 { StampedBy::Gateway } else { StampedBy::Meter };
        Ok(SeriesBlock { series, unit: Unit(self.unit), scaler: self.scaler, stamped_by, rows })
    }
}

/// A missing column holds zeros where it `may_be_absent`.
fn read_column(
    column: &Blob,
    rows: &mut [BlockRow],
    may_be_absent: bool,
    mut put: impl FnMut(&mut BlockRow, i64),
) -> Result<(), DecodeError> {
    if column.0.is_empty() && may_be_absent {
        for row in rows.iter_mut() {
            put(row, 0);
        }
        return Ok(());
    }
    let count = rows.len();
    let decoded = column::decode(&column.0, count, |index, value| {
        if let Some(row) = rows.get_mut(index) {
            put(row, value);
        }
    });
    decoded.ok_or_else(|| DecodeError::Invalid(format!("a column does not hold {count} values")))
}

impl EventWire {
    fn decode(self, sealed_at: UtcMillis) -> Result<BatchEvent, DecodeError> {
        let meter = MeterId::new(&self.meter).map_err(|error| DecodeError::Invalid(error.to_string()))?;
        let read_at = UtcMillis(sealed_at.seconds().saturating_add(self.lag).saturating_mul(1000));
        if !(UtcMillis::MIN..=UtcMillis::MAX).contains(&read_at) {
            return Err(DecodeError::Invalid(format!("event of {meter}: read at no instant: {} ms", read_at.0)));
        }
        let at = sealed_at.plus_ms(self.at);
        let (code, nth, raw) = (self.code, self.nth, self.raw.0);
        Ok(BatchEvent { event: Event { meter, log: self.log, at, nth, code, raw, text: self.text }, read_at })
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
pub(super) mod tests;
