//! Every statement that writes `store.db`, each once, on whatever connection it is given.

use std::collections::HashMap;
use std::sync::Arc;

use protocols::metering::{Event, MeterId, Quality, Quantity, Series, Unit, UtcMillis};
use protocols::uplink::{Batch, BatchEvent, BlockRow, Books, GatewayId, Payload, SeriesBlock};
use rusqlite::{Connection, Transaction, params};

use super::tie::Columns;
use crate::embedded::Pair;
use crate::embedded::front::Core;
use crate::embedded::sqlite::{begin, is_damage, is_doubtful_commit, meta, set_meta};
use crate::store::{StoreBatch, StoreError, WriteTimestamp};

/// Turns the error of a statement: repeating an upsert is always allowed, so "unavailable" says enough.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(super) fn failed(error: rusqlite::Error) -> StoreError {
    if is_damage(&error) { StoreError::Damaged(error.to_string()) } else { StoreError::Unavailable(error.to_string()) }
}

pub(crate) struct StoreCore {
    pub(super) conn: Connection,
    interned: Interned,
    pair: Arc<Pair>,
    /// A commit failed in a way that leaves its outcome open.
    suspect: bool,
}

impl Core for StoreCore {
    fn is_suspect(&self) -> bool {
        self.suspect
    }
}

/// Ids of texts seen since the last failure: a rolled back transaction takes the rows it inserted with it.
#[derive(Default)]
struct Interned {
    meters: HashMap<MeterId, i64>,
    gateways: HashMap<GatewayId, i64>,
    series: HashMap<Series, i64>,
}

/// Entries of each map; some hundred bytes each. Beyond it the map starts anew.
const INTERNED_MAX: usize = 200_000;

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
            write_batch(&tx, &mut self.interned, batch).map_err(failed)?;
        }
        let writes = meta(&tx, "writes").map_err(failed)?.unwrap_or(0) + 1;
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

fn write_batch(tx: &Transaction<'_>, interned: &mut Interned, stored: &StoreBatch) -> rusqlite::Result<()> {
    let (batch, written) = (&stored.batch, stored.write_timestamp());
    let gateway = interned.gateway(tx, &batch.id.gateway)?;
    for block in &batch.blocks {
        let series = interned.series(tx, &block.series)?;
        write_block(tx, series, block, (gateway, &batch.id.gateway), written)?;
    }
    for BatchEvent { event, .. } in &batch.events {
        let meter = interned.meter(tx, &event.meter)?;
        write_event(tx, meter, event, written)?;
    }
    if batch.inventory.is_some() {
        write_inventory(tx, gateway, stored)?;
    }
    Ok(())
}

fn write_block(
    tx: &Transaction<'_>,
    series: i64,
    block: &SeriesBlock,
    (gateway_id, gateway): (i64, &GatewayId),
    written: WriteTimestamp,
) -> rusqlite::Result<()> {
    let mut upsert = tx.prepare_cached(
        "INSERT INTO readings (series_id, captured_at, nth, mantissa, scaler, unit, quality, gateway_id, read_at, \
         occurred_at, written) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
         ON CONFLICT (series_id, captured_at, nth) DO UPDATE SET mantissa = excluded.mantissa, \
         scaler = excluded.scaler, unit = excluded.unit, quality = excluded.quality, \
         gateway_id = excluded.gateway_id, read_at = excluded.read_at, occurred_at = excluded.occurred_at, \
         written = excluded.written WHERE excluded.written > readings.written",
    )?;
    for row in &block.rows {
        let changed = upsert.execute(params![
            series,
            row.captured_at.0,
            row.nth,
            row.mantissa,
            block.scaler,
            block.unit.0,
            row.quality.0,
            gateway_id,
            row.read_at.0,
            row.occurred_at.map(|at| at.0),
            written.0,
        ])?;
        if changed == 0 {
            let columns = Columns {
                quantity: block.quantity(row),
                quality: row.quality,
                gateway: gateway.to_string(),
                read_at: row.read_at,
                occurred_at: row.occurred_at,
            };
            settle_tie(tx, series, row, columns, written)?;
        }
    }
    Ok(())
}

/// The row there is as new as this write, or newer: a repeat or an older revision, which change nothing, or a tie.
fn settle_tie(
    tx: &Transaction<'_>,
    series: i64,
    row: &BlockRow,
    columns: Columns,
    written: WriteTimestamp,
) -> rusqlite::Result<()> {
    let mut select = tx.prepare_cached(
        "SELECT r.mantissa, r.scaler, r.unit, r.quality, g.gateway, r.read_at, r.occurred_at, r.written \
         FROM readings r JOIN gateways g ON g.id = r.gateway_id \
         WHERE r.series_id = ?1 AND r.captured_at = ?2 AND r.nth = ?3",
    )?;
    let (present, present_written) = select.query_row(params![series, row.captured_at.0, row.nth], |row| {
        let columns = Columns {
            quantity: Quantity::new(row.get(0)?, row.get(1)?, Unit(row.get(2)?)),
            quality: Quality(row.get(3)?),
            gateway: row.get(4)?,
            read_at: UtcMillis(row.get(5)?),
            occurred_at: row.get::<_, Option<i64>>(6)?.map(UtcMillis),
        };
        Ok((columns, row.get::<_, i64>(7)?))
    })?;
    if present_written != written.0 || present == columns {
        return Ok(());
    }
    let merged = present.clone().merge(columns);
    if merged == present {
        return Ok(());
    }
    let mut update = tx.prepare_cached(
        "UPDATE readings SET mantissa = ?4, scaler = ?5, unit = ?6, quality = ?7, \
         gateway_id = (SELECT id FROM gateways WHERE gateway = ?8), read_at = ?9, occurred_at = ?10 \
         WHERE series_id = ?1 AND captured_at = ?2 AND nth = ?3",
    )?;
    let changed = update.execute(params![
        series,
        row.captured_at.0,
        row.nth,
        merged.quantity.mantissa,
        merged.quantity.scaler,
        merged.quantity.unit.0,
        merged.quality.0,
        merged.gateway,
        merged.read_at.0,
        merged.occurred_at.map(|at| at.0),
    ])?;
    debug_assert_eq!(changed, 1, "the row was read in this transaction");
    Ok(())
}

