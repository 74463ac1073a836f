//! Every statement that only reads `log.db`: batches expanded to flat records, from the middle of a batch too.

use std::sync::Arc;

use protocols::metering::UtcMillis;
use protocols::uplink::{Batch, GatewayId, Payload, Sha256};
use rusqlite::{Connection, params};

use super::core::LogCore;
use super::partition::Partition;
use super::rows::{BatchRow, column, failed, ledger_hash, offset, ref_hash, uplinked_from};
use crate::log::books::decode_books;
use crate::log::{ArchivedEnds, BooksRecord, EventRecord, LogError, ReadingRecord, Topic, Uplinked};
use crate::store::StoreBatch;

/// The batch decoded last: a reader that pages through a large batch comes back to it many times.
#[derive(Default)]
pub(super) struct Decoded(Option<(i64, BatchRow, Arc<Batch>)>);

/// Offset, append time, gateway and content of a ref.
pub(super) type RefRow = (u64, UtcMillis, GatewayId, Uplinked);

pub(super) struct RefPage {
    pub(super) refs: Vec<RefRow>,
    /// Where to go on reading.
    pub(super) next: u64,
}

impl LogCore {
    pub(super) fn ends(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        let end = |partition: &Partition| match topic {
            Topic::Refs => partition.refs_end,
            Topic::Readings => partition.readings_end,
            Topic::Events => partition.events_end,
            Topic::Books => partition.books_end,
        };
        Ok(Partition::all(&self.conn)?.iter().map(end).collect())
    }

    pub(super) fn refs_waiting(&self) -> Result<u64, LogError> {
        let waiting = |partition: &Partition| partition.refs_end.saturating_sub(partition.position);
        Ok(Partition::all(&self.conn)?.iter().map(waiting).sum())
    }

    pub(super) fn starts(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        let first = match topic {
            Topic::Refs => "SELECT min(offset) FROM refs WHERE partition = ?1",
            Topic::Readings => "SELECT min(readings_first) FROM batches WHERE partition = ?1 AND readings_count > 0",
            Topic::Events => "SELECT min(events_first) FROM batches WHERE partition = ?1 AND events_count > 0",
            Topic::Books => {
                "SELECT min(first) FROM (SELECT min(books_offset) AS first FROM batches WHERE partition = ?1 \
                 UNION ALL SELECT min(books_offset) FROM retired WHERE partition = ?1)"
            }
        };
        let mut statement = self.conn.prepare_cached(first).map_err(failed)?;
        let mut starts = Vec::new();
        for (partition, end) in (0u32..).zip(self.ends(topic)?) {
            let start: Option<i64> = statement.query_row([partition], |row| row.get(0)).map_err(failed)?;
            starts.push(start.map_or(end, offset));
        }
        Ok(starts)
    }

    pub(super) fn archived(&self) -> Result<ArchivedEnds, LogError> {
        let partitions = Partition::all(&self.conn)?.into_iter();
        Ok(partitions.filter_map(|partition| Some((partition.number, partition.archived?))).collect())
    }

