//! The same durable work as the head-end's, in one loop: a payload file, rows of the store, a row of the log.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use protocols::metering::Series;
use protocols::uplink::{Batch, Payload};
use rusqlite::{Connection, params};
use tests::household::Sealed;

pub(crate) struct Sink {
    landing: PathBuf,
    log: Connection,
    store: Connection,
    series: HashMap<Series, i64>,
    rows: i64,
    batches: i64,
}

impl Sink {
    /// Writes into the tables that the head-end made in this folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let landing = folder.join("bare-landing");
        std::fs::create_dir(&landing)?;
        let (log, store) = (connect(&folder.join("log.db"))?, connect(&folder.join("store.db"))?);
        Ok(Self { landing, log, store, series: HashMap::new(), rows: 0, batches: 0 })
    }

    /// Each payload synced by itself, then one commit of the store and one of the log.
    pub(crate) fn take(&mut self, group: &[Sealed]) -> Result<()> {
        let mut batches = Vec::with_capacity(group.len());
        for sealed in group {
            self.land(sealed)?;
            batches.push(Payload::open(&sealed.payload, sealed.sealed.sha256, sealed.sealed.uncompressed_bytes)?);
        }
        self.upsert(&batches)?;
        self.log_rows(group, &batches)
    }

    fn land(&self, sealed: &Sealed) -> Result<()> {
        let name = sealed.sealed.id.to_string().replace('/', "-");
        let (staged, landed) = (self.landing.join(format!("{name}.staged")), self.landing.join(name));
        let mut file = File::create_new(&staged)?;
        file.write_all(&sealed.payload)?;
        file.sync_all()?;
        std::fs::rename(staged, landed)?;
        Ok(File::open(&self.landing)?.sync_all()?)
    }

    fn upsert(&mut self, batches: &[Batch]) -> Result<()> {
        let transaction = self.store.transaction()?;
        {
            let mut upsert = transaction.prepare_cached(
                "INSERT INTO readings (series_id, captured_at, nth, mantissa, scaler, unit, quality, gateway_id, read_at, \
                 occurred_at, written, row_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
                 ON CONFLICT (series_id, captured_at, nth) DO UPDATE SET mantissa = excluded.mantissa, \
                 scaler = excluded.scaler, unit = excluded.unit, quality = excluded.quality, \
                 gateway_id = excluded.gateway_id, read_at = excluded.read_at, occurred_at = excluded.occurred_at, \
                 written = excluded.written, row_hash = excluded.row_hash WHERE excluded.written > readings.written",
            )?;
            for batch in batches {
                for block in &batch.blocks {
                    let next = self.series.len() as i64 + 1;
                    let series = *self.series.entry(block.series.clone()).or_insert(next);
                    for row in &block.rows {
                        upsert.execute(params![
                            series,
                            row.captured_at.0,
                            row.nth,
                            row.mantissa,
                            block.scaler,
                            block.unit.0,
                            row.quality.0,
                            1,
                            row.read_at.0,
                            row.occurred_at.map(|at| at.0),
                            batch.sealed_at.0 * 1000,
                            row.mantissa & 0xffff_ffff,
                        ])?;
                    }
                }
            }
        }
        Ok(transaction.commit()?)
    }

    fn log_rows(&mut self, group: &[Sealed], batches: &[Batch]) -> Result<()> {
        let transaction = self.log.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO batches (partition, books_offset, readings_first, readings_count, events_first, events_count, \
                 gateway, incarnation, seq, sealed_at, sealed_effective, committed_at, books, uncompressed_bytes, sha256, \
                 row_hash, payload) VALUES (0, ?1, ?2, ?3, 0, 0, ?4, ?5, ?6, ?7, ?7, ?7, x'', ?8, ?9, 0, ?10)",
            )?;
            for (sealed, batch) in group.iter().zip(batches) {
                let readings = batch.reading_count() as i64;
                insert.execute(params![
                    self.batches,
                    self.rows,
                    readings,
                    batch.id.gateway.as_str(),
                    batch.id.incarnation as i64,
                    batch.id.seq as i64,
                    batch.sealed_at.0,
                    sealed.sealed.uncompressed_bytes as i64,
                    sealed.sealed.sha256.0,
                    sealed.payload,
                ])?;
                self.batches += 1;
                self.rows += readings;
            }
        }
        Ok(transaction.commit()?)
    }
}

/// As the head-end opens its files.
fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "mmap_size", 0)?;
    Ok(connection)
}
