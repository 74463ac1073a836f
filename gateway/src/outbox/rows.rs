//! A row as it lies in the file.

use protocols::bytes::Reader;
use protocols::metering::{Event, MeterId, Quality, Quantity, Reading, StampedBy, Unit, UtcMillis};
use rusqlite::{Row, Statement};

/// The gateway's clock gave the instant.
pub(super) const STAMPED_BY_GATEWAY: i64 = 1;
/// Stored with a greater instant than every row of its series then in the file.
pub(super) const FRESH: i64 = 2;
/// Read under another identity than configured; waits for `outbox accept`.
pub(super) const HELD_IDENTITY: i64 = 4;
/// Stamped by a clock that was not trusted; `captured_at` is uptime in ms, `body` the boot's id. Waits for trust.
pub(super) const HELD_CLOCK: i64 = 8;
/// Its CRC was wrong: never sent, kept for inspection.
pub(super) const DAMAGED: i64 = 16;

pub(super) const HELD: i64 = HELD_IDENTITY | HELD_CLOCK | DAMAGED;

pub(super) const COLUMNS: &str = "id, series, captured_at, nth, mantissa, scaler, unit, quality, read_at, occurred_at, clock_offset_ms, flags, body, crc";
pub(super) const INSERT: &str = "INSERT INTO rows (id, series, captured_at, nth, mantissa, scaler, unit, quality, read_at, occurred_at, clock_offset_ms, flags, body, crc)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredRow {
    pub id: u64,
    /// 0 for an event.
    pub series: i64,
    pub captured_at: UtcMillis,
    pub nth: u8,
    pub quantity: Quantity,
    pub quality: Quality,
    pub read_at: UtcMillis,
    pub occurred_at: Option<UtcMillis>,
    pub clock_offset_ms: Option<i64>,
    pub flags: i64,
    pub body: Option<Vec<u8>>,
    /// As read from the file; recomputed on insert.
    pub crc: u32,
}

impl StoredRow {
    pub(super) fn of_reading(id: u64, series: i64, reading: &Reading, flags: i64) -> Self {
        let by_gateway = if reading.stamped_by == StampedBy::Gateway { STAMPED_BY_GATEWAY } else { 0 };
        Self {
            id,
            series,
            captured_at: reading.captured_at,
            nth: reading.nth,
            quantity: reading.quantity,
            quality: reading.quality,
            read_at: reading.read_at,
            occurred_at: reading.occurred_at,
            clock_offset_ms: reading.clock_offset_ms,
            flags: flags | by_gateway,
            body: None,
            crc: 0,
        }
    }

    pub(super) fn of_event(id: u64, event: &Event, read_at: UtcMillis, flags: i64) -> Self {
        Self {
            id,
            series: 0,
            captured_at: event.at,
            nth: event.nth,
            quantity: Quantity::new(event.code, 0, Unit::COUNT),
            quality: Quality::GOOD,
            read_at,
            occurred_at: None,
            clock_offset_ms: None,
            flags,
            body: Some(encode_event(event)),
            crc: 0,
        }
    }

    pub(super) fn stamped_by(&self) -> StampedBy {
        if self.flags & STAMPED_BY_GATEWAY == 0 { StampedBy::Meter } else { StampedBy::Gateway }
    }

    pub(super) fn event(&self) -> Option<Event> {
        decode_event(self.body.as_deref()?, self.captured_at, self.nth, self.quantity.mantissa)
    }

    pub(super) fn is_event(&self) -> bool {
        self.series == 0
    }