    pub(super) fn read_readings(
        &mut self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<ReadingRecord>, LogError> {
        let sql = "SELECT id FROM batches WHERE partition = ?1 AND readings_count > 0 AND readings_first < ?3 \
                   AND readings_first >= (SELECT coalesce(max(readings_first), 0) FROM batches \
                     WHERE partition = ?1 AND readings_count > 0 AND readings_first <= ?2) \
                   ORDER BY readings_first";
        let mut records = Vec::new();
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let mut ids = statement.query(params![partition, column(from), column(to)]).map_err(failed)?;
        while let Some(row) = ids.next().map_err(failed)? {
            let (row, batch) = self.decoded.batch(&self.conn, row.get(0).map_err(failed)?)?;
            let (first, count) = row.readings;
            let wanted = from.max(first)..to.min(first + count);
            let mut offset = first;
            // Counted by rows, not by a callback, so that a page from the middle skips whole blocks.
            for block in &batch.blocks {
                let rows = block.rows.len() as u64;
                if offset + rows > wanted.start && offset < wanted.end {
                    for (offset, reading) in (offset..).zip(&block.rows) {
                        if wanted.contains(&offset) && records.len() < max.max(1) {
                            records.push(ReadingRecord {
                                partition,
                                offset,
                                batch: row.id.clone(),
                                index: (offset - first) as u32,
                                sealed_at: row.sealed_at,
                                sealed_effective: row.sealed_effective,
                                reading: block.reading(reading),
                            });
                        }
                    }
                }
                offset += rows;
            }
            if records.len() >= max.max(1) {
                break;
            }
        }
        Ok(records)
    }

    pub(super) fn read_events(
        &mut self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<EventRecord>, LogError> {
        let sql = "SELECT id FROM batches WHERE partition = ?1 AND events_count > 0 AND events_first < ?3 \
                   AND events_first >= (SELECT coalesce(max(events_first), 0) FROM batches \
                     WHERE partition = ?1 AND events_count > 0 AND events_first <= ?2) \
                   ORDER BY events_first";
        let mut records = Vec::new();
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let mut ids = statement.query(params![partition, column(from), column(to)]).map_err(failed)?;
        while let Some(row) = ids.next().map_err(failed)? {
            let (row, batch) = self.decoded.batch(&self.conn, row.get(0).map_err(failed)?)?;
            let first = row.events.0;
            for (offset, event) in (first..to).zip(&batch.events) {
                if offset >= from && records.len() < max.max(1) {
                    records.push(EventRecord {
                        partition,
                        offset,
                        batch: row.id.clone(),
                        index: (offset - first) as u32,
                        sealed_effective: row.sealed_effective,
                        read_at: event.read_at,
                        event: event.event.clone(),
                    });
                }
            }
            if records.len() >= max.max(1) {
                break;
            }
        }
        Ok(records)
    }

    pub(super) fn read_books(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<BooksRecord>, LogError> {
        let of = |table: &str, expired: u8| {
            let columns = BatchRow::COLUMNS;
            let range = "partition = ?1 AND books_offset >= ?2 AND books_offset < ?3";
            format!("SELECT {columns}, {expired} FROM {table} WHERE {range}")
        };
        let sql = format!("{} UNION ALL {} ORDER BY books_offset LIMIT ?4", of("retired", 1), of("batches", 0));
        let mut records = Vec::new();
        let mut statement = self.conn.prepare_cached(&sql).map_err(failed)?;
        let range = params![partition, column(from), column(to), column(max.max(1) as u64)];
        let mut rows = statement.query(range).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let rows_expired = row.get(16).map_err(failed)?;
            let row = BatchRow::read(row, 0)?;
            let damaged = || LogError::Damaged(format!("the books of batch {} are none", row.id));
            records.push(BooksRecord {
                partition,
                offset: row.books_offset,
                books: decode_books(&row.books).ok_or_else(damaged)?,
                batch: row.id,
                sealed_at: row.sealed_at,
                sealed_effective: row.sealed_effective,
                committed_at: row.committed_at,
                rows_expired,
            });
        }
        Ok(records)
    }

    pub(super) fn read_ledger(&self) -> Result<Vec<(GatewayId, Vec<u8>)>, LogError> {
        ledger_of(&self.conn, None)
    }

    /// At most `max` refs, and no more once their content exceeds `bytes_max`. A ref that is not what was written is left out:
    /// its gateway, having no receipt, will repeat it.
    pub(super) fn read_refs(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        (max, bytes_max): (usize, usize),
    ) -> Result<RefPage, LogError> {
        let sql = "SELECT offset, appended_at, gateway, kind, content, row_hash FROM refs \
                   WHERE partition = ?1 AND offset >= ?2 AND offset < ?3 ORDER BY offset";
        let mut page = RefPage { refs: Vec::new(), next: to };
        let mut bytes = 0;
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(params![partition, column(from), column(to)]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let at = offset(row.get(0).map_err(failed)?);
            let appended_at = UtcMillis(row.get(1).map_err(failed)?);
            let gateway: String = row.get(2).map_err(failed)?;
            let (kind, content): (i64, Vec<u8>) = (row.get(3).map_err(failed)?, row.get(4).map_err(failed)?);
            let hash: i64 = row.get(5).map_err(failed)?;
            bytes += content.len();
            let intact = hash == ref_hash(partition, at, appended_at, &gateway, kind, &content);
            let found = GatewayId::new(&gateway).ok().filter(|_| intact).zip(uplinked_from(kind, content));
            let Some((gateway, uplinked)) = found else {
                tracing::error!(partition, offset = at, gateway, "a ref in the log is damaged and is left out");
                continue;
            };
            page.refs.push((at, appended_at, gateway, uplinked));
            if page.refs.len() >= max.max(1) || bytes >= bytes_max {
                page.next = at + 1;
                break;
            }
        }
        Ok(page)
    }

    /// Committed batches as they went into the store, in the order of their commits: row id and batch, behind row id `after`.
    /// A row that is not what was written has its error in place of the batch.
    #[expect(clippy::type_complexity, reason = "a page of rows, each with its own outcome")]
    pub(crate) fn batches_after(
        &mut self,
        after: i64,
        (max, readings_max): (usize, usize),
    ) -> Result<Vec<(i64, Result<StoreBatch, LogError>)>, LogError> {
        let mut batches = Vec::new();
        let mut readings = 0;
        let sql = "SELECT id FROM batches WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let mut ids = statement.query(params![after, column(max as u64)]).map_err(failed)?;
        while let Some(row) = ids.next().map_err(failed)? {
            let id = row.get(0).map_err(failed)?;
            let batch = self.decoded.batch(&self.conn, id).map(|(row, batch)| {
                readings += row.readings.1 as usize;
                StoreBatch { batch: Arc::clone(batch), sealed_effective: row.sealed_effective }
            });
            batches.push((id, batch));
            if readings >= readings_max {
                break;
            }
        }
        Ok(batches)
    }

    /// Whether the rows of some batches have left the log. Told by the beginning of each partition, which outlives the books of
    /// what left.
    pub(crate) fn have_rows_left(&self) -> Result<bool, LogError> {
        for partition in Partition::all(&self.conn)? {
            let sql = "SELECT min(books_offset) FROM batches WHERE partition = ?1";
            let first: Option<i64> = self
                .conn
                .prepare_cached(sql)
                .and_then(|mut statement| statement.query_row([partition.number], |row| row.get(0)))
                .map_err(failed)?;
            if first.map_or(partition.books_end, offset) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many batches there are.
    pub(crate) fn batch_count(&self) -> Result<u64, LogError> {
        let count = self.conn.query_row("SELECT count(*) FROM batches", [], |row| row.get(0));
        count.map(offset).map_err(failed)
    }
}

impl Decoded {
    fn batch(&mut self, conn: &Connection, id: i64) -> Result<(&BatchRow, &Arc<Batch>), LogError> {
        if self.0.as_ref().is_none_or(|(decoded, ..)| *decoded != id) {
            self.0 = None;
            let sql = format!("SELECT {}, payload FROM batches WHERE id = ?1", BatchRow::COLUMNS);
            let mut statement = conn.prepare_cached(&sql).map_err(failed)?;
            let mut rows = statement.query([id]).map_err(failed)?;
            let missing = || LogError::Damaged(format!("an index names batch row {id}, which is not there"));
            let row = rows.next().map_err(failed)?.ok_or_else(missing)?;
            let batch = BatchRow::read(row, 0)?;
            let payload = row.get_ref(16).and_then(|payload| Ok(payload.as_blob()?)).map_err(failed)?;
            let opened = open_payload(&batch, payload)?;
            self.0 = Some((id, batch, Arc::new(opened)));
        }
        let (_, row, batch) = self.0.as_ref().expect("just put there");
        Ok((row, batch))
    }
}

/// The batch of a row, compared with what the row says of it.
pub(super) fn open_payload(row: &BatchRow, payload: &[u8]) -> Result<Batch, LogError> {
    let damaged = |what: &str| LogError::Damaged(format!("batch {}: {what}", row.id));
    let batch = Payload::open_resealed(payload, Sha256(row.sha256), row.uncompressed_bytes)
        .map_err(|error| damaged(&error.to_string()))?;
    let counts = (batch.reading_count() as u64, batch.events.len() as u64);
    if batch.id != row.id || counts != (row.readings.1, row.events.1) {
        return Err(damaged("its payload is another batch's"));
    }
    Ok(batch)
}

/// The newest ledger record of every gateway, of one partition or of all.
pub(super) fn ledger_of(conn: &Connection, partition: Option<u32>) -> Result<Vec<(GatewayId, Vec<u8>)>, LogError> {
    let sql = match partition {
        Some(_) => "SELECT gateway, partition, record, row_hash FROM ledger WHERE partition = ?1 ORDER BY gateway",
        None => "SELECT gateway, partition, record, row_hash FROM ledger ORDER BY gateway",
    };
    let mut ledger = Vec::new();
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(rusqlite::params_from_iter(partition)).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let gateway: String = row.get(0).map_err(failed)?;
        let (partition, record): (u32, Vec<u8>) = (row.get(1).map_err(failed)?, row.get(2).map_err(failed)?);
        let hash: i64 = row.get(3).map_err(failed)?;
        let damaged = || LogError::Damaged(format!("the ledger record of {gateway:?} is not what was written"));
        if hash != ledger_hash(&gateway, partition, &record) {
            return Err(damaged());
        }
        ledger.push((GatewayId::new(&gateway).map_err(|_| damaged())?, record));
    }
    Ok(ledger)
}
