//! Every statement that writes `store.db`, each once, on whatever connection it is given.

use std::sync::Arc;

use protocols::metering::{Event, Series};
use protocols::uplink::{BatchEvent, GatewayId, Payload, SeriesBlock};
use rusqlite::{Connection, OptionalExtension as _, Statement, Transaction, params};

use super::interned::Interned;
use super::rows::{ReadingRow, event_hash, failed, inventory_hash};
use super::tie::Columns;
use crate::embedded::Pair;
use crate::embedded::front::Core;
use crate::embedded::sqlite::{begin, is_doubtful_commit, meta, set_meta};
use crate::store::{StoreBatch, StoreError, WriteTimestamp, seal_inventory};

pub(crate) struct StoreCore {
    pub(super) conn: Connection,
    pub(super) interned: Interned,
    pair: Arc<Pair>,
    /// A commit failed in a way that leaves its outcome open.
    suspect: bool,
}

impl Core for StoreCore {
    fn is_suspect(&self) -> bool {
        self.suspect
    }
}

impl StoreCore {
    /// On a connection whose schema is there.
    pub(crate) fn new(conn: Connection, pair: Arc<Pair>) -> Self {
        Self { conn, interned: Interned::default(), pair, suspect: false }
    }

    /// One transaction, one fsync, whatever the number of batches.
    pub(super) fn upsert(&mut self, batches: &[StoreBatch]) -> Result<(), StoreError> {
        let result = self.try_upsert(batches);
        if result.is_err() {
            self.interned = Interned::default();
        }
        result
    }

    fn try_upsert(&mut self, batches: &[StoreBatch]) -> Result<(), StoreError> {
        batches.iter().try_for_each(check)?;
        if batches.is_empty() {
            return Ok(());
        }
        let tx = begin(&mut self.conn).map_err(failed)?;
        for batch in batches {
            write_batch(&tx, &mut self.interned, batch)?;
        }
        let damaged = || StoreError::Damaged("the number of writes is not what was written".to_owned());
        let writes = meta(&tx, "writes").map_err(failed)?.ok_or_else(damaged)? + 1;
        set_meta(&tx, "writes", writes).map_err(failed)?;
        set_meta(&tx, "log_commit", self.pair.log_commits() + 1).map_err(failed)?;
        tx.commit().map_err(|error| {
            self.suspect = is_doubtful_commit(&error);
            failed(error)
        })?;
        self.pair.set_store_writes(writes);
        Ok(())
    }

    /// The end of a rebuild: the store holds what the log holds.
    pub(super) fn end_rebuild(&mut self) -> Result<(), StoreError> {
        let tx = begin(&mut self.conn).map_err(failed)?;
        set_meta(&tx, "rebuild", 0).map_err(failed)?;
        tx.commit().map_err(failed)
    }
}

/// What no store can hold (Cassandra's `int`) is refused here too, before anything is written.
fn check(batch: &StoreBatch) -> Result<(), StoreError> {
    match batch.batch.blocks.iter().find(|block| i32::try_from(block.series.period_s).is_err()) {
        None => Ok(()),
        Some(block) => Err(StoreError::Refused(format!("{}: the period is out of range", block.series))),
    }
}

fn write_batch(tx: &Transaction<'_>, interned: &mut Interned, stored: &StoreBatch) -> Result<(), StoreError> {
    let (batch, written) = (&stored.batch, stored.write_timestamp());
    let gateway = interned.gateway(tx, &batch.id.gateway)?;
    for block in &batch.blocks {
        write_block(tx, interned, block, (gateway, &batch.id.gateway), written)?;
    }
    for BatchEvent { event, .. } in &batch.events {
        let meter = interned.meter(tx, &event.meter)?;
        write_event(tx, meter, event, written)?;
    }
    seal_inventory(batch).map_or(Ok(()), |payload| write_inventory(tx, gateway, stored, &payload))
}

const UPSERT_READING: &str = "\
    INSERT INTO readings (series_id, captured_at, nth, mantissa, scaler, unit, quality, gateway_id, read_at, \
    occurred_at, written, row_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
    ON CONFLICT (series_id, captured_at, nth) DO UPDATE SET mantissa = excluded.mantissa, scaler = excluded.scaler, \
    unit = excluded.unit, quality = excluded.quality, gateway_id = excluded.gateway_id, read_at = excluded.read_at, \
    occurred_at = excluded.occurred_at, written = excluded.written, row_hash = excluded.row_hash";

fn write_block(
    tx: &Transaction<'_>,
    interned: &mut Interned,
    block: &SeriesBlock,
    (gateway_id, gateway): (i64, &GatewayId),
    written: WriteTimestamp,
) -> Result<(), StoreError> {
    let series_id = interned.series(tx, &block.series)?;
    let newer = format!("{UPSERT_READING} WHERE excluded.written > readings.written");
    let mut upsert = tx.prepare_cached(&newer).map_err(failed)?;
    for row in &block.rows {
        let row = ReadingRow {
            series_id,
            captured_at: row.captured_at,
            nth: row.nth,
            quantity: block.quantity(row),
            quality: row.quality,
            gateway_id,
            read_at: row.read_at,
            occurred_at: row.occurred_at,
            written,
        };
        if !row.write(&mut upsert)? {
            settle_tie(tx, interned, &row, gateway, &block.series)?;
        }
    }
    Ok(())
}