    /// CRC-32 over everything but the id and the flags that change while the row waits.
    pub(super) fn compute_crc(&self) -> u32 {
        let mut hash = crc32fast::Hasher::new();
        let optional = |value: Option<i64>| {
            value.map_or([0; 9], |value| {
                let mut bytes = [1; 9];
                bytes[1..].copy_from_slice(&value.to_le_bytes());
                bytes
            })
        };
        let mut fixed = [0u8; 64];
        fixed[..8].copy_from_slice(&self.series.to_le_bytes());
        fixed[8..16].copy_from_slice(&self.captured_at.0.to_le_bytes());
        fixed[16..24].copy_from_slice(&self.quantity.mantissa.to_le_bytes());
        fixed[24..32].copy_from_slice(&self.read_at.0.to_le_bytes());
        fixed[32..36].copy_from_slice(&self.quality.0.to_le_bytes());
        fixed[36..40].copy_from_slice(&[
            self.nth,
            self.quantity.scaler.to_le_bytes()[0],
            self.quantity.unit.0,
            (self.flags & STAMPED_BY_GATEWAY) as u8,
        ]);
        fixed[40..49].copy_from_slice(&optional(self.occurred_at.map(|at| at.0)));
        fixed[49..58].copy_from_slice(&optional(self.clock_offset_ms));
        hash.update(&fixed);
        hash.update(self.body.as_deref().unwrap_or_default());
        hash.finalize()
    }

    pub(super) fn insert(&self, statement: &mut Statement<'_>) -> rusqlite::Result<()> {
        // One by one and in their own types: a list of `ToSql` takes a fifth longer for the whole insert.
        statement.raw_bind_parameter(1, self.id as i64)?;
        statement.raw_bind_parameter(2, self.series)?;
        statement.raw_bind_parameter(3, self.captured_at.0)?;
        statement.raw_bind_parameter(4, self.nth)?;
        statement.raw_bind_parameter(5, self.quantity.mantissa)?;
        statement.raw_bind_parameter(6, self.quantity.scaler)?;
        statement.raw_bind_parameter(7, self.quantity.unit.0)?;
        statement.raw_bind_parameter(8, self.quality.0)?;
        statement.raw_bind_parameter(9, self.read_at.0)?;
        statement.raw_bind_parameter(10, self.occurred_at.map(|at| at.0))?;
        statement.raw_bind_parameter(11, self.clock_offset_ms)?;
        statement.raw_bind_parameter(12, self.flags)?;
        statement.raw_bind_parameter(13, self.body.as_deref())?;
        statement.raw_bind_parameter(14, self.compute_crc())?;
        statement.raw_execute()?;
        Ok(())
    }

    /// Reads [`COLUMNS`]. A value out of its range is an error here as a wrong CRC is one for the caller: both are damage.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let quantity = Quantity::new(row.get(4)?, row.get(5)?, Unit(row.get(6)?));
        Ok(Self {
            id: row.get::<_, i64>(0)? as u64,
            series: row.get(1)?,
            captured_at: UtcMillis(row.get(2)?),
            nth: row.get(3)?,
            quantity,
            quality: Quality(row.get(7)?),
            read_at: UtcMillis(row.get(8)?),
            occurred_at: row.get::<_, Option<i64>>(9)?.map(UtcMillis),
            clock_offset_ms: row.get(10)?,
            flags: row.get(11)?,
            body: row.get(12)?,
            crc: row.get(13)?,
        })
    }
}

/// Meter, log, raw and text, each as length (u32, big endian) and bytes; the rest has columns.
fn encode_event(event: &Event) -> Vec<u8> {
    let parts = [event.meter.as_str().as_bytes(), event.log.as_bytes(), &event.raw, event.text.as_bytes()];
    let mut body = Vec::with_capacity(16 + parts.iter().map(|part| part.len()).sum::<usize>());
    for part in parts {
        body.extend_from_slice(&(part.len() as u32).to_be_bytes());
        body.extend_from_slice(part);
    }
    body
}

fn decode_event(body: &[u8], at: UtcMillis, nth: u8, code: i64) -> Option<Event> {
    let mut reader = Reader::new(body);
    let mut part = || {
        let len = usize::try_from(reader.u32().ok()?).ok()?;
        reader.take(len).ok()
    };
    let meter = MeterId::new(std::str::from_utf8(part()?).ok()?).ok()?;
    let log = std::str::from_utf8(part()?).ok()?.to_owned();
    let raw = part()?.to_vec();
    let text = std::str::from_utf8(part()?).ok()?.to_owned();
    Some(Event { meter, log, at, nth, code, raw, text })
}