/// As for readings; raw value and text are compared by their bytes.
fn write_event(tx: &Transaction<'_>, meter: i64, event: &Event, written: WriteTimestamp) -> rusqlite::Result<()> {
    let mut upsert = tx.prepare_cached(
        "INSERT INTO events (meter_id, at, log, nth, code, raw, text, written) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
         ON CONFLICT (meter_id, at, log, nth, code) DO UPDATE SET \
         raw = CASE WHEN excluded.written > events.written THEN excluded.raw ELSE max(excluded.raw, events.raw) END, \
         text = CASE WHEN excluded.written > events.written THEN excluded.text ELSE max(excluded.text, events.text) END, \
         written = excluded.written WHERE excluded.written >= events.written",
    )?;
    let row = params![meter, event.at.0, event.log, event.nth, event.code, event.raw, event.text, written.0];
    upsert.execute(row).map(drop)
}

/// The greatest effective seal wins, then the greatest seal; a tie of both is the same batch.
fn write_inventory(tx: &Transaction<'_>, gateway: i64, stored: &StoreBatch) -> rusqlite::Result<()> {
    let alone = Batch {
        id: stored.batch.id.clone(),
        sealed_at: stored.batch.sealed_at,
        blocks: Vec::new(),
        events: Vec::new(),
        inventory: stored.batch.inventory.clone(),
        books: Books::default(),
    };
    let payload = Payload::seal(&alone);
    let mut upsert = tx.prepare_cached(
        "INSERT INTO inventories (gateway_id, sealed_effective, sealed_at, uncompressed_bytes, sha256, payload) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (gateway_id) DO UPDATE SET sealed_effective = excluded.sealed_effective, \
         sealed_at = excluded.sealed_at, uncompressed_bytes = excluded.uncompressed_bytes, sha256 = excluded.sha256, \
         payload = excluded.payload WHERE (excluded.sealed_effective, excluded.sealed_at) \
         > (inventories.sealed_effective, inventories.sealed_at)",
    )?;
    let row = params![
        gateway,
        stored.sealed_effective.0,
        stored.batch.sealed_at.0,
        payload.uncompressed_bytes as i64,
        payload.sha256.0,
        payload.bytes,
    ];
    upsert.execute(row).map(drop)
}

impl Interned {
    fn meter(&mut self, tx: &Transaction<'_>, meter: &MeterId) -> rusqlite::Result<i64> {
        intern(&mut self.meters, meter, || {
            let insert = "INSERT INTO meters (meter) VALUES (?1) ON CONFLICT DO NOTHING";
            tx.prepare_cached(insert)?.execute([meter.as_str()])?;
            let select = "SELECT id FROM meters WHERE meter = ?1";
            tx.prepare_cached(select)?.query_row([meter.as_str()], |row| row.get(0))
        })
    }

    fn gateway(&mut self, tx: &Transaction<'_>, gateway: &GatewayId) -> rusqlite::Result<i64> {
        intern(&mut self.gateways, gateway, || {
            let insert = "INSERT INTO gateways (gateway) VALUES (?1) ON CONFLICT DO NOTHING";
            tx.prepare_cached(insert)?.execute([gateway.as_str()])?;
            let select = "SELECT id FROM gateways WHERE gateway = ?1";
            tx.prepare_cached(select)?.query_row([gateway.as_str()], |row| row.get(0))
        })
    }

    fn series(&mut self, tx: &Transaction<'_>, series: &Series) -> rusqlite::Result<i64> {
        if let Some(id) = self.series.get(series) {
            return Ok(*id);
        }
        let meter = self.meter(tx, &series.meter)?;
        intern(&mut self.series, series, || {
            let key = params![meter, series.code.to_string(), series.kind as u8, series.period_s];
            let insert = "INSERT INTO series (meter_id, code, kind, period_s) VALUES (?1, ?2, ?3, ?4) \
                          ON CONFLICT DO NOTHING";
            tx.prepare_cached(insert)?.execute(key)?;
            let select = "SELECT id FROM series WHERE meter_id = ?1 AND code = ?2 AND kind = ?3 AND period_s = ?4";
            tx.prepare_cached(select)?.query_row(key, |row| row.get(0))
        })
    }
}

fn intern<K: Clone + Eq + std::hash::Hash>(
    map: &mut HashMap<K, i64>,
    key: &K,
    id: impl FnOnce() -> rusqlite::Result<i64>,
) -> rusqlite::Result<i64> {
    if let Some(id) = map.get(key) {
        return Ok(*id);
    }
    let id = id()?;
    if map.len() >= INTERNED_MAX {
        map.clear();
    }
    map.insert(key.clone(), id);
    Ok(id)
}