impl ReadingRow {
    /// Whether the statement changed anything.
    fn write(&self, statement: &mut Statement<'_>) -> Result<bool, StoreError> {
        // One by one and in their own types: a list of `ToSql` takes a fifth longer for the whole row.
        let mut bind_and_run = || {
            statement.raw_bind_parameter(1, self.series_id)?;
            statement.raw_bind_parameter(2, self.captured_at.0)?;
            statement.raw_bind_parameter(3, self.nth)?;
            statement.raw_bind_parameter(4, self.quantity.mantissa)?;
            statement.raw_bind_parameter(5, self.quantity.scaler)?;
            statement.raw_bind_parameter(6, self.quantity.unit.0)?;
            statement.raw_bind_parameter(7, self.quality.0)?;
            statement.raw_bind_parameter(8, self.gateway_id)?;
            statement.raw_bind_parameter(9, self.read_at.0)?;
            statement.raw_bind_parameter(10, self.occurred_at.map(|at| at.0))?;
            statement.raw_bind_parameter(11, self.written.0)?;
            statement.raw_bind_parameter(12, self.hash())?;
            statement.raw_execute()
        };
        let changed = bind_and_run();
        changed.map(|changed| changed > 0).map_err(failed)
    }

    fn columns(&self, gateway: &GatewayId) -> Columns {
        Columns {
            quantity: self.quantity,
            quality: self.quality,
            gateway: gateway.clone(),
            read_at: self.read_at,
            occurred_at: self.occurred_at,
        }
    }
}

/// The row there is as new as this one, or newer: a repeat or an older revision, which change nothing, or a tie.
fn settle_tie(
    tx: &Transaction<'_>,
    interned: &mut Interned,
    row: &ReadingRow,
    gateway: &GatewayId,
    series: &Series,
) -> Result<(), StoreError> {
    let sql =
        format!("SELECT {} FROM readings WHERE series_id = ?1 AND captured_at = ?2 AND nth = ?3", ReadingRow::COLUMNS);
    let mut select = tx.prepare_cached(&sql).map_err(failed)?;
    let key = params![row.series_id, row.captured_at.0, row.nth];
    let present = select.query_row(key, ReadingRow::read).map_err(failed)?;
    let damaged = || StoreError::Damaged(format!("{series} at {} is not what was written", row.captured_at));
    let present = present.ok_or_else(damaged)?;
    if present.written != row.written || present == *row {
        return Ok(());
    }
    let present_gateway = interned.gateway_name(tx, present.gateway_id)?;
    let merged = present.columns(&present_gateway).merge(row.columns(gateway));
    let gateway_id = interned.gateway(tx, &merged.gateway)?;
    let Columns { quantity, quality, read_at, occurred_at, .. } = merged;
    let merged = ReadingRow { quantity, quality, gateway_id, read_at, occurred_at, ..present.clone() };
    if merged != present {
        let mut upsert = tx.prepare_cached(UPSERT_READING).map_err(failed)?;
        assert!(merged.write(&mut upsert)?, "a row that is there is replaced");
    }
    Ok(())
}

/// As for readings; raw value and text are compared by their bytes.
fn write_event(tx: &Transaction<'_>, meter: i64, event: &Event, written: WriteTimestamp) -> Result<(), StoreError> {
    let sql =
        "SELECT raw, text, written FROM events WHERE meter_id = ?1 AND at = ?2 AND log = ?3 AND nth = ?4 AND code = ?5";
    let mut select = tx.prepare_cached(sql).map_err(failed)?;
    let key = params![meter, event.at.0, event.log, event.nth, event.code];
    let present: Option<(Vec<u8>, String, i64)> =
        select.query_row(key, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional().map_err(failed)?;
    let mut event = event.clone();
    match present {
        Some((.., present)) if present > written.0 => return Ok(()),
        Some((raw, text, present)) if present == written.0 => {
            if (&raw, &text) == (&event.raw, &event.text) {
                return Ok(());
            }
            event.raw = event.raw.max(raw);
            event.text = event.text.max(text);
        }
        _ => {}
    }
    let sql = "INSERT OR REPLACE INTO events (meter_id, at, log, nth, code, raw, text, written, row_hash) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let hash = event_hash(meter, &event, written);
    let row = params![meter, event.at.0, event.log, event.nth, event.code, event.raw, event.text, written.0, hash];
    tx.prepare_cached(sql).and_then(|mut insert| insert.execute(row)).map(drop).map_err(failed)
}

/// The greatest effective seal wins, then the greatest seal; a tie of both is the same batch.
fn write_inventory(
    tx: &Transaction<'_>,
    gateway: i64,
    stored: &StoreBatch,
    payload: &Payload,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO inventories (gateway_id, sealed_effective, sealed_at, uncompressed_bytes, sha256, payload, \
         row_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT (gateway_id) DO UPDATE SET sealed_effective = excluded.sealed_effective, \
         sealed_at = excluded.sealed_at, uncompressed_bytes = excluded.uncompressed_bytes, sha256 = excluded.sha256, \
         payload = excluded.payload, row_hash = excluded.row_hash \
         WHERE (excluded.sealed_effective, excluded.sealed_at) > (inventories.sealed_effective, inventories.sealed_at)";
    let (effective, sealed_at) = (stored.sealed_effective, stored.batch.sealed_at);
    let hash = inventory_hash(gateway, effective, sealed_at, &payload.bytes);
    let uncompressed = payload.uncompressed_bytes as i64;
    let row = params![gateway, effective.0, sealed_at.0, uncompressed, payload.sha256.0, payload.bytes, hash];
    tx.prepare_cached(sql).and_then(|mut upsert| upsert.execute(row)).map(drop).map_err(failed)
}
